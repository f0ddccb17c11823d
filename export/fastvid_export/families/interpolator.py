"""The interpolator family: `InterpolationNet` in the graphs `motion` and `between`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastvid.bundle import QualityFigure
from fastvid.metrics import psnr
from fastvid_export.families import settings as options_of
from fastvid_export.models.interpolator import (
    BetweenGraph,
    InterpolationNet,
    InterpolatorOptions,
    MotionGraph,
)
from fastvid_export.onnx import Arrays, GraphPlan, Port
from fastvid_export.registry import BundlePlan, Frames, Run
from fastvid_export.training import material
from fastvid_export.training.checkpoint import Checkpoint
from fastvid_export.training.interpolation import InterpolationData, InterpolationTask
from fastvid_export.training.loop import LoopConfig
from fastvid_export.training.triplets import TripletSet, prepare

MULTIPLE = 16
_FRAME = ("N", "H", "W", 3)
_FEATURES = (
    Port("image0", "float32", ("N", 3, "H", "W"), (0.0, 1.0)),
    Port("image1", "float32", ("N", 3, "H", "W"), (0.0, 1.0)),
    Port("half0", "float32", ("N", 3, "h", "w"), (0.0, 1.0)),
    Port("half1", "float32", ("N", 3, "h", "w"), (0.0, 1.0)),
    Port("flow", "float32", ("N", 4, "h", "w")),
)


class InterpolatorFamily:
    """Implements `registry.Family`."""

    name = "interpolator"

    def loop(self) -> LoopConfig:
        """The searched flows are a good start, so the rate is low and the warm-up short."""
        return LoopConfig(
            steps=15_000, lr=4e-4, final_lr=1e-6, warmup=200, weight_decay=1e-4, ema=0.999,
            validate_every=1_000,
        )  # fmt: skip

    def task(self, data: Path, cache: Path, settings: dict[str, Any]) -> InterpolationTask:
        """Settings are the fields of `InterpolatorOptions` and `InterpolationData`."""
        settings = dict(settings)
        options = options_of.fill(InterpolatorOptions, settings)
        sampling = options_of.fill(InterpolationData, settings)
        options_of.refuse_rest(settings)
        return InterpolationTask(options, data, cache, sampling)

    def plan(
        self, checkpoint: Checkpoint, frames: Frames, parts: Mapping[str, Checkpoint]
    ) -> BundlePlan:
        """Both graphs on frames; `between` is checked in floats too."""
        net = InterpolationNet(InterpolatorOptions(**checkpoint.options))
        net.load_state_dict(checkpoint.ema)
        rng = np.random.default_rng(0)
        pairs = {
            "random": [rng.integers(0, 256, (2, 1, 96, 128, 3), np.uint8)],
            "real": [np.stack([_cropped(f)[None] for f in (frames[0], frames[2])])],
        }
        motion = GraphPlan(
            "motion",
            MotionGraph(),
            (Port("frame0", "uint8", _FRAME), Port("frame1", "uint8", _FRAME)),
            _FEATURES,
            {
                kind: [{"frame0": a, "frame1": b} for a, b in samples]
                for kind, samples in pairs.items()
            },
        )
        times = {
            kind: [_features(a, b, t) for a, b in samples for t in (0.5, 0.25)]
            for kind, samples in pairs.items()
        }
        inputs = (*_FEATURES, Port("timestep", "float32", ("N",), (0.0, 1.0)))
        between = GraphPlan(
            "between", BetweenGraph(net), inputs, (Port("frame", "uint8", _FRAME),), times
        )
        in_floats = GraphPlan(
            "between_floats",
            BetweenGraph(net, as_frames=False),
            inputs,
            (Port("frame", "float32", ("N", 3, "H", "W"), (0.0, 1.0)),),
            times,
        )
        parameters = sum(p.numel() for p in net.parameters())
        return BundlePlan(
            name="interpolator-fast",
            manifest={
                "task": "interpolator",
                "description": (
                    "Real-time frame interpolation at any time: dense inverse search, corrected "
                    f"by a coarse-to-fine flow network of {parameters} parameters."
                ),
                "licence": "Apache-2.0",
                "size_rule": {"minimum": MULTIPLE, "multiple_of": MULTIPLE, "padding": "edge"},
            },
            graphs=(motion, between),
            float_checks=(in_floats,),
            weights="Trained from scratch by the fastvid authors on the CPU.",
            training_data=material.titles_used(),
            credits=tuple(material.credit_entries()),
        )

    def measure(
        self, checkpoint: Checkpoint, run: Run, data: Path, cache: Path
    ) -> list[QualityFigure]:
        """PSNR of the graphs on held-back triplets, beside frame averaging."""
        s = InterpolationData()
        prepare(data, cache, seed=s.seed, real=s.real, drawn=s.drawn, valid=s.valid)
        triplets = TripletSet(cache / "valid")
        scores = []
        for i in range(len(triplets)):
            frame0, truth, frame1 = triplets.frames[i]
            features = run("motion", {"frame0": frame0[None], "frame1": frame1[None]})
            timestep = np.array([triplets.timestep[i]], np.float32)
            frame = run("between", features | {"timestep": timestep})["frame"][0]
            average = (1 - timestep[0]) * frame0 + timestep[0] * frame1
            scores.append((psnr(frame, truth), psnr(average, truth.astype(np.float32))))
        ours, average = np.mean(scores, 0)
        where = f"{len(scores)} crops of held-back parts of the clips, spans of 2 to 6 frames"
        return [
            QualityFigure(metric="PSNR", data=where, value=round(float(ours), 3), unit="dB"),
            QualityFigure(
                metric="PSNR of averaging", data=where, value=round(float(average), 3), unit="dB"
            ),
        ]


def _cropped(frame: np.ndarray) -> np.ndarray:
    height, width = (side - side % MULTIPLE for side in frame.shape[:2])
    return np.ascontiguousarray(frame[:height, :width])


def _features(frame0: np.ndarray, frame1: np.ndarray, timestep: float) -> Arrays:
    with torch.no_grad():
        features = MotionGraph()(torch.from_numpy(frame0), torch.from_numpy(frame1))
    arrays = {port.name: x.numpy() for port, x in zip(_FEATURES, features, strict=True)}
    return arrays | {"timestep": np.array([timestep], np.float32)}
