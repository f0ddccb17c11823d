"""Small bundles with exact, simple graphs: the SDK's tests do not depend on trained weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from fastvid.bundle import Bundle, write_bundle

_FRAME = ["N", "H", "W", 3]


def _value(name: str, kind: int, shape: list[Any]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _graph(
    name: str,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: dict[str, onnx.TensorProto],
) -> bytes:
    for key, tensor in constants.items():
        tensor.name = key
    graph = helper.make_graph(nodes, name, inputs, outputs, list(constants.values()))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _manifest(name: str, task: str, graphs: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "task": task,
        "description": "Exact arithmetic for tests.",
        "licence": "Apache-2.0",
        "provenance": {"weights": "No weights."},
        "graphs": graphs,
        "size_rule": {"minimum": 1, "multiple_of": 1, "padding": "internal", "maximum": 16384},
        **more,
    }


def _tensor(name: str, dtype: str, shape: list[Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": shape, **more}


def upscaler(folder: Path, *, scale: int = 2, **rule: Any) -> Bundle:
    """Repeats each pixel `scale` times along both sides; `rule` replaces parts of the size rule."""
    nodes = [
        helper.make_node("Cast", ["frames"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node(
            "Resize", ["floats", "", "scales"], ["large"], mode="nearest",
            coordinate_transformation_mode="asymmetric", nearest_mode="floor",
        ),
        helper.make_node("Cast", ["large"], ["upscaled"], to=TensorProto.UINT8),
    ]  # fmt: skip
    large = ["N", f"{scale}*H", f"{scale}*W", 3]
    data = _graph(
        "upscale",
        nodes,
        [_value("frames", TensorProto.UINT8, list(_FRAME))],
        [_value("upscaled", TensorProto.UINT8, ["N", "sH", "sW", 3])],
        {"scales": helper.make_tensor("s", TensorProto.FLOAT, [4], [1, scale, scale, 1])},
    )
    graph = {
        "file": "upscale.onnx",
        "inputs": [_tensor("frames", "uint8", _FRAME)],
        "outputs": [_tensor("upscaled", "uint8", large)],
    }
    manifest = _manifest(folder.name, "upscaler", {"upscale": graph}, scale=scale)
    manifest["size_rule"] |= rule
    return write_bundle(folder, manifest, {"upscale.onnx": data})


def interpolator(folder: Path, **rule: Any) -> Bundle:
    """Blends: `frame0 + timestep * (frame1 - frame0)`, rounded; `motion` gives the difference."""
    frame = [1, "H", "W", 3]
    motion = _graph(
        "motion",
        [
            helper.make_node("Cast", ["frame0"], ["first"], to=TensorProto.FLOAT),
            helper.make_node("Cast", ["frame1"], ["second"], to=TensorProto.FLOAT),
            helper.make_node("Sub", ["second", "first"], ["change"]),
        ],
        [_value(n, TensorProto.UINT8, list(frame)) for n in ("frame0", "frame1")],
        [_value("change", TensorProto.FLOAT, list(frame))],
        {},
    )
    between = _graph(
        "between",
        [
            helper.make_node("Cast", ["frame0"], ["first"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["change", "timestep"], ["part"]),
            helper.make_node("Add", ["first", "part"], ["sum"]),
            helper.make_node("Round", ["sum"], ["rounded"]),
            helper.make_node("Cast", ["rounded"], ["frame"], to=TensorProto.UINT8),
        ],
        [
            _value("frame0", TensorProto.UINT8, list(frame)),
            _value("change", TensorProto.FLOAT, list(frame)),
            _value("timestep", TensorProto.FLOAT, [1]),
        ],
        [_value("frame", TensorProto.UINT8, list(frame))],
        {},
    )
    frames = [_tensor(n, "uint8", frame) for n in ("frame0", "frame1")]
    change = _tensor("change", "float32", frame)
    timestep = _tensor("timestep", "float32", [1], range=[0, 1])
    graphs = {
        "motion": {"file": "motion.onnx", "inputs": frames, "outputs": [change]},
        "between": {
            "file": "between.onnx",
            "inputs": [frames[0], change, timestep],
            "outputs": [_tensor("frame", "uint8", frame)],
        },
    }
    manifest = _manifest(folder.name, "interpolator", graphs)
    manifest["size_rule"] |= rule
    return write_bundle(folder, manifest, {"motion.onnx": motion, "between.onnx": between})
