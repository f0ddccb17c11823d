"""From noise to latents: the model, guidance and a solver, step by step."""

from __future__ import annotations

import inspect
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastvid import ops
from fastvid._generation.arrays import Arrays, HostArrays
from fastvid._generation.latents import Latents
from fastvid._generation.levels import linear_quadratic, shift_of
from fastvid._generation.noise import PICTURES, Noise
from fastvid._generation.pictures import IN_LATENTS, Known, Start
from fastvid._generation.prompts import Embedding
from fastvid._generation.request import Request
from fastvid.bundle import GenerationSpec
from fastvid.errors import CancelledError, InputError, InputTypeError, NumericError
from fastvid.schedulers._base import Scheduler, placed
from fastvid.schedulers.flow_match_euler import FlowMatchEulerDiscreteScheduler

if TYPE_CHECKING:
    from fastvid.backends import Session


MOST_BATCHED = 2_048
"""Latents up to which two evaluations are one of a batch of two. Measured on Wan's width and on a
small model (benchmarks/bench_large_memory.py --batches): a tenth faster at some hundred latents,
nothing from 2048 on, where a batch only takes twice the memory."""
_PLACED = IN_LATENTS[1:]
"""Kinds of pictures that stand in the latents after each step, not only at the end."""
_TINY = 1e-12


