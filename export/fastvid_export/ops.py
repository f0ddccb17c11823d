"""The project's ops inside PyTorch: differentiable in training, `fastvid` nodes in an export."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fastvid import ops as compiled


def _node(
    name: str,
    inputs: Sequence[Tensor],
    dtype: torch.dtype,
    shape: Sequence[int | torch.SymInt],
    **attributes: int,
) -> Tensor:
    return torch.onnx.ops.symbolic(
        f"fastvid::{name}", inputs, attributes, dtype=dtype, shape=shape, version=1
    )


def rgb_to_planar(frames: Tensor) -> Tensor:
    """uint8 (N, H, W, 3) to float32 (N, 3, H, W) in [0, 1]."""
    if torch.onnx.is_in_onnx_export():
        n, h, w, _ = frames.shape
        return _node("RgbToPlanar", (frames,), torch.float32, (n, 3, h, w))
    return frames.permute(0, 3, 1, 2).to(torch.float32).div(255)


def planar_to_rgb(x: Tensor) -> Tensor:
    """float32 (N, 3, H, W) to uint8 (N, H, W, 3), clamped, rounded half to even."""
    if torch.onnx.is_in_onnx_export():
        n, _, h, w = x.shape
        return _node("PlanarToRgb", (x,), torch.uint8, (n, h, w, 3))
    return x.clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1)


def rgb_to_luma(frames: Tensor) -> tuple[Tensor, Tensor]:
    """Splits frames into BT.601 full-range luma and colour differences.

    Args:
        frames: uint8 (N, H, W, 3).

    Returns:
        Luma float32 (N, 1, H, W) in [0, 1]; chroma float32 (N, 2, H, W) in [-0.5, 0.5], blue first.
    """
    if torch.onnx.is_in_onnx_export():
        n, h, w, _ = frames.shape
        luma, chroma = torch.onnx.ops.symbolic_multi_out(
            "fastvid::RgbToLuma",
            (frames,),
            dtypes=(torch.float32, torch.float32),
            shapes=((n, 1, h, w), (n, 2, h, w)),
            version=1,
        )
        return luma, chroma
    red, green, blue = frames.to(torch.float32).div(255).unbind(-1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return luma[:, None], torch.stack([(blue - luma) / 1.772, (red - luma) / 1.402], 1)


def luma_to_rgb(luma: Tensor, chroma: Tensor) -> Tensor:
    """Joins luma and chroma to frames; chroma is upsampled bilinearly to the size of luma.

    Args:
        luma: float32 (N, 1, sH, sW), any values; s in 1, 2, 3, 4.
        chroma: float32 (N, 2, H, W), as `rgb_to_luma` makes it.

    Returns:
        uint8 (N, sH, sW, 3), clamped, rounded half to even.
    """
    n, _, h, w = luma.shape
    if torch.onnx.is_in_onnx_export():
        return _node("LumaToRgb", (luma, chroma), torch.uint8, (n, h, w, 3))
    if chroma.shape[-1] != w:
        chroma = F.interpolate(chroma, size=(h, w), mode="bilinear", align_corners=False)
    y, blue, red = luma[:, 0], 1.772 * chroma[:, 0], 1.402 * chroma[:, 1]
    green = y - (0.114 * blue + 0.299 * red) / 0.587
    return planar_to_rgb(torch.stack([y + red, green, y + blue], 1))


def downscale(x: Tensor, factor: int) -> Tensor:
    """Means of square blocks: (N, C, H, W) to (N, C, H / factor, W / factor), factor 2, 4 or 8."""
    if torch.onnx.is_in_onnx_export():
        n, c, h, w = x.shape
        shape = (n, c, h // factor, w // factor)
        return _node("Downscale", (x,), x.dtype, shape, factor=factor)
    return F.avg_pool2d(x, factor)


def inverse_search(luma0: Tensor, luma1: Tensor) -> Tensor:
    """Dense flow between two images, both ways; it has no gradient.

    Args:
        luma0: float32 (N, 1, H, W) in [0, 1].
        luma1: The same.

    Returns:
        float32 (N, 4, H, W): flow 0 to 1, then 1 to 0, in pixels.
    """
    if torch.onnx.is_in_onnx_export():
        n, _, h, w = luma0.shape
        flows = torch.onnx.ops.symbolic_multi_out(
            "fastvid::InverseSearch",
            (luma0, luma1),
            dtypes=(torch.float32, torch.float32),
            shapes=((n, 2, h, w), (n, 2, h, w)),
            version=1,
        )
    else:
        arrays = [x.detach().contiguous().numpy() for x in (luma0, luma1)]
        flows = [torch.from_numpy(f) for f in compiled.inverse_search(*arrays)]
    return torch.cat(list(flows), 1)


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """Backward bilinear warp with border padding: out[y, x] = image[y + dy, x + dx].

    Args:
        image: (N, C, H, W).
        flow: (N, 2, h, w) in pixels of the image, dx then dy; h = H / k, k in 1, 2, 4, 8.

    Returns:
        (N, C, H, W).
    """
    if torch.onnx.is_in_onnx_export():
        return _node("Warp", (image, flow), image.dtype, image.shape)
    _, _, height, width = image.shape
    if flow.shape[-1] != width:
        flow = F.interpolate(flow, size=(height, width), mode="bilinear", align_corners=False)
    xs = torch.arange(width, device=image.device, dtype=flow.dtype)
    ys = torch.arange(height, device=image.device, dtype=flow.dtype)[:, None]
    # grid_sample wants [-1, 1] between the centres of the outer pixels.
    x = (xs + flow[:, 0]) * (2 / max(width - 1, 1)) - 1
    y = (ys + flow[:, 1]) * (2 / max(height - 1, 1)) - 1
    grid = torch.stack([x, y], -1)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=True)


def warp_blend(
    image0: Tensor, image1: Tensor, flow: Tensor, mask: Tensor, *, as_frames: bool = False
) -> Tensor:
    """Warps both images and blends them, sigmoid(mask) of the first, clamped to [0, 1].

    Args:
        image0: (N, 3, H, W) in [0, 1].
        image1: The same.
        flow: (N, 4, h, w): of image0, then of image1, in pixels of the images; h = H / k.
        mask: (N, 1, h, w) logits.
        as_frames: Return frames instead of planes.

    Returns:
        (N, 3, H, W) in [0, 1], or uint8 (N, H, W, 3) with `as_frames`.
    """
    if torch.onnx.is_in_onnx_export():
        n, c, h, w = image0.shape
        shape = (n, h, w, c) if as_frames else (n, c, h, w)
        dtype = torch.uint8 if as_frames else image0.dtype
        inputs = (image0, image1, flow, mask)
        return _node("WarpBlend", inputs, dtype, shape, output_uint8=int(as_frames))
    size = (image0.shape[-2], image0.shape[-1])
    if flow.shape[-1] != size[1]:
        both = F.interpolate(
            torch.cat([flow, mask], 1), size=size, mode="bilinear", align_corners=False
        )
        flow, mask = both[:, :4], both[:, 4:]
    share = torch.sigmoid(mask)
    blend = share * warp(image0, flow[:, :2]) + (1 - share) * warp(image1, flow[:, 2:])
    blend = blend.clamp(0, 1)
    return planar_to_rgb(blend) if as_frames else blend
