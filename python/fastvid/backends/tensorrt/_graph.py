"""ONNX graphs as TensorRT's parser takes them: nodes of the domain `fastvid` become plugins.

The graphs of a bundle are rewritten when an engine is built, on the wire and without the package
`onnx`: a bundle then needs no second copy of its weights for TensorRT, and bundles that were made
earlier work too. TensorRT differs from onnxruntime, so the nodes differ from those exported: an
optional input is part of the operator's name, attributes are text, and where an op has uint8 the
plugin has floats that hold the same levels.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

from fastvid.backends._protobuf import BYTES, FIXED32, VARINT, Field, chunk, fields, number, text
from fastvid.backends.tensorrt_plugins import NAMESPACE, PLUGINS
from fastvid.backends.tensorrt_plugins._describe import Plugin

# Fields of ModelProto, GraphProto, FunctionProto, NodeProto and AttributeProto.
_MODEL_GRAPH, _MODEL_FUNCTIONS = 7, 25
_GRAPH_NODE, _FUNCTION_NODE = 1, 7
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_OP, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 2, 3, 4, 5, 7
_ATTR_NAME, _ATTR_FLOAT, _ATTR_INT, _ATTR_TEXT, _ATTR_GRAPH, _ATTR_GRAPHS = 1, 2, 3, 4, 6, 11
_ATTR_TYPE, _ATTR_REFERENCE = 20, 21
_TYPE_INT, _TYPE_STRING = 2, 3  # AttributeType
_FLOAT, _UINT8 = 1, 2  # TensorProto.DataType


@dataclass(frozen=True)
class PluginGraph:
    """A graph for TensorRT's parser."""

    model: bytes
    """The ONNX file; as it was where no node is of the domain `fastvid`."""
    plugins: tuple[str, ...]
    """Names of the plugins it uses."""
    missing: tuple[str, ...]
    """Nodes that have no plugin, described; such a graph cannot be built."""


@dataclass
class _Found:
    plugins: set[str] = field(default_factory=set)
    missing: list[str] = field(default_factory=list)


def plugin_graph(model: bytes) -> PluginGraph:
    """A graph whose `fastvid` nodes are plugins of TensorRT.

    Nodes in the bodies of loops, branches and functions are changed too.

    Args:
        model: Bytes of an ONNX file. Weights beside the file stay there.

    Raises:
        ValueError: The bytes are not an ONNX model.
    """
    found = _Found()
    nodes = {_MODEL_GRAPH: _GRAPH_NODE, _MODEL_FUNCTIONS: _FUNCTION_NODE}
    parts: list[bytes | memoryview] = []
    for part in fields(model):
        if part.number in nodes and isinstance(part.value, memoryview):
            body = _with_plugins(part.value, nodes[part.number], found)
            parts.append(part.raw if body is None else chunk(part.number, body))
        else:
            parts.append(part.raw)
    changed = b"".join(parts) if found.plugins and not found.missing else model
    return PluginGraph(changed, tuple(sorted(found.plugins)), tuple(found.missing))


def _with_plugins(graph: memoryview, node_field: int, found: _Found) -> bytes | None:
    """The body of a graph or function with its nodes changed; None if none had to be."""
    parts: list[bytes | memoryview] = []
    changed = False
    for part in fields(graph):
        nodes = None
        if part.number == node_field and isinstance(part.value, memoryview):
            nodes = _changed_node(part.value, node_field, found)
        changed |= nodes is not None
        parts.append(part.raw if nodes is None else nodes)
    return b"".join(parts) if changed else None


def _changed_node(node: memoryview, node_field: int, found: _Found) -> bytes | None:
    parts = list(fields(node))
    if any(p.number == _NODE_DOMAIN and _text(p) == NAMESPACE for p in parts):
        return b"".join(chunk(node_field, made) for made in _as_plugin(parts, found))
    body: list[bytes | memoryview] = []
    changed = False
    for part in parts:
        attribute = None
        if part.number == _NODE_ATTRIBUTE and isinstance(part.value, memoryview):
            attribute = _with_plugins_inside(part.value, found)
        changed |= attribute is not None
        body.append(part.raw if attribute is None else chunk(_NODE_ATTRIBUTE, attribute))
    return chunk(node_field, b"".join(body)) if changed else None


def _with_plugins_inside(attribute: memoryview, found: _Found) -> bytes | None:
    """An attribute whose graphs were changed; None if it has none that had to be."""
    parts: list[bytes | memoryview] = []
    changed = False
    for part in fields(attribute):
        body = None
        if part.number in (_ATTR_GRAPH, _ATTR_GRAPHS) and isinstance(part.value, memoryview):
            body = _with_plugins(part.value, _GRAPH_NODE, found)
        changed |= body is not None
        parts.append(part.raw if body is None else chunk(part.number, body))
    return b"".join(parts) if changed else None