class Sampler:
    """One run of the solver.

    Args:
        graph: Opens `transformer` and, where the model has one, `transformer_2`:
            `hidden_states` (N, C, T, h, w), `timestep` (N,) or (N, T), `encoder_hidden_states`
            (N, L, D) and, where the model takes them, `encoder_attention_mask` (N, L),
            `condition` (N, K, T, h, w) and `image_embeds` (N, M, E), to `sample` (N, C, T, h, w).
        spec: The model's settings.
        shape: (1, C, T, h, w).
        request: The checked arguments.
        stop: Set from another thread to end the run.
        arrays: Where latents lie.
        noise: What is drawn beside Philox's row of the latents.
    """

    def __init__(
        self,
        graph: Callable[[str], Session],
        spec: GenerationSpec,
        shape: tuple[int, ...],
        request: Request,
        stop: threading.Event,
        arrays: Arrays,
        noise: Noise,
    ) -> None:
        scheduler = request.scheduler
        if not _runs_on_devices(scheduler):
            arrays = HostArrays()
        self._arrays = arrays
        self._graph, self._spec, self._shape = graph, spec, shape
        self._request, self._stop = request, stop
        # Some solvers can add noise of their own, from rows of the seed other than the first.
        self._kept = () if isinstance(arrays, HostArrays) else ("sample",)
        self._seeded = "seed" in inspect.signature(scheduler.step).parameters
        self._noise = noise
        self._first: Any = None
        """Noise that was drawn before the pictures."""

    def run(self, owner: Any, prompt: Embedding, negative: Embedding | None, start: Start) -> Any:
        """The latents of the clip, float32 (1, C, T, h, w), of NumPy or a `DeviceArray`.

        Args:
            owner: The generator, which the callback is given.
            prompt: What to draw.
            negative: What guidance leads away from; None is no guidance.
            start: Pictures that the clip must show, or a clip to redraw.

        Raises:
            CancelledError: The callback or `stop` ended the run.
            NumericError: The model gave NaN or infinity.
        """
        scheduler = self._request.scheduler
        self._set_timesteps()
        first = 0
        noise = self._drawn() if self._first is None else self._first
        if start.redrawn is None:
            latents = self._scaled(noise, float(scheduler.init_noise_sigma))
        else:
            first, latents = self._redraw(start.redrawn, noise)
        evaluations = self._evaluations(prompt, negative, start)
        for step in range(first, len(scheduler.timesteps)):
            latents = self._step(owner, step, latents, evaluations, start.known)
        if start.known is not None and self._spec.picture_conditioning not in _PLACED:
            self._arrays.place(latents, start.known.indices, start.known.latents)
        return latents

    def draw_first(self) -> None:
        """Draws the noise of the latents now: before the pictures, which may take some too."""
        self._first = self._drawn()

    def _drawn(self) -> Any:
        if self._noise.torch is None:
            return self._arrays.noise(self._shape, self._request.seed)
        return self._arrays.put(self._noise.torch.normal(self._shape))

    def _noise_of_step(self) -> dict[str, Any]:
        """What a solver draws its own noise from, if it does."""
        if not self._seeded:
            return {}
        config = getattr(self._request.scheduler, "config", None)
        if self._noise.torch is None or not getattr(config, "stochastic_sampling", True):
            return {"seed": self._request.seed}
        return {"variance_noise": self._drawn()}

    def _set_timesteps(self) -> None:
        """Noise levels of the run.

        With the schedule `linear` they go in equal steps down to 0. Left to itself
        `FlowMatchEulerDiscreteScheduler` goes down to 0.001 and then to 0, which spends a whole
        step on nothing: of four steps that matters.
        """
        # The types are facts about every scheduler; the base class has only what all share.
        scheduler: Any = self._request.scheduler
        steps = self._request.num_inference_steps
        schedule = self._spec.schedule
        if schedule == "scheduler" or not isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
            scheduler.set_timesteps(steps)
        elif schedule == "linear_quadratic":
            scheduler.set_timesteps(timesteps=linear_quadratic(steps))
        else:
            mu = None
            if scheduler.config.use_dynamic_shifting:
                mu = shift_of(scheduler.config, math.prod(self._shape[2:]))
            sigmas = np.linspace(1.0, 1.0 / steps, steps).tolist()
            scheduler.set_timesteps(sigmas=sigmas, mu=mu)

    def _redraw(self, start: Latents, noise: Any) -> tuple[int, Any]:
        """As diffusers' video-to-video: skip the share 1 - strength of the steps."""
        request = self._request
        # The type is a fact about every scheduler; the base class has only what all share.
        scheduler: Any = request.scheduler
        count, strength = len(scheduler.timesteps), request.strength
        used = min(int(count * (1.0 if strength is None else strength)), count)
        first = max(count - max(used, 1), 0)
        scheduler.set_begin_index(first)
        sample, timestep = self._arrays.put(start), scheduler.timesteps[first : first + 1]
        if hasattr(scheduler, "scale_noise"):
            return first, scheduler.scale_noise(sample, timestep, noise)
        return first, scheduler.add_noise(sample, noise, timestep)

    def _step(
        self,
        owner: Any,
        step: int,
        latents: Any,
        evaluations: Sequence[Mapping[str, Any]],
        known: Known | None,
    ) -> Any:
        if self._stop.is_set():
            raise CancelledError(f"generate: stopped before step {step}")
        scheduler: Any = self._request.scheduler
        timestep = scheduler.timesteps[step]
        name, scale = self._stage(float(timestep))
        if known is not None:
            known = self._noised(known, float(timestep))
        sample = scheduler.scale_model_input(latents, timestep)
        predicted = self._evaluate(name, sample, float(timestep), evaluations, known)
        options: dict[str, Any] = {}
        if len(predicted) == 2 and self._request.guidance_rescale > 0:
            predicted = [self._rescaled(predicted, scale)]
        elif len(predicted) == 2:
            options = {"uncond": predicted[1], "guidance_scale": scale}
        options |= self._noise_of_step()
        latents = scheduler.step(predicted[0], timestep, latents, **options).prev_sample
        if known is not None and self._spec.picture_conditioning in _PLACED:
            self._arrays.place(latents, known.indices, known.latents)
        if not self._arrays.finite(latents, last=step + 1 == len(scheduler.timesteps)):
            raise NumericError(
                f"generate: the model gave NaN or infinity at step {step + 1} of "
                f"{len(scheduler.timesteps)}",
                hint="try another seed or a lower guidance_scale; if it persists the weights or "
                "their precision are at fault",
            )
        return self._call_back(owner, step, float(timestep), latents)

    def _noised(self, known: Known, timestep: float) -> Known:
        """What is known, with the noise that a model wants in it at a timestep."""
        scale = self._request.image_cond_noise_scale
        if scale == 0 or self._spec.picture_conditioning != "noised_first_frames":
            return known
        # Pipelines draw it for all latents, packed: every place with its channels.
        _, channels, *grid = self._shape
        drawn = self._noise.normal((1, math.prod(grid), channels), PICTURES + 1 + int(timestep))
        noise = drawn.reshape(1, *grid, channels).transpose(0, 4, 1, 2, 3)
        share = np.float32(scale * (timestep / 1000) ** 2)
        return Known(known.indices, known.latents + share * noise[:, :, list(known.indices)])

    def _rescaled(self, predicted: Sequence[Any], scale: float) -> Any:
        """Guidance brought back to the spread of the prediction for the prompt.

        Lin et al., 2023, arXiv 2305.08891, section 3.4.
        """
        prompt, negative = map(self._arrays.get, predicted)
        guided = negative + np.float32(scale) * (prompt - negative)
        share = self._request.guidance_rescale
        factor = share * float(prompt.std()) / max(float(guided.std()), _TINY) + 1 - share
        return self._arrays.put(guided * np.float32(factor))

    def _stage(self, timestep: float) -> tuple[str, float]:
        """The transformer of a timestep, and its guidance."""
        boundary = self._spec.boundary_timestep
        if boundary is None or timestep >= boundary:
            return "transformer", self._request.guidance_scale
        return "transformer_2", self._request.guidance_scale_2

    def _evaluate(
        self,
        name: str,
        sample: Any,
        timestep: float,
        evaluations: Sequence[Mapping[str, Any]],
        known: Known | None,
    ) -> list[Any]:
        """The prediction for the prompt and, with guidance, that for the negative one."""
        session = self._graph(name)
        times = np.full((1, self._shape[2]), timestep, np.float32)
        if self._spec.picture_conditioning in IN_LATENTS and known is not None:
            sample = self._arrays.copy(sample)
            self._arrays.place(sample, known.indices, known.latents)
            times[:, list(known.indices)] = 0
        each = len(session.inputs["timestep"].shape) == 2
        times = times if each else times[:, -1]
        found = []
        for inputs in evaluations:
            count = inputs["encoder_hidden_states"].shape[0]
            predicted = session.run(
                {
                    "hidden_states": self._arrays.repeated(sample, count),
                    "timestep": np.repeat(times, count, axis=0),
                    **inputs,
                },
                keep=self._kept,
            )["sample"]
            found += [predicted[index : index + 1] for index in range(count)]
        return found

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

    def _evaluations(
        self, prompt: Embedding, negative: Embedding | None, start: Start
    ) -> list[dict[str, Any]]:
        """What stays the same in every step: an entry for each time that the model runs in one."""
        _, _, count, height, width = self._shape
        both = [prompt] if negative is None else [prompt, negative]
        together = count * height * width <= MOST_BATCHED
        groups = [both] if together else [[one] for one in both]
        names = self._graph("transformer").inputs
        shared: dict[str, Any] = {}
        if "condition" in names:
            given = start.condition
            shared["condition"] = self._condition(start.known) if given is None else given
        if "image_embeds" in names and start.image_embeds is not None:
            shared["image_embeds"] = start.image_embeds
        repeats = len(groups[0])
        # Whole clips one after another: of a clip there may be several pictures.
        placed = {n: self._arrays.put(np.concatenate([x] * repeats)) for n, x in shared.items()}
        evaluations = []
        for group in groups:
            texts = {"encoder_hidden_states": np.concatenate([one.embeds for one in group])}
            if "encoder_attention_mask" in names:
                texts["encoder_attention_mask"] = np.concatenate([one.mask for one in group])
            put = {name: self._arrays.put(array) for name, array in texts.items()}
            if "frame_rate" in names:
                put["frame_rate"] = np.array([float(self._request.frame_rate)], np.float32)
            evaluations.append(put | placed)
        return evaluations

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
