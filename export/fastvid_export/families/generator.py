"""The generator family: `GeneratorNet` on the latents of a trained `VideoVae`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastvid.bundle import QualityFigure
from fastvid_export.errors import ExportError
from fastvid_export.families import settings as options_of
from fastvid_export.models.generator import GeneratorOptions
from fastvid_export.registry import BundlePlan, Frames, Run
from fastvid_export.training.checkpoint import Checkpoint
from fastvid_export.training.generation import GenerationData, GeneratorTask
from fastvid_export.training.loop import LoopConfig


class GeneratorFamily:
    """Implements `registry.Family`."""

    name = "generator"

    def loop(self) -> LoopConfig:
        """Mostly at the peak rate, so that a run can be made to end when time does."""
        return LoopConfig(
            steps=40_000, optimizer="muon", lr=1.5e-3, final_lr=1e-5, warmup=300, hold=0.7,
            weight_decay=0.02, ema=0.9995, bfloat16_until=1.0, log_every=50, validate_every=1_000,
            save_every=200,
        )  # fmt: skip

    def task(self, data: Path, cache: Path, settings: dict[str, Any]) -> GeneratorTask:
        """Settings are the fields of `GeneratorOptions` and `GenerationData`."""
        settings = dict(settings)
        options = options_of.fill(GeneratorOptions, settings)
        sampling = options_of.fill(GenerationData, settings)
        options_of.refuse_rest(settings)
        return GeneratorTask(options, sampling, data=data, cache=cache)

    def plan(self, checkpoint: Checkpoint, frames: Frames) -> BundlePlan:
        """Refuses: the graphs are not exported yet."""
        raise ExportError("bundle: the generator has no bundle yet")

    def measure(self, run: Run, data: Path, cache: Path) -> list[QualityFigure]:
        """Nothing: see `plan`."""
        return []