def _as_plugin(parts: list[Field], found: _Found) -> list[bytes]:
    """The nodes that stand for one `fastvid` node; none if it has no plugin."""
    operator = "".join(_text(p) for p in parts if p.number == _NODE_OP)
    name = "".join(_text(p) for p in parts if p.number == _NODE_NAME)
    every = [_text(p) for p in parts if p.number == _NODE_INPUT]
    outputs = [_text(p) for p in parts if p.number == _NODE_OUTPUT]
    given = dict(_attribute(p) for p in parts if p.number == _NODE_ATTRIBUTE)
    plugin = _plugin_of(operator, [bool(one) for one in every], given)
    if plugin is None:
        count = sum(map(bool, every))
        found.missing.append(f"{operator} ({name or outputs[0]}) of {count} inputs and {given}")
        return []
    found.plugins.add(plugin.name)
    inputs = [one for one in every if one]
    before, after = [], []
    for i in (plugin.inputs.index(one) for one in plugin.levels_in):
        levels = f"{inputs[i]}_levels_of_{outputs[0]}"
        before.append(_cast(inputs[i], levels, _FLOAT))
        inputs[i] = levels
    if plugin.levels_out:
        levels = f"{outputs[0]}_levels"
        after.append(_cast(levels, outputs[0], _UINT8))
        outputs[0] = levels
    attributes = [
        _text_attribute(key, str(given.get(key, default)))
        for key, default in plugin.attributes.items()
    ]
    attributes += [
        _text_attribute("plugin_namespace", NAMESPACE),
        _text_attribute("plugin_version", "1"),
        _int_attribute("aot", 1),
    ]
    made = _node(plugin.name, inputs, outputs, attributes, name=name, domain=NAMESPACE)
    return [*before, made, *after]


def _plugin_of(operator: str, present: list[bool], given: dict[str, Any]) -> Plugin | None:
    """The plugin of a node's operator that takes just the inputs it has."""
    matching = (p for p in PLUGINS.values() if p.matches(operator, present, given))
    return next(matching, None)


def _node(
    operator: str,
    inputs: list[str],
    outputs: list[str],
    attributes: list[bytes],
    *,
    name: str = "",
    domain: str = "",
) -> bytes:
    parts = [text(_NODE_INPUT, one) for one in inputs]
    parts += [text(_NODE_OUTPUT, one) for one in outputs]
    parts += [text(_NODE_NAME, name)] if name else []
    parts += [text(_NODE_OP, operator)]
    parts += [chunk(_NODE_ATTRIBUTE, one) for one in attributes]
    parts += [text(_NODE_DOMAIN, domain)] if domain else []
    return b"".join(parts)


def _cast(source: str, target: str, dtype: int) -> bytes:
    return _node("Cast", [source], [target], [_int_attribute("to", dtype)])


def _text_attribute(name: str, value: str) -> bytes:
    parts = (text(_ATTR_NAME, name), text(_ATTR_TEXT, value), number(_ATTR_TYPE, _TYPE_STRING))
    return b"".join(parts)


def _int_attribute(name: str, value: int) -> bytes:
    parts = (text(_ATTR_NAME, name), number(_ATTR_INT, value), number(_ATTR_TYPE, _TYPE_INT))
    return b"".join(parts)


def _text(part: Field) -> str:
    if part.wire != BYTES or not isinstance(part.value, memoryview):
        raise ValueError(f"field {part.number} of a node must be text")
    return str(part.value, "utf-8")


def _attribute(part: Field) -> tuple[str, int | float | str]:
    """Name and value of an attribute of a `fastvid` node: an integer, a float or text."""
    if not isinstance(part.value, memoryview):
        raise ValueError("an attribute of a node must be a message")
    name = ""
    value: int | float | str | None = None
    for entry in fields(part.value):
        if entry.number == _ATTR_NAME:
            name = _text(entry)
        elif entry.number == _ATTR_INT and entry.wire == VARINT:
            assert isinstance(entry.value, int)
            value = entry.value - (1 << 64) if entry.value >> 63 else entry.value
        elif entry.number == _ATTR_FLOAT and entry.wire == FIXED32:
            assert isinstance(entry.value, memoryview)
            (value,) = struct.unpack("<f", entry.value)
        elif entry.number == _ATTR_TEXT:
            value = _text(entry)
        elif entry.number == _ATTR_REFERENCE:
            raise ValueError(f"attribute {name!r} of a fastvid node must have a value of its own")
    if value is None:
        raise ValueError(f"attribute {name!r} of a fastvid node must be a number or text")
    return name, value
