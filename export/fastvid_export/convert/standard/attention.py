"""Attention, its norm and rotary embedding, and solver steps in standard operators."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastvid_export.convert.standard.builder import Builder

Attributes = Mapping[str, Any]
Inputs = Sequence[str]


def attention(b: Builder, inputs: Inputs, attributes: Attributes) -> list[str]:
    """Q (B, Nq, H, D), k and v (B, Nk, H, D) to (B, Nq, H, D)."""
    q, k, v, bias = [*inputs, ""][:4]
    scale = float(attributes.get("scale", 0.0))
    mixed = _attend(
        b,
        b.transpose(q, 0, 2, 1, 3),
        b.transpose(k, 0, 2, 3, 1),
        b.transpose(v, 0, 2, 1, 3),
        bias,
        b.const(scale) if scale else _root(b, q, 3),
        causal=bool(attributes.get("causal", 0)),
    )
    return [b.transpose(mixed, 0, 2, 1, 3)]


def temporal_attention(b: Builder, inputs: Inputs, attributes: Attributes) -> list[str]:
    """q, k, v (B, T, S, H, D): attention along T."""
    q, k, v, bias = [*inputs, ""][:4]
    scale = float(attributes.get("scale", math.nan))
    mixed = _attend(
        b,
        b.transpose(q, 0, 2, 3, 1, 4),
        b.transpose(k, 0, 2, 3, 4, 1),
        b.transpose(v, 0, 2, 3, 1, 4),
        bias,
        _root(b, q, 4) if math.isnan(scale) else b.const(scale),
        causal=bool(attributes.get("causal", 0)),
    )
    return [b.transpose(mixed, 0, 3, 1, 2, 4)]


def _root(b: Builder, x: str, axis: int) -> str:
    """1 / sqrt of the size of an axis."""
    return str(b.op("Div", b.const([1]), b.op("Sqrt", b.cast(b.size(x, axis)))))


def _attend(b: Builder, q: str, k: str, v: str, bias: str, scale: str, *, causal: bool) -> str:
    """softmax(q k scale + bias) v over the last two axes; 0 for a query that sees no key."""
    scores = b.op("MatMul", b.op("Mul", q, scale), k)
    if bias:
        scores = b.op("Add", scores, bias)
    if causal:
        square = b.op("Shape", scores, start=-2)
        seen = b.op("Trilu", b.op("Expand", b.const(1), square), upper=0)
        scores = b.op("Where", b.op("Greater", seen, b.const(0)), scores, b.const(-np.inf))
    weights = b.op("Softmax", scores, axis=-1)
    if bias:
        # All keys hidden: the softmax of nothing is no number.
        top = b.reduce("ReduceMax", scores, [-1])
        none = b.op("Equal", top, b.const(-np.inf))
        weights = b.op("Where", none, b.const(0), weights)
    return str(b.op("MatMul", weights, v))


def qk_norm_rope(b: Builder, inputs: Inputs, attributes: Attributes) -> list[str]:
    """Q and k (B, N, H, D), normalised and turned by their positions."""
    q, k, q_weight, k_weight, cos, sin = [*inputs, "", "", "", ""][:6]
    norm = _text(attributes.get("norm", "full"))
    rope = _text(attributes.get("rope", "interleaved"))
    eps = float(attributes.get("eps", 1e-6))
    results = []
    for x, weight in ((q, q_weight), (k, k_weight)):
        y = x if norm == "none" else _normalised(b, x, weight, norm, eps)
        results.append(y if rope == "none" else _turned(b, y, cos, sin, rope))
    return results


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _normalised(b: Builder, x: str, weight: str, norm: str, eps: float) -> str:
    axes = (2, 3) if norm == "full" else (3,)
    mean = b.reduce("ReduceMean", b.op("Mul", x, x), axes)
    y = b.op("Div", x, b.op("Sqrt", b.op("Add", mean, b.const(eps))))
    if not weight:
        return str(y)
    by_head = b.op("Concat", b.ints(-1), b.size(x, 3), axis=0)
    return str(b.op("Mul", y, b.op("Reshape", weight, by_head)))


def _turned(b: Builder, x: str, cos: str, sin: str, rope: str) -> str:
    """Pairs (a, c) become (a cos - c sin, c cos + a sin)."""
    half = b.op("Div", b.size(x, 3), b.ints(2))
    by_head = b.op("Concat", b.ints(0, -1), half, axis=0)
    cos, sin = (b.op("Reshape", table, by_head) for table in (cos, sin))
    pairs = b.ints(0, 0, 0, -1, 2) if rope == "interleaved" else b.ints(0, 0, 0, 2, -1)
    axis = 4 if rope == "interleaved" else 3
    split = b.op("Reshape", x, pairs)
    first, second = (b.op("Squeeze", b.part(split, axis, i, i + 1), b.ints(axis)) for i in (0, 1))
    turned = [
        b.op("Sub", b.op("Mul", first, cos), b.op("Mul", second, sin)),
        b.op("Add", b.op("Mul", second, cos), b.op("Mul", first, sin)),
    ]
    joined = b.op("Concat", *(b.op("Unsqueeze", y, b.ints(axis)) for y in turned), axis=axis)
    return str(b.op("Reshape", joined, b.ints(0, 0, 0, -1)))


def scheduler_step(b: Builder, inputs: Inputs, attributes: Attributes) -> list[str]:
    """The sum of coefficients times inputs, the first one guided."""
    x0, coefficients, uncond, *rest = [*inputs, ""]
    first = x0
    if uncond:
        beyond = b.op("Mul", b.op("Sub", x0, uncond), b.const(attributes.get("guidance", 1.0)))
        first = b.op("Add", uncond, beyond)
    total = ""
    for k, x in enumerate([first, *(name for name in rest if name)]):
        factor = b.op("Gather", coefficients, b.const(k, np.int64), axis=0)
        term = b.op("Mul", x, factor)
        total = b.op("Add", total, term) if total else term
    return [total]
