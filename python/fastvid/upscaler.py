"""Super-resolution: frames and videos at a multiple of their size."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fastvid._frames import FrameArray, check_frame, crop, pad
from fastvid._model import Model
from fastvid.bundle import Bundle, shipped
from fastvid.errors import InputError, InputTypeError
from fastvid.video.types import Frame, VideoInfo

if TYPE_CHECKING:
    from fastvid.backends.tensorrt import EngineOptions
    from fastvid.video import Video

STRIP_PIXELS = 4096 * 2304
"""Frames with more pixels pass through the network in strips, which bounds its memory."""
MAX_SCALE = 16
"""Largest factor that a model may reach by running more than once."""
STRIP_OVERLAP = 64
"""Least number of rows that a strip sees beyond its own; see `Upscaler`."""


class Upscaler(Model):
    """Makes frames larger with a trained network.

    Frames of up to 4096x2304 pixels run in one piece. Larger ones run in strips of rows that
    overlap by 64, which gives the same pixels for every network that looks at most 64 rows away.

    Args:
        model: `"fast"`, the full name of a shipped model, or a folder that holds a bundle.
        scale: Factor of both sides: the model's own, or a power of it up to 16, for which the
            network runs more than once.
        device: `"auto"`, `"cpu"`, `"cuda"` or `"cuda:N"`; only `"auto"` may fall back to the CPU.
        backend: `"auto"`, `"onnxruntime"`, `"tensorrt"`, or `EngineOptions` of
            `fastvid.backends.tensorrt`.
        precision: `"auto"`, or one that the backend offers.
        threads: CPU threads of the network; None takes what the machine has.

    Raises:
        InputError: No such model, or it does not offer the scale.
        ModelError: The bundle cannot be used.
        DeviceError: Device or backend are not there.
    """

    name = "upscale"
    """The stage's word in reports and progress displays."""

    def __init__(
        self,
        model: str | os.PathLike[str] = "fast",
        *,
        scale: int = 2,
        device: str = "auto",
        backend: str | EngineOptions = "auto",
        precision: str = "auto",
        threads: int | None = None,
    ) -> None:
        bundle, self._passes = _find(model, scale)
        super().__init__(
            bundle, device=device, backend=backend, precision=precision, threads=threads
        )
        assert bundle.scale is not None
        self._step: int = bundle.scale
        self._scale: int = self._step**self._passes
        self._session = self._graph("upscale")

    @property
    def scale(self) -> int:
        """Factor between the sides of the input and of the output."""
        return self._scale

    def upscale_frame(self, frame: FrameArray) -> FrameArray:
        """Upscale one picture.

        Where the bundle's size rule asks for it the frame is extended at the bottom and right by
        repeating its edge, and the result is cropped: the size is always exactly `scale` times.

        Args:
            frame: uint8 RGB (H, W, 3), any size the bundle allows.

        Returns:
            uint8 RGB (scale*H, scale*W, 3), C-contiguous.

        Raises:
            InputTypeError: `frame` is not a uint8 array.
            InputError: `frame` has another shape or a size that the bundle does not allow.
        """
        return self._upscale(check_frame("frame", frame))

    def upscale(self, video: Video) -> Video:
        """A video with every frame upscaled, lazily; time stamps stay as they are.

        Raises:
            InputTypeError: `video` is not a `Video`.
            InputError: The bundle does not allow the frame size.
        """
        from fastvid.video import Video

        if not isinstance(video, Video):
            raise InputTypeError(
                f"video: argument must be a Video, got {type(video).__name__}",
                hint="Video.open(path) or Video.from_frames(frames, fps)",
            )
        return video.through(self)

    def transform(self, info: VideoInfo) -> VideoInfo:
        """What the video becomes: `scale` times the size."""
        for done in range(self._passes):
            scale = self._step**done
            self._bundle.size_rule.padded(info.height * scale, info.width * scale)
        return replace(info, width=info.width * self._scale, height=info.height * self._scale)

    def process(self, frames: Iterator[Frame], info: VideoInfo) -> Iterator[Frame]:
        """The upscaled frames, one by one."""
        for frame in frames:
            yield replace(frame, image=self._upscale(frame.image))

    def _upscale(self, frame: FrameArray) -> FrameArray:
        for _ in range(self._passes):
            frame = self._enlarge(frame)
        return frame

    def _enlarge(self, frame: FrameArray) -> FrameArray:
        height, width = frame.shape[:2]
        padded = pad(frame, self._bundle.size_rule)
        if padded.shape[0] * padded.shape[1] <= STRIP_PIXELS:
            large = self._run(padded)
        else:
            large = self._run_strips(padded)
        return crop(large, height * self._step, width * self._step)

    def _run(self, frame: FrameArray) -> FrameArray:
        return np.asarray(self._session.run({"frames": frame[None]})["upscaled"][0])

    def _run_strips(self, frame: FrameArray) -> FrameArray:
        height, width = frame.shape[:2]
        # Strips start at whole units, so that they keep the grid of the network's own blocks.
        unit = int(np.lcm(STRIP_OVERLAP, self._bundle.size_rule.multiple_of))
        scale, step = self._step, max(unit, STRIP_PIXELS // width // unit * unit)
        result = np.empty((height * scale, width * scale, 3), np.uint8)
        for top in range(0, height, step):
            bottom = min(height, top + step)
            first, last = max(0, top - unit), min(height, bottom + unit)
            strip = self._run(pad(frame[first:last], self._bundle.size_rule))
            result[top * scale : bottom * scale] = strip[
                (top - first) * scale : (bottom - first) * scale
            ]
        return result


def _find(model: str | os.PathLike[str], scale: int) -> tuple[Bundle, int]:
    """The bundle, and how often it runs."""
    if isinstance(scale, bool) or not isinstance(scale, int | np.integer):
        raise InputTypeError(f"scale: argument must be an int, got {type(scale).__name__}")
    scale = int(scale)
    steps = []
    if isinstance(model, str):
        pattern = re.compile(rf"upscaler-{re.escape(model)}-x(\d+)")
        steps = sorted(int(m[1]) for m in map(pattern.fullmatch, shipped()) if m)
    if steps:
        offered = {step**passes: (step, passes) for step in steps for passes in _passes_of(step)}
        if scale not in offered:
            listed = ", ".join(map(str, sorted(offered)))
            raise InputError(
                f"scale: argument must be one of {listed} for model {model!r}, got {scale}"
            )
        step, passes = offered[scale]
        return Bundle.find(model, "upscaler", step), passes
    bundle = Bundle.find(model, "upscaler")
    step = bundle.scale or 0
    for passes in _passes_of(step):
        if step**passes == scale:
            return bundle, passes
    return Bundle.find(model, "upscaler", scale), 1


def _passes_of(step: int) -> range:
    """How often a model can run: more than once as long as the whole factor is at most 16."""
    most = 1
    while step > 1 and step ** (most + 1) <= MAX_SCALE:
        most += 1
    return range(1, most + 1)
