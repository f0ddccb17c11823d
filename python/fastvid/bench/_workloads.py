"""What is measured: one call of each task, on frames that lie in a file."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastvid.bench._hooks import Run

if TYPE_CHECKING:
    from fastvid.backends import Report

Spec = Mapping[str, Any]
Pictures = NDArray[np.uint8]


class Workload(Protocol):
    """A model that is open, and a call that can be repeated."""

    frames_per_call: int

    def open(self) -> None:
        """Constructs the model."""

    def call(self, number: int) -> Any:
        """One call; `number` chooses the frames. A generator gives seconds to its first frame."""

    def outputs(self, count: int) -> Pictures:
        """Frames that the first calls give, to be compared with those of another row."""

    def split(self, start: float, end: float, runs: Sequence[Run]) -> dict[str, float]:
        """Milliseconds by stage of a call that lasted from `start` to `end`."""

    def file(self, source: str, output: str) -> dict[str, Any]:
        """A clip from file to file: counts and milliseconds of decoding and encoding."""

    def report(self) -> Report:
        """What runs the model."""

    def close(self) -> None:
        """Frees the model."""


def make(spec: Spec) -> Workload:
    """The workload of a task."""
    kinds: dict[str, Any] = {
        "interpolator": Interpolation,
        "upscaler": Upscaling,
        "generator": Generation,
    }
    workload: Workload = kinds[spec["task"]](spec)
    return workload


def read_frames(spec: Spec) -> Pictures:
    """The frames that the parent process prepared, uint8 (T, H, W, 3)."""
    shape = spec["frames"]["shape"]
    return np.fromfile(spec["frames"]["path"], np.uint8, math.prod(shape)).reshape(shape)


def device_arguments(spec: Spec) -> dict[str, Any]:
    """What the constructors of models take; engines are those of the row's size, built before."""
    arguments = dict(spec["device"])
    if arguments["backend"] == "tensorrt":
        from fastvid.backends.tensorrt import EngineOptions

        arguments["backend"] = EngineOptions(sizes=(spec["size"],), build="never")
    return arguments


class _Frames(ABC):
    """What interpolation and upscaling share."""

    frames_per_call = 1

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._model: Any = None
        self._frames = read_frames(spec)
        count = len(self._frames)
        # Back and forth, so that neighbours always belong together.
        self._order = [*range(count), *range(count - 2, 0, -1)]

    def _frame(self, number: int) -> Pictures:
        picture: Pictures = self._frames[self._order[number % len(self._order)]]
        return picture

    def outputs(self, count: int) -> Pictures:
        return np.stack([self.call(number) for number in range(count)])

    def split(self, start: float, end: float, runs: Sequence[Run]) -> dict[str, float]:
        infer = sum(stop - begin for _, begin, stop in runs)
        pre = runs[0][1] - start
        times = {"pre_ms": pre, "infer_ms": infer, "post_ms": end - start - pre - infer}
        return {name: 1e3 * seconds for name, seconds in times.items()}

    def file(self, source: str, output: str) -> dict[str, Any]:
        from fastvid.pipeline import Pipeline

        result = Pipeline([self._stage()]).run(source, output, overwrite=True)
        return {
            "seconds": result.elapsed,
            "frames_in": result.frames_in,
            "frames_out": result.frames_out,
            "decode_ms": 1e3 * result.busy["decode"] / result.frames_in,
            "encode_ms": 1e3 * result.busy["encode"] / result.frames_out,
        }

    @abstractmethod
    def _stage(self) -> Any: ...

    def report(self) -> Report:
        report: Report = self._model.report()
        return report

    def close(self) -> None:
        if self._model is not None:
            self._model.close()
            self._model = None

    @abstractmethod
    def call(self, number: int) -> Any: ...


class Interpolation(_Frames):
    """The picture in the middle of two frames."""

    def open(self) -> None:
        from fastvid import Interpolator

        self._model = Interpolator(self._spec["model"], **device_arguments(self._spec))

    def call(self, number: int) -> Any:
        return self._model.between(self._frame(number), self._frame(number + 1))

    def _stage(self) -> Any:
        return self._model.stage(factor=2)


class Upscaling(_Frames):
    """One larger frame."""

    def open(self) -> None:
        from fastvid import Upscaler

        spec = self._spec
        self._model = Upscaler(spec["model"], scale=spec["scale"], **device_arguments(spec))

    def call(self, number: int) -> Any:
        return self._model.upscale_frame(self._frame(number))

    def _stage(self) -> Any:
        return self._model


class Generation:
    """A clip from a prompt, of one seed."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._model: Any = None
        self._arguments = dict(spec["generation"])
        self._prompt = self._arguments.pop("prompt")
        self._drawn = 0.0
        self.frames_per_call = int(self._arguments["num_frames"])

    def open(self) -> None:
        from fastvid import Generator

        device = device_arguments(self._spec)
        # Weights of a test or of an early training may well draw black: that is not measured here.
        self._model = Generator(self._spec["model"], check_output=False, **device)

    def call(self, number: int) -> float:
        # A prompt that is known already would hide the time of the text encoder.
        self._model._prompts.forget()
        begun = time.perf_counter()
        first = 0.0
        video = self._model.generate(self._prompt, **self._arguments)
        self._drawn = time.perf_counter()
        for _ in video:
            first = first or time.perf_counter() - begun
        return first

    def outputs(self, count: int) -> Pictures:
        frames: Pictures = self._model.generate(self._prompt, **self._arguments).frames()
        chosen = np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int)
        return np.stack([frames[number] for number in chosen])

    def split(self, start: float, end: float, runs: Sequence[Run]) -> dict[str, float]:
        text = max(stop for graph, _, stop in runs if graph == "text_encoder")
        times = {
            "text_ms": text - start,
            "denoise_ms": self._drawn - text,
            "decode_ms": end - self._drawn,
        }
        return {name: 1e3 * seconds for name, seconds in times.items()}

    def file(self, source: str, output: str) -> dict[str, Any]:
        from fastvid.pipeline import Pipeline

        video = self._model.generate(self._prompt, **self._arguments)
        result = Pipeline().run(video, output, overwrite=True)
        return {
            "seconds": result.elapsed,
            "frames_in": 0,
            "frames_out": result.frames_out,
            "encode_ms": 1e3 * result.busy["encode"],
        }

    def report(self) -> Report:
        report: Report = self._model.report()
        return report

    def close(self) -> None:
        if self._model is not None:
            self._model.close()
            self._model = None
