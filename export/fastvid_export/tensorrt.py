"""Graphs for TensorRT: nodes of the domain `fastvid` as its ONNX parser finds their plugins.

The plugins are those of `fastvid.backends.tensorrt_plugins`; call its `register()` before the graph
is parsed. What differs from the nodes as exported, because TensorRT differs from onnxruntime: an
optional input is part of the operator's name, attributes are text, and where an op has uint8 the
plugin has floats that hold the same levels.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from fastvid.backends.tensorrt_plugins import NAMESPACE, PLUGINS, Plugin
from fastvid_export.errors import ExportError


def prepare(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a graph whose `fastvid` nodes are plugins of TensorRT.

    Args:
        model: As `fastvid_export.onnx.export` makes it.

    Raises:
        ExportError: A node has no plugin; its op runs in onnxruntime and from Python only.
    """
    prepared = onnx.ModelProto()
    prepared.CopyFrom(model)
    del prepared.graph.node[:]
    for node in model.graph.node:
        nodes = _as_plugin(node) if node.domain == NAMESPACE else [node]
        prepared.graph.node.extend(nodes)
    return prepared


def _as_plugin(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    plugin = _plugin_of(node, given)
    inputs = [name for name in node.input if name]
    before, after, outputs = [], [], list(node.output)
    for i in (plugin.inputs.index(name) for name in plugin.levels_in):
        levels = f"{inputs[i]}_levels_of_{node.output[0]}"
        before.append(helper.make_node("Cast", [inputs[i]], [levels], to=TensorProto.FLOAT))
        inputs[i] = levels
    if plugin.levels_out:
        levels = f"{outputs[0]}_levels"
        after.append(helper.make_node("Cast", [levels], [outputs[0]], to=TensorProto.UINT8))
        outputs[0] = levels
    made = helper.make_node(plugin.name, inputs, outputs, name=node.name, domain=NAMESPACE)
    for name, default in plugin.attributes.items():
        value = given.get(name, default)
        text = value.decode() if isinstance(value, bytes) else str(value)
        made.attribute.append(helper.make_attribute(name, text))
    made.attribute.extend(
        [
            helper.make_attribute("plugin_namespace", NAMESPACE),
            helper.make_attribute("plugin_version", "1"),
            helper.make_attribute("aot", 1),
        ]
    )
    return [*before, made, *after]


def _plugin_of(node: onnx.NodeProto, given: dict[str, object]) -> Plugin:
    """The plugin of a node's operator that takes just the inputs it has."""
    present = [bool(name) for name in node.input]
    for plugin in PLUGINS.values():
        if plugin.matches(node.op_type, present, given):
            return plugin
    raise ExportError(
        f"export: {node.op_type} ({node.name}) must have a TensorRT plugin for its "
        f"{sum(present)} inputs and attributes {given}, there are {', '.join(PLUGINS)}"
    )
