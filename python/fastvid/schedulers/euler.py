"""Euler's method of Karras et al. (2022), algorithm 2, on models of a discrete noise schedule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastvid import ops
from fastvid.errors import InputError
from fastvid.schedulers._base import (
    Array,
    Guidance,
    Noise,
    Scheduler,
    SchedulerOutput,
    Step,
    placed,
)
from fastvid.schedulers._config import build, option, optional
from fastvid.schedulers._schedules import (
    BetaOptions,
    SigmaOptions,
    cumulative_alphas,
    sigmas_of,
    spread,
    timestep_of,
)


@dataclass(frozen=True)
class EulerConfig(BetaOptions, SigmaOptions):
    """Options of EulerDiscreteScheduler."""

    prediction_type: str = option("epsilon", "epsilon", "sample", "v_prediction")
    interpolation_type: str = option("linear", "linear", "log_linear")
    sigma_min: float | None = optional(low=1e-6)
    sigma_max: float | None = optional(low=1e-6)
    timestep_type: str = option("discrete", "discrete", "continuous")
    final_sigmas_type: str = option("zero", "zero", "sigma_min")


class EulerDiscreteScheduler(Scheduler):
    """`prev = sample + (sigma_next - sigma) * (sample - x0) / sigma`, sigma from about 14.6 to 0.

    Args:
        **config: diffusers' options: num_train_timesteps, beta_start, beta_end, beta_schedule,
            trained_betas, prediction_type, interpolation_type, use_karras_sigmas,
            use_exponential_sigmas, use_beta_sigmas, sigma_min, sigma_max, timestep_spacing,
            timestep_type, steps_offset, rescale_betas_zero_snr, final_sigmas_type.

    Raises:
        InputError: An option or value is unknown or not supported.
    """

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.config = build(EulerConfig, self.name, config)
        self._kind = self.config.kind(self.name)
        self.alphas_cumprod = cumulative_alphas(self.name, self.config, finite_sigmas=True)
        self._train_sigmas = sigmas_of(self.alphas_cumprod)
        self.sigmas = np.append(self._train_sigmas[::-1], np.float32(0))
        self.timesteps = np.arange(self.config.num_train_timesteps - 1, -1, -1, dtype=np.float32)
        if self._continuous:
            self.timesteps = self._marks(self.sigmas)

    @property
    def _continuous(self) -> bool:
        config = self.config
        return config.timestep_type == "continuous" and config.prediction_type == "v_prediction"

    @property
    def init_noise_sigma(self) -> float:  # type: ignore[override]
        """Standard deviation of the noise that a run starts from."""
        largest = float(self.sigmas.max())
        if self.config.timestep_spacing in ("linspace", "trailing"):
            return largest
        return math.hypot(largest, 1.0)

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        *,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
    ) -> None:
        """Fixes `timesteps` and `sigmas` of a run by one of its arguments.

        Args:
            num_inference_steps: Number of steps.
            timesteps: Training timesteps to use, falling; not with Karras, exponential or beta
                sigmas or continuous timesteps.
            sigmas: Sigmas to use, one more than there are steps, the last for the end.

        Raises:
            InputError: The arguments do not fit each other or the options.
        """
        if sum(x is not None for x in (num_inference_steps, timesteps, sigmas)) != 1:
            raise InputError(
                f"{self.name}: exactly one of num_inference_steps, timesteps and sigmas must be "
                "given"
            )
        if sigmas is not None:
            levels: Any = self._row_of_numbers("sigmas", sigmas)
            if len(levels) < 2 or (levels < 0).any() or (levels[:-1] == 0).any():
                raise InputError(f"{self.name}: sigmas must be positive, got {sigmas}")
            marks: Any = timestep_of(levels[:-1], np.log(self._train_sigmas))
        elif timesteps is not None:
            if self._kind is not None or self._continuous:
                raise InputError(
                    f"{self.name}: timesteps must not be given with {self._kind or 'continuous'} "
                    "spacing"
                )
            marks = self._row_of_numbers("timesteps", timesteps)
            marks, levels = self._levels(marks, len(marks))
        else:
            steps = self._count(num_inference_steps, self.config.num_train_timesteps)
            marks, levels = self._levels(self._spaced(steps), steps)
        levels = levels.astype(np.float32)
        marks = self._marks(levels) if self._continuous else marks.astype(np.float32)
        self._restart(marks, levels)

    def _spaced(self, steps: int) -> Any:
        count, config = self.config.num_train_timesteps, self.config
        if config.timestep_spacing == "linspace":
            return np.linspace(0, count - 1, steps, dtype=np.float32)[::-1]
        if config.timestep_spacing == "leading":
            return np.arange(steps)[::-1] * np.float32(count // steps) + config.steps_offset
        return np.arange(count, 0, -count / steps).round() - 1

    def _levels(self, timesteps: Any, steps: int) -> tuple[Any, Any]:
        """Timesteps, where the sigmas decide them, and sigmas with the last."""
        config, train = self.config, self._train_sigmas
        if config.interpolation_type == "linear":
            sigmas = np.interp(timesteps, np.arange(len(train)), train)
        else:
            ends = np.log(train[-1]), np.log(train[0])
            sigmas = np.exp(np.linspace(*ends, steps + 1))
        if self._kind is not None:
            low = sigmas[-1] if config.sigma_min is None else config.sigma_min
            high = sigmas[0] if config.sigma_max is None else config.sigma_max
            sigmas = spread(self._kind, float(low), float(high), steps)
            timesteps = timestep_of(sigmas, np.log(train))
        last = train[0] if config.final_sigmas_type == "sigma_min" else 0.0
        return timesteps, np.append(sigmas, last)

    @staticmethod
    def _marks(sigmas: Array) -> Array:
        return (np.float32(0.25) * np.log(sigmas[:-1])).astype(np.float32)

    def scale_model_input(self, sample: Array, timestep: float | None = None) -> Array:
        """`sample / sqrt(sigma**2 + 1)`: what the model is given.

        Args:
            sample: float32 array.
            timestep: The one of `timesteps` that comes next.
        """
        if self._step_index is None and timestep is None:
            raise InputError(f"{self.name}: timestep must be given for the first step, got None")
        self._check_arrays(sample)
        index = self._step_index if timestep is None else self._enter_step(timestep)
        if index is None or index >= len(self.timesteps):
            raise InputError(f"{self.name}: scale_model_input must come before a step, got the end")
        scale = 1 / math.hypot(float(self.sigmas[index]), 1.0)
        (scaled,) = ops.scheduler_step([[scale]], [sample], **placed(sample, [None]))
        return scaled  # type: ignore[no-any-return]

    def add_noise(self, original_samples: Array, noise: Array, timesteps: Any) -> Array:
        """`original_samples + sigma * noise` at the sigma of a timestep.

        Args:
            original_samples: float32 array.
            noise: float32 array like it.
            timesteps: One of `timesteps`, or one for each entry of the first axis.
        """
        sigmas = [float(self.sigmas[i]) for i in self._noise_indices(timesteps)]
        return self._add_noise(original_samples, noise, [(1.0, sigma) for sigma in sigmas])

    def step(
        self,
        model_output: Array,
        timestep: float,
        sample: Array,
        s_churn: float = 0.0,
        s_tmin: float = 0.0,
        s_tmax: float = math.inf,
        s_noise: float = 1.0,
        *,
        seed: int | None = None,
        variance_noise: Array | None = None,
        uncond: Array | None = None,
        guidance_scale: float = 1.0,
        out: Array | None = None,
    ) -> SchedulerOutput:
        """Goes to the next timestep.

        Args:
            model_output: The prediction for `scale_model_input(sample)`, float32 like the sample.
            timestep: The one of `timesteps` that comes next.
            sample: float32 array.
            s_churn: Noise to add before the step, over the whole run.
            s_tmin: Smallest sigma that it is added at.
            s_tmax: Largest.
            s_noise: Its standard deviation.
            seed: The noise's; each step has a row of its own.
            variance_noise: The noise itself instead of a seed.
            uncond: The prediction without a prompt; None is no guidance.
            guidance_scale: How far to go past it.
            out: float32 array to write prev_sample to, which may be `sample`; None allocates.
        """
        index = self._enter_step(timestep)
        self._check_arrays(
            sample, model_output=model_output, uncond=uncond, variance_noise=variance_noise
        )
        s_churn, s_noise = self._number("s_churn", s_churn, 0), self._number("s_noise", s_noise)
        s_tmin, s_tmax = self._number("s_tmin", s_tmin), self._number("s_tmax", s_tmax)
        sigma, after = float(self.sigmas[index]), float(self.sigmas[index + 1])
        gamma = 0.0
        if s_tmin <= sigma <= s_tmax:
            gamma = min(s_churn / (len(self.sigmas) - 1), math.sqrt(2) - 1)
        raised = sigma * (gamma + 1)
        guidance = Guidance(uncond, guidance_scale)
        if gamma > 0:
            source = Noise.of(self.name, variance_noise, seed, index + 1)
            start = Step(self, {"sample": sample})
            scale = s_noise * math.sqrt(raised**2 - sigma**2)
            (sample,) = start.run(
                [start["sample"]], [out], Guidance(), noise=source, noise_scale=scale
            )
        step = Step(self, {"model": model_output, "sample": sample})
        clean = self._clean(step, sigma, raised)
        row = step["sample"] + (after - raised) / raised * (step["sample"] - clean)
        prev, original = step.run([row, clean], [out, None], guidance)
        self._step_index = index + 1
        return SchedulerOutput(prev, pred_original_sample=original)

    def _clean(self, step: Step, sigma: float, raised: float) -> Any:
        if self.config.prediction_type == "sample":
            return step["model"]
        if self.config.prediction_type == "epsilon":
            return step["sample"] - raised * step["model"]
        square = sigma**2 + 1
        return step["sample"] / square - sigma / math.sqrt(square) * step["model"]
