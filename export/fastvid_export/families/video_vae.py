"""The video autoencoder, `VideoVae`: a part of the generator, which is what it is exported with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastvid.bundle import QualityFigure
from fastvid_export.errors import ExportError
from fastvid_export.families import settings as options_of
from fastvid_export.models.video_vae import VideoVaeOptions
from fastvid_export.registry import BundlePlan, Frames, Run
from fastvid_export.training.autoencoding import AutoencodingData, VideoVaeTask
from fastvid_export.training.checkpoint import Checkpoint
from fastvid_export.training.loop import LoopConfig


class VideoVaeFamily:
    """Implements `registry.Family`."""

    name = "video-vae"

    def loop(self) -> LoopConfig:
        """Mostly at the peak rate, so that a run can be made to end when time does."""
        return LoopConfig(
            steps=6_000, optimizer="muon", lr=2e-3, final_lr=2e-5, warmup=100, hold=0.6, ema=0.998,
            bfloat16_until=1.0, log_every=50, validate_every=500, save_every=250,
        )  # fmt: skip

    def task(self, data: Path, cache: Path, settings: dict[str, Any]) -> VideoVaeTask:
        """Settings are the fields of `VideoVaeOptions` and `AutoencodingData`."""
        settings = dict(settings)
        options = options_of.fill(VideoVaeOptions, settings)
        sampling = options_of.fill(AutoencodingData, settings)
        options_of.refuse_rest(settings)
        return VideoVaeTask(options, sampling, data=data, cache=cache)

    def plan(
        self, checkpoint: Checkpoint, frames: Frames, parts: Mapping[str, Checkpoint]
    ) -> BundlePlan:
        """Refuses: there is no task for an autoencoder alone."""
        raise ExportError("bundle: a video-vae is not a model of its own; bundle the generator")

    def measure(
        self, checkpoint: Checkpoint, run: Run, data: Path, cache: Path
    ) -> list[QualityFigure]:
        """Nothing: see `plan`."""
        return []
