"""LTX-Video's decoder in stages, under the names of diffusers' `AutoencoderKLLTXVideo`.

Most convolutions of the decoder look at the next frame, and there are tens of them one after
another, so its frames are known long after the latent that they begin with. It is cut into stages
where frames become twice as many. A stage takes a few frames at a time, keeps what the next ones
need, and says which frames of the clip it gives; it waits for a handful of frames of its own, and
where the next stage waits for, it need not have been run. That gives exactly what the whole clip
at once gives, in the memory of a few frames.

A stage runs on after the end of a clip until all its frames are out. That costs as many frames as
it waits for: 9 at full rate in the published networks, beside those of the clip.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastvid_export import ops
from fastvid_export.models.ltx_transformer import TimeEmbedding
from fastvid_export.models.ltx_vae_layers import (
    BlockOptions,
    PlainConv,
    ResnetBlock,
    Resnets,
    Span,
    Tape,
    rms_norm,
)

_RATE = 2


@dataclass(frozen=True)
class LtxDecoderOptions:
    """Shape of the decoder; names of the autoencoder's `config.json` without `decoder_`."""

    latent_channels: int = 128
    out_channels: int = 3
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: tuple[int, ...] = (4, 3, 3, 3, 4)
    spatio_temporal_scaling: tuple[bool, ...] = (True, True, True, False)
    inject_noise: tuple[bool, ...] = (False, False, False, False, False)
    upsample_residual: tuple[bool, ...] = (False, False, False, False)
    upsample_factor: tuple[int, ...] = (1, 1, 1, 1)
    timestep_conditioning: bool = False
    patch_size: int = 4
    resnet_norm_eps: float = 1e-6
    scaling_factor: float = 1.0
    causal: bool = False


class _UpBlock(Resnets):
    def __init__(
        self,
        channels: int,
        out_channels: int,
        count: int,
        options: BlockOptions,
        *,
        noisy: bool,
        up: _Upsampler | None,
    ) -> None:
        super().__init__(out_channels, count, options, noisy=noisy)
        self.conv_in = None
        if channels != out_channels:
            self.conv_in = ResnetBlock(channels, out_channels, options, noisy=noisy)
        self.upsamplers = None if up is None else nn.ModuleList([up])


