"""The ops in plain NumPy float64: what the compiled ones are checked against."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def rgb_to_planar(frames: NDArray[np.uint8]) -> Array:
    return np.moveaxis(frames, 3, 1).astype(np.float64) / 255


def planar_to_rgb(x: NDArray[np.float32]) -> NDArray[np.uint8]:
    clamped = np.clip(np.nan_to_num(x, nan=0.0), 0, 1)
    # The product is float32 in the op, and its rounding decides ties.
    return np.rint(np.moveaxis(clamped * np.float32(255), 1, 3)).astype(np.uint8)
