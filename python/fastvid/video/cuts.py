"""Scene cuts: whether two frames that follow each other show the same scene.

Blending across a cut draws a picture that was never filmed, so the interpolator repeats frames.
The rule looks at one pair only, which keeps it causal and equal however a video is chunked:

1. *Structure.* Each 8x8 block of the second frame's luma thumbnail (about 40x22) looks for its best
   normalised cross-correlation within 4 thumbnail pixels (a tenth of the width) in the first
   frame. Camera and object motion move blocks and fades scale them; both leave the correlation
   high. A cut leaves only chance.
2. *Colours.* The overlap of two 512-bin RGB histograms confirms a structure score that is in
   doubt.

Two flat pictures have no structure to compare; between them a jump in brightness decides, as it
does at the end of a fade to black or white. A flash washes structure out too: where a picture is
largely white, the other one is lightened until both are equally bright, and compared again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from fastvid.video.types import RgbImage, eight_bits

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_BLOCK = 8
_REACH = 4
_NOISE_VARIANCE = 4.0
"""Variance of codec and sensor noise in 8-bit levels, so that flat blocks count as alike."""

# On real clips cuts score 0.47 to 0.60 in structure and other pairs at most 0.24.
_SURE = 0.40
_IN_DOUBT = 0.30
_COLOURS_CONFIRM = 0.20
_FLAT_CONTRAST = 4.0
_FLAT_JUMP = 40.0
_STILL = 4.0
# Means of flat pictures that a fade to black or white ends with.
_BLACK, _WHITE = 8.0, 247.0
# A flash: brighter by so much, with so much of the picture so near to white.
_FLASH_JUMP, _FLASH_SHARE, _FLASH_LUMA = 20.0, 0.2, 235.0
# Lightened pictures of real flashes score below 0.2, other scenes above 0.3.
_LIT = 0.25
_GAINS = (1.25, 1.5, 2.0, 2.5, 3.0, 4.0)


@dataclass(frozen=True)
class Thumbnail:
    """What the detector keeps of a frame."""

    luma: NDArray[np.float32]
    """Luma, 0 to 255, about 40x22."""
    colours: NDArray[np.float32]
    """RGB histogram of 8x8x8 bins; sums to 1."""
    samples: NDArray[np.uint8]
    """RGB pixels that both are made of, about 160x90."""


def thumbnail(frame: RgbImage) -> Thumbnail:
    """Reduce a frame to what the cut rule needs.

    Args:
        frame: uint8 or uint16 RGB (H, W, 3).
    """
    step = max(1, round(min(frame.shape[0] / 96, frame.shape[1] / 160)))
    samples = eight_bits(np.ascontiguousarray(frame[step // 2 :: step, step // 2 :: step]))
    bins = (samples >> 5).astype(np.int64) @ np.array([64, 8, 1])
    counts = np.bincount(bins.ravel(), minlength=512)
    return Thumbnail(_pooled(samples), (counts / bins.size).astype(np.float32), samples)


def _pooled(samples: NDArray[Any]) -> NDArray[np.float32]:
    luma = samples.astype(np.float32) @ _LUMA
    pool = max(1, min(4, min(luma.shape) // 16))
    rows, columns = luma.shape[0] // pool, luma.shape[1] // pool
    small = luma[: rows * pool, : columns * pool].reshape(rows, pool, columns, pool)
    means: NDArray[np.float32] = small.mean((1, 3))
    return means


def structure_change(first: Thumbnail, second: Thumbnail) -> float:
    """How little of the second picture's structure is found in the first: 0 all of it, 1 none."""
    size = min(_BLOCK, *second.luma.shape)
    stride = max(1, size // 2)
    blocks = _zero_mean(sliding_window_view(second.luma, (size, size))[::stride, ::stride])
    padded = np.pad(first.luma, _REACH, mode="edge")
    windows = sliding_window_view(padded, (size, size))
    rows, columns = blocks.shape[:2]
    contrast = np.mean(blocks**2, axis=(2, 3)) + _NOISE_VARIANCE
    best = np.full((rows, columns), -1.0, np.float32)
    for dy in range(2 * _REACH + 1):
        for dx in range(2 * _REACH + 1):
            near = _zero_mean(windows[dy::stride, dx::stride][:rows, :columns])
            spread = np.mean(near**2, axis=(2, 3)) + _NOISE_VARIANCE
            shared = np.mean(near * blocks, axis=(2, 3)) + _NOISE_VARIANCE
            np.maximum(best, shared / np.sqrt(spread * contrast), out=best)
    # Blocks with more contrast say more about what is shown.
    weight = np.sqrt(contrast)
    return float(1.0 - np.sum(best * weight) / np.sum(weight))


def colour_change(first: Thumbnail, second: Thumbnail) -> float:
    """Half the L1 distance of the histograms: 0 equal, 1 no colour in common."""
    return float(np.abs(first.colours - second.colours).sum() / 2)


def is_cut(first: Thumbnail, second: Thumbnail) -> bool:
    """Whether a scene ends between two frames that follow each other."""
    jump = float(np.abs(first.luma - second.luma).mean())
    if jump < _STILL:
        return False
    flat, other = sorted((first, second), key=lambda picture: float(picture.luma.std()))
    if flat.luma.std() < _FLAT_CONTRAST:
        faded = not _BLACK <= flat.luma.mean() <= _WHITE
        if faded or other.luma.std() < _FLAT_CONTRAST:
            return jump >= _FLAT_JUMP
    colours = colour_change(first, second)
    structure = structure_change(first, second)
    if structure < (_IN_DOUBT if colours >= _COLOURS_CONFIRM else _SURE):
        return False
    return not _is_flash(first, second)


def _is_flash(first: Thumbnail, second: Thumbnail) -> bool:
    """Whether one picture is the other one with too much light."""
    dark, bright = sorted((first, second), key=lambda picture: float(picture.luma.mean()))
    jump = bright.luma.mean() - dark.luma.mean()
    if jump < _FLASH_JUMP or (bright.luma > _FLASH_LUMA).mean() < _FLASH_SHARE:
        return False
    lit = min(
        (_lightened(dark.samples, gain, float(bright.samples.mean())) for gain in _GAINS),
        key=lambda luma: float(np.abs(luma - bright.luma).mean()),
    )
    return structure_change(replace(dark, luma=lit), bright) < _LIT


def _lightened(samples: NDArray[np.uint8], gain: float, mean: float) -> NDArray[np.float32]:
    """Luma of the pixels times `gain` plus what brings them to a mean, clipped at white."""
    low, high = -255.0 * gain, 255.0
    lit = samples.astype(np.float32)
    # The clipped mean grows with what is added; 9 halvings leave a few levels.
    for _ in range(9):
        added = (low + high) / 2
        lit = np.clip(np.float32(gain) * samples + np.float32(added), 0, 255)
        low, high = (added, high) if lit.mean() < mean else (low, added)
    return _pooled(lit)


def _zero_mean(blocks: NDArray[np.float32]) -> NDArray[Any]:
    return np.asarray(blocks - blocks.mean(axis=(2, 3), keepdims=True))
