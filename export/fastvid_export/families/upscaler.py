"""The upscaler family: `UpscalerNet` in the graph `upscale`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fastvid.bundle import QualityFigure
from fastvid_export.families import settings as options_of
from fastvid_export.models.upscaler import UpscaleGraph, UpscalerNet, UpscalerOptions
from fastvid_export.onnx import Arrays, GraphPlan, Port
from fastvid_export.registry import BundlePlan, Frames, Run
from fastvid_export.training import material
from fastvid_export.training.checkpoint import Checkpoint
from fastvid_export.training.loop import LoopConfig
from fastvid_export.training.upscaling import (
    UpscalerTask,
    UpscalingData,
    halve,
    held_back_pictures,
    luma,
    luma_psnr,
)


class UpscalerFamily:
    """Implements `registry.Family`."""

    name = "upscaler"

    def loop(self) -> LoopConfig:
        """SOAP at a high rate: 0.1 to 0.2 dB above Adam after the same time."""
        return LoopConfig(steps=40_000, optimizer="soap", lr=3e-3)

    def task(self, data: Path, cache: Path, settings: dict[str, Any]) -> UpscalerTask:
        """Settings are the fields of `UpscalerOptions` and `UpscalingData`."""
        settings = dict(settings)
        options = options_of.fill(UpscalerOptions, settings)
        sampling = options_of.fill(UpscalingData, settings)
        options_of.refuse_rest(settings)
        return UpscalerTask(options, sampling, data=data, cache=cache)

    def plan(
        self, checkpoint: Checkpoint, frames: Frames, parts: Mapping[str, Checkpoint]
    ) -> BundlePlan:
        """The graph `upscale` on frames; the luma network alone is checked in floats."""
        net = UpscalerNet(UpscalerOptions(**checkpoint.options))
        net.load_state_dict(checkpoint.ema)
        net = net.folded()
        rng = np.random.default_rng(0)
        random = [
            rng.integers(0, 256, shape, np.uint8) for shape in ((2, 54, 96, 3), (1, 16, 10, 3))
        ]
        real = [_even(frame)[None] for frame in frames[:2]]
        as_frames = {"random": random, "real": real}
        upscale = GraphPlan(
            "upscale",
            UpscaleGraph(net),
            (Port("frames", "uint8", ("N", "H", "W", 3)),),
            (Port("upscaled", "uint8", ("N", "2*H", "2*W", 3)),),
            {kind: [{"frames": x} for x in arrays] for kind, arrays in as_frames.items()},
        )
        network = GraphPlan(
            "luma",
            net,
            (Port("luma", "float32", ("N", 1, "H", "W"), (0.0, 1.0)),),
            (Port("large", "float32", ("N", 1, "2*H", "2*W"), (0.0, 1.0)),),
            {kind: [_luma_sample(x) for x in arrays] for kind, arrays in as_frames.items()},
        )
        parameters = sum(p.numel() for p in net.parameters())
        return BundlePlan(
            name="upscaler-fast-x2",
            manifest={
                "task": "upscaler",
                "description": (
                    f"Real-time super-resolution x2: a luma network of {parameters} parameters on "
                    "2x2 blocks, chroma resized bilinearly."
                ),
                "licence": "Apache-2.0",
                "scale": net.scale,
                "size_rule": {"minimum": 2, "multiple_of": 2, "padding": "edge"},
            },
            graphs=(upscale,),
            float_checks=(network,),
            weights="Trained from scratch by the fastvid authors on the CPU.",
            training_data=material.titles_used(),
            credits=tuple(material.credit_entries()),
        )

    def measure(self, run: Run, data: Path, cache: Path) -> list[QualityFigure]:
        """PSNR of the graph's luma on held-back pictures beside bicubic, by the usual protocol."""
        pictures = held_back_pictures(data, cache)
        figures: dict[tuple[str, str], list[float]] = {}
        for name in pictures:
            truth = np.asarray(pictures[name])
            small = halve(Image.fromarray(truth))
            ours = run("upscale", {"frames": np.asarray(small)[None]})["upscaled"][0]
            bicubic = small.resize((truth.shape[1], truth.shape[0]), Image.Resampling.BICUBIC)
            kind = name.split(":")[0]
            for method, image in (("", ours), (" of bicubic", np.asarray(bicubic))):
                figure = luma_psnr(luma(image), luma(truth))
                figures.setdefault((kind, method), []).append(figure)
        return [
            QualityFigure(
                metric=f"luma PSNR{method}",
                data=f"{len(values)} pictures of held-back {kind}s, halved bicubically",
                value=round(float(np.mean(values)), 3),
                unit="dB",
            )
            for (kind, method), values in sorted(figures.items())
        ]


def _even(frame: np.ndarray) -> np.ndarray:
    height, width = (side - side % 2 for side in frame.shape[:2])
    return np.ascontiguousarray(frame[:height, :width])


def _luma_sample(frames: np.ndarray) -> Arrays:
    return {"luma": (luma(frames) / 255.0).astype(np.float32)[:, None]}
