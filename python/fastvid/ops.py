"""The compiled ops: NumPy arrays in, NumPy arrays out, on all cores.

Every op also takes CUDA arrays, that is objects with `__cuda_array_interface__` such as torch or
CuPy tensors; then all arrays must be on one device, `out` must be given, and the work goes to the
stream that `out` names without waiting for it.

Arrays must be C-contiguous. `out` receives the result and is returned; it must be writable and
share no memory with an input. `threads` is the number of threads, the caller's included; None is
`FASTVID_NUM_THREADS` or, without it, the processors this process may run on. The result does not
depend on it.

Every op raises InputTypeError for an argument of the wrong type or dtype and InputError for one of
the wrong shape, layout or value, before it writes anything; NoDeviceError for a CUDA array where
there is no device or no CUDA kernels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvid import _core
from fastvid.errors import InputError, InputTypeError

__all__ = ["inverse_search", "planar_to_rgb", "rgb_to_planar"]

_MAX_THREADS = 256


def rgb_to_planar(
    frames: NDArray[np.uint8], *, out: Any = None, threads: int | None = None
) -> NDArray[np.float32]:
    """Turns decoded frames into the layout models work in.

    `out[n, c, y, x] = frames[n, y, x, c] / 255`, correctly rounded.

    Args:
        frames: uint8 (N, H, W, 3), RGB.
        out: float32 (N, 3, H, W) to write to; None allocates.
        threads: Number of threads; None is the default.

    Returns:
        float32 (N, 3, H, W) in [0, 1]; `out` where it was given.

    Raises:
        InputTypeError: An argument has the wrong type or dtype.
        InputError: An argument has the wrong shape, layout or value.
    """
    return _core.rgb_to_planar(frames, out, _threads("rgb_to_planar", threads))


def planar_to_rgb(
    x: NDArray[np.float32], *, out: Any = None, threads: int | None = None
) -> NDArray[np.uint8]:
    """Turns a model's output into frames.

    `out[n, y, x, c] = round_half_even(255 * clamp(x[n, c, y, x], 0, 1))`; NaN becomes 0.

    Args:
        x: float32 (N, 3, H, W), RGB in [0, 1]; values outside are clamped.
        out: uint8 (N, H, W, 3) to write to; None allocates.
        threads: Number of threads; None is the default.

    Returns:
        uint8 (N, H, W, 3); `out` where it was given.

    Raises:
        InputTypeError: An argument has the wrong type or dtype.
        InputError: An argument has the wrong shape, layout or value.
    """
    return _core.planar_to_rgb(x, out, _threads("planar_to_rgb", threads))


def inverse_search(
    luma0: NDArray[np.float32],
    luma1: NDArray[np.float32],
    *,
    iterations: int = 8,
    stride: int = 4,
    finest: int = 0,
    bidirectional: bool = True,
    out: tuple[Any, Any] | None = None,
    threads: int | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Finds dense optical flow by inverse search on patches of 8x8 pixels, from coarse to fine.

    `luma0[y, x]` is about `luma1[y + dy, x + dx]` with `(dx, dy) = flow01[:, y, x]`. Identical
    images give exactly zero, and so do images too small for a patch, that is with a side below
    `8 * 2**finest`.

    Args:
        luma0: float32 (N, 1, H, W) in [0, 1]; values outside are clamped, NaN counts as 0.
        luma1: The same.
        iterations: Steps of a patch on each level, from 1 to 64.
        stride: Pixels between patches, from 1 to 8; smaller is slower and finer.
        finest: The level the search ends on: 0 is full size, 1 half, 2 a quarter; the flow is
            enlarged from there.
        bidirectional: Whether to search from luma1 to luma0 as well.
        out: Two float32 (N, 2, H, W) to write flow01 and flow10 to; None allocates.
        threads: Number of threads; None is the default.

    Returns:
        flow01 and flow10, float32 (N, 2, H, W): dx then dy in pixels of the luma. flow10 is None
        unless `bidirectional`.

    Raises:
        InputTypeError: An argument has the wrong type or dtype.
        InputError: An argument has the wrong shape, layout or value.
    """
    op = "inverse_search"
    _integer(op, "iterations", iterations, 1, 64)
    _integer(op, "stride", stride, 1, 8)
    _integer(op, "finest", finest, 0, 2)
    if out is not None and (not isinstance(out, tuple) or len(out) != 2):
        raise InputTypeError(f"{op}: out must be a tuple of two arrays, got {type(out).__name__}")
    flow01, flow10 = (None, None) if out is None else out
    forward, backward = _core.inverse_search(
        luma0,
        luma1,
        flow01,
        flow10,
        iterations,
        stride,
        finest,
        bool(bidirectional),
        _threads(op, threads),
    )
    return forward, backward


def _threads(op: str, threads: int | None) -> int:
    if threads is None:
        return 0
    if isinstance(threads, bool) or not isinstance(threads, int):
        raise InputTypeError(f"{op}: threads must be an int or None, got {type(threads).__name__}")
    if not 1 <= threads <= _MAX_THREADS:
        raise InputError(f"{op}: threads must be from 1 to {_MAX_THREADS}, got {threads}")
    return threads


def _integer(op: str, name: str, value: int, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputTypeError(f"{op}: {name} must be an int, got {type(value).__name__}")
    if not low <= value <= high:
        raise InputError(f"{op}: {name} must be from {low} to {high}, got {value}")
