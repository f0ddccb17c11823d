"""Real inputs of every graph: what the SDK feeds them while it works on real or drawn pictures."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvid.bundle import Bundle, SizeRule
from fastvid.errors import InputError
from fastvid.generator import Generator
from fastvid.interpolator import Interpolator
from fastvid.scene import Scene
from fastvid.upscaler import Upscaler
from fastvid.video import Video
from fastvid_export.running import Arrays

Clip = Sequence[NDArray[np.uint8]]
"""Consecutive frames, uint8 RGB (H, W, 3)."""

SIDES = (272, 480)
"""Height and width of the pictures, where the bundle's sizes allow it."""
FRAMES = 3
PROMPTS = ("a red circle moves left", "a blue square")
_CHECK_SEEDS, _CALIBRATION_SEEDS = (3, 8), (11, 12, 13, 14)
_READ = 240
_VIDEOS = (".mp4", ".mkv", ".webm", ".mov", ".m4v", ".avi", ".ts")
_STEPS = 4
MAX_RUNS = 8
"""Runs of one graph that are kept."""


@dataclass(frozen=True)
class Material:
    """Pictures to check with, and others to calibrate with."""

    check: tuple[Clip, ...]
    calibration: tuple[Clip, ...]
    name: str


def drawn(*, calibrate: bool) -> Material:
    """Scenes that fastvid draws itself; those to calibrate with only where they are needed."""
    seeds = (_CHECK_SEEDS, _CALIBRATION_SEEDS if calibrate else ())
    check, calibration = (tuple(_scene(seed, SIDES) for seed in some) for some in seeds)
    return Material(check, calibration, "drawn scenes")


@functools.cache
def _scene(seed: int, sides: tuple[int, int]) -> Clip:
    scene = Scene(sides[1], sides[0], seed=seed)
    return [scene.draw(0.4 + t / 30) for t in range(FRAMES)]


