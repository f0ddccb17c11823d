"""The interpolation stage: which times a video is shown at, and which picture is shown then."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Protocol

import numpy as np

from fastvid._frames import FrameArray
from fastvid._rates import common_unit
from fastvid.bundle import SizeRule
from fastvid.errors import InputError
from fastvid.video import cuts
from fastvid.video.types import Frame, VideoInfo


class Pair(Protocol):
    """Two frames that follow each other."""

    def at(self, timestep: float) -> FrameArray:
        """The picture at a time from 0, the first frame, to 1, the second."""
        ...


class Timing(Protocol):
    """Chooses the times of the new frames."""

    def transform(self, info: VideoInfo) -> VideoInfo:
        """Rate, number of frames and time base of the result."""
        ...

    def slots(self, frame: Frame, start: Fraction) -> list[tuple[Fraction, Fraction]]:
        """(time, duration) of the new frames that begin while `frame` is shown.

        Args:
            frame: A frame of the source.
            start: Time of the source's first frame, in seconds.
        """
        ...


@dataclass(frozen=True)
class Division:
    """Each source frame's duration in equal parts, which follows a varying frame rate."""

    factor: int

    def transform(self, info: VideoInfo) -> VideoInfo:
        """`factor` times the rate and the frames."""
        return replace(
            info,
            fps=info.fps * self.factor,
            num_frames=info.num_frames and info.num_frames * self.factor,
            time_base=info.time_base and info.time_base / self.factor,
        )

    def slots(self, frame: Frame, start: Fraction) -> list[tuple[Fraction, Fraction]]:
        """`factor` slots of equal length."""
        part = frame.duration / self.factor
        return [(frame.time + k * part, part) for k in range(self.factor)]


@dataclass(frozen=True)
class ConstantRate:
    """Times on a regular grid from the first frame on."""

    fps: Fraction

    def transform(self, info: VideoInfo) -> VideoInfo:
        """The new rate, and as many frames as begin before the source ends."""
        count = info.num_frames
        if count is not None:
            duration = info.duration if info.duration is not None else count / info.fps
            count = math.ceil(duration * self.fps)
        base = info.time_base and common_unit(info.time_base, 1 / self.fps)
        return replace(info, fps=self.fps, num_frames=count, time_base=base)

    def slots(self, frame: Frame, start: Fraction) -> list[tuple[Fraction, Fraction]]:
        """The grid points from the frame's time up to its end."""
        begin, end = frame.time - start, frame.time + frame.duration - start
        first, last = math.ceil(begin * self.fps), math.ceil(end * self.fps)
        return [(start + k / self.fps, 1 / self.fps) for k in range(first, last)]


class Retiming:
    """Shows a video at other times, with pictures drawn between its frames.

    Args:
        timing: Chooses the times.
        pair: Prepares two frames of one size for drawing between them.
        size_rule: The frame sizes that `pair` takes.
        cancel: Stops the drawing that is under way in another thread.
        scene_cuts: Whether frames are repeated where a scene ends.
    """

    name = "interpolate"

    def __init__(
        self,
        timing: Timing,
        pair: Callable[[FrameArray, FrameArray], Pair],
        size_rule: SizeRule,
        cancel: Callable[[], None],
        *,
        scene_cuts: bool,
    ) -> None:
        self._timing = timing
        self._pair = pair
        self._size_rule = size_rule
        self.cancel = cancel
        self._scene_cuts = scene_cuts

    def transform(self, info: VideoInfo) -> VideoInfo:
        """What the video becomes; raises `InputError` for sizes the model does not take."""
        self._size_rule.padded(info.height, info.width)
        return self._timing.transform(info)

    def process(self, frames: Iterator[Frame], info: VideoInfo) -> Iterator[Frame]:
        """The new frames, one by one; raises `InputError` for less than two frames."""
        held: Frame | None = None
        end = Fraction(0)

        def watched() -> Iterator[Frame]:
            nonlocal end
            for frame in frames:
                end = frame.time + frame.duration
                yield frame

        for frame in self._frames(watched()):
            if held is not None:
                yield held
            held = frame
        # Only the last frame's slot can reach past the end of the source.
        if held is not None:
            yield replace(held, duration=min(held.duration, end - held.time))

    def _frames(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        before = _expect(next(frames, None), 0)
        after: Frame | None = _expect(next(frames, None), 1)
        start, seen = before.time, _Seen()
        while after is not None:
            slots = self._timing.slots(before, start)
            picture = self._pictures(before, after, slots, seen)
            for time, duration in slots:
                yield Frame(picture(time), time, duration)
            before, after = after, next(frames, None)
        for time, duration in self._timing.slots(before, start):
            yield Frame(before.image, time, duration)

    def _pictures(
        self,
        before: Frame,
        after: Frame,
        slots: list[tuple[Fraction, Fraction]],
        seen: _Seen,
    ) -> Callable[[Fraction], FrameArray]:
        """What to show at the times from `before` up to `after`."""
        if all(time == before.time for time, _ in slots):
            return lambda time: before.image
        span = after.time - before.time
        change = seen.change(before, after)
        if change == "none":
            return lambda time: before.image
        if change == "cut" and self._scene_cuts:
            middle = before.time + span / 2
            return lambda time: before.image if time <= middle else after.image
        pair = self._pair(before.image, after.image)
        return lambda time: pair.at(float((time - before.time) / span))


class _Seen:
    """Compares frames that follow each other; keeps the thumbnail of the later one."""

    def __init__(self) -> None:
        self._time: Fraction | None = None
        self._thumbnail: cuts.Thumbnail | None = None

    def change(self, before: Frame, after: Frame) -> str:
        """`none` for equal pictures, `cut` where a scene ends, otherwise `motion`."""
        first = self._thumbnail
        if first is None or self._time != before.time:
            first = cuts.thumbnail(before.image)
        second = cuts.thumbnail(after.image)
        self._time, self._thumbnail = after.time, second
        if np.array_equal(first.luma, second.luma) and np.array_equal(before.image, after.image):
            return "none"
        return "cut" if cuts.is_cut(first, second) else "motion"


def _expect(frame: Frame | None, count: int) -> Frame:
    if frame is None:
        raise InputError(f"interpolate: video must have at least 2 frames, got {count}")
    return frame
