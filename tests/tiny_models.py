"""Small ONNX graphs and bundles around them, made when a test asks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from fastvid.bundle import Bundle, write_bundle

_TYPES = {
    "uint8": TensorProto.UINT8,
    "float32": TensorProto.FLOAT,
    "int64": TensorProto.INT64,
    "bool": TensorProto.BOOL,
}


def tensor(name: str, dtype: str, *shape: int | str) -> dict[str, Any]:
    """An input or output as it stands in a manifest."""
    return {"name": name, "dtype": dtype, "shape": list(shape)}


def _info(spec: dict[str, Any]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(spec["name"], _TYPES[spec["dtype"]], spec["shape"])


def model(
    nodes: list[onnx.NodeProto],
    inputs: list[dict[str, Any]],
    outputs: list[dict[str, Any]],
    initializers: list[onnx.TensorProto] | None = None,
    *,
    opset: int = 18,
    domains: dict[str, int] | None = None,
) -> bytes:
    """Bytes of an ONNX model with one graph."""
    graph = helper.make_graph(
        nodes, "tiny", [*map(_info, inputs)], [*map(_info, outputs)], initializers
    )
    imports = [helper.make_opsetid("", opset)]
    imports += [helper.make_opsetid(name, version) for name, version in (domains or {}).items()]
    made = helper.make_model(graph, opset_imports=imports, ir_version=9)
    return bytes(made.SerializeToString())


X = tensor("x", "float32", "N", 4)
Y = tensor("y", "float32", "N", 4)


def double() -> bytes:
    """y = x + x."""
    return model([helper.make_node("Add", ["x", "x"], ["y"])], [X], [Y])


def nearest_x2(gain: float = 1.0) -> bytes:
    """Every pixel of `frames` uint8 (N, H, W, 3), times `gain`, four times in `upscaled`."""
    scales = helper.make_tensor("scales", TensorProto.FLOAT, [4], [1, 2, 2, 1])
    factor = helper.make_tensor("gain", TensorProto.FLOAT, [], [gain])
    resize = helper.make_node(
        "Resize",
        ["product", "", "scales"],
        ["large"],
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    nodes = [
        helper.make_node("Cast", ["frames"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "gain"], ["product"]),
        resize,
        helper.make_node("Cast", ["large"], ["upscaled"], to=TensorProto.UINT8),
    ]
    frames = tensor("frames", "uint8", "N", "H", "W", 3)
    upscaled = tensor("upscaled", "uint8", "N", "sH", "sW", 3)
    return model(nodes, [frames], [upscaled], [scales, factor])


def endless() -> bytes:
    """Adds x to itself for ever."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["again"], ["again_out"]),
            helper.make_node("Add", ["v", "v"], ["v_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, ["N", 4]),
        ],
        [
            helper.make_tensor_value_info("again_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v_out", TensorProto.FLOAT, ["N", 4]),
        ],
    )
    start = helper.make_tensor("start", TensorProto.BOOL, [], [True])
    return model(
        [helper.make_node("Loop", ["", "start", "x"], ["y"], body=body)], [X], [Y], [start]
    )


def external(location: str, count: int = 400) -> tuple[bytes, bytes]:
    """y = x + w, with w = 1, 2, ... of shape (count / 4, 4) in the file `location`."""
    values = np.arange(1, count + 1, dtype=np.float32)
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[count // 4, 4])
    weights.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": str(4 * count)}.items():
        weights.external_data.add(key=key, value=value)
    node = helper.make_node("Add", ["x", "w"], ["y"])
    return model([node], [X], [Y], [weights]), values.tobytes()


def manifest(**changes: Any) -> dict[str, Any]:
    """A manifest for one graph `run` from X to Y."""
    return {
        "name": "tiny",
        "task": "generator",
        "description": "for tests",
        "licence": "Apache-2.0",
        "provenance": {"weights": "none"},
        "graphs": {"run": {"file": "run.onnx", "inputs": [X], "outputs": [Y]}},
        "size_rule": {"minimum": 1, "multiple_of": 1, "padding": "none"},
        **changes,
    }


def bundle(folder: Path, data: bytes, **changes: Any) -> Bundle:
    """A bundle in `folder` with the one graph `data`, called `run`."""
    return write_bundle(folder, manifest(**changes), {"run.onnx": data})


def upscaler(folder: Path, *, maximum: int = 64, gain: float = 1.0) -> Bundle:
    """A bundle for task `upscaler`, scale 2, that repeats pixels."""
    graph = {
        "file": "run.onnx",
        "inputs": [tensor("frames", "uint8", "N", "H", "W", 3)],
        "outputs": [tensor("upscaled", "uint8", "N", "2*H", "2*W", 3)],
    }
    return bundle(
        folder,
        nearest_x2(gain),
        name="upscaler-tiny-x2",
        task="upscaler",
        scale=2,
        graphs={"upscale": graph},
        size_rule={"minimum": 2, "multiple_of": 2, "padding": "edge", "maximum": maximum},
    )


def interpolator(folder: Path) -> Bundle:
    """A bundle for task `interpolator` that blends two frames by the time step."""
    frames = [tensor(name, "uint8", 1, "H", "W", 3) for name in ("frame0", "frame1")]
    features = [tensor(name, "float32", 1, "H", "W", 3) for name in ("start", "change")]
    timestep = tensor("timestep", "float32", 1) | {"range": [0, 1]}
    frame = tensor("frame", "uint8", 1, "H", "W", 3)
    motion = [
        helper.make_node("Cast", ["frame0"], ["start"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["frame1"], ["end"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["end", "start"], ["change"]),
    ]
    between = [
        helper.make_node("Mul", ["change", "timestep"], ["part"]),
        helper.make_node("Add", ["start", "part"], ["blend"]),
        helper.make_node("Round", ["blend"], ["whole"]),
        helper.make_node("Cast", ["whole"], ["frame"], to=TensorProto.UINT8),
    ]
    graphs = {
        "between": {
            "file": "between.onnx",
            "inputs": [*features, timestep],
            "outputs": [frame],
        },
        "motion": {"file": "motion.onnx", "inputs": frames, "outputs": features},
    }
    data = {
        "motion.onnx": model(motion, frames, features),
        "between.onnx": model(between, [*features, timestep], [frame]),
    }
    return write_bundle(
        folder, manifest(name="interpolator-tiny", task="interpolator", graphs=graphs), data
    )
