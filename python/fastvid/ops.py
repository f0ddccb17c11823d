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

__all__ = ["planar_to_rgb", "rgb_to_planar"]

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


def _threads(op: str, threads: int | None) -> int:
    if threads is None:
        return 0
    if isinstance(threads, bool) or not isinstance(threads, int):
        raise InputTypeError(f"{op}: threads must be an int or None, got {type(threads).__name__}")
    if not 1 <= threads <= _MAX_THREADS:
        raise InputError(f"{op}: threads must be from 1 to {_MAX_THREADS}, got {threads}")
    return threads
