"""`fastvid demo`: draw a scene, throw most of it away, restore it, and measure against the truth.

The scene is known at every time. Every second frame and half of the pixels along each side are
thrown away; both models restore them, beside the simplest peers: averaging the neighbouring
frames, and bicubic enlargement. Where a generator is installed, a second video starts from a text
and passes through all three models.
"""

from __future__ import annotations

import itertools
import os
import re
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

from fastvid import _demo_chain
from fastvid._frames import FrameArray
from fastvid._resample import resize_bicubic
from fastvid._sheet import sheet, write_png
from fastvid.errors import InputError, InputTypeError, OutputError
from fastvid.interpolator import Interpolator
from fastvid.metrics import psnr
from fastvid.scene import Scene
from fastvid.upscaler import Upscaler
from fastvid.video import Video
from fastvid.video.target import Target

FPS = 60
_TIMED_PAIRS = 20
_LABELS = ("INPUT 30 FPS", "AVERAGE + BICUBIC", "FASTVID", "TRUTH 60 FPS")


@dataclass(frozen=True)
class DemoResult:
    """What the demo measured."""

    output: str
    frames: int
    """Frames restored, at 60 frames per second."""
    size: tuple[int, int]
    """Width and height of the restored frames; the models saw half of each."""
    seed: int
    psnr: dict[str, dict[str, float]]
    """Mean PSNR in dB over frames by task and by method. `time`: in-between frames at the input's
    size. `space`: the input's frames enlarged. `both`: every restored frame."""
    milliseconds: dict[str, float]
    """Median per picture and model, at the input's size."""
    models: list[dict[str, Any]]
    """What ran where."""
    seconds: float
    """Wall time of the whole demo."""
    picture: str | None = None
    chain: _demo_chain.ChainResult | None = None
    """The video from a text, where a generator is installed."""

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return asdict(self)

    def to_text(self) -> str:
        """The table that the command prints."""
        width, height = self.size
        small = f"{width // 2}x{height // 2}"
        rows = [
            ("time", f"in-between frames, {small}", "frame averaging"),
            ("space", f"larger frames, {width}x{height}", "bicubic"),
            ("both", f"all frames, {width}x{height}", "averaging + bicubic"),
        ]
        lines = [f"PSNR against the truth          fastvid    peer       ({self.frames} frames)"]
        lines += [
            f"  {what:<28}{self.psnr[task]['fastvid']:8.2f} dB"
            f"{self.psnr[task]['peer']:8.2f} dB  {peer}"
            for task, what, peer in rows
        ]
        lines.append(
            f"milliseconds per picture from {small}: "
            + ", ".join(f"{name} {value:.1f}" for name, value in self.milliseconds.items())
        )
        lines += [f"{m['task']}: {m['backend']} on {m['device']}" for m in self.models]
        lines.append(f"side by side: {self.output}   ({self.seconds:.1f} s)")
        if self.picture:
            lines.append(f"picture: {self.picture}")
        if self.chain:
            lines.append(self.chain.to_text())
        return "\n".join(lines)


def parse_size(text: str) -> tuple[int, int]:
    """`WxH` as (width, height).

    Raises:
        InputError: It is not two numbers, multiples of 4 from 128 to 1920.
    """
    match = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", text)
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    _check_size(size)
    return size


def run(
    output: str | os.PathLike[str],
    *,
    size: tuple[int, int] = (640, 360),
    seconds: float = 2.0,
    seed: int = 0,
    picture: str | os.PathLike[str] | None = None,
    interpolator: str | os.PathLike[str] = "fast",
    upscaler: str | os.PathLike[str] = "fast",
    generator: str | os.PathLike[str] = "tiny",
    overwrite: bool = False,
    log: Callable[[str], None] | None = None,
    **device: Any,
) -> DemoResult:
    """Draw, reduce, restore, measure, and write the side-by-side video.

    Args:
        output: The video: input, averaging + bicubic, fastvid and truth, two by two.
        size: Width and height of the truth: multiples of 4 from 128 to 1920.
        seconds: Length, 0.1 to 20.
        seed: Chooses the scene.
        picture: Where one side-by-side frame goes as PNG; None writes none.
        interpolator: Model that restores the time between frames.
        upscaler: Model that restores the size; its scale is 2.
        generator: Model that draws the video from a text, written beside `output`; `"tiny"` that is
            not installed leaves that part out.
        overwrite: Whether existing files are replaced.
        log: Takes a line on what happens next.
        **device: `device`, `backend`, `precision` and `threads` of both models.

    Returns:
        Quality beside the peers, time per picture, and what ran where.

    Raises:
        InputError: An argument is out of range.
        ModelError: A model cannot be used.
        OutputError: A file cannot be written.
    """
    start = time.perf_counter()
    _check_size(size)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise InputTypeError(f"seed: argument must be an int, got {type(seed).__name__}")
    if seed < 0:
        raise InputError(f"seed: argument must be at least 0, got {seed}")
    if not 0.1 <= seconds <= 20:
        raise InputError(f"seconds: argument must be from 0.1 to 20, got {seconds}")
    if picture is not None:
        _check_picture(picture, overwrite)
    no_text = _demo_chain.missing(generator)
    if not no_text:
        _demo_chain.check_output(output, overwrite=overwrite)
    say = log or (lambda line: None)
    with Interpolator(interpolator, **device) as between, Upscaler(upscaler, **device) as larger:
        comparison = _Comparison(Scene(*size, seed=seed), round(seconds * FPS / 2), between, larger)
        say(f"timing both models on {size[0] // 2}x{size[1] // 2} pictures")
        milliseconds = comparison.time_models()
        say(f"drawing, reducing and restoring {comparison.count} frames")
        video = Video.from_frames(comparison.sheets(), FPS)
        video.save(output, overwrite=overwrite, quality=85)
        if picture is not None:
            write_png(picture, comparison.middle, overwrite=overwrite)
        reports = [model.report().to_dict() for model in (between, larger)]
    chain = None
    if no_text:
        say(f"no video from a text: {no_text}")
    else:
        say(f"drawing {_demo_chain.PROMPT!r}, through all three models")
        chain = _demo_chain.run(
            output,
            model=generator,
            seed=seed,
            interpolator=interpolator,
            upscaler=upscaler,
            overwrite=overwrite,
            **device,
        )
    return DemoResult(
        output=os.fspath(output),
        frames=comparison.count,
        size=size,
        seed=seed,
        psnr=comparison.means(),
        milliseconds=milliseconds,
        models=reports,
        seconds=time.perf_counter() - start,
        picture=None if picture is None else os.fspath(picture),
        chain=chain,
    )


