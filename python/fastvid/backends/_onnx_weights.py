"""ONNX files whose weights lie beside them, made into one piece.

OpenVINO opens the files that a graph names by itself, wherever they are. So it is given none: the
verified bytes are put into the graph, and a graph that still names a file is refused.
"""

from __future__ import annotations

from collections.abc import Mapping

from fastvid.backends._protobuf import BYTES, Field, chunk, fields

LIMIT = (1 << 31) - (1 << 20)
"""Bytes of the largest protobuf message."""

_MODEL_GRAPH, _MODEL_FUNCTIONS, _MODEL_TRAINING = 7, 25, 20
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE, _FUNCTION_NODE = 1, 5, 15, 7
_NODE_ATTRIBUTE = 5
_ATTR_TENSOR, _ATTR_GRAPH, _ATTR_TENSORS, _ATTR_GRAPHS = 5, 6, 10, 11
_ATTR_SPARSE, _ATTR_SPARSES = 22, 23
_TENSOR_NAME, _TENSOR_RAW, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 8, 9, 13, 14
_EXTERNAL = 1
_KEY, _VALUE = 1, 2


def in_one_piece(model: bytes, external: Mapping[str, bytes]) -> bytes:
    """The model with the weights of its graph inside.

    Args:
        model: Bytes of an ONNX file.
        external: Contents by the name that the file gives them.

    Raises:
        ValueError: It is not an ONNX model, names a file that was not given, or holds weights
            elsewhere than among those of its graph; or the result would be too large.
    """
    parts: list[bytes | memoryview] = []
    changed = False
    for part in fields(model):
        if part.number == _MODEL_GRAPH and part.wire == BYTES:
            body, inside = _graph(_bytes(part), external)
            changed |= inside
            parts.append(chunk(_MODEL_GRAPH, body) if inside else part.raw)
            continue
        if part.number in (_MODEL_FUNCTIONS, _MODEL_TRAINING) and part.wire == BYTES:
            for node in fields(_bytes(part)):
                if part.number == _MODEL_TRAINING:
                    raise ValueError("it holds what is for training")
                if node.number == _FUNCTION_NODE:
                    _check_node(_bytes(node))
        parts.append(part.raw)
    if not changed:
        return model
    if sum(map(len, parts)) > LIMIT:
        raise ValueError("with its weights it is larger than 2 GiB")
    return b"".join(parts)


def _graph(graph: memoryview, external: Mapping[str, bytes]) -> tuple[bytes, bool]:
    """The body of the graph, and whether weights were put into it."""
    parts: list[bytes | memoryview] = []
    changed = False
    for part in fields(graph):
        if part.number == _GRAPH_INITIALIZER:
            tensor = _bytes(part)
            if _is_external(tensor):
                changed = True
                parts.append(chunk(_GRAPH_INITIALIZER, _filled(tensor, external)))
                continue
        elif part.number == _GRAPH_NODE:
            _check_node(_bytes(part))
        elif part.number == _GRAPH_SPARSE:
            raise ValueError("it holds sparse weights")
        parts.append(part.raw)
    return (b"".join(parts), True) if changed else (b"", False)


def _check_node(node: memoryview) -> None:
    """Refuses weights in files that a node's attributes name."""
    for attribute in fields(node):
        if attribute.number != _NODE_ATTRIBUTE:
            continue
        for part in fields(_bytes(attribute)):
            if part.number in (_ATTR_TENSOR, _ATTR_TENSORS) and _is_external(_bytes(part)):
                raise ValueError("an attribute has its values in another file")
            if part.number in (_ATTR_SPARSE, _ATTR_SPARSES):
                raise ValueError("it holds sparse weights")
            if part.number in (_ATTR_GRAPH, _ATTR_GRAPHS):
                _check_body(_bytes(part))


def _check_body(graph: memoryview) -> None:
    """The same for the body of a loop or branch."""
    for part in fields(graph):
        if part.number == _GRAPH_NODE:
            _check_node(_bytes(part))
        elif part.number == _GRAPH_INITIALIZER and _is_external(_bytes(part)):
            raise ValueError("the body of a node has its weights in another file")
        elif part.number == _GRAPH_SPARSE:
            raise ValueError("it holds sparse weights")


def _is_external(tensor: memoryview) -> bool:
    return any(
        part.number == _TENSOR_EXTERNAL
        or (part.number == _TENSOR_LOCATION and part.value == _EXTERNAL)
        for part in fields(tensor)
    )


def _filled(tensor: memoryview, external: Mapping[str, bytes]) -> bytes:
    """A weight with its values inside."""
    entries: dict[str, str] = {}
    kept: list[memoryview] = []
    for part in fields(tensor):
        if part.number == _TENSOR_EXTERNAL:
            entry = {item.number: str(_bytes(item), "utf-8") for item in fields(_bytes(part))}
            entries[entry.get(_KEY, "")] = entry.get(_VALUE, "")
        elif part.number not in (_TENSOR_RAW, _TENSOR_LOCATION):
            kept.append(part.raw)
    data = external.get(entries.get("location", ""))
    if data is None:
        raise ValueError(f"it names weights in {entries.get('location', '')!r:.80}")
    offset = int(entries.get("offset") or 0)
    length = int(entries.get("length") or len(data) - offset)
    if offset < 0 or length < 0 or offset + length > len(data):
        raise ValueError(f"it names weights beyond the end of {entries['location']!r:.80}")
    return b"".join([*kept, chunk(_TENSOR_RAW, memoryview(data)[offset : offset + length])])


def _bytes(part: Field) -> memoryview:
    if not isinstance(part.value, memoryview):
        raise ValueError(f"field {part.number} must be a message")
    return part.value
