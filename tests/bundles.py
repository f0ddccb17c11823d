"""Bundles with exact, simple graphs: the SDK's tests do not depend on trained weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tiny_models
from onnx import TensorProto, helper, numpy_helper

from fastvid.bundle import Bundle, write_bundle

_RULE = {"minimum": 1, "multiple_of": 1, "padding": "internal", "maximum": 16384}


def upscaler(folder: Path, *, scale: int = 2, **rule: Any) -> Bundle:
    """Repeats each pixel `scale` times along both sides; `rule` replaces parts of the size rule."""
    scales = helper.make_tensor("scales", TensorProto.FLOAT, [4], [1, scale, scale, 1])
    resize = helper.make_node(
        "Resize",
        ["floats", "", "scales"],
        ["large"],
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    nodes = [
        helper.make_node("Cast", ["frames"], ["floats"], to=TensorProto.FLOAT),
        resize,
        helper.make_node("Cast", ["large"], ["upscaled"], to=TensorProto.UINT8),
    ]
    frames = tiny_models.tensor("frames", "uint8", "N", "H", "W", 3)
    inside = tiny_models.tensor("upscaled", "uint8", "N", "sH", "sW", 3)
    outside = tiny_models.tensor("upscaled", "uint8", "N", f"{scale}*H", f"{scale}*W", 3)
    manifest = tiny_models.manifest(
        name=folder.name,
        task="upscaler",
        scale=scale,
        graphs={"upscale": {"file": "run.onnx", "inputs": [frames], "outputs": [outside]}},
        size_rule=_RULE | rule,
    )
    data = tiny_models.model(nodes, [frames], [inside], [scales])
    return write_bundle(folder, manifest, {"run.onnx": data})


def conv_upscaler(folder: Path, size: tuple[int, int] | None = None, **changes: Any) -> Bundle:
    """Doubles frames through four convolutions of 16 channels between fastvid's colour nodes.

    `size` is the one height and width that it takes; None is any.
    """
    rng = np.random.default_rng(0)
    weights = []

    def conv(source: str, result: str, inside: int, outside: int) -> Any:
        kernel = rng.normal(0, 0.02, (outside, inside, 3, 3)).astype(np.float32)
        # Each channel passes one on, so that the picture comes through.
        kernel[np.arange(outside), np.arange(outside) % inside, 1, 1] += 1
        kernel /= np.abs(kernel).sum((1, 2, 3), keepdims=True)
        bias = rng.normal(0, 0.01, outside).astype(np.float32)
        for name, array in ((f"{result}.w", kernel), (f"{result}.b", bias)):
            weights.append(numpy_helper.from_array(array, name))
        inputs = [source, f"{result}.w", f"{result}.b"]
        return helper.make_node("Conv", inputs, [result], pads=[1, 1, 1, 1])

    nodes = [
        helper.make_node("RgbToLuma", ["frames"], ["luma", "chroma"], domain="fastvid"),
        conv("luma", "first", 1, 16),
        helper.make_node("Relu", ["first"], ["first_on"]),
        conv("first_on", "second", 16, 16),
        helper.make_node("Add", ["first_on", "second"], ["sum"]),
        conv("sum", "third", 16, 16),
        helper.make_node("Relu", ["third"], ["third_on"]),
        conv("third_on", "last", 16, 4),
        helper.make_node("DepthToSpace", ["last"], ["large"], blocksize=2, mode="CRD"),
        helper.make_node("LumaToRgb", ["large", "chroma"], ["upscaled"], domain="fastvid"),
    ]
    frames = tiny_models.tensor("frames", "uint8", *((1, *size) if size else ("N", "H", "W")), 3)
    inside = tiny_models.tensor("upscaled", "uint8", "N", "h", "w", 3)
    outside = tiny_models.tensor("upscaled", "uint8", "N", "2*H", "2*W", 3)
    if size is not None:
        outside = tiny_models.tensor("upscaled", "uint8", 1, 2 * size[0], 2 * size[1], 3)
    manifest = tiny_models.manifest(
        name=folder.name,
        task="upscaler",
        scale=2,
        graphs={"upscale": {"file": "upscale.onnx", "inputs": [frames], "outputs": [outside]}},
        **{"size_rule": _RULE} | changes,
    )
    data = tiny_models.model(nodes, [frames], [inside], weights, domains={"fastvid": 1})
    return write_bundle(folder, manifest, {"upscale.onnx": data})


def interpolator(folder: Path, **rule: Any) -> Bundle:
    """Blends: `frame0 + timestep * (frame1 - frame0)`, rounded; `motion` gives the difference."""
    frames = [tiny_models.tensor(n, "uint8", 1, "H", "W", 3) for n in ("frame0", "frame1")]
    change = tiny_models.tensor("change", "float32", 1, "H", "W", 3)
    timestep = tiny_models.tensor("timestep", "float32", 1) | {"range": [0, 1]}
    frame = tiny_models.tensor("frame", "uint8", 1, "H", "W", 3)
    # `between` takes a frame besides the features: names alone decide what it is fed.
    wanted = [frames[0], change, timestep]
    motion = [
        helper.make_node("Cast", ["frame0"], ["start"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["frame1"], ["end"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["end", "start"], ["change"]),
    ]
    between = [
        helper.make_node("Cast", ["frame0"], ["start"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["change", "timestep"], ["part"]),
        helper.make_node("Add", ["start", "part"], ["blend"]),
        helper.make_node("Round", ["blend"], ["whole"]),
        helper.make_node("Cast", ["whole"], ["frame"], to=TensorProto.UINT8),
    ]
    graphs = {
        "motion": {"file": "motion.onnx", "inputs": frames, "outputs": [change]},
        "between": {"file": "between.onnx", "inputs": wanted, "outputs": [frame]},
    }
    data = {
        "motion.onnx": tiny_models.model(motion, frames, [change]),
        "between.onnx": tiny_models.model(between, wanted, [frame]),
    }
    manifest = tiny_models.manifest(
        name=folder.name, task="interpolator", graphs=graphs, size_rule=_RULE | rule
    )
    return write_bundle(folder, manifest, data)
