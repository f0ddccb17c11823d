"""Frames and model layout, luma, and averaging. `fastvid.ops` is the public face."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvid import _core
from fastvid._ops.checks import integer, is_wide, outputs, threads_of


def rgb_to_planar(
    frames: NDArray[np.uint8] | NDArray[np.uint16],
    *,
    out: Any = None,
    threads: int | None = None,
    stream: int | None = None,
) -> NDArray[np.float32]:
    """Turns decoded frames into the layout models work in.

    `out[n, c, y, x] = frames[n, y, x, c] / 255`, or `/ 65535` of uint16, correctly rounded.

    Args:
        frames: uint8 or uint16 (N, H, W, 3), RGB.
        out: float32 (N, 3, H, W) to write to; None allocates.
        threads: Number of threads; None is the default.
        stream: CUDA stream of arrays on a device; None is the current one.

    Returns:
        float32 (N, 3, H, W) in [0, 1]; `out` where it was given.

    Raises:
        InputTypeError: An argument has the wrong type or dtype.
        InputError: An argument has the wrong shape, layout or value.
    """
    return _core.rgb_to_planar(frames, out, threads_of("rgb_to_planar", threads), stream)


def planar_to_rgb(
    x: NDArray[np.float32],
    *,
    dtype: str = "uint8",
    out: Any = None,
    threads: int | None = None,
    stream: int | None = None,
) -> NDArray[Any]:
    """Turns a model's output into frames.

    `out[n, y, x, c] = round_half_even(255 * clamp(x[n, c, y, x], 0, 1))`, with 65535 for uint16;
    NaN becomes 0.

    Args:
        x: float32 (N, 3, H, W), RGB in [0, 1]; values outside are clamped.
        dtype: "uint8" or "uint16".
        out: Array of that dtype (N, H, W, 3) to write to; None allocates.
        threads: Number of threads; None is the default.
        stream: CUDA stream of arrays on a device; None is the current one.

    Returns:
        uint8 or uint16 (N, H, W, 3); `out` where it was given.

    Raises:
        InputTypeError: An argument has the wrong type or dtype.
        InputError: An argument has the wrong shape, layout or value.
    """
    op = "planar_to_rgb"
    return _core.planar_to_rgb(x, is_wide(op, dtype), out, threads_of(op, threads), stream)


def rgb_to_luma(
    frames: NDArray[np.uint8] | NDArray[np.uint16],
    *,
    out: tuple[Any, Any] | None = None,
    threads: int | None = None,
    stream: int | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Splits frames into luma and chroma, BT.601 full range.

    With R, G, B in [0, 1]: `luma = 0.299 R + 0.587 G + 0.114 B`, `cb = (B - luma) / 1.772`,
    `cr = (R - luma) / 1.402`; the chroma of grey is exactly 0.

    Args:
        frames: uint8 or uint16 (N, H, W, 3), RGB.
        out: Arrays (luma, chroma) to write to; None allocates.
        threads: Number of threads; None is the default.
        stream: CUDA stream of arrays on a device; None is the current one.

    Returns:
        luma, float32 (N, 1, H, W) in [0, 1], and chroma, float32 (N, 2, H, W) in [-0.5, 0.5], cb
        then cr.

    Raises:
        InputTypeError: An argument has the wrong type or dtype.
        InputError: An argument has the wrong shape, layout or value.
    """
    op = "rgb_to_luma"
    out_luma, out_chroma = outputs(op, out, 2)
    return _core.rgb_to_luma(frames, out_luma, out_chroma, threads_of(op, threads), stream)


def luma_to_rgb(
    luma: NDArray[np.float32],
    chroma: NDArray[np.float32],
    *,
    dtype: str = "uint8",
    out: Any = None,
    threads: int | None = None,
    stream: int | None = None,
) -> NDArray[Any]:
    """Joins luma and chroma of the same or a lower resolution to frames, BT.601 full range.

    The inverse of `rgb_to_luma`: exactly so for uint8 where the sizes are equal, and to within a
    level for uint16. Chroma is enlarged
    bilinearly with half-pixel centres; results are clamped and rounded half to even, NaN becomes 0.

    Args:
        luma: float32 (N, 1, s*H, s*W), s = 1, 2, 3 or 4; in [0, 1].
        chroma: float32 (N, 2, H, W), cb then cr; in [-0.5, 0.5].
        dtype: "uint8" or "uint16".
        out: Array of that dtype (N, s*H, s*W, 3) to write to; None allocates.
        threads: Number of threads; None is the default.
        stream: CUDA stream of arrays on a device; None is the current one.

    Returns:
        uint8 or uint16 (N, s*H, s*W, 3), RGB; `out` where it was given.

    Raises:
        InputTypeError: An argument has the wrong type or dtype.
        InputError: An argument has the wrong shape, layout or value.
    """
    op = "luma_to_rgb"
    wide = is_wide(op, dtype)
    return _core.luma_to_rgb(luma, chroma, wide, out, threads_of(op, threads), stream)


def downscale(
    x: NDArray[np.float32],
    factor: int,
    *,
    out: Any = None,
    threads: int | None = None,
    stream: int | None = None,
) -> NDArray[np.float32]:
    """Makes images 2, 4 or 8 times smaller by averaging square blocks.

    `out[..., y, x]` is the mean of the `factor * factor` values at `(factor * y, factor * x)`.

    Args:
        x: float32 (N, C, H, W); H and W are multiples of `factor`.
        factor: 2, 4 or 8.
        out: float32 (N, C, H / factor, W / factor) to write to; None allocates.
        threads: Number of threads; None is the default.
        stream: CUDA stream of arrays on a device; None is the current one.

    Returns:
        float32 (N, C, H / factor, W / factor); `out` where it was given.

    Raises:
        InputTypeError: An argument has the wrong type or dtype.
        InputError: An argument has the wrong shape, layout or value.
    """
    integer("downscale", "factor", factor, 2, 8)
    return _core.downscale(x, factor, out, threads_of("downscale", threads), stream)
