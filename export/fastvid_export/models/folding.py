"""Constants and parallel linear layers taken into the weights of one convolution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def scale_input(layer: nn.Conv2d, factor: float) -> None:
    """`layer(x)` becomes `layer(factor * x)`; exact with padding of zeros."""
    with torch.no_grad():
        layer.weight.mul_(factor)


def scale_output(layer: nn.Conv2d, factor: float) -> None:
    """`layer(x)` becomes `factor * layer(x)`."""
    with torch.no_grad():
        layer.weight.mul_(factor)
        if layer.bias is not None:
            layer.bias.mul_(factor)


def chain_1x1_3x3_1x1(
    first: tuple[Tensor, Tensor], middle: tuple[Tensor, Tensor], last: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Weight and bias of the 3x3 convolution that three in a row amount to, in float64.

    The picture must be padded before the first of them, not between.

    Args:
        first: Weight (A, C, 1, 1) and bias (A,).
        middle: Weight (B, A, 3, 3) and bias (B,).
        last: Weight (D, B, 1, 1) and bias (D,).

    Returns:
        Weight (D, C, 3, 3) and bias (D,), float64.
    """
    (w1, b1), (w2, b2), (w3, b3) = (
        (weight.double(), bias.double()) for weight, bias in (first, middle, last)
    )
    w1, w3 = w1[:, :, 0, 0], w3[:, :, 0, 0]
    weight = torch.einsum("db,bayx,ac->dcyx", w3, w2, w1)
    bias = w3 @ (torch.einsum("bayx,a->b", w2, b1) + b2) + b3
    return weight, bias


def as_3x3(weight: Tensor) -> Tensor:
    """A 1x1 kernel in the middle of a 3x3 one."""
    return F.pad(weight, (1, 1, 1, 1))
