"""The little that must be known of an ONNX file before a runtime sees it."""

from __future__ import annotations

from collections.abc import Iterator

from fastvid.backends._protobuf import fields, read_varint

_GRAPH, _OPSET_IMPORT, _FUNCTIONS = 7, 8, 25  # fields of ModelProto
_NODE, _INITIALIZER, _SPARSE = 1, 5, 15  # fields of GraphProto
_OP_TYPE, _ATTRIBUTE = 4, 5  # fields of NodeProto
_TENSORS, _GRAPHS = (5, 10), (6, 11)  # fields of AttributeProto
_FUNCTION_NODE = 7  # field of FunctionProto
_DIMS, _EXTERNAL_DATA = 1, 13  # fields of TensorProto
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


def external_files(model: bytes) -> set[str]:
    """Names of the files that weights of a model lie in, those in bodies of nodes included.

    Args:
        model: Bytes of the file.

    Raises:
        ValueError: The bytes are not a protobuf message, or hold what nobody expects there.
    """
    found: set[str] = set()
    for field, value in _messages(model):
        if field == _GRAPH:
            _graph_files(value, found)
        elif field == _FUNCTIONS:
            for kind, node in _messages(value):
                if kind == _FUNCTION_NODE:
                    _node_files(node, found)
    return found


def _messages(message: bytes | memoryview) -> Iterator[tuple[int, memoryview]]:
    for field, _, value, _ in fields(message):
        if isinstance(value, memoryview):
            yield field, value


def _graph_files(graph: memoryview, found: set[str]) -> None:
    for field, value in _messages(graph):
        if field == _NODE:
            _node_files(value, found)
        elif field == _INITIALIZER:
            _tensor_files(value, found)
        elif field == _SPARSE:
            raise ValueError("it has sparse weights")


def _node_files(node: memoryview, found: set[str]) -> None:
    for field, attribute in _messages(node):
        if field != _ATTRIBUTE:
            continue
        for kind, value in _messages(attribute):
            if kind in _TENSORS:
                _tensor_files(value, found)
            elif kind in _GRAPHS:
                _graph_files(value, found)


def _tensor_files(tensor: memoryview, found: set[str]) -> None:
    for field, entry in _messages(tensor):
        if field == _EXTERNAL_DATA:
            pair = {number: bytes(part) for number, part in _messages(entry)}
            if pair.get(1) == b"location":
                found.add(str(pair.get(2, b""), "utf-8"))


def weight_shapes(model: bytes) -> list[tuple[int, ...]]:
    """Shapes of the weights of a model's graph.

    Args:
        model: Bytes of the file.

    Raises:
        ValueError: The bytes are not a protobuf message.
    """
    found = []
    for field, graph in _messages(model):
        if field != _GRAPH:
            continue
        for kind, tensor in _messages(graph):
            if kind == _INITIALIZER:
                found.append(_shape(tensor))
    return found


def _shape(tensor: memoryview) -> tuple[int, ...]:
    sizes: list[int] = []
    for field, _, value, _ in fields(tensor):
        if field == _DIMS and isinstance(value, int):
            sizes.append(value)
        elif field == _DIMS and isinstance(value, memoryview):
            at = 0
            while at < len(value):
                size, at = read_varint(value, at)
                sizes.append(size)
    return tuple(sizes)
