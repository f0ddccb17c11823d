"""The few-step generator family: the generator's network, trained to need few steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastvid_export.families import settings as options_of
from fastvid_export.families.generator import GeneratorFamily
from fastvid_export.registry import BundlePlan, Frames
from fastvid_export.training.checkpoint import Checkpoint
from fastvid_export.training.distillation import DistillationData, DistillationTask, FewStepOptions
from fastvid_export.training.generation import GenerationData
from fastvid_export.training.loop import LoopConfig


class FewStepGeneratorFamily(GeneratorFamily):
    """Implements `registry.Family`."""

    name = "few-step-generator"

    def loop(self) -> LoopConfig:
        """From the teacher's weights, so at a third of its rate."""
        return LoopConfig(
            steps=2_000, optimizer="muon", lr=5e-4, final_lr=5e-6, warmup=100, hold=0.3, ema=0.995,
            bfloat16_until=1.0, log_every=50, validate_every=250, save_every=200,
        )  # fmt: skip

    def task(self, data: Path, cache: Path, settings: dict[str, Any]) -> DistillationTask:
        """Settings are those of `FewStepOptions`, `DistillationData` and `GenerationData`.

        The shape of the network is the teacher's.
        """
        settings = dict(settings)
        own = {name: settings.pop(name) for name in ("jumps", "shift") if name in settings}
        options = options_of.fill(FewStepOptions, own)
        sampling = options_of.fill(DistillationData, settings)
        material = options_of.fill(GenerationData, settings)
        options_of.refuse_rest(settings)
        return DistillationTask(
            sampling, material, jumps=options.jumps, shift=options.shift, data=data, cache=cache
        )

    def plan(
        self, checkpoint: Checkpoint, frames: Frames, parts: Mapping[str, Checkpoint]
    ) -> BundlePlan:
        """The generator's plan, with the few steps as its default."""
        options = dict(checkpoint.options)
        jumps, shift = options.pop("jumps"), options.pop("shift")
        plan = super().plan(replace(checkpoint, options=options), frames, parts)
        manifest = plan.manifest
        few = {"num_inference_steps": jumps, "guidance_scale": 1.0}
        told = f" Distilled to {jumps} steps without guidance."
        return replace(
            plan,
            manifest=manifest
            | {
                "generation": manifest["generation"] | few,
                "scheduler": manifest["scheduler"] | {"shift": shift},
                "description": manifest["description"] + told,
            },
        )
