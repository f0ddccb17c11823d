"""DPM-Solver++ (Lu et al. 2022) in its multistep forms, deterministic and stochastic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastvid.errors import InputError
from fastvid.schedulers._base import Array, Guidance, Noise, Row, SchedulerOutput, Step
from fastvid.schedulers._config import at_most_one, build, fixed, option
from fastvid.schedulers._multistep import MultistepOptions, MultistepScheduler
from fastvid.schedulers._schedules import LARGEST_MU, shift, spread, timestep_of

# Runs shorter than this end with lower orders, which is more stable.
_SHORT_RUN = 15


@dataclass(frozen=True)
class DPMSolverConfig(MultistepOptions):
    """Options of DPMSolverMultistepScheduler."""

    algorithm_type: str = option("dpmsolver++", "dpmsolver++", "sde-dpmsolver++")
    solver_type: str = option("midpoint", "midpoint", "heun")
    euler_at_final: bool = option(False)
    use_lu_lambdas: bool = option(False)
    lambda_min_clipped: float = option(-math.inf)
    variance_type: str | None = fixed(None)


class DPMSolverMultistepScheduler(MultistepScheduler):
    """A linear multistep method in the log of the signal-to-noise ratio, on predictions of x0.

    Args:
        **config: diffusers' options: num_train_timesteps, beta_start, beta_end, beta_schedule,
            trained_betas, solver_order (1 to 3; 2 at most with noise), prediction_type,
            algorithm_type ("dpmsolver++" or "sde-dpmsolver++"), solver_type, lower_order_final,
            euler_at_final, use_karras_sigmas, use_exponential_sigmas, use_beta_sigmas,
            use_lu_lambdas, use_flow_sigmas, flow_shift, final_sigmas_type, lambda_min_clipped,
            timestep_spacing, steps_offset, rescale_betas_zero_snr, use_dynamic_shifting,
            time_shift_type. thresholding must be False and variance_type None.

    Raises:
        InputError: An option or value is unknown or not supported.
    """

    config: DPMSolverConfig

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.config = build(DPMSolverConfig, self.name, config)
        at_most_one(
            self.name,
            self.config,
            "use_karras_sigmas",
            "use_exponential_sigmas",
            "use_beta_sigmas",
            "use_lu_lambdas",
        )
        if self.config.algorithm_type == "sde-dpmsolver++" and self.config.solver_order > 2:
            raise InputError(
                f"{self.name}: solver_order must be 1 or 2 with 'sde-dpmsolver++', got "
                f"{self.config.solver_order}"
            )
        self._prepare()

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        *,
        mu: float | None = None,
        timesteps: Sequence[int] | None = None,
    ) -> None:
        """Fixes `timesteps` and `sigmas` of a run by its number of steps or its timesteps.

        Args:
            num_inference_steps: Number of steps.
            mu: With use_dynamic_shifting, the logarithm of the shift of flow sigmas.
            timesteps: Training timesteps to use, falling; only without another spacing of sigmas.

        Raises:
            InputError: The arguments do not fit each other or the options.
        """
        config, train = self.config, self._train_sigmas
        if (num_inference_steps is None) == (timesteps is None):
            raise InputError(
                f"{self.name}: exactly one of num_inference_steps and timesteps must be given"
            )
        if mu is not None:
            mu = self._number("mu", mu, -LARGEST_MU, LARGEST_MU)
            if not config.use_dynamic_shifting:
                raise InputError(
                    f"{self.name}: mu must be None without use_dynamic_shifting, got {mu}"
                )
        spaced = self._kind is not None or config.use_lu_lambdas or config.use_flow_sigmas
        if timesteps is not None:
            marks = self._row_of_numbers("timesteps", timesteps, np.int64)
            if spaced or marks.min() < 0 or marks.max() >= config.num_train_timesteps:
                raise InputError(
                    f"{self.name}: timesteps must be None with another spacing of sigmas, or below "
                    f"{config.num_train_timesteps}, got {list(timesteps)}"
                )
            sigmas = self._interpolated(marks)
        else:
            steps = self._count(num_inference_steps, config.num_train_timesteps)
            marks, sigmas = self._levels(steps, mu)
        last = float(train[0]) if config.final_sigmas_type == "sigma_min" else 0.0
        self._begin(marks, np.append(sigmas, last))

    def _levels(self, steps: int, mu: float | None) -> tuple[Any, Any]:
        """Timesteps and sigmas but the last."""
        config, train = self.config, self._train_sigmas
        if config.use_flow_sigmas and self._kind is None and not config.use_lu_lambdas:
            factor = config.flow_shift if mu is None else math.exp(mu)
            even = 1.0 - np.linspace(1, 1 / config.num_train_timesteps, steps + 1)
            sigmas = shift(even, factor)[::-1][:-1]
            return sigmas * config.num_train_timesteps, sigmas
        logs = np.log(train)
        if self._kind is not None:
            sigmas = spread(self._kind, float(train[0]), float(train[-1]), steps)
        elif config.use_lu_lambdas:
            sigmas = np.exp(np.linspace(float(logs[-1]), float(logs[0]), steps))
        else:
            marks = self._spaced(steps, self._last_timestep())
            return marks, self._interpolated(marks)
        marks = timestep_of(sigmas, logs)
        rounds = self._kind in (None, "karras") and config.beta_schedule != "squaredcos_cap_v2"
        return marks.round() if rounds else marks, sigmas

    def _last_timestep(self) -> int:
        alphas = self.alphas_cumprod
        lambdas = np.log(np.sqrt(alphas)) - np.log(np.sqrt(np.float32(1) - alphas))
        return len(alphas) - int(np.searchsorted(lambdas[::-1], self.config.lambda_min_clipped))

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
            model_output: The prediction, shaped like the sample; float32, float16 or bfloat16.
            timestep: The one of `timesteps` that comes next.
            sample: float32 array.
            seed: The noise's, with "sde-dpmsolver++"; each step has a row of its own.
            variance_noise: The noise itself instead of a seed.
            uncond: The prediction without a prompt; None is no guidance.
            guidance_scale: How far to go past it.
            out: float32 array to write to, which may be `sample`; None allocates.
        """
        index = self._enter_step(timestep)
        self._check_arrays(
            sample, model_output=model_output, uncond=uncond, variance_noise=variance_noise
        )
        arrays = {"model": model_output, "sample": sample}
        arrays |= {f"m{i + 1}": m for i, m in enumerate(reversed(self._history))}
        step = Step(self, arrays)
        clean = self._clean(step, index)
        past = [step[f"m{i + 1}"] for i in range(len(self._history))]
        # Options that cannot reach the last sigma give rows that are not finite: run refuses them.
        with np.errstate(all="ignore"):
            row, spread_of_noise = self._update(step["sample"], [clean, *past], index)
        noise = None
        if self.config.algorithm_type == "sde-dpmsolver++":
            noise = Noise.of(self.name, variance_noise, seed, index + 1)
        prev, prediction = step.run(
            [row, clean],
            [out, self._spare()],
            Guidance(uncond, guidance_scale),
            noise=noise,
            noise_scale=spread_of_noise,
        )
        self._remember(prediction)
        self._step_index = index + 1
        return SchedulerOutput(prev)

    def _order(self, index: int) -> int:
        config, left = self.config, len(self.timesteps) - index
        short = config.lower_order_final and len(self.timesteps) < _SHORT_RUN
        order = min(config.solver_order, self._steps_made + 1)
        if left == 1 and (config.euler_at_final or short or config.final_sigmas_type == "zero"):
            return 1
        return min(order, 2) if left == 2 and short else order

    def _update(self, sample: Row, m: list[Row], index: int) -> tuple[Row, float]:
        """The row of the next sample and the standard deviation of its noise."""
        stochastic = self.config.algorithm_type == "sde-dpmsolver++"
        order = self._order(index)
        alpha, sigma = self._alpha_sigma(index + 1)
        ratio = sigma / self._alpha_sigma(index)[1]
        now = self._lambda(index)
        h = self._lambda(index + 1) - now
        if h == 0:
            return sample, 0.0
        # With noise, the exponents double: e is exp(-h) - 1 or exp(-2 h) - 1, over the length of h.
        length = 2 * h if stochastic else h
        e = math.expm1(-length)
        row = ratio * (math.exp(-h) if stochastic else 1.0) * sample - alpha * e * m[0]
        noise = sigma * math.sqrt(-e) if stochastic else 0.0
        if order == 1:
            return row, noise
        r0 = (now - self._lambda(index - 1)) / h
        d1 = (m[0] - m[1]) / r0
        if order == 2 and self.config.solver_type == "midpoint":
            return row - 0.5 * alpha * e * d1, noise
        second = alpha * (e / length + 1.0)
        if order == 2:
            return row + second * d1, noise
        r1 = (self._lambda(index - 1) - self._lambda(index - 2)) / h
        d1_1 = (m[1] - m[2]) / r1
        d2 = (d1 - d1_1) / (r0 + r1)
        third = alpha * ((e + length) / length**2 - 0.5)
        return row + second * (d1 + r0 * d2) - third * d2, noise
