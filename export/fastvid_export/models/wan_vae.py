"""The causal video autoencoder of Wan 2.1 and 2.2 (Wan Team 2025, arXiv:2503.20314).

Names in the state dict are those of `AutoencoderKLWan` in diffusers. Everything that crosses time
is a cache that goes in and comes out, so the first frame and each further latent are a graph each
(`wan_vae_graph.py`) and a clip of any length takes the memory of one latent. Frames are the batch:
a causal convolution is one in the plane over the channels of three frames together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastvid_export import ops

_BACK = 2
_LEAST = 1e-12
# Wider heads have no kernel.
_WIDEST_HEAD = 256


@dataclass(frozen=True)
class WanVaeOptions:
    """Shape of the network; names are those of diffusers' configuration."""

    base_dim: int = 96
    decoder_base_dim: int | None = None
    z_dim: int = 16
    dim_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    temperal_downsample: tuple[bool, ...] = (False, True, True)
    latents_mean: tuple[float, ...] = (0.0,) * 16
    latents_std: tuple[float, ...] = (1.0,) * 16
    is_residual: bool = False
    in_channels: int = 3
    out_channels: int = 3
    patch_size: int = 1

    @property
    def spatial(self) -> int:
        """Pixels of a latent's side."""
        return int(self.patch_size * 2 ** (len(self.dim_mult) - 1))

    @property
    def temporal(self) -> int:
        """Frames of a latent after the first."""
        return int(2 ** sum(self.temperal_downsample))


class Caches:
    """What passes from one latent to the next: each layer takes its own and gives the next.

    Args:
        incoming: In the order of the layers; None at the start of a clip.
    """

    def __init__(self, incoming: Sequence[Tensor] | None) -> None:
        self._incoming = None if incoming is None else iter(incoming)
        self.outgoing: list[Tensor] = []

    @property
    def started(self) -> bool:
        """Whether frames came before."""
        return self._incoming is not None

    def take(self) -> Tensor:
        """The next layer's."""
        assert self._incoming is not None
        return next(self._incoming)

    def give(self, cache: Tensor) -> None:
        """For the same layer, next time."""
        self.outgoing.append(cache)


