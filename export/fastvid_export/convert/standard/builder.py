"""Writes standard nodes one after another, with names that nothing else in the graph has."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Builder:
    """The nodes and weights that take the place of one node.

    Args:
        prefix: What every name starts with.
        opset: Version of the standard operators in the graph.
    """

    def __init__(self, prefix: str, opset: int) -> None:
        self._prefix = prefix
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._numbers = itertools.count()
        self._constants: dict[tuple[bytes, str, tuple[int, ...]], str] = {}

    def op(self, kind: str, *inputs: str, count: int = 1, **attributes: Any) -> Any:
        """The output of a new node, or a list of `count` of them."""
        names = [f"{self._prefix}.{next(self._numbers)}.{kind}" for _ in range(count)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names[0] if count == 1 else names

    def name_result(self, value: str, name: str) -> None:
        """Gives a value the name that the graph knows it by."""
        if not any(value in node.output for node in self.nodes):
            self.nodes.append(helper.make_node("Identity", [value], [name]))
            return
        for node in self.nodes:
            for names in (node.input, node.output):
                for i, old in enumerate(names):
                    if old == value:
                        names[i] = name

    def const(self, value: Any, dtype: Any = np.float32) -> str:
        """A constant; equal ones are one."""
        array = np.asarray(value, dtype)
        key = (array.tobytes(), str(array.dtype), array.shape)
        if key not in self._constants:
            name = f"{self._prefix}.constant.{len(self.weights)}"
            self._constants[key] = name
            self.weights.append(numpy_helper.from_array(array, name))
        return self._constants[key]

    def ints(self, *values: int) -> str:
        """A constant int64 vector."""
        return self.const(values, np.int64)

    def loop(
        self,
        trips: str,
        state: Sequence[str],
        body: Callable[..., Sequence[str]],
        *,
        booleans: int = 0,
    ) -> list[str]:
        """Runs a body a number of times.

        Args:
            trips: int64 scalar.
            state: Values before the first turn; their sizes may change.
            body: Called with a builder, the number of the turn (int64 scalar) and the state; gives
                the new state. It may name what is outside. Its constants are the builder's.
            booleans: How many of the state, from the last, are boolean; the others are float32.

        Returns:
            The state after the last turn.
        """
        inner = Builder(self._prefix, self.opset)
        inner.weights, inner._constants = self.weights, self._constants
        inner._numbers = self._numbers
        turn, go, *ports = (
            f"{self._prefix}.{next(self._numbers)}.{what}"
            for what in ("turn", "go", *("state" for _ in state))
        )
        results = body(inner, turn, *ports)
        # A body must not give out what it took in.
        outputs = [inner.op("Identity", name) for name in (go, *results)]
        kinds = [TensorProto.FLOAT] * (len(state) - booleans) + [TensorProto.BOOL] * booleans
        info = helper.make_tensor_value_info
        graph = helper.make_graph(
            inner.nodes,
            f"{turn}s",
            [
                info(turn, TensorProto.INT64, []),
                info(go, TensorProto.BOOL, []),
                *(info(name, kind, None) for name, kind in zip(ports, kinds, strict=True)),
            ],
            [
                info(outputs[0], TensorProto.BOOL, []),
                *(info(name, kind, None) for name, kind in zip(outputs[1:], kinds, strict=True)),
            ],
        )
        found = self.op("Loop", trips, "", *state, count=len(state), body=graph)
        return [found] if isinstance(found, str) else list(found)

    # Shorthands

    def cast(self, x: str, dtype: int = TensorProto.FLOAT) -> str:
        """`x` as another element type."""
        return str(self.op("Cast", x, to=dtype))

    def transpose(self, x: str, *order: int) -> str:
        """`x` with its axes in another order."""
        return str(self.op("Transpose", x, perm=list(order)))

    def size(self, x: str, axis: int) -> str:
        """int64 (1,): the size of an axis."""
        return str(self.op("Shape", x, start=axis, end=axis + 1))

    def scalar_size(self, x: str, axis: int) -> str:
        """int64 scalar: the size of an axis."""
        return str(self.op("Squeeze", self.size(x, axis), self.ints(0)))

    def part(self, x: str, axis: int, begin: int, end: int, step: int = 1) -> str:
        """A slice along one axis."""
        return str(
            self.op("Slice", x, self.ints(begin), self.ints(end), self.ints(axis), self.ints(step))
        )

    def reduce(self, kind: str, x: str, axes: Sequence[int]) -> str:
        """A reduction that keeps its axes: their number is an input from opset 18 on (sums: 13)."""
        if self.opset >= (13 if kind == "ReduceSum" else 18):
            return str(self.op(kind, x, self.ints(*axes), keepdims=1))
        return str(self.op(kind, x, axes=list(axes), keepdims=1))

    def clip(self, x: str, low: str, high: str) -> str:
        """`x` between two values, which need not be constant."""
        return str(self.op("Min", self.op("Max", x, low), high))

    def no_nan(self, x: str) -> str:
        """`x` with 0 where it is not a number."""
        return str(self.op("Where", self.op("IsNaN", x), self.const(0), x))

    def sample(self, image: str, x: str, y: str, *, zeros: bool = False) -> str:
        """`image` (N, C, H, W) read bilinearly at pixels x and y, float32 (N, h, w)."""
        grid = []
        for at, axis in ((x, 3), (y, 2)):
            # Further out nothing changes, and runtimes cast to integers that would overflow.
            size = self.cast(self.size(image, axis))
            at = self.clip(at, self.const(-2), self.op("Add", size, self.const(1)))
            # GridSample counts in sides of the image from its middle; a pixel's centre is at half.
            twice = self.op("Add", self.op("Mul", at, self.const(2)), self.const(1))
            share = self.op("Div", twice, size)
            scaled = self.op("Sub", share, self.const(1))
            grid.append(self.op("Unsqueeze", scaled, self.ints(3)))
        return str(
            self.op(
                "GridSample",
                image,
                self.op("Concat", *grid, axis=3),
                mode="linear" if self.opset >= 20 else "bilinear",
                padding_mode="zeros" if zeros else "border",
                align_corners=0,
            )
        )
