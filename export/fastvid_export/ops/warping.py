"""Warping by optical flow, and the flow itself."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastvid import ops as compiled
from fastvid._ops.checks import choice
from fastvid.errors import InputError, InputTypeError
from fastvid_export.ops._library import define
from fastvid_export.ops.frames import planar_to_rgb

_BILINEAR, _ZEROS, _BORDER = 0, 0, 1  # as ATen's grid sampler numbers them


def inverse_search(
    luma0: Tensor, luma1: Tensor, *, iterations: int = 8, stride: int = 4, finest: int = 0
) -> Tensor:
    """Dense flow between two images, both ways; it has no gradient.

    Args:
        luma0: float32 (N, 1, H, W) in [0, 1].
        luma1: The same.
        iterations: Steps of a patch on each level, from 1 to 64.
        stride: Pixels between patches, from 1 to 8.
        finest: The level the search ends on: 0 is full size, 1 half, 2 a quarter.

    Returns:
        float32 (N, 4, H, W): flow 0 to 1, then 1 to 0, in pixels.
    """
    flows = _inverse_search(luma0.detach(), luma1.detach(), iterations, stride, finest)
    return torch.cat(list(flows), 1)


def _inverse_search_definition(
    luma0: Tensor, luma1: Tensor, iterations: int, stride: int, finest: int
) -> tuple[Tensor, Tensor]:
    raise InputTypeError(
        f"inverse_search: luma0 must be float32 on a device this build of fastvid has kernels for, "
        f"got {luma0.dtype} on {luma0.device}; the search has no formula in plain PyTorch"
    )


def _flows_like(
    luma0: Tensor, luma1: Tensor, iterations: int, stride: int, finest: int
) -> tuple[Tensor, Tensor]:
    n, _, h, w = luma0.shape
    return luma0.new_empty((n, 2, h, w)), luma0.new_empty((n, 2, h, w))


def _compute_inverse_search(
    out: Any,
    luma0: Tensor,
    luma1: Tensor,
    iterations: int,
    stride: int,
    finest: int,
    stream: int | None,
) -> Any:
    return compiled.inverse_search(
        luma0, luma1, iterations=iterations, stride=stride, finest=finest, out=out, stream=stream
    )


_inverse_search = define(
    "inverse_search",
    _inverse_search_definition,
    allocate=_flows_like,
    compute=_compute_inverse_search,
)


def _scale(field: Tensor, height: int, width: int) -> int:
    """How many times smaller a field is than its image."""
    for k in (1, 2, 4, 8):
        if tuple(field.shape[-2:]) == (-(-height // k), -(-width // k)):
            return k
    raise InputError(
        f"warp: flow must have shape ({height}, {width}), or height and width divided by 2, 4 or 8 "
        f"and rounded up, got {tuple(field.shape[-2:])}"
    )


def _full_size(field: Tensor, height: int, width: int) -> Tensor:
    """A field at the size of its image: bilinear, pixel centres at halves."""
    k = _scale(field, height, width)
    if k == 1:
        return field
    large = F.interpolate(field, scale_factor=float(k), mode="bilinear", align_corners=False)
    return large[:, :, :height, :width]


def _full_size_backward(grad: Tensor, field: Tensor) -> Tensor:
    """The adjoint of `_full_size`."""
    n, c, h, w = field.shape
    height, width = grad.shape[-2:]
    k = _scale(field, height, width)
    if k == 1:
        return grad
    grad = F.pad(grad, (0, w * k - width, 0, h * k - height))
    return torch.ops.aten.upsample_bilinear2d_backward(
        grad, (h * k, w * k), (n, c, h, w), False, float(k), float(k)
    )


def _grid(flow: Tensor, height: int, width: int) -> Tensor:
    """Where each pixel is read, in the coordinates of `grid_sample`; a NaN displaces by nothing."""
    flow = torch.where(flow.isnan(), 0, flow)
    xs = torch.arange(width, device=flow.device, dtype=flow.dtype)
    ys = torch.arange(height, device=flow.device, dtype=flow.dtype)[:, None]
    # grid_sample wants [-1, 1] between the centres of the outer pixels.
    x = (xs + flow[:, 0]) * (2 / max(width - 1, 1)) - 1
    y = (ys + flow[:, 1]) * (2 / max(height - 1, 1)) - 1
    return torch.stack([x, y], -1)


def _warp_definition(image: Tensor, flow: Tensor, zeros: bool, channels_last: bool) -> Tensor:
    if channels_last:
        planes = image.permute(0, 3, 1, 2)
        return _warp_definition(planes, flow, zeros, False).permute(0, 2, 3, 1)
    height, width = image.shape[-2:]
    grid = _grid(_full_size(flow, height, width), height, width)
    mode = "zeros" if zeros else "border"
    out = F.grid_sample(
        image.to(flow.dtype), grid, mode="bilinear", padding_mode=mode, align_corners=True
    )
    return (out.round() if image.dtype == torch.uint8 else out).to(image.dtype)


def _compute_warp(
    out: Tensor,
    image: Tensor,
    flow: Tensor,
    zeros: bool,
    channels_last: bool,
    stream: int | None,
) -> Any:
    padding, layout = "zeros" if zeros else "border", "NHWC" if channels_last else "NCHW"
    return compiled.warp(image, flow, padding=padding, layout=layout, out=out, stream=stream)


def _like_image(image: Tensor, flow: Tensor, zeros: bool, channels_last: bool) -> Tensor:
    return image.new_empty(image.shape)


_warp = define("warp", _warp_definition, allocate=_like_image, compute=_compute_warp)


def _warp_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    image, flow, ctx.zeros, ctx.channels_last = inputs
    ctx.save_for_backward(image, flow)


def _warp_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    image, flow = ctx.saved_tensors
    if ctx.channels_last:
        image, grad = image.permute(0, 3, 1, 2), grad.permute(0, 3, 1, 2)
    needed = ctx.needs_input_grad[:2]
    by_image, by_flow = _warp_gradients(grad, image, flow, ctx.zeros, *needed)
    if ctx.channels_last and by_image is not None:
        by_image = by_image.permute(0, 2, 3, 1)
    return by_image, by_flow, None, None


def _warp_gradients(
    grad: Tensor, image: Tensor, flow: Tensor, zeros: bool, of_image: bool, of_flow: bool
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of `warp` with respect to image and flow, each None where it is not wanted."""
    height, width = image.shape[-2:]
    full = _full_size(flow, height, width)
    by_image, by_grid = torch.ops.aten.grid_sampler_2d_backward(
        grad.to(flow.dtype),
        image.to(flow.dtype),
        _grid(full, height, width),
        _BILINEAR,
        _ZEROS if zeros else _BORDER,
        True,
        [of_image, of_flow],
    )
    by_flow = None
    if of_flow:
        steps = by_grid.new_tensor([2 / max(width - 1, 1), 2 / max(height - 1, 1)])
        by_full = torch.where(full.isnan(), 0, (by_grid * steps).permute(0, 3, 1, 2))
        by_flow = _full_size_backward(by_full, flow)
    return by_image.to(image.dtype) if of_image else None, by_flow


