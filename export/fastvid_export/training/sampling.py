"""Draws samples in training, to look at and to measure."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from fastvid_export.models.generator import GeneratorNet, no_condition

SHIFT = 3.0
"""Of the noise levels, see `shifted`: what a clip shows is decided at the high ones."""


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
    shift: float = SHIFT,
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
    states = trajectory(net, ids, nothing, noise, sigmas, guidance=guidance, condition=condition)
    *_, last = states
    return last


def trajectory(
    net: GeneratorNet,
    ids: Tensor,
    nothing: Tensor,
    noise: Tensor,
    sigmas: Tensor,
    *,
    guidance: float,
    condition: Tensor | None = None,
    order: int = 1,
) -> Iterator[Tensor]:
    """The states of `sample` at each of `sigmas`, `noise` first.

    Args:
        net: As for `sample`, like the arguments that follow.
        ids: Prompts.
        nothing: The empty prompt.
        noise: The state at the first of `sigmas`.
        sigmas: Noise levels (steps + 1), falling.
        guidance: 1 turns guidance off.
        condition: Known latents.
        order: 1 for Euler steps, 2 for those of Adams and Bashforth, which need about half as many.
    """
    text = net.read(ids)
    if guidance != 1.0:
        empty = net.read(nothing.expand_as(ids))
        text = tuple(torch.cat(pair) for pair in zip(text, empty, strict=True))
    if condition is None:
        condition = no_condition(noise)
    copies = 2 if guidance != 1.0 else 1
    condition = condition.repeat(copies, 1, 1, 1, 1)
    x, before, step_before = noise, None, 0.0
    yield x
    for now, after in itertools.pairwise(sigmas.tolist()):
        time = torch.full((copies * len(x),), now * 1000.0)
        velocity = net.transformer(x.repeat(copies, 1, 1, 1, 1), time, *text, condition).float()
        if copies == 2:
            with_text, without = velocity.chunk(2)
            velocity = without + guidance * (with_text - without)
        step = after - now
        slope = velocity
        if order == 2 and before is not None:
            slope = velocity + 0.5 * step / step_before * (velocity - before)
        x, before, step_before = x + step * slope, velocity, step
        yield x
