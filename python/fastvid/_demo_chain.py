"""The part of `fastvid demo` that starts from a text: generate, interpolate and upscale at once."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fastvid.bundle import shipped
from fastvid.generator import Generator
from fastvid.interpolator import Interpolator
from fastvid.upscaler import Upscaler
from fastvid.video.target import Target
from fastvid.video.types import Frame, VideoInfo

PROMPT = "a red star moves right over a blue background"
FACTOR = 4
SCALE = 4


@dataclass(frozen=True)
class ChainResult:
    """What came out of the chain."""

    output: str
    prompt: str
    drawn: str
    """Frames, size and rate that the generator drew."""
    frames: int
    size: tuple[int, int]
    """Width and height of what was written."""
    fps: float
    first_frame_seconds: float
    """From the call of `generate` to the first frame behind all three models."""
    seconds: float
    """From the call of `generate` to the finished file."""
    models: list[dict[str, Any]]

    def to_text(self) -> str:
        """The lines that the command prints."""
        return (
            f"{self.prompt!r}: {self.drawn} drawn, {self.frames} frames of "
            f"{self.size[0]}x{self.size[1]} at {self.fps:g} fps written in {self.seconds:.2f} s, "
            f"the first ready after {self.first_frame_seconds:.2f} s\nfrom text: {self.output}"
        )


class _Clock:
    """A stage that changes nothing and notes when the first frame passes."""

    name = "clock"

    def __init__(self) -> None:
        self.first: float | None = None

    def transform(self, info: VideoInfo) -> VideoInfo:
        return info

    def process(self, frames: Iterator[Frame], info: VideoInfo) -> Iterator[Frame]:
        for frame in frames:
            if self.first is None:
                self.first = time.perf_counter()
            yield frame


def missing(model: str | os.PathLike[str]) -> str:
    """Why there is no generator to show, or nothing; one that was named must be there."""
    if model != "tiny":
        return ""
    if "generator-tiny" not in shipped():
        return "no generator is installed"
    if importlib.util.find_spec("tokenizers") is None:
        return "pip install 'fastvid-sdk[generate]' adds what reads prompts"
    return ""


def output_beside(output: str | os.PathLike[str]) -> str:
    """Where the video from text goes: `demo.mp4` gives `demo-from-text.mp4`."""
    stem, suffix = os.path.splitext(os.fspath(output))
    return f"{stem}-from-text{suffix}"


def check_output(output: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Raises `OutputError` before any work where the video cannot be written."""
    Target(output_beside(output), overwrite=overwrite).discard()


def run(
    output: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str],
    seed: int,
    interpolator: str | os.PathLike[str],
    upscaler: str | os.PathLike[str],
    overwrite: bool,
    **device: Any,
) -> ChainResult:
    """Draws `PROMPT` and passes the frames on as they are decoded."""
    with (
        Generator(model, **device) as generator,
        Interpolator(interpolator, **device) as between,
        Upscaler(upscaler, scale=SCALE, **device) as larger,
    ):
        clock, path = _Clock(), output_beside(output)
        start = time.perf_counter()
        drawn = generator.generate(PROMPT, seed=seed)
        video = larger.upscale(between.interpolate(drawn, factor=FACTOR)).through(clock)
        result = video.save(path, overwrite=overwrite)
        end = time.perf_counter()
        return ChainResult(
            output=path,
            prompt=PROMPT,
            drawn=f"{drawn.num_frames} frames of {drawn.width}x{drawn.height}",
            frames=result.frames_out,
            size=video.size,
            fps=float(video.fps),
            first_frame_seconds=(clock.first or end) - start,
            seconds=end - start,
            models=[m.report().to_dict() for m in (generator, between, larger)],
        )
