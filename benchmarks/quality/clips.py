"""Frames of real clips to measure on, kept on disk as plain arrays, and the places in them.

Clips that no model was trained on count from their first frame, the others from the part that
training leaves out. Frames wider than 1280 are halved, by areas, until they are not, which also
hides what their codec did.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from interpolator import HELD_BACK, TRAIN_PART, UNSEEN
from numpy.typing import NDArray

from fastvid import Video

Frame = NDArray[np.uint8]
_WIDEST = 1280
_CONTEXT = 2
_CUT = 25.0
"""Mean levels between two frames from which a scene ends there: those here have 40 and more, and
the fastest motion has 19."""
SOURCES = UNSEEN | HELD_BACK


@dataclass(frozen=True)
class Gap:
    """Two frames and the true ones between them."""

    truth: tuple[Frame, ...]
    """`n - 1` frames, at the times 1 / n, 2 / n, ..."""
    around: tuple[Frame, ...]
    """Frames as far apart as the two: some before, the two, some after. What filters that look
    further than two frames are given; where the clip ends its last frame is repeated."""
    first: int
    """Where the two begin in `around`."""

    @property
    def frame0(self) -> Frame:
        """At time 0."""
        return self.around[self.first]

    @property
    def frame1(self) -> Frame:
        """At time 1."""
        return self.around[self.first + 1]

    @property
    def times(self) -> list[float]:
        """Of `truth`."""
        parts = len(self.truth) + 1
        return [k / parts for k in range(1, parts)]


class Clips:
    """Frames of the clips of a data folder, decoded once.

    Args:
        data: Folder that holds `clips`.
        cache: Where arrays are kept.
    """

    def __init__(self, data: Path, cache: Path) -> None:
        self._data, self._cache = data, cache

    @property
    def names(self) -> list[str]:
        """Of clips that are there."""
        return [n for n, source in SOURCES.items() if (self._data / "clips" / source).is_file()]

    def frames(self, name: str) -> NDArray[np.uint8]:
        """(T, H, W, 3), the part that may be measured on, mapped from disk."""
        path = self._cache / f"{name}.npy"
        if not path.is_file():
            found = [_reduced(f.image) for f in Video.open(self._data / "clips" / SOURCES[name])]
            first = int(len(found) * TRAIN_PART) if name in HELD_BACK else 0
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial.npy")
            np.save(partial, np.stack(found[first:]))
            partial.replace(path)
        frames: NDArray[np.uint8] = np.load(path, mmap_mode="r")
        return frames

    def gaps(self, name: str, count: int, *, stride: int, parts: int = 2) -> Iterator[Gap]:
        """Places evenly spread over a clip, two frames of a scene `stride * parts` apart each."""
        frames = self.frames(name)
        span = stride * parts
        starts = within_scenes(frames, span)
        for place in np.linspace(0, len(starts) - 1, count).astype(int):
            yield gap_at(frames, starts[place], stride, parts)


def within_scenes(frames: NDArray[np.uint8], span: int) -> list[int]:
    """Frames after which `span` more follow without a scene cut."""
    small = frames[:, ::8, ::8].mean(-1, dtype=np.float32)
    cuts = np.abs(np.diff(small, axis=0)).mean((1, 2)) > _CUT
    return [n for n in range(len(frames) - span) if not cuts[n : n + span].any()]


def gap_at(frames: Sequence[Frame] | NDArray[np.uint8], start: int, stride: int, parts: int) -> Gap:
    """The gap that begins at a frame."""
    span = stride * parts
    truth = tuple(np.array(frames[start + k * stride]) for k in range(1, parts))
    places = [start + k * span for k in range(-_CONTEXT, _CONTEXT + 2)]
    inside = [min(max(p, start % span), start + (len(frames) - 1 - start) // span * span)
              for p in places]  # fmt: skip
    return Gap(truth, tuple(np.array(frames[p]) for p in inside), _CONTEXT)


def _reduced(frame: Frame) -> Frame:
    while frame.shape[1] > _WIDEST:
        frame = cv2.resize(frame, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    return frame
