"""Forward warping by optical flow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastvid import ops as compiled
from fastvid.errors import InputError
from fastvid_export.ops._library import define

_WITH_METRIC, _WITHOUT_METRIC = ("softmax", "linear"), ("average", "sum")
# The numbers of the compiled op: weights that are holes, and the scale of softmax weights, which
# keeps the smallest, e^-80, above them.
_HOLE, _LOWEST, _SCALE = 1e-30, -80.0, 2.0**64


def _weights(flow: Tensor, metric: Tensor | None, mode: str) -> tuple[Tensor, Tensor, Tensor]:
    """What each pixel gives, 0 for one that gives nothing.

    Returns:
        The weights (N, 1, H, W), their derivatives by the metric, the flow with 0 where they are 0.
    """
    counts = flow.isfinite().all(1, keepdim=True)
    weight = slope = torch.ones_like(flow[:, :1])
    if metric is not None:
        finite = metric.isfinite()
        counts = counts & finite
        weight = metric.to(flow.dtype)
        if mode == "softmax":
            # The largest cancels in the quotient, so that it counts as constant.
            peak = torch.where(finite, weight, -torch.inf).amax((2, 3), keepdim=True)
            below = weight - peak
            weight = below.clamp(min=_LOWEST).exp() * _SCALE
            slope = torch.where(below > _LOWEST, weight, 0)
    weight, slope, flow = (torch.where(counts, a, 0) for a in (weight, slope, flow))
    return weight, slope, flow


@dataclass(frozen=True)
class _Corner:
    """One of the four pixels around where each pixel lands."""

    index: Tensor
    """(N, H * W), of a pixel inside the image."""
    share: Tensor
    """(N, 1, H * W), bilinear; 0 for a corner outside."""
    by_x: Tensor
    """Its derivatives."""
    by_y: Tensor


def _corners(flow: Tensor) -> Iterator[_Corner]:
    n, _, height, width = flow.shape
    xs = torch.arange(width, device=flow.device, dtype=flow.dtype)
    ys = torch.arange(height, device=flow.device, dtype=flow.dtype)[:, None]
    # Beyond what reaches the image, all places are alike.
    x = (xs + flow[:, 0]).clamp(-2, width + 1).reshape(n, -1)
    y = (ys + flow[:, 1]).clamp(-2, height + 1).reshape(n, -1)
    x0, y0 = x.floor(), y.floor()
    for down in (0, 1):
        for right in (0, 1):
            column, row = x0 + right, y0 + down
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            index = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
            across = x - x0 if right else 1 - (x - x0)
            along = y - y0 if down else 1 - (y - y0)
            share, by_x, by_y = (
                torch.where(inside, part, 0)[:, None]
                for part in (
                    across * along,
                    along if right else -along,
                    across if down else -across,
                )
            )
            yield _Corner(index.long(), share, by_x, by_y)


def _definition(
    image: Tensor, flow: Tensor, metric: Tensor | None, mode: str, deterministic: bool
) -> Tensor:
    n, c, height, width = image.shape
    weight, _, flow = _weights(flow, metric, mode)
    values = torch.cat([image.to(flow.dtype), torch.ones_like(weight)], 1) * weight
    values = values.reshape(n, c + 1, -1)
    sums = torch.zeros_like(values)
    for corner in _corners(flow):
        index = corner.index[:, None].expand(-1, c + 1, -1)
        sums = sums.scatter_add(2, index, corner.share * values)
    total, weights = sums.reshape(n, c + 1, height, width).split([c, 1], 1)
    if mode != "sum":
        total = torch.where(weights.abs() > _HOLE, total / weights, 0)
    return total.to(image.dtype)


def _like_image(
    image: Tensor, flow: Tensor, metric: Tensor | None, mode: str, deterministic: bool
) -> Tensor:
    return image.new_empty(image.shape)


def _compute(
    out: Tensor,
    image: Tensor,
    flow: Tensor,
    metric: Tensor | None,
    mode: str,
    deterministic: bool,
    stream: int | None,
) -> Any:
    return compiled.softmax_splat(
        image, flow, metric, mode=mode, deterministic=deterministic, out=out, stream=stream
    )


_softmax_splat = define("softmax_splat", _definition, allocate=_like_image, compute=_compute)


def _context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    image, flow, metric, ctx.mode, ctx.deterministic = inputs
    ctx.save_for_backward(image, flow, metric, output)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """A sum that gathers what is scattered has a gradient that reads it back from where it landed.

    With out = S / W, S = sum(w * b * v) and W = sum(w * b): the gradient of S is grad / W, that of
    W is -sum(out * grad) / W over the channels, and both reach w, b and v by the products.
    """
    image, flow, metric, out = ctx.saved_tensors
    n, c, height, width = image.shape
    weight, slope, flow = _weights(flow, metric, ctx.mode)
    grad = grad.to(flow.dtype)
    by_weights = torch.zeros_like(weight)
    if ctx.mode != "sum":
        weights = _softmax_splat(weight, flow, None, "sum", ctx.deterministic)
        grad = torch.where(weights.abs() > _HOLE, grad / weights, 0)
        by_weights = -(out.to(flow.dtype) * grad).sum(1, keepdim=True)
    by_sums = torch.cat([grad, by_weights], 1).reshape(n, c + 1, -1)
    values = torch.cat([image.to(flow.dtype), torch.ones_like(weight)], 1).reshape(n, c + 1, -1)
    weight = weight.reshape(n, 1, -1)
    by_values, by_weight, by_x, by_y = (torch.zeros_like(a) for a in (values, *3 * [weight]))
    for corner in _corners(flow):
        index = corner.index[:, None].expand(-1, c + 1, -1)
        read = by_sums.gather(2, index)
        by_share = (read * values).sum(1, keepdim=True)
        by_values = by_values + corner.share * read
        by_weight = by_weight + corner.share * by_share
        by_x = by_x + corner.by_x * by_share
        by_y = by_y + corner.by_y * by_share
    shape = (n, -1, height, width)
    by_flow = (torch.cat([by_x, by_y], 1) * weight).reshape(shape)
    by_image = (by_values[:, :c] * weight).reshape(shape).to(image.dtype)
    by_metric = None if metric is None else by_weight.reshape(shape) * slope
    return by_image, by_flow, by_metric, None, None


_softmax_splat.register_autograd(_backward, setup_context=_context)


def softmax_splat(
    image: Tensor,
    flow: Tensor,
    metric: Tensor | None = None,
    *,
    mode: str = "softmax",
    deterministic: bool = False,
) -> Tensor:
    """Forward warp: the pixel at (y, x) is dropped at (y + dy, x + dx), as the op of that name.

    Args:
        image: (N, C, H, W).
        flow: float32 (N, 2, H, W) in pixels, dx then dy. float64 with a float64 image.
        metric: As flow, (N, 1, H, W), for the modes "softmax" and "linear" only.
        mode: "softmax" weighs pixels that meet by exp(metric), "linear" by metric, "average"
            alike, and "sum" adds them up without dividing by their weights.
        deterministic: Equal bits in every run on CUDA.

    Returns:
        (N, C, H, W), 0 where nothing lands, with gradients to image, flow and metric. The flow's
        is that of where pixels land, not of which pixels are reached.
    """
    if mode not in _WITH_METRIC + _WITHOUT_METRIC:
        names = ", ".join(_WITH_METRIC + _WITHOUT_METRIC)
        raise InputError(f"softmax_splat: mode must be one of {names}, got {mode!r}")
    if (metric is not None) != (mode in _WITH_METRIC):
        raise InputError(
            "softmax_splat: metric must be given for modes softmax and linear only, got "
            f"{'none' if metric is None else 'a tensor'} for mode {mode}"
        )
    return _softmax_splat(image, flow, metric, mode, deterministic)
