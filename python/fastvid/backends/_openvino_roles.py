"""Which nodes of a float32 graph OpenVINO may compute in bfloat16, and which stay float32.

bfloat16 has 8 bits: of a flow of 100 pixels it keeps half a pixel, of a bright picture one level.
The rule is that of narrow exports (`fastvid_export.convert.roles`):

- products are computed narrowly, and so is what carries values from one to the next;
- what leads to coordinates stays float32, back to the nearest product and that one included;
- a product that makes a result of the input alone stays float32: the picture passes through it;
- everything else stays float32, fastvid's operators included.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastvid.backends._openvino_ops import OPERATORS

PRODUCTS = {"Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul"}
CARRIERS = {
    *("Relu", "PRelu", "LeakyRelu", "Elu", "Gelu", "Tanh", "Sigmoid", "Clamp", "HSwish"),
    *(
        "HSigmoid",
        "Mish",
        "Swish",
        "Add",
        "Subtract",
        "Multiply",
        "Negative",
        "Abs",
        "Concat",
        "Split",
    ),
    *("VariadicSplit", "Slice", "StridedSlice", "Reshape", "Transpose", "Squeeze", "Unsqueeze"),
    *("DepthToSpace", "SpaceToDepth", "Pad", "MaxPool", "AvgPool", "Interpolate", "Broadcast"),
}
_COORDINATES = {
    "GridSample": (1,),
    **{name: operator.coordinates for name, operator in OPERATORS.items()},
}
_SOURCES = {"Constant", "Parameter"}


def narrow_nodes(nodes: Iterable[Any]) -> set[str]:
    """Names of the nodes that are computed in bfloat16.

    Args:
        nodes: All of a model, each behind what it reads.
    """
    ordered = list(nodes)
    kinds = {node.get_name(): node.get_type_name() for node in ordered}
    readers: dict[str, list[str]] = {name: [] for name in kinds}
    for node in ordered:
        for name in _read(node):
            readers[name].append(node.get_name())
    wide = _leading_to_coordinates(ordered)
    behind = _with_a_product(ordered, {n.get_name(): _read(n) for n in ordered}, kinds)
    before = _with_a_product(reversed(ordered), readers, kinds)
    narrow: set[str] = set()
    for node in ordered:
        name, kind = node.get_name(), node.get_type_name()
        if name in wide or kind in _SOURCES:
            continue
        if kind in PRODUCTS:
            if name in behind or name in before:
                narrow.add(name)
        elif kind in CARRIERS:
            made = [one for one in _read(node) if kinds[one] != "Constant"]
            if made and all(one in narrow for one in made):
                narrow.add(name)
    return narrow


def _read(node: Any) -> list[str]:
    """Names of the nodes that a node reads."""
    return [value.get_node().get_name() for value in node.input_values()]


def _with_a_product(
    ordered: Iterable[Any], neighbours: dict[str, list[str]], kinds: dict[str, str]
) -> set[str]:
    """Names of nodes that a product lies behind, in the direction that the neighbours lie in."""
    found: set[str] = set()
    for node in ordered:
        if any(one in found or kinds[one] in PRODUCTS for one in neighbours[node.get_name()]):
            found.add(node.get_name())
    return found


def _leading_to_coordinates(ordered: list[Any]) -> set[str]:
    """Names of nodes that coordinates are made by, back to the nearest products, those included."""
    waiting = [
        node.input_value(i).get_node()
        for node in ordered
        for i in _COORDINATES.get(node.get_type_name(), ())
        if i < node.get_input_size()
    ]
    found: set[str] = set()
    while waiting:
        node = waiting.pop()
        name = node.get_name()
        if name in found or node.get_type_name() in _SOURCES:
            continue
        found.add(name)
        if node.get_type_name() not in PRODUCTS:
            waiting += [value.get_node() for value in node.input_values()]
    return found
