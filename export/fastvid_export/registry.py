"""The model families that `train` and `bundle` know: one class each, in `families/<name>.py`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastvid.bundle import QualityFigure
from fastvid_export.errors import ExportError
from fastvid_export.onnx import Arrays, GraphPlan
from fastvid_export.training.checkpoint import Checkpoint
from fastvid_export.training.loop import LoopConfig, Task

Frames = Sequence[NDArray[np.uint8]]
"""Consecutive real frames, uint8 RGB (H, W, 3)."""

Run = Callable[[str, Arrays], Arrays]
"""Runs the exported graph of that name."""


@dataclass(frozen=True)
class BundlePlan:
    """A bundle to be: its graphs, and `bundle.json` without what the exporter fills in itself."""

    name: str
    manifest: dict[str, Any]
    """`task`, `description`, `licence`, `size_rule`, and `scale` or `scheduler` if they apply."""
    graphs: tuple[GraphPlan, ...]
    float_checks: tuple[GraphPlan, ...] = ()
    """Further graphs that are exported and compared but not shipped: the parts of `graphs` before
    a uint8 output, where a difference is not hidden by rounding."""
    weights: str = ""
    """How the weights were made, in a sentence."""
    training_data: tuple[str, ...] = ()
    credits: tuple[dict[str, str], ...] = field(default=())
    files: dict[str, bytes] = field(default_factory=dict)
    """Further files of the bundle by name, for example `tokenizer.json`."""


class Family(Protocol):
    """What a model family brings; implementations are plain classes."""

    name: str
    """The word on the command line, and the `task` in checkpoints."""

    def loop(self) -> LoopConfig:
        """Settings of the loop that suit the family."""

    def task(self, data: Path, cache: Path, settings: dict[str, Any]) -> Task:
        """The training task.

        Args:
            data: Folder of material, see `training.material`.
            cache: Folder that prepared material may be kept in.
            settings: Options of the network and of the task by name, from `--set name=value`.

        Raises:
            InputError: There is no such setting.
        """

    def plan(
        self, checkpoint: Checkpoint, frames: Frames, parts: Mapping[str, Checkpoint]
    ) -> BundlePlan:
        """What to export from the averaged weights.

        Args:
            checkpoint: Of this family.
            frames: At least 9 consecutive real frames, for the checks.
            parts: Checkpoints of the networks that were trained apart, by the name of their family.

        Raises:
            ExportError: A part is missing.
        """

    def measure(
        self, checkpoint: Checkpoint, run: Run, data: Path, cache: Path
    ) -> list[QualityFigure]:
        """Quality of the exported graphs on held-back material, beside the simplest peer."""


_FAMILIES = {
    "upscaler": "fastvid_export.families.upscaler:UpscalerFamily",
    "interpolator": "fastvid_export.families.interpolator:InterpolatorFamily",
    "interpolator-quality": (
        "fastvid_export.families.interpolator_quality:InterpolatorQualityFamily"
    ),
    "video-vae": "fastvid_export.families.video_vae:VideoVaeFamily",
    "generator": "fastvid_export.families.generator:GeneratorFamily",
    "few-step-generator": "fastvid_export.families.few_step_generator:FewStepGeneratorFamily",
}

NAMES = tuple(_FAMILIES)


def family(name: str) -> Family:
    """The family called `name`.

    Raises:
        ExportError: There is none.
    """
    if name not in _FAMILIES:
        raise ExportError(f"model: argument must be one of {', '.join(NAMES)}, got {name!r}")
    module, attribute = _FAMILIES[name].split(":")
    made: Family = getattr(importlib.import_module(module), attribute)()
    return made
