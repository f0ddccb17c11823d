"""Euler's method on flow matching models (Esser et al. 2024): Wan, LTX, Flux, SD3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastvid.errors import InputError
from fastvid.schedulers._base import Array, Guidance, Noise, Scheduler, SchedulerOutput, Step
from fastvid.schedulers._config import build, option, optional
from fastvid.schedulers._schedules import (
    LARGEST_MU,
    SigmaOptions,
    shift,
    shift_by_mu,
    spread,
    stretch_to_terminal,
)


@dataclass(frozen=True)
class FlowMatchEulerConfig(SigmaOptions):
    """Options of FlowMatchEulerDiscreteScheduler."""

    num_train_timesteps: int = option(1000, low=1, high=100_000)
    shift: float = option(1.0, low=1e-3, high=1e6)
    use_dynamic_shifting: bool = option(False)
    base_shift: float | None = optional()
    max_shift: float | None = optional()
    base_image_seq_len: int = option(256, low=1)
    max_image_seq_len: int = option(4096, low=1)
    invert_sigmas: bool = option(False)
    shift_terminal: float | None = optional(low=0.0, high=0.99)
    time_shift_type: str = option("exponential", "exponential", "linear")
    stochastic_sampling: bool = option(False)


class FlowMatchEulerDiscreteScheduler(Scheduler):
    """`prev = sample + (sigma_next - sigma) * velocity`, sigma from 1 (noise) to 0 (data).

    Args:
        **config: diffusers' options: num_train_timesteps, shift, use_dynamic_shifting, base_shift,
            max_shift, base_image_seq_len, max_image_seq_len, invert_sigmas, shift_terminal,
            use_karras_sigmas, use_exponential_sigmas, use_beta_sigmas, time_shift_type,
            stochastic_sampling. base_shift to max_image_seq_len say how a pipeline computes `mu`.

    Raises:
        InputError: An option or value is unknown or not supported.
    """

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.config = build(
            FlowMatchEulerConfig, self.name, {"base_shift": 0.5, "max_shift": 1.15, **config}
        )
        self._kind = self.config.kind(self.name)
        self._shift = float(self.config.shift)
        count = self.config.num_train_timesteps
        timesteps = np.arange(count, 0, -1, dtype=np.float32)
        sigmas = timesteps / np.float32(count)
        if not self.config.use_dynamic_shifting:
            sigmas = shift(sigmas, self._shift)
        self.sigmas, self.timesteps = sigmas, sigmas * np.float32(count)
        self.sigma_min, self.sigma_max = float(sigmas[-1]), float(sigmas[0])

    @property
    def shift(self) -> float:
        """How far the sigmas are moved towards noise; 1 leaves them."""
        return self._shift

    def set_shift(self, shift: float) -> None:
        """Changes the shift for the next set_timesteps."""
        self._shift = self._number("shift", shift, 1e-3, 1e6)

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        *,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
        timesteps: Sequence[float] | None = None,
    ) -> None:
        """Fixes `timesteps` and `sigmas` of a run.

        Args:
            num_inference_steps: Number of steps; None takes that of sigmas or timesteps.
            sigmas: Sigmas to use, before shifting; None spreads them evenly.
            mu: The shift that depends on resolution, with use_dynamic_shifting.
            timesteps: Timesteps to use; without sigmas these follow from them.

        Raises:
            InputError: The arguments do not fit each other or the options.
        """
        config, count = self.config, self.config.num_train_timesteps
        if config.use_dynamic_shifting != (mu is not None):
            raise InputError(
                f"{self.name}: mu must be given exactly with use_dynamic_shifting, got {mu}"
            )
        given = None if timesteps is None else self._row_of_numbers("timesteps", timesteps)
        levels = None if sigmas is None else self._row_of_numbers("sigmas", sigmas)
        lengths = {len(x) for x in (levels, given) if x is not None}
        if num_inference_steps is not None:
            lengths.add(self._count(num_inference_steps, 100_000))
        if len(lengths) != 1:
            raise InputError(
                f"{self.name}: num_inference_steps, sigmas and timesteps must agree in length, "
                f"got {sorted(lengths) or 'none of them'}"
            )
        steps = lengths.pop()
        if levels is not None:
            noise: Any = levels
        elif given is not None:
            noise = given / count
        else:
            noise = np.linspace(self.sigma_max * count, self.sigma_min * count, steps) / count
        if not ((noise > 0) & (noise <= 1)).all():
            raise InputError(f"{self.name}: sigmas must be in (0, 1], got {noise.tolist()}")
        noise = self._respace(noise, mu, steps)
        levels = np.asarray(noise, dtype=np.float32)
        marks = levels * np.float32(count) if given is None else given
        if config.invert_sigmas:
            levels = np.float32(1) - levels
            marks = levels * np.float32(count)
        end = np.float32(1 if config.invert_sigmas else 0)
        self._restart(marks.astype(np.float32), np.append(levels, end))

    def _respace(self, sigmas: Any, mu: float | None, steps: int) -> Any:
        config = self.config
        if mu is None:
            sigmas = shift(sigmas, self._shift)
        else:
            low = 1e-3 if config.time_shift_type == "linear" else -LARGEST_MU
            mu = self._number("mu", mu, low, LARGEST_MU)
            sigmas = shift_by_mu(sigmas, mu, config.time_shift_type)
        if config.shift_terminal:
            sigmas = stretch_to_terminal(sigmas, config.shift_terminal)
        if self._kind is not None:
            sigmas = spread(self._kind, float(sigmas[-1]), float(sigmas[0]), steps)
        return sigmas

    def scale_noise(self, sample: Array, timestep: Any, noise: Array) -> Array:
        """`sigma * noise + (1 - sigma) * sample` at the sigma of a timestep.

        Args:
            sample: float32 array.
            timestep: One of `timesteps`, or one for each entry of the sample's first axis.
            noise: float32 array like the sample.
        """
        sigmas = [float(self.sigmas[i]) for i in self._noise_indices(timestep)]
        return self._add_noise(sample, noise, [(1.0 - sigma, sigma) for sigma in sigmas])

    def step(
        self,
        model_output: Array,
        timestep: float,
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
            model_output: The velocity, float32 like the sample.
            timestep: The one of `timesteps` that comes next.
            sample: float32 array.
            seed: The noise's, with stochastic_sampling; each step has a row of its own.
            variance_noise: The noise itself instead of a seed.
            uncond: The velocity without a prompt; None is no guidance.
            guidance_scale: How far to go past it.
            out: float32 array to write to, which may be `sample`; None allocates.
        """
        index = self._enter_step(timestep)
        self._check_arrays(
            sample, model_output=model_output, uncond=uncond, variance_noise=variance_noise
        )
        sigma, after = float(self.sigmas[index]), float(self.sigmas[index + 1])
        step = Step(self, {"velocity": model_output, "sample": sample})
        noise, scale = None, 0.0
        if self.config.stochastic_sampling:
            noise, scale = Noise.of(self.name, variance_noise, seed, index + 1), after
            row = (1.0 - after) * (step["sample"] - sigma * step["velocity"])
        else:
            row = step["sample"] + (after - sigma) * step["velocity"]
        guidance = Guidance(uncond, guidance_scale)
        (prev,) = step.run([row], [out], guidance, noise=noise, noise_scale=scale)
        self._step_index = index + 1
        return SchedulerOutput(prev)
