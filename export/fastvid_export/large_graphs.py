"""Graphs whose weights never are in memory together.

A module on the meta device becomes an ONNX graph that names its weights by file, offset and length:
those of the checkpoint where they can stay, and others written tensor by tensor. The graph is then
run beside the module, which is given the weights of one layer at a time.

What the weights are:

- of `torch.nn.Linear`: `fastvid::Linear`, which reads float32, float16 and bfloat16 as they lie and
  in the (out, in) order they have; in int8 and int4 onnxruntime's `MatMulNBits`.
- tables that are looked up in: as they lie; what is found becomes float32.
- everything else: float32, inside the graph where it is small.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from fastvid.bundle import FidelityFigure
from fastvid_export import ops
from fastvid_export.blockwise import BITS, DOMAIN, block_bytes, point, write_blocks
from fastvid_export.errors import ExportError
from fastvid_export.large_checks import check
from fastvid_export.onnx import GraphPlan, traced
from fastvid_export.weight_files import Weights
from fastvid_export.weight_store import Place, Say, WeightStore

PRECISIONS = ("float32", "bfloat16", "int8", "int4")
"""What the products of a large graph may be computed in."""
WIDE = re.compile(r"time_?(step|emb|proj)|patch_embed|proj_out$|lm_head")
"""Products that stay float32: few weights, and all that follows depends on them."""
INLINE = 1 << 16
"""Elements up to which a weight is part of the graph."""
_FLOATS = {
    torch.float32: TensorProto.FLOAT,
    torch.float16: TensorProto.FLOAT16,
    torch.bfloat16: TensorProto.BFLOAT16,
}
_LINEAR = "Linear"


@dataclass(frozen=True)
class LargeGraph:
    """A graph that passed its checks, and whose weights are in the store."""

    plan: GraphPlan
    data: bytes
    """The ONNX file."""
    external: tuple[str, ...]
    """Files of the store that it names."""
    figures: tuple[FidelityFigure, ...]

    def manifest(self) -> dict[str, Any]:
        """The entry in `bundle.json`."""
        entry: dict[str, Any] = {
            "file": f"{self.plan.name}.onnx",
            "inputs": [port.manifest() for port in self.plan.inputs],
            "outputs": [port.manifest() for port in self.plan.outputs],
        }
        return entry | ({"external_data": list(self.external)} if self.external else {})


def export(
    plan: GraphPlan,
    weights: Weights,
    names: Mapping[str, str],
    store: WeightStore,
    *,
    precision: str = "float32",
    say: Say = lambda line: None,
) -> LargeGraph:
    """Exports and checks one graph.

    Args:
        plan: Its module may lie on the meta device, but for buffers that are no weights. A linear
            layer may be a `torch.nn.Linear` or a call of `torch.nn.functional.linear`.
        weights: The checkpoint.
        names: Names in the checkpoint by the module's keys, see `weight_files.match`.
        store: Takes the weights.
        precision: What products are computed in; the rest is float32.
        say: Called with lines about the progress.

    Raises:
        ExportError: The module cannot be traced, or the graph differs from it.
        FidelityError: A graph of less than float32 is below its gate.
        DiskFullError: There is no room for weights that must be written.
    """
    if precision not in PRECISIONS:
        raise ExportError(f"export: precision must be one of {PRECISIONS}, got {precision!r}")
    hollow(plan.module, names)
    model = traced(plan, linear_translations(), names)
    writer = _Writer(plan.name, model.graph, weights, dict(names), store, precision)
    nbytes = writer.nbytes()
    if nbytes:
        store.require_disk(nbytes, plan.name)
        say(f"{plan.name}: writing {nbytes / 1e9:.2f} GB of weights")
    writer.write()
    if precision in BITS:
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    data: bytes = model.SerializeToString(deterministic=True)
    files = sorted({place.location for place in writer.places})
    figures = check(plan, data, store.folder, weights, names, precision)
    return LargeGraph(plan, data, tuple(files), tuple(figures))


def linear_translations() -> dict[Any, Any]:
    """The translations of fastvid's operators, and linear layers as one of them."""
    table = ops.onnx_translations()
    linear = next(t for op, t in table.items() if "linear" in str(op))

    def translate(x: Any, weight: Any, bias: Any = None) -> Any:
        return linear(x, weight, bias, False)

    return {**table, torch.ops.aten.linear.default: translate}


def hollow(module: nn.Module, names: Collection[str]) -> None:
    """Gives a module on the meta device weights of the right shapes that take no memory.

    Each is one value, unlike all others: the exporter's optimiser makes equal weights one.
    """
    values = itertools.count(3)
    missing = set(names) - set(module.state_dict())
    if missing:
        raise ExportError(f"export: the module must have {', '.join(sorted(missing))}")
    for path, owner in module.named_modules():
        for kind in (owner._parameters, owner._buffers):
            for key, value in kind.items():
                name = f"{path}.{key}" if path else key
                if value is None or value.device.type != "meta":
                    continue
                if name not in names:
                    raise ExportError(
                        f"export: {name} must not lie on the meta device, as it is no weight"
                    )
                dtype = torch.float32 if value.is_floating_point() else value.dtype
                one = torch.tensor(next(values), dtype=dtype).expand(value.shape)
                is_parameter = isinstance(value, nn.Parameter)
                kind[key] = nn.Parameter(one, requires_grad=False) if is_parameter else one


