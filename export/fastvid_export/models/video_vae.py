"""A causal video autoencoder: 8x8 pixels and 4 frames to one latent position.

    frames (1 + 4k) ─ groups: 1, 4, ... ─ stem ─ blocks at 1/4 ─ blocks at 1/8 ─ mean, variance
    latents (1 + k) ─ conv ─ blocks at 1/8 ─ blocks at 1/4 ─ blocks at 1/2 ─ head ─ 1, 4, ... frames

The first frame is a group of its own, so an image is a clip of one frame; every later group is four
frames, folded into channels by the stem and unfolded by the head. Everything between works at the
rate of the latents: decoding a clip costs little more than decoding its groups as images.

A block looks at its frame by a 3x3 convolution and back in time by a pointwise one over three
groups; nothing else crosses time and no norm does, so that decoding group by group, with the last
two inputs of every pointwise convolution as caches, equals decoding the whole. Causal convolutions
and a lone first frame follow MAGVIT-v2 (Yu et al., 2023); caches, Wan (2025); strong folding,
LTX-Video (HaCohen et al., 2024).

Inside, frames are folded time-major, (T * N, C, H, W): a step back in time is a slice of the first
axis and keeps the memory format.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastvid_export import ops

GROUP = 4
"""Frames to one latent position."""
PATCH = 8
"""Pixels to one latent position, along each side."""
BACK = 2
"""Groups that a block looks back."""
EPSILON = 1e-6
"""Added to the mean of squares by every norm."""


@dataclass(frozen=True)
class VideoVaeOptions:
    """Shape of the network."""

    latent_channels: int = 16
    encoder_quarter: int = 96
    """Channels of the encoder at a quarter of the resolution."""
    encoder_eighth: int = 192
    encoder_quarter_blocks: int = 2
    encoder_eighth_blocks: int = 3
    decoder_half: int = 64
    """Channels of the decoder at half the resolution."""
    decoder_quarter: int = 128
    decoder_eighth: int = 192
    decoder_half_blocks: int = 2
    decoder_quarter_blocks: int = 3
    decoder_eighth_blocks: int = 4


class ChannelNorm(nn.Module):
    """RMS norm over the channels of each position (Zhang and Sennrich, 2019)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape."""
        scale = torch.rsqrt(x.square().mean(1, keepdim=True) + EPSILON)
        return x * scale * self.weight[:, None, None]


class Block(nn.Module):
    """Residual block: norm, 3x3 over the frame, pointwise over this group and the two before."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.norm = ChannelNorm(channels)
        self.space = nn.Conv2d(channels, channels, 3, padding=1)
        self.time = nn.Conv2d((BACK + 1) * channels, channels, 1)
        assert self.time.bias is not None
        with torch.no_grad():
            self.time.weight.mul_(0.2)
            self.time.bias.zero_()

    def forward(self, x: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        """One or more groups.

        Args:
            x: (T * N, C, H, W), time-major.
            cache: (2 * N, C, H, W): what the call before returned, or zeros.

        Returns:
            The same shape as `x`, and the cache of the next call.
        """
        n = cache.shape[0] // BACK
        h = F.relu(self.space(F.relu(self.norm(x))))
        seen = torch.cat([cache.to(h.dtype), h], 0)
        groups = h.shape[0]
        window = torch.cat([seen[i * n : i * n + groups] for i in range(BACK + 1)], 1)
        return x + self.time(window), seen[-BACK * n :]


class Stage(nn.Module):
    """Blocks of one resolution."""

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.channels = channels
        self.blocks = nn.ModuleList(Block(channels) for _ in range(depth))

    def forward(self, x: Tensor, caches: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """As `Block`, with one cache for each block."""
        after = []
        for block, cache in zip(self.blocks, caches, strict=True):
            x, cache = block(x, cache)
            after.append(cache)
        return x, after


class Encoder(nn.Module):
    """Frames in [0, 1] to the moments of their latents."""

    def __init__(self, options: VideoVaeOptions) -> None:
        super().__init__()
        o = options
        self.first = nn.Conv2d(3 * 16, o.encoder_quarter, 3, padding=1)
        self.next = nn.Conv2d(GROUP * 3 * 16, o.encoder_quarter, 3, padding=1)
        self.at_quarter = Stage(o.encoder_quarter, o.encoder_quarter_blocks)
        self.down = nn.Conv2d(4 * o.encoder_quarter, o.encoder_eighth, 1)
        self.at_eighth = Stage(o.encoder_eighth, o.encoder_eighth_blocks)
        self.norm = ChannelNorm(o.encoder_eighth)
        self.out = nn.Conv2d(o.encoder_eighth, 2 * o.latent_channels, 3, padding=1)

    @property
    def stages(self) -> tuple[Stage, Stage]:
        """In the order they run, which is also that of the caches."""
        return self.at_quarter, self.at_eighth

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 1 + 4k, 3, H, W) → mean and log variance, (N, 1 + k, C, H / 8, W / 8) each."""
        n = frames.shape[0]
        groups = [self.first_frame(frames[:, 0])]
        if frames.shape[1] > 1:
            later = frames[:, 1:].unflatten(1, (-1, GROUP)).transpose(0, 1).flatten(0, 1)
            groups.append(self.next_frames(later))
        moments, _ = self.trunk(torch.cat(groups, 0), n, None)
        mean, log_variance = moments.unflatten(0, (-1, n)).transpose(0, 1).chunk(2, 2)
        return mean, log_variance.clamp(-12.0, 4.0)

    def first_frame(self, frames: Tensor) -> Tensor:
        """(N, 3, H, W) → (N, C, H / 4, W / 4)."""
        stem: Tensor = self.first(F.pixel_unshuffle(frames * 2.0 - 1.0, 4))
        return stem

    def next_frames(self, frames: Tensor) -> Tensor:
        """(N, 4, 3, H, W) → (N, C, H / 4, W / 4)."""
        stem: Tensor = self.next(F.pixel_unshuffle(frames.flatten(1, 2) * 2.0 - 1.0, 4))
        return stem

    def trunk(
        self, x: Tensor, n: int, caches: Sequence[Tensor] | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Everything after the stems.

        Args:
            x: Features (T * N, C, H / 4, W / 4), time-major.
            n: N.
            caches: Those that the groups before left, or None before the first group.

        Returns:
            Moments (T * N, 2 C, H / 8, W / 8) and the caches for the next groups.
        """
        x, near = self.at_quarter(x, _own(self.at_quarter, caches, 0, n, x))
        x = self.down(F.pixel_unshuffle(x, 2))
        x, deep = self.at_eighth(x, _own(self.at_eighth, caches, len(near), n, x))
        return self.out(F.relu(self.norm(x))).float(), [*near, *deep]

    def cache_shapes(self, height: int, width: int) -> list[tuple[int, int, int, int]]:
        """Shapes of one clip's caches, for latents of that height and width."""
        return _cache_shapes(self.stages, (2, 1), height, width)


class Decoder(nn.Module):
    """Latents to frames, whole or group by group."""

    def __init__(self, options: VideoVaeOptions) -> None:
        super().__init__()
        o = options
        self.inner = nn.Conv2d(o.latent_channels, o.decoder_eighth, 3, padding=1)
        self.at_eighth = Stage(o.decoder_eighth, o.decoder_eighth_blocks)
        self.up_quarter = nn.Conv2d(o.decoder_eighth, 4 * o.decoder_quarter, 1)
        self.at_quarter = Stage(o.decoder_quarter, o.decoder_quarter_blocks)
        self.up_half = nn.Conv2d(o.decoder_quarter, 4 * o.decoder_half, 1)
        self.at_half = Stage(o.decoder_half, o.decoder_half_blocks)
        self.norm = ChannelNorm(o.decoder_half)
        self.first = nn.Conv2d(o.decoder_half, 3 * 4, 3, padding=1)
        self.next = nn.Conv2d(o.decoder_half, GROUP * 3 * 4, 3, padding=1)

    @property
    def stages(self) -> tuple[Stage, Stage, Stage]:
        """In the order they run, which is also that of the caches."""
        return self.at_eighth, self.at_quarter, self.at_half

    def cache_shapes(self, height: int, width: int) -> list[tuple[int, int, int, int]]:
        """Shapes of one clip's caches.

        Args:
            height: Of the latents; the frames' is 8 times that.
            width: The same.
        """
        return _cache_shapes(self.stages, (1, 2, 4), height, width)

    def forward(self, latents: Tensor) -> Tensor:
        """(N, 1 + k, C, h, w) → frames (N, 1 + 4k, 3, 8h, 8w), near [0, 1] but not clamped."""
        n = latents.shape[0]
        features, _ = self.trunk(latents.transpose(0, 1).flatten(0, 1), n, None)
        first = self.first_frame(features[:n])[:, None]
        if latents.shape[1] == 1:
            return first
        later = self.next_frames(features[n:])
        later = later.unflatten(0, (-1, n)).transpose(0, 1).flatten(1, 2)
        return torch.cat([first, later], 1)

    def trunk(
        self, x: Tensor, n: int, caches: Sequence[Tensor] | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Everything up to the heads.

        Args:
            x: Latents (T * N, C, h, w), time-major.
            n: N.
            caches: As `cache_shapes` says, or None before the first group.

        Returns:
            Features (T * N, C, 4h, 4w) and the caches for the next groups.
        """
        x = self.inner(x)
        after: list[Tensor] = []
        for stage, up in zip(self.stages, (None, self.up_quarter, self.up_half), strict=True):
            if up is not None:
                x = F.pixel_shuffle(up(x), 2)
            x, own = stage(x, _own(stage, caches, len(after), n, x))
            after += own
        return F.relu(self.norm(x)), after

    def first_frame(self, features: Tensor) -> Tensor:
        """(N, C, 4h, 4w) → (N, 3, 8h, 8w)."""
        return F.pixel_shuffle(self.first(features).float(), 2) * 0.5 + 0.5

    def next_frames(self, features: Tensor) -> Tensor:
        """(N, C, 4h, 4w) → (N, 4, 3, 8h, 8w)."""
        shuffled = F.pixel_shuffle(self.next(features).float(), 2) * 0.5 + 0.5
        return shuffled.unflatten(1, (GROUP, 3))


class VideoVae(nn.Module):
    """Encoder, decoder, and the scale of the latents."""

    def __init__(self, options: VideoVaeOptions) -> None:
        super().__init__()
        self.options = options
        self.encoder = Encoder(options)
        self.decoder = Decoder(options)
        self.latents_mean: Tensor
        self.latents_variance: Tensor
        self.register_buffer("latents_mean", torch.zeros(options.latent_channels))
        self.register_buffer("latents_variance", torch.ones(options.latent_channels))

    def encode(self, frames: Tensor) -> Tensor:
        """Frames (N, 1 + 4k, 3, H, W) in [0, 1] → normalised latents (N, 1 + k, C, H/8, W/8)."""
        mean, _ = self.encoder(frames)
        return self.normalised(mean)

    def normalised(self, latents: Tensor) -> Tensor:
        """Latents (..., C, h, w) of the encoder, scaled to unit deviation."""
        return (latents - self._per_channel(self.latents_mean)) / self._deviation()

    def decode(self, latents: Tensor) -> Tensor:
        """Normalised latents (N, 1 + k, C, h, w) → frames (N, 1 + 4k, 3, 8h, 8w) in [0, 1]."""
        frames: Tensor = self.decoder(self.raw(latents))
        return frames.clamp(0.0, 1.0)

    def raw(self, latents: Tensor) -> Tensor:
        """Normalised latents as the decoder takes them."""
        return latents * self._deviation() + self._per_channel(self.latents_mean)

    def sample(self, frames: Tensor, *, follow: bool = True) -> tuple[Tensor, Tensor]:
        """A random latent of each position and the divergence from a unit Gaussian, in nats.

        Args:
            frames: (N, 1 + 4k, 3, H, W) in [0, 1].
            follow: Whether, in training mode, the statistics that `encode` normalises by follow the
                samples.

        Returns:
            Latents (N, 1 + k, C, H/8, W/8), not normalised, and the mean divergence of an element.
        """
        mean, log_variance = self.encoder(frames)
        latents = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).mean()
        if self.training and follow:
            with torch.no_grad():
                values = latents.transpose(1, 2).transpose(0, 1).flatten(1)
                self.latents_mean.lerp_(values.mean(1), 0.01)
                self.latents_variance.lerp_(values.var(1), 0.01)
        return latents, divergence

    def _deviation(self) -> Tensor:
        return self._per_channel(self.latents_variance.sqrt())

    @staticmethod
    def _per_channel(values: Tensor) -> Tensor:
        return values[:, None, None]


class EncoderFirst(nn.Module):
    """The graph `encoder_first`: starts a clip, or encodes an image."""

    def __init__(self, vae: VideoVae) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """Frames uint8 (1, H, W, 3) → latents (1, C, 1, H / 8, W / 8), and the caches."""
        encoder = self.vae.encoder
        stem = encoder.first_frame(ops.rgb_to_planar(frames))
        moments, caches = encoder.trunk(stem, 1, None)
        return self.vae.normalised(moments.chunk(2, 1)[0])[:, :, None], *caches


class EncoderNext(nn.Module):
    """The graph `encoder_next`: goes on with a clip by one latent."""

    def __init__(self, vae: VideoVae) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, frames: Tensor, *caches: Tensor) -> tuple[Tensor, ...]:
        """Frames uint8 (4, H, W, 3) and caches → latents (1, C, 1, H / 8, W / 8), next caches."""
        encoder = self.vae.encoder
        stem = encoder.next_frames(ops.rgb_to_planar(frames)[None])
        moments, after = encoder.trunk(stem, 1, caches)
        return self.vae.normalised(moments.chunk(2, 1)[0])[:, :, None], *after


def _own(
    stage: Stage, caches: Sequence[Tensor] | None, start: int, n: int, like: Tensor
) -> Sequence[Tensor]:
    """The caches of one stage, which begin at `start`; zeros before the first group."""
    if caches is not None:
        return caches[start : start + len(stage.blocks)]
    shape = (BACK * n, stage.channels, *like.shape[-2:])
    return [like.new_zeros(shape) for _ in stage.blocks]


def _cache_shapes(
    stages: Sequence[Stage], factors: Sequence[int], height: int, width: int
) -> list[tuple[int, int, int, int]]:
    return [
        (BACK, stage.channels, height * factor, width * factor)
        for stage, factor in zip(stages, factors, strict=True)
        for _ in stage.blocks
    ]
