"""The transformer that denoises the latents of a clip, told by a prompt what they show.

    noisy latents ─┐
    known latents ─┼─ 1x2x2 patches ─ [ attention ─ text cross-attention ─ MLP ] x depth ─ velocity
    mask ──────────┘                       ╰── modulated by the timestep and the whole prompt

It learns flow matching (Lipman et al., 2023; Esser et al., 2024): between data x and noise e lies
(1 - s) x + s e, and the network predicts e - x. Blocks are those of DiT (Peebles and Xie, 2023)
with the shared modulation and the cross-attention of PixArt-alpha (Chen et al., 2024), three axes
of rotary embedding and normalised queries and keys (Wan, 2025; Henry et al., 2020), and squared
ReLUs (So et al., 2021), which cost less than GELUs on a CPU.

Frames that are known come as latents beside the noisy ones, with a mask that is 1 where they are:
the first image of a clip, a clip to go on with, a last image. Inputs carry diffusers' names.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastvid_export import ops
from fastvid_export.models.text_encoder import attend

SPATIAL_PATCH = 2
EPSILON = 1e-6
"""Added to the mean of squares by every norm."""
_FREQUENCIES = 128
_PLACES = 4


@dataclass(frozen=True)
class VideoTransformerOptions:
    """Shape of the network."""

    latent_channels: int = 16
    text_width: int = 192
    width: int = 256
    depth: int = 8
    heads: int = 4
    """Each at least 16 wide, so that the rotary embedding has pairs for three axes."""
    mlp: int = 1024
    theta: float = 100.0
    """Base of the rotary embedding: grids here are small."""


class VideoTransformer(nn.Module):
    """Predicts the velocity of noisy latents."""

    def __init__(self, options: VideoTransformerOptions) -> None:
        super().__init__()
        o = self.options = options
        pixels = SPATIAL_PATCH**2
        self.patches = nn.Linear((2 * o.latent_channels + 1) * pixels, o.width)
        self.places = nn.Linear(4 * _PLACES, o.width, bias=False)
        self.beginning = nn.Parameter(torch.zeros(o.width))
        self.time = nn.Sequential(
            nn.Linear(2 * _FREQUENCIES, o.width), nn.SiLU(), nn.Linear(o.width, o.width)
        )
        self.prompt = nn.Linear(o.text_width, o.width)
        self.modulation = nn.Linear(o.width, 6 * o.width)
        self.blocks = nn.ModuleList(Block(o) for _ in range(o.depth))
        self.norm = _Norm(o.width)
        self.final = nn.Parameter(torch.zeros(2, o.width))
        self.out = nn.Linear(o.width, o.latent_channels * pixels)
        for zero in (self.modulation, self.out):
            nn.init.zeros_(zero.weight)
            nn.init.zeros_(zero.bias)

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor,
        condition: Tensor,
    ) -> Tensor:
        """The velocity, noise minus data.

        Args:
            hidden_states: Noisy latents (N, C, T, h, w), h and w even.
            timestep: (N,) in [0, 1000], 1000 times the noise level.
            encoder_hidden_states: (N, L, D), as the text encoder makes them.
            encoder_attention_mask: int64 (N, L), 1 for tokens and 0 for padding. Only the mean of
                the prompt leaves padding out; attention sees it.
            condition: (N, C + 1, T, h, w): known latents, zero elsewhere, and the mask.

        Returns:
            (N, C, T, h, w); without meaning where the mask is 1.
        """
        text = encoder_hidden_states
        known, mask = condition[:, :-1], condition[:, -1:]
        # What is known is not noise, whatever the solver made of it.
        latents = hidden_states + mask * (known - hidden_states)
        x, grid = patchify(torch.cat([latents, condition], 1))
        x = self.patches(x) + self.places(places(grid, x))
        x = torch.cat([x[:, : grid[1] * grid[2]] + self.beginning, x[:, grid[1] * grid[2] :]], 1)
        c = self.time(sinusoid(timestep)) + self.prompt(
            mean_of_prompt(text, encoder_attention_mask)
        )
        modulation = self.modulation(F.silu(c)).unflatten(-1, (6, -1))
        cos, sin = rope_table_3d(grid, self.options.width // self.options.heads, self.options.theta)
        for block in self.blocks:
            x = block(x, text, modulation, cos, sin)
        shift, scale = (self.final + c[:, None]).chunk(2, 1)
        x = self.out(self.norm(x) * (1 + scale) + shift)
        return unpatchify(x, grid)


class Block(nn.Module):
    """Self-attention, cross-attention to the text, MLP; each beside an identity."""

    def __init__(self, options: VideoTransformerOptions) -> None:
        super().__init__()
        o = options
        self.heads = o.heads
        self.table = nn.Parameter(0.02 * torch.randn(6, o.width))
        self.norm1, self.norm2, self.norm3 = (_Norm(o.width) for _ in range(3))
        self.qkv = nn.Linear(o.width, 3 * o.width, bias=False)
        self.q_norm, self.k_norm = (HeadNorm(o.width // o.heads) for _ in range(2))
        self.out = nn.Linear(o.width, o.width)
        self.text_q = nn.Linear(o.width, o.width, bias=False)
        self.text_kv = nn.Linear(o.text_width, 2 * o.width, bias=False)
        self.text_q_norm, self.text_k_norm = (HeadNorm(o.width // o.heads) for _ in range(2))
        self.text_out = nn.Linear(o.width, o.width)
        self.up = nn.Linear(o.width, o.mlp)
        self.down = nn.Linear(o.mlp, o.width)

    def forward(
        self, x: Tensor, text: Tensor, modulation: Tensor, cos: Tensor, sin: Tensor
    ) -> Tensor:
        """(N, tokens, width) → the same shape.

        Args:
            x: Tokens, in the order time, row, column.
            text: (N, L, text width).
            modulation: (N, 6, width): shift, scale and gate of the attention, then of the MLP.
            cos: (tokens, head width / 2).
            sin: The same.
        """
        shift1, scale1, gate1, shift2, scale2, gate2 = (modulation + self.table).chunk(6, 1)
        h = self.norm1(x) * (1 + scale1) + shift1
        q, k, v = self.qkv(h).unflatten(-1, (3, self.heads, -1)).unbind(2)
        q, k = norm_and_rotate(q, k, self.q_norm, self.k_norm, (cos, sin))
        x = x + gate1 * self.out(attend(q, k, v))
        q = self.text_q(self.norm2(x)).unflatten(-1, (self.heads, -1))
        k, v = self.text_kv(text).unflatten(-1, (2, self.heads, -1)).unbind(2)
        q, k = norm_and_rotate(q, k, self.text_q_norm, self.text_k_norm)
        x = x + self.text_out(attend(q, k, v))
        h = self.norm3(x) * (1 + scale2) + shift2
        return x + gate2 * self.down(F.relu(self.up(h)).square())


class HeadNorm(nn.Module):
    """RMS norm of each head's queries or keys."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) → the same shape, in the dtype of `x`."""
        scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + EPSILON)
        return x * scale * self.weight.to(x.dtype)


