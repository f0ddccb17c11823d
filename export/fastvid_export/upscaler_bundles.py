"""A network of somebody else's as an upscaler's bundle: nodes around it, checks, `bundle.json`."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx as onnx_format
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fastvid import __version__
from fastvid._specs import TilingSpec
from fastvid.bundle import Bundle, write_bundle
from fastvid.scene import Scene
from fastvid_export import onnx, ops, tiling
from fastvid_export.errors import ExportError
from fastvid_export.onnx import GraphPlan, Port
from fastvid_export.running import Runner

_GATE = 60.0
"""dB of the graph's float picture against the source network's."""
_SIDES = ((64, 80), (72, 64))
"""Heights and widths of the pictures to check with, raised to what the network takes."""


@dataclass(frozen=True)
class Network:
    """A network, and what has to be known to run it."""

    name: str
    """Of the architecture."""
    source: Callable[[Tensor], Tensor]
    """Planes (N, channels, H, W) in [0, 1] to planes in [0, 1], as its authors compute them."""
    module: nn.Module
    """The same function, arranged for export."""
    scale: int
    channels: int = 3
    """3 for RGB; 1 for luma, chroma then being resized bilinearly."""
    minimum: int = 1
    multiple_of: int = 1
    padding: str = "edge"
    description: str = ""
    weights: str = ""
    """Where they come from, in a sentence."""
    licence: str = "LicenseRef-unknown"
    settings: dict[str, Any] = field(default_factory=dict)


class RgbGraph(nn.Module):
    """Frames to frames through a network on RGB planes."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, frames: Tensor) -> Tensor:
        """uint8 (N, H, W, 3) → uint8 (N, sH, sW, 3)."""
        return ops.planar_to_rgb(self.net(ops.rgb_to_planar(frames)))


class LumaGraph(nn.Module):
    """Frames to frames through a network on luma; chroma is resized bilinearly."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, frames: Tensor) -> Tensor:
        """uint8 (N, H, W, 3) → uint8 (N, sH, sW, 3)."""
        luma, chroma = ops.rgb_to_luma(frames)
        return ops.luma_to_rgb(self.net(luma), chroma)


def write(network: Network, name: str, folder: Path, say: Callable[[str], None]) -> Bundle:
    """Exports a network, holds the graph against its source, and writes the bundle.

    Raises:
        ExportError: It cannot be traced, or the graph differs from the source.
        OutputError: The folder cannot be written.
    """
    samples = _pictures(network)
    say(f"{network.name}, x{network.scale}: exporting")
    data, batch, figures = _exported(network, samples)
    for figure in figures:
        say(f"{figure['metric']} on {figure['data']}: {figure['value']:.3g} {figure['unit']}")
    cut = tiling.measure(data, _runs(data), network.scale, network.multiple_of, network.minimum)
    if not cut.spec.exact:
        say(f"pieces differ from the whole: {cut.psnr:.1f} dB, up to {cut.levels} levels")
        where = f"a small drawn scene, overlap {cut.spec.reach} pixels"
        figures += [
            {"metric": "PSNR of pieces against the whole", "data": where,
             "value": round(cut.psnr, 1), "unit": "dB"},
            {"metric": "largest difference of pieces from the whole", "data": where,
             "value": cut.levels, "unit": "levels"},
        ]  # fmt: skip
    manifest = _manifest(network, name, batch, cut.spec) | {"quality": figures}
    return write_bundle(folder, manifest, {"upscale.onnx": data})


def _pictures(network: Network) -> dict[str, list[NDArray[np.uint8]]]:
    """Random and drawn frames (1, H, W, 3) of two sizes that the network takes."""
    step, rng = network.multiple_of, np.random.default_rng(0)
    sides = [
        tuple(-(-max(side, network.minimum) // step) * step + more for side in pair)
        for pair, more in zip(_SIDES, (0, step), strict=True)
    ]
    return {
        "random": [rng.integers(0, 256, (1, h, w, 3), np.uint8) for h, w in sides],
        "drawn": [Scene(w, h, seed=4).draw(0.5)[None] for h, w in sides],
    }


def _ports(network: Network, batch: int | str) -> tuple[Port, Port]:
    factor = "" if network.scale == 1 else f"{network.scale}*"
    return (
        Port("frames", "uint8", (batch, "H", "W", 3)),
        Port("upscaled", "uint8", (batch, f"{factor}H", f"{factor}W", 3)),
    )


def _exported(
    network: Network, samples: dict[str, list[NDArray[np.uint8]]]
) -> tuple[bytes, int | str, list[dict[str, Any]]]:
    """The graph, its batch, and what it was found to be: any batch, or 1 where no other works."""
    graph = (LumaGraph if network.channels == 1 else RgbGraph)(network.module).eval()
    failure: ExportError | None = None
    for batch in ("N", 1):
        source, result = _ports(network, batch)
        first = samples["random"][0]
        example = np.repeat(first, 2, 0) if batch == "N" else first
        plan = GraphPlan("upscale", graph, (source,), (result,), {"random": [{"frames": example}]})
        try:
            data = onnx.trace(plan)
            return data, batch, _compared(network, data, samples)
        except ExportError as error:
            failure = failure or error
    assert failure is not None
    text = " ".join(failure.message.split())[:600]
    raise ExportError(
        f"export: {network.name} must be exportable with heights and widths that vary: {text}",
        hint="a network whose PyTorch code decides by the size of the picture cannot be imported",
    )


# Whether it is the same


def _compared(
    network: Network, data: bytes, samples: dict[str, list[NDArray[np.uint8]]]
) -> list[dict[str, Any]]:
    """The float picture before rounding against the source network, and the frames against it.

    Raises:
        ExportError: They differ by more than 60 dB allow.
    """
    runner, planes = _with_planes(data)
    figures = []
    for kind, frames in samples.items():
        worst, power, levels, count = 0.0, 0.0, 0, 0
        for frame in frames:
            wanted = _source(network, frame)
            made = runner({"frames": frame})
            got = made[planes]
            if got.shape != wanted.shape:
                raise ExportError(
                    f"export: {network.name} must give {wanted.shape} as in PyTorch, got "
                    f"{got.shape}"
                )
            # What lies outside is clamped in frames; how far outside does not show.
            difference = np.abs(np.clip(got, 0, 1) - np.clip(wanted, 0, 1)).astype(np.float64)
            worst = max(worst, float(difference.max()))
            power += float((difference**2).sum())
            count += difference.size
            levels = max(levels, _levels(network, frame, wanted, made["upscaled"]))
        psnr = 10 * np.log10(count / max(power, 1e-20 * count))
        if not psnr >= _GATE or levels > onnx.LEVELS:
            raise ExportError(
                f"export: {network.name} must be within {_GATE:g} dB and {onnx.LEVELS} level of "
                f"its source on {kind} frames, got {psnr:.1f} dB and {levels} levels"
            )
        where = f"upscaled of upscale before rounding, {kind} inputs"
        figures += [
            {"metric": "largest difference from PyTorch", "data": where, "value": worst,
             "unit": "of the range"},
            {"metric": "PSNR against PyTorch", "data": where, "value": round(float(psnr), 1),
             "unit": "dB"},
        ]  # fmt: skip
    return figures


def _source(network: Network, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
    with torch.no_grad():
        pictures = torch.from_numpy(frame)
        planes = ops.rgb_to_planar(pictures)
        if network.channels == 1:
            planes = ops.rgb_to_luma(pictures)[0]
        found: NDArray[np.float32] = network.source(planes).float().numpy()
    return found


def _levels(
    network: Network,
    frame: NDArray[np.uint8],
    planes: NDArray[np.float32],
    made: NDArray[np.uint8],
) -> int:
    """Largest difference of the frames from those of the source's planes."""
    if network.channels == 1:
        chroma = ops.rgb_to_luma(torch.from_numpy(frame))[1]
        wanted = ops.luma_to_rgb(torch.from_numpy(planes), chroma).numpy()
    else:
        wanted = ops.planar_to_rgb(torch.from_numpy(planes)).numpy()
    return int(np.abs(wanted.astype(np.int16) - made.astype(np.int16)).max())


