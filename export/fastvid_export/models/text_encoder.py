"""A small transformer that reads a prompt: token ids in, one vector per token out.

Prompts have a fixed length. Padding counts as a token without a meaning of its own, which attention
sees: no attention needs a mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastvid_export import ops

PAD = 0
"""Id of padding, whatever the vocabulary."""


@dataclass(frozen=True)
class TextEncoderOptions:
    """Shape of the network."""

    vocabulary: int = 512
    """Number of ids there is room for."""
    length: int = 48
    """Tokens of a prompt, padding included."""
    width: int = 192
    depth: int = 2
    heads: int = 4


class TextEncoder(nn.Module):
    """Reads prompts."""

    def __init__(self, options: TextEncoderOptions) -> None:
        super().__init__()
        self.options = options
        self.tokens = nn.Embedding(options.vocabulary, options.width)
        self.positions = nn.Parameter(0.02 * torch.randn(options.length, options.width))
        self.layers = nn.ModuleList(
            _Layer(options.width, options.heads) for _ in range(options.depth)
        )
        self.norm = nn.RMSNorm(options.width, eps=1e-6)
        nn.init.normal_(self.tokens.weight, std=0.5)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """One vector per token.

        Args:
            input_ids: int64 (N, L).
            attention_mask: int64 (N, L), 1 for tokens and 0 for padding.

        Returns:
            float32 (N, L, width).
        """
        tokens = self.tokens(input_ids)
        x = tokens * attention_mask[..., None].to(tokens.dtype) + self.positions
        for layer in self.layers:
            x = layer(x)
        normed: Tensor = self.norm(x)
        return normed


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention, (N, tokens, heads, dim) each → (N, tokens, heads * dim), in the dtype of `v`.

    One node in a graph; written out for training, where at these lengths the gradient of torch's
    fused kernel takes three times as long on a CPU.
    """
    if torch.onnx.is_in_onnx_export():
        return ops.attention(q, k, v).flatten(2)
    q, k, v = (x.transpose(1, 2).to(v.dtype) for x in (q, k, v))
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(2, 3)
    return (scores.softmax(-1).to(v.dtype) @ v).transpose(1, 2).flatten(2)


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.RMSNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.norm2 = nn.RMSNorm(width, eps=1e-6)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).unbind(2)
        x = x + self.out(attend(q, k, v))
        return x + self.down(F.relu(self.up(self.norm2(x))).square())
