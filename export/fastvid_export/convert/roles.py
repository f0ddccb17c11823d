"""What the values and nodes of a graph are for, which decides what may be computed narrowly.

One rule for every precision below float32:

- **Products** (`PRODUCTS`) are computed narrowly: convolutions, matrix products, attention. Nearly
  all weights and arithmetic are theirs.
- **Carriers** (`CARRIERS`) between products are too, when everything they read is narrow:
  activation functions, sums, and what only moves values.
- **Coordinates stay float32**: flows and grids of warps, the frames that a search compares, what
  the bodies of loops read, and every node on the way back from them to the nearest product. Of
  float16's 11 bits a flow of 100 pixels keeps a sixteenth of a pixel. That product, a *head*, is
  computed in float32 too; only its weights are stored narrowly.
- **Everything else stays float32**: norms, softmax, exponentials, embeddings of time, colour,
  warps, and the graph's inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import onnx
from onnx import TensorProto, helper, shape_inference

from fastvid_export.errors import ExportError

NAMESPACE = "fastvid"

PRODUCTS = {
    "Conv": 3, "ConvTranspose": 3, "Gemm": 3, "MatMul": 2,
    "fastvid.Attention": 3, "fastvid.TemporalAttention": 3, "fastvid.QkNormRope": 2,
}  # fmt: skip
"""How many inputs, from the first, share the dtype of the product; others stay as they are."""

CARRIERS = {
    "Relu": 1, "LeakyRelu": 1, "PRelu": 2, "Elu": 1, "Gelu": 1, "Tanh": 1, "Sigmoid": 1, "Clip": 3,
    "HardSigmoid": 1, "HardSwish": 1, "Mish": 1, "Add": 2, "Sub": 2, "Mul": 2, "Neg": 1, "Abs": 1,
    "Concat": 1 << 30, "Split": 1, "Slice": 1, "Reshape": 1, "Flatten": 1, "Transpose": 1,
    "Squeeze": 1, "Unsqueeze": 1, "Expand": 1, "Identity": 1, "DepthToSpace": 1, "SpaceToDepth": 1,
    "Pad": 3, "MaxPool": 1, "AveragePool": 1, "Resize": 1, "Gather": 1, "Tile": 1,
}  # fmt: skip
"""The same for nodes that only pass on what products made."""

COORDINATES = {
    "GridSample": (1,), "fastvid.Warp": (1,), "fastvid.WarpBlend": (2,),
    "fastvid.SoftmaxSplat": (1, 2), "fastvid.InverseSearch": (0, 1),
}  # fmt: skip
"""Inputs whose error is one of place, not of brightness."""

UINT8_RESULTS = ("LumaToRgb", "PlanarToRgb")
LARGE = 2048
"""Elements from which on a weight is worth storing narrowly; smaller ones are norms and biases."""


def kind(node: onnx.NodeProto) -> str:
    """The operator with its domain, without the standard one: `Conv`, `fastvid.Warp`."""
    domain = "" if node.domain in ("", "ai.onnx") else f"{node.domain}."
    return domain + node.op_type


@dataclass
class Roles:
    """The rule above, applied to one graph."""

    types: dict[str, int]
    """ONNX element type of every value that is known."""
    constants: set[str]
    """Values computed from weights only."""
    heads: set[int] = field(default_factory=set)
    """Indices of products that make coordinates."""
    narrow: set[int] = field(default_factory=set)
    """Indices of the nodes that are computed narrowly."""


def analyse(model: onnx.ModelProto) -> Roles:
    """Applies the rule to a float32 graph.

    Raises:
        ExportError: The types of its values cannot be worked out.
    """
    graph = model.graph
    roles = Roles(value_types(model), constants(graph))
    makers = {name: i for i, node in enumerate(graph.node) for name in node.output}
    outer = captured(graph)
    wide = _leading_to(graph, makers, _coordinates(graph) | outer)
    roles.heads = {i for i in wide if kind(graph.node[i]) in PRODUCTS}
    narrow_values: set[str] = set()
    for i, node in enumerate(graph.node):
        if i in wide or set(node.output) & (outer | roles.constants):
            continue
        if kind(node) in PRODUCTS or _carries(node, roles, narrow_values):
            roles.narrow.add(i)
            narrow_values.update(node.output)
    return roles


def _carries(node: onnx.NodeProto, roles: Roles, narrow: set[str]) -> bool:
    """Whether a carrier reads narrow values and constants only."""
    inputs = list(node.input)[: CARRIERS.get(kind(node), 0)]
    read = [name for name in inputs if roles.types.get(name) == TensorProto.FLOAT]
    made = [name for name in read if name not in roles.constants]
    return bool(made) and all(name in narrow for name in made)


def _coordinates(graph: onnx.GraphProto) -> set[str]:
    return {
        node.input[i]
        for node in graph.node
        for i in COORDINATES.get(kind(node), ())
        if i < len(node.input)
    }


def _leading_to(graph: onnx.GraphProto, makers: dict[str, int], values: Iterable[str]) -> set[int]:
    """Nodes from which the values are made, back to the nearest products, those included."""
    found: set[int] = set()
    open_values = list(values)
    while open_values:
        i = makers.get(open_values.pop())
        if i is None or i in found:
            continue
        found.add(i)
        if kind(graph.node[i]) not in PRODUCTS:
            open_values.extend(graph.node[i].input)
    return found


def captured(graph: onnx.GraphProto) -> set[str]:
    """Names of values that bodies of loops and branches read from around them."""
    names: set[str] = set()
    for node in graph.node:
        for attribute in node.attribute:
            bodies = [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
            for body in bodies:
                names |= {name for inner in body.node for name in inner.input} | captured(body)
    return names


def constants(graph: onnx.GraphProto) -> set[str]:
    """Names of weights, and of what is computed from weights only."""
    found = {weight.name for weight in graph.initializer}
    for node in graph.node:
        inputs = [name for name in node.input if name]
        bodies = any(a.HasField("g") or a.graphs for a in node.attribute)
        if not bodies and all(name in found for name in inputs):
            found.update(node.output)
    return found


def value_types(model: onnx.ModelProto) -> dict[str, int]:
    """Element type of every value of a graph.

    Raises:
        ExportError: onnx cannot work the types out.
    """
    typed = onnx.ModelProto()
    typed.CopyFrom(model)
    del typed.graph.value_info[:]
    outputs = {value.name for value in typed.graph.output}
    for node in typed.graph.node:
        if node.domain != NAMESPACE:
            continue
        for name, dtype in zip(node.output, _result_types(node), strict=False):
            if name and name not in outputs:
                typed.graph.value_info.append(helper.make_tensor_value_info(name, dtype, None))
    try:
        inferred = shape_inference.infer_shapes(typed, strict_mode=False, data_prop=False).graph
    except Exception as error:  # onnx raises several types
        raise ExportError(f"export: types of the graph cannot be worked out: {error}") from error
    values = [*inferred.input, *inferred.output, *inferred.value_info]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {weight.name: weight.data_type for weight in inferred.initializer}


def _result_types(node: onnx.NodeProto) -> list[int]:
    """Element types of a fastvid node's outputs in a float32 graph."""
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    frames = node.op_type in UINT8_RESULTS or bool(given.get("output_uint8", 0))
    return [TensorProto.UINT8 if frames else TensorProto.FLOAT] * len(node.output)


def constants_to_weights(model: onnx.ModelProto) -> None:
    """Makes every `Constant` node of the top level a weight, in place."""
    kept = []
    for node in model.graph.node:
        values = [a for a in node.attribute if a.name == "value"]
        if node.op_type != "Constant" or node.domain or not values:
            kept.append(node)
            continue
        tensor = onnx.TensorProto()
        tensor.CopyFrom(values[0].t)
        tensor.name = node.output[0]
        model.graph.initializer.append(tensor)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    del model.graph.node[:]
    model.graph.node.extend(copies)
