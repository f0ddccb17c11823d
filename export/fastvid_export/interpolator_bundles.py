"""An IFNet as an interpolator's bundle: two graphs, held against the network, `bundle.json`."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from fastvid import __version__
from fastvid.bundle import Bundle, write_bundle
from fastvid.metrics import psnr
from fastvid.scene import Scene
from fastvid_export import ifnet_graphs, ops
from fastvid_export.errors import ExportError
from fastvid_export.models.ifnet import IFNet
from fastvid_export.onnx import LEVELS
from fastvid_export.running import Runner

_GATE = 60.0
"""dB of the graphs' float pictures against the network's."""
_TIMES = (0.5, 0.3)


@dataclass(frozen=True)
class Origin:
    """Where a network comes from."""

    name: str
    path: Path
    licence: str
    """Of the weights, an SPDX expression."""
    flow_scale: float
    """The part of the frames' size at which motion is looked for."""


def write(
    net: IFNet, origin: Origin, name: str, folder: Path, say: Callable[[str], None]
) -> Bundle:
    """Exports a network, holds its graphs against it, and writes the bundle.

    Args:
        net: With its weights.
        origin: Of the weights.
        name: Of the bundle.
        folder: Of the bundle; not there yet.
        say: Called with lines about the progress.

    Raises:
        ExportError: A graph cannot be exported, or differs from the network.
        OutputError: The folder cannot be written.
    """
    pairs = _pairs(net.options.multiple_of)
    say(f"{origin.name}: exporting")
    graphs = {"motion": ifnet_graphs.motion(net), "between": ifnet_graphs.between(net)}
    figures = _compared(net, graphs["motion"], graphs["between"], pairs)
    for figure in figures:
        say(f"{figure['metric']} on {figure['data']}: {figure['value']:.3g} {figure['unit']}")
    manifest = _manifest(net, origin, name) | {"quality": figures}
    files = {
        f"{graph}.onnx": model.SerializeToString(deterministic=True)
        for graph, model in graphs.items()
    }
    return write_bundle(folder, manifest, files)


Pairs = dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]]


def _pairs(step: int) -> Pairs:
    """Two random pairs of frames (N, H, W, 3), and a drawn one at another size."""
    rng = np.random.default_rng(0)
    small, large = (-(-side // step) * step for side in (96, 160))
    noise = rng.integers(0, 256, (2, 2, small, large, 3), np.uint8)
    scene = Scene(large, large, seed=4)
    drawn = [scene.draw(t / 30)[None] for t in (12, 14)]
    return {"random": (noise[0], noise[1]), "drawn": (drawn[0], drawn[1])}


def _compared(
    net: IFNet, motion: ModelProto, between: ModelProto, pairs: Pairs
) -> list[dict[str, Any]]:
    """How far the graphs in onnxruntime are from the network in PyTorch.

    Raises:
        ExportError: Further than is allowed.
    """
    prepare, draw, draw_floats = (
        Runner(model.SerializeToString()) for model in (motion, between, _in_floats(between))
    )
    figures = []
    for kind, (frame0, frame1) in pairs.items():
        timestep = np.array(_TIMES[: len(frame0)], np.float32)
        features = prepare({"frame0": frame0, "frame1": frame1}) | {"timestep": timestep}
        made = draw_floats(features)["frame"]
        images = [ops.rgb_to_planar(torch.from_numpy(x)) for x in (frame0, frame1)]
        with torch.no_grad():
            wanted = net(*images, torch.from_numpy(timestep)).clamp(0, 1)
        frames = ops.planar_to_rgb(wanted).numpy().astype(np.int16)
        levels = int(np.abs(draw(features)["frame"] - frames).max())
        difference = float(np.abs(made - wanted.numpy()).max())
        value = psnr(255 * made, 255 * wanted.numpy())
        if not value >= _GATE or levels > LEVELS:
            raise ExportError(
                f"export: the graphs must be within {_GATE:g} dB and {LEVELS} level of the "
                f"network on {kind} frames, got {value:.1f} dB and {levels} levels"
            )
        where = f"pictures before rounding, {kind} frames"
        figures += [
            {"metric": "largest difference from PyTorch", "data": where,
             "value": float(f"{difference:.3g}"), "unit": "of the range"},
            {"metric": "PSNR against PyTorch", "data": where, "value": round(min(value, 200.0), 1),
             "unit": "dB"},
        ]  # fmt: skip
    return figures


def _in_floats(between: ModelProto) -> ModelProto:
    """The graph without rounding its picture: planes (N, 3, H, W) in [0, 1]."""
    model = ModelProto()
    model.CopyFrom(between)
    blend = next(node for node in model.graph.node if node.op_type == "WarpBlend")
    next(a for a in blend.attribute if a.name == "output_uint8").i = 0
    planes = helper.make_tensor_value_info("frame", TensorProto.FLOAT, ("N", 3, "H", "W"))
    model.graph.output[0].CopyFrom(planes)
    return model


def _manifest(net: IFNet, origin: Origin, name: str) -> dict[str, Any]:
    features = ifnet_graphs.features(net.options)
    ports = {
        "motion": (ifnet_graphs.FRAMES, features),
        "between": (ifnet_graphs.between_inputs(net.options), (ifnet_graphs.RESULT,)),
    }
    digest = hashlib.sha256(origin.path.read_bytes()).hexdigest()
    step = net.options.multiple_of
    parameters = sum(p.numel() for p in net.parameters())
    return {
        "name": name,
        "task": "interpolator",
        "description": (
            f"{origin.name} of Practical-RIFE: frame interpolation at any time by intermediate "
            f"flow, {parameters} parameters."
        ),
        "licence": origin.licence,
        "requires_fastvid": __version__,
        "provenance": {
            "weights": f"Those of {origin.path.name} (sha256 {digest}).",
            "exporter": f"fastvid_export {__version__}, torch {torch.__version__.split('+')[0]}",
            "created": time.strftime("%Y-%m-%d", time.gmtime()),
            "settings": {"architecture": origin.name, "flow_scale": origin.flow_scale},
        },
        "graphs": {
            graph: {
                "file": f"{graph}.onnx",
                "inputs": [port.manifest() for port in inputs],
                "outputs": [port.manifest() for port in outputs],
            }
            for graph, (inputs, outputs) in ports.items()
        },
        "size_rule": {"minimum": step, "multiple_of": step, "padding": "edge"},
    }
