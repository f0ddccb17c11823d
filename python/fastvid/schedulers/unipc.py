"""UniPC (Zhao et al. 2023): a multistep predictor with a corrector that costs no evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastvid.errors import InputError
from fastvid.schedulers._base import Array, Guidance, Row, SchedulerOutput, Step
from fastvid.schedulers._config import build, fixed, option, optional, unchecked
from fastvid.schedulers._multistep import MultistepOptions, MultistepScheduler
from fastvid.schedulers._schedules import (
    LARGEST_MU,
    shift,
    shift_by_mu,
    spread,
    stretch_to_terminal,
    timestep_of,
)

# Keeps the first flow sigma below 1, where lambda is infinite.
_BELOW_ONE = 1e-6


@dataclass(frozen=True)
class UniPCConfig(MultistepOptions):
    """Options of UniPCMultistepScheduler."""

    predict_x0: bool = option(True)
    solver_type: str = option("bh2", "bh1", "bh2")
    disable_corrector: tuple[int, ...] | None = unchecked()
    solver_p: None = fixed(None)
    sigma_min: float | None = optional(low=1e-6)
    sigma_max: float | None = optional(low=1e-6)
    shift_terminal: float | None = optional(low=0.0, high=0.99)


class UniPCMultistepScheduler(MultistepScheduler):
    """Corrects the sample by the new prediction, then predicts the next one.

    Args:
        **config: diffusers' options: num_train_timesteps, beta_start, beta_end, beta_schedule,
            trained_betas, solver_order (1 to 3), prediction_type, predict_x0, solver_type ("bh1" or
            "bh2"), lower_order_final, disable_corrector, use_karras_sigmas,
            use_exponential_sigmas, use_beta_sigmas, use_flow_sigmas, flow_shift, timestep_spacing,
            steps_offset, final_sigmas_type, rescale_betas_zero_snr, use_dynamic_shifting,
            time_shift_type, sigma_min, sigma_max, shift_terminal. thresholding must be False and
            solver_p None.

    Raises:
        InputError: An option or value is unknown or not supported.
    """

    config: UniPCConfig

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.config = build(UniPCConfig, self.name, config)
        disabled = self.config.disable_corrector
        if disabled is not None and not (
            isinstance(disabled, (list, tuple)) and all(isinstance(i, int) for i in disabled)
        ):
            raise InputError(
                f"{self.name}: disable_corrector must be a list of steps, got {disabled!r}"
            )
        self._uncorrected = frozenset(disabled or ())
        if self.config.shift_terminal is not None and not self.config.use_flow_sigmas:
            raise InputError(f"{self.name}: shift_terminal must be None without use_flow_sigmas")
        if self.config.prediction_type == "flow_prediction" and not self.config.predict_x0:
            raise InputError(f"{self.name}: predict_x0 must be True with 'flow_prediction'")
        self._prepare()

    def _forget(self) -> None:
        super()._forget()
        self._last_sample: Array | None = None
        self._last_order = 1

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        *,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
    ) -> None:
        """Fixes `timesteps` and `sigmas` of a run.

        Args:
            num_inference_steps: Number of steps; None takes that of sigmas.
            sigmas: Flow sigmas to use, falling, before shifting; None spreads them evenly.
            mu: The shift that depends on resolution, with use_dynamic_shifting.

        Raises:
            InputError: The arguments do not fit each other or the options.
        """
        config, train = self.config, self._train_sigmas
        if config.use_dynamic_shifting != (mu is not None):
            raise InputError(
                f"{self.name}: mu must be given exactly with use_dynamic_shifting, got {mu}"
            )
        if mu is not None:
            mu = self._number("mu", mu, -LARGEST_MU, LARGEST_MU)
        given = None if sigmas is None else self._row_of_numbers("sigmas", sigmas, np.float64)
        if given is not None:
            fits = config.use_flow_sigmas and self._kind is None
            count = len(given) if num_inference_steps is None else num_inference_steps
            if not fits or count != len(given):
                raise InputError(
                    f"{self.name}: sigmas must be None, or with use_flow_sigmas as many as "
                    f"num_inference_steps, got {len(given)}"
                )
            if not ((given > 0) & (given <= 1)).all():
                raise InputError(f"{self.name}: sigmas must be in (0, 1], got {given.tolist()}")
            num_inference_steps = len(given)
        steps = self._count(num_inference_steps, config.num_train_timesteps)
        last_is_smallest = config.final_sigmas_type == "sigma_min"
        if self._kind is not None:
            marks, levels = self._respaced(self._kind, steps)
            last = levels[-1] if last_is_smallest else 0.0
        elif config.use_flow_sigmas:
            levels = self._flow_levels(given, mu, steps)
            marks = levels * config.num_train_timesteps
            last = levels[-1] if last_is_smallest else 0.0
        else:
            marks = self._spaced(steps, config.num_train_timesteps)
            levels = self._interpolated(marks)
            last = float(train[0]) if last_is_smallest else 0.0
        self._begin(marks, np.append(levels, last))

    def _respaced(self, kind: str, steps: int) -> tuple[Any, Any]:
        config, train = self.config, self._train_sigmas
        low = float(train[0]) if config.sigma_min is None else config.sigma_min
        high = float(train[-1]) if config.sigma_max is None else config.sigma_max
        levels = spread(kind, low, high, steps)
        if kind == "karras" and config.use_flow_sigmas:
            levels = levels / (levels + 1)
            return levels * config.num_train_timesteps, levels
        marks = timestep_of(levels, np.log(train))
        return marks.round() if kind == "karras" else marks, levels

    def _flow_levels(self, given: Any, mu: float | None, steps: int) -> Any:
        config = self.config
        if given is None:
            given = np.linspace(1, 1 / config.num_train_timesteps, steps + 1)[:-1]
        levels = shift(given, config.flow_shift) if mu is None else shift_by_mu(given, mu)
        if config.shift_terminal:
            levels = stretch_to_terminal(levels, config.shift_terminal)
        if abs(levels[0] - 1) < _BELOW_ONE:
            levels[0] -= _BELOW_ONE
        return levels

    def step(
        self,
        model_output: Array,
        timestep: float,
        sample: Array,
        *,
        uncond: Array | None = None,
        guidance_scale: float = 1.0,
        out: Array | None = None,
    ) -> SchedulerOutput:
        """Goes to the next timestep.

        Args:
            model_output: The prediction, shaped like the sample; float32, float16 or bfloat16.
            timestep: The one of `timesteps` that comes next.
            sample: float32 array.
            uncond: The prediction without a prompt; None is no guidance.
            guidance_scale: How far to go past it.
            out: float32 array to write to, which may be `sample`; None allocates.
        """
        index = self._enter_step(timestep)
        self._check_arrays(sample, model_output=model_output, uncond=uncond)
        arrays = {"model": model_output, "sample": sample}
        if self._last_sample is not None:
            arrays["last"] = self._last_sample
        arrays |= {f"m{i + 1}": m for i, m in enumerate(reversed(self._history))}
        step = Step(self, arrays)
        past = [step[f"m{i + 1}"] for i in range(len(self._history))]
        order = min(self.config.solver_order, self._steps_made + 1)
        if self.config.lower_order_final:
            order = min(order, len(self.timesteps) - index)
        # Options that cannot reach the last sigma give rows that are not finite: run refuses them.
        with np.errstate(all="ignore"):
            prediction = self._prediction(step, index)
            corrected = step["sample"]
            if self._last_sample is not None and index - 1 not in self._uncorrected:
                corrected = self._correct(step["last"], prediction, past, index)
            row = self._predict(corrected, [prediction, *past], index, order)
        prev, converted, last = step.run(
            [row, prediction, corrected],
            [out, self._spare(), self._last_sample],
            Guidance(uncond, guidance_scale),
        )
        self._remember(converted)
        self._last_sample, self._last_order = last, order
        self._step_index = index + 1
        return SchedulerOutput(prev)

    def _prediction(self, step: Step, index: int) -> Row:
        """The row of what the solver works on: x0, or epsilon without predict_x0."""
        config = self.config
        alpha, sigma = self._alpha_sigma(index)
        if config.predict_x0:
            row: Row = self._clean(step, index)
        elif config.prediction_type == "epsilon":
            row = step["model"]
        elif config.prediction_type == "sample":
            row = (step["sample"] - alpha * step["model"]) / sigma
        else:
            row = alpha * step["model"] + sigma * step["sample"]
        return row

    def _correct(self, last: Row, prediction: Row, past: list[Row], index: int) -> Row:
        order = self._last_order
        base, scale, ratios, matrix, b = self._terms(last, past[0], index - 1, order)
        weights = np.array([0.5]) if order == 1 else _solve(matrix, b)
        result = weights[-1] * (prediction - past[0])
        for i in range(order - 1):
            result = result + weights[i] * (past[i + 1] - past[0]) / ratios[i]
        return np.asarray(base - scale * result)

    def _predict(self, sample: Row, m: list[Row], index: int, order: int) -> Row:
        if self.sigmas[index] == self.sigmas[index + 1]:
            return sample
        base, scale, ratios, matrix, b = self._terms(sample, m[0], index, order)
        if order == 1:
            return base
        weights = [0.5] if order == 2 else _solve(matrix[:-1, :-1], b[:-1])
        for i in range(order - 1):
            base = base - scale * weights[i] * (m[i + 1] - m[0]) / ratios[i]
        return base

    def _terms(
        self, sample: Row, m0: Row, start: int, order: int
    ) -> tuple[Row, float, list[float], Any, Any]:
        """What the step from `start` is made of.

        Returns:
            The row of first order, the factor B of what is added to it, the places of the earlier
            predictions in units of h, and the equations of their weights.
        """
        config = self.config
        alpha, sigma = self._alpha_sigma(start + 1)
        alpha0, sigma0 = self._alpha_sigma(start)
        h = self._lambda(start + 1) - self._lambda(start)
        hh = -h if config.predict_x0 else h
        phi = math.expm1(hh) if hh < 700 else math.inf
        if config.predict_x0:
            base, factor = sigma / sigma0 * sample - alpha * phi * m0, alpha
        else:
            base, factor = alpha / alpha0 * sample - sigma * phi * m0, sigma
        size = hh if config.solver_type == "bh1" else phi
        if order == 1:
            return base, factor * size, [], None, None
        places = [(self._lambda(start - i) - self._lambda(start)) / h for i in range(1, order)]
        matrix = np.array([[r**i for r in [*places, 1.0]] for i in range(order)])
        b, term, factorial = [], phi / hh - 1, 1
        for i in range(1, order + 1):
            b.append(term * factorial / size)
            factorial *= i + 1
            term = term / hh - 1 / factorial
        return base, factor * size, places, matrix, np.array(b)


def _solve(matrix: Any, b: Any) -> Any:
    """The weights, or NaN where there are none."""
    try:
        return np.linalg.solve(matrix, b)
    except np.linalg.LinAlgError:
        return np.full(len(b), np.nan)
