"""The interpolator family `quality`: `QualityNet` in the graphs `motion` and `between`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastvid_export.compact import halve_weights
from fastvid_export.families import settings as options_of
from fastvid_export.families.interpolator import IMAGES, MOVING, InterpolatorFamily, plan_of, sizes
from fastvid_export.models.interpolator_quality import (
    QualityBetweenGraph,
    QualityMotionGraph,
    QualityNet,
    QualityOptions,
)
from fastvid_export.onnx import Port
from fastvid_export.registry import BundlePlan, Frames
from fastvid_export.training.checkpoint import Checkpoint
from fastvid_export.training.interpolation import InterpolationData, QualityTask
from fastvid_export.training.loop import LoopConfig

_FLOW = Port("flow", "float32", ("N", 12, *sizes(4)))


class InterpolatorQualityFamily(InterpolatorFamily):
    """Implements `registry.Family`."""

    name = "interpolator-quality"

    def loop(self) -> LoopConfig:
        """As of the fast class, but in half precision until the network is nearly done."""
        return LoopConfig(
            steps=60_000, optimizer="muon", lr=2e-3, final_lr=1e-5, warmup=300, hold=0.7,
            weight_decay=1e-4, ema=0.999, bfloat16_until=0.9, validate_every=1_000,
        )  # fmt: skip

    def task(self, data: Path, cache: Path, settings: dict[str, Any]) -> QualityTask:
        """Settings are the fields of `QualityOptions` and `InterpolationData`."""
        settings = dict(settings)
        options = options_of.fill(QualityOptions, settings)
        sampling = options_of.fill(InterpolationData, settings)
        options_of.refuse_rest(settings)
        return QualityTask(options, data, cache, sampling)

    def plan(
        self, checkpoint: Checkpoint, frames: Frames, parts: Mapping[str, Checkpoint]
    ) -> BundlePlan:
        """Both graphs on frames; `between` is checked in floats too."""
        net = QualityNet(QualityOptions(**checkpoint.options))
        net.load_state_dict(checkpoint.ema)
        halve_weights(net)
        parameters = sum(p.numel() for p in net.parameters())
        return plan_of(
            "interpolator-quality",
            "Frame interpolation at any time: three dense inverse searches, one refined on warped "
            "features, and a network that mixes the frames they give and adds what warping "
            f"lacks; {parameters} parameters.",
            QualityMotionGraph(net),
            (QualityBetweenGraph(net), QualityBetweenGraph(net, as_frames=False)),
            _features(net.options),
            frames,
            compact=True,
        )


def _features(options: QualityOptions) -> tuple[Port, ...]:
    o = options
    levels = (("fine", o.encoder4, 4), ("middle", o.encoder8, 8), ("coarse", o.encoder16, 16))
    known = (
        Port(f"{level}{k}", "float32", ("N", channels, *sizes(size)))
        for k in (0, 1)
        for level, channels, size in levels
    )
    return (*IMAGES, *known, MOVING, _FLOW)
