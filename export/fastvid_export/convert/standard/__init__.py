"""Graphs of standard ONNX operators: every `fastvid` node is written out.

Such a graph runs in any runtime, without fastvid's library, and more slowly: what one kernel did in
one pass becomes many. Both give the same up to the rounding of float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx
from onnx import TensorProto, helper

from fastvid_export.convert import roles
from fastvid_export.convert.standard import attention, frames, products, search
from fastvid_export.convert.standard.builder import Builder
from fastvid_export.errors import ExportError

WRITERS: dict[str, Callable[..., list[str]]] = {
    "Attention": attention.attention,
    "Downscale": frames.downscale,
    "InverseSearch": search.inverse_search,
    "Linear": products.linear,
    "LumaToRgb": frames.luma_to_rgb,
    "PlanarToRgb": frames.planar_to_rgb,
    "QkNormRope": attention.qk_norm_rope,
    "RgbToLuma": frames.rgb_to_luma,
    "RgbToPlanar": frames.rgb_to_planar,
    "SchedulerStep": attention.scheduler_step,
    "TemporalAttention": attention.temporal_attention,
    "Warp": frames.warp,
    "WarpBlend": frames.warp_blend,
}
"""What writes each operator of fastvid out."""

_OLDEST = 16  # GridSample
STANDARD_DOMAINS = ("", "ai.onnx")


def to_standard(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a graph without nodes of fastvid's own.

    Raises:
        ExportError: A node cannot be written out, or the graph's opset is older than 16.
    """
    opset = next((o.version for o in model.opset_import if o.domain in STANDARD_DOMAINS), 0)
    if opset < _OLDEST:
        raise ExportError(
            f"export: opset must be {_OLDEST} or newer for portable graphs, got {opset}",
            hint="export the network again with a newer opset",
        )
    made = onnx.ModelProto()
    made.CopyFrom(model)
    types = roles.value_types(made)
    nodes: list[onnx.NodeProto] = []
    for i, node in enumerate(made.graph.node):
        if node.domain != roles.NAMESPACE:
            nodes.append(node)
            continue
        builder = Builder(f"{node.op_type}.{i}", opset)
        _write(builder, node, types)
        nodes += builder.nodes
        made.graph.initializer.extend(builder.weights)
    written = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del made.graph.node[:], made.graph.value_info[:]
    made.graph.node.extend(written)
    kept = [entry for entry in made.opset_import if entry.domain != roles.NAMESPACE]
    del made.opset_import[:]
    made.opset_import.extend(kept)
    return made


def _write(builder: Builder, node: onnx.NodeProto, types: dict[str, int]) -> None:
    writer = WRITERS.get(node.op_type)
    if writer is None:
        raise ExportError(
            f"export: node {node.name or node.op_type!r} (fastvid.{node.op_type}) cannot be "
            "written in standard operators",
            hint="leave --portable out: fastvid's own library runs it in onnxruntime",
        )
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    more: dict[str, Any] = {}
    if node.op_type == "Warp":
        more["dtype"] = types.get(node.input[0], TensorProto.FLOAT)
    results: Sequence[str] = writer(builder, list(node.input), attributes, **more)
    for value, name in zip(results, node.output, strict=False):
        if name:
            builder.name_result(value, name)
