"""Attention and what prepares queries and keys for it. `fastvid.ops` is the public face."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvid import _core
from fastvid._ops.checks import choice, integer, number, outputs, threads_of
from fastvid.errors import InputError, InputTypeError

_NORMS = (None, "head", "full")
_ROPES = (None, "interleaved", "half")


def attention(
    q: Any,
    k: Any,
    v: Any,
    *,
    scale: float | None = None,
    causal: bool = False,
    bias: Any = None,
    out: Any = None,
    threads: int | None = None,
    stream: int | None = None,
) -> NDArray[Any]:
    """Scaled dot product attention without its matrix of scores in memory.

    `out[b, i, h] = sum_j softmax_j(scale * (q[b, i, h] @ k[b, j, h]) + bias[b, h, i, j]) * v[b, j,
    h]`, block by block (FlashAttention, Dao et al. 2022, arXiv 2205.14135), with float32 sums.

    bfloat16 is the fast way on a processor with AVX-512 BF16. Its products round the weights to
    bfloat16, which moves results by at most 2**-7 of the largest |v|; everything else gives equal
    bits on all processors. On a CUDA device this is a plain flash kernel for what has to be one
    call of one library; for long sequences take cuDNN's or TensorRT's own attention, which are
    written for each generation of tensor cores and reach 70 % of their peak.

    Args:
        q: float32, float16 or bfloat16 (B, Nq, H, D), any strides with D adjacent, for instance
            `qkv[:, :, 0]` of packed projections (B, N, 3, H, D); D from 1 to 256.
        k: The same dtype, (B, Nk, H, D).
        v: Like k.
        scale: Factor of the products, positive; None is `1 / sqrt(D)`.
        causal: Whether query i sees the keys up to the i-th only.
        bias: float32 (B, H, Nq, Nk), either of the first two 1 for all, added to the scaled
            products; -inf hides a key. A query that sees no key gives zeros.
        out: Array like q to write to, any strides with D adjacent; None allocates.
        threads: Number of threads; None is the default.
        stream: CUDA stream of arrays on a device; None is the current one.

    Returns:
        Array of q's dtype and shape; `out` where it was given.

    Raises:
        InputTypeError: An argument has the wrong type or dtype.
        InputError: An argument has the wrong shape, layout or value.
    """
    op = "attention"
    factor = None if scale is None else number(op, "scale", scale)
    return _core.attention(
        q, k, v, bias, factor, bool(causal), out, threads_of(op, threads), stream
    )


def qk_norm_rope(
    q: Any,
    k: Any,
    q_weight: Any = None,
    k_weight: Any = None,
    cos: Any = None,
    sin: Any = None,
    *,
    norm: str | None = "full",
    rope: str | None = "interleaved",
    eps: float = 1e-6,
    out: tuple[Any, Any] | None = None,
    threads: int | None = None,
    stream: int | None = None,
) -> tuple[Any, Any]:
    """Normalises queries and keys and rotates them by their positions, in one pass.

    With x = q and x = k, each with its own weight: `y = x / sqrt(mean(x**2) + eps) * weight`, then
    each pair (a, b) of y becomes `(a * cos - b * sin, b * cos + a * sin)`. All in float32, rounded
    once to the dtype of x. Norm: Zhang and Sennrich 2019, arXiv 1910.07467. Rotation: Su et al.
    2021, arXiv 2104.09864. Wan and LTX take `norm="full"`, HunyuanVideo `norm="head"`, all three
    `rope="interleaved"`.

    Args:
        q: float32, float16 or bfloat16 (B, N, H, D), any strides with D adjacent, for instance
            `qkv[:, :, 0]` of packed projections (B, N, 3, H, D).
        k: The same dtype, (B, N, H', D); without rope N may differ.
        q_weight: float32 (D,) for `norm="head"`, (H * D,) for "full"; None is ones.
        k_weight: The same for k.
        cos: float32 (N, D / 2), for all heads, or (N, H * D / 2), one head after another; see
            `rope_table_3d`. None without rope.
        sin: The same.
        norm: What the mean is taken over: "head" is D, "full" is H and D; None does not normalise.
        rope: Which pairs are rotated: "interleaved" is (2i, 2i + 1), "half" is (i, i + D / 2), both
            by the i-th angle; None does not rotate.
        eps: Added to the mean of squares.
        out: The two arrays to write to, (None, None) to allocate; None writes to q and k.
        threads: Number of threads; None is the default.
        stream: CUDA stream of arrays on a device; None is the current one.

    Returns:
        The normalised and rotated q and k, of their dtype and shapes; `out` where it was given.

    Raises:
        InputTypeError: An argument has the wrong type or dtype.
        InputError: An argument has the wrong shape, layout or value.
    """
    op = "qk_norm_rope"
    norm_code = _code(op, "norm", norm, _NORMS)
    rope_code = _code(op, "rope", rope, _ROPES)
    q_out, k_out = (q, k) if out is None else outputs(op, out, 2)
    return _core.qk_norm_rope(
        q,
        k,
        q_weight,
        k_weight,
        cos,
        sin,
        norm_code,
        rope_code,
        number(op, "eps", eps),
        q_out,
        k_out,
        threads_of(op, threads),
        stream,
    )


def rope_table_3d(
    frames: int,
    height: int,
    width: int,
    dim: int,
    *,
    theta: float = 10000.0,
    split: Sequence[int] | None = None,
    offset: Sequence[float] = (0.0, 0.0, 0.0),
    scale: Sequence[float] = (1.0, 1.0, 1.0),
    style: str = "wan",
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Makes the tables of a rotary embedding of video: cosines and sines of angles by position.

    Tokens are counted frames first, then rows, then columns; along axis j (frame, row, column) the
    token with index i is at position `p = offset[j] + scale[j] * i`.

    Style "wan" (Wan, HunyuanVideo, CogVideoX): axis j has the next `split[j] / 2` angles,
    `p * theta ** (-2 * m / split[j])` with m from 0.

    Style "ltx" (LTX-Video, whose `dim` is that of all heads together): the angles
    `pi / 2 * theta ** (m / (dim // 6 - 1)) * (2 * p - 1)` of the three axes take turns, and the
    `dim % 6` dimensions that are left over come first and are not turned. diffusers takes
    `scale = (8 / frame_rate / 20, 32 / 2048, 32 / 2048)` for LTX-Video's autoencoder.

    Angles are float64, results rounded once. diffusers makes LTX's and HunyuanVideo's angles in
    float32, so its largest ones (1e4) differ by up to about 1e-3.

    Args:
        frames: Number of frames of tokens, at least 1.
        height: Number of rows, at least 1.
        width: Number of columns, at least 1.
        dim: Dimensions to turn, even.
        theta: Base of the frequencies.
        split: Dimensions of frame, row and column, even, with the sum `dim`; only for "wan". None
            is Wan's: `2 * (dim // 6)` for row and column, the rest for the frame. HunyuanVideo has
            (16, 56, 56) with theta 256, CogVideoX (16, 24, 24).
        offset: Position of the first token, for instance of a later chunk.
        scale: Distance between neighbours along each axis.
        style: "wan" or "ltx".

    Returns:
        cos and sin, float32 (frames * height * width, dim / 2).

    Raises:
        InputTypeError: An argument has the wrong type.
        InputError: An argument has the wrong value.
    """
    op = "rope_table_3d"
    sizes = (frames, height, width)
    for name, size in zip(("frames", "height", "width"), sizes, strict=True):
        integer(op, name, size, 1, 1 << 20)
    integer(op, "dim", dim, 2, 1 << 20)
    if dim % 2:
        raise InputError(f"{op}: dim must be even, got {dim}")
    if not number(op, "theta", theta) > 0:
        raise InputError(f"{op}: theta must be positive, got {theta}")
    starts, steps = (
        [number(op, name, value) for value in _three(op, name, values)]
        for name, values in (("offset", offset), ("scale", scale))
    )
    positions = [
        start + step * np.arange(n, dtype=np.float64)
        for start, step, n in zip(starts, steps, sizes, strict=True)
    ]
    if choice(op, "style", style, ("wan", "ltx")) == "wan":
        angles = _wan_angles(positions, _split_of(op, split, dim), theta)
    else:
        if split is not None:
            raise InputError(f"{op}: split must be None for style 'ltx', got {split}")
        angles = _ltx_angles(positions, dim, theta)
    table = np.concatenate(angles, -1).reshape(frames * height * width, dim // 2)
    return np.cos(table).astype(np.float32), np.sin(table).astype(np.float32)


def temporal_attention(
    q: NDArray[Any],
    k: NDArray[Any],
    v: NDArray[Any],
    *,
    scale: float | None = None,
    causal: bool = False,
    bias: NDArray[Any] | None = None,
    out: Any = None,
    threads: int | None = None,
    stream: int | None = None,
) -> NDArray[Any]:
    """Scaled dot-product attention along the frames of a video, each place and head by itself.

    `out[b, t, s, h] = sum_u w[u] v[b, u, s, h]` with
    `w = softmax_u(scale * q[b, t, s, h] . k[b, u, s, h] + bias[h, t, u])`, where the tensors lie:
    nothing is transposed. A query of which all keys are masked gives 0.

    Args:
        q: float32, float16 or bfloat16 (B, T, S, H, D): batch, frames, places (height * width),
            heads, elements of a head. T is from 1 to 64, D a multiple of 8 from 8 to 256. Any
            non-negative strides with D contiguous, so that the views of a packed
            (B, T, S, 3, H, D) need no copy.
        k: Like q, of the same dtype and shape.
        v: Like k.
        scale: Finite factor of the products; None is `D ** -0.5`.
        causal: Whether a frame sees only itself and those before.
        bias: float32 (H, T, T), or (1, T, T) for all heads: query, then key. `-inf` masks a key.
        out: Array of q's dtype and shape to write to, strided like q or not; None allocates.
        threads: Number of threads; None is the default.
        stream: CUDA stream of arrays on a device; None is the current one.

    Returns:
        (B, T, S, H, D) of q's dtype; `out` where it was given. Sums are float32.

    Raises:
        InputTypeError: An argument has the wrong type or dtype.
        InputError: An argument has the wrong shape, layout or value.
    """
    op = "temporal_attention"
    if not isinstance(causal, bool):
        raise InputTypeError(f"{op}: causal must be a bool, got {type(causal).__name__}")
    factor = None if scale is None else number(op, "scale", scale)
    return _core.temporal_attention(
        q, k, v, factor, causal, bias, out, threads_of(op, threads), stream
    )


def _wan_angles(
    positions: list[NDArray[np.float64]], split: Sequence[int], theta: float
) -> list[NDArray[np.float64]]:
    """Per axis (frames, height, width, split / 2)."""
    grid = tuple(len(p) for p in positions)
    angles = []
    for axis, (position, size) in enumerate(zip(positions, split, strict=True)):
        frequencies = 1.0 / theta ** (np.arange(0, size, 2, dtype=np.float64) / max(size, 1))
        shape = [1, 1, 1, size // 2]
        shape[axis] = len(position)
        angle = np.outer(position, frequencies).reshape(shape)
        angles.append(np.broadcast_to(angle, (*grid, size // 2)))
    return angles


def _ltx_angles(
    positions: list[NDArray[np.float64]], dim: int, theta: float
) -> list[NDArray[np.float64]]:
    """Zeros for what is left over, then (frames, height, width, 3 * (dim // 6))."""
    grid = tuple(len(p) for p in positions)
    frequencies = theta ** np.linspace(0.0, 1.0, dim // 6) * (math.pi / 2)
    axes = np.stack(np.meshgrid(*positions, indexing="ij"), -1)
    turns = frequencies[:, None] * (2 * axes[..., None, :] - 1)
    return [np.zeros((*grid, dim % 6 // 2)), turns.reshape(*grid, 3 * (dim // 6))]


def _split_of(op: str, split: Sequence[int] | None, dim: int) -> list[int]:
    if split is None:
        side = 2 * (dim // 6)
        return [dim - 2 * side, side, side]
    sizes = _three(op, "split", split)
    for size in sizes:
        integer(op, "split", size, 0, dim)
    if sum(sizes) != dim or any(size % 2 for size in sizes):
        raise InputError(f"{op}: split must be three even numbers of sum {dim}, got {tuple(sizes)}")
    return sizes


def _three(op: str, name: str, values: Sequence[Any]) -> list[Any]:
    if isinstance(values, str) or not isinstance(values, Sequence):
        kind = type(values).__name__
        raise InputTypeError(f"{op}: {name} must be a sequence of 3 numbers, got {kind}")
    if len(values) != 3:
        raise InputError(f"{op}: {name} must be 3 numbers, got {len(values)}")
    return list(values)


def _code(op: str, name: str, value: str | None, allowed: tuple[str | None, ...]) -> int:
    """The place of a choice among those allowed, None first, as the compiled op counts them."""
    if value is None:
        return 0
    named = tuple(choice for choice in allowed if choice is not None)
    return allowed.index(choice(op, name, value, named))
