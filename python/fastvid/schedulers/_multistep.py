"""What DPM-Solver++ and UniPC share: their options and schedules, and lambda."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastvid.errors import InputError
from fastvid.schedulers._base import Array, Scheduler, Step
from fastvid.schedulers._config import fixed, option
from fastvid.schedulers._schedules import BetaOptions, SigmaOptions, cumulative_alphas, sigmas_of

_ROUNDING = 1e-6


@dataclass(frozen=True)
class MultistepOptions(BetaOptions, SigmaOptions):
    """Options of both."""

    solver_order: int = option(2, low=1, high=3)
    prediction_type: str = option("epsilon", "epsilon", "sample", "v_prediction", "flow_prediction")
    thresholding: bool = fixed(False)
    dynamic_thresholding_ratio: float = option(0.995)
    sample_max_value: float = option(1.0)
    lower_order_final: bool = option(True)
    use_flow_sigmas: bool = option(False)
    flow_shift: float = option(1.0, low=1e-3, high=1e6)
    final_sigmas_type: str = option("zero", "zero", "sigma_min")
    use_dynamic_shifting: bool = option(False)
    time_shift_type: str = option("exponential", "exponential")


class MultistepScheduler(Scheduler):
    """A solver that keeps the predictions of the steps before."""

    config: MultistepOptions

    def _prepare(self) -> None:
        self._kind = self.config.kind(self.name)
        self.alphas_cumprod = cumulative_alphas(self.name, self.config, finite_sigmas=True)
        self._train_sigmas = sigmas_of(self.alphas_cumprod)
        self.sigmas = self._train_sigmas
        self.timesteps = np.arange(self.config.num_train_timesteps - 1, -1, -1, dtype=np.float32)
        self._forget()

    def _forget(self) -> None:
        # Predictions of the steps before, the latest last; their memory is used again.
        self._history: list[Array] = []
        self._steps_made = 0

    def _spaced(self, steps: int, last: int) -> Any:
        """Training timesteps below `last`."""
        config, count = self.config, self.config.num_train_timesteps
        if config.timestep_spacing == "linspace":
            return np.linspace(0, last - 1, steps + 1).round()[::-1][:-1].astype(np.int64)
        if config.timestep_spacing == "leading":
            ratio = last // (steps + 1)
            return np.arange(steps + 1)[::-1][:-1] * ratio + config.steps_offset
        return np.arange(last, 0, -count / steps).round().astype(np.int64) - 1

    def _interpolated(self, timesteps: Any) -> Any:
        train = self._train_sigmas
        return np.interp(timesteps, np.arange(len(train)), train)

    def _begin(self, timesteps: Any, sigmas: Any) -> None:
        # The last sigma may repeat the one before it, to within rounding: the last step then
        # changes nothing.
        steps = np.diff(sigmas)
        if not ((steps[:-1] < 0).all() and steps[-1] <= _ROUNDING * sigmas[0]):
            raise InputError(
                f"{self.name}: sigmas must fall, got {np.asarray(sigmas).tolist()}",
                hint="take fewer steps or other spacing",
            )
        if self.config.use_flow_sigmas and sigmas[0] > 1:
            raise InputError(
                f"{self.name}: sigmas must be at most 1 with use_flow_sigmas, got {sigmas[0]}",
                hint="do not combine it with Karras, exponential or beta sigmas",
            )
        self._restart(np.asarray(timesteps).astype(np.int64), sigmas)
        self._forget()

    def _alpha_sigma(self, index: int) -> tuple[float, float]:
        """Signal and noise of a sample at a step."""
        sigma = float(self.sigmas[index])
        if self.config.use_flow_sigmas:
            return 1 - sigma, sigma
        alpha = 1 / math.sqrt(sigma**2 + 1)
        return alpha, sigma * alpha

    def _lambda(self, index: int) -> float:
        alpha, sigma = self._alpha_sigma(index)
        if sigma == 0 or alpha == 0:
            return math.inf if sigma == 0 else -math.inf
        return math.log(alpha) - math.log(sigma)

    def _clean(self, step: Step, index: int) -> Any:
        """The row of x0."""
        alpha, sigma = self._alpha_sigma(index)
        kind = self.config.prediction_type
        if kind == "sample":
            return step["model"]
        if kind == "flow_prediction":
            return step["sample"] - float(self.sigmas[index]) * step["model"]
        if kind == "v_prediction":
            return alpha * step["sample"] - sigma * step["model"]
        if alpha == 0:
            raise InputError(
                f"{self.name}: prediction_type must be another where a run starts at sigma 1, "
                "got 'epsilon'"
            )
        return (step["sample"] - sigma * step["model"]) / alpha

    def add_noise(self, original_samples: Array, noise: Array, timesteps: Any) -> Array:
        """`alpha * original_samples + sigma * noise` at a timestep.

        Args:
            original_samples: float32 array.
            noise: float32 array like it.
            timesteps: One of `timesteps`, or one for each entry of the first axis.
        """
        pairs = [self._alpha_sigma(i) for i in self._noise_indices(timesteps)]
        return self._add_noise(original_samples, noise, pairs)

    def _remember(self, prediction: Array) -> None:
        self._history = [*self._history, prediction][-self.config.solver_order :]
        self._steps_made += 1

    def _spare(self) -> Array | None:
        """The memory of the oldest prediction, where it is not needed after this step."""
        full = len(self._history) == self.config.solver_order
        return self._history[0] if full else None