class _Norm(nn.RMSNorm):
    """Without a weight: the modulation has one, or the layer after."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=EPSILON, elementwise_affine=False)


def norm_and_rotate(
    q: Tensor,
    k: Tensor,
    q_norm: HeadNorm,
    k_norm: HeadNorm,
    table: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Normalised and, by a table, rotated queries and keys, (N, tokens, heads, dim) each.

    One node in a graph; written out where gradients are wanted, which is faster there.
    """
    if torch.onnx.is_in_onnx_export():
        cos, sin = table or (None, None)
        rope = None if table is None else "half"
        return ops.qk_norm_rope(
            q, k, q_norm.weight, k_norm.weight, cos, sin, norm="head", rope=rope, eps=EPSILON
        )
    q, k = q_norm(q), k_norm(k)
    return (q, k) if table is None else (rotate(q, *table), rotate(k, *table))


def rope_table_3d(grid: tuple[int, int, int], dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary embedding of a (T, h, w) grid, (T * h * w, dim / 2) each.

    Rows and columns have 2 * (dim // 6) of the dimensions each, time the rest, as in Wan.
    """
    side = 2 * (dim // 6)
    axes = []
    for count, width in zip(grid, (dim - 2 * side, side, side), strict=True):
        powers = torch.arange(0, width, 2, dtype=torch.float32) / width
        axes.append(torch.arange(count, dtype=torch.float32)[:, None] * theta**-powers)
    t, y, x = grid
    angles = torch.cat(
        [
            axes[0][:, None, None].expand(t, y, x, -1),
            axes[1][None, :, None].expand(t, y, x, -1),
            axes[2][None, None, :].expand(t, y, x, -1),
        ],
        -1,
    ).flatten(0, 2)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns (N, tokens, heads, dim) by the table; dimension i pairs with i + dim / 2."""
    cos, sin = (torch.cat([table, table], -1)[:, None].to(x.dtype) for table in (cos, sin))
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


def mean_of_prompt(text: Tensor, mask: Tensor) -> Tensor:
    """Mean of the tokens whose mask is 1: (N, L, D) and (N, L) → (N, D)."""
    weights = mask.to(text.dtype)[..., None]
    return (text * weights).sum(1) / weights.sum(1).clamp(min=1.0)


def patchify(x: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
    """(N, C, T, h, w) → tokens (N, T * h * w / 4, 4 C), and their grid."""
    n, c, t, h, w = x.shape
    p = SPATIAL_PATCH
    grid = (t, h // p, w // p)
    x = x.reshape(n, c, t, h // p, p, w // p, p).permute(0, 2, 3, 5, 1, 4, 6)
    return x.reshape(n, grid[0] * grid[1] * grid[2], c * p * p), grid


def unpatchify(x: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Tokens (N, T * h * w / 4, 4 C) → (N, C, T, h, w)."""
    p = SPATIAL_PATCH
    x = x.reshape(x.shape[0], *grid, -1, p, p).permute(0, 4, 1, 2, 5, 3, 6)
    return x.reshape(x.shape[0], x.shape[1], grid[0], grid[1] * p, grid[2] * p)


def places(grid: tuple[int, int, int], like: Tensor) -> Tensor:
    """Waves over the height and the width of the frame, whatever its size: (tokens, 4 * places)."""
    t, h, w = grid
    waves = []
    for axis, count in enumerate((h, w)):
        share = (torch.arange(count, device=like.device, dtype=torch.float32) + 0.5) / count
        angle = share[:, None] * math.pi * torch.arange(1, _PLACES + 1, device=like.device)
        wave = torch.cat([angle.cos(), angle.sin()], -1)
        shape = (1, h, 1, -1) if axis == 0 else (1, 1, w, -1)
        waves.append(wave.reshape(shape).expand(t, h, w, -1))
    return torch.cat(waves, -1).flatten(0, 2)


def sinusoid(timestep: Tensor) -> Tensor:
    """Waves of a timestep, (N,) → (N, 256)."""
    powers = torch.arange(_FREQUENCIES, device=timestep.device) / _FREQUENCIES
    angles = timestep[:, None] * torch.exp(-math.log(10_000.0) * powers)
    return torch.cat([angles.cos(), angles.sin()], -1)
