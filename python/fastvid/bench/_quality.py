"""How far the frames of a row are from those of its reference."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvid.metrics import psnr, ssim

_SSIM_SIDE = 512
_SSIM_LEAST = 11


def compare(ours: Path, reference: Path, shape: list[int], name: str) -> dict[str, Any]:
    """PSNR and SSIM of the worst frame.

    Args:
        ours: File of uint8 frames.
        reference: File of as many frames.
        shape: (T, H, W, 3).
        name: What the reference is.

    Returns:
        `reference`, `frames`, `identical`, `psnr` in dB (None if identical) and `ssim`, which
        looks at 512x512 pixels in the middle at most and is None for frames below 11x11.
    """
    frames = [np.fromfile(path, np.uint8).reshape(shape) for path in (ours, reference)]
    decibels = min(psnr(a, b) for a, b in zip(*frames, strict=True))
    alike = None
    if min(shape[1:3]) >= _SSIM_LEAST:
        alike = min(ssim(_middle(a), _middle(b)) for a, b in zip(*frames, strict=True))
    return {
        "reference": name,
        "frames": shape[0],
        "identical": math.isinf(decibels),
        "psnr": None if math.isinf(decibels) else round(decibels, 3),
        "ssim": None if alike is None else round(alike, 6),
    }


def _middle(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = picture.shape[:2]
    top, left = max(0, height - _SSIM_SIDE) // 2, max(0, width - _SSIM_SIDE) // 2
    return picture[top : top + _SSIM_SIDE, left : left + _SSIM_SIDE]
