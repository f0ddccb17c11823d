"""Frames to what models work on, and back."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastvid import ops as compiled
from fastvid_export.ops._library import define


def _rgb_to_planar_definition(frames: Tensor) -> Tensor:
    return frames.permute(0, 3, 1, 2).to(torch.float32).div(255)


def _planes_like_frames(frames: Tensor) -> Tensor:
    n, h, w, c = frames.shape
    return frames.new_empty((n, c, h, w), dtype=torch.float32)


_rgb_to_planar = define(
    "rgb_to_planar",
    _rgb_to_planar_definition,
    allocate=_planes_like_frames,
    compute=lambda out, frames, stream: compiled.rgb_to_planar(frames, out=out, stream=stream),
)


def rgb_to_planar(frames: Tensor) -> Tensor:
    """uint8 (N, H, W, 3) to float32 (N, 3, H, W) in [0, 1]."""
    return _rgb_to_planar(frames)


def _planar_to_rgb_definition(x: Tensor) -> Tensor:
    return x.clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1)


def _frames_like_planes(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.new_empty((n, h, w, c), dtype=torch.uint8)


_planar_to_rgb = define(
    "planar_to_rgb",
    _planar_to_rgb_definition,
    allocate=_frames_like_planes,
    compute=lambda out, x, stream: compiled.planar_to_rgb(x, out=out, stream=stream),
)


def planar_to_rgb(x: Tensor) -> Tensor:
    """float32 (N, 3, H, W) to uint8 (N, H, W, 3), clamped, rounded half to even; no gradient."""
    return _planar_to_rgb(x.detach())


def _rgb_to_luma_definition(frames: Tensor) -> tuple[Tensor, Tensor]:
    red, green, blue = frames.to(torch.float32).div(255).unbind(-1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return luma[:, None], torch.stack([(blue - luma) / 1.772, (red - luma) / 1.402], 1)


def _luma_like_frames(frames: Tensor) -> tuple[Tensor, Tensor]:
    n, h, w, _ = frames.shape
    luma = frames.new_empty((n, 1, h, w), dtype=torch.float32)
    return luma, frames.new_empty((n, 2, h, w), dtype=torch.float32)


_rgb_to_luma = define(
    "rgb_to_luma",
    _rgb_to_luma_definition,
    allocate=_luma_like_frames,
    compute=lambda out, frames, stream: compiled.rgb_to_luma(frames, out=out, stream=stream),
)


def rgb_to_luma(frames: Tensor) -> tuple[Tensor, Tensor]:
    """Splits frames into BT.601 full-range luma and colour differences.

    Args:
        frames: uint8 (N, H, W, 3).

    Returns:
        Luma float32 (N, 1, H, W) in [0, 1]; chroma float32 (N, 2, H, W) in [-0.5, 0.5], blue first.
    """
    luma, chroma = _rgb_to_luma(frames)
    return luma, chroma


def _luma_to_rgb_definition(luma: Tensor, chroma: Tensor) -> Tensor:
    _, _, h, w = luma.shape
    if chroma.shape[-1] != w:
        chroma = F.interpolate(chroma, size=(h, w), mode="bilinear", align_corners=False)
    y, blue, red = luma[:, 0], 1.772 * chroma[:, 0], 1.402 * chroma[:, 1]
    green = y - (0.114 * blue + 0.299 * red) / 0.587
    return _planar_to_rgb_definition(torch.stack([y + red, green, y + blue], 1))


def _frames_like_luma(luma: Tensor, chroma: Tensor) -> Tensor:
    n, _, h, w = luma.shape
    return luma.new_empty((n, h, w, 3), dtype=torch.uint8)


def _compute_luma_to_rgb(out: Tensor, luma: Tensor, chroma: Tensor, stream: int | None) -> Any:
    return compiled.luma_to_rgb(luma, chroma, out=out, stream=stream)


_luma_to_rgb = define(
    "luma_to_rgb",
    _luma_to_rgb_definition,
    allocate=_frames_like_luma,
    compute=_compute_luma_to_rgb,
)


def luma_to_rgb(luma: Tensor, chroma: Tensor) -> Tensor:
    """Joins luma and chroma to frames; chroma is upsampled bilinearly to the size of luma.

    Args:
        luma: float32 (N, 1, sH, sW), any values; s in 1, 2, 3, 4.
        chroma: float32 (N, 2, H, W), as `rgb_to_luma` makes it.

    Returns:
        uint8 (N, sH, sW, 3), clamped, rounded half to even; without a gradient.
    """
    return _luma_to_rgb(luma.detach(), chroma.detach())


def _downscale_definition(x: Tensor, factor: int) -> Tensor:
    return F.avg_pool2d(x, factor)


def _smaller(x: Tensor, factor: int) -> Tensor:
    n, c, h, w = x.shape
    return x.new_empty((n, c, h // factor, w // factor))


def _compute_downscale(out: Tensor, x: Tensor, factor: int, stream: int | None) -> Any:
    return compiled.downscale(x, factor, out=out, stream=stream)


_downscale = define(
    "downscale", _downscale_definition, allocate=_smaller, compute=_compute_downscale
)


def _downscale_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.factor = inputs[1]


def _downscale_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    k = ctx.factor
    n, c, h, w = grad.shape
    spread = (grad / (k * k))[:, :, :, None, :, None].expand(n, c, h, k, w, k)
    return spread.reshape(n, c, h * k, w * k), None


_downscale.register_autograd(_downscale_backward, setup_context=_downscale_context)


def downscale(x: Tensor, factor: int) -> Tensor:
    """Means of square blocks: (N, C, H, W) to (N, C, H / factor, W / factor), factor 2, 4 or 8."""
    return _downscale(x, factor)
