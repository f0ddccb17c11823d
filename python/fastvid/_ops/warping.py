"""Warping by optical flow, and the flow itself. `fastvid.ops` is the public face."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvid import _core
from fastvid._ops.checks import choice, integer, outputs, threads_of
from fastvid.errors import InputError

_MAX_IMAGES = 8
_SPLAT_MODES = ("softmax", "linear", "average", "sum")


def warp(
    image: Any,
    flow: Any,
    *,
    padding: str = "border",
    layout: str = "NCHW",
    out: Any = None,
    threads: int | None = None,
    stream: int | None = None,
) -> Any:
    """Warps images backwards by a flow in pixels.

    `out[n, c, y, x] = image[n, c, y + dy, x + dx]`, bilinear, with `(dx, dy) = flow[n, :, y, x]`,
    in float32 arithmetic. Images that share a flow, say a frame and its features, take less time
    in one call: where they read is found once.

    Args:
        image: float32, float16, bfloat16 or uint8 (N, C, H, W) or (N, H, W, C), any range; or a
            list or tuple of 1 to 8 such images of one N, H and W, each of its own dtype and C.
        flow: float32 (N, 2, h, w) in pixels of the image, dx first. `h = ceil(H / k)` and
            `w = ceil(W / k)` with k in 1, 2, 4, 8: a coarser flow is upsampled bilinearly with
            pixel centres at halves and clamped at the edge, its values unscaled. A NaN displaces
            by 0, an infinity far outside the image.
        padding: What lies outside the image: "border" repeats its edge, "zeros" is 0.
        layout: "NCHW", or "NHWC" where the channels of the images are last.
        out: Array like `image` to write to, for several images a list or tuple of as many; None
            allocates.
        threads: Number of threads; None is the default.
        stream: CUDA stream of arrays on a device; None is the current one.

    Returns:
        An array of the image's dtype and shape, rounded half to even; `out` where it was given.
        For several images a list of them.

    Raises:
        InputTypeError: An argument has the wrong type or dtype.
        InputError: An argument has the wrong shape, layout or value.
    """
    zeros = choice("warp", "padding", padding, ("border", "zeros")) == "zeros"
    last = choice("warp", "layout", layout, ("NCHW", "NHWC")) == "NHWC"
    several = isinstance(image, (list, tuple))
    images = tuple(image) if several else (image,)
    if not 1 <= len(images) <= _MAX_IMAGES:
        raise InputError(f"warp: image must be 1 to {_MAX_IMAGES} images, got {len(images)}")
    if several and isinstance(out, list):
        out = tuple(out)
    outs = outputs("warp", out, len(images)) if several else (out,)
    results = _core.warp(images, flow, zeros, last, outs, threads_of("warp", threads), stream)
    return list(results) if several else results[0]


def warp_blend(
    image0: Any,
    image1: Any,
    flow: Any,
    mask: Any,
    *,
    residual: Any = None,
    out: Any = None,
    out_dtype: str | None = None,
    threads: int | None = None,
    stream: int | None = None,
) -> NDArray[Any]:
    """Warps two images to one moment and blends them: the last step of frame interpolation.

    `out = clamp(s * warp(image0, flow[:, 0:2]) + (1 - s) * warp(image1, flow[:, 2:4]) + residual)`
    to [0, 1], with `s = sigmoid(mask)` and border padding, in one pass over the images.

    Args:
        image0: float32, float16 or bfloat16 (N, 3, H, W), RGB in [0, 1].
        image1: The same, of the same dtype.
        flow: float32 (N, 4, h, w): dx, dy into image0, then dx, dy into image1, in pixels of the
            images; coarser ones as in `warp`.
        mask: float32 (N, 1, h, w), a logit: large where image0 counts. Upsampled like the flow,
            before the sigmoid. Where it is NaN, image0 is taken.
        residual: (N, 3, H, W) of the images' dtype, added to the blend; None adds nothing.
        out: Array of the result's dtype and shape to write to; None allocates.
        out_dtype: None or the images' dtype for (N, 3, H, W) in [0, 1], rounded half to even to
            it; or "uint8" for frames (N, H, W, 3), `round_half_even(255 * out)`, or "uint16" with
            65535. A NaN becomes 0.
        threads: Number of threads; None is the default.
        stream: CUDA stream of arrays on a device; None is the current one.

    Returns:
        (N, 3, H, W) of the images' dtype, or frames (N, H, W, 3); `out` where it was given.

    Raises:
        InputTypeError: An argument has the wrong type or dtype.
        InputError: An argument has the wrong shape, layout or value.
    """
    if out_dtype is not None:
        allowed = ("float32", "float16", "bfloat16", "uint8", "uint16")
        choice("warp_blend", "out_dtype", out_dtype, allowed)
    return _core.warp_blend(
        image0,
        image1,
        flow,
        mask,
        residual,
        out,
        out_dtype,
        threads_of("warp_blend", threads),
        stream,
    )


def softmax_splat(
    image: NDArray[Any],
    flow: NDArray[np.float32],
    metric: NDArray[np.float32] | None = None,
    *,
    mode: str = "softmax",
    deterministic: bool = False,
    out: Any = None,
    workspace: Any = None,
    threads: int | None = None,
    stream: int | None = None,
) -> NDArray[Any]:
    """Warps images forwards by a flow in pixels: every pixel is dropped where its flow says.

    The pixel at `(y, x)` gives each of the four pixels around `(y + dy, x + dx)` its bilinear
    share b, `(dx, dy) = flow[n, :, y, x]`, with a weight w. What gathers in a pixel is divided by
    its weights: `sum(w * b * image) / sum(w * b)`. What lands outside the image is lost, and a
    pixel that nothing reaches is 0. Source: Niklaus and Liu, Softmax Splatting for Video Frame
    Interpolation, 2020.

    Args:
        image: float32, float16 or bfloat16 (N, C, H, W), any range; sums are float32. A value
            that is not finite makes what it reaches not finite.
        flow: float32 (N, 2, H, W) in pixels, dx first. A pixel whose flow is not finite gives
            nothing.
        metric: float32 (N, 1, H, W), for modes "softmax" and "linear" only. Of pixels that meet,
            the one with the larger metric covers the others. A pixel whose metric is not finite
            gives nothing.
        mode: "softmax": w is exp(metric); metrics more than 80 below the largest of the image
            count as 80 below. "linear": w is metric; a pixel whose weights add up to within
            1e-30 of 0 becomes 0. "average": w is 1. "sum": w is 1, and nothing is divided.
        deterministic: Equal bits in every run on CUDA, where sums otherwise depend on chance in
            their last bits. The CPU always gives equal bits.
        out: Array of the image's dtype and shape to write to; None allocates.
        workspace: uint8 array on the CUDA device with the bytes that `softmax_splat_workspace`
            says, aligned to 16; None takes them from the device's memory pool. Not on the CPU.
        threads: Number of threads; None is the default.
        stream: CUDA stream of arrays on a device; None is the current one.

    Returns:
        (N, C, H, W) of the image's dtype; `out` where it was given.

    Raises:
        InputTypeError: An argument has the wrong type or dtype.
        InputError: An argument has the wrong shape, layout or value.
    """
    op = "softmax_splat"
    choice(op, "mode", mode, _SPLAT_MODES)
    return _core.softmax_splat(
        image,
        flow,
        metric,
        mode,
        bool(deterministic),
        out,
        workspace,
        threads_of(op, threads),
        stream,
    )


def softmax_splat_workspace(
    channels: int, height: int, width: int, *, mode: str = "softmax", deterministic: bool = False
) -> int:
    """Bytes of device memory that `softmax_splat` needs on CUDA; the batch does not matter.

    Args:
        channels: Channels of the image.
        height: Its height.
        width: Its width.
        mode: As for `softmax_splat`.
        deterministic: As for `softmax_splat`.

    Raises:
        InputTypeError: An argument has the wrong type.
        InputError: An argument has the wrong value.
    """
    op = "softmax_splat_workspace"
    for name, value in (("channels", channels), ("height", height), ("width", width)):
        integer(op, name, value, 0, 2**24)
    choice(op, "mode", mode, _SPLAT_MODES)
    return _core.softmax_splat_workspace(channels, height, width, mode, bool(deterministic))


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
    stream: int | None = None,
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
        stream: CUDA stream of arrays on a device; None is the current one.

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
        stream,
    )
    return forward, backward
