"""The ops of the diffusion solvers; `fastvid.ops` is their public face."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastvid import _core
from fastvid._ops.checks import choice, integer, outputs, threads_of
from fastvid.errors import InputError, InputTypeError

_MAX_AXES = 6
_MAX_INPUTS = 6
_MAX_OUTPUTS = 3
# Elements of a noise are counted in 64 bits; this leaves room for offset + size.
_MAX_ELEMENTS = 2**62
_MAX_SEED = 2**64 - 1
_MAX_SUBSEQUENCE = 2**32 - 1
_DTYPES = ("float32", "float16", "bfloat16")
_LARGEST = float(np.finfo(np.float32).max)


def randn(
    shape: int | Sequence[int],
    *,
    seed: int,
    subsequence: int = 0,
    offset: int = 0,
    dtype: str = "float32",
    out: Any = None,
    threads: int | None = None,
    stream: int | None = None,
) -> NDArray[Any]:
    """Draws standard normal noise, the same bits on every processor, thread count and device.

    Element i, in C order, is element `offset + i` of an endless row that `seed` and `subsequence`
    name, so any slice of a noise can be made alone. Philox4x32-10 with the key `seed` turns the
    counter (low and high half of the block, subsequence, 0) into four words for each block of four
    elements, and Box and Muller's formula each pair of words into two normals, of at most 5.77.

    Args:
        shape: Sizes of up to 6 axes, or the size of one.
        seed: From 0 to 2**64 - 1.
        subsequence: From 0 to 2**32 - 1: an independent row of the same seed, say of a step.
        offset: Where in the row the noise starts, from 0 to 2**62 - 1.
        dtype: "float32", or "float16" or "bfloat16" for its values rounded half to even.
        out: Array of this shape and dtype to write to; None allocates.
        threads: Number of threads; None is the default.
        stream: CUDA stream of arrays on a device; None is the current one.

    Returns:
        Array of the shape and dtype; `out` where it was given.

    Raises:
        InputTypeError: An argument has the wrong type or dtype.
        InputError: An argument has the wrong shape, layout or value.
    """
    op = "randn"
    _check_noise(op, seed, subsequence, offset)
    count = threads_of(op, threads)
    choice(op, "dtype", dtype, _DTYPES)
    return _core.randn(_sizes(op, shape), seed, subsequence, offset, dtype, out, count, stream)


def scheduler_step(
    matrix: ArrayLike,
    inputs: Sequence[Any],
    *,
    uncond: Any = None,
    guidance_scale: float = 1.0,
    noise_scale: Sequence[float] | None = None,
    seed: int = 0,
    subsequence: int = 0,
    offset: int = 0,
    out: tuple[Any, ...] | None = None,
    out_dtype: str = "float32",
    threads: int | None = None,
    stream: int | None = None,
) -> tuple[Any, ...]:
    """Makes one step of a linear solver in one pass over its arrays.

    `out[o] = sum(matrix[o][k] * inputs[k]) + noise_scale[o] * randn(shape, seed=seed, ...)`, summed
    from the left in float32. With `uncond`, `uncond + guidance_scale * (inputs[0] - uncond)` takes
    the place of `inputs[0]`: classifier-free guidance. A NaN or infinity spreads even through a
    coefficient of 0.

    Args:
        matrix: (outputs, inputs), finite; rounded to float32.
        inputs: 1 to 6 arrays of one shape, each float32, float16 or bfloat16.
        uncond: The prediction without a prompt, like the inputs; None is no guidance.
        guidance_scale: How far past `uncond` to go; without `uncond` it has no effect.
        noise_scale: A number per output; None adds no noise.
        seed: The noise, as in `randn`, as are the next two.
        subsequence: The row, as in `randn`.
        offset: Element of the row that belongs to the first element.
        out: As many arrays as the matrix has rows (1 to 3) to write to, each float32, float16 or
            bfloat16, rounded half to even; None allocates them. An output may be one of the inputs
            itself, but share no other memory with any.
        out_dtype: dtype of the arrays that are allocated.
        threads: Number of threads; None is the default.
        stream: CUDA stream of arrays on a device; None is the current one.

    Returns:
        The outputs, as many as the matrix has rows; those of `out` where it was given.

    Raises:
        InputTypeError: An argument has the wrong type or dtype.
        InputError: An argument has the wrong shape, layout or value.
    """
    op = "scheduler_step"
    if not isinstance(inputs, (tuple, list)):
        raise InputTypeError(f"{op}: inputs must be a list of arrays, got {type(inputs).__name__}")
    if not 1 <= len(inputs) <= _MAX_INPUTS:
        raise InputError(f"{op}: inputs must be 1 to {_MAX_INPUTS} arrays, got {len(inputs)}")
    coefficients = _numbers(op, "matrix", matrix)
    if coefficients.ndim != 2 or coefficients.shape[1] != len(inputs):
        raise InputError(
            f"{op}: matrix must be (outputs, {len(inputs)}), got shape {coefficients.shape}"
        )
    rows = coefficients.shape[0]
    if not 1 <= rows <= _MAX_OUTPUTS:
        raise InputError(f"{op}: matrix must have 1 to {_MAX_OUTPUTS} rows, got {rows}")
    scales = None
    if noise_scale is not None:
        scales = _numbers(op, "noise_scale", noise_scale)
        if scales.shape != (rows,):
            raise InputError(f"{op}: noise_scale must be {rows} numbers, got shape {scales.shape}")
    _check_noise(op, seed, subsequence, offset)
    return _core.scheduler_step(
        coefficients,
        tuple(inputs),
        uncond,
        _finite(op, "guidance_scale", guidance_scale),
        scales,
        seed,
        subsequence,
        offset,
        outputs(op, out, rows),
        choice(op, "out_dtype", out_dtype, _DTYPES),
        threads_of(op, threads),
        stream,
    )


def _check_noise(op: str, seed: int, subsequence: int, offset: int) -> None:
    integer(op, "seed", seed, 0, _MAX_SEED)
    integer(op, "subsequence", subsequence, 0, _MAX_SUBSEQUENCE)
    integer(op, "offset", offset, 0, _MAX_ELEMENTS - 1)


def _sizes(op: str, shape: int | Sequence[int]) -> tuple[int, ...]:
    if isinstance(shape, int):
        shape = (shape,)
    if not isinstance(shape, (tuple, list)):
        raise InputTypeError(f"{op}: shape must be a tuple of ints, got {type(shape).__name__}")
    if len(shape) > _MAX_AXES:
        raise InputError(f"{op}: shape must have at most {_MAX_AXES} axes, got {len(shape)}")
    for i, size in enumerate(shape):
        integer(op, f"shape[{i}]", size, 0, _MAX_ELEMENTS)
    if math.prod(shape) > _MAX_ELEMENTS:
        raise InputError(f"{op}: shape must have at most 2**62 elements, got {tuple(shape)}")
    return tuple(shape)


def _numbers(op: str, name: str, values: ArrayLike) -> NDArray[np.float32]:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputTypeError(f"{op}: {name} must be numbers, got {values!r}") from error
    if not all(-_LARGEST <= value <= _LARGEST for value in array.ravel().tolist()):
        raise InputError(f"{op}: {name} must be finite in float32, got {values!r}")
    return array.astype(np.float32)


def _finite(op: str, name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InputTypeError(f"{op}: {name} must be a number, got {type(value).__name__}")
    if not abs(value) <= _LARGEST:
        raise InputError(f"{op}: {name} must be finite, got {value}")
    return float(value)
