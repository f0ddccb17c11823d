"""Draws samples in training, to look at and to measure."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from fastvid_export.models.generator import GeneratorNet, no_condition


def shifted(sigmas: Tensor, shift: float) -> Tensor:
    """Noise levels moved towards 1: s' = shift s / (1 + (shift - 1) s)."""
    return shift * sigmas / (1.0 + (shift - 1.0) * sigmas)


def sample(
    net: GeneratorNet,
    ids: Tensor,
    nothing: Tensor,
    noise: Tensor,
    *,
    steps: int = 20,
    guidance: float = 3.0,
    shift: float = 1.0,
    condition: Tensor | None = None,
) -> Tensor:
    """Euler steps from noise to latents, with classifier-free guidance (Ho and Salimans, 2022).

    Args:
        net: The network.
        ids: Prompts (N, L).
        nothing: The empty prompt (1, L).
        noise: (N, C, T, h, w).
        steps: Number of steps.
        guidance: 1 turns guidance off.
        shift: See `shifted`.
        condition: See `generator.condition_on`.

    Returns:
        Normalised latents, shape of `noise`.
    """
    sigmas = shifted(torch.linspace(1.0, 0.0, steps + 1), shift)
    text = net.read(ids)
    if guidance != 1.0:
        empty = net.read(nothing.expand_as(ids))
        text = tuple(torch.cat(pair) for pair in zip(text, empty, strict=True))
    if condition is None:
        condition = no_condition(noise)
    copies = 2 if guidance != 1.0 else 1
    condition = condition.repeat(copies, 1, 1, 1, 1)
    x = noise
    for now, after in itertools.pairwise(sigmas):
        time = (now * 1000.0).expand(copies * len(x))
        velocity = net.transformer(x.repeat(copies, 1, 1, 1, 1), time, *text, condition).float()
        if copies == 2:
            with_text, without = velocity.chunk(2)
            velocity = without + guidance * (with_text - without)
        x = x + (after - now) * velocity
    return x
