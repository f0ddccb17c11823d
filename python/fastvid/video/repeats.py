"""Frames that repeat the one before: telecine, animation on twos, recordings of a screen.

A codec does not give a repeated frame back bit by bit, so pictures count as equal where no block of
8x8 pixels differs by more than noise does. Something small that moves differs in its blocks; a slow
fade or drift is equal for a frame or two and then is not, because a run is compared with its first
frame.
"""

from __future__ import annotations

import numpy as np

from fastvid.video.types import RgbImage, eight_bits

MOST = 4
"""Frames in a row that may show one picture; more are a still scene and no rhythm of repeats."""

_BLOCK = 8
# Mean difference in a block, in levels: fresh noise of a codec is below, motion above.
_NOISE = 2.0


def is_repeat(first: RgbImage, second: RgbImage) -> bool:
    """Whether two pictures (H, W, 3) of one size and dtype show the same."""
    height, width = first.shape[:2]
    # Rows in turn, so that pictures of motion are told after a few of them.
    for top in range(0, height, _BLOCK):
        here, there = (eight_bits(image[top : top + _BLOCK]) for image in (first, second))
        change = np.maximum(here, there) - np.minimum(here, there)
        columns = change.sum((0, 2), dtype=np.float32)
        blocks = np.add.reduceat(columns, np.arange(0, width, _BLOCK))
        if (blocks > _NOISE * 3 * _BLOCK * len(here)).any():
            return False
    return True
