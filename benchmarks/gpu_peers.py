"""The ops' calls on a GPU, each with what a user of torch would write instead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from fastvid import ops

Tensor = torch.Tensor


@dataclass
class Comparison:
    """One call on one size; `nbytes` is the least it reads and writes."""

    name: str
    nbytes: int
    fastvid: Callable[[], Tensor]
    torch: Callable[[], Tensor]
    tolerance: float


def size(*tensors: Tensor) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def flow_like(n: int, height: int, width: int) -> Tensor:
    """A pan, a zoom and slow waves, up to about 20 pixels."""
    y, x = torch.meshgrid(
        torch.arange(height, device="cuda"), torch.arange(width, device="cuda"), indexing="ij"
    )
    flow = torch.stack([7.3 + 0.02 * (x - width / 2), -4.2 + 0.02 * (y - height / 2)])
    return (flow + torch.sin(x / 90)).float().expand(n, 2, height, width).contiguous()


def torch_warp(image: Tensor, flow: Tensor) -> Tensor:
    """As under autocast, which samples in float32: coordinates of 16 bits are pixels off."""
    height, width = image.shape[2:]
    y = torch.arange(height, device=image.device, dtype=flow.dtype)[:, None]
    x = torch.arange(width, device=image.device, dtype=flow.dtype)
    grid = torch.stack(
        [(flow[:, 0] + x) * (2 / (width - 1)) - 1, (flow[:, 1] + y) * (2 / (height - 1)) - 1], -1
    )
    return F.grid_sample(
        image.float(), grid, mode="bilinear", padding_mode="border", align_corners=True
    ).to(image.dtype)


def torch_blend(image0: Tensor, image1: Tensor, flow: Tensor, mask: Tensor) -> Tensor:
    share = torch.sigmoid(mask)
    first, second = torch_warp(image0, flow[:, :2]), torch_warp(image1, flow[:, 2:])
    out = torch.clamp(first * share + second * (1 - share), 0, 1)
    return (out * 255).round().byte().permute(0, 2, 3, 1).contiguous()


def torch_splat(image: Tensor, flow: Tensor, metric: Tensor) -> Tensor:
    n, channels, height, width = image.shape
    y = torch.arange(height, device=image.device)[:, None] + flow[:, 1]
    x = torch.arange(width, device=image.device) + flow[:, 0]
    weight = torch.exp(metric - metric.amax((2, 3), keepdim=True))
    values = torch.cat([image * weight, weight], 1)
    total = torch.zeros(n, channels + 1, height * width, device=image.device)
    for down in (0, 1):
        for right in (0, 1):
            i, j = y.floor() + down, x.floor() + right
            share = (1 - (y - i).abs()) * (1 - (x - j).abs())
            inside = (i >= 0) & (i < height) & (j >= 0) & (j < width)
            share = torch.where(inside, share, 0)
            at = (i.clamp(0, height - 1) * width + j.clamp(0, width - 1)).long()
            at = at.flatten(1)[:, None].expand(-1, channels + 1, -1)
            total.scatter_add_(2, at, (values * share[:, None]).flatten(2))
    total = total.reshape(n, channels + 1, height, width)
    return total[:, :channels] / total[:, channels:].clamp_min(1e-20)


def torch_norm_rope(x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    y = F.rms_norm(x.flatten(2).float(), (weight.numel(),), weight, 1e-6).view(x.shape)
    first, second = y.unflatten(3, (-1, 2)).unbind(-1)
    c, s = cos[None, :, None], sin[None, :, None]
    return torch.stack([first * c - second * s, second * c + first * s], -1).flatten(3).to(x.dtype)


def torch_temporal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    b, t, s, h, d = q.shape
    q, k, v = (x.permute(0, 2, 3, 1, 4).reshape(b * s, h, t, d) for x in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v)
    return out.reshape(b, s, h, t, d).permute(0, 3, 1, 2, 4).contiguous()


def torch_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).contiguous()


def comparisons() -> Iterator[Comparison]:
    """Every op on the sizes it is for; each is made when the one before is done."""
    for dtype in (torch.float16, torch.float32):
        yield from warps(dtype)
    yield splat()
    for dtype in (torch.bfloat16, torch.float16):
        yield norm_rope(dtype)
        for frames, places in ((16, 1560), (16, 70_000)):
            yield temporal(dtype, frames, places)
        yield spatial(dtype)
    yield solver()
    yield noise()
    yield planar()


def warps(dtype: torch.dtype) -> Iterator[Comparison]:
    label = str(dtype).removeprefix("torch.")
    for n, height, width in ((1, 720, 1280), (8, 1080, 1920)):
        image0, image1 = (torch.rand(n, 3, height, width, device="cuda").to(dtype) for _ in "01")
        flow = flow_like(n, height, width)
        out = torch.empty_like(image0)
        yield Comparison(
            f"warp {n}x{height}p {label}",
            size(image0, flow, out),
            lambda i=image0, f=flow, o=out: ops.warp(i, f, out=o),
            lambda i=image0, f=flow: torch_warp(i, f),
            2e-3,
        )
        both, mask = torch.cat([flow, -flow], 1), torch.randn(n, 1, height, width, device="cuda")
        frames = torch.empty(n, height, width, 3, dtype=torch.uint8, device="cuda")
        yield Comparison(
            f"warp_blend {n}x{height}p {label} to uint8",
            size(image0, image1, both, mask, frames),
            lambda a=image0, b=image1, f=both, m=mask, o=frames: ops.warp_blend(
                a, b, f, m, out=o, out_dtype="uint8"
            ),
            lambda a=image0, b=image1, f=both, m=mask: torch_blend(a, b, f, m),
            1,
        )


def splat() -> Comparison:
    image, flow = torch.rand(1, 3, 720, 1280, device="cuda"), flow_like(1, 720, 1280)
    metric, out = torch.randn(1, 1, 720, 1280, device="cuda"), torch.empty_like(image)
    return Comparison(
        "softmax_splat 720p float32",
        size(image, flow, metric, out),
        lambda: ops.softmax_splat(image, flow, metric, out=out),
        lambda: torch_splat(image, flow, metric),
        1e-2,
    )


def norm_rope(dtype: torch.dtype) -> Comparison:
    q, k = (torch.randn(1, 32760, 12, 128, device="cuda").to(dtype) for _ in "qk")
    weight = torch.rand(12 * 128, device="cuda")
    angle = torch.rand(32760, 64, device="cuda") * 6
    cos, sin = angle.cos(), angle.sin()
    outputs = torch.empty_like(q), torch.empty_like(k)
    return Comparison(
        f"qk_norm_rope 32760x12x128 {str(dtype).removeprefix('torch.')}",
        2 * size(q, k) + size(cos, sin),
        lambda: ops.qk_norm_rope(q, k, weight, weight, cos, sin, out=outputs)[1],
        lambda: (
            torch_norm_rope(q, weight, cos, sin),
            torch_norm_rope(k, weight, cos, sin),
        )[1],
        4e-2,
    )


def temporal(dtype: torch.dtype, frames: int, places: int) -> Comparison:
    q, k, v = (torch.randn(1, frames, places, 12, 64, device="cuda").to(dtype) for _ in "qkv")
    out = torch.empty_like(q)
    return Comparison(
        f"temporal_attention {frames}x{places}x12x64 {str(dtype).removeprefix('torch.')}",
        size(q, k, v, out),
        lambda: ops.temporal_attention(q, k, v, out=out),
        lambda: torch_temporal(q, k, v),
        4e-2,
    )


def spatial(dtype: torch.dtype) -> Comparison:
    q, k, v = (torch.randn(1, 4096, 12, 64, device="cuda").to(dtype) for _ in "qkv")
    out = torch.empty_like(q)
    return Comparison(
        f"attention 4096x12x64 {str(dtype).removeprefix('torch.')}",
        size(q, k, v, out),
        lambda: ops.attention(q, k, v, out=out),
        lambda: torch_attention(q, k, v),
        4e-2,
    )


def solver() -> Comparison:
    sample, cond, uncond = (torch.randn(16, 21, 90, 160, device="cuda") for _ in "123")
    out = torch.empty_like(sample)
    return Comparison(
        "scheduler_step Euler with guidance 16x21x90x160 float32",
        size(sample, cond, uncond, out),
        lambda: ops.scheduler_step(
            [[-0.05, 1.0]], [cond, sample], uncond=uncond, guidance_scale=5.0, out=(out,)
        )[0],
        lambda: sample - 0.05 * (uncond + 5.0 * (cond - uncond)),
        1e-4,
    )


def noise() -> Comparison:
    out = torch.empty(16, 21, 90, 160, device="cuda")
    return Comparison(
        "randn 16x21x90x160 float32",
        size(out),
        lambda: ops.randn(tuple(out.shape), seed=7, out=out),
        lambda: torch.randn(16, 21, 90, 160, device="cuda"),
        float("inf"),  # another noise; the tests hold it to the CPU's bits
    )


def planar() -> Comparison:
    frames = torch.randint(0, 256, (8, 1080, 1920, 3), dtype=torch.uint8, device="cuda")
    out = torch.empty(8, 3, 1080, 1920, device="cuda")
    return Comparison(
        "rgb_to_planar 8x1080p",
        size(frames, out),
        lambda: ops.rgb_to_planar(frames, out=out),
        lambda: frames.permute(0, 3, 1, 2).contiguous().float() / 255,
        1e-6,
    )
