"""The compiled ops: NumPy arrays in, NumPy arrays out, on all cores.

Every op also takes CUDA arrays, that is objects with `__cuda_array_interface__` such as torch or
CuPy tensors; then all arrays must be on one device, `out` must be given, and the work goes to the
stream that `out` names without waiting for it.

Arrays must be C-contiguous. `out` receives the result and is returned; it must be writable and
share no memory with an input, unless the op says otherwise. `threads` is the number of threads, the
caller's included; None is `FASTVID_NUM_THREADS` or, without it, the processors this process may run
on. The result does not depend on it.

Every op raises InputTypeError for an argument of the wrong type or dtype and InputError for one of
the wrong shape, layout or value, before it writes anything; NoDeviceError for a CUDA array where
there is no device or no CUDA kernels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvid import _core
from fastvid._noise import randn, scheduler_step
from fastvid._op_checks import choice, integer, outputs, threads_of

__all__ = [
    "downscale",
    "inverse_search",
    "luma_to_rgb",
    "planar_to_rgb",
    "randn",
    "rgb_to_luma",
    "rgb_to_planar",
    "rgb_to_yuv",
    "scheduler_step",
    "warp",
    "warp_blend",
    "yuv_to_rgb",
]


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
    return _core.rgb_to_planar(frames, out, threads_of("rgb_to_planar", threads))


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
    return _core.planar_to_rgb(x, out, threads_of("planar_to_rgb", threads))


def warp(
    image: NDArray[np.float32],
    flow: NDArray[np.float32],
    *,
    padding: str = "border",
    out: Any = None,
    threads: int | None = None,
) -> NDArray[np.float32]:
    """Warps images backwards by a flow in pixels.

    `out[n, c, y, x] = image[n, c, y + dy, x + dx]`, bilinear, with `(dx, dy) = flow[n, :, y, x]`.

    Args:
        image: float32 (N, C, H, W), any range.
        flow: float32 (N, 2, h, w) in pixels of the image, dx first. `h = ceil(H / k)` and
            `w = ceil(W / k)` with k in 1, 2, 4, 8: a coarser flow is upsampled bilinearly with
            pixel centres at halves and clamped at the edge, its values unscaled. A NaN displaces
            by 0, an infinity far outside the image.
        padding: What lies outside the image: "border" repeats its edge, "zeros" is 0.
        out: float32 (N, C, H, W) to write to; None allocates.
        threads: Number of threads; None is the default.

    Returns:
        float32 (N, C, H, W); `out` where it was given.

    Raises:
        InputTypeError: An argument has the wrong type or dtype.
        InputError: An argument has the wrong shape, layout or value.
    """
    zeros = choice("warp", "padding", padding, ("border", "zeros")) == "zeros"
    return _core.warp(image, flow, zeros, out, threads_of("warp", threads))


def warp_blend(
    image0: NDArray[np.float32],
    image1: NDArray[np.float32],
    flow: NDArray[np.float32],
    mask: NDArray[np.float32],
    *,
    residual: NDArray[np.float32] | None = None,
    out: Any = None,
    out_dtype: str = "float32",
    threads: int | None = None,
) -> NDArray[Any]:
    """Warps two images to one moment and blends them: the last step of frame interpolation.

    `out = clamp(s * warp(image0, flow[:, 0:2]) + (1 - s) * warp(image1, flow[:, 2:4]) + residual)`
    to [0, 1], with `s = sigmoid(mask)` and border padding, in one pass over the images.

    Args:
        image0: float32 (N, 3, H, W), RGB in [0, 1].
        image1: float32 (N, 3, H, W), RGB in [0, 1].
        flow: float32 (N, 4, h, w): dx, dy into image0, then dx, dy into image1, in pixels of the
            images; coarser ones as in `warp`.
        mask: float32 (N, 1, h, w), a logit: large where image0 counts. Upsampled like the flow,
            before the sigmoid. Where it is NaN, image0 is taken.
        residual: float32 (N, 3, H, W) added to the blend; None adds nothing.
        out: Array of the result's dtype and shape to write to; None allocates.
        out_dtype: "float32" for (N, 3, H, W) in [0, 1], or "uint8" for frames (N, H, W, 3),
            `round_half_even(255 * out)`. A NaN becomes 0.
        threads: Number of threads; None is the default.

    Returns:
        float32 (N, 3, H, W) or uint8 (N, H, W, 3); `out` where it was given.

    Raises:
        InputTypeError: An argument has the wrong type or dtype.
        InputError: An argument has the wrong shape, layout or value.
    """
    dtype = choice("warp_blend", "out_dtype", out_dtype, ("float32", "uint8"))
    return _core.warp_blend(
        image0,
        image1,
        flow,
        mask,
        residual,
        out,
        dtype == "uint8",
        threads_of("warp_blend", threads),
    )


def downscale(
    x: NDArray[np.float32], factor: int, *, out: Any = None, threads: int | None = None
) -> NDArray[np.float32]:
    """Makes images 2, 4 or 8 times smaller by averaging square blocks.

    `out[..., y, x]` is the mean of the `factor * factor` values at `(factor * y, factor * x)`.

    Args:
        x: float32 (N, C, H, W); H and W are multiples of `factor`.
        factor: 2, 4 or 8.
        out: float32 (N, C, H / factor, W / factor) to write to; None allocates.
        threads: Number of threads; None is the default.

    Returns:
        float32 (N, C, H / factor, W / factor); `out` where it was given.

    Raises:
        InputTypeError: An argument has the wrong type or dtype.
        InputError: An argument has the wrong shape, layout or value.
    """
    integer("downscale", "factor", factor, 2, 8)
    return _core.downscale(x, factor, out, threads_of("downscale", threads))


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
    integer(op, "iterations", iterations, 1, 64)
    integer(op, "stride", stride, 1, 8)
    integer(op, "finest", finest, 0, 2)
    flow01, flow10 = outputs(op, out, 2)
    forward, backward = _core.inverse_search(
        luma0,
        luma1,
        flow01,
        flow10,
        iterations,
        stride,
        finest,
        bool(bidirectional),
        threads_of(op, threads),
    )
    return forward, backward


def yuv_to_rgb(
    y: NDArray[Any],
    u: NDArray[Any],
    v: NDArray[Any],
    *,
    matrix: str = "bt709",
    full_range: bool = False,
    bit_depth: int = 8,
    subsampling: str = "420",
    chroma_location: str = "left",
    layout: str = "NHWC",
    out: Any = None,
    threads: int | None = None,
) -> NDArray[Any]:
    """Turns a planar YUV picture into RGB in one pass.

    The inverse of `rgb_to_yuv`, which has the formulas; chroma is enlarged by linear interpolation
    between the samples around each pixel, with its edge repeated outside the picture. Results are
    clamped and rounded half to even once. Equal chroma of half the range gives R = G = B exactly.

    Args:
        y: uint8 (H, W), or uint16 from 0 to 1023 with `bit_depth=10`. The rows of all three planes
            may stand apart, as a decoder leaves them.
        u: The same dtype, (H, W) with the halved axes rounded up.
        v: Like u.
        matrix: "bt601", "bt709" or "bt2020" (non-constant luminance).
        full_range: Whether samples span the full range and not the limited one (16 to 235 and 240).
        bit_depth: 8 or 10.
        subsampling: "420" halves both axes of u and v, "422" the columns, "444" none.
        chroma_location: Where a chroma sample lies among the luma samples it covers: "left",
            "center", "topleft", "top", "bottomleft" or "bottom". "left" is on the even columns and
            midway between two rows.
        layout: "NHWC" for bytes, "NCHW" for what models work in.
        out: The result's array to write to; None allocates.
        threads: Number of threads; None is the default.

    Returns:
        uint8 (H, W, 3) for "NHWC", float32 (1, 3, H, W) in [0, 1] for "NCHW"; `out` where it was
        given.

    Raises:
        InputTypeError: An argument has the wrong type or dtype.
        InputError: An argument has the wrong shape, layout or value.
    """
    return _core.yuv_to_rgb(
        y,
        u,
        v,
        matrix,
        full_range,
        bit_depth,
        subsampling,
        chroma_location,
        layout,
        out,
        threads_of("yuv_to_rgb", threads),
    )


def rgb_to_yuv(
    rgb: NDArray[Any],
    *,
    matrix: str = "bt709",
    full_range: bool = False,
    bit_depth: int = 8,
    subsampling: str = "420",
    chroma_location: str = "left",
    out: tuple[Any, Any, Any] | None = None,
    threads: int | None = None,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Turns RGB into a planar YUV picture in one pass.

    With R, G, B in [0, 1], the matrix's Kr and Kb, and d the bit depth:
    `E = Kr R + (1 - Kr - Kb) G + Kb B`, `Pb = (B - E) / (2 - 2 Kb)`, `Pr = (R - E) / (2 - 2 Kr)`;
    limited range: `Y = 2**(d-8) (219 E + 16)`, `U, V = 2**(d-8) (224 Pb, Pr + 128)`;
    full range: `Y = (2**d - 1) E`, `U, V = (2**d - 1) Pb, Pr + 2**(d-1)`; rounded half to even.
    Chroma is first averaged with weights (1, 2, 1) / 4 around a chroma sample that lies on a luma
    position and (1, 1) / 2 for one midway, with the edge repeated outside the picture.

    Args:
        rgb: uint8 (H, W, 3), or float32 (1, 3, H, W) in [0, 1]; values outside are clamped, NaN
            counts as 0.
        matrix: As in `yuv_to_rgb`, as are the next four.
        full_range: Whether samples span the full range.
        bit_depth: 8 or 10.
        subsampling: "420", "422" or "444".
        chroma_location: Where a chroma sample lies.
        out: Planes (y, u, v) to write to, whose rows may stand apart; None allocates.
        threads: Number of threads; None is the default.

    Returns:
        y, u and v: uint8 (H, W) and twice (H, W) with the halved axes rounded up; uint16 with
        `bit_depth=10`.

    Raises:
        InputTypeError: An argument has the wrong type or dtype.
        InputError: An argument has the wrong shape, layout or value.
    """
    op = "rgb_to_yuv"
    out_y, out_u, out_v = outputs(op, out, 3)
    return _core.rgb_to_yuv(
        rgb,
        matrix,
        full_range,
        bit_depth,
        subsampling,
        chroma_location,
        out_y,
        out_u,
        out_v,
        threads_of(op, threads),
    )


