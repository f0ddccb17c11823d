"""Matrix products with the weights of a checkpoint."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastvid import ops as compiled
from fastvid_export.ops._library import define


def _linear_definition(x: Tensor, weight: Tensor, bias: Tensor | None, bfloat16: bool) -> Tensor:
    if bfloat16:
        x, weight = x.bfloat16(), weight.bfloat16()
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    wide = None if bias is None else bias.to(dtype)
    return torch.nn.functional.linear(x.to(dtype), weight.to(dtype), wide)


def _linear_like(x: Tensor, weight: Tensor, bias: Tensor | None, bfloat16: bool) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


def _compute_linear(
    out: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    bfloat16: bool,
    stream: int | None,
) -> Any:
    precision = "bfloat16" if bfloat16 else "float32"
    return compiled.linear(x, weight, bias, precision=precision, out=out, stream=stream)


_linear = define("linear", _linear_definition, allocate=_linear_like, compute=_compute_linear)


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, bfloat16: bool = False
) -> Tensor:
    """`x @ weight.T + bias`, with weights of any floating-point dtype read where they lie.

    A graph of a large model has this node for each `torch.nn.Linear`; there is no gradient, train
    with `torch.nn.functional.linear`.

    Args:
        x: float32 (..., K).
        weight: float32, float16 or bfloat16 (N, K).
        bias: float32 (N,).
        bfloat16: Whether x and weight are rounded to bfloat16 before they are multiplied.

    Returns:
        float32 (..., N).
    """
    return _linear(x, weight, bias, bfloat16)
