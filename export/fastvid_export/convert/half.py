"""Graphs that compute in float16, except where `roles` says what must not.

Inputs and outputs keep their dtypes. Weights of products are stored in float16; those of heads too,
and are widened when the graph is loaded. A weight that float16 cannot hold refuses.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fastvid_export.convert import roles as rules
from fastvid_export.convert.roles import CARRIERS, LARGE, PRODUCTS, Roles, kind
from fastvid_export.errors import ExportError

_LARGEST = float(np.finfo(np.float16).max)


def to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a float32 graph that computes in float16 by the rule of `roles`.

    Raises:
        ExportError: A weight is too large for float16, or types cannot be worked out.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    rules.constants_to_weights(made)
    _Writer(made, rules.analyse(made)).write()
    del made.graph.value_info[:]
    return made


class _Writer:
    """Rewrites one graph in place."""

    def __init__(self, model: onnx.ModelProto, roles: Roles) -> None:
        self._graph = model.graph
        self._roles = roles
        self._weights = {weight.name: weight for weight in self._graph.initializer}
        self._outputs = {value.name for value in self._graph.output}
        self._nodes: list[onnx.NodeProto] = []
        self._narrow: set[str] = set()
        """Values that are float16 under their own name."""
        self._made: set[str] = set()

    def write(self) -> None:
        nodes = list(self._graph.node)
        for i, node in enumerate(nodes):
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            if i in self._roles.narrow:
                self._write_narrow(copy)
            else:
                self._write_wide(copy)
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        used = {name for node in self._nodes for name in node.input} | self._outputs
        used |= rules.captured(self._graph)
        kept = [weight for weight in self._weights.values() if weight.name in used]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)

    def _write_narrow(self, node: onnx.NodeProto) -> None:
        count = PRODUCTS.get(kind(node)) or CARRIERS[kind(node)]
        for i, name in enumerate(node.input):
            if i < count and self._is_float(name):
                node.input[i] = self._as_half(name)
        casts = []
        for i, name in enumerate(node.output):
            if not self._is_float(name):
                continue
            if name not in self._outputs:
                self._narrow.add(name)
                continue
            node.output[i] = f"{name}.half"
            self._made.add(f"{name}.half")
            casts.append(_cast(f"{name}.half", name, TensorProto.FLOAT))
        self._nodes += [node, *casts]

    def _write_wide(self, node: onnx.NodeProto) -> None:
        product = kind(node) in PRODUCTS
        for i, name in enumerate(node.input):
            if name in self._narrow:
                node.input[i] = self._as_float(name)
            elif product and self._is_large(name):
                self._as_half(name)
                node.input[i] = self._as_float(f"{name}.half")
        self._nodes.append(node)

    def _is_float(self, name: str) -> bool:
        return bool(name) and self._roles.types.get(name) == TensorProto.FLOAT

    def _is_large(self, name: str) -> bool:
        weight = self._weights.get(name)
        return (
            weight is not None
            and weight.data_type == TensorProto.FLOAT
            and int(np.prod(weight.dims)) >= LARGE
        )

    def _as_half(self, name: str) -> str:
        """The float16 form of a value."""
        if name in self._narrow:
            return name
        half = f"{name}.half"
        if half in self._made:
            return half
        self._made.add(half)
        if name in self._weights:
            self._weights[half] = _half_weight(self._weights[name], half)
        else:
            self._nodes.append(_cast(name, half, TensorProto.FLOAT16))
        return half

    def _as_float(self, name: str) -> str:
        wide = f"{name}.float"
        if wide not in self._made:
            self._made.add(wide)
            self._nodes.append(_cast(name, wide, TensorProto.FLOAT))
        return wide


def _cast(source: str, target: str, dtype: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"{target}.cast", to=dtype)


def _half_weight(weight: onnx.TensorProto, name: str) -> onnx.TensorProto:
    array = numpy_helper.to_array(weight)
    largest = float(np.abs(array).max(initial=0.0))
    if not largest <= _LARGEST:
        raise ExportError(
            f"export: weight {weight.name} must be finite and at most {_LARGEST:g} for float16, "
            f"got {largest:g}",
            hint="--format onnx keeps float32",
        )
    return numpy_helper.from_array(array.astype(np.float16), name)
