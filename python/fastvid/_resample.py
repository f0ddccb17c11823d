"""Separable cubic resampling in NumPy: the demo's scene, its reduced input and the bicubic peer."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Edge = Literal["wrap", "clip"]


def sample_axis(
    image: NDArray[np.float32],
    positions: NDArray[Any],
    axis: int,
    *,
    edge: Edge = "clip",
    reduction: float = 1.0,
) -> NDArray[np.float32]:
    """Read an image along one axis at real positions with the cubic kernel a = -0.5.

    Args:
        image: float32, any shape.
        positions: float (n,), coordinates along `axis`; sample i lies at i.
        axis: The axis to resample.
        edge: What lies outside: `clip` repeats the edge, `wrap` starts again.
        reduction: Stretches the kernel to that many samples, which filters out what a reduced
            grid cannot hold; 1 interpolates.

    Returns:
        float32, `image` with length n along `axis`.
    """
    size = image.shape[axis]
    stretch = max(1.0, reduction)
    count = int(np.ceil(4 * stretch))
    start = np.floor(positions - 2 * stretch).astype(np.int64) + 1
    shape = [1] * image.ndim
    shape[axis] = len(positions)
    result = np.zeros([*image.shape[:axis], len(positions), *image.shape[axis + 1 :]], np.float32)
    weights = np.stack([_cubic((start + k - positions) / stretch) for k in range(count)])
    weights /= weights.sum(0)
    for k in range(count):
        index = (start + k) % size if edge == "wrap" else np.clip(start + k, 0, size - 1)
        result += np.take(image, index, axis=axis) * weights[k].astype(np.float32).reshape(shape)
    return result


def resize_bicubic(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize a picture with the cubic kernel a = -0.5, filtered when it shrinks, edges repeated.

    Args:
        image: uint8 (H, W, 3).
        height: Rows wanted, at least 1.
        width: Columns wanted, at least 1.

    Returns:
        uint8 (height, width, 3), rounded half to even.
    """
    result: NDArray[Any] = image.astype(np.float32)
    for axis, length in ((0, height), (1, width)):
        ratio = image.shape[axis] / length
        centres = (np.arange(length) + 0.5) * ratio - 0.5
        result = sample_axis(result, centres, axis, reduction=ratio)
    return to_uint8(result)


def to_uint8(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Round half to even and clamp to 0..255."""
    return np.asarray(np.clip(np.rint(image), 0, 255), np.uint8)


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.asarray(np.where(x <= 1, near, np.where(x < 2, far, 0.0)))


_PILLOW_BITS = 22


def resize_like_pillow(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize a picture as Pillow's BICUBIC does, bit by bit, for networks trained on its pictures.

    Coefficients have 22 bits, rows come before columns, and between the two values are rounded
    (libImaging/Resample.c).

    Args:
        image: uint8 (H, W, 3).
        height: Rows wanted, at least 1.
        width: Columns wanted, at least 1.

    Returns:
        uint8 (height, width, 3).
    """
    for axis, size in ((1, width), (0, height)):
        if image.shape[axis] != size:
            image = _pillow_axis(image, size, axis)
    return image


def _pillow_axis(image: NDArray[np.uint8], size: int, axis: int) -> NDArray[np.uint8]:
    count = image.shape[axis]
    scale = count / size
    stretch = max(scale, 1.0)
    support = 2.0 * stretch
    moved = np.moveaxis(image, axis, 0)
    result = np.empty((size, *moved.shape[1:]), np.uint8)
    for position in range(size):
        center = (position + 0.5) * scale
        first = max(int(center - support + 0.5), 0)
        last = min(int(center + support + 0.5), count)
        weights = _cubic((np.arange(first, last) - center + 0.5) / stretch)
        scaled = weights / weights.sum() * (1 << _PILLOW_BITS)
        fixed = np.trunc(scaled + np.copysign(0.5, scaled)).astype(np.int64)
        total = np.tensordot(fixed, moved[first:last].astype(np.int64), axes=1)
        rounded = (total + (1 << (_PILLOW_BITS - 1))) >> _PILLOW_BITS
        result[position] = np.clip(rounded, 0, 255)
    return np.ascontiguousarray(np.moveaxis(result, 0, axis))
