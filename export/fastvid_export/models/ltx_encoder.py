"""LTX-Video's encoder, under the names of diffusers' `AutoencoderKLLTXVideo`.

It is causal: the first frame is a latent of its own, and every eight further frames are one, of
which the layers keep what the next ones need.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastvid_export import ops
from fastvid_export.models.ltx_vae_layers import (
    BlockOptions,
    PlainConv,
    ResnetBlock,
    Resnets,
    Tape,
    rms_norm,
)

_STRIDES = {"conv": (2, 2), "spatial": (1, 2), "temporal": (2, 1), "spatiotemporal": (2, 2)}
"""Frames and pixels of a side that become one, by `downsample_type`."""
_LOG_VARIANCE = (-30.0, 20.0)


@dataclass(frozen=True)
class LtxEncoderOptions:
    """Shape of the encoder: names of the autoencoder's `config.json`."""

    in_channels: int = 3
    latent_channels: int = 128
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: tuple[int, ...] = (4, 3, 3, 3, 4)
    spatio_temporal_scaling: tuple[bool, ...] = (True, True, True, False)
    downsample_type: tuple[str, ...] = ("conv", "conv", "conv", "conv")
    shuffled: bool = False
    """Whether blocks are `LTXVideo095DownBlock3D`, which end with their change of resolution."""
    patch_size: int = 4
    resnet_norm_eps: float = 1e-6


def strides(options: LtxEncoderOptions) -> list[tuple[int, int]]:
    """Frames and pixels of a side that become one in each block."""
    o = options
    kinds = o.downsample_type if o.shuffled else ("conv",) * len(o.spatio_temporal_scaling)
    scaled = zip(kinds, o.spatio_temporal_scaling, strict=False)
    return [_STRIDES[kind] if do else (1, 1) for kind, do in scaled]


class LtxEncoder(nn.Module):
    """The encoder's layers."""

    def __init__(self, options: LtxEncoderOptions) -> None:
        super().__init__()
        o = self.options = options
        blocks = BlockOptions(causal=True, eps=o.resnet_norm_eps)
        width = o.block_out_channels[0]
        self.conv_in = PlainConv(o.in_channels * o.patch_size**2, width, causal=True)
        outs = (*o.block_out_channels[1:], *(() if o.shuffled else o.block_out_channels[-1:]))
        self.down_blocks = nn.ModuleList()
        for i, out in enumerate(outs):
            kind = o.downsample_type[i] if o.shuffled else "conv"
            scaled = o.spatio_temporal_scaling[i]
            self.down_blocks.append(
                _DownBlock(width, out, o.layers_per_block[i], blocks, kind if scaled else None)
            )
            width = out
        self.mid_block = Resnets(width, o.layers_per_block[-1], blocks)
        self.conv_out = PlainConv(width, o.latent_channels + 1, causal=True)

    def forward(self, planes: Tensor, tape: Tape) -> Tensor:
        """Planes (n, 3, H, W) in [-1, 1] to (1, C + 1, k, h, w): means, and a log variance."""
        p = self.options.patch_size
        # Columns come before rows in a patch.
        x = planes.unflatten(3, (-1, p)).unflatten(2, (-1, p)).permute(1, 5, 3, 0, 2, 4)
        x, _, _ = self.conv_in.run(x.flatten(0, 2)[None], tape, None)
        for block in self.down_blocks:
            x = block(x, tape)
        x, _ = self.mid_block(x, tape, None, None)
        x, _, _ = self.conv_out.run(F.silu(rms_norm(x)), tape, None)
        return x


class _DownBlock(Resnets):
    def __init__(
        self, channels: int, out_channels: int, count: int, options: BlockOptions, kind: str | None
    ) -> None:
        super().__init__(channels, count, options)
        self.downsamplers = self.conv_out = None
        after = channels
        if kind == "conv":
            self.downsamplers = nn.ModuleList(
                [PlainConv(channels, channels, causal=True, stride=2)]
            )
        elif kind is not None:
            self.downsamplers = nn.ModuleList([_Folded(channels, out_channels, *_STRIDES[kind])])
            after = out_channels
        if after != out_channels:
            self.conv_out = ResnetBlock(after, out_channels, options)

    def forward(self, x: Tensor, tape: Tape) -> Tensor:  # type: ignore[override]
        x, _ = super().forward(x, tape, None, None)
        if self.downsamplers is not None:
            down = self.downsamplers[0]
            x = down.run(x, tape, None)[0] if isinstance(down, PlainConv) else down(x, tape)
        if self.conv_out is not None:
            x, _ = self.conv_out(x, tape, None, None)
        return x


class _Folded(nn.Module):
    """Frames and pixels that become one go into its channels, beside their own mean."""

    def __init__(self, channels: int, out_channels: int, frames: int, side: int) -> None:
        super().__init__()
        self.frames, self.side = frames, side
        count = frames * side**2
        self.group = channels * count // out_channels
        self.conv = PlainConv(channels, out_channels // count, causal=True)

    def forward(self, x: Tensor, tape: Tape) -> Tensor:
        if tape.caches is None:
            # The first frame stands for a whole group.
            x = torch.cat([x[:, :, :1]] * (self.frames - 1) + [x], 2)
        mean = self._folded(x).unflatten(1, (-1, self.group)).mean(2)
        y, _, _ = self.conv.run(x, tape, None)
        return self._folded(y) + mean

    def _folded(self, x: Tensor) -> Tensor:
        """(1, C, f n, s H, s W) → (1, C f s s, n, H, W)."""
        f, s = self.frames, self.side
        x = x.unflatten(4, (-1, s)).unflatten(3, (-1, s)).unflatten(2, (-1, f))
        return x.permute(0, 1, 3, 5, 7, 2, 4, 6).flatten(1, 4)


class LtxEncoderVae(nn.Module):
    """The encoder and the statistics of its latents, as the autoencoder's file names them."""

    def __init__(self, options: LtxEncoderOptions) -> None:
        super().__init__()
        self.encoder = LtxEncoder(options)
        self.latents_mean = nn.Parameter(torch.zeros(options.latent_channels))
        self.latents_std = nn.Parameter(torch.ones(options.latent_channels))

    def latents(self, frames: Tensor, noise: Tensor, tape: Tape) -> Tensor:
        """Frames uint8 (n, H, W, 3) and noise (1, C, k, h, w) to normalised latents like it."""
        x = self.encoder(2 * ops.rgb_to_planar(frames) - 1, tape)
        mean, spread = x[:, :-1], x[:, -1:].clamp(*_LOG_VARIANCE)
        drawn = (mean + (0.5 * spread).exp() * noise).movedim(1, -1)
        return ((drawn - self.latents_mean) / self.latents_std).movedim(-1, 1)


class LtxEncoderFirst(nn.Module):
    """The graph `encoder_first`: a picture, or the first frame of a clip."""

    def __init__(self, vae: LtxEncoderVae) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, frames: Tensor, noise: Tensor) -> tuple[Tensor, ...]:
        """Frame uint8 (1, H, W, 3), noise (1, C, 1, h, w) → latents like it, and the caches."""
        tape = Tape(None)
        return self.vae.latents(frames, noise, tape), *tape.kept


class LtxEncoderNext(nn.Module):
    """The graph `encoder_next`: goes on with a clip by one latent."""

    def __init__(self, vae: LtxEncoderVae) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, frames: Tensor, noise: Tensor, *caches: Tensor) -> tuple[Tensor, ...]:
        """Frames uint8 (r, H, W, 3), noise and caches → latents, and the next caches."""
        tape = Tape(caches)
        return self.vae.latents(frames, noise, tape), *tape.kept