def from_videos(path: Path) -> Material:
    """The end of each video checks, what comes before calibrates; at most four videos are read.

    Args:
        path: A video file, or a folder with some anywhere below it.

    Raises:
        InputError: There is none, or none has enough frames.
        MediaError: A video cannot be read.
    """
    files = [path]
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in _VIDEOS)
        files = found[:: max(1, -(-len(found) // 4))]
    check, calibration = [], []
    for file in files:
        frames = _middle(file)
        if len(frames) < 2 * FRAMES:
            continue
        check.append(frames[-FRAMES:])
        calibration += [frames[:FRAMES], frames[len(frames) // 2 - FRAMES :][:FRAMES]]
    if not check:
        raise InputError(
            f"data: argument must be a video of at least {2 * FRAMES} frames or a folder with one, "
            f"got {str(path)!r}"
        )
    return Material(tuple(check), tuple(calibration), f"{len(check)} clips of {path.name}")


def _middle(file: Path) -> Clip:
    """The middle of the first frames of a video."""
    frames: list[NDArray[np.uint8]] = []
    for frame in Video.open(file, bit_depth=8):
        frames.append(_cut(np.asarray(frame.image), *SIDES))
        if len(frames) == _READ:
            break
    return frames


def _cut(frame: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """The middle of a frame, at most `height` x `width`."""
    top, left = max(0, frame.shape[0] - height) // 2, max(0, frame.shape[1] - width) // 2
    return np.ascontiguousarray(frame[top : top + height, left : left + width])


def _fitting(frame: NDArray[np.uint8], rule: SizeRule) -> NDArray[np.uint8]:
    """The frame cut, or enlarged by repeating its edge, to a size that the rule takes."""
    sides = [min(side, rule.maximum) for side in frame.shape[:2]]
    if rule.padding == "none":
        sides = [max(side - side % rule.multiple_of, rule.minimum) for side in sides]
    sides = [max(side, min(rule.minimum, rule.maximum)) for side in sides]
    return _sized(frame, *sides)


class _Tap:
    """A session that keeps copies of what it is given."""

    def __init__(self, session: Any, kept: list[Arrays]) -> None:
        self._session = session
        self._kept = kept

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, inputs: Mapping[str, Any], **options: Any) -> Any:
        if len(self._kept) < MAX_RUNS:
            self._kept.append({name: np.array(value) for name, value in inputs.items()})
        return self._session.run(inputs, **options)


class _Tapped:
    """Mixed into a class of the SDK: its graphs' inputs are kept."""

    samples: dict[str, list[Arrays]]

    def _graph(self, name: str, dtype: object = None) -> Any:
        kept = self.__dict__.setdefault("samples", {}).setdefault(name, [])
        return _Tap(super()._graph(name, dtype), kept)  # type: ignore[misc]


class _TappedUpscaler(_Tapped, Upscaler):
    pass


class _TappedInterpolator(_Tapped, Interpolator):
    pass


class _TappedGenerator(_Tapped, Generator):
    pass


@dataclass(frozen=True)
class Recorded:
    """What a model was given and what it made."""

    inputs: Mapping[str, Sequence[Arrays]]
    """Inputs of each graph, one entry per run."""
    pictures: list[NDArray[np.uint8]]


def record(bundle: Bundle, clips: Sequence[Clip]) -> Recorded:
    """Runs a bundle on the CPU and keeps what its graphs are given.

    Raises:
        ModelError: The bundle cannot be run.
    """
    classes: dict[str, Any] = {
        "upscaler": _TappedUpscaler,
        "interpolator": _TappedInterpolator,
        "generator": _TappedGenerator,
    }
    model, pictures = _run(classes[bundle.task], bundle, clips)
    return Recorded(model.samples, pictures)


def pictures(bundle: Bundle, clips: Sequence[Clip]) -> list[NDArray[np.uint8]]:
    """What the SDK makes of the same clips with a bundle."""
    plain: dict[str, Any] = {
        "upscaler": Upscaler,
        "interpolator": Interpolator,
        "generator": Generator,
    }
    return _run(plain[bundle.task], bundle, clips)[1]


def _run(kind: Any, bundle: Bundle, clips: Sequence[Clip]) -> tuple[Any, list[NDArray[np.uint8]]]:
    options: dict[str, Any] = {"device": "cpu", "backend": "onnxruntime"}
    if bundle.task == "upscaler":
        options["scale"] = bundle.scale
    found: list[NDArray[np.uint8]] = []
    with kind(os.fspath(bundle.path), **options) as model:
        for i, clip in enumerate(clips):
            frames = [_fitting(frame, bundle.size_rule) for frame in clip]
            if bundle.task == "upscaler":
                found += [model.upscale_frame(frame) for frame in frames[:2]]
            elif bundle.task == "interpolator":
                found += list(model.between(frames[0], frames[-1], [0.5, 0.25]))
            else:
                found += _generated(model, frames, i)
    return model, found


def _generated(
    model: Generator, frames: Sequence[NDArray[np.uint8]], index: int
) -> list[NDArray[np.uint8]]:
    """A clip from text alone; with an encoder also one from a picture, and from a clip."""
    spec = model.bundle.generation
    assert spec is not None
    steps = min(_STEPS, spec.num_inference_steps)
    starts: list[dict[str, Any]] = [{}]
    if "encoder_first" in model.bundle.graphs:
        pictures = [_sized(frame, spec.height, spec.width) for frame in frames]
        clip = [pictures[i % len(pictures)] for i in range(1 + spec.temporal_compression)]
        starts += [{"image": pictures[0]}, {"video": np.stack(clip), "strength": 0.6}]
    found: list[NDArray[np.uint8]] = []
    for start in starts:
        prompt = PROMPTS[index % len(PROMPTS)]
        found += list(
            model.generate(prompt, seed=index, num_inference_steps=steps, **start).frames()
        )
    return found


def _sized(frame: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """The middle of a frame, its edge repeated where it is too small."""
    cut = _cut(frame, height, width)
    missing = [(0, side - have) for side, have in zip((height, width), cut.shape[:2], strict=True)]
    return np.pad(cut, [*missing, (0, 0)], mode="edge")
