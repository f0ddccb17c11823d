"""The encoder of UMT5 (Chung et al. 2023), a T5 (Raffel et al. 2020), which reads prompts.

Names in the state dict are those of `UMT5EncoderModel` in transformers. Scores are not scaled; a
learned bias by relative position, each layer's own, is added to them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastvid_export import ops


@dataclass(frozen=True)
class Umt5Options:
    """Shape of the network; names are those of transformers' configuration."""

    vocab_size: int
    d_model: int
    d_kv: int
    d_ff: int
    num_layers: int
    num_heads: int
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6
    gated: bool = True
    """Whether the feed-forward layers are gated (`gated-gelu`) or plain (`relu`)."""
    max_tokens: int = 512
    """The longest prompt."""


class Umt5Encoder(nn.Module):
    """Token ids to one vector per token."""

    def __init__(self, options: Umt5Options) -> None:
        super().__init__()
        self.options = options
        self.shared = nn.Embedding(options.vocab_size, options.d_model)
        self.encoder = _Stack(options)
        self.buckets: Tensor
        self.register_buffer("buckets", _buckets(options), persistent=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """One vector per token.

        Args:
            input_ids: int64 (N, L), L at most `max_tokens`.
            attention_mask: int64 (N, L), 1 for tokens and 0 for padding.

        Returns:
            float32 (N, L, d_model).
        """
        length = input_ids.shape[1]
        places = torch.arange(length)
        distance = places[None] - places[:, None] + (self.options.max_tokens - 1)
        buckets = self.buckets.index_select(0, distance.flatten())
        hidden = torch.where(attention_mask == 0, float("-inf"), 0.0)[:, None, None]
        x = F.embedding(input_ids, self.shared.weight)
        for block in self.encoder.block:
            attend, feed = block.layer  # type: ignore[union-attr, misc]
            # (L, L, heads) to (1, heads, L, L).
            table = attend.SelfAttention.relative_attention_bias.weight
            bias = table.index_select(0, buckets).unflatten(0, (length, length))
            x = feed(attend(x, bias.permute(2, 0, 1)[None] + hidden))
        result: Tensor = self.encoder.final_layer_norm(x)
        return result


def _buckets(o: Umt5Options) -> Tensor:
    """The row of a bias for each distance from `1 - max_tokens` to `max_tokens - 1`."""
    distance = torch.arange(1 - o.max_tokens, o.max_tokens, device="cpu")
    half = o.relative_attention_num_buckets // 2
    exact = half // 2
    far = distance.abs()
    share = torch.log(far.clamp(min=1).float() / exact)
    share = share / math.log(o.relative_attention_max_distance / exact)
    large = (exact + (share * (half - exact)).long()).clamp(max=half - 1)
    return torch.where(far < exact, far, large) + half * (distance > 0)


class _Stack(nn.Module):
    def __init__(self, o: Umt5Options) -> None:
        super().__init__()
        self.block = nn.ModuleList(_Block(o) for _ in range(o.num_layers))
        self.final_layer_norm = _Norm(o)


class _Block(nn.Module):
    def __init__(self, o: Umt5Options) -> None:
        super().__init__()
        self.layer = nn.ModuleList([_AttentionLayer(o), _FeedForwardLayer(o)])


class _Norm(nn.Module):
    def __init__(self, o: Umt5Options) -> None:
        super().__init__()
        self.eps = o.layer_norm_epsilon
        self.weight = nn.Parameter(torch.ones(o.d_model))

    def forward(self, x: Tensor) -> Tensor:
        # In the form that runtimes know to be one norm.
        return x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


class _AttentionLayer(nn.Module):
    def __init__(self, o: Umt5Options) -> None:
        super().__init__()
        self.SelfAttention = _Attention(o)
        self.layer_norm = _Norm(o)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        return x + self.SelfAttention(self.layer_norm(x), bias)


class _Attention(nn.Module):
    def __init__(self, o: Umt5Options) -> None:
        super().__init__()
        self.heads = o.num_heads
        inner = o.num_heads * o.d_kv
        self.q, self.k, self.v = (nn.Linear(o.d_model, inner, bias=False) for _ in range(3))
        self.o = nn.Linear(inner, o.d_model, bias=False)
        self.relative_attention_bias = nn.Embedding(o.relative_attention_num_buckets, o.num_heads)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        q, k, v = (
            project(x).unflatten(-1, (self.heads, -1)) for project in (self.q, self.k, self.v)
        )
        seen = ops.attention(q, k, v, scale=1.0, bias=bias)
        result: Tensor = self.o(seen.flatten(2))
        return result


class _FeedForwardLayer(nn.Module):
    def __init__(self, o: Umt5Options) -> None:
        super().__init__()
        self.DenseReluDense = _Gated(o) if o.gated else _Plain(o)
        self.layer_norm = _Norm(o)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.DenseReluDense(self.layer_norm(x))


class _Gated(nn.Module):
    def __init__(self, o: Umt5Options) -> None:
        super().__init__()
        self.wi_0 = nn.Linear(o.d_model, o.d_ff, bias=False)
        self.wi_1 = nn.Linear(o.d_model, o.d_ff, bias=False)
        self.wo = nn.Linear(o.d_ff, o.d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.wo(F.gelu(self.wi_0(x), approximate="tanh") * self.wi_1(x))
        return result


class _Plain(nn.Module):
    def __init__(self, o: Umt5Options) -> None:
        super().__init__()
        self.wi = nn.Linear(o.d_model, o.d_ff, bias=False)
        self.wo = nn.Linear(o.d_ff, o.d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.wo(F.relu(self.wi(x)))
        return result