def rgb_to_luma(
    frames: NDArray[np.uint8],
    *,
    out: tuple[Any, Any] | None = None,
    threads: int | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Splits frames into luma and chroma, BT.601 full range.

    With R, G, B in [0, 1]: `luma = 0.299 R + 0.587 G + 0.114 B`, `cb = (B - luma) / 1.772`,
    `cr = (R - luma) / 1.402`; the chroma of grey is exactly 0.

    Args:
        frames: uint8 (N, H, W, 3), RGB.
        out: Arrays (luma, chroma) to write to; None allocates.
        threads: Number of threads; None is the default.

    Returns:
        luma, float32 (N, 1, H, W) in [0, 1], and chroma, float32 (N, 2, H, W) in [-0.5, 0.5], cb
        then cr.

    Raises:
        InputTypeError: An argument has the wrong type or dtype.
        InputError: An argument has the wrong shape, layout or value.
    """
    op = "rgb_to_luma"
    out_luma, out_chroma = outputs(op, out, 2)
    return _core.rgb_to_luma(frames, out_luma, out_chroma, threads_of(op, threads))


def luma_to_rgb(
    luma: NDArray[np.float32],
    chroma: NDArray[np.float32],
    *,
    out: Any = None,
    threads: int | None = None,
) -> NDArray[np.uint8]:
    """Joins luma and chroma of the same or a lower resolution to frames, BT.601 full range.

    The inverse of `rgb_to_luma`, and exactly so where the sizes are equal. Chroma is enlarged
    bilinearly with half-pixel centres; results are clamped and rounded half to even, NaN becomes 0.

    Args:
        luma: float32 (N, 1, s*H, s*W), s = 1, 2, 3 or 4; in [0, 1].
        chroma: float32 (N, 2, H, W), cb then cr; in [-0.5, 0.5].
        out: uint8 (N, s*H, s*W, 3) to write to; None allocates.
        threads: Number of threads; None is the default.

    Returns:
        uint8 (N, s*H, s*W, 3), RGB; `out` where it was given.

    Raises:
        InputTypeError: An argument has the wrong type or dtype.
        InputError: An argument has the wrong shape, layout or value.
    """
    return _core.luma_to_rgb(luma, chroma, out, threads_of("luma_to_rgb", threads))
