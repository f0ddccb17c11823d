"""Checks of what goes into and comes out of a graph, against its description in the bundle."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from fastvid._specs import GraphSpec, SizeRule, TensorSpec
from fastvid.backends._cuda import DeviceArray
from fastvid.errors import DeviceError, InputError, InputTypeError

Arrays = Mapping[str, Any]

# Larger arrays hold pixels or features; looking at each value would cost as much as a small layer.
_MAX_CHECKED_VALUES = 256


class InputCheck:
    """Holds the inputs of one call against the graph's description.

    Sizes that share a name must be equal within a call, and those called H and W, the height and
    width of frames, must keep the bundle's size rule.

    Args:
        graph: The graph.
        rule: The bundle's size rule.
        device: Where a `DeviceArray` must be, `cuda:N`; `cpu` takes none.
    """

    def __init__(self, graph: GraphSpec, rule: SizeRule, device: str = "cpu") -> None:
        self._graph = graph.name
        self._rule = rule
        self._device = device
        self._outputs = frozenset(spec.name for spec in graph.outputs)
        self._tensors = [
            (spec, np.dtype(spec.dtype), [dimension(size) for size in spec.shape])
            for spec in graph.inputs
        ]

    def __call__(self, inputs: Arrays, keep: Collection[str] = ()) -> dict[str, tuple[int, str]]:
        """Checks one call.

        Returns:
            Size of each symbol in the shapes, and the input it was found in.

        Raises:
            InputTypeError: An input is not an array, or has another dtype.
            InputError: An input is missing, unknown, on another device, or has another shape or
                range; or `keep` names an output that there is not.
        """
        if keep:
            self._check_keep(keep)
        if not isinstance(inputs, Mapping):
            raise InputTypeError(
                f"{self._graph}: inputs must be a dict of arrays, got {type(inputs).__name__}"
            )
        if len(inputs) != len(self._tensors) or any(
            spec.name not in inputs for spec, _, _ in self._tensors
        ):
            wanted = sorted(spec.name for spec, _, _ in self._tensors)
            got = sorted(map(str, inputs))
            raise InputError(f"{self._graph}: inputs must be {wanted}, got {got}")
        sizes: dict[str, tuple[int, str]] = {}
        for spec, dtype, dimensions in self._tensors:
            array = inputs[spec.name]
            on_device = isinstance(array, DeviceArray)
            if on_device:
                self._check_device(spec, array)
            elif not isinstance(array, np.ndarray):
                raise self._type_error(spec, "be a NumPy array", type(array).__name__)
            if array.dtype != dtype:
                raise self._type_error(spec, f"have dtype {spec.dtype}", str(array.dtype))
            self._check_shape(spec, array.shape, dimensions, sizes)
            if spec.range is not None and not on_device and array.size <= _MAX_CHECKED_VALUES:
                self._check_range(spec, array)
        if "H" in sizes and "W" in sizes:
            self._check_size(sizes["H"][0], sizes["W"][0])
        return sizes

    def _check_keep(self, keep: Collection[str]) -> None:
        if isinstance(keep, str):
            raise InputTypeError(f"{self._graph}: keep must be a set of names, got {keep!r}")
        if unknown := sorted(set(keep) - self._outputs):
            raise InputError(
                f"{self._graph}: keep must be among {sorted(self._outputs)}, got {unknown}"
            )

    def _check_device(self, spec: TensorSpec, array: DeviceArray) -> None:
        if array.device != self._device:
            raise InputError(
                f"{self._graph}: input {spec.name!r} must be on {self._device}, got an array on "
                f"{array.device}",
                hint="array.numpy() copies it to the host",
            )

    def _check_shape(
        self,
        spec: TensorSpec,
        shape: tuple[int, ...],
        dimensions: list[tuple[int, str]],
        sizes: dict[str, tuple[int, str]],
    ) -> None:
        if len(shape) != len(dimensions):
            raise self._shape_error(spec, shape)
        for size, (factor, symbol) in zip(shape, dimensions, strict=True):
            if size < 1 or (size % factor if symbol else size != factor):
                raise self._shape_error(spec, shape)
            if symbol:
                known, first = sizes.setdefault(symbol, (size // factor, spec.name))
                if known * factor != size:
                    raise InputError(
                        f"{self._graph}: input {spec.name!r} must have {symbol}={known} as in "
                        f"{first!r}, got shape {shape}"
                    )

    def _check_range(self, spec: TensorSpec, array: np.ndarray[Any, Any]) -> None:
        low, high = spec.range or (0.0, 0.0)
        # Written so that NaN fails.
        if not bool(np.all((array >= low) & (array <= high))):
            values = np.array2string(array.reshape(-1)[:4], separator=", ")
            raise InputError(
                f"{self._graph}: input {spec.name!r} must be from {low:g} to {high:g}, got {values}"
            )

    def _check_size(self, height: int, width: int) -> None:
        rule = self._rule
        if rule.padded(height, width) != (height, width):
            multiple = "" if rule.padding == "internal" else f" and multiples of {rule.multiple_of}"
            raise InputError(
                f"{self._graph}: height and width must be at least {rule.minimum}{multiple}, "
                f"got {height}x{width}",
                hint="pad the frame to Bundle.size_rule.padded(height, width)",
            )

    def _type_error(self, spec: TensorSpec, wanted: str, got: str) -> InputTypeError:
        return InputTypeError(f"{self._graph}: input {spec.name!r} must {wanted}, got {got}")

    def _shape_error(self, spec: TensorSpec, shape: tuple[int, ...]) -> InputError:
        wanted = ", ".join(map(str, spec.shape))
        return InputError(
            f"{self._graph}: input {spec.name!r} must have shape ({wanted}) with sizes of at "
            f"least 1, got {shape}"
        )


def output_shape(spec: TensorSpec, sizes: Mapping[str, tuple[int, str]]) -> tuple[int, ...] | None:
    """The shape of an output where the inputs have these sizes; None if they do not say."""
    shape = []
    for factor, symbol in map(dimension, spec.shape):
        if symbol and symbol not in sizes:
            return None
        shape.append(factor * sizes[symbol][0] if symbol else factor)
    return tuple(shape)


def dimension(size: int | str) -> tuple[int, str]:
    """Factor and symbol of a dimension; the symbol of a fixed size is empty."""
    if isinstance(size, int):
        return size, ""
    factor, star, symbol = size.partition("*")
    return (int(factor), symbol) if star else (1, size)


def check_finite(graph: str, outputs: Arrays) -> None:
    """Refuses outputs that hold NaN or infinity.

    Raises:
        DeviceError: Names the output.
    """
    for name, array in outputs.items():
        if array.dtype.kind == "f" and not bool(np.isfinite(array).all()):
            raise DeviceError(
                f"{graph}: output {name!r} must be finite, got NaN or infinity",
                hint="an input held NaN or infinity, or the model overflowed",
            )
