"""How the few-step generator trains: it learns where its teacher's ways lead.

The teacher is a trained generator with guidance, its ways are solutions of its ODE
(`trajectories.py`), cut into as many pieces as the student is to take steps. From any state of a
piece the student's velocity has to point at the end of that piece: one Euler step then covers what
takes the teacher many, each of two evaluations. This is the phased consistency model (Wang et al.,
2024) with the targets of guided distillation (Meng et al., 2023) and of rectified flow (Liu et al.,
2023): ways are computed beforehand and hold for the whole training, so no target moves with the
student. Next to distribution matching it needs neither a critic nor a second copy of the teacher,
and each evaluation of the teacher serves in several steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fastvid_export.errors import TrainingDataError
from fastvid_export.models.generator import GeneratorNet, GeneratorOptions, condition_on
from fastvid_export.training import checkpoint as ckpt
from fastvid_export.training import vocabulary
from fastvid_export.training.generation import (
    GenerationData,
    GeneratorTask,
    adherence,
    held_out_prompts,
    load_vae,
)
from fastvid_export.training.loop import Batch
from fastvid_export.training.losses import mean_square_unknown
from fastvid_export.training.sampling import SHIFT, sample
from fastvid_export.training.trajectories import TrajectoryBank, TrajectoryRecipe, build

_TEST_SEED = 79


@dataclass(frozen=True)
class FewStepOptions(GeneratorOptions):
    """Shape of the networks, and the steps they are made for."""

    jumps: int = 4
    """Steps of the student."""
    shift: float = SHIFT
    """Of the noise levels, see `sampling.shifted`."""


@dataclass(frozen=True)
class DistillationData:
    """What a batch is made of, beside what its teacher's was."""

    teacher: Path = Path()
    """Checkpoint of the trained generator."""
    substeps: int = 4
    """Steps of the teacher for each of the student's."""
    guidance: float = 3.0
    """Of the teacher; the student needs none."""
    ways: int = 96
    """Shards of ways; the first is held back. A run may be resumed with more."""
    whole: float = 0.5
    """Share of examples that start where a step of the student starts; the others anywhere."""


class DistillationTask:
    """Trains a `GeneratorNet` to take the steps of another in one.

    Implements `fastvid_export.training.loop.Task`.

    Args:
        settings: Teacher and sampling.
        material: Prompts and known latents, as the teacher's; none goes without its prompt.
        jumps: See `FewStepOptions`.
        shift: The same.
        data: Folder of material, as for `GeneratorTask`.
        cache: Folder for prepared material: latents and ways.

    Raises:
        TrainingDataError: No teacher is named.
        CheckpointError: It is none.
    """

    name = "few-step-generator"

    def __init__(
        self,
        settings: DistillationData,
        material: GenerationData,
        *,
        jumps: int = 4,
        shift: float = SHIFT,
        data: Path,
        cache: Path,
    ) -> None:
        if settings.teacher == Path():
            raise TrainingDataError(
                "teacher: setting must name a checkpoint", hint="add --set teacher=FILE"
            )
        self.settings = settings
        self._teacher = ckpt.load(settings.teacher, task="generator")
        self.options = FewStepOptions(**self._teacher.options, jumps=jumps, shift=shift)
        self.material = replace(material, no_prompt=0.0)
        self.data, self.cache = data, cache

    def build(self) -> nn.Module:
        """The teacher's weights, to start from."""
        net = GeneratorNet(self.options)
        net.load_state_dict(self._teacher.ema)
        return net

    def prepare(self) -> None:
        """Computes the ways that are missing."""
        s = self.settings
        self._vae, _ = load_vae(self.material.vae)
        tokenizer = vocabulary.build()
        prompts = [prompt for prompt, *_ in held_out_prompts(self.material.tests)]
        ids = vocabulary.encode(tokenizer, ["", *prompts], self.options.length)
        self._nothing, self._prompts = torch.from_numpy(ids[:1]), torch.from_numpy(ids[1:])
        jumps, shift = self.options.jumps, self.options.shift
        recipe = TrajectoryRecipe(
            ckpt.digest(self._teacher).hex(), jumps, s.substeps, s.guidance, shift
        )
        self._sigmas = recipe.sigmas()
        folder = self.cache / f"trajectories_{recipe.teacher[:12]}_{jumps}x{s.substeps}"
        clips = replace(self.material, batch=recipe.clips)
        source = GeneratorTask(self.options, clips, data=self.data, cache=self.cache)
        source.prepare()
        teacher = self.build().eval().requires_grad_(False)
        assert isinstance(teacher, GeneratorNet)
        build(folder, recipe, s.ways, teacher, self._nothing, source.batch, say=print)
        self._bank = TrajectoryBank(folder, s.ways)
        self._held_back = recipe.clips

    def batch(self, rng: np.random.Generator) -> Batch:
        """Pieces of ways, see `TrajectoryBank.take`, and `sigmas` (N, 2) at start and end."""
        s, count = self.settings, self.material.batch
        clips = rng.integers(self._held_back, len(self._bank), count)
        start = rng.integers(0, self.options.jumps * s.substeps, count)
        start = np.where(rng.random(count) < s.whole, start - start % s.substeps, start)
        return self._pieces(clips, start)

    def loss(
        self, model: nn.Module, batch: Batch, progress: float
    ) -> tuple[Tensor, dict[str, float]]:
        """Squared error of the mean velocity of the piece, where latents are not known."""
        error = _error(model, batch)
        return error, {"error": float(error.detach())}

    def validate(self, model: nn.Module, samples: Path, step: int) -> dict[str, float]:
        """Loss on ways that are held back, and what samples of held-out prompts show."""
        assert isinstance(model, GeneratorNet)
        s = self.settings
        starts = np.arange(self._held_back) % self.options.jumps * s.substeps
        held_back = self._pieces(np.arange(self._held_back), starts)
        shape = (len(self._prompts), *held_back["start"].shape[1:])
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(_TEST_SEED))
        with torch.autocast("cpu", torch.bfloat16):
            error = float(_error(model, held_back))
            latents = sample(
                model, self._prompts, self._nothing, noise,
                steps=self.options.jumps, guidance=1.0, shift=self.options.shift,
            )  # fmt: skip
        wanted = held_out_prompts(self.material.tests)
        return {"error": error, **adherence(self._vae, latents, wanted, samples, step)}

    def score(self, metrics: dict[str, float]) -> float:
        """The loss: adherence is too coarse to tell late checkpoints apart."""
        return -metrics["error"]

    def _pieces(self, clips: np.ndarray, start: np.ndarray) -> Batch:
        end = start - start % self.settings.substeps + self.settings.substeps
        sigmas = torch.stack([self._sigmas[start], self._sigmas[end]], 1)
        return {**self._bank.take(clips, start, end), "sigmas": sigmas}


def _error(model: nn.Module, batch: Batch) -> Tensor:
    begin, finish = batch["sigmas"].unbind(1)
    condition = condition_on(batch["latents"], batch["known"])
    velocity = model(batch["start"], begin * 1000.0, batch["ids"], condition).float()
    target = (batch["start"] - batch["end"]) / (begin - finish)[:, None, None, None, None]
    return mean_square_unknown(velocity - target, batch["known"])