def _with_planes(data: bytes) -> tuple[Runner, str]:
    """The graph with one more output: what its last node, which rounds, is given."""
    model = onnx_format.load_from_string(data)
    last = next(node for node in model.graph.node if "upscaled" in node.output)
    planes: str = last.input[0]
    shape = [None, None, None, None]
    model.graph.output.append(
        onnx_format.helper.make_tensor_value_info(planes, onnx_format.TensorProto.FLOAT, shape)
    )
    return Runner(model.SerializeToString()), planes


def _runs(data: bytes) -> tiling.Run:
    runner = Runner(data)
    return lambda frames: runner({"frames": frames})["upscaled"]


def _manifest(network: Network, name: str, batch: int | str, cut: TilingSpec) -> dict[str, Any]:
    source, result = _ports(network, batch)
    # A frame that is no multiple of what pieces are could not be cut.
    step = math.lcm(network.multiple_of, cut.multiple_of)
    return {
        "name": name,
        "task": "upscaler",
        "description": network.description or f"{network.name}, x{network.scale}",
        "licence": network.licence,
        "scale": network.scale,
        "requires_fastvid": __version__,
        "provenance": {
            "weights": network.weights,
            "exporter": f"fastvid_export {__version__}, torch {torch.__version__.split('+')[0]}",
            "created": time.strftime("%Y-%m-%d", time.gmtime()),
            "settings": {"architecture": network.name, **network.settings},
        },
        "graphs": {
            "upscale": {
                "file": "upscale.onnx",
                "inputs": [source.manifest()],
                "outputs": [result.manifest()],
            }
        },
        "size_rule": {
            "minimum": -(-max(network.minimum, 1) // step) * step,
            "multiple_of": step,
            "padding": network.padding,
        },
        "tiling": asdict(cut),
    }


def of_file(network: Network, path: Path, licence: str | None) -> Network:
    """The network with what its file and the caller say of its weights."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return replace(
        network,
        weights=f"Those of {path.name} (sha256 {digest}); fastvid does not know their origin.",
        licence=licence or network.licence,
    )


def with_range(net: Callable[[Tensor], Tensor], levels: float) -> Callable[[Tensor], Tensor]:
    """A network on [0, levels] as one on [0, 1]."""
    return lambda x: net(x * levels) / levels
