"""The little that must be known of an ONNX file before a runtime sees it."""

from __future__ import annotations

_GRAPH, _OPSET_IMPORT, _FUNCTIONS = 7, 8, 25  # fields of ModelProto
_NODE = 1  # field of GraphProto
_OP_TYPE = 4  # field of NodeProto
_DOMAIN = 1  # fields of OperatorSetIdProto
_VERSION = 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # protobuf wire types


def opset_imports(model: bytes) -> dict[str, int]:
    """Operator domains that an ONNX model imports, with their versions.

    Only the top level of the protobuf is walked, so the cost does not grow with the weights.

    Args:
        model: Bytes of the file.

    Returns:
        Version by domain; the standard domain is the empty string.

    Raises:
        ValueError: The bytes are not a protobuf message.
    """
    found = {}
    for field, value in _fields(model):
        if field == _OPSET_IMPORT and isinstance(value, memoryview):
            entry = dict(_fields(value))
            domain, version = entry.get(_DOMAIN, b""), entry.get(_VERSION, 0)
            if isinstance(domain, int) or not isinstance(version, int):
                raise ValueError("opset import has fields of the wrong type")
            found[str(domain, "utf-8")] = version
    return found


def loops(model: bytes) -> bool:
    """Whether nodes of a model may run any number of times, so that no two runs need be alike.

    Args:
        model: Bytes of the file.

    Raises:
        ValueError: The bytes are not a protobuf message.
    """
    for field, value in _fields(model):
        if field == _FUNCTIONS:
            return True
        if field == _GRAPH and isinstance(value, memoryview):
            for kind, node in _fields(value):
                if kind == _NODE and isinstance(node, memoryview):
                    operator = dict(_fields(node)).get(_OP_TYPE, b"")
                    if operator in (b"Loop", b"Scan", b"If", b"SequenceMap"):
                        return True
    return False


def _fields(data: bytes | memoryview) -> list[tuple[int, int | memoryview]]:
    view = memoryview(data)
    result: list[tuple[int, int | memoryview]] = []
    at = 0
    while at < len(view):
        key, at = _varint(view, at)
        value: int | memoryview
        wire = key & 7
        if wire == _VARINT:
            value, at = _varint(view, at)
        else:
            if wire == _BYTES:
                size, at = _varint(view, at)
            elif wire in (_FIXED32, _FIXED64):
                size = 4 if wire == _FIXED32 else 8
            else:
                raise ValueError(f"wire type {wire} is not known")
            if at + size > len(view):
                raise ValueError(f"field of {size} bytes does not fit")
            value, at = view[at : at + size], at + size
        result.append((key >> 3, value))
    return result


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(view):
            raise ValueError("number is cut")
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("number is too long")
