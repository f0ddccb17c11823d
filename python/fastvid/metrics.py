"""How close a picture is to the truth: PSNR and SSIM, in NumPy float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from fastvid.errors import InputError, InputTypeError

_WINDOW = 11
_SIGMA = 1.5


def psnr(image: NDArray[Any], truth: NDArray[Any], *, peak: float = 255.0) -> float:
    """Peak signal-to-noise ratio, `10 log10(peak^2 / mean((image - truth)^2))`.

    Args:
        image: Any shape, integer or float.
        truth: Same shape.
        peak: Largest value a pixel can take: 255 for uint8, 1 for floats in [0, 1].

    Returns:
        Decibels; infinity for equal arrays.

    Raises:
        InputError: The shapes differ, there are no values, or one is not finite.
        InputTypeError: An argument is not a numeric array.
    """
    first, second = _pair("psnr", image, truth)
    error = float(np.mean((first - second) ** 2))
    return math.inf if error == 0 else 10.0 * math.log10(peak**2 / error)


def ssim(image: NDArray[Any], truth: NDArray[Any], *, peak: float = 255.0) -> float:
    """Structural similarity with an 11x11 Gaussian window of sigma 1.5, over full windows only.

    Args:
        image: (H, W) or (H, W, C) with H and W at least 11; channels are averaged.
        truth: Same shape.
        peak: Largest value a pixel can take.

    Returns:
        1 for equal pictures, towards 0 for unrelated ones.

    Raises:
        InputError: The shapes differ or are too small, or a value is not finite.
        InputTypeError: An argument is not a numeric array.
    """
    first, second = _pair("ssim", image, truth)
    if first.ndim not in (2, 3) or min(first.shape[:2]) < _WINDOW:
        raise InputError(
            f"ssim: image must be (H, W) or (H, W, C) with H and W >= {_WINDOW}, got {first.shape}"
        )
    first, second = np.atleast_3d(first), np.atleast_3d(second)
    channels = range(first.shape[2])
    values = [_ssim_plane(first[..., c], second[..., c], peak) for c in channels]
    return float(np.mean(values))


def _ssim_plane(first: NDArray[Any], second: NDArray[Any], peak: float) -> float:
    floor_mean, floor_spread = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    mean0, mean1 = _blur(first), _blur(second)
    spread0 = _blur(first * first) - mean0**2
    spread1 = _blur(second * second) - mean1**2
    shared = _blur(first * second) - mean0 * mean1
    likeness = (2 * mean0 * mean1 + floor_mean) / (mean0**2 + mean1**2 + floor_mean)
    likeness *= (2 * shared + floor_spread) / (spread0 + spread1 + floor_spread)
    return float(likeness.mean())


def _blur(plane: NDArray[Any]) -> NDArray[Any]:
    offsets = np.arange(_WINDOW) - _WINDOW // 2
    kernel = np.exp(-(offsets**2) / (2 * _SIGMA**2))
    kernel /= kernel.sum()
    rows = sliding_window_view(plane, _WINDOW, axis=0) @ kernel
    return np.asarray(sliding_window_view(rows, _WINDOW, axis=1) @ kernel)


def _pair(name: str, image: NDArray[Any], truth: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    for label, array in (("image", image), ("truth", truth)):
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "uif":
            found = getattr(array, "dtype", type(array).__name__)
            raise InputTypeError(f"{name}: {label} must be a numeric array, got {found}")
    if image.shape != truth.shape:
        raise InputError(
            f"{name}: truth must have the shape of image, {image.shape}, got {truth.shape}"
        )
    first, second = image.astype(np.float64), truth.astype(np.float64)
    if first.size == 0 or not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise InputError(f"{name}: image and truth must hold finite values, at least one")
    return first, second
