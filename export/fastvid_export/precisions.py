"""What running a bundle by another backend or in another precision costs and brings, measured.

`python -m fastvid_export precisions FOLDER` writes it into `bundle.json`, where `backend="auto"`
and `precision=` read it (docs/openvino.md). Cost is PSNR against what pictures should be, less than
that of float32 in onnxruntime; that is known of pictures that were made smaller, and of frames that
were left out between others.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvid import ops
from fastvid.backends import _choice, _openvino_setup
from fastvid.bundle import MANIFEST, Bundle, PrecisionFigure, write_bundle
from fastvid.errors import BackendUnavailableError, InputError
from fastvid.interpolator import Interpolator
from fastvid.metrics import psnr
from fastvid.scene import Scene
from fastvid.upscaler import Upscaler
from fastvid_export import samples
from fastvid_export.errors import FidelityError
from fastvid_export.samples import Clip, Material

LOSSES = {"float32": 0.01, "float16": 0.05, "bfloat16": 0.05, "int8": 0.15}
"""dB that a precision may lose."""
SIZES = {"upscaler": (540, 960), "interpolator": (720, 1280)}
"""Height and width of the frames that are timed."""

_MOST_PSNR = 50.0
"""Pictures count as no better: nobody sees what is beyond, and black frames would outweigh all."""
_ROUNDS, _EXPORT_ROUNDS = 15, 5
_SLOW = 0.5
"""Seconds of a frame from which on less is measured."""
_REFERENCE = "onnxruntime", "float32"

Frame = NDArray[np.uint8]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Measured:
    """One way to run a bundle."""

    figure: PrecisionFigure
    problem: str
    """Why it is not kept; empty if it is."""
    milliseconds: float = 0.0
    """Median time of a frame, and that of float32 in onnxruntime."""
    reference_milliseconds: float = 0.0

    def to_text(self) -> str:
        """One line for people."""
        f = self.figure
        near = "" if f.psnr is None else f", {f.psnr:.2f} dB to its pictures"
        end = f": not kept, {self.problem}" if self.problem else ""
        return (
            f"{f.precision} in {f.backend}: {f.loss:+.4f} dB lost to float32 in onnxruntime{near}, "
            f"{f.speed:.2f} times as fast{end}"
        )


def measure(
    bundle: Bundle,
    *,
    reference: Bundle | None = None,
    material: Material | None = None,
    rounds: int = _ROUNDS,
    size: tuple[int, int] | None = None,
) -> list[Measured]:
    """Runs a bundle in every way that this machine has, beside float32 in onnxruntime.

    Args:
        bundle: An upscaler or interpolator.
        reference: The same model in float32; needed where the bundle computes in less.
        material: Pictures to measure on, those that calibrate included; drawn scenes by default.
        rounds: How often each way is timed, in turns.
        size: Height and width of the frames that are timed; those of `SIZES` by default.

    Raises:
        InputError: The bundle is a generator, or `reference` is missing or another model.
    """
    if bundle.task not in SIZES:
        raise InputError(
            f"precisions: bundle must be an upscaler or interpolator, {bundle.name!r} is a "
            f"{bundle.task}",
            hint="nobody knows what pictures a generator should have drawn",
        )
    base = bundle if bundle.precision == "float32" else reference
    if base is None or (base.task, base.scale, base.precision) != (
        bundle.task,
        bundle.scale,
        "float32",
    ):
        raise InputError(
            f"reference: argument must be the model that {bundle.name!r} was made from, in float32"
        )
    material = material or samples.drawn(calibrate=True)
    height, width = size or SIZES[bundle.task]
    with tempfile.TemporaryDirectory(prefix="fastvid-precisions-") as folder:
        rows = [_Row(base, *_REFERENCE)]
        rows += [_Row(_offering(bundle, *way, Path(folder)), *way) for way in _ways(bundle)]
        frames = [_allowed(frame, bundle) for frame in _moving(height, width)]
        seconds = rows[0].warm(frames)
        clips = [*material.check, *(material.calibration if seconds < _SLOW else ())]
        for row in rows:
            row.draw(clips)
        _time(rows, frames, rounds if seconds < _SLOW else 1)
    first, *others = rows
    name = f"{len(first.scores)} pictures of {material.name}; time of {width}x{height}"
    return [_judged(row, first, name) for row in others]


def of_export(
    made: Bundle, source: Bundle, material: Material, limits: Mapping[str, float], say: Say
) -> list[dict[str, Any]]:
    """What the manifest of an exported bundle says of its precisions.

    Args:
        made: What was exported.
        source: What it was made from, in float32.
        material: Pictures to measure on.
        limits: dB that each precision may lose in onnxruntime.
        say: Called with a line for each way that was measured.

    Raises:
        FidelityError: The bundle loses more than that.
    """
    found = measure(
        made, reference=source, material=material, rounds=_EXPORT_ROUNDS, size=samples.SIDES
    )
    for one in found:
        say(one.to_text())
        figure = one.figure
        limit = limits.get(figure.precision)
        own = (figure.backend, figure.precision) == ("onnxruntime", made.precision)
        if own and limit is not None and figure.loss > limit:
            raise FidelityError(
                f"fidelity: {figure.precision} must lose at most {limit:g} dB of PSNR, it loses "
                f"{figure.loss:.3f} on {figure.data}",
                hint="--data gives pictures like yours, --min-psnr puts another limit in its place",
            )
    return [entry(one.figure) for one in found if not one.problem]


def update(bundle: Bundle, measured: Sequence[Measured]) -> Bundle:
    """Writes what is kept into the bundle's manifest, in place of what was there."""
    manifest: dict[str, Any] = json.loads((bundle.path / MANIFEST).read_text(encoding="utf-8"))
    del manifest["files"], manifest["format_version"]
    manifest["precisions"] = [entry(m.figure) for m in measured if not m.problem]
    files = {file: bundle.read(file) for file in bundle.files}
    return write_bundle(bundle.path, manifest, files, overwrite=True)


