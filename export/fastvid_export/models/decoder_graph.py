"""The decoder as its graphs compute it: the same numbers, with channels last.

Norms and pointwise convolutions work on the channels of one position, which lie together here: a
norm is one pass over contiguous rows, and a pointwise convolution one matrix product. Only the 3x3
convolutions have channels first, where runtimes choose a layout of their own anyway.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastvid_export import ops
from fastvid_export.models.video_vae import BACK, EPSILON, GROUP, Block, ChannelNorm, VideoVae


class _Block(nn.Module):
    """`Block` for one group of one clip."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.norm, self.space = _Norm(block.norm), block.space
        self.weight = nn.Parameter(block.time.weight[:, :, 0, 0].contiguous())
        self.bias = block.time.bias

    def forward(self, x: Tensor, cache: Tensor | None) -> tuple[Tensor, Tensor]:
        """(1, H, W, C) and the two inputs before, (1, H, W, 2 C) or None for zeros."""
        channels = x.shape[-1]
        y = F.relu(self.norm(x))
        h = _channels_last(F.relu(self.space(_channels_first(y))))
        if cache is None:
            # What meets zeros need not be computed.
            after = torch.cat([torch.zeros_like(h)] * (BACK - 1) + [h], -1)
            return x + F.linear(h, self.weight[:, BACK * channels :], self.bias), after
        window = torch.cat([cache, h], -1)
        return x + F.linear(window, self.weight, self.bias), window[..., channels:]


class _Norm(nn.Module):
    """`ChannelNorm` over the last axis, in the form that runtimes know to be one."""

    def __init__(self, norm: ChannelNorm) -> None:
        super().__init__()
        self.weight = norm.weight

    def forward(self, x: Tensor) -> Tensor:
        return x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + EPSILON) * self.weight


class _Up(nn.Module):
    """A pointwise convolution and a pixel shuffle."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        assert convolution.bias is not None
        # Rows in the order row, column, channel: whole channels move in the shuffle.
        weight = convolution.weight[:, :, 0, 0].unflatten(0, (-1, 2, 2))
        self.weight = nn.Parameter(weight.permute(1, 2, 0, 3).flatten(0, 2).contiguous())
        bias = convolution.bias.unflatten(0, (-1, 2, 2)).permute(1, 2, 0).flatten()
        self.bias = nn.Parameter(bias.contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """(1, H, W, C) → (1, 2 H, 2 W, C')."""
        y = F.linear(x, self.weight, self.bias).unflatten(-1, (2, 2, -1))
        return y.permute(0, 1, 3, 2, 4, 5).flatten(1, 2).flatten(2, 3)


class _DecoderGraph(nn.Module):
    """What both graphs share."""

    def __init__(self, vae: VideoVae, head: nn.Conv2d) -> None:
        super().__init__()
        decoder = vae.decoder
        self.inner = decoder.inner
        self.register_buffer("scale", vae.latents_variance.sqrt()[:, None, None])
        self.register_buffer("mean", vae.latents_mean[:, None, None].clone())
        self.stages = nn.ModuleList(
            nn.ModuleList(_Block(block) for block in stage.blocks)  # type: ignore[arg-type]
            for stage in decoder.stages
        )
        self.ups = nn.ModuleList((_Up(decoder.up_quarter), _Up(decoder.up_half)))
        self.norm = _Norm(decoder.norm)
        assert head.bias is not None
        # From [-1, 1] to [0, 1].
        self.head_weight = nn.Parameter(0.5 * head.weight)
        self.head_bias = nn.Parameter(0.5 * head.bias + 0.5)

    def trunk(
        self, latents: Tensor, caches: Sequence[Tensor | None]
    ) -> tuple[Tensor, list[Tensor]]:
        """Latents (1, C, 1, h, w) to planes (1, k, 4h, 4w) before the shuffle, and caches."""
        x = _channels_last(self.inner(latents[:, :, 0] * self.scale + self.mean))
        after: list[Tensor] = []
        for stage, up in zip(self.stages, (None, *self.ups), strict=True):
            if up is not None:
                x = up(x)
            for block in stage:  # type: ignore[attr-defined]
                x, cache = block(x, caches[len(after)])
                after.append(cache)
        y = _channels_first(F.relu(self.norm(x)))
        return F.conv2d(y, self.head_weight, self.head_bias, padding=1), after


class DecoderFirst(_DecoderGraph):
    """The graph `decoder_first`: starts a clip."""

    def __init__(self, vae: VideoVae) -> None:
        super().__init__(vae, vae.decoder.first)

    def forward(self, latents: Tensor) -> tuple[Tensor, ...]:
        """Normalised latents (1, C, 1, h, w) → frames uint8 (1, 8h, 8w, 3), and the caches."""
        blocks = sum(len(stage) for stage in self.stages)  # type: ignore[arg-type]
        planes, caches = self.trunk(latents, [None] * blocks)
        return ops.planar_to_rgb(F.pixel_shuffle(planes, 2)), *caches


class DecoderNext(_DecoderGraph):
    """The graph `decoder_next`: goes on with a clip by one latent."""

    def __init__(self, vae: VideoVae) -> None:
        super().__init__(vae, vae.decoder.next)

    def forward(self, latents: Tensor, *caches: Tensor) -> tuple[Tensor, ...]:
        """Latents (1, C, 1, h, w) and caches → frames uint8 (4, 8h, 8w, 3) and the next caches."""
        planes, after = self.trunk(latents, caches)
        frames = F.pixel_shuffle(planes, 2)[0].unflatten(0, (GROUP, 3))
        return ops.planar_to_rgb(frames), *after


def _channels_last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def _channels_first(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)
