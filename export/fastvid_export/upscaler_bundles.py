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
from fastvid.errors import InputError
from fastvid.scene import Scene
from fastvid_export import onnx, ops, tiling
from fastvid_export.errors import ExportError
from fastvid_export.onnx import GraphPlan, Port
from fastvid_export.running import Runner

_GATE = 60.0
"""dB of the graph's float picture against the source network's."""
_SIDES = ((64, 80), (72, 64))
"""Heights and widths of the pictures to check with, raised to what the network takes."""
TILE = 256
"""Height and width of a graph's pictures where they cannot vary, raised as those above."""


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
    tile: int | None = None
    """Height and width to export for; None is any, and `TILE` where the network allows no other."""
    grid: int = 1
    """What its windows or blocks are a multiple of, where it is exported for one size."""
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
        InputError: The network does not take pictures of the size that it is to be exported for.
        ExportError: It cannot be traced, or the graph differs from the source.
        OutputError: The folder cannot be written.
    """
    _check_tile(network)
    say(f"{network.name}, x{network.scale}: exporting")
    made = _exported(network)
    network, data, figures = made.network, made.data, made.figures
    for figure in figures:
        say(f"{figure['metric']} on {figure['data']}: {figure['value']:.3g} {figure['unit']}")
    run, tile = _runs(data), network.tile
    if tile is None:
        whole = "the whole"
        cut = tiling.measure(data, run, network.scale, network.multiple_of, network.minimum)
    else:
        whole = "each other"
        grid = network.grid if tile % network.grid == 0 else 1
        cut = tiling.measure_fixed(run, network.scale, (tile, tile), grid)
        say(f"frames pass in pieces of {tile}x{tile}, which look {cut.spec.reach} pixels beyond")
    if not cut.spec.exact:
        say(f"pieces differ from {whole}: {cut.psnr:.1f} dB, up to {cut.levels} levels")
        where = f"a small drawn scene, overlap {cut.spec.reach} pixels"
        if math.isfinite(cut.psnr):
            figures.append(
                {"metric": f"PSNR of pieces against {whole}", "data": where,
                 "value": round(cut.psnr, 1), "unit": "dB"}
            )  # fmt: skip
        figures.append(
            {"metric": f"largest difference of pieces from {whole}", "data": where,
             "value": cut.levels, "unit": "levels"}
        )  # fmt: skip
    manifest = _manifest(network, name, made.batch, cut.spec) | {"quality": figures}
    return write_bundle(folder, manifest, {"upscale.onnx": data})


def tile_of(minimum: int, multiple_of: int, grid: int) -> int:
    """Height and width of a graph's pictures where they cannot vary: `TILE` or somewhat more."""
    step = math.lcm(multiple_of, grid)
    return -(-max(TILE, minimum) // step) * step


def _check_tile(network: Network) -> None:
    tile, step = network.tile, network.multiple_of
    if tile is not None and (tile < max(network.minimum, 16) or tile % step):
        least = -(-max(network.minimum, 16) // step) * step
        raise InputError(
            f"tile: argument must be at least {least} and a multiple of {step} for "
            f"{network.name}, got {tile}"
        )


def _pictures(network: Network) -> dict[str, list[NDArray[np.uint8]]]:
    """Random and drawn frames (1, H, W, 3) of sizes that the network takes, two if it can be."""
    step, rng = network.multiple_of, np.random.default_rng(0)
    sides = [
        tuple(-(-max(side, network.minimum) // step) * step + more for side in pair)
        for pair, more in zip(_SIDES, (0, step), strict=True)
    ]
    if network.tile is not None:
        sides = [(network.tile, network.tile)]
    return {
        "random": [rng.integers(0, 256, (1, h, w, 3), np.uint8) for h, w in sides],
        "drawn": [Scene(max(w, 64), max(h, 64), seed=4).draw(0.5)[None, :h, :w] for h, w in sides],
    }


def _ports(network: Network, batch: int | str) -> tuple[Port, Port]:
    scale, tile = network.scale, network.tile
    sides: tuple[tuple[int | str, int | str], ...]
    if tile is None:
        factor = "" if scale == 1 else f"{scale}*"
        sides = (("H", "W"), (f"{factor}H", f"{factor}W"))
    else:
        sides = ((tile, tile), (scale * tile, scale * tile))
    return (
        Port("frames", "uint8", (batch, *sides[0], 3)),
        Port("upscaled", "uint8", (batch, *sides[1], 3)),
    )


@dataclass(frozen=True)
class _Exported:
    """A graph, and what it was found to be."""

    network: Network
    """With the tile that it was exported for, if it is one."""
    batch: int | str
    data: bytes
    figures: list[dict[str, Any]]


def _exported(network: Network) -> _Exported:
    """The graph: of any batch and size, else of one picture of any size, else of one size."""
    one = replace(network, tile=tile_of(network.minimum, network.multiple_of, network.grid))
    ways: list[tuple[int | str, Network]] = [("N", network), (1, network), (1, one)]
    if network.tile is not None:
        ways = [(1, network)]
    failure: ExportError | None = None
    for batch, wanted in ways:
        graph = (LumaGraph if wanted.channels == 1 else RgbGraph)(wanted.module).eval()
        samples = _pictures(wanted)
        source, result = _ports(wanted, batch)
        first = samples["random"][0]
        example = np.repeat(first, 2, 0) if batch == "N" else first
        plan = GraphPlan("upscale", graph, (source,), (result,), {"random": [{"frames": example}]})
        try:
            data = onnx.trace(plan)
            return _Exported(wanted, batch, data, _compared(wanted, data, samples))
        except ExportError as error:
            failure = error
    assert failure is not None
    text = " ".join(failure.message.split())[:600]
    size = "of one size" if ways[-1][1].tile else "of any size"
    raise ExportError(
        f"export: {network.name} must be exportable for pictures {size}: {text}",
        hint="a network whose PyTorch code decides by what is in the picture cannot be imported",
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
    step, least = math.lcm(network.multiple_of, cut.multiple_of), network.minimum
    if network.tile is not None:
        step, least = cut.multiple_of, 1
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
            "minimum": -(-max(least, 1) // step) * step,
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
