"""The way back: graphs whose nodes are plugins of TensorRT, as onnxruntime runs them."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from fastvid.backends.tensorrt_plugins import PLUGINS


def runnable(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which each plugin is again the node of the domain `fastvid` that it stands for.

    Raises:
        ValueError: A plugin is not known, or not written as TensorRT's parser wants it.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    del made.graph.node[:]
    for node in model.graph.node:
        made.graph.node.extend(_original(node) if node.domain == "fastvid" else [node])
    return made


def _original(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    if node.op_type not in PLUGINS:
        raise ValueError(f"no plugin {node.op_type}")
    plugin = PLUGINS[node.op_type]
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    marks = (given.pop("plugin_namespace"), given.pop("plugin_version"), given.pop("aot"))
    if marks != (b"fastvid", b"1", 1) or set(given) != set(plugin.attributes):
        raise ValueError(f"{node.op_type} has attributes {given}")
    inputs = dict(zip(plugin.inputs, node.input, strict=True))
    before, after, outputs = [], [], list(node.output)
    for name in plugin.levels_in:
        levels = f"{inputs[name]}_as_bytes_{outputs[0]}"
        before.append(helper.make_node("Cast", [inputs[name]], [levels], to=TensorProto.UINT8))
        inputs[name] = levels
    if plugin.levels_out:
        levels = f"{outputs[0]}_as_bytes"
        after.append(helper.make_node("Cast", [levels], [outputs[0]], to=TensorProto.FLOAT))
        outputs[0] = levels
    every = [inputs.get(name, "") for name in plugin.all_inputs or plugin.inputs]
    while not every[-1]:
        every.pop()
    attributes = {
        name: type(default)(given[name].decode()) for name, default in plugin.attributes.items()
    }
    attributes |= plugin.only
    back = helper.make_node(plugin.node, every, outputs, domain="fastvid", **attributes)
    return [*before, back, *after]
