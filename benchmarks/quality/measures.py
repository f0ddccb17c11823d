"""What pictures and clips are compared with the truth by, besides PSNR.

All take planes or frames of one size. Distances are 0 for equal pictures; a smaller one is better.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]
"""uint8 RGB (H, W, 3)."""
_WINDOW, _SIGMA = 11, 1.5
_FAR = 8.0
"""Levels of difference from which a pixel of the truth counts as not found again."""


def full_luma(frame: NDArray[Any]) -> NDArray[np.float32]:
    """BT.601 luma (H, W) in 0..255 of an RGB frame."""
    return frame.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)


def ssim(made: NDArray[Any], truth: NDArray[Any], *, border: int = 0) -> float:
    """Structural similarity of two planes (H, W) in levels of 255; 1 for equal ones.

    Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004:
    a Gaussian window of 11x11 with deviation 1.5, places where it fits whole, K1 0.01, K2 0.03.

    Args:
        made: At least 11 pixels on each side, after the border is cut.
        truth: The same size.
        border: Pixels left out on each side first.
    """
    height, width = truth.shape
    inner = slice(border, height - border), slice(border, width - border)
    # Around the middle grey, squares lose less in float32.
    a, b = (np.ascontiguousarray(p[inner], np.float32) - 128 for p in (made, truth))

    def mean(plane: NDArray[np.float32]) -> NDArray[np.float32]:
        half = _WINDOW // 2
        return cv2.GaussianBlur(plane, (_WINDOW, _WINDOW), _SIGMA)[half:-half, half:-half]

    mean_a, mean_b = mean(a), mean(b)
    of_a, of_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    of_both = mean(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_a, mean_b = mean_a + 128, mean_b + 128
    found = (2 * mean_a * mean_b + c1) * (2 * of_both + c2)
    found /= (mean_a**2 + mean_b**2 + c1) * (of_a + of_b + c2)
    return float(found.mean(dtype=np.float64))


def temporal_error(made: Sequence[Frame], truth: Sequence[Frame]) -> float:
    """How much the error of a clip changes along its motion, in levels: what is seen as flicker.

    With e the error of luma, the mean of |e(n+1) - e(n) moved along the motion|. The motion is
    dense inverse search between frames of the truth; pixels of the truth that it does not find
    again (occluded ones, and where it fails) are left out, as in Lai et al., "Learning blind video
    temporal consistency", 2018. A steady blur of what moves costs nothing; a blur that comes with
    every second frame does.

    Args:
        made: At least two frames in order.
        truth: As many.
    """
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    lumas = [full_luma(frame) for frame in truth]
    errors = [full_luma(frame) - luma for frame, luma in zip(made, lumas, strict=True)]
    height, width = lumas[0].shape
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)
    values = []
    for n in range(len(truth) - 1):
        bytes_ = [np.clip(luma + 0.5, 0, 255).astype(np.uint8) for luma in lumas[n : n + 2]]
        places = grid + search.calc(bytes_[1], bytes_[0], None)

        def moved(plane: NDArray[np.float32], places: NDArray[np.float32] = places) -> Any:
            return cv2.remap(plane, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

        found = np.abs(lumas[n + 1] - moved(lumas[n])) < _FAR
        change = np.abs(errors[n + 1] - moved(errors[n]))
        if found.any():
            values.append(float(change[found].mean(dtype=np.float64)))
    return float(np.mean(values)) if values else 0.0