@dataclass
class _Writer:
    """Puts the weights of a traced graph where they belong."""

    name: str
    graph: onnx.GraphProto
    weights: Weights
    names: dict[str, str]
    store: WeightStore
    precision: str
    places: list[Place] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._users: dict[str, list[onnx.NodeProto]] = {}
        for node in self.graph.node:
            for value in node.input:
                self._users.setdefault(value, []).append(node)

    @property
    def _links(self) -> bool:
        """Of a checkpoint whose layers become smaller little is used: a link would keep it all."""
        return self.precision not in BITS

    def nbytes(self) -> int:
        """Bytes that will be written beside the graph."""
        return sum(self._cost(tensor) for tensor in self._tensors())

    def _tensors(self) -> list[onnx.TensorProto]:
        return [tensor for tensor in self.graph.initializer if tensor.name in self.names]

    def _cost(self, tensor: onnx.TensorProto) -> int:
        spec = self.weights.spec(self.names[tensor.name])
        count = spec.nbytes // spec.dtype.itemsize
        if self._quantised(tensor):
            return block_bytes(tensor.dims[0], tensor.dims[1], BITS[self.precision])
        if self._as_it_lies(tensor):
            return self.store.cost(self.weights, spec.name, link=self._links)
        return 0 if count <= INLINE else 4 * count

    def write(self) -> None:
        """Writes all of them, and the nodes that read them."""
        replaced: dict[int, list[onnx.NodeProto]] = {}
        for tensor in self._tensors():
            name = self.names[tensor.name]
            if self._quantised(tensor):
                for node in self._users[tensor.name]:
                    replaced[id(node)] = self._blocks(node, name)
                tensor.name = ""
            elif self._as_it_lies(tensor):
                spec = self.weights.spec(name)
                tensor.data_type = _FLOATS[spec.dtype]
                place = self.store.place(self.name, self.weights, name, link=self._links)
                point(tensor, self._placed(place))
                self._widen_lookups(tensor, replaced)
            else:
                self._widened(tensor, name)
        for node in self.graph.node:
            if node.op_type == _LINEAR and id(node) not in replaced:
                self._set_precision(node)
        _replace(self.graph, replaced)

    def _users_of(self, tensor: onnx.TensorProto, kind: str, place: int) -> bool:
        """Whether nothing reads a weight but that input of such nodes."""
        users = self._users.get(tensor.name, [])
        return bool(users) and all(
            node.op_type == kind and list(node.input).index(tensor.name) == place for node in users
        )

    def _as_it_lies(self, tensor: onnx.TensorProto) -> bool:
        dtype = self.weights.spec(self.names[tensor.name]).dtype
        if dtype not in _FLOATS or len(tensor.dims) < 2:
            return False
        product = self._users_of(tensor, _LINEAR, 1)
        table = self._users_of(tensor, "Gather", 0)
        large = _elements(tensor) > INLINE
        return large and (product or table or dtype == torch.float32)

    def _quantised(self, tensor: onnx.TensorProto) -> bool:
        return (
            self.precision in BITS
            and self._users_of(tensor, _LINEAR, 1)
            and _elements(tensor) > INLINE
            and not WIDE.search(tensor.name.removesuffix(".weight"))
        )

    def _set_precision(self, node: onnx.NodeProto) -> None:
        narrow = self.precision == "bfloat16" and node.input[1] in self.names
        narrow = narrow and not WIDE.search(node.input[1].removesuffix(".weight"))
        for attribute in node.attribute:
            if attribute.name == "bfloat16":
                attribute.i = int(narrow)

    def _placed(self, place: Place) -> Place:
        self.places.append(place)
        return place

    def _widened(self, tensor: onnx.TensorProto, name: str) -> None:
        """A weight as float32: in the graph, or where it is large in the store."""
        value = self.weights.read(name)
        if value.is_floating_point():
            value = value.float()
        value = value.reshape(tuple(tensor.dims))
        if value.numel() <= INLINE:
            made = numpy_helper.from_array(value.contiguous().numpy(), tensor.name)
            tensor.CopyFrom(made)
            return
        tensor.data_type = helper.np_dtype_to_tensor_dtype(value.numpy().dtype)
        point(tensor, self._placed(self.store.write(self.name, value)))

    def _widen_lookups(
        self, tensor: onnx.TensorProto, replaced: dict[int, list[onnx.NodeProto]]
    ) -> None:
        """What is looked up in a narrow table becomes float32."""
        if tensor.data_type == TensorProto.FLOAT:
            return
        for node in self._users[tensor.name]:
            if node.op_type != "Gather":
                continue
            found = onnx.NodeProto()
            found.CopyFrom(node)
            found.output[0] = f"{node.output[0]}.narrow"
            wide = helper.make_node(
                "Cast", [found.output[0]], [node.output[0]], to=TensorProto.FLOAT
            )
            replaced[id(node)] = [found, wide]

    def _blocks(self, node: onnx.NodeProto, name: str) -> list[onnx.NodeProto]:
        """A linear layer with weights in blocks of few bits."""
        bits = BITS[self.precision]
        made = write_blocks(self.store, self.name, self.weights, name, bits)
        self.places += made.places
        self.graph.initializer.extend(made.tensors(node.input[1]))
        return [made.node(node)]


def _elements(tensor: onnx.TensorProto) -> int:
    count = 1
    for size in tensor.dims:
        count *= size
    return count


def _replace(graph: onnx.GraphProto, replaced: Mapping[int, Sequence[onnx.NodeProto]]) -> None:
    """Puts nodes in the place of others, and drops the weights without a name."""
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes += replaced.get(id(node), [node])
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    kept = [onnx.TensorProto.FromString(t.SerializeToString()) for t in graph.initializer if t.name]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(copies)
    graph.initializer.extend(kept)
