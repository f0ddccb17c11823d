"""The ops' calls on a GPU, each with what a user of torch would write instead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from gpu_clock import Machine

from fastvid import ops

Tensor = torch.Tensor


@dataclass
class Comparison:
    """One call on one size; `nbytes` is the least it reads and writes."""

    nbytes: int
    fastvid: Callable[[], Tensor]
    torch: Callable[[], Tensor] | None
    """None where torch has no formula: the answer is held to the op on the CPU instead."""
    tolerance: float
    on_cpu: Callable[[], Tensor] | None = None


def size(*tensors: Tensor) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def flow_like(n: int, height: int, width: int, device: str) -> Tensor:
    """A pan, a zoom and slow waves, up to about 20 pixels."""
    y, x = torch.meshgrid(
        torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
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
    return torch_frames(first * share + second * (1 - share))


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


def torch_luma(frames: Tensor) -> tuple[Tensor, Tensor]:
    red, green, blue = (frames.float() / 255).unbind(-1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return luma[:, None], torch.stack([(blue - luma) / 1.772, (red - luma) / 1.402], 1)


def torch_join(luma: Tensor, chroma: Tensor) -> Tensor:
    chroma = F.interpolate(chroma, size=luma.shape[2:], mode="bilinear", align_corners=False)
    y, blue, red = luma[:, 0], 1.772 * chroma[:, 0], 1.402 * chroma[:, 1]
    green = y - (0.114 * blue + 0.299 * red) / 0.587
    return torch_frames(torch.stack([y + red, green, y + blue], 1))


def torch_frames(planes: Tensor) -> Tensor:
    return (planes.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).contiguous()


def torch_from_yuv(y: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """BT.709, limited range."""
    chroma = torch.stack([u, v]).float().sub(128).div(224)[None]
    blue, red = F.interpolate(chroma, size=y.shape, mode="bilinear", align_corners=False)[0]
    luma = (y.float() - 16) / 219
    rgb = torch.stack(
        [luma + 1.5748 * red, luma - 0.187324 * blue - 0.468124 * red, luma + 1.8556 * blue], -1
    )
    return (rgb.clamp(0, 1) * 255).round().byte()


def torch_to_yuv(rgb: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    red, green, blue = (rgb.float() / 255).unbind(-1)
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    chroma = torch.stack([(blue - luma) / 1.8556, (red - luma) / 1.5748])
    chroma = F.avg_pool2d(chroma[None], 2)[0]
    u, v = (chroma * 224 + 128).round().clamp(16, 240).byte()
    return (luma * 219 + 16).round().clamp(16, 235).byte(), u, v


def torch_temporal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    b, t, s, h, d = q.shape
    q, k, v = (x.permute(0, 2, 3, 1, 4).reshape(b * s, h, t, d) for x in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v)
    return out.reshape(b, s, h, t, d).permute(0, 3, 1, 2, 4).contiguous()


def torch_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).contiguous()


def comparison(m: Machine, spec: dict[str, Any]) -> Comparison:
    """The case that a row of `gpu_rows` describes."""
    spec = dict(spec)
    made: Comparison = _CASES[spec.pop("op")](m, **_small(spec) if m.dry else spec)
    return made


def _small(spec: dict[str, Any]) -> dict[str, Any]:
    tiny = {"n": 2, "height": 24, "width": 40, "places": 6}
    return {key: tiny.get(key, value) for key, value in spec.items()}


def _dtype(name: str) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def warp(m: Machine, n: int, height: int, width: int, dtype: str) -> Comparison:
    image = torch.rand(n, 3, height, width, device=m.device).to(_dtype(dtype))
    flow, out = flow_like(n, height, width, m.device), torch.empty_like(image)
    return Comparison(
        size(image, flow, out),
        lambda: ops.warp(image, flow, out=out),
        lambda: torch_warp(image, flow),
        2e-3,
    )


def warp_blend(m: Machine, n: int, height: int, width: int, dtype: str) -> Comparison:
    shape = (n, 3, height, width)
    image0, image1 = (torch.rand(shape, device=m.device).to(_dtype(dtype)) for _ in "01")
    flow = flow_like(n, height, width, m.device)
    both, mask = torch.cat([flow, -flow], 1), torch.randn(n, 1, height, width, device=m.device)
    frames = torch.empty(n, height, width, 3, dtype=torch.uint8, device=m.device)
    return Comparison(
        size(image0, image1, both, mask, frames),
        lambda: ops.warp_blend(image0, image1, both, mask, out=frames, out_dtype="uint8"),
        lambda: torch_blend(image0, image1, both, mask),
        1,
    )


def softmax_splat(m: Machine, height: int, width: int) -> Comparison:
    image = torch.rand(1, 3, height, width, device=m.device)
    flow = flow_like(1, height, width, m.device)
    metric, out = torch.randn(1, 1, height, width, device=m.device), torch.empty_like(image)
    return Comparison(
        size(image, flow, metric, out),
        lambda: ops.softmax_splat(image, flow, metric, out=out),
        lambda: torch_splat(image, flow, metric),
        1e-2,
    )


def inverse_search(m: Machine, height: int, width: int) -> Comparison:
    """Two views of one smooth picture, 3 and 1 pixels apart."""
    y, x = torch.meshgrid(torch.arange(height + 4), torch.arange(width + 4), indexing="ij")
    picture = 0.5 + 0.2 * torch.sin(x / 3.1 + y / 17) + 0.2 * torch.cos(y / 4.3 - x / 23)
    views = [picture[a : a + height, b : b + width] for a, b in ((0, 0), (1, 3))]
    luma = [view[None, None].contiguous() for view in views]
    device = [view.to(m.device) for view in luma]
    out = tuple(torch.empty(1, 2, height, width, device=m.device) for _ in "01")
    on_cpu = tuple(torch.empty(1, 2, height, width) for _ in "01")
    return Comparison(
        size(*device, *out),
        lambda: ops.inverse_search(*device, out=out)[0],
        None,
        0.5,
        lambda: ops.inverse_search(*luma, out=on_cpu)[0],
    )


def qk_norm_rope(m: Machine, dtype: str) -> Comparison:
    tokens = m.pick(32760, 20)
    shape = (1, tokens, 12, 128)
    q, k = (torch.randn(shape, device=m.device).to(_dtype(dtype)) for _ in "qk")
    weight = torch.rand(12 * 128, device=m.device)
    angle = torch.rand(tokens, 64, device=m.device) * 6
    cos, sin = angle.cos(), angle.sin()
    outputs = torch.empty_like(q), torch.empty_like(k)
    return Comparison(
        2 * size(q, k) + size(cos, sin),
        lambda: ops.qk_norm_rope(q, k, weight, weight, cos, sin, out=outputs)[1],
        lambda: [torch_norm_rope(x, weight, cos, sin) for x in (q, k)][1],
        4e-2,
    )


def temporal_attention(m: Machine, places: int, dtype: str) -> Comparison:
    shape = (1, 16, places, 12, 64)
    q, k, v = (torch.randn(shape, device=m.device).to(_dtype(dtype)) for _ in "qkv")
    out = torch.empty_like(q)
    return Comparison(
        size(q, k, v, out),
        lambda: ops.temporal_attention(q, k, v, out=out),
        lambda: torch_temporal(q, k, v),
        4e-2,
    )


def attention(m: Machine, dtype: str) -> Comparison:
    shape = (1, m.pick(4096, 16), 12, 64)
    q, k, v = (torch.randn(shape, device=m.device).to(_dtype(dtype)) for _ in "qkv")
    out = torch.empty_like(q)
    return Comparison(
        size(q, k, v, out),
        lambda: ops.attention(q, k, v, out=out),
        lambda: torch_attention(q, k, v),
        4e-2,
    )


def _latents(m: Machine) -> tuple[int, ...]:
    shape: tuple[int, ...] = m.pick((16, 21, 90, 160), (4, 3, 6, 10))
    return shape


def scheduler_step(m: Machine) -> Comparison:
    sample, cond, uncond = (torch.randn(_latents(m), device=m.device) for _ in "123")
    out = torch.empty_like(sample)
    return Comparison(
        size(sample, cond, uncond, out),
        lambda: ops.scheduler_step(
            [[-0.05, 1.0]], [cond, sample], uncond=uncond, guidance_scale=5.0, out=(out,)
        )[0],
        lambda: sample - 0.05 * (uncond + 5.0 * (cond - uncond)),
        1e-4,
    )


def randn(m: Machine) -> Comparison:
    out = torch.empty(_latents(m), device=m.device)
    same = torch.empty(_latents(m))
    return Comparison(
        size(out),
        lambda: ops.randn(tuple(out.shape), seed=7, out=out),
        lambda: torch.randn(out.shape, device=m.device),
        0,
        lambda: ops.randn(tuple(same.shape), seed=7, out=same),
    )


def _frames(m: Machine, n: int, height: int, width: int) -> Tensor:
    """Smooth pictures."""
    y = torch.arange(height, device=m.device)[:, None, None] / max(height, 400)
    x = torch.arange(width, device=m.device)[:, None] / max(width, 400)
    phase = torch.arange(3 * n, device=m.device).view(n, 1, 1, 3)
    return (127.5 + 100 * torch.sin(6 * (x + y) + phase)).round().byte().contiguous()


def rgb_to_planar(m: Machine, n: int, height: int, width: int) -> Comparison:
    frames = _frames(m, n, height, width)
    out = torch.empty(n, 3, height, width, device=m.device)
    return Comparison(
        size(frames, out),
        lambda: ops.rgb_to_planar(frames, out=out),
        lambda: frames.permute(0, 3, 1, 2).contiguous().float() / 255,
        1e-6,
    )


def planar_to_rgb(m: Machine, n: int, height: int, width: int) -> Comparison:
    planes = torch.rand(n, 3, height, width, device=m.device)
    out = torch.empty(n, height, width, 3, dtype=torch.uint8, device=m.device)
    return Comparison(
        size(planes, out),
        lambda: ops.planar_to_rgb(planes, out=out),
        lambda: torch_frames(planes),
        1,
    )


def rgb_to_luma(m: Machine, n: int, height: int, width: int) -> Comparison:
    frames = _frames(m, n, height, width)
    out = tuple(torch.empty(n, c, height, width, device=m.device) for c in (1, 2))
    return Comparison(
        size(frames, *out),
        lambda: ops.rgb_to_luma(frames, out=out)[1],
        lambda: torch_luma(frames)[1],
        1e-5,
    )


def luma_to_rgb(m: Machine, n: int, height: int, width: int) -> Comparison:
    """Luma at the size that is named, chroma at half of it, as in upscaling."""
    luma = torch.rand(n, 1, height, width, device=m.device)
    chroma = torch.rand(n, 2, height // 2, width // 2, device=m.device) * 0.2 - 0.1
    out = torch.empty(n, height, width, 3, dtype=torch.uint8, device=m.device)
    return Comparison(
        size(luma, chroma, out),
        lambda: ops.luma_to_rgb(luma, chroma, out=out),
        lambda: torch_join(luma, chroma),
        1,
    )


def downscale(m: Machine, n: int, height: int, width: int) -> Comparison:
    planes = torch.rand(n, 3, height, width, device=m.device)
    out = torch.empty(n, 3, height // 2, width // 2, device=m.device)
    return Comparison(
        size(planes, out),
        lambda: ops.downscale(planes, 2, out=out),
        lambda: F.avg_pool2d(planes, 2),
        1e-6,
    )


def yuv_to_rgb(m: Machine, height: int, width: int) -> Comparison:
    planes = torch_to_yuv(_frames(m, 1, height, width)[0])
    out = torch.empty(height, width, 3, dtype=torch.uint8, device=m.device)
    return Comparison(
        size(*planes, out),
        lambda: ops.yuv_to_rgb(*planes, out=out),
        lambda: torch_from_yuv(*planes),
        6,  # torch's interpolation knows no chroma beside the left column
    )


def rgb_to_yuv(m: Machine, height: int, width: int) -> Comparison:
    frame = _frames(m, 1, height, width)[0]
    luma = torch.empty(height, width, dtype=torch.uint8, device=m.device)
    chroma = [luma.new_empty(height // 2, width // 2) for _ in "uv"]
    return Comparison(
        size(frame, luma, *chroma),
        lambda: ops.rgb_to_yuv(frame, out=(luma, *chroma))[0],
        lambda: torch_to_yuv(frame)[0],
        1,
    )


_CASES: dict[str, Callable[..., Comparison]] = {
    make.__name__: make
    for make in (
        attention,
        downscale,
        inverse_search,
        luma_to_rgb,
        planar_to_rgb,
        qk_norm_rope,
        randn,
        rgb_to_luma,
        rgb_to_planar,
        rgb_to_yuv,
        scheduler_step,
        softmax_splat,
        temporal_attention,
        warp,
        warp_blend,
        yuv_to_rgb,
    )
}