class _Upsampler(nn.Module):
    """Every frame becomes two of twice the size; of the first pair one."""

    def __init__(self, channels: int, factor: int, *, causal: bool, residual: bool) -> None:
        super().__init__()
        self.factor, self.residual = factor, residual
        self.conv = PlainConv(channels, channels * _RATE**3 // factor, causal=causal)

    def forward(self, x: Tensor, tape: Tape, span: Span) -> tuple[Tensor, Span]:
        y, around, moved = self.conv.run(x, tape, span)
        assert moved is not None
        y = _shuffled(y)
        if self.residual:
            y = y + _shuffled(around).repeat(1, _RATE**3 // self.factor, 1, 1, 1)
        return y, moved.doubled()


class LtxDecoder(nn.Module):
    """The whole decoder; `LtxDecoderStage` runs it."""

    def __init__(self, options: LtxDecoderOptions) -> None:
        super().__init__()
        o = self.options = options
        blocks = BlockOptions(o.causal, o.resnet_norm_eps, o.timestep_conditioning)
        widths, factors = o.block_out_channels[::-1], o.upsample_factor[::-1]
        scaled, layers = o.spatio_temporal_scaling[::-1], o.layers_per_block[::-1]
        residual, noisy = o.upsample_residual[::-1], o.inject_noise[::-1]
        width = widths[0]
        self.conv_in = PlainConv(o.latent_channels, width, causal=o.causal)
        self.mid_block = Resnets(width, layers[0], blocks, noisy=noisy[0])
        self.up_blocks = nn.ModuleList()
        for i, factor in enumerate(factors):
            before, width = width // factor, widths[i] // factor
            up = None
            if scaled[i]:
                up = _Upsampler(width * factor, factor, causal=o.causal, residual=residual[i])
            self.up_blocks.append(
                _UpBlock(before, width, layers[i + 1], blocks, noisy=noisy[i + 1], up=up)
            )
        self.conv_out = PlainConv(width, o.out_channels * o.patch_size**2, causal=o.causal)
        self.time_embedder = self.scale_shift_table = self.timestep_scale_multiplier = None
        if o.timestep_conditioning:
            self.timestep_scale_multiplier = nn.Parameter(torch.tensor(1000.0))
            self.time_embedder = TimeEmbedding(2 * width)
            self.scale_shift_table = nn.Parameter(torch.randn(2, width) / width**0.5)


class LtxDecoderVae(nn.Module):
    """The decoder and the statistics of its latents, as the autoencoder's file names them."""

    def __init__(self, options: LtxDecoderOptions) -> None:
        super().__init__()
        self.decoder = LtxDecoder(options)
        self.latents_mean = nn.Parameter(torch.zeros(options.latent_channels))
        self.latents_std = nn.Parameter(torch.ones(options.latent_channels))


@dataclass(frozen=True)
class StageShape:
    """What a stage takes and gives."""

    frames: int
    """Frames that it takes at a time."""
    scale: int
    """Side of its input, of a latent's."""
    channels: int
    out_frames: int
    out_scale: int
    out_channels: int
    sites: int
    """Places that noise is added at, `noise_scale` times a latent's side."""
    noise_scale: int


class LtxDecoderStage(nn.Module):
    """The graph of one stage: a part of the decoder between two changes of the frame rate."""

    def __init__(self, vae: LtxDecoderVae, number: int) -> None:
        super().__init__()
        decoder = vae.decoder
        self.options = decoder.options
        bounds = [0, *(i for i, b in enumerate(decoder.up_blocks) if b.upsamplers is not None)]
        self.first, self.last = number == 0, number + 1 == len(bounds)
        end = len(decoder.up_blocks) if self.last else bounds[number + 1] + 1
        begin = 0 if self.first else bounds[number]
        self.blocks = nn.ModuleList(decoder.up_blocks[begin:end])
        if self.first:
            self.conv_in, self.mid_block = decoder.conv_in, decoder.mid_block
            self.mean, self.std = vae.latents_mean, vae.latents_std
        if self.last:
            self.conv_out, self.time_embedder = decoder.conv_out, decoder.time_embedder
            self.scale_shift_table = decoder.scale_shift_table
        self.timestep_scale_multiplier = decoder.timestep_scale_multiplier
        self.shape = self._shape(number)

    @property
    def timed(self) -> bool:
        """Whether it takes a timestep."""
        return self.options.timestep_conditioning

    def _shape(self, number: int) -> StageShape:
        o, rate = self.options, _RATE**number
        first, last = self.blocks[0], self.blocks[-1]
        out = last.resnets[0].conv1.conv.in_channels
        if not self.last:
            out = last.upsamplers[0].conv.conv.out_channels // _RATE**3
        channels = o.latent_channels
        if not self.first:
            channels = first.upsamplers[0].conv.conv.out_channels // _RATE**3
        noisy = [m for m in self._resnets() if m.per_channel_scale1 is not None]
        if self.last:
            side = rate * o.patch_size
            return StageShape(
                rate, rate, channels, rate, side, o.out_channels, 2 * len(noisy), rate
            )
        return StageShape(
            rate, rate, channels, _RATE * rate, _RATE * rate, out, 2 * len(noisy), rate
        )

    def caches(self) -> list[int]:
        """Channels of each cache, which is two frames of the size that the stage takes."""
        widths = [self.conv_in.conv.in_channels] if self.first else []
        for block in self._resnets():
            widths += [block.conv1.conv.in_channels, block.conv2.conv.in_channels]
        end = self.conv_out if self.last else self.blocks[-1].upsamplers[0].conv
        return [*widths, end.conv.in_channels]

    def _resnets(self) -> list[ResnetBlock]:
        """Blocks in the order they run in."""
        found = list(self.mid_block.resnets) if self.first else []
        for i, block in enumerate(self.blocks):
            if self._enters(i) and block.conv_in is not None:
                found.append(block.conv_in)
            if not self._leaves(i):
                found += block.resnets
        return found

    def _enters(self, index: int) -> bool:
        """Whether a block is run from its beginning: else its upsampler ended the stage before."""
        return self.first or index > 0

    def _leaves(self, index: int) -> bool:
        """Whether a block's upsampler ends the stage."""
        return not self.last and index + 1 == len(self.blocks)

    def forward(self, source: Tensor, position: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        """One piece of a clip.

        Args:
            source: Latents, normalised, for the first stage; features for others; both
                (1, C, n, H, W).
            position: int64 (2,): number of the first of them in the clip, and how many there are.
            *rest: `decode_timestep` (1,) where the network has one, then for the first stage
                `decode_noise` like the latents and `decode_noise_scale` (1,); `noise`
                (sites, H, W) where blocks add it; and the caches.

        Returns:
            Features, or frames uint8 (n, H, W, 3); their position; and the caches.
        """
        given = list(rest)
        time = None
        if self.timed:
            assert self.timestep_scale_multiplier is not None
            time = given.pop(0) * self.timestep_scale_multiplier
        x = source
        if self.first:
            x = source.movedim(1, -1) * self.std / self.options.scaling_factor + self.mean
            x = x.movedim(-1, 1)
            if self.timed:
                noise, share = given.pop(0), given.pop(0)
                x = (1 - share) * x + share * noise
        sites = given.pop(0) if self.shape.sites else None
        tape = Tape(given, noise=sites)
        span = Span(position[0], position[1])
        x, span = self._run(x, tape, span, time)
        return x, torch.stack([span.start, span.total]), *tape.kept

    def _run(self, x: Tensor, tape: Tape, span: Span, time: Tensor | None) -> tuple[Tensor, Span]:
        moved: Span | None = span
        if self.first:
            x, _, moved = self.conv_in.run(x, tape, moved)
            x, moved = self.mid_block(x, tape, moved, time)
        for i, block in enumerate(self.blocks):
            if self._enters(i) and block.conv_in is not None:
                x, moved = block.conv_in(x, tape, moved, None)
            if self._leaves(i):
                assert moved is not None
                return block.upsamplers[0](x, tape, moved)  # type: ignore[no-any-return]
            x, moved = block(x, tape, moved, time)
        assert moved is not None
        return self._frames(x, tape, moved, time)

    def _frames(
        self, x: Tensor, tape: Tape, span: Span, time: Tensor | None
    ) -> tuple[Tensor, Span]:
        x = rms_norm(x)
        if self.time_embedder is not None and self.scale_shift_table is not None:
            embedded = self.time_embedder(time).unflatten(1, (2, -1))
            shift, scale = (self.scale_shift_table + embedded)[..., None, None, None].unbind(1)
            x = x * (1 + scale) + shift
        y, _, moved = self.conv_out.run(F.silu(x), tape, span)
        assert moved is not None
        p = self.options.patch_size
        # Columns come before rows in a patch.
        y = y[0].unflatten(0, (-1, p, p)).permute(3, 0, 4, 2, 5, 1).flatten(4, 5).flatten(2, 3)
        return ops.planar_to_rgb(0.5 * y + 0.5), moved


def stages(vae: LtxDecoderVae) -> list[LtxDecoderStage]:
    """The graphs that decode, in order."""
    count = 1 + sum(vae.decoder.options.spatio_temporal_scaling)
    return [LtxDecoderStage(vae, number) for number in range(count)]


def _shuffled(x: Tensor) -> Tensor:
    """(1, 8 C, n, H, W) → (1, C, 2 n, 2 H, 2 W)."""
    x = x.unflatten(1, (-1, _RATE, _RATE, _RATE)).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return x.flatten(6, 7).flatten(4, 5).flatten(2, 3)
