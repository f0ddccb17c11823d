"""The transformer of Wan 2.1 and 2.2 (Wan Team 2025, arXiv:2503.20314).

Names in the state dict are those of `WanTransformer3DModel` in diffusers, whose weights it takes.
Norms, modulation and gates are as there; attention and the norm and rotation of queries and keys
are one node each in a graph, and the rotation is gathered from tables, without scattered writes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastvid_export import ops

_THETA = 10_000.0


@dataclass(frozen=True)
class WanTransformerOptions:
    """Shape of the network; names are those of diffusers' configuration."""

    patch_size: tuple[int, int, int] = (1, 2, 2)
    num_attention_heads: int = 12
    attention_head_dim: int = 128
    in_channels: int = 16
    out_channels: int = 16
    text_dim: int = 4096
    freq_dim: int = 256
    ffn_dim: int = 8960
    num_layers: int = 30
    cross_attn_norm: bool = True
    eps: float = 1e-6
    image_dim: int | None = None
    added_kv_proj_dim: int | None = None
    rope_max_seq_len: int = 1024
    pos_embed_seq_len: int | None = None
    per_frame: bool = False
    """Whether each latent frame has a timestep of its own (`expand_timesteps` of the pipeline)."""

    @property
    def width(self) -> int:
        """Channels between the blocks."""
        return self.num_attention_heads * self.attention_head_dim


