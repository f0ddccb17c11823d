"""From noise to latents: the model, guidance and a solver, step by step."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastvid import ops
from fastvid._generation.arrays import Arrays, HostArrays
from fastvid._generation.latents import Latents
from fastvid._generation.prompts import Embedding
from fastvid._generation.request import Request
from fastvid.errors import CancelledError, InputError, InputTypeError, NumericError
from fastvid.schedulers._base import Scheduler, placed
from fastvid.schedulers.flow_match_euler import FlowMatchEulerDiscreteScheduler

if TYPE_CHECKING:
    from fastvid.backends import Session


@dataclass(frozen=True)
class Known:
    """Latents that are given and not drawn: those of pictures that the clip must show."""

    indices: tuple[int, ...]
    """Places along the time axis."""
    latents: Latents
    """float32 (1, C, len(indices), h, w)."""


class Sampler:
    """One run of the solver.

    Args:
        transformer: `hidden_states` (N, C, T, h, w), `timestep` (N,), `encoder_hidden_states`
            (N, L, D), `encoder_attention_mask` (N, L) and, where the model knows pictures,
            `condition` (N, C + 1, T, h, w), to `sample` (N, C, T, h, w).
        shape: (1, C, T, h, w).
        request: The checked arguments.
        stop: Set from another thread to end the run.
        arrays: Where latents lie.
    """

    def __init__(
        self,
        transformer: Session,
        shape: tuple[int, ...],
        request: Request,
        stop: threading.Event,
        arrays: Arrays,
    ) -> None:
        scheduler = request.scheduler
        if not _runs_on_devices(scheduler):
            arrays = HostArrays()
        self._arrays = arrays
        self._transformer, self._shape = transformer, shape
        self._request, self._stop = request, stop
        # Some solvers can add noise of their own, from rows of the seed other than the first.
        self._kept = () if isinstance(arrays, HostArrays) else ("sample",)
        self._seeded = "seed" in inspect.signature(scheduler.step).parameters

    def run(
        self,
        owner: Any,
        prompt: Embedding,
        negative: Embedding | None,
        known: Known | None,
        start: Latents | None,
    ) -> Any:
        """The latents of the clip, float32 (1, C, T, h, w), of NumPy or a `DeviceArray`.

        Args:
            owner: The generator, which the callback is given.
            prompt: What to draw.
            negative: What guidance leads away from; None is no guidance.
            known: Latents that are given.
            start: The latents of a clip to redraw.

        Raises:
            CancelledError: The callback or `stop` ended the run.
            NumericError: The model gave NaN or infinity.
        """
        request, scheduler = self._request, self._request.scheduler
        _set_timesteps(scheduler, request.num_inference_steps)
        first = 0
        noise = self._arrays.noise(self._shape, request.seed)
        if start is None:
            latents = self._scaled(noise, float(scheduler.init_noise_sigma))
        else:
            first, latents = self._redraw(start, noise)
        inputs = self._conditions(prompt, negative, known)
        for step in range(first, len(scheduler.timesteps)):
            latents = self._step(owner, step, latents, inputs, guided=negative is not None)
        if known is not None:
            self._arrays.place(latents, known.indices, known.latents)
        return latents

    def _redraw(self, start: Latents, noise: Any) -> tuple[int, Any]:
        """As diffusers' video-to-video: skip the share 1 - strength of the steps."""
        request = self._request
        # The type is a fact about every scheduler; the base class has only what all share.
        scheduler: Any = request.scheduler
        count, strength = len(scheduler.timesteps), request.strength
        used = min(int(count * (1.0 if strength is None else strength)), count)
        first = max(count - max(used, 1), 0)
        scheduler.set_begin_index(first)
        add = getattr(scheduler, "scale_noise", None) or scheduler.add_noise
        return first, add(self._arrays.put(start), scheduler.timesteps[first : first + 1], noise)

    def _step(
        self,
        owner: Any,
        step: int,
        latents: Any,
        inputs: Mapping[str, Any],
        *,
        guided: bool,
    ) -> Any:
        if self._stop.is_set():
            raise CancelledError(f"generate: stopped before step {step}")
        scheduler: Any = self._request.scheduler
        timestep = scheduler.timesteps[step]
        sample = scheduler.scale_model_input(latents, timestep)
        count = 2 if guided else 1
        predicted = self._transformer.run(
            {
                "hidden_states": self._arrays.repeated(sample, count),
                "timestep": np.full(count, timestep, np.float32),
                **inputs,
            },
            keep=self._kept,
        )["sample"]
        options: dict[str, Any] = {}
        if guided:
            options = {"uncond": predicted[1:], "guidance_scale": self._request.guidance_scale}
        if self._seeded:
            options["seed"] = self._request.seed
        latents = scheduler.step(predicted[:1], timestep, latents, **options).prev_sample
        if not self._arrays.finite(latents, last=step + 1 == len(scheduler.timesteps)):
            raise NumericError(
                f"generate: the model gave NaN or infinity at step {step + 1} of "
                f"{len(scheduler.timesteps)}",
                hint="try another seed or a lower guidance_scale; if it persists the weights or "
                "their precision are at fault",
            )
        return self._call_back(owner, step, float(timestep), latents)

    def _call_back(self, owner: Any, step: int, timestep: float, latents: Any) -> Any:
        callback = self._request.callback
        if callback is None:
            return latents
        shown = self._arrays.get(latents)
        answer = callback(owner, step, timestep, {"latents": shown})
        if answer is False:
            raise CancelledError(f"generate: callback_on_step_end stopped at step {step + 1}")
        if answer is None or answer is True:
            return latents
        if not isinstance(answer, Mapping):
            raise InputTypeError(
                "callback_on_step_end: result must be None, a dict or False to stop, got "
                f"{type(answer).__name__}"
            )
        changed = answer.get("latents", shown)
        if not isinstance(changed, np.ndarray) or changed.dtype != np.float32:
            raise InputTypeError("callback_on_step_end: latents must be a float32 array")
        if changed.shape != self._shape:
            raise InputError(
                f"callback_on_step_end: latents must have shape {self._shape}, got {changed.shape}"
            )
        return self._arrays.put(np.ascontiguousarray(changed))

    def _conditions(
        self, prompt: Embedding, negative: Embedding | None, known: Known | None
    ) -> dict[str, Any]:
        """What stays the same in every step; with guidance the second of each pair is negative."""
        all_of = [prompt] if negative is None else [prompt, negative]
        inputs: dict[str, NDArray[Any]] = {
            "encoder_hidden_states": np.concatenate([one.embeds for one in all_of]),
            "encoder_attention_mask": np.concatenate([one.mask for one in all_of]),
        }
        if "condition" in self._transformer.inputs:
            inputs["condition"] = np.repeat(self._condition(known), len(all_of), axis=0)
        return {name: self._arrays.put(array) for name, array in inputs.items()}

    def _condition(self, known: Known | None) -> NDArray[np.float32]:
        _, channels, *rest = self._shape
        condition = np.zeros((1, channels + 1, *rest), np.float32)
        if known is not None:
            condition[:, :channels, list(known.indices)] = known.latents
            condition[:, channels, list(known.indices)] = 1
        return condition

    @staticmethod
    def _scaled(noise: Any, sigma: float) -> Any:
        if sigma == 1:
            return noise
        if isinstance(noise, np.ndarray):
            return noise * np.float32(sigma)
        ops.scheduler_step([[sigma]], [noise], **placed(noise, [noise]))
        return noise


def _runs_on_devices(scheduler: Any) -> bool:
    """Whether all of a scheduler's steps are ops: those of others, and clipping, are NumPy's."""
    ours = isinstance(scheduler, Scheduler)
    return ours and not getattr(getattr(scheduler, "config", None), "clip_sample", False)


def _set_timesteps(scheduler: Any, steps: int) -> None:
    """Noise levels in equal steps down to 0, as diffusers' pipelines of flow matching have them.

    Left to itself `FlowMatchEulerDiscreteScheduler` goes down to 0.001 and then to 0, which spends
    a whole step on nothing: of four steps that matters.
    """
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1.0 / steps, steps).tolist())
    else:
        scheduler.set_timesteps(steps)
