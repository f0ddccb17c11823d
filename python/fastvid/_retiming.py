"""The interpolation stage: which times a video is shown at, and which picture is shown then."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Protocol

import numpy as np

from fastvid._frames import FrameArray
from fastvid._rates import common_unit
from fastvid.backends._transfer import Here, Pending, in_turn
from fastvid.errors import InputError
from fastvid.video import cuts, repeats
from fastvid.video.types import Frame, VideoInfo


class Pair(Protocol):
    """Two frames that follow each other."""

    def start(self, timestep: float) -> Pending:
        """Begins to draw the picture at a time from 0, the first frame, to 1, the second."""
        ...


Pairs = Callable[[FrameArray, FrameArray], Pair]
"""Prepares two frames of one size, one pair after the other."""


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
        pairs: Begins with a video and prepares its frames for drawing between them.
        require: Raises for a video that pairs do not take.
        cancel: Stops the drawing that is under way in another thread.
        ahead: How many pictures may be drawn while an earlier one is on its way here.
        scene_cuts: Whether frames are repeated where a scene ends.
        merge_repeats: Whether frames that repeat the one before are drawn anew between those that
            do not.
    """

    name = "interpolate"

    def __init__(
        self,
        timing: Timing,
        pairs: Callable[[], Pairs],
        require: Callable[[VideoInfo], object],
        cancel: Callable[[], None],
        *,
        ahead: int = 0,
        scene_cuts: bool,
        merge_repeats: bool = False,
    ) -> None:
        self._timing = timing
        self._pairs = pairs
        self._ahead = ahead
        self._require = require
        self.cancel = cancel
        self._scene_cuts = scene_cuts
        self._merge_repeats = merge_repeats

    def transform(self, info: VideoInfo) -> VideoInfo:
        """What the video becomes; raises for sizes and depths the model does not take."""
        self._require(info)
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

        for shown in in_turn(self._frames(watched()), self._ahead):
            frame = Frame(shown.picture.result(), shown.time, shown.duration)
            if held is not None:
                yield held
            held = frame
        # Only the last frame's slot can reach past the end of the source.
        if held is not None:
            yield replace(held, duration=min(held.duration, end - held.time))

    def _frames(self, frames: Iterator[Frame]) -> Iterator[_Shown]:
        before = _expect(next(frames, None), 0)
        second = _expect(next(frames, None), 1)
        start, seen, pairs = before.time, _Seen(), self._pairs()
        # Frames that show one picture; those of a still scene are compared with its first one.
        run, first, still = [before], before.image, False
        for after in itertools.chain((second,), frames):
            if self._merge_repeats and repeats.is_repeat(first, after.image):
                still = still or len(run) == repeats.MOST
                if still:
                    yield from self._as_they_are(run, start)
                    run = []
                run.append(after)
                continue
            slots = [slot for frame in run for slot in self._timing.slots(frame, start)]
            picture = self._pictures(run[0], after, slots, seen, pairs)
            for time, duration in slots:
                yield _Shown(picture(time), time, duration)
            run, first, still = [after], after.image, False
        yield from self._as_they_are(run, start)

    def _as_they_are(self, run: list[Frame], start: Fraction) -> Iterator[_Shown]:
        for frame in run:
            for time, duration in self._timing.slots(frame, start):
                yield _Shown(Here(frame.image), time, duration)

    def _pictures(
        self,
        before: Frame,
        after: Frame,
        slots: list[tuple[Fraction, Fraction]],
        seen: _Seen,
        pairs: Pairs,
    ) -> Callable[[Fraction], Pending]:
        """What to show at the times from `before` up to `after`."""
        if all(time == before.time for time, _ in slots):
            return lambda time: Here(before.image)
        span = after.time - before.time
        change = seen.change(before, after)
        if change == "none":
            return lambda time: Here(before.image)
        if change == "cut" and self._scene_cuts:
            middle = before.time + span / 2
            return lambda time: Here(before.image if time <= middle else after.image)
        pair = pairs(before.image, after.image)
        return lambda time: pair.start(float((time - before.time) / span))


@dataclass(frozen=True, slots=True)
class _Shown:
    """A frame whose picture may still be drawn."""

    picture: Pending
    time: Fraction
    duration: Fraction


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
