"""Noise levels as pipelines choose them, beyond what their schedulers do by themselves."""

from __future__ import annotations

import numpy as np

from fastvid.schedulers.flow_match_euler import FlowMatchEulerConfig


def shift_of(config: FlowMatchEulerConfig, tokens: int) -> float:
    """`mu` of a scheduler that shifts by size: linear in the number of tokens.

    Args:
        config: Says which shift belongs to which number.
        tokens: Of the latents.
    """
    low, high = config.base_shift or 0.5, config.max_shift or 1.15
    few, many = config.base_image_seq_len, config.max_image_seq_len
    slope = (high - low) / (many - few)
    return tokens * slope + (low - slope * few)


def linear_quadratic(steps: int) -> list[float]:
    """Timesteps from 1000 down: slowly for half of the steps, by 25 in all, and then faster.

    Polyak et al., 2024, arXiv 2410.13720, section 3.4.2, as LTX-Video's pipelines have it.
    """
    if steps < 2:
        return [1000.0]
    threshold, linear = 0.025, steps // 2
    quadratic = steps - linear
    apart = linear - threshold * steps
    square = apart / (linear * quadratic**2)
    slope = threshold / linear - 2 * apart / quadratic**2
    start = square * linear**2
    falls = [i * threshold / linear for i in range(linear)]
    falls += [square * i**2 + slope * i + start for i in range(linear, steps)]
    sigmas = np.array([1.0 - fall for fall in falls], np.float32)
    timesteps: list[float] = (sigmas * np.float32(1000)).tolist()
    return timesteps
