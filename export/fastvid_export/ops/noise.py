"""One step of a solver."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastvid import ops as compiled
from fastvid.errors import InputError
from fastvid_export.ops._library import define


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _definition(
    x0: Tensor,
    coefficients: Tensor,
    uncond: Tensor | None,
    x1: Tensor | None,
    x2: Tensor | None,
    x3: Tensor | None,
    x4: Tensor | None,
    x5: Tensor | None,
    guidance: float,
) -> Tensor:
    first = _wide(x0)
    if uncond is not None:
        first = _wide(uncond) + guidance * (first - _wide(uncond))
    total = coefficients[0] * first
    for k, x in enumerate((x1, x2, x3, x4, x5), 1):
        if x is not None:
            total = total + coefficients[k] * _wide(x)
    return total.to(x0.dtype)


def _like_first(x0: Tensor, *rest: Any) -> Tensor:
    return x0.new_empty(x0.shape)


def _compute(
    out: Tensor,
    x0: Tensor,
    coefficients: Tensor,
    uncond: Tensor | None,
    x1: Tensor | None,
    x2: Tensor | None,
    x3: Tensor | None,
    x4: Tensor | None,
    x5: Tensor | None,
    guidance: float,
    stream: int | None,
) -> Any:
    inputs = [x for x in (x0, x1, x2, x3, x4, x5) if x is not None]
    return compiled.scheduler_step(
        [coefficients.tolist()],
        inputs,
        uncond=uncond,
        guidance_scale=guidance,
        out=(out,),
        stream=stream,
    )


_scheduler_step = define("scheduler_step", _definition, allocate=_like_first, compute=_compute)


def scheduler_step(
    coefficients: Tensor,
    inputs: Sequence[Tensor],
    *,
    uncond: Tensor | None = None,
    guidance_scale: float = 1.0,
) -> Tensor:
    """One output of a linear solver step: the sum of `coefficients[k] * inputs[k]`; no gradient.

    Args:
        coefficients: float32 (K,) on the CPU; in a graph an input or a constant.
        inputs: 1 to 6 tensors of one shape, each float32, float16 or bfloat16.
        uncond: The prediction without a prompt; `uncond + guidance_scale * (inputs[0] - uncond)`
            then takes the place of the first input.
        guidance_scale: How far past `uncond` to go.

    Returns:
        Like the first input.
    """
    if not 1 <= len(inputs) <= 6:
        raise InputError(f"scheduler_step: inputs must be 1 to 6 tensors, got {len(inputs)}")
    plain = [x.detach() for x in inputs] + [None] * (6 - len(inputs))
    detached = None if uncond is None else uncond.detach()
    return _scheduler_step(plain[0], coefficients, detached, *plain[1:], float(guidance_scale))