def _ways(bundle: Bundle) -> Iterator[tuple[str, str]]:
    """Backends and precisions that this machine has for a bundle."""
    if bundle.precision != "float32":
        yield "onnxruntime", bundle.precision
    try:
        able = _openvino_setup.precisions()
    except BackendUnavailableError:
        return
    yield "openvino", bundle.precision
    if bundle.precision == "float32" and "bfloat16" in able:
        yield "openvino", "bfloat16"


def _offering(bundle: Bundle, backend: str, precision: str, folder: Path) -> Bundle:
    """The bundle as one that offers what is not known yet, in a folder of its own."""
    manifest: dict[str, Any] = json.loads((bundle.path / MANIFEST).read_text(encoding="utf-8"))
    del manifest["files"], manifest["format_version"]
    figure = PrecisionFigure(precision, backend, 0.0, 1.0, _choice.processor(), "to be measured")
    manifest["precisions"] = [entry(figure)]
    files = {file: bundle.read(file) for file in bundle.files}
    return write_bundle(folder / f"{backend}-{precision}", manifest, files)


def entry(figure: PrecisionFigure) -> dict[str, Any]:
    """As it stands in a manifest."""
    return {k: v for k, v in dataclasses.asdict(figure).items() if v is not None and v != ""}


class _Row:
    """A bundle in one backend and precision."""

    def __init__(self, bundle: Bundle, backend: str, precision: str) -> None:
        self.backend, self.precision = backend, precision
        self._bundle = bundle
        options: dict[str, Any] = {"device": "cpu", "backend": backend, "precision": precision}
        self._model: Any
        if bundle.task == "upscaler":
            self._model = Upscaler(bundle.path, scale=bundle.scale or 1, **options)
        else:
            self._model = Interpolator(bundle.path, **options)
        self.version = self._model.report().graphs[0].version
        self.pictures: list[Frame] = []
        self.scores: list[float] = []
        self.seconds: list[float] = []

    def draw(self, clips: Sequence[Clip]) -> None:
        """Draws what is known already, and remembers how near it came."""
        for clip in clips:
            if self._bundle.task == "interpolator":
                first, truth, last = (_allowed(frame, self._bundle) for frame in clip[:3])
                picture = self._model.between(first, last)
                self._score(picture, truth, picture, truth)
                continue
            truth = _whole(clip[1], self._bundle.scale or 1)
            small = _smaller(truth, self._bundle.scale or 1)
            picture = self._model.upscale_frame(_allowed(small, self._bundle))
            sides = zip(picture.shape[:2], truth.shape[:2], strict=True)
            height, width = (min(pair) for pair in sides)
            picture, truth = picture[:height, :width], truth[:height, :width]
            self._score(picture, truth, *(_luma(image) for image in (picture, truth)))

    def _score(self, picture: Frame, truth: Frame, ours: Any, theirs: Any) -> None:
        self.pictures.append(picture)
        self.scores.append(min(_MOST_PSNR, psnr(ours, theirs)))

    def warm(self, frames: Sequence[Frame]) -> float:
        """Seconds of a frame, once it has been drawn before."""
        for _ in range(2):
            self.time(frames)
        return self.seconds[1]

    def time(self, frames: Sequence[Frame]) -> None:
        """Takes the time of one frame."""
        begun = time.perf_counter()
        if self._bundle.task == "interpolator":
            self._model.between(frames[0], frames[1])
        else:
            self._model.upscale_frame(frames[0])
        self.seconds.append(time.perf_counter() - begun)


