"""How far a network looks: the distance from a pixel of its result to those it depends on.

Every operator's window is added up along the graph, in pixels of the input. That is exact for
convolutions and an upper bound where paths of different reach meet.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from fastvid.backends._protobuf import fields, read_varint

_GRAPH, _NODE = 7, 1
_INPUT, _OUTPUT, _OP_TYPE, _ATTRIBUTE = 1, 2, 4, 5  # fields of NodeProto
_NAME, _INT, _TEXT, _INTS = 1, 3, 4, 8  # fields of AttributeProto

_POINTWISE = {
    *("Relu", "LeakyRelu", "PRelu", "Sigmoid", "Tanh", "Clip", "Add", "Sub", "Mul", "Div", "Neg"),
    *("Abs", "Cast", "Identity", "Concat", "Split", "Slice", "Transpose", "Erf", "Exp", "Sqrt"),
    *("HardSigmoid", "HardSwish", "Gelu", "Elu", "Min", "Max", "Pow", "Round", "Floor", "Where"),
    *("Constant", "Squeeze", "Unsqueeze", "QuantizeLinear", "DequantizeLinear", "Pad"),
    *("RgbToPlanar", "PlanarToRgb", "RgbToLuma"),
}
_WINDOWS = {"Conv", "MaxPool", "AveragePool", "QLinearConv", "ConvInteger"}


@dataclass
class _Node:
    operator: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    numbers: dict[str, list[int]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _View:
    """What an element of a tensor sees of the input."""

    pitch: Fraction
    """Pixels of the input between neighbours."""
    reach: Fraction
    """Pixels of the input that it looks to each side."""


def reach(model: bytes) -> tuple[int, int] | None:
    """How far a result looks, and the block that its grid repeats in.

    Args:
        model: Bytes of an ONNX file whose graph makes frames of frames.

    Returns:
        Pixels of the input to each side, and a number of pixels that pieces must be multiples of;
        None where an operator's reach is not known or not limited.

    Raises:
        ValueError: The bytes are not a protobuf message.
    """
    views: dict[str, _View] = {}
    block, farthest = Fraction(1), Fraction(0)
    for node in _nodes(model):
        seen = [views[name] for name in node.inputs if name in views]
        # Without an input among them the node makes constants, or is the graph's first.
        view = _View(
            max((v.pitch for v in seen), default=Fraction(1)),
            max((v.reach for v in seen), default=Fraction(0)),
        )
        after = _after(node, view)
        if after is None:
            return None
        views |= dict.fromkeys(node.outputs, after)
        block = max(block, after.pitch)
        farthest = max(farthest, after.reach)
    return -(-farthest.numerator // farthest.denominator), int(-(-block // 1))


def _after(node: _Node, view: _View) -> _View | None:
    operator, pitch = node.operator, view.pitch
    if operator in _POINTWISE:
        return view
    if operator in _WINDOWS:
        return _windowed(node, view)
    if operator == "ConvTranspose":
        kernel, strides = node.numbers.get("kernel_shape"), node.numbers.get("strides") or [1]
        return _View(pitch / min(strides), view.reach + pitch * max(kernel)) if kernel else None
    if operator in ("DepthToSpace", "SpaceToDepth"):
        block = node.numbers.get("blocksize", [1])[0]
        scale = Fraction(1, block) if operator == "DepthToSpace" else Fraction(block)
        return _View(pitch * scale, view.reach + pitch * max(scale, Fraction(1)))
    if operator == "LumaToRgb":
        # Chroma is enlarged bilinearly, from the neighbours of its pixel.
        return _View(Fraction(1), view.reach + 2)
    if operator == "Resize" and node.texts.get("mode", "nearest") in ("nearest", "linear"):
        # The factor is in a tensor; fewer pixels per result would make the reach smaller only.
        return _View(pitch, view.reach + 2 * pitch)
    return None


def _windowed(node: _Node, view: _View) -> _View | None:
    sizes = node.numbers.get("kernel_shape")
    if sizes is None:
        return None
    spread = node.numbers.get("dilations") or [1] * len(sizes)
    windows = [(k - 1) * d for k, d in zip(sizes, spread, strict=True)]
    window = max(windows)
    if node.texts.get("auto_pad", "NOTSET") == "NOTSET":
        before = node.numbers.get("pads", [0] * len(sizes))[: len(sizes)]
        window = max(max(p, w - p) for p, w in zip(before, windows, strict=True))
    strides = node.numbers.get("strides") or [1]
    return _View(view.pitch * max(strides), view.reach + view.pitch * window)


def _nodes(model: bytes) -> list[_Node]:
    result = []
    for kind, _, graph, _ in fields(model):
        if kind != _GRAPH or not isinstance(graph, memoryview):
            continue
        for part, _, data, _ in fields(graph):
            if part == _NODE and isinstance(data, memoryview):
                result.append(_node(data))
    return result


def _node(data: memoryview) -> _Node:
    node = _Node()
    for kind, _, value, _ in fields(data):
        if not isinstance(value, memoryview):
            continue
        if kind == _INPUT:
            node.inputs.append(str(value, "utf-8"))
        elif kind == _OUTPUT:
            node.outputs.append(str(value, "utf-8"))
        elif kind == _OP_TYPE:
            node.operator = str(value, "utf-8")
        elif kind == _ATTRIBUTE:
            _attribute(node, value)
    return node


def _attribute(node: _Node, data: memoryview) -> None:
    name, numbers = "", []
    for kind, _, value, _ in fields(data):
        if kind == _NAME and isinstance(value, memoryview):
            name = str(value, "utf-8")
        elif kind in (_INT, _INTS) and isinstance(value, int):
            numbers.append(value)
        elif kind == _INTS and isinstance(value, memoryview):
            numbers += _packed(value)
        elif kind == _TEXT and isinstance(value, memoryview):
            node.texts[name] = str(value, "utf-8", "replace")
    if numbers:
        node.numbers[name] = numbers


def _packed(view: memoryview) -> list[int]:
    """The numbers of a packed repeated field."""
    result, at = [], 0
    while at < len(view):
        number, at = read_varint(view, at)
        result.append(number)
    return result
