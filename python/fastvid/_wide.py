"""Models on frames of 16 bits a sample, without another file.

A graph takes frames through fastvid's operators (`RgbToLuma`, `RgbToPlanar`) and gives them through
others (`LumaToRgb`, `PlanarToRgb`, `WarpBlend`); between them it computes with floats. So what a
graph does to 16 bits is the same graph with other dtypes at its two ends, and that is how it is
loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from fastvid.backends._protobuf import chunk, fields, number, text, varint
from fastvid.bundle import Bundle, GraphSpec, TensorSpec
from fastvid.errors import UnsupportedModelError

HINT = "Video.open(path, bit_depth=8), or --to-8bit, processes it with 8 bits"

_READS = ("RgbToLuma", "RgbToPlanar")
_WRITES = ("LumaToRgb", "PlanarToRgb", "WarpBlend")
_UINT8, _UINT16 = 2, 4  # TensorProto.DataType
_GRAPH = 7  # of ModelProto
_NODE, _INPUT, _OUTPUT, _VALUE = 1, 11, 12, 13  # of GraphProto
_WIDE = "output_uint16"


def widened(bundle: Bundle) -> Bundle:
    """The bundle with graphs that take and give uint16 where the files have uint8.

    Raises:
        UnsupportedModelError: A graph does something else with its frames.
    """
    return _Wide(**{name: getattr(bundle, name) for name in bundle.__dataclass_fields__} | {
        "graphs": {name: _spec(graph) for name, graph in bundle.graphs.items()}
    })  # fmt: skip


@dataclass(frozen=True)
class _Wide(Bundle):
    def read(self, file: str) -> bytes:
        """A file of the bundle; graphs as they are for 16 bits."""
        data = super().read(file)
        if any(graph.file == file for graph in self.graphs.values()):
            return _rewritten(data, self.name)
        return data


def _spec(graph: GraphSpec) -> GraphSpec:
    def wide(tensors: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        return tuple(
            replace(t, dtype="uint16", range=None) if t.dtype == "uint8" else t for t in tensors
        )

    return replace(graph, inputs=wide(graph.inputs), outputs=wide(graph.outputs))


def _rewritten(model: bytes, name: str) -> bytes:
    """An ONNX file whose uint8 inputs and outputs are uint16."""
    parts = []
    for field in fields(model):
        if field.number == _GRAPH and not isinstance(field.value, int):
            parts.append(chunk(_GRAPH, b"".join(_graph(field.value, name))))
        else:
            parts.append(bytes(field.raw))
    return b"".join(parts)


def _graph(graph: memoryview, name: str) -> Iterator[bytes]:
    frames = {
        _name(f.value)
        for f in fields(graph)
        if f.number in (_INPUT, _OUTPUT) and not isinstance(f.value, int) and _is_bytes(f.value)
    }
    for field in fields(graph):
        value = field.value
        if isinstance(value, int) or field.number not in (_NODE, _INPUT, _OUTPUT, _VALUE):
            yield bytes(field.raw)
        elif field.number == _NODE:
            yield chunk(_NODE, _node(value, frames, name))
        elif _name(value) in frames:
            yield chunk(field.number, _retyped(value))
        else:
            yield bytes(field.raw)


def _node(node: memoryview, frames: set[str], name: str) -> bytes:
    """A node as it is, or with the attribute that makes it write 16 bits."""
    given: dict[int, list[str]] = {1: [], 2: [], 4: []}
    for field in fields(node):
        if field.number in given and not isinstance(field.value, int):
            given[field.number].append(bytes(field.value).decode())
    operator = given[4][0] if given[4] else ""
    reads, writes = (bool(frames & set(given[k])) for k in (1, 2))
    if (reads and operator not in _READS) or (writes and operator not in _WRITES):
        raise UnsupportedModelError(
            f"model: {name!r} must read and write frames by fastvid's operators to take 16 bits a "
            f"sample, got {operator}",
            hint=HINT,
        )
    if not writes:
        return bytes(node)
    attribute = text(1, _WIDE) + number(3, 1) + number(20, 2)
    return bytes(node) + chunk(5, attribute)


def _name(value: int | memoryview) -> str:
    """Of a ValueInfoProto."""
    assert not isinstance(value, int)
    names = [bytes(f.value).decode() for f in fields(value)
             if f.number == 1 and not isinstance(f.value, int)]  # fmt: skip
    return names[0] if names else ""


def _is_bytes(value: memoryview) -> bool:
    """Whether a ValueInfoProto is of uint8."""
    return _retyped(value) != bytes(value)


def _retyped(value: memoryview) -> bytes:
    """A ValueInfoProto with uint16 where it has uint8: value.type.tensor_type.elem_type."""

    def at(message: memoryview, path: tuple[int, ...]) -> bytes:
        parts = []
        for field in fields(message):
            if path and field.number == path[0] and not isinstance(field.value, int):
                parts.append(chunk(field.number, at(field.value, path[1:])))
            elif not path and field.number == 1 and field.value == _UINT8:
                parts.append(varint(1 << 3) + varint(_UINT16))
            else:
                parts.append(bytes(field.raw))
        return b"".join(parts)

    return at(value, (2, 1))
