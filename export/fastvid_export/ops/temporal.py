"""Attention along the frames of a video."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastvid import ops as compiled
from fastvid_export.ops._library import define


def _weights(q: Tensor, k: Tensor, bias: Tensor | None, scale: float, causal: bool) -> Tensor:
    """Softmax over keys, (B, S, H, query, key); 0 where a query has no keys."""
    scores = torch.einsum("btshd,bushd->bshtu", q, k) * scale
    if bias is not None:
        scores = scores + bias
    if causal:
        frames = q.shape[1]
        later = torch.ones(frames, frames, dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
    top = scores.amax(-1, keepdim=True)
    weights = torch.exp(scores - top.masked_fill(top == -torch.inf, 0))
    total = weights.sum(-1, keepdim=True)
    return weights / total.masked_fill(total == 0, 1)


def _wide(tensor: Tensor) -> Tensor:
    """At least float32."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _definition(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float, causal: bool
) -> Tensor:
    weights = _weights(_wide(q), _wide(k), bias, scale, causal)
    return torch.einsum("bshtu,bushd->btshd", weights, _wide(v)).to(q.dtype)


def _like_queries(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float, causal: bool
) -> Tensor:
    return q.new_empty(q.shape)


def _compute(
    out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    scale: float,
    causal: bool,
    stream: int | None,
) -> Any:
    if bias is not None:
        bias = bias.contiguous()
    return compiled.temporal_attention(
        q, k, v, bias=bias, scale=scale, causal=causal, out=out, stream=stream
    )


_temporal_attention = define(
    "temporal_attention", _definition, allocate=_like_queries, compute=_compute, views=True
)


def _context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.scale, ctx.causal = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """The weights are made again: to keep them would take T / D of the memory of q."""
    q, k, v, bias = ctx.saved_tensors
    wide_q, wide_k, wide_v, wide_grad = map(_wide, (q, k, v, grad))
    weights = _weights(wide_q, wide_k, bias, ctx.scale, ctx.causal)
    by_v = torch.einsum("bshtu,btshd->bushd", weights, wide_grad)
    by_weights = torch.einsum("btshd,bushd->bshtu", wide_grad, wide_v)
    by_scores = weights * (by_weights - (weights * by_weights).sum(-1, keepdim=True))
    by_q = ctx.scale * torch.einsum("bshtu,bushd->btshd", by_scores, wide_k)
    by_k = ctx.scale * torch.einsum("bshtu,btshd->bushd", by_scores, wide_q)
    by_bias = None
    if ctx.needs_input_grad[3]:
        by_bias = by_scores.sum((0, 1))
        if bias.shape[0] == 1:
            by_bias = by_bias.sum(0, keepdim=True)
        by_bias = by_bias.to(bias.dtype)
    return by_q.to(q.dtype), by_k.to(k.dtype), by_v.to(v.dtype), by_bias, None, None


_temporal_attention.register_autograd(_backward, setup_context=_context)


def temporal_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float | None = None,
    causal: bool = False,
    bias: Tensor | None = None,
) -> Tensor:
    """Scaled dot-product attention along the frames of a video, each place and head by itself.

    Args:
        q: (B, T, S, H, D), S = height * width; T from 1 to 64, D a multiple of 8 from 8 to 256. Any
            strides with D adjacent: views of a packed (B, T, S, 3, H, D) are not copied.
        k: Like q, of the same dtype and shape.
        v: Like k.
        scale: Factor of the products; None is `D ** -0.5`.
        causal: Whether a frame sees only itself and those before.
        bias: float32 (H, T, T) or (1, T, T), query then key; -inf masks a key. float64 with
            float64 tensors.

    Returns:
        (B, T, S, H, D), with gradients to every tensor.
    """
    return _temporal_attention(
        q, k, v, bias, q.shape[-1] ** -0.5 if scale is None else scale, causal
    )