_warp.register_autograd(_warp_backward, setup_context=_warp_context)


def warp(image: Tensor, flow: Tensor, *, padding: str = "border", layout: str = "NCHW") -> Tensor:
    """Backward bilinear warp: out[y, x] = image[y + dy, x + dx].

    Args:
        image: (N, C, H, W) of a float dtype or uint8.
        flow: float32 (N, 2, h, w) in pixels of the image, dx then dy; h = ceil(H / k), k in 1, 2,
            4, 8. float64 with a float64 image.
        padding: What lies outside the image: "border" repeats its edge, "zeros" is 0.
        layout: "NCHW", or "NHWC" where the image is (N, H, W, C).

    Returns:
        Like the image, with gradients to image and flow.
    """
    zeros = choice("warp", "padding", padding, ("border", "zeros")) == "zeros"
    return _warp(image, flow, zeros, choice("warp", "layout", layout, ("NCHW", "NHWC")) == "NHWC")


def _warp_blend_definition(
    image0: Tensor,
    image1: Tensor,
    flow: Tensor,
    mask: Tensor,
    residual: Tensor | None,
    output_uint8: bool,
) -> Tensor:
    height, width = image0.shape[-2:]
    share = torch.sigmoid(_full_size(mask, height, width))
    flow = _full_size(flow, height, width)
    blend = share * _warp_definition(image0, flow[:, :2], False, False)
    blend = blend + (1 - share) * _warp_definition(image1, flow[:, 2:], False, False)
    if residual is not None:
        blend = blend + residual
    blend = blend.clamp(0, 1)
    return planar_to_rgb(blend) if output_uint8 else blend.to(image0.dtype)