def _moving(height: int, width: int) -> list[Frame]:
    scene = Scene(width, height, seed=6)
    return [scene.draw(0.4 + t / 30) for t in range(2)]


def _time(rows: Sequence[_Row], frames: Sequence[Frame], rounds: int) -> None:
    for row in rows:
        row.time(frames)
        row.seconds.clear()
    for _ in range(rounds):
        for row in rows:
            row.time(frames)


def _judged(row: _Row, first: _Row, data: str) -> Measured:
    loss = statistics.fmean(first.scores) - statistics.fmean(row.scores)
    speed = statistics.median(first.seconds) / statistics.median(row.seconds)
    near = psnr(*(np.concatenate([p.ravel() for p in r.pictures]) for r in (row, first)))
    figure = PrecisionFigure(
        precision=row.precision,
        backend=row.backend,
        loss=round(loss, 4),
        speed=round(speed, 2),
        processor=_choice.processor(),
        data=data,
        psnr=round(near, 2) if np.isfinite(near) else None,
        version=row.version,
    )
    problem = ""
    if loss > LOSSES[row.precision]:
        problem = f"at most {LOSSES[row.precision]:g} dB may be lost"
    elif speed < _choice.FASTER:
        problem = f"it must be at least {_choice.FASTER:g} times as fast"
    ours, theirs = (round(1e3 * statistics.median(r.seconds), 3) for r in (row, first))
    return Measured(figure, problem, ours, theirs)


def _allowed(frame: Frame, bundle: Bundle) -> Frame:
    """The upper left of a frame, or more than it, in a size that the bundle takes."""
    rule = bundle.size_rule
    step = rule.multiple_of if rule.padding == "none" else 1
    sides = [min(side, rule.maximum) // step * step for side in frame.shape[:2]]
    sides = [max(side, -(-rule.minimum // step) * step) for side in sides]
    missing = [(0, max(0, side - have)) for side, have in zip(sides, frame.shape[:2], strict=True)]
    grown = np.pad(frame, [*missing, (0, 0)], mode="edge")
    return np.ascontiguousarray(grown[: sides[0], : sides[1]])


def _whole(frame: Frame, scale: int) -> Frame:
    """The frame cut to a multiple of the scale and of what is usual in video."""
    step = 2 * scale
    height, width = (side - side % step for side in frame.shape[:2])
    return np.ascontiguousarray(frame[:height, :width])


def _smaller(frame: Frame, scale: int) -> Frame:
    from PIL import Image

    size = frame.shape[1] // scale, frame.shape[0] // scale
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC))


def _luma(frame: Frame) -> NDArray[np.uint8]:
    luma = ops.rgb_to_luma(frame[None])[0]
    return np.rint(255 * luma).astype(np.uint8)
