"""The protocol that super-resolution papers measure by.

The truth is cut to multiples of the scale and reduced as MATLAB's `imresize` does it: cubic kernel
with a = -0.5, stretched by the factor, mirrored edges, uint8 after each axis, rows first. PSNR is
on luma of BT.601 in studio range (black 16, white 235), not rounded, without a border as wide as
the scale. Keys, "Cubic convolution interpolation for digital image processing", 1981; ITU-R BT.601.
"""

from __future__ import annotations

import numpy as np

Picture = np.ndarray
"""uint8 (H, W, 3)."""


def cut(truth: Picture, scale: int) -> Picture:
    """The top left part whose sides are multiples of the scale."""
    height, width = (side - side % scale for side in truth.shape[:2])
    return np.ascontiguousarray(truth[:height, :width])


def reduced(truth: Picture, scale: int) -> Picture:
    """The picture at `1 / scale` of its size, which must be whole."""
    return _along(_along(truth, scale, 0), scale, 1)


def _along(picture: Picture, scale: int, axis: int) -> Picture:
    indices, weights = taps(picture.shape[axis], scale)
    taken = np.take(picture, indices, axis=axis).astype(np.float64)
    shape = [1] * taken.ndim
    shape[axis : axis + 2] = weights.shape
    result = (taken * weights.reshape(shape)).sum(axis + 1)
    return np.clip(np.floor(result + 0.5), 0, 255).astype(np.uint8)


def taps(length: int, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """Which samples a result is made of, and their weights: (length / scale, 4 scale + 2) both."""
    count = length // scale
    centre = (np.arange(count) + 0.5) * scale - 0.5
    first = np.floor(centre - 2 * scale).astype(np.int64)
    indices = first[:, None] + np.arange(4 * scale + 2)
    weights = _cubic((centre[:, None] - indices) / scale)
    weights /= weights.sum(1, keepdims=True)
    folded = np.mod(indices, 2 * length)
    return np.where(folded < length, folded, 2 * length - 1 - folded), weights


def _cubic(x: np.ndarray) -> np.ndarray:
    near = np.abs(x)
    inner = 1.5 * near**3 - 2.5 * near**2 + 1
    outer = -0.5 * near**3 + 2.5 * near**2 - 4 * near + 2
    return np.where(near <= 1, inner, np.where(near <= 2, outer, 0.0))


def luma(picture: Picture) -> np.ndarray:
    """BT.601 luma in studio range, (H, W) float64 from 16 to 235."""
    return 16 + picture.astype(np.float64) @ np.array([65.481, 128.553, 24.966]) / 255


def psnr(made: Picture, truth: Picture, scale: int) -> float:
    """DB between the lumas, a border of `scale` pixels left out; infinite where they are equal."""
    inner = slice(scale, -scale)
    error = np.mean((luma(made) - luma(truth))[inner, inner] ** 2)
    return float(10 * np.log10(255.0**2 / error)) if error else float("inf")
