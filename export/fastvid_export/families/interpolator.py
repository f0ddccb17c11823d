"""The interpolator family: `InterpolationNet` in the graphs `motion` and `between`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

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

MULTIPLE = 16
_FRAME = ("N", "H", "W", 3)


def sizes(smaller: int) -> tuple[str, str]:
    """Names of height and width at 1/`smaller`."""
    return ("H", "W") if smaller == 1 else (f"h{smaller}", f"w{smaller}")


IMAGES = tuple(Port(f"image{k}", "float32", ("N", 3, *sizes(1)), (0.0, 1.0)) for k in (0, 1))
MOVING = Port("moving", "float32", ("N", 1, *sizes(16)), (0.0, 1.0))
_FEATURES = (
    *IMAGES,
    Port("small0", "float32", ("N", 3, *sizes(4)), (0.0, 1.0)),
    Port("small1", "float32", ("N", 3, *sizes(4)), (0.0, 1.0)),
    MOVING,
    Port("flow", "float32", ("N", 4, *sizes(4))),
)


class InterpolatorFamily:
    """Implements `registry.Family`."""

    name = "interpolator"

    def loop(self) -> LoopConfig:
        """The peak is held for long: a run on it can be made longer or shorter."""
        return LoopConfig(
            steps=60_000, optimizer="muon", lr=2e-3, final_lr=1e-5, warmup=300, hold=0.7,
            weight_decay=1e-4, ema=0.999, validate_every=1_000,
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
        parameters = sum(p.numel() for p in net.parameters())
        return plan_of(
            "interpolator-fast",
            "Real-time frame interpolation at any time: dense inverse search, corrected by a "
            f"coarse-to-fine flow network of {parameters} parameters.",
            MotionGraph(),
            (BetweenGraph(net), BetweenGraph(net, as_frames=False)),
            _FEATURES,
            frames,
        )

    def measure(
        self, checkpoint: Checkpoint, run: Run, data: Path, cache: Path
    ) -> list[QualityFigure]:
        """PSNR of the graphs on held-back triplets, beside frame averaging."""
        s = InterpolationData()
        task = InterpolationTask(InterpolatorOptions(), data, cache, s)
        task.prepare()
        triplets = task.valid
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


def plan_of(
    name: str,
    description: str,
    motion: nn.Module,
    between: tuple[nn.Module, nn.Module],
    features: tuple[Port, ...],
    frames: Frames,
    *,
    compact: bool = False,
) -> BundlePlan:
    """A bundle of the graphs `motion` and `between`.

    Args:
        name: Of the bundle.
        description: Of the model, in a sentence.
        motion: uint8 frames in, `features` out.
        between: `features` and `timestep` in, a frame out: uint8, and in floats for the checks.
        features: What one hands to the other.
        frames: Consecutive real frames, for the checks.
        compact: See `GraphPlan.compact`.
    """
    rng = np.random.default_rng(0)
    pairs = {
        "random": [rng.integers(0, 256, (2, 1, 96, 128, 3), np.uint8)],
        "real": [np.stack([_cropped(f)[None] for f in (frames[0], frames[2])])],
    }
    found = {
        kind: [_features(motion, features, a, b) for a, b in samples]
        for kind, samples in pairs.items()
    }
    times = {
        kind: [f | {"timestep": np.array([t], np.float32)} for f in samples for t in (0.5, 0.25)]
        for kind, samples in found.items()
    }
    inputs = (*features, Port("timestep", "float32", ("N",), (0.0, 1.0)))
    floats = Port("frame", "float32", ("N", 3, "H", "W"), (0.0, 1.0))
    return BundlePlan(
        name=name,
        manifest={
            "task": "interpolator",
            "description": description,
            "licence": "Apache-2.0",
            "size_rule": {"minimum": MULTIPLE, "multiple_of": MULTIPLE, "padding": "edge"},
        },
        graphs=(
            GraphPlan(
                "motion",
                motion,
                (Port("frame0", "uint8", _FRAME), Port("frame1", "uint8", _FRAME)),
                features,
                {
                    kind: [{"frame0": a, "frame1": b} for a, b in samples]
                    for kind, samples in pairs.items()
                },
                compact,
            ),
            GraphPlan(
                "between", between[0], inputs, (Port("frame", "uint8", _FRAME),), times, compact
            ),
        ),
        float_checks=(GraphPlan("between_floats", between[1], inputs, (floats,), times),),
        weights="Trained from scratch by the fastvid authors on the CPU.",
        training_data=material.titles_used(),
        credits=tuple(material.credit_entries()),
    )


def _cropped(frame: np.ndarray) -> np.ndarray:
    height, width = (side - side % MULTIPLE for side in frame.shape[:2])
    return np.ascontiguousarray(frame[:height, :width])


def _features(
    motion: nn.Module, ports: tuple[Port, ...], frame0: np.ndarray, frame1: np.ndarray
) -> Arrays:
    with torch.no_grad():
        features = motion(torch.from_numpy(frame0), torch.from_numpy(frame1))
    return {port.name: x.numpy() for port, x in zip(ports, features, strict=True)}
