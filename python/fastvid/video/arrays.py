"""Frames from memory: an array, a list, or any iterable of pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from fastvid._frames import check_frame
from fastvid.errors import InputError, InputTypeError
from fastvid.video.types import Frame, RgbImage, VideoInfo


class ArraySource:
    """Frames in memory as an open source of a video.

    Args:
        frames: RGB pictures of one size and dtype, uint8 or uint16.
        info: What `info_of` said about them.
    """

    def __init__(self, frames: Iterable[Any], info: VideoInfo) -> None:
        self.info = info
        self.warnings: list[str] = []
        self.truncated = False
        self._frames = frames

    def frames(self) -> Iterator[Frame]:
        """Yields the pictures with time stamps of the rate.

        Raises:
            InputError: A picture has another size or dtype than the first one.
        """
        step = 1 / self.info.fps
        expected = (self.info.height, self.info.width, 3)
        for number, picture in enumerate(self._frames):
            image = check_frame(f"frames[{number}]", picture)
            if image.shape != expected:
                raise InputError(
                    f"frames[{number}]: shape must be {expected} as the first, got {image.shape}"
                )
            if (image.dtype == np.uint16) != (self.info.bit_depth > 8):
                raise InputTypeError(
                    f"frames[{number}]: dtype must be that of the first, got {image.dtype}"
                )
            yield Frame(image, number * step, step)

    def close(self) -> None:
        """Nothing is open."""


def info_of(first: RgbImage, fps: Fraction, count: int | None) -> VideoInfo:
    """What is known about frames in memory."""
    height, width = first.shape[:2]
    duration = None if count is None else count / fps
    bits = 8 * first.itemsize
    return VideoInfo(width, height, fps, count, duration, time_base=1 / fps, bit_depth=bits)
