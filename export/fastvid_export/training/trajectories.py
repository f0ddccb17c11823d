"""The distillation's training material: the ways a trained generator takes from noise to a clip.

    shard_00012.states.npy    float16 (clips, steps + 1, C, T, h, w), noise first
    shard_00012.latents.npy   float16 (clips, C, T, h, w), read where they are known
    shard_00012.known.npy     uint8 (clips, T)
    shard_00012.ids.npy       uint16 (clips, length)

Prompts and known latents of shard s are drawn from (seed, s) alone, and so is the noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastvid_export.models.generator import GeneratorNet, condition_on
from fastvid_export.training import shards
from fastvid_export.training.loop import Batch
from fastvid_export.training.sampling import shifted, trajectory

_PARTS = ("states", "latents", "known", "ids")


@dataclass(frozen=True)
class TrajectoryRecipe:
    """What a set of trajectories is made of; a folder holds one recipe."""

    teacher: str
    """Digest of the teacher's weights."""
    jumps: int
    """Steps that the student will take."""
    substeps: int
    """Steps of the teacher for each of the student's."""
    guidance: float
    shift: float
    seed: int = 12
    clips: int = 64
    """In a shard."""

    def sigmas(self) -> Tensor:
        """Noise levels of the states, (jumps * substeps + 1,): the student's with more between."""
        ends = shifted(torch.linspace(1.0, 0.0, self.jumps + 1), self.shift)
        shares = torch.arange(self.substeps) / self.substeps
        between = ends[:-1, None] + (ends[1:] - ends[:-1])[:, None] * shares
        return torch.cat([between.flatten(), ends[-1:]])


def build(
    folder: Path,
    recipe: TrajectoryRecipe,
    count: int,
    teacher: GeneratorNet,
    nothing: Tensor,
    draw: Callable[[np.random.Generator], Batch],
    *,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Makes sure that the folder holds at least `count` shards.

    Args:
        folder: Where they lie.
        recipe: How they are made.
        count: How many.
        teacher: The trained generator, in eval mode.
        nothing: The empty prompt (1, L).
        draw: Makes `recipe.clips` clips, see `GeneratorTask.batch`.
        say: Called with lines about the progress.

    Raises:
        TrainingDataError: The folder holds shards of another recipe.
    """
    shards.build(
        folder, recipe, _PARTS, count, lambda n: _make(recipe, n, teacher, nothing, draw),
        what="trajectories", say=say,
    )  # fmt: skip


class TrajectoryBank:
    """Opened shards, as if they were one set of clips."""

    def __init__(self, folder: Path, count: int) -> None:
        self._shards = shards.Shards(folder, _PARTS, count)

    def __len__(self) -> int:
        return len(self._shards)

    def take(
        self, clips: NDArray[np.int64], start: NDArray[np.int64], end: NDArray[np.int64]
    ) -> Batch:
        """Pieces of ways: `start`, `end`, `latents` (N, C, T, h, w), `known` (N, T), `ids` (N, L).

        Args:
            clips: Which clips (N,).
            start: For each, the state that the piece starts with.
            end: The state that it ends with.
        """
        made = {part: self._shards.take(part, clips) for part in _PARTS[1:]}
        made["start"] = self._shards.take("states", clips, start)
        made["end"] = self._shards.take("states", clips, end)
        return {
            name: torch.from_numpy(array.astype(np.int64 if name == "ids" else np.float32))
            for name, array in made.items()
        }


def _make(
    recipe: TrajectoryRecipe,
    number: int,
    teacher: GeneratorNet,
    nothing: Tensor,
    draw: Callable[[np.random.Generator], Batch],
) -> tuple[NDArray[Any], ...]:
    batch = draw(np.random.default_rng([recipe.seed, number]))
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + number)
    latents, known, ids = batch["latents"], batch["known"], batch["ids"]
    noise = torch.randn(latents.shape, generator=generator)
    condition = condition_on(latents, known)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        states = torch.stack(
            list(
                trajectory(
                    teacher, ids, nothing, noise, recipe.sigmas(),
                    guidance=recipe.guidance, condition=condition, order=2,
                )
            ),
            1,
        )  # fmt: skip
    return (
        states.half().numpy(),
        latents.half().numpy(),
        known.byte().numpy(),
        ids.numpy().astype(np.uint16),
    )
