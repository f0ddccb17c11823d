"""What all schedulers share: the place in a run, and a step as one pass over its arrays."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fastvid import ops
from fastvid.errors import InputError, InputTypeError

Array = NDArray[np.float32]
# A model may predict in 16 bits; what is kept from step to step is float32.
_PREDICTIONS = ("float32", "float16", "bfloat16")
_DTYPES = {"model_output": _PREDICTIONS, "uncond": _PREDICTIONS}
Row = NDArray[np.float64]

# Sigmas and timesteps stay below this, so that they fit any dtype used for them.
_LARGEST = 1e9


@dataclass(frozen=True)
class SchedulerOutput:
    """What a step gives: float32 arrays like `sample`."""

    prev_sample: Array
    """The sample at the next timestep of the run."""
    pred_original_sample: Array | None = None
    """The clean sample as predicted here, where the solver has it (Euler, DDIM)."""
    denoised: Array | None = None
    """The clean sample of a consistency model (LCM)."""


@dataclass(frozen=True)
class Guidance:
    """The prediction without a prompt and how far to go past it; None is no guidance."""

    uncond: Array | None = None
    scale: float = 1.0


@dataclass(frozen=True)
class Noise:
    """Noise that a step adds: an array of the caller's, or a seed to draw it from."""

    given: Array | None
    seed: int | None
    subsequence: int

    @classmethod
    def of(cls, name: str, given: Array | None, seed: int | None, subsequence: int) -> Noise:
        """Raises where neither or both are there."""
        if (given is None) == (seed is None):
            raise InputError(
                f"{name}.step: exactly one of seed and variance_noise must be given to a step that "
                f"adds noise, got {'neither' if seed is None else 'both'}"
            )
        return cls(given, seed, subsequence)


