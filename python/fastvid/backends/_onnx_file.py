"""The little that must be known of an ONNX file before a runtime sees it."""

from __future__ import annotations

from fastvid.backends._protobuf import fields

_GRAPH, _OPSET_IMPORT, _FUNCTIONS = 7, 8, 25  # fields of ModelProto
_NODE = 1  # field of GraphProto
_OP_TYPE = 4  # field of NodeProto
_DOMAIN = 1  # fields of OperatorSetIdProto
_VERSION = 2
_REPEATING = (b"Loop", b"Scan", b"If", b"SequenceMap")


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
    for field, _, value, _ in fields(model):
        if field == _OPSET_IMPORT and isinstance(value, memoryview):
            entry = {number: part for number, _, part, _ in fields(value)}
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
    for field, _, value, _ in fields(model):
        if field == _FUNCTIONS:
            return True
        if field == _GRAPH and isinstance(value, memoryview):
            for kind, _, node, _ in fields(value):
                if kind == _NODE and isinstance(node, memoryview):
                    operators = [part for number, _, part, _ in fields(node) if number == _OP_TYPE]
                    if operators and bytes(operators[-1]) in _REPEATING:
                        return True
    return False
