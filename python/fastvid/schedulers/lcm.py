"""Multistep sampling of latent consistency models (Luo et al. 2023)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastvid.errors import InputError
from fastvid.schedulers._base import Array, Guidance, Noise, SchedulerOutput, Step
from fastvid.schedulers._config import build, option
from fastvid.schedulers.ddim import AlphaScheduler, ClipOptions

_SIGMA_DATA = 0.5


@dataclass(frozen=True)
class LCMConfig(ClipOptions):
    """Options of LCMScheduler."""

    beta_start: float = option(0.00085, low=0.0, high=1.0)
    beta_end: float = option(0.012, low=0.0, high=1.0)
    beta_schedule: str = option("scaled_linear", "linear", "scaled_linear", "squaredcos_cap_v2")
    original_inference_steps: int = option(50, low=1)
    clip_sample: bool = option(False)
    timestep_spacing: str = option("leading", "linspace", "leading", "trailing")
    timestep_scaling: float = option(10.0, low=0.0)


class LCMScheduler(AlphaScheduler):
    """`denoised = c_out * x0 + c_skip * sample`, noised again for the next timestep.

    Args:
        **config: diffusers' options: num_train_timesteps, beta_start, beta_end, beta_schedule,
            trained_betas, original_inference_steps, clip_sample, clip_sample_range,
            set_alpha_to_one, prediction_type, timestep_scaling, rescale_betas_zero_snr;
            steps_offset and timestep_spacing are taken and, as in diffusers, without effect.
            thresholding must be False.

    Raises:
        InputError: An option or value is unknown or not supported.
    """

    config: LCMConfig

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.config = build(LCMConfig, self.name, config)
        self._prepare()

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        *,
        original_inference_steps: int | None = None,
        timesteps: Sequence[int] | None = None,
        strength: float = 1.0,
    ) -> None:
        """Fixes `timesteps` of a run.

        Args:
            num_inference_steps: Number of steps.
            original_inference_steps: Steps of the schedule the model was distilled on; None is the
                config's.
            timesteps: Training timesteps to use instead, falling.
            strength: Part of the schedule to use, for samples that are not pure noise.

        Raises:
            InputError: The arguments do not fit each other or the options.
        """
        count = self.config.num_train_timesteps
        if (num_inference_steps is None) == (timesteps is None):
            raise InputError(
                f"{self.name}: exactly one of num_inference_steps and timesteps must be given"
            )
        strength = self._number("strength", strength, 0, 1)
        original = self.config.original_inference_steps
        if original_inference_steps is not None:
            original = original_inference_steps
        original = self._count(original, count, "original_inference_steps")
        if timesteps is not None:
            marks = self._row_of_numbers("timesteps", timesteps, np.int64)
            if (np.diff(marks) >= 0).any() or marks[0] >= count or marks[-1] < 0:
                raise InputError(
                    f"{self.name}: timesteps must fall and be from 0 to {count - 1}, "
                    f"got {list(timesteps)}"
                )
            steps = len(marks)
            chosen = marks[steps - min(int(steps * strength), steps) :]
            if len(chosen) == 0:
                raise InputError(f"{self.name}: strength must leave a timestep, got {strength}")
        else:
            grid = np.arange(1, int(original * strength) + 1)[::-1] * (count // original) - 1
            steps = self._count(num_inference_steps, len(grid))
            places = np.floor(np.linspace(0, len(grid), num=steps, endpoint=False))
            chosen = grid[places.astype(np.int64)]
        self._set(chosen)
        self.num_inference_steps = steps

    def step(
        self,
        model_output: Array,
        timestep: int,
        sample: Array,
        *,
        seed: int | None = None,
        variance_noise: Array | None = None,
        uncond: Array | None = None,
        guidance_scale: float = 1.0,
        out: Array | None = None,
    ) -> SchedulerOutput:
        """Goes to the next timestep.

        Args:
            model_output: The prediction, shaped like the sample; float32, float16 or bfloat16.
            timestep: The one of `timesteps` that comes next.
            sample: float32 array.
            seed: The noise's, which all steps but the last add; each step has a row of its own.
            variance_noise: The noise itself instead of a seed.
            uncond: The prediction without a prompt; None is no guidance.
            guidance_scale: How far to go past it.
            out: float32 array to write prev_sample to, which may be `sample`; None allocates.
        """
        index = self._enter_step(timestep)
        self._check_arrays(
            sample, model_output=model_output, uncond=uncond, variance_noise=variance_noise
        )
        guidance = Guidance(uncond, guidance_scale)
        after = int(self.timesteps[min(index + 1, len(self.timesteps) - 1)])
        alpha, next_alpha = self._alpha(int(self.timesteps[index])), self._alpha(after)
        scaled = float(self.timesteps[index]) * self.config.timestep_scaling
        skip = _SIGMA_DATA**2 / (scaled**2 + _SIGMA_DATA**2)
        weight = scaled / math.hypot(scaled, _SIGMA_DATA)
        step = Step(self, {"model": model_output, "sample": sample})
        clean = self._clean(step, alpha)
        clipped = self._clip(step, clean, guidance)
        if clipped is not None:
            step = Step(self, {"model": model_output, "sample": sample, "clean": clipped})
            clean = step["clean"]
        denoised = weight * clean + skip * step["sample"]
        last = self.num_inference_steps is not None and index == self.num_inference_steps - 1
        if last:
            prev, same = step.run([denoised, denoised], [out, None], guidance)
        else:
            noise = Noise.of(self.name, variance_noise, seed, index + 1)
            rows = [math.sqrt(next_alpha) * denoised, denoised]
            scale = math.sqrt(1 - next_alpha)
            prev, same = step.run(rows, [out, None], guidance, noise=noise, noise_scale=scale)
        self._step_index = index + 1
        return SchedulerOutput(prev, denoised=same)