class Scheduler:
    """Timesteps and sigmas of a run, and the place in it."""

    set_timesteps: Callable[..., None]
    """Fixes `timesteps` and `sigmas` of a run."""
    step: Callable[..., SchedulerOutput]
    """Goes to the next timestep."""

    order = 1
    """Model evaluations per step."""
    init_noise_sigma: float = 1.0
    """Standard deviation of the noise that a run starts from."""

    def __init__(self) -> None:
        self.timesteps: NDArray[Any] = np.zeros(0, np.float32)
        """(steps,), from noise to data: float32, or int64 where the model counts them."""
        self.sigmas: Array = np.zeros(0, np.float32)
        """(steps + 1,), float32: the noise at each timestep and at the end."""
        self.num_inference_steps: int | None = None
        self._step_index: int | None = None
        self._begin_index: int | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Makes the scheduler of a `scheduler_config.json`; entries that start with _ are its own.

        Raises:
            InputError: The file holds an option or value that is not supported.
        """
        return cls(**{key: value for key, value in config.items() if not key.startswith("_")})

    @property
    def step_index(self) -> int | None:
        """The step that comes next; None before the first."""
        return self._step_index

    @property
    def begin_index(self) -> int | None:
        """The step that a run starts with; None finds it by its timestep."""
        return self._begin_index

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Makes the next run start with this step, for samples that are not pure noise."""
        if isinstance(begin_index, bool) or not isinstance(begin_index, int):
            raise InputTypeError(
                f"{self.name}: begin_index must be an int, got {type(begin_index).__name__}"
            )
        if not 0 <= begin_index < len(self.timesteps):
            raise InputError(
                f"{self.name}: begin_index must be below {len(self.timesteps)}, got {begin_index}"
            )
        self._begin_index = begin_index

    def scale_model_input(self, sample: Array, timestep: float | None = None) -> Array:
        """Returns what the model is given for a sample; here the sample itself."""
        return sample

    @property
    def name(self) -> str:
        """The class's name, for messages."""
        return type(self).__name__

    def _restart(self, timesteps: NDArray[Any], sigmas: NDArray[Any] | None = None) -> None:
        self.timesteps = timesteps
        if sigmas is not None:
            self.sigmas = np.asarray(sigmas, dtype=np.float32)
        self.num_inference_steps = len(timesteps)
        self._step_index = None
        self._begin_index = None

    def _index_of(self, timestep: float) -> int:
        """The step of a timestep: of two equal ones the second, as diffusers has it."""
        found = np.flatnonzero(self.timesteps == timestep)
        if len(found) == 0:
            raise InputError(
                f"{self.name}: timestep must be one of scheduler.timesteps, got {timestep}"
            )
        return int(found[1 if len(found) > 1 else 0])

    def _enter_step(self, timestep: float) -> int:
        """The index of this step, after checking that it is the one that comes next."""
        timestep = self._number("timestep", timestep, -_LARGEST, _LARGEST)
        if self.num_inference_steps is None:
            raise InputError(f"{self.name}: set_timesteps must be called before step")
        if self._step_index is None:
            self._step_index = self._begin_index
        if self._step_index is None:
            self._step_index = 0 if timestep == self.timesteps[0] else self._index_of(timestep)
        index = self._step_index
        if index >= len(self.timesteps):
            raise InputError(
                f"{self.name}: step must be called {len(self.timesteps)} times, got one more",
                hint="call set_timesteps to start again",
            )
        if self.timesteps[index] != timestep:
            raise InputError(
                f"{self.name}: timestep of step {index} must be {self.timesteps[index]}, "
                f"got {timestep}"
            )
        return index

    def _add_noise(
        self, sample: Array, noise: Array, coefficients: Sequence[tuple[float, float]]
    ) -> Array:
        """`a * sample + b * noise` with one pair, or one for each entry of the first axis."""
        self._check_arrays(sample, noise=noise)
        pairs = set(coefficients)
        if len(pairs) == 1:
            (noisy,) = ops.scheduler_step([pairs.pop()], [sample, noise], **placed(sample, [None]))
            return noisy  # type: ignore[no-any-return]
        if sample.ndim == 0 or len(coefficients) != len(sample):
            raise InputError(
                f"{self.name}: timesteps must be one, or {len(sample) if sample.ndim else 1} "
                f"as the samples are, got {len(coefficients)}"
            )
        out = np.empty_like(sample)
        for i, pair in enumerate(coefficients):
            ops.scheduler_step([pair], [sample[i : i + 1], noise[i : i + 1]], out=(out[i : i + 1],))
        return out

    def _noise_indices(self, timesteps: Any) -> list[int]:
        """The steps whose noise is to be added at these timesteps."""
        values = self._timestep_list(timesteps)
        if self._begin_index is None:
            return [self._index_of(t) for t in values]
        index = self._begin_index if self._step_index is None else self._step_index
        return [index] * len(values)

    def _timestep_list(self, timesteps: Any) -> list[float]:
        try:
            values = np.atleast_1d(np.asarray(timesteps, dtype=np.float64))
        except (TypeError, ValueError) as error:
            raise InputTypeError(
                f"{self.name}: timesteps must be numbers, got {timesteps!r}"
            ) from error
        if values.ndim != 1 or len(values) == 0 or not (abs(values) < _LARGEST).all():
            raise InputError(
                f"{self.name}: timesteps must be a row of finite numbers, got {timesteps!r}"
            )
        return [float(t) for t in values]

    def _check_arrays(self, sample: Array, **others: Array | None) -> None:
        """Checks arrays of the caller's; those that may be absent are None."""
        for name, array in {"sample": sample, **others}.items():
            if array is None and name in ("uncond", "variance_noise"):
                continue
            if array is None or not (isinstance(array, np.ndarray) or on_device(array)):
                raise InputTypeError(
                    f"{self.name}: {name} must be a NumPy array, got {type(array).__name__}"
                )
            if array.dtype.name not in _DTYPES.get(name, ("float32",)):
                allowed = " or ".join(_DTYPES.get(name, ("float32",)))
                raise InputTypeError(f"{self.name}: {name} must be {allowed}, got {array.dtype}")
            if array.shape != sample.shape:
                raise InputError(
                    f"{self.name}: {name} must have the shape of sample, {sample.shape}, "
                    f"got {array.shape}"
                )

    def _number(
        self, what: str, value: Any, low: float = -math.inf, high: float = math.inf
    ) -> float:
        """Checks a number of the caller's and its range."""
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise InputTypeError(
                f"{self.name}: {what} must be a number, got {type(value).__name__}"
            )
        number = float(value)
        if not low <= number <= high:
            raise InputError(f"{self.name}: {what} must be from {low} to {high}, got {value}")
        return number

    def _count(self, value: Any, most: int, what: str = "num_inference_steps") -> int:
        """Checks a number of steps."""
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise InputTypeError(f"{self.name}: {what} must be an int, got {type(value).__name__}")
        count = int(value)
        if not 1 <= count <= most:
            raise InputError(f"{self.name}: {what} must be from 1 to {most}, got {value}")
        return count

    def _row_of_numbers(self, what: str, values: Any, dtype: Any = np.float32) -> NDArray[Any]:
        """Checks sigmas or timesteps of the caller's."""
        try:
            row = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InputTypeError(f"{self.name}: {what} must be numbers, got {values!r}") from error
        if row.ndim != 1 or len(row) == 0 or not (abs(row) < _LARGEST).all():
            raise InputError(f"{self.name}: {what} must be a row of finite numbers, got {values!r}")
        return row.astype(dtype)


