"""LTX-Video's transformer, under the names of diffusers' `LTXVideoTransformer3DModel`.

A diffusion transformer on latents that are tokens as they are, without patches (HaCohen et al.,
2024, arXiv 2501.00103): the modulation of PixArt-alpha (Chen et al., 2024, arXiv 2310.00426), norms
of queries and keys over all heads, and a rotary embedding by seconds and by shares of the frame.

What the pipelines do around the network is in the graph: latents become tokens and tokens latents,
and positions follow from the frame rate. Each latent frame has its own timestep, because one that
is given has no noise in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastvid_export import ops

_FREQUENCIES = 128
_THETA = 10_000.0
_BASE_FRAMES, _BASE_SIDE = 20, 2048
_QK_EPSILON = 1e-5
_OUT_EPSILON = 1e-6


@dataclass(frozen=True)
class LtxTransformerOptions:
    """Shape of the network: the names of its `config.json`."""

    in_channels: int = 128
    out_channels: int = 128
    num_attention_heads: int = 32
    attention_head_dim: int = 64
    cross_attention_dim: int = 2048
    num_layers: int = 28
    norm_elementwise_affine: bool = False
    norm_eps: float = 1e-6
    caption_channels: int = 4096
    attention_bias: bool = True
    attention_out_bias: bool = True

    @property
    def width(self) -> int:
        """Channels of a token inside."""
        return self.num_attention_heads * self.attention_head_dim


@dataclass(frozen=True)
class LtxGrid:
    """How latents lie in the video that they stand for."""

    spatial: int = 32
    """Pixels of a latent's side."""
    temporal: int = 8
    """Frames of a latent."""
    from_first: bool = False
    """Whether the first latent is at time 0 and the next one frame later, as it is in the video;
    without, latents are `temporal` frames apart from the beginning on."""