class CausalConv(nn.Conv3d):
    """A convolution over the frames up to its own, (T, C, H, W) to (T, C', H, W)."""

    def forward(self, x: Tensor, caches: Caches | None = None) -> Tensor:
        """A kernel that is one frame long needs no caches."""
        if self.kernel_size[0] == 1:
            return self._plane(x, self.weight[:, :, 0])
        assert caches is not None
        if not caches.started:
            # What meets the zeros before the clip need not be computed.
            caches.give(torch.cat([torch.zeros_like(x), x]))
            return self._plane(x, self.weight[:, :, -1])
        window = torch.cat([caches.take(), x])
        caches.give(window[-_BACK:])
        return self.over(window, 1)

    def over(self, window: Tensor, step: int) -> Tensor:
        """Of frames with those before them, every `step`-th."""
        count = window.shape[0] - _BACK
        parts = [window[i : i + count : step] for i in range(1 + _BACK)]
        return self._plane(torch.cat(parts, 1), self.weight.transpose(1, 2).flatten(1, 2))

    def _plane(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(x, weight, self.bias, padding=(weight.shape[2] // 2, weight.shape[3] // 2))


def _conv(incoming: int, out: int, kernel: int | tuple[int, int, int]) -> CausalConv:
    return CausalConv(incoming, out, kernel)


class _Norm(nn.Module):
    """Each pixel's channels to length 1, then scaled."""

    def __init__(self, channels: int, dims: int = 3) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, *[1] * dims))

    def forward(self, x: Tensor) -> Tensor:
        channels = self.gamma.shape[0]
        length = x.pow(2).sum(1, keepdim=True).sqrt().clamp(min=_LEAST)
        return x / length * (channels**0.5 * self.gamma.reshape(channels, 1, 1))


class _ResidualBlock(nn.Module):
    def __init__(self, incoming: int, out: int) -> None:
        super().__init__()
        self.norm1 = _Norm(incoming)
        self.conv1 = _conv(incoming, out, 3)
        self.norm2 = _Norm(out)
        self.conv2 = _conv(out, out, 3)
        self.conv_shortcut = _conv(incoming, out, 1) if incoming != out else None

    def forward(self, x: Tensor, caches: Caches) -> Tensor:
        shortcut = x if self.conv_shortcut is None else self.conv_shortcut(x)
        h = self.conv1(F.silu(self.norm1(x)), caches)
        return shortcut + self.conv2(F.silu(self.norm2(h)), caches)


class _Attention(nn.Module):
    """Of the pixels of a frame to each other."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _Norm(channels, 2)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.to_qkv(self.norm(x)).flatten(2).transpose(1, 2).chunk(3, -1)
        if x.shape[1] <= _WIDEST_HEAD:
            seen = ops.attention(*(y[:, :, None].contiguous() for y in (q, k, v)))[:, :, 0]
        else:
            seen = ((q * x.shape[1] ** -0.5) @ k.transpose(1, 2)).softmax(-1) @ v
        result: Tensor = x + self.proj(seen.transpose(1, 2).reshape(x.shape))
        return result


class _Middle(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([_Attention(channels)])
        self.resnets = nn.ModuleList(_ResidualBlock(channels, channels) for _ in range(2))

    def forward(self, x: Tensor, caches: Caches) -> Tensor:
        x = self.attentions[0](self.resnets[0](x, caches))
        result: Tensor = self.resnets[1](x, caches)
        return result


class _Up(nn.Module):
    """Twice the sides, and twice the frames after the first if `temporal`."""

    def __init__(self, channels: int, out: int, *, temporal: bool) -> None:
        super().__init__()
        self.resample = nn.ModuleList([nn.Identity(), nn.Conv2d(channels, out, 3, padding=1)])
        self.time_conv = _conv(channels, 2 * channels, (3, 1, 1)) if temporal else None

    def forward(self, x: Tensor, caches: Caches) -> Tensor:
        if self.time_conv is not None:
            if caches.started:
                x = self.time_conv(x, caches).unflatten(1, (2, -1)).flatten(0, 1)
            else:
                # The first frame stays one, and the next latent sees nothing before it.
                caches.give(torch.cat([torch.zeros_like(x)] * _BACK))
        result: Tensor = self.resample[1](F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return result


class _Down(nn.Module):
    """Half the sides, and half the frames after the first if `temporal`."""

    def __init__(self, channels: int, *, temporal: bool) -> None:
        super().__init__()
        self.resample = nn.ModuleList([nn.Identity(), nn.Conv2d(channels, channels, 3, 2)])
        self.time_conv = _conv(channels, channels, (3, 1, 1)) if temporal else None

    def forward(self, x: Tensor, caches: Caches) -> Tensor:
        x = self.resample[1](F.pad(x, (0, 1, 0, 1)))
        if self.time_conv is None:
            return x
        if not caches.started:
            caches.give(x)
            return x
        window = torch.cat([caches.take(), x])
        caches.give(x[-1:])
        return self.time_conv.over(window, 2)


class _DownBlock(nn.Module):
    """Residual blocks and a `_Down`, past which the input is averaged (Wan 2.2)."""

    def __init__(self, incoming: int, out: int, blocks: int, *, down: bool, temporal: bool) -> None:
        super().__init__()
        self.out, self.sides, self.times = out, 2 if down else 1, 2 if temporal else 1
        sizes = [incoming] + [out] * blocks
        self.resnets = nn.ModuleList(map(_ResidualBlock, sizes[:-1], sizes[1:]))
        self.downsampler = _Down(out, temporal=temporal) if down else None

    def forward(self, x: Tensor, caches: Caches) -> Tensor:
        shortcut = self._average(x)
        for block in self.resnets:
            x = block(x, caches)
        if self.downsampler is not None:
            x = self.downsampler(x, caches)
        return x + shortcut

    def _average(self, x: Tensor) -> Tensor:
        missing = -x.shape[0] % self.times
        if missing:
            x = torch.cat([torch.zeros_like(x[:missing]), x])
        t, c, h, w = x.shape
        k, s = self.times, self.sides
        x = x.reshape(t // k, k, c, h // s, s, w // s, s).permute(0, 2, 1, 4, 6, 3, 5)
        return x.reshape(t // k, self.out, c * k * s * s // self.out, h // s, w // s).mean(2)


class _UpBlock(nn.Module):
    """Residual blocks and an `_Up`."""

    def __init__(self, incoming: int, out: int, blocks: int, *, up: bool, temporal: bool) -> None:
        super().__init__()
        sizes = [incoming] + [out] * (blocks + 1)
        self.resnets = nn.ModuleList(map(_ResidualBlock, sizes[:-1], sizes[1:]))
        if up:
            self.upsamplers = nn.ModuleList([_Up(out, out // 2, temporal=temporal)])
        self.up = up

    def forward(self, x: Tensor, caches: Caches) -> Tensor:
        for block in self.resnets:
            x = block(x, caches)
        if self.up:
            x = self.upsamplers[0](x, caches)
        return x


class _ResidualUpBlock(nn.Module):
    """The same, past which the input is repeated (Wan 2.2)."""

    def __init__(self, incoming: int, out: int, blocks: int, *, up: bool, temporal: bool) -> None:
        super().__init__()
        self.incoming, self.out, self.times = incoming, out, 2 if temporal else 1
        sizes = [incoming] + [out] * (blocks + 1)
        self.resnets = nn.ModuleList(map(_ResidualBlock, sizes[:-1], sizes[1:]))
        self.upsampler = _Up(out, out, temporal=temporal) if up else None

    def forward(self, x: Tensor, caches: Caches) -> Tensor:
        before = x
        for block in self.resnets:
            x = block(x, caches)
        if self.upsampler is None:
            return x
        return self.upsampler(x, caches) + self._repeated(before, first=not caches.started)

    def _repeated(self, x: Tensor, *, first: bool) -> Tensor:
        t, c, h, w = x.shape
        k = self.times
        copies = self.out * k * 4 // self.incoming
        x = x[:, :, None].expand(t, c, copies, h, w)
        x = x.reshape(t, self.out, k, 2, 2, h, w).permute(0, 2, 1, 5, 3, 6, 4)
        x = x.reshape(t * k, self.out, 2 * h, 2 * w)
        return x[k - 1 :] if first else x


class _Encoder(nn.Module):
    def __init__(self, o: WanVaeOptions) -> None:
        super().__init__()
        widths = [o.base_dim * m for m in (1, *o.dim_mult)]
        last = len(o.dim_mult) - 1
        self.conv_in = _conv(o.in_channels, widths[0], 3)
        blocks: list[nn.Module] = []
        for i, (incoming, out) in enumerate(pairwise(widths)):
            down = i != last
            temporal = down and o.temperal_downsample[i]
            if o.is_residual:
                blocks.append(
                    _DownBlock(incoming, out, o.num_res_blocks, down=down, temporal=temporal)
                )
                continue
            sizes = [incoming] + [out] * o.num_res_blocks
            blocks += map(_ResidualBlock, sizes[:-1], sizes[1:])
            if down:
                blocks.append(_Down(out, temporal=temporal))
        self.down_blocks = nn.ModuleList(blocks)
        self.mid_block = _Middle(widths[-1])
        self.norm_out = _Norm(widths[-1])
        self.conv_out = _conv(widths[-1], 2 * o.z_dim, 3)

    def forward(self, x: Tensor, caches: Caches) -> Tensor:
        x = self.conv_in(x, caches)
        for block in self.down_blocks:
            x = block(x, caches)
        x = self.mid_block(x, caches)
        result: Tensor = self.conv_out(F.silu(self.norm_out(x)), caches)
        return result


class _Decoder(nn.Module):
    def __init__(self, o: WanVaeOptions) -> None:
        super().__init__()
        base = o.base_dim if o.decoder_base_dim is None else o.decoder_base_dim
        widths = [base * m for m in (o.dim_mult[-1], *o.dim_mult[::-1])]
        temporal = (*o.temperal_downsample[::-1], False)
        self.conv_in = _conv(o.z_dim, widths[0], 3)
        self.mid_block = _Middle(widths[0])
        blocks: list[nn.Module] = []
        for i, (incoming, out) in enumerate(pairwise(widths)):
            up = i != len(o.dim_mult) - 1
            count = o.num_res_blocks
            if o.is_residual:
                blocks.append(_ResidualUpBlock(incoming, out, count, up=up, temporal=temporal[i]))
            else:
                narrow = incoming // 2 if i else incoming
                blocks.append(_UpBlock(narrow, out, count, up=up, temporal=temporal[i]))
        self.up_blocks = nn.ModuleList(blocks)
        self.norm_out = _Norm(widths[-1])
        self.conv_out = _conv(widths[-1], o.out_channels, 3)

    def forward(self, x: Tensor, caches: Caches) -> Tensor:
        x = self.mid_block(self.conv_in(x, caches), caches)
        for block in self.up_blocks:
            x = block(x, caches)
        result: Tensor = self.conv_out(F.silu(self.norm_out(x)), caches)
        return result


class WanVae(nn.Module):
    """The autoencoder; one latent, or the frames of one, at a time."""

    def __init__(self, options: WanVaeOptions) -> None:
        super().__init__()
        o = self.options = options
        self.encoder = _Encoder(o)
        self.quant_conv = _conv(2 * o.z_dim, 2 * o.z_dim, 1)
        self.post_quant_conv = _conv(o.z_dim, o.z_dim, 1)
        self.decoder = _Decoder(o)
        for name, values in (("mean", o.latents_mean), ("std", o.latents_std)):
            table = torch.tensor(values, device="cpu").reshape(-1, 1, 1)
            self.register_buffer(name, table, persistent=False)

    def encode(self, frames: Tensor, caches: Caches) -> Tensor:
        """Frames (T, 3, H, W) in [-1, 1], one or those of a latent, to latents (1, C, 1, h, w)."""
        p = self.options.patch_size
        t, c, height, width = frames.shape
        x = frames
        if p != 1:
            x = x.reshape(t, c, height // p, p, width // p, p).permute(0, 1, 5, 3, 2, 4)
            x = x.reshape(t, c * p * p, height // p, width // p)
        both = self.quant_conv(self.encoder(x, caches))
        latents: Tensor = (both[:, : self.options.z_dim] - self.mean) / self.std
        return latents.transpose(0, 1)[None]

    def decode(self, latents: Tensor, caches: Caches) -> Tensor:
        """Latents (1, C, 1, h, w) to frames (T, 3, H, W), about in [-1, 1]."""
        p = self.options.patch_size
        x = self.post_quant_conv(latents[:, :, 0] * self.std + self.mean)
        x = self.decoder(x, caches)
        if p != 1:
            t, _, h, w = x.shape
            x = x.reshape(t, -1, p, p, h, w).permute(0, 1, 4, 3, 5, 2)
            x = x.reshape(t, x.shape[1], h * p, w * p)
        return x