class Step:
    """A step written down as rows of coefficients over named arrays, then made in one pass."""

    def __init__(self, scheduler: Scheduler, arrays: Mapping[str, Array]) -> None:
        self._scheduler = scheduler
        self._arrays = list(arrays.values())
        self._rows = dict(zip(arrays, np.eye(len(arrays)), strict=True))

    def __getitem__(self, name: str) -> Row:
        """The row that is this array alone."""
        return self._rows[name]

    def zero(self) -> Row:
        """The row that is 0."""
        return np.zeros(len(self._arrays))

    def run(
        self,
        rows: Sequence[Row],
        out: Sequence[Array | None],
        guidance: Guidance,
        *,
        noise: Noise | None = None,
        noise_scale: float = 0.0,
    ) -> tuple[Array, ...]:
        """The rows times the arrays, with the noise added to the first of them.

        The first of the arrays is the model's output, which guidance applies to.
        """
        matrix, arrays = np.stack(rows), list(self._arrays)
        scales = None
        options: dict[str, Any] = {}
        if noise is not None and noise_scale != 0:
            if noise.given is not None:
                column = np.zeros((len(rows), 1))
                column[0] = noise_scale
                matrix, arrays = np.hstack([matrix, column]), [*arrays, noise.given]
            else:
                scales = [noise_scale] + [0.0] * (len(rows) - 1)
                options = {"seed": noise.seed, "subsequence": noise.subsequence}
        if not np.isfinite(matrix).all():
            raise InputError(
                f"{self._scheduler.name}: step must have finite coefficients, got others: this "
                "solver cannot reach the last sigma or leave the first with these options",
                hint="try final_sigmas_type='sigma_min', lower_order_final=True or another "
                "prediction_type",
            )
        # What no row uses is not read; the model's output stays for guidance to apply to it.
        used: NDArray[np.bool_] = np.asarray(matrix.any(axis=0))
        if guidance.uncond is not None or not used.any():
            used[0] = True
        return ops.scheduler_step(
            matrix[:, used],
            [array for array, use in zip(arrays, used, strict=True) if use],
            uncond=guidance.uncond if matrix[:, 0].any() else None,
            guidance_scale=guidance.scale,
            noise_scale=scales,
            **placed(arrays[0], out),
            **options,
        )


def on_device(array: object) -> bool:
    """Whether an array lies on a CUDA device and can make others there."""
    return hasattr(array, "like") and hasattr(array, "__dlpack_device__")


def placed(first: Any, out: Sequence[Any]) -> dict[str, Any]:
    """Where an op writes: what is None in `out` it allocates, on a device beside `first`."""
    if not on_device(first):
        return {"out": tuple(out)}
    made = tuple(first.like("float32") if array is None else array for array in out)
    return {"out": made, "stream": first.stream}
