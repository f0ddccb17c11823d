"""Denoising diffusion implicit models (Song et al. 2021)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastvid.errors import InputError, InputTypeError
from fastvid.schedulers._base import Array, Guidance, Noise, Scheduler, SchedulerOutput, Step
from fastvid.schedulers._config import build, fixed, option
from fastvid.schedulers._schedules import BetaOptions, cumulative_alphas, sigmas_of


@dataclass(frozen=True)
class ClipOptions(BetaOptions):
    """What DDIM and LCM share."""

    clip_sample: bool = option(True)
    clip_sample_range: float = option(1.0, low=0.0)
    set_alpha_to_one: bool = option(True)
    prediction_type: str = option("epsilon", "epsilon", "sample", "v_prediction")
    thresholding: bool = fixed(False)
    dynamic_thresholding_ratio: float = option(0.995)
    sample_max_value: float = option(1.0)


class AlphaScheduler(Scheduler):
    """A scheduler that works with cumulative alphas: `sample = sqrt(a) x0 + sqrt(1 - a) noise`."""

    config: ClipOptions

    def _prepare(self) -> None:
        config = self.config
        self.alphas_cumprod = cumulative_alphas(self.name, config, finite_sigmas=False)
        self.final_alpha_cumprod = 1.0 if config.set_alpha_to_one else float(self.alphas_cumprod[0])
        count = config.num_train_timesteps
        self.timesteps = np.arange(count - 1, -1, -1, dtype=np.int64)

    def _set(self, timesteps: Any) -> None:
        marks = np.asarray(timesteps, dtype=np.int64)
        alphas = self.alphas_cumprod[marks]
        with np.errstate(divide="ignore"):
            sigmas = sigmas_of(alphas)
        last = math.sqrt(1 / self.final_alpha_cumprod - 1)
        self._restart(marks, np.append(sigmas, np.float32(last)))

    def _training_step(self, timestep: Any) -> int:
        """The timestep as an index of the training schedule."""
        if isinstance(timestep, bool) or not isinstance(timestep, (int, np.integer)):
            raise InputTypeError(
                f"{self.name}: timestep must be an int, got {type(timestep).__name__}"
            )
        if not 0 <= timestep < len(self.alphas_cumprod):
            raise InputError(
                f"{self.name}: timestep must be from 0 to {len(self.alphas_cumprod) - 1}, "
                f"got {timestep}"
            )
        return int(timestep)

    def _alpha(self, timestep: int) -> float:
        return float(self.alphas_cumprod[timestep]) if timestep >= 0 else self.final_alpha_cumprod

    def _clean(self, step: Step, alpha: float) -> Any:
        """The row of x0."""
        signal, noise = math.sqrt(alpha), math.sqrt(1 - alpha)
        if self.config.prediction_type == "sample":
            return step["model"]
        if self.config.prediction_type == "v_prediction":
            return signal * step["sample"] - noise * step["model"]
        return self._over(step["sample"] - noise * step["model"], signal)

    def _over(self, row: Any, divisor: float) -> Any:
        if divisor == 0:
            raise InputError(
                f"{self.name}: prediction_type must be another at this timestep, where the sample "
                f"holds no trace of what is asked for, got {self.config.prediction_type!r}"
            )
        return row / divisor

    def _clip(self, step: Step, clean: Any, guidance: Guidance) -> Array | None:
        """x0 clipped, where the config says so."""
        if not self.config.clip_sample:
            return None
        (original,) = step.run([clean], [None], guidance)
        bound = np.float32(self.config.clip_sample_range)
        return np.clip(original, -bound, bound, out=original)

    def add_noise(self, original_samples: Array, noise: Array, timesteps: Any) -> Array:
        """`sqrt(alpha) * original_samples + sqrt(1 - alpha) * noise` at a timestep's alpha.

        Args:
            original_samples: float32 array.
            noise: float32 array like it.
            timesteps: A training timestep, or one for each entry of the first axis.
        """
        pairs = []
        for t in self._timestep_list(timesteps):
            alpha = self._alpha(self._training_step(int(t) if t == int(t) else t))
            pairs.append((math.sqrt(alpha), math.sqrt(1 - alpha)))
        return self._add_noise(original_samples, noise, pairs)


@dataclass(frozen=True)
class DDIMConfig(ClipOptions):
    """Options of DDIMScheduler."""

    timestep_spacing: str = option("leading", "linspace", "leading", "trailing")


class DDIMScheduler(AlphaScheduler):
    """`prev = sqrt(a_prev) * x0 + sqrt(1 - a_prev - s**2) * epsilon + s * noise`.

    Args:
        **config: diffusers' options: num_train_timesteps, beta_start, beta_end, beta_schedule,
            trained_betas, clip_sample, set_alpha_to_one, steps_offset, prediction_type,
            clip_sample_range, timestep_spacing, rescale_betas_zero_snr. thresholding must be False.

    Raises:
        InputError: An option or value is unknown or not supported.
    """

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.config = build(DDIMConfig, self.name, config)
        self._prepare()

    def set_timesteps(self, num_inference_steps: int) -> None:
        """Fixes `timesteps` of a run of this many steps."""
        count, config = self.config.num_train_timesteps, self.config
        steps = self._count(num_inference_steps, count)
        if config.timestep_spacing == "linspace":
            timesteps: Any = np.linspace(0, count - 1, steps).round()[::-1]
        elif config.timestep_spacing == "leading":
            timesteps = np.arange(steps)[::-1] * (count // steps) + config.steps_offset
        else:
            timesteps = np.round(np.arange(count, 0, -count / steps)) - 1
        if timesteps.max() >= count:
            raise InputError(
                f"{self.name}: steps_offset must leave timesteps below {count}, "
                f"got {config.steps_offset}"
            )
        self._set(timesteps)
        self._stride = count // steps

    def step(
        self,
        model_output: Array,
        timestep: int,
        sample: Array,
        eta: float = 0.0,
        use_clipped_model_output: bool = False,
        *,
        seed: int | None = None,
        variance_noise: Array | None = None,
        uncond: Array | None = None,
        guidance_scale: float = 1.0,
        out: Array | None = None,
    ) -> SchedulerOutput:
        """Goes from a timestep to the one before it; it may be any training timestep.

        Args:
            model_output: The prediction, shaped like the sample; float32, float16 or bfloat16.
            timestep: An int, usually the one of `timesteps` that comes next.
            sample: float32 array.
            eta: How much noise to add: 0 is none, 1 as much as DDPM.
            use_clipped_model_output: Whether to take epsilon from the clipped x0.
            seed: The noise's, with eta; each timestep has a row of its own.
            variance_noise: The noise itself instead of a seed.
            uncond: The prediction without a prompt; None is no guidance.
            guidance_scale: How far to go past it.
            out: float32 array to write prev_sample to, which may be `sample`; None allocates.
        """
        if self.num_inference_steps is None:
            raise InputError(f"{self.name}: set_timesteps must be called before step")
        timestep = self._training_step(timestep)
        self._check_arrays(
            sample, model_output=model_output, uncond=uncond, variance_noise=variance_noise
        )
        guidance, eta = Guidance(uncond, guidance_scale), self._number("eta", eta, 0, 1)
        alpha, before = self._alpha(timestep), self._alpha(timestep - self._stride)
        variance = (1 - before) / (1 - alpha) * (1 - alpha / before)
        spread = eta * math.sqrt(max(variance, 0.0))
        step = Step(self, {"model": model_output, "sample": sample})
        clean = self._clean(step, alpha)
        clipped = self._clip(step, clean, guidance)
        if clipped is not None:
            step = Step(self, {"model": model_output, "sample": sample, "clean": clipped})
            clean = step["clean"]
        epsilon = self._epsilon(step, alpha, clean if use_clipped_model_output else None)
        row = math.sqrt(before) * clean + math.sqrt(max(1 - before - spread**2, 0.0)) * epsilon
        noise = None
        if eta > 0:
            noise = Noise.of(self.name, variance_noise, seed, timestep + 1)
        rows, outs = ([row], [out]) if clipped is not None else ([row, clean], [out, None])
        found = step.run(rows, outs, guidance, noise=noise, noise_scale=spread)
        return SchedulerOutput(
            found[0], pred_original_sample=found[1] if clipped is None else clipped
        )

    def _epsilon(self, step: Step, alpha: float, clipped: Any) -> Any:
        signal, noise = math.sqrt(alpha), math.sqrt(1 - alpha)
        if clipped is not None:
            return self._over(step["sample"] - signal * clipped, noise)
        if self.config.prediction_type == "epsilon":
            return step["model"]
        if self.config.prediction_type == "v_prediction":
            return signal * step["model"] + noise * step["sample"]
        return self._over(step["sample"] - signal * step["model"], noise)