class WanTransformer(nn.Module):
    """Predicts the velocity of latents."""

    def __init__(self, options: WanTransformerOptions) -> None:
        super().__init__()
        o = self.options = options
        self.patch_embedding = nn.Conv3d(o.in_channels, o.width, o.patch_size, o.patch_size)
        self.condition_embedder = _Conditions(o)
        self.blocks = nn.ModuleList(_Block(o) for _ in range(o.num_layers))
        self.proj_out = nn.Linear(o.width, o.out_channels * math.prod(o.patch_size))
        self.scale_shift_table = nn.Parameter(torch.zeros(1, 2, o.width))
        self.rope = _RotaryTables(o.attention_head_dim, o.rope_max_seq_len)

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        condition: Tensor | None = None,
        image_embeds: Tensor | None = None,
    ) -> Tensor:
        """The velocity.

        Args:
            hidden_states: (N, C, T, h, w), the noisy latents.
            timestep: (N,), or (N, T) with `per_frame`; from 0 to 1000.
            encoder_hidden_states: (N, L, text_dim), zeros after the prompt.
            condition: (N, in_channels - C, T, h, w), further channels.
            image_embeds: (M, tokens, image_dim), M pictures of N = 1 clip or one of each clip.

        Returns:
            (N, out_channels, T, h, w).
        """
        x = hidden_states if condition is None else torch.cat([hidden_states, condition], 1)
        x, grid = self._patches(x)
        time, modulation = self.condition_embedder.times(timestep)
        text = self.condition_embedder.text_embedder(encoder_hidden_states)
        picture = None
        if image_embeds is not None:
            picture = self.condition_embedder.image_embedder(image_embeds, hidden_states.shape[0])
        table = self.rope(grid)
        frames = grid[0] if self.options.per_frame else 1
        for block in self.blocks:
            x = block(x, text, picture, modulation, table, frames)
        shift, scale = (self.scale_shift_table[:, None] + time[:, :, None]).unbind(2)
        x = _modulated(_norm(x, self.options.eps), shift, scale, frames)
        return self._unpatched(self.proj_out(x), grid)

    def _patches(self, x: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        """The patch embedding, as a product: (N, tokens, width)."""
        n, c, t, h, w = x.shape
        p, q, r = self.options.patch_size
        grid = (t // p, h // q, w // r)
        x = x.reshape(n, c, grid[0], p, grid[1], q, grid[2], r).permute(0, 2, 4, 6, 1, 3, 5, 7)
        x = x.reshape(n, grid[0] * grid[1] * grid[2], c * p * q * r)
        return F.linear(x, self.patch_embedding.weight.flatten(1), self.patch_embedding.bias), grid

    def _unpatched(self, x: Tensor, grid: tuple[int, int, int]) -> Tensor:
        p, q, r = self.options.patch_size
        channels = self.options.out_channels
        x = x.reshape(x.shape[0], *grid, p, q, r, channels).permute(0, 7, 1, 4, 2, 5, 3, 6)
        return x.reshape(x.shape[0], channels, grid[0] * p, grid[1] * q, grid[2] * r)


class _Conditions(nn.Module):
    """What timesteps, prompts and pictures become."""

    def __init__(self, o: WanTransformerOptions) -> None:
        super().__init__()
        self.frequencies = o.freq_dim
        self.time_embedder = _Two(o.freq_dim, o.width)
        self.time_proj = nn.Linear(o.width, 6 * o.width)
        self.text_embedder = _Text(o.text_dim, o.width)
        if o.image_dim is not None:
            self.image_embedder = _Picture(o.image_dim, o.width, o.pos_embed_seq_len)

    def times(self, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """(N,) or (N, T) to (N, F, width) and (N, F, 6, width), F being 1 or T."""
        timestep = timestep[:, None] if timestep.dim() == 1 else timestep
        time = self.time_embedder(_sinusoid(timestep, self.frequencies))
        return time, self.time_proj(F.silu(time)).unflatten(-1, (6, -1))


def _sinusoid(timestep: Tensor, width: int) -> Tensor:
    """Cosines, then sines, (...,) to (..., width)."""
    half = width // 2
    powers = torch.exp(-math.log(_THETA) * torch.arange(half, dtype=torch.float32) / half)
    angles = timestep[..., None] * powers
    return torch.cat([angles.cos(), angles.sin()], -1)


class _Two(nn.Module):
    def __init__(self, incoming: int, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(incoming, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.linear_2(F.silu(self.linear_1(x)))
        return result


class _Text(_Two):
    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.linear_2(F.gelu(self.linear_1(x), approximate="tanh"))
        return result


class _Picture(nn.Module):
    """What the image encoder says, at the width of the blocks."""

    def __init__(self, incoming: int, width: int, places: int | None) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(incoming)
        self.ff = _FeedForward(incoming, incoming, width, approximate="none")
        self.norm2 = nn.LayerNorm(width)
        if places is not None:
            self.pos_embed = nn.Parameter(torch.zeros(1, places, incoming))
        self.places = places

    def forward(self, x: Tensor, clips: int) -> Tensor:
        if self.places is not None:
            # Two pictures of each clip, one after the other.
            x = x.reshape(clips, -1, x.shape[-1]) + self.pos_embed
        result: Tensor = self.norm2(self.ff(self.norm1(x)))
        return result


class _FeedForward(nn.Module):
    """Keys are those of diffusers' `FeedForward`: `net.0.proj` and `net.2`."""

    def __init__(self, incoming: int, inner: int, out: int, approximate: str = "tanh") -> None:
        super().__init__()
        self.approximate = approximate
        first = nn.Module()
        first.proj = nn.Linear(incoming, inner)
        self.net = nn.ModuleList([first, nn.Identity(), nn.Linear(inner, out)])

    def forward(self, x: Tensor) -> Tensor:
        inner = F.gelu(self.net[0].proj(x), approximate=self.approximate)  # type: ignore[operator, union-attr]
        result: Tensor = self.net[2](inner)
        return result


class _Block(nn.Module):
    def __init__(self, o: WanTransformerOptions) -> None:
        super().__init__()
        self.eps = o.eps
        self.attn1 = _Attention(o)
        self.attn2 = _Attention(o, o.added_kv_proj_dim)
        self.norm2 = nn.LayerNorm(o.width, o.eps) if o.cross_attn_norm else nn.Identity()
        self.ffn = _FeedForward(o.width, o.ffn_dim, o.width)
        self.scale_shift_table = nn.Parameter(torch.zeros(1, 6, o.width))

    def forward(
        self,
        x: Tensor,
        text: Tensor,
        picture: Tensor | None,
        modulation: Tensor,
        table: tuple[Tensor, Tensor],
        frames: int,
    ) -> Tensor:
        """(N, tokens, width), the same of text and picture, (N, F, 6, width)."""
        parts = (self.scale_shift_table[:, None] + modulation).unbind(2)
        shift1, scale1, gate1, shift2, scale2, gate2 = parts
        h = self.attn1(_modulated(_norm(x, self.eps), shift1, scale1, frames), table)
        x = x + _gated(h, gate1, frames)
        x = x + self.attn2.across(self.norm2(x), text, picture)
        h = self.ffn(_modulated(_norm(x, self.eps), shift2, scale2, frames))
        return x + _gated(h, gate2, frames)


def _norm(x: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=eps)


def _modulated(x: Tensor, shift: Tensor, scale: Tensor, frames: int) -> Tensor:
    """`x * (1 + scale) + shift`, shift and scale (N, F, width), for tokens (N, F * n, width)."""
    if scale.shape[1] == 1:
        return x * (1 + scale) + shift
    by_frame = x.unflatten(1, (frames, -1))
    return (by_frame * (1 + scale)[:, :, None] + shift[:, :, None]).flatten(1, 2)


def _gated(x: Tensor, gate: Tensor, frames: int) -> Tensor:
    if gate.shape[1] == 1:
        return x * gate
    return (x.unflatten(1, (frames, -1)) * gate[:, :, None]).flatten(1, 2)


class _Attention(nn.Module):
    def __init__(self, o: WanTransformerOptions, picture: int | None = None) -> None:
        super().__init__()
        self.heads, self.eps = o.num_attention_heads, o.eps
        self.to_q = nn.Linear(o.width, o.width)
        self.to_k = nn.Linear(o.width, o.width)
        self.to_v = nn.Linear(o.width, o.width)
        self.to_out = nn.ModuleList([nn.Linear(o.width, o.width)])
        self.norm_q = nn.RMSNorm(o.width, o.eps)
        self.norm_k = nn.RMSNorm(o.width, o.eps)
        if picture is not None:
            self.add_k_proj = nn.Linear(picture, o.width)
            self.add_v_proj = nn.Linear(picture, o.width)
            self.norm_added_k = nn.RMSNorm(o.width, o.eps)

    def forward(self, x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
        """Of the tokens to each other."""
        q, k, v = (self._heads(project(x)) for project in (self.to_q, self.to_k, self.to_v))
        q, k = ops.qk_norm_rope(
            q, k, self.norm_q.weight, self.norm_k.weight, *table, norm="full", eps=self.eps
        )
        result: Tensor = self.to_out[0](ops.attention(q, k, v).flatten(2))
        return result

    def across(self, x: Tensor, text: Tensor, picture: Tensor | None) -> Tensor:
        """To the prompt and, beside it, to a picture."""
        raw = self._heads(self.to_q(x))
        k, v = self._heads(self.to_k(text)), self._heads(self.to_v(text))
        q, k = self._normed(raw, k, self.norm_k.weight)
        seen = ops.attention(q, k, v)
        if picture is not None:
            k, v = self._heads(self.add_k_proj(picture)), self._heads(self.add_v_proj(picture))
            q, k = self._normed(raw, k, self.norm_added_k.weight)
            seen = seen + ops.attention(q, k, v)
        result: Tensor = self.to_out[0](seen.flatten(2))
        return result

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1))

    def _normed(self, q: Tensor, k: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        return ops.qk_norm_rope(
            q, k, self.norm_q.weight, weight, norm="full", rope=None, eps=self.eps
        )


class _RotaryTables(nn.Module):
    """Cosines and sines of three axes; rows and columns have 2 * (dim // 6) dimensions each."""

    def __init__(self, dim: int, places: int) -> None:
        super().__init__()
        side = 2 * (dim // 6)
        for axis, width in zip("thw", (dim - 2 * side, side, side), strict=True):
            # In float64 and on the CPU, whatever device the weights are on.
            steps = torch.arange(0, width, 2, dtype=torch.float64, device="cpu")
            angles = torch.arange(places, dtype=torch.float64, device="cpu")[:, None] / (
                _THETA ** (steps / width)
            )
            self.register_buffer(f"cos_{axis}", angles.cos().float(), persistent=False)
            self.register_buffer(f"sin_{axis}", angles.sin().float(), persistent=False)

    def forward(self, grid: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
        """Tables of all tokens, (T * h * w, dim / 2) each."""
        t, h, w = grid
        tables = []
        for kind in ("cos", "sin"):
            parts = []
            for axis, shape, count in (
                ("t", (t, 1, 1, -1), t),
                ("h", (1, h, 1, -1), h),
                ("w", (1, 1, w, -1), w),
            ):
                table: Tensor = getattr(self, f"{kind}_{axis}")
                rows = table.index_select(0, torch.arange(count))
                parts.append(rows.reshape(shape).expand(t, h, w, -1))
            tables.append(torch.cat(parts, -1).flatten(0, 2))
        return tables[0], tables[1]