def _blended_like(
    image0: Tensor,
    image1: Tensor,
    flow: Tensor,
    mask: Tensor,
    residual: Tensor | None,
    output_uint8: bool,
) -> Tensor:
    n, c, h, w = image0.shape
    if output_uint8:
        return image0.new_empty((n, h, w, c), dtype=torch.uint8)
    return image0.new_empty((n, c, h, w))


def _compute_warp_blend(
    out: Tensor,
    image0: Tensor,
    image1: Tensor,
    flow: Tensor,
    mask: Tensor,
    residual: Tensor | None,
    output_uint8: bool,
    stream: int | None,
) -> Any:
    dtype = str(out.dtype).removeprefix("torch.")
    return compiled.warp_blend(
        image0, image1, flow, mask, residual=residual, out=out, out_dtype=dtype, stream=stream
    )


_warp_blend = define(
    "warp_blend", _warp_blend_definition, allocate=_blended_like, compute=_compute_warp_blend
)


def _warp_blend_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.output_uint8 = inputs
    ctx.save_for_backward(*tensors)


def _warp_blend_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    image0, image1, flow, mask, residual = ctx.saved_tensors
    need0, need1, need_flow, need_mask, need_residual, _ = ctx.needs_input_grad
    height, width = image0.shape[-2:]
    forth, back = (part.contiguous() for part in flow.split(2, 1))
    logit = _full_size(mask, height, width)
    share = torch.sigmoid(logit)
    warped0, warped1 = _warp(image0, forth, False, False), _warp(image1, back, False, False)
    blend = share * warped0 + (1 - share) * warped1
    if residual is not None:
        blend = blend + residual
    grad = torch.where((blend >= 0) & (blend <= 1), grad, 0)
    by_image0, by_forth = _warp_gradients(grad * share, image0, forth, False, need0, need_flow)
    by_image1, by_back = _warp_gradients(grad * (1 - share), image1, back, False, need1, need_flow)
    by_flow = torch.cat([by_forth, by_back], 1) if need_flow else None
    by_mask = None
    if need_mask:
        slope = share * (1 - share) * (grad * (warped0 - warped1)).sum(1, keepdim=True)
        by_mask = _full_size_backward(slope, mask)
    by_residual = grad if need_residual else None
    return by_image0, by_image1, by_flow, by_mask, by_residual, None


_warp_blend.register_autograd(_warp_blend_backward, setup_context=_warp_blend_context)


def warp_blend(
    image0: Tensor,
    image1: Tensor,
    flow: Tensor,
    mask: Tensor,
    *,
    residual: Tensor | None = None,
    as_frames: bool = False,
) -> Tensor:
    """Warps both images and blends them, sigmoid(mask) of the first, clamped to [0, 1].

    Args:
        image0: (N, 3, H, W) in [0, 1].
        image1: The same.
        flow: (N, 4, h, w): of image0, then of image1, in pixels of the images; h = ceil(H / k).
        mask: (N, 1, h, w) logits.
        residual: (N, 3, H, W) added to the blend.
        as_frames: Return frames instead of planes.

    Returns:
        (N, 3, H, W) in [0, 1], with gradients to every tensor, or uint8 (N, H, W, 3) with
        `as_frames`.
    """
    return _warp_blend(image0, image1, flow, mask, residual, as_frames)
