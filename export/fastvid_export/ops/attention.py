"""Attention, and the norm and rotary embedding of its queries and keys."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastvid import ops as compiled
from fastvid_export.ops._library import define


def _wide(*tensors: Tensor | None) -> list[Any]:
    """float64 where the first is, else float32, as the compiled ops reckon."""
    first = tensors[0]
    dtype = torch.float64 if first is not None and first.dtype == torch.float64 else torch.float32
    return [None if tensor is None else tensor.to(dtype) for tensor in tensors]


def _weights(q: Tensor, k: Tensor, bias: Tensor | None, causal: bool, scale: float) -> Tensor:
    """(B, H, Nq, Nk), of sum 1, or 0 where a query sees no key."""
    scores = torch.einsum("bihd,bjhd->bhij", q, k) * _factor(q, scale)
    if bias is not None:
        scores = scores + bias
    if causal:
        seen = torch.ones(scores.shape[2:], dtype=torch.bool, device=q.device).tril()
        scores = scores.masked_fill(~seen, -torch.inf)
    top = scores.amax(3, keepdim=True).clamp(min=torch.finfo(scores.dtype).min)
    weights = (scores - top).exp()
    total = weights.sum(3, keepdim=True)
    return weights / torch.where(total == 0, 1, total)


def _factor(q: Tensor, scale: float) -> float:
    return float(scale) if scale != 0 else float(q.shape[3] ** -0.5)


def _attention_definition(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, causal: bool, scale: float
) -> Tensor:
    wide_q, wide_k, wide_v, wide_bias = _wide(q, k, v, bias)
    weights = _weights(wide_q, wide_k, wide_bias, causal, scale)
    return torch.einsum("bhij,bjhd->bihd", weights, wide_v).to(q.dtype)


def _attention_like(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, causal: bool, scale: float
) -> Tensor:
    return q.new_empty(q.shape)


def _compute_attention(
    out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    causal: bool,
    scale: float,
    stream: int | None,
) -> Any:
    factor = None if scale == 0 else scale
    return compiled.attention(
        q, k, v, bias=bias, causal=causal, scale=factor, out=out, stream=stream
    )


_attention = define(
    "attention", _attention_definition, allocate=_attention_like, compute=_compute_attention
)


def _attention_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    q, k, v, bias, ctx.causal, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, bias, output)


def _attention_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """With weights P and out = P v, by the softmax: dS = P * (grad v^T - sum(grad * out))."""
    saved = ctx.saved_tensors
    q, k, v, bias, out = _wide(*saved)
    grad = grad.to(q.dtype)
    weights = _weights(q, k, bias, ctx.causal, ctx.scale)
    by_v = torch.einsum("bhij,bihd->bjhd", weights, grad)
    shared = (grad * out).sum(3).transpose(1, 2)[..., None]
    by_scores = weights * (torch.einsum("bihd,bjhd->bhij", grad, v) - shared)
    factor = _factor(q, ctx.scale)
    by_q = factor * torch.einsum("bhij,bjhd->bihd", by_scores, k)
    by_k = factor * torch.einsum("bhij,bihd->bjhd", by_scores, q)
    by_bias = None if bias is None else by_scores.sum_to_size(bias.shape)
    found = [by_q, by_k, by_v, by_bias]
    results = [
        None if one is None else one.to(like.dtype)
        for one, like in zip(found, saved[:4], strict=True)
    ]
    return (*results, None, None)


_attention.register_autograd(_attention_backward, setup_context=_attention_context)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float | None = None,
    causal: bool = False,
    bias: Tensor | None = None,
) -> Tensor:
    """Scaled dot product attention, as the op of that name.

    An export keeps it as a node of its own on every device: on the CPU it is faster than
    onnxruntime's MultiHeadAttention in float32 too (docs/benchmarks.md); for long sequences on a
    GPU export `torch.nn.functional.scaled_dot_product_attention` instead, for which TensorRT and
    cuDNN have kernels of their own.

    Its gradient has the scores in memory, unlike the result: to train on long sequences take
    `torch.nn.functional.scaled_dot_product_attention` and export this.

    Args:
        q: (B, Nq, H, D), D from 1 to 256.
        k: (B, Nk, H, D).
        v: Like k.
        scale: Factor of the products, positive; None is `1 / sqrt(D)`.
        causal: Whether query i sees the keys up to the i-th only.
        bias: float32 (B, H, Nq, Nk), either of the first two 1 for all; -inf hides a key.

    Returns:
        (B, Nq, H, D), with gradients to q, k, v and bias.
    """
    return _attention(q, k, v, bias, causal, 0.0 if scale is None else scale)


def _pairs(x: Tensor, rope: str) -> tuple[Tensor, Tensor]:
    """What is turned together, each (B, N, H, D / 2)."""
    if rope == "interleaved":
        return x[..., 0::2], x[..., 1::2]
    half = x.shape[3] // 2
    return x[..., :half], x[..., half:]


def _joined(a: Tensor, b: Tensor, rope: str) -> Tensor:
    return torch.stack([a, b], -1).flatten(-2) if rope == "interleaved" else torch.cat([a, b], -1)


def _turned(x: Tensor, cos: Tensor, sin: Tensor, rope: str) -> Tensor:
    a, b = _pairs(x, rope)
    return _joined(a * cos - b * sin, b * cos + a * sin, rope)


def _by_head(table: Tensor, x: Tensor) -> Tensor:
    """A table for all heads (N, 1, D / 2), or for each (N, H, D / 2)."""
    return table.reshape(x.shape[1], -1, x.shape[3] // 2)


def _gain(x: Tensor, norm: str, eps: float) -> Tensor:
    return (x.square().mean((2, 3) if norm == "full" else 3, keepdim=True) + eps).rsqrt()


def _norm_rope_one(
    x: Tensor,
    weight: Tensor | None,
    cos: Tensor | None,
    sin: Tensor | None,
    norm: str,
    rope: str,
    eps: float,
) -> Tensor:
    y, w, c, s = _wide(x, weight, cos, sin)
    if norm != "none":
        y = y * _gain(y, norm, eps)
        if w is not None:
            y = y * w.reshape(-1, x.shape[3])
    if rope != "none":
        y = _turned(y, _by_head(c, x), _by_head(s, x), rope)
    return y.to(x.dtype)


def _norm_rope_definition(
    q: Tensor,
    k: Tensor,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    cos: Tensor | None,
    sin: Tensor | None,
    norm: str,
    rope: str,
    eps: float,
) -> tuple[Tensor, Tensor]:
    return (
        _norm_rope_one(q, q_weight, cos, sin, norm, rope, eps),
        _norm_rope_one(k, k_weight, cos, sin, norm, rope, eps),
    )


def _norm_rope_like(q: Tensor, k: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape)


def _compute_norm_rope(
    out: tuple[Tensor, Tensor],
    q: Tensor,
    k: Tensor,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    cos: Tensor | None,
    sin: Tensor | None,
    norm: str,
    rope: str,
    eps: float,
    stream: int | None,
) -> Any:
    return compiled.qk_norm_rope(
        q,
        k,
        q_weight,
        k_weight,
        cos,
        sin,
        norm=None if norm == "none" else norm,
        rope=None if rope == "none" else rope,
        eps=eps,
        out=out,
        stream=stream,
    )


_norm_rope = define(
    "qk_norm_rope",
    _norm_rope_definition,
    allocate=_norm_rope_like,
    compute=_compute_norm_rope,
)


def _norm_rope_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:6])
    ctx.norm, ctx.rope, ctx.eps = inputs[6:]


def _norm_rope_one_backward(
    ctx: Any, grad: Tensor, x: Tensor, weight: Tensor | None, cos: Tensor, sin: Tensor
) -> list[Tensor | None]:
    """The gradients of x, its weight, cos and sin.

    Turning back undoes a rotation. Of y = u * w with u = x * gain, the gradient of x is
    gain * (du - u * mean(du * u)).
    """
    x, grad, weight, cos, sin = _wide(x, grad, weight, cos, sin)
    gain = _gain(x, ctx.norm, ctx.eps) if ctx.norm != "none" else torch.ones_like(x[..., :1])
    unit = x * gain
    by_weight = by_cos = by_sin = None
    wide_weight = None if weight is None else weight.reshape(-1, x.shape[3])
    if ctx.rope != "none":
        c, s = _by_head(cos, x), _by_head(sin, x)
        a, b = _pairs(unit if wide_weight is None else unit * wide_weight, ctx.rope)
        by_a, by_b = _pairs(grad, ctx.rope)
        by_cos = (by_a * a + by_b * b).sum(0).sum_to_size(c.shape).reshape(cos.shape)
        by_sin = (by_b * a - by_a * b).sum(0).sum_to_size(s.shape).reshape(sin.shape)
        grad = _turned(grad, c, -s, ctx.rope)
    if weight is not None and wide_weight is not None:
        by_weight = (grad * unit).sum((0, 1)).sum_to_size(wide_weight.shape).reshape(weight.shape)
        grad = grad * wide_weight
    if ctx.norm != "none":
        axes = (2, 3) if ctx.norm == "full" else 3
        grad = grad - unit * (grad * unit).mean(axes, keepdim=True)
    return [grad * gain, by_weight, by_cos, by_sin]


def _norm_rope_backward(ctx: Any, by_q: Tensor, by_k: Tensor) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    q, k, q_weight, k_weight, cos, sin = saved
    first = _norm_rope_one_backward(ctx, by_q, q, q_weight, cos, sin)
    second = _norm_rope_one_backward(ctx, by_k, k, k_weight, cos, sin)
    tables = [
        None if one is None or other is None else one + other
        for one, other in zip(first[2:], second[2:], strict=True)
    ]
    found = [first[0], second[0], first[1], second[1], *tables]
    results = [
        None if one is None else one.to(like.dtype) for one, like in zip(found, saved, strict=True)
    ]
    return (*results, None, None, None)


_norm_rope.register_autograd(_norm_rope_backward, setup_context=_norm_rope_context)


def qk_norm_rope(
    q: Tensor,
    k: Tensor,
    q_weight: Tensor | None = None,
    k_weight: Tensor | None = None,
    cos: Tensor | None = None,
    sin: Tensor | None = None,
    *,
    norm: str | None = "full",
    rope: str | None = "interleaved",
    eps: float = 1e-6,
) -> tuple[Tensor, Tensor]:
    """Normalises queries and keys and rotates them by their positions, as the op of that name.

    Args:
        q: (B, N, H, D).
        k: (B, N, H', D).
        q_weight: (D,) for `norm="head"`, (H * D,) for "full"; None is ones.
        k_weight: The same for k.
        cos: (N, D / 2), for all heads, or (N, H * D / 2), one head after another. None without
            rope.
        sin: The same.
        norm: "head" or "full", None for none.
        rope: "interleaved" or "half", None for none.
        eps: Added to the mean of squares.

    Returns:
        New tensors like q and k, with gradients to all tensors. Weights and tables count as
        float32, float64 with a float64 q.
    """
    extra = _wide(q, q_weight, k_weight, cos, sin)[1:]
    return _norm_rope(q, k, *extra, norm or "none", rope or "none", eps)
