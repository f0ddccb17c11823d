"""T5's encoder, under the names of transformers' `T5EncoderModel` and `UMT5EncoderModel`.

Raffel et al. (2020, arXiv 1910.10683), with the gated MLP of version 1.1 (Shazeer, 2020, arXiv
2002.05202). Distances between tokens are in a bias of the attention, of which UMT5 (Chung et al.,
2023, arXiv 2304.09151) has one in every layer. Scores are not scaled by the width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastvid_export import ops

ACTIVATIONS = ("relu", "gelu_new", "gated-gelu_new")


@dataclass(frozen=True)
class T5Options:
    """Shape of the network: the names of its `config.json`."""

    vocab_size: int = 32128
    d_model: int = 512
    d_kv: int = 64
    d_ff: int = 2048
    num_layers: int = 6
    num_heads: int = 8
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6
    activation: str = "relu"
    """One of `ACTIVATIONS`."""
    bias_in_each_layer: bool = False
    """As UMT5 has it; T5 has one for all."""


class T5Encoder(nn.Module):
    """Reads prompts.

    Args:
        options: Its shape.
        masked: Whether padding is hidden from the tokens. Some pipelines let them see it.
    """

    def __init__(self, options: T5Options, *, masked: bool = True) -> None:
        super().__init__()
        o = self.options = options
        self.masked = masked
        self.shared = nn.Embedding(o.vocab_size, o.d_model)
        self.encoder = nn.Module()
        self.encoder.block = nn.ModuleList(
            _Block(o, biased=o.bias_in_each_layer or i == 0) for i in range(o.num_layers)
        )
        self.encoder.final_layer_norm = _Norm(o)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """One vector per token.

        Args:
            input_ids: int64 (N, L).
            attention_mask: int64 (N, L), 1 for tokens and 0 for padding; None without `masked`.

        Returns:
            float32 (N, L, d_model).
        """
        x = self.shared(input_ids)
        buckets = self._buckets(input_ids.shape[1])
        bias = None
        for block in self.encoder.block:
            attention = block.layer[0].SelfAttention
            if attention.relative_attention_bias is not None:
                bias = attention.relative_attention_bias(buckets).permute(2, 0, 1)[None]
                if self.masked:
                    assert attention_mask is not None
                    seen = attention_mask[:, None, None] != 0
                    bias = torch.where(seen, bias, torch.tensor(-torch.inf))
            x = block(x, bias)
        out: Tensor = self.encoder.final_layer_norm(x)
        return out

    def _buckets(self, length: int) -> Tensor:
        """int64 (L, L): row of the bias for each query and key; far apart they share one."""
        o = self.options
        half, most = o.relative_attention_num_buckets // 2, o.relative_attention_max_distance
        places = torch.arange(length)
        apart = places[None] - places[:, None]
        table = _bucket_by_distance(half, most)
        near = table.index_select(0, apart.abs().clamp(max=most).flatten())
        return (apart > 0).to(torch.int64) * half + near.unflatten(0, (length, length))


def _bucket_by_distance(buckets: int, most: int) -> Tensor:
    """int64 (most + 1,): numbers, because a runtime's logarithm may round over an edge."""
    exact = buckets // 2
    apart = torch.arange(most + 1, device="cpu")
    # Below `exact` the logarithm is not used, and of 0 there is none.
    share = (apart.clamp(min=1).to(torch.float32) / exact).log()
    far = exact + (share / math.log(most / exact) * (buckets - exact)).to(torch.int64)
    return torch.where(apart < exact, apart, far.clamp(max=buckets - 1))


class _Block(nn.Module):
    def __init__(self, options: T5Options, *, biased: bool) -> None:
        super().__init__()
        attention, mlp = nn.Module(), nn.Module()
        attention.SelfAttention = _Attention(options, biased=biased)
        attention.layer_norm = _Norm(options)
        mlp.DenseReluDense = _Mlp(options)
        mlp.layer_norm = _Norm(options)
        self.layer = nn.ModuleList([attention, mlp])

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        attention, mlp = self.layer
        x = x + attention.SelfAttention(attention.layer_norm(x), bias)
        out: Tensor = x + mlp.DenseReluDense(mlp.layer_norm(x))
        return out


class _Attention(nn.Module):
    def __init__(self, options: T5Options, *, biased: bool) -> None:
        super().__init__()
        o = options
        self.heads = o.num_heads
        inner = o.num_heads * o.d_kv
        self.q, self.k, self.v = (nn.Linear(o.d_model, inner, bias=False) for _ in range(3))
        self.o = nn.Linear(inner, o.d_model, bias=False)
        self.relative_attention_bias = None
        if biased:
            self.relative_attention_bias = nn.Embedding(
                o.relative_attention_num_buckets, o.num_heads
            )

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        q, k, v = (y(x).unflatten(2, (self.heads, -1)) for y in (self.q, self.k, self.v))
        out: Tensor = self.o(ops.attention(q, k, v, scale=1.0, bias=bias).flatten(2))
        return out


class _Mlp(nn.Module):
    def __init__(self, options: T5Options) -> None:
        super().__init__()
        o = options
        self.gated = o.activation.startswith("gated-")
        self.relu = o.activation.endswith("relu")
        if self.gated:
            self.wi_0, self.wi_1 = (nn.Linear(o.d_model, o.d_ff, bias=False) for _ in range(2))
        else:
            self.wi = nn.Linear(o.d_model, o.d_ff, bias=False)
        self.wo = nn.Linear(o.d_ff, o.d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.wi_0(x) if self.gated else self.wi(x)
        h = F.relu(h) if self.relu else F.gelu(h, approximate="tanh")
        out: Tensor = self.wo(h * self.wi_1(x) if self.gated else h)
        return out


class _Norm(nn.Module):
    """RMS norm, in the form that runtimes know to be one."""

    def __init__(self, options: T5Options) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(options.d_model))
        self.eps = options.layer_norm_epsilon

    def forward(self, x: Tensor) -> Tensor:
        return x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


def activation_of(config: Mapping[str, Any], *, gated: bool) -> str:
    """The activation that transformers' `config.json` names, one of `ACTIVATIONS`.

    Args:
        config: Its values.
        gated: Whether it is gated where the file says nothing, as UMT5's is.

    Raises:
        ValueError: It is none that is known; says which.
    """
    kind = str(config.get("feed_forward_proj", "gated-gelu" if gated else "relu"))
    # transformers reads gated-gelu as the approximation that T5 was trained with.
    activation = "gated-gelu_new" if kind == "gated-gelu" else kind
    if activation not in ACTIVATIONS:
        raise ValueError(f"feed_forward_proj must be relu, gelu_new or gated-gelu, got {kind!r}")
    return activation
