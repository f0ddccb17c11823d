"""The upscaler family: `UpscalerNet` in the graph `upscale`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fastvid.bundle import QualityFigure
from fastvid.errors import InputError
from fastvid_export.families import settings as options_of
from fastvid_export.models.upscaler import UpscaleGraph, UpscalerNet, UpscalerOptions, WithColour
from fastvid_export.onnx import Arrays, GraphPlan, Port
from fastvid_export.registry import BundlePlan, Frames, Run
from fastvid_export.training import material, restoration
from fastvid_export.training.checkpoint import Checkpoint
from fastvid_export.training.loop import LoopConfig
from fastvid_export.training.restoration import RestorationTask
from fastvid_export.training.upscaling import (
    UpscalerTask,
    UpscalingData,
    even,
    held_back_pictures,
    luma,
    luma_psnr,
    reduced,
)

KINDS: dict[str, dict[str, Any]] = {
    # So small a network loses on photos what it gains on drawn pictures.
    "fast": {"channels": 32, "depth": 6, "block": 2, "patch": 48, "drawn": 0.0},
    "quality": {"channels": 32, "depth": 12, "block": 1, "slope": 0.1, "patch": 48},
    "real": {"channels": 48, "depth": 8, "block": 2, "slope": 0.1, "colour": "yes", "patch": 64},
}
"""Classes of upscalers, and the settings that are theirs unless said otherwise."""
_WIDER = {"channels": 48, "depth": 10, "patch": 40}
AT_SCALE: dict[tuple[str, str], dict[str, Any]] = {
    ("fast", "3"): {"block": 1, "depth": 3},
    ("fast", "4"): {"block": 1, "depth": 5},
    ("quality", "3"): _WIDER,
    ("quality", "4"): _WIDER,
}
"""What differs at a factor. The result being as large, the network sees fewer pixels the larger the
factor is, and may do more for each."""
_TITLES = {
    "fast": "Real-time super-resolution",
    "quality": "Super-resolution",
    "real": "Super-resolution of compressed and noisy video",
}
_SCALES = range(1, 5)


REAL_SHARE = {1: 0.6, 2: 0.8, 3: 0.75, 4: 0.7}
"""How far `real` networks go, by scale: what held-back clips gain most by. All the way at 1, noisy
ones would gain more, but those with next to no noise are blurred."""


class UpscalerFamily:
    """Implements `registry.Family`."""

    name = "upscaler"

    def loop(self) -> LoopConfig:
        """SOAP at a high rate: 0.1 to 0.2 dB above Adam after the same time."""
        return LoopConfig(steps=40_000, optimizer="soap", lr=3e-3)

    def task(
        self, data: Path, cache: Path, settings: dict[str, Any]
    ) -> UpscalerTask | RestorationTask:
        """Settings are the fields of `UpscalerOptions` and `UpscalingData`."""
        kind = str(settings.get("kind", "fast"))
        if kind not in KINDS:
            raise InputError(f"kind: setting must be one of {', '.join(KINDS)}, got {kind!r}")
        shape = AT_SCALE.get((kind, str(settings.get("scale", 2))), {})
        settings = {**KINDS[kind], **shape, **settings}
        options = options_of.fill(UpscalerOptions, settings)
        sampling = options_of.fill(UpscalingData, settings)
        options_of.refuse_rest(settings)
        if options.scale not in _SCALES or (options.scale == 1 and kind != "real"):
            offered = ", ".join(str(s) for s in _SCALES if s > 1 or kind == "real")
            raise InputError(
                f"scale: setting must be one of {offered} for kind {kind}, got {options.scale}"
            )
        if options.colour != (kind == "real"):
            raise InputError("colour: setting must be yes for kind real and no for the others")
        task = RestorationTask if kind == "real" else UpscalerTask
        return task(options, sampling, data=data, cache=cache)

    def plan(
        self, checkpoint: Checkpoint, frames: Frames, parts: Mapping[str, Checkpoint]
    ) -> BundlePlan:
        """The graph `upscale` on frames; the network alone is checked in floats."""
        net = UpscalerNet(UpscalerOptions(**checkpoint.options))
        net.load_state_dict(checkpoint.ema)
        if net.options.kind == "real":
            net = net.softened(REAL_SHARE[net.options.scale])
        net = net.folded()
        options = net.options
        rng = np.random.default_rng(0)
        random = [
            rng.integers(0, 256, shape, np.uint8) for shape in ((2, 54, 96, 3), (1, 16, 10, 3))
        ]
        as_frames = {"random": random, "real": [_even(frame)[None] for frame in frames[:2]]}
        upscale = GraphPlan(
            "upscale",
            UpscaleGraph(net),
            (Port("frames", "uint8", ("N", "H", "W", 3)),),
            (Port("upscaled", "uint8", ("N", *_sides(options.scale), 3)),),
            {kind: [{"frames": x} for x in arrays] for kind, arrays in as_frames.items()},
        )
        parameters = sum(p.numel() for p in net.parameters())
        return BundlePlan(
            name=f"upscaler-{options.kind}-x{options.scale}",
            manifest={
                "task": "upscaler",
                "description": _description(options, parameters),
                "licence": "Apache-2.0",
                "scale": options.scale,
                "size_rule": {"minimum": 2, "multiple_of": 2, "padding": "edge"},
            },
            graphs=(upscale,),
            float_checks=(_float_check(net, as_frames),),
            weights="Trained from scratch by the fastvid authors on the CPU.",
            training_data=material.titles_used(),
            credits=tuple(material.credit_entries()),
        )

    def measure(
        self, checkpoint: Checkpoint, run: Run, data: Path, cache: Path
    ) -> list[QualityFigure]:
        """Luma PSNR beside bicubic on held-back material; of `real` on degraded clips."""
        options = UpscalerOptions(**checkpoint.options)
        if options.kind == "real":
            return _degraded_quality(run, data, cache, options.scale)
        return _standard_quality(run, data, cache, options.scale)


def _standard_quality(run: Run, data: Path, cache: Path, scale: int) -> list[QualityFigure]:
    """PSNR on pictures that were reduced bicubically, by the usual protocol."""
    pictures = held_back_pictures(data, cache)
    figures: dict[tuple[str, str], list[float]] = {}
    for name in pictures:
        truth = np.asarray(even(Image.fromarray(np.asarray(pictures[name])), 2 * scale))
        small = reduced(Image.fromarray(truth), scale)
        ours = run("upscale", {"frames": np.asarray(small)[None]})["upscaled"][0]
        bicubic = small.resize((truth.shape[1], truth.shape[0]), Image.Resampling.BICUBIC)
        kind = name.split(":")[0]
        for method, image in (("", ours), (" of bicubic", np.asarray(bicubic))):
            figure = luma_psnr(luma(image), luma(truth), border=scale)
            figures.setdefault((kind, method), []).append(figure)
    how = "halved bicubically" if scale == 2 else f"reduced {scale} times bicubically"
    return [
        QualityFigure(
            metric=f"luma PSNR{method}",
            data=f"{len(values)} pictures of held-back {kind}s, {how}",
            value=round(float(np.mean(values)), 3),
            unit="dB",
        )
        for (kind, method), values in sorted(figures.items())
    ]


def _degraded_quality(run: Run, data: Path, cache: Path, scale: int) -> list[QualityFigure]:
    """PSNR, flicker and error of colour on degraded clips, beside bicubic or the input."""
    found: dict[tuple[str, str], list[float]] = {}
    for sample in restoration.held_back(data, cache, scale):
        ours = run("upscale", {"frames": sample.small})["upscaled"]
        plain = restoration.enlarged(sample.small, scale)
        figures = restoration.compared(luma(ours), luma(plain), luma(sample.truth), scale)
        figures["colour_share"] = restoration.colour_share(ours, plain, sample.truth)
        for metric, value in figures.items():
            found.setdefault((metric, sample.name.split(":")[0]), []).append(value)
    other = "the input" if scale == 1 else "bicubic"
    metrics = {
        "psnr": ("luma PSNR", "dB"),
        "gain": (f"luma PSNR above {other}", "dB"),
        "flicker_share": (f"flicker, as a share of that of {other}", ""),
        "colour_share": (f"error of colour, as a share of that of {other}", ""),
    }
    return [
        QualityFigure(
            metric=metrics[metric][0],
            data=f"{len(values)} held-back clips, {kind}",
            value=round(float(np.mean(values)), 3),
            unit=metrics[metric][1],
        )
        for (metric, kind), values in sorted(found.items())
        if metric in metrics
    ]


def _description(options: UpscalerOptions, parameters: int) -> str:
    if options.scale == 1:
        return (
            f"Restoration of compressed and noisy video: a network of {parameters} parameters on "
            "luma and chroma that denoises, deblocks and sharpens."
        )
    colour = "chroma corrected at the input's size" if options.colour else "chroma resized"
    return (
        f"{_TITLES[options.kind]} x{options.scale}: a network of {parameters} parameters on luma, "
        f"{colour} bilinearly."
    )


def _float_check(net: UpscalerNet, as_frames: dict[str, list[np.ndarray]]) -> GraphPlan:
    luma_in = Port("luma", "float32", ("N", 1, "H", "W"), (0.0, 1.0))
    luma_out = Port("large", "float32", ("N", 1, *_sides(net.options.scale)), (0.0, 1.0))
    samples = {kind: [_planes(x) for x in arrays] for kind, arrays in as_frames.items()}
    if not net.options.colour:
        only = {kind: [{"luma": x["luma"]} for x in sets] for kind, sets in samples.items()}
        return GraphPlan("luma", net, (luma_in,), (luma_out,), only)
    colour_in, colour_out = (
        Port(name, "float32", ("N", 2, "H", "W"), (-0.5, 0.5)) for name in ("chroma", "corrected")
    )
    return GraphPlan(
        "network", WithColour(net), (luma_in, colour_in), (luma_out, colour_out), samples
    )


def _sides(scale: int) -> tuple[str, str]:
    return ("H", "W") if scale == 1 else (f"{scale}*H", f"{scale}*W")


def _even(frame: np.ndarray) -> np.ndarray:
    height, width = (side - side % 2 for side in frame.shape[:2])
    return np.ascontiguousarray(frame[:height, :width])


def _planes(frames: np.ndarray) -> Arrays:
    """Luma and chroma of uint8 frames, as `ops.rgb_to_luma` splits them."""
    grey = luma(frames) / 255.0
    chroma = [(frames[..., 2] / 255.0 - grey) / 1.772, (frames[..., 0] / 255.0 - grey) / 1.402]
    return {
        "luma": grey.astype(np.float32)[:, None],
        "chroma": np.stack(chroma, 1).astype(np.float32),
    }
