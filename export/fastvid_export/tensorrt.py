"""Graphs for TensorRT: nodes of the domain `fastvid` as its ONNX parser finds their plugins.

The runtime makes them itself when it builds an engine (`fastvid.backends.tensorrt`); this is for
who drives TensorRT by other means, for example `trtexec`. The plugins are those of
`fastvid.backends.tensorrt_plugins`; call its `register()` before the graph is parsed.
"""

from __future__ import annotations

import onnx

from fastvid.backends.tensorrt._graph import plugin_graph
from fastvid.backends.tensorrt_plugins import PLUGINS
from fastvid_export.errors import ExportError


def prepare(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a graph whose `fastvid` nodes are plugins of TensorRT.

    Args:
        model: As `fastvid_export.onnx.export` makes it.

    Raises:
        ExportError: A node has no plugin; its op runs in onnxruntime and from Python only.
    """
    made = plugin_graph(model.SerializeToString())
    if made.missing:
        raise ExportError(
            f"export: {made.missing[0]} must have a TensorRT plugin, there are {', '.join(PLUGINS)}"
        )
    prepared: onnx.ModelProto = onnx.ModelProto.FromString(made.model)
    return prepared