@dataclass
class _Comparison:
    """The scene, its reduced input, both restorations and their errors, frame by frame."""

    scene: Scene
    kept: int
    """Frames of the input, at 30 frames per second."""
    interpolator: Interpolator
    upscaler: Upscaler
    figures: dict[str, dict[str, list[float]]] = field(
        default_factory=lambda: {
            task: {"fastvid": [], "peer": []} for task in ("time", "space", "both")
        }
    )

    def __post_init__(self) -> None:
        self.kept = max(2, self.kept)
        # What follows the last frame of the input has no neighbour to be restored from.
        self.count = 2 * self.kept - 1
        self.middle: FrameArray = np.zeros((1, 1, 3), np.uint8)

    def truth(self, index: int) -> FrameArray:
        return self.scene.draw(index / FPS)

    def reduced(self, picture: FrameArray) -> FrameArray:
        return resize_bicubic(picture, self.scene.height // 2, self.scene.width // 2)

    def enlarged(self, picture: FrameArray) -> FrameArray:
        return resize_bicubic(picture, self.scene.height, self.scene.width)

    def time_models(self) -> dict[str, float]:
        """Median milliseconds per picture of each model, on its own."""
        pictures = [self.reduced(self.truth(2 * k)) for k in range(min(self.kept, 6))]
        pairs = list(itertools.pairwise(pictures))
        calls: dict[str, list[Callable[[], FrameArray]]] = {
            "interpolate": [partial(self.interpolator.between, *pair) for pair in pairs],
            "upscale": [partial(self.upscaler.upscale_frame, picture) for picture in pictures],
        }
        medians = {}
        for name, work in calls.items():
            work[0]()
            taken = []
            for index in range(_TIMED_PAIRS):
                begin = time.perf_counter()
                work[index % len(work)]()
                taken.append(1e3 * (time.perf_counter() - begin))
            medians[name] = round(statistics.median(taken), 3)
        return medians

    def sheets(self) -> Iterator[FrameArray]:
        """Labelled pictures of all four, in order; measures as it goes."""
        truths: deque[FrameArray] = deque()
        inputs: deque[FrameArray] = deque()
        drawn: deque[FrameArray] = deque()

        def source() -> Iterator[FrameArray]:
            for index in range(self.kept):
                truths.append(self.truth(2 * index))
                inputs.append(self.reduced(truths[-1]))
                yield inputs[-1]

        def noted(video: Video) -> Iterator[FrameArray]:
            for frame in video:
                drawn.append(frame.image)
                yield frame.image

        slow = Video.from_frames(source(), Fraction(FPS, 2))
        fast = Video.from_frames(noted(self.interpolator.interpolate(slow, factor=2)), FPS)
        restored = iter(self.upscaler.upscale(fast))
        for index in range(self.count):
            picture = next(restored).image
            between = index % 2 == 1
            if index and not between:
                truths.popleft()
                inputs.popleft()
            truth = self.truth(index) if between else truths[0]
            small = inputs[0]
            if between:
                small = _average(inputs[0], inputs[1])
                self._note("time", self.reduced(truth), drawn[0], small)
            plain = self.enlarged(small)
            if not between:
                self._note("space", truth, picture, plain)
            self._note("both", truth, picture, plain)
            drawn.popleft()
            panels = sheet((_nearest(inputs[0]), plain, picture, truth), _LABELS)
            if index == self.count // 2 | 1 or self.count < 4:
                self.middle = panels
            yield panels

    def means(self) -> dict[str, dict[str, float]]:
        return {
            task: {name: round(statistics.fmean(values), 3) for name, values in methods.items()}
            for task, methods in self.figures.items()
        }

    def _note(self, task: str, truth: FrameArray, ours: FrameArray, peer: FrameArray) -> None:
        self.figures[task]["fastvid"].append(psnr(ours, truth))
        self.figures[task]["peer"].append(psnr(peer, truth))


def _average(first: FrameArray, second: FrameArray) -> FrameArray:
    total = first.astype(np.uint16) + second + 1
    return (total >> 1).astype(np.uint8)


def _nearest(picture: FrameArray) -> FrameArray:
    return np.repeat(np.repeat(picture, 2, axis=0), 2, axis=1)


def _check_size(size: tuple[int, int]) -> None:
    if any(not 128 <= side <= 1920 or side % 4 for side in size):
        raise InputError(
            f"size: argument must be WxH, multiples of 4 from 128 to 1920, got {size[0]}x{size[1]}"
        )


def _check_picture(path: str | os.PathLike[str], overwrite: bool) -> None:
    """Raises `OutputError` before any work where the picture cannot be written."""
    target = Target(path, overwrite=overwrite)
    target.discard()
    if not target.path.lower().endswith(".png"):
        raise OutputError(f"{target.path}: picture must be a .png file")