class LtxTransformer(nn.Module):
    """Predicts the velocity of noisy latents."""

    def __init__(self, options: LtxTransformerOptions, grid: LtxGrid) -> None:
        super().__init__()
        o = self.options = options
        self.grid = grid
        self.proj_in = nn.Linear(o.in_channels, o.width)
        self.scale_shift_table = nn.Parameter(torch.randn(2, o.width) / o.width**0.5)
        self.time_embed = _Modulation(o.width)
        self.caption_projection = _CaptionProjection(o.caption_channels, o.width)
        self.transformer_blocks = nn.ModuleList(_Block(o) for _ in range(o.num_layers))
        self.proj_out = nn.Linear(o.width, o.out_channels)

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor,
        frame_rate: Tensor,
    ) -> Tensor:
        """The velocity, noise minus data.

        Args:
            hidden_states: Noisy latents (N, C, T, h, w).
            timestep: (N, T) in [0, 1000], 1000 times the noise level of each latent frame.
            encoder_hidden_states: (N, L, D), as the text encoder makes them.
            encoder_attention_mask: int64 (N, L), 1 for tokens and 0 for padding.
            frame_rate: (1,), frames per second.

        Returns:
            (N, C, T, h, w).
        """
        count, _, frames, height, width = hidden_states.shape
        table = self._rotary(frames, height, width, frame_rate)
        modulation, embedded = self.time_embed(timestep)
        x = self.proj_in(hidden_states.flatten(2).transpose(1, 2))
        text = self.caption_projection(encoder_hidden_states)
        hidden = (1 - encoder_attention_mask.to(x.dtype)) * -10_000.0
        bias = hidden[:, None, None].expand(count, 1, x.shape[1], hidden.shape[1])
        for block in self.transformer_blocks:
            x = block(x, text, modulation, table, bias)
        shift, scale = (self.scale_shift_table + embedded[:, :, None]).unbind(2)
        x = F.layer_norm(x, (self.options.width,), eps=_OUT_EPSILON)
        x = self.proj_out(_modulated(x, shift, scale))
        return x.transpose(1, 2).unflatten(2, (frames, height, width))

    def _rotary(
        self, frames: int, height: int, width: int, frame_rate: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Cosines and sines, (tokens, width / 2) each, in the order and rounding of diffusers."""
        o, grid = self.options, self.grid
        t = torch.arange(frames, dtype=torch.float32)
        if grid.from_first:
            t = (t * grid.temporal + (1 - grid.temporal)).clamp(min=0) * (1 / frame_rate)
        else:
            t = t * (grid.temporal / frame_rate)
        t = t / _BASE_FRAMES
        y, x = (
            torch.arange(side, dtype=torch.float32) * grid.spatial / _BASE_SIDE
            for side in (height, width)
        )
        places = torch.stack(
            [
                t[:, None, None].expand(frames, height, width),
                y[None, :, None].expand(frames, height, width),
                x[None, None, :].expand(frames, height, width),
            ],
            -1,
        ).flatten(0, 2)
        angles = _frequencies(o.width // 6)[:, None] * (places * 2 - 1)[:, None]
        angles = angles.flatten(1)
        rest = o.width // 2 - angles.shape[1]
        if rest:
            angles = F.pad(angles, (rest, 0))
        return angles.cos(), angles.sin()


class _Block(nn.Module):
    """Self-attention, cross-attention to the text, MLP; each beside an identity."""

    def __init__(self, options: LtxTransformerOptions) -> None:
        super().__init__()
        o = options
        self.norm1, self.norm2 = (_Norm(o) for _ in range(2))
        self.attn1 = _Attention(o, o.width)
        self.attn2 = _Attention(o, o.cross_attention_dim)
        self.ff = _FeedForward(o.width)
        self.scale_shift_table = nn.Parameter(torch.randn(6, o.width) / o.width**0.5)

    def forward(
        self,
        x: Tensor,
        text: Tensor,
        modulation: Tensor,
        table: tuple[Tensor, Tensor],
        bias: Tensor,
    ) -> Tensor:
        values = self.scale_shift_table + modulation
        shift1, scale1, gate1, shift2, scale2, gate2 = values.unbind(2)
        h = self.attn1(_modulated(self.norm1(x), shift1, scale1), table=table)
        x = x + _by_frame(h, gate1)
        x = x + self.attn2(x, text, bias=bias)
        h = self.ff(_modulated(self.norm2(x), shift2, scale2))
        return x + _by_frame(h, gate2)


class _Attention(nn.Module):
    def __init__(self, options: LtxTransformerOptions, source: int) -> None:
        super().__init__()
        o = options
        self.heads = o.num_attention_heads
        self.norm_q, self.norm_k = (nn.RMSNorm(o.width, eps=_QK_EPSILON) for _ in range(2))
        self.to_q = nn.Linear(o.width, o.width, bias=o.attention_bias)
        self.to_k = nn.Linear(source, o.width, bias=o.attention_bias)
        self.to_v = nn.Linear(source, o.width, bias=o.attention_bias)
        self.to_out = nn.ModuleList([nn.Linear(o.width, o.width, bias=o.attention_out_bias)])

    def forward(
        self,
        x: Tensor,
        text: Tensor | None = None,
        *,
        table: tuple[Tensor, Tensor] | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """Tokens (N, tokens, width) and what they look at, themselves by default."""
        source = x if text is None else text
        q, k, v = (
            y.unflatten(2, (self.heads, -1))
            for y in (self.to_q(x), self.to_k(source), self.to_v(source))
        )
        cos, sin = table or (None, None)
        q, k = ops.qk_norm_rope(
            q, k, self.norm_q.weight, self.norm_k.weight, cos, sin,
            norm="full", rope=None if table is None else "interleaved", eps=_QK_EPSILON,
        )  # fmt: skip
        out: Tensor = self.to_out[0](ops.attention(q, k, v, bias=bias).flatten(2))
        return out


class _FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        # The places in between are activation and dropout.
        first = nn.Module()
        first.proj = nn.Linear(width, 4 * width)
        self.net = nn.ModuleList([first, nn.Identity(), nn.Linear(4 * width, width)])

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net[2](F.gelu(self.net[0].proj(x), approximate="tanh"))
        return out


class _Norm(nn.Module):
    """RMS norm, in the form that runtimes know to be one; they want a weight too."""

    def __init__(self, options: LtxTransformerOptions) -> None:
        super().__init__()
        self.width, self.eps = options.width, options.norm_eps
        affine = options.norm_elementwise_affine
        self.weight = nn.Parameter(torch.ones(options.width)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.ones(self.width, device=x.device) if self.weight is None else self.weight
        return x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * weight


class _Modulation(nn.Module):
    """What a timestep does in every block, and the embedding itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.emb = TimeEmbedding(width)
        self.linear = nn.Linear(width, 6 * width)

    def forward(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """(N, T) to (N, T, 6, width) and (N, T, width)."""
        embedded = self.emb(times)
        return self.linear(F.silu(embedded)).unflatten(-1, (6, -1)), embedded


class TimeEmbedding(nn.Module):
    """A timestep as PixArt-alpha's networks embed it, without size and shape."""

    def __init__(self, width: int) -> None:
        super().__init__()
        embedder = self.timestep_embedder = nn.Module()
        embedder.linear_1 = nn.Linear(2 * _FREQUENCIES, width)
        embedder.linear_2 = nn.Linear(width, width)

    def forward(self, times: Tensor) -> Tensor:
        """(..., ) to (..., width)."""
        powers = torch.arange(_FREQUENCIES, dtype=torch.float32) / _FREQUENCIES
        angles = times[..., None] * torch.exp(-math.log(10_000.0) * powers)
        waves = torch.cat([angles.cos(), angles.sin()], -1)
        embedder = self.timestep_embedder
        embedded: Tensor = embedder.linear_2(F.silu(embedder.linear_1(waves)))
        return embedded


class _CaptionProjection(nn.Module):
    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(channels, width), nn.Linear(width, width)

    def forward(self, text: Tensor) -> Tensor:
        projected: Tensor = self.linear_2(F.gelu(self.linear_1(text), approximate="tanh"))
        return projected


def _frequencies(count: int) -> Tensor:
    """(count,): made now and kept as numbers, because one in the last place is seen in the sine."""
    powers = torch.linspace(0.0, 1.0, count, dtype=torch.float32, device="cpu")
    return _THETA**powers * math.pi / 2


def _by_frame(x: Tensor, factor: Tensor) -> Tensor:
    """Tokens (N, T * h * w, width) times a factor for each frame, (N, T, width)."""
    frames = factor.shape[1]
    return (x.unflatten(1, (frames, -1)) * factor[:, :, None]).flatten(1, 2)


def _modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    frames = shift.shape[1]
    moved = x.unflatten(1, (frames, -1)) * (1 + scale[:, :, None]) + shift[:, :, None]
    return moved.flatten(1, 2)
