"""The frames that all rows of a size are measured on: drawn, or the first ones of a clip."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from fastvid._frames import FrameArray
from fastvid._resample import resize_bicubic
from fastvid.errors import InputError
from fastvid.scene import Scene
from fastvid.video import Video
from fastvid.video.target import output_errors
from fastvid.video.types import Frame

COUNT = 6
"""Frames of each size that calls go round."""
CLIP_FRAMES = (8, 32)
"""Lengths of the clips that go from file to file; the shorter one where frames take long."""
_RATE = 30
_SEED = 7
_LEAST_SIDE, _MOST_SIDE = 64, 4096


class Inputs:
    """Frames and clips of every size, made when they are first asked for.

    Args:
        folder: Where they go.
        source: A video file or a folder of pictures; None draws a scene.

    Raises:
        MediaError: The source cannot be read.
        InputError: It has less than two frames.
    """

    def __init__(self, folder: Path, source: str | os.PathLike[str] | None = None) -> None:
        self._folder = folder
        self._rate = Fraction(_RATE)
        self._source: list[FrameArray] | None = None
        if source is not None:
            video = Video.open(source, bit_depth=8, alpha="drop")
            self._rate = video.fps
            with contextlib.closing(_iterate(video)) as frames:
                self._source = [frame.image for frame in itertools.islice(frames, COUNT)]
            if len(self._source) < 2:
                raise InputError(
                    f"input: clip must have at least 2 frames, got {len(self._source)}"
                )

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height of the source; None for drawn frames, which can have any."""
        if self._source is None:
            return None
        height, width = self._source[0].shape[:2]
        return width, height

    def are_made(self, size: tuple[int, int]) -> bool:
        """Whether the frames of a size are there already."""
        return self._path(size).exists()

    def frames(self, size: tuple[int, int]) -> dict[str, Any]:
        """`path` and `shape` of a file of uint8 frames (T, H, W, 3)."""
        if not self.are_made(size):
            self._make(size, self._path(size))
        return {"path": str(self._path(size)), "shape": self._shape(size)}

    def clips(self, size: tuple[int, int]) -> dict[int, str]:
        """Paths of H.264 clips by their number of frames."""
        found = {}
        for count in CLIP_FRAMES:
            path = self._folder / f"clip-{size[0]}x{size[1]}-{count}.mp4"
            if not path.exists():
                Video.from_frames(self._back_and_forth(size, count), self._rate).save(path)
            found[count] = str(path)
        return found

    def _path(self, size: tuple[int, int]) -> Path:
        return self._folder / f"frames-{size[0]}x{size[1]}.raw"

    def _shape(self, size: tuple[int, int]) -> list[int]:
        count = COUNT if self._source is None else len(self._source)
        return [count, size[1], size[0], 3]

    def _make(self, size: tuple[int, int], path: Path) -> None:
        pictures = self._source if self._source is not None else list(_drawn(size))
        part = path.with_suffix(".part")
        with output_errors(str(path)), part.open("wb") as file:
            for picture in pictures:
                file.write(_resized(picture, size).data)
        part.rename(path)

    def _back_and_forth(self, size: tuple[int, int], count: int) -> Iterator[FrameArray]:
        path = self.frames(size)["path"]
        pictures = np.memmap(path, np.uint8, "r").reshape(self._shape(size))
        order = [*range(len(pictures)), *range(len(pictures) - 2, 0, -1)]
        for number in range(count):
            yield np.array(pictures[order[number % len(order)]])


def _iterate(video: Video) -> Generator[Frame]:
    yield from video


def _drawn(size: tuple[int, int]) -> Iterator[FrameArray]:
    width, height = (min(max(side, _LEAST_SIDE), _MOST_SIDE) for side in size)
    scene = Scene(width, height, seed=_SEED)
    for number in range(COUNT):
        yield scene.draw(number / _RATE)


def _resized(picture: FrameArray, size: tuple[int, int]) -> FrameArray:
    if picture.shape[:2] == (size[1], size[0]):
        return picture
    return resize_bicubic(picture, size[1], size[0])
