"""The noise of a generation, drawn from one seed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastvid import ops
from fastvid._generation.torch_noise import TorchNoise

PICTURES, DECODING, SITES = 1 << 31, 1 << 30, 1 << 29
"""First rows of the seed for these, far from that of the latents, 0, and a solver's steps."""


class Noise:
    """What is drawn beside the latents, in the order it is asked for.

    Args:
        seed: 0 to 2**64 - 1.
        kind: `philox`, where every row is its own, or `torch-cpu`, where the next values of one
            generator are taken as a pipeline of diffusers takes them.
    """

    def __init__(self, seed: int, kind: str) -> None:
        self.seed = seed
        self.torch = TorchNoise(seed) if kind == "torch-cpu" else None

    def normal(self, shape: tuple[int, ...], row: int) -> NDArray[np.float32]:
        """Standard normal noise, float32."""
        if self.torch is not None:
            return self.torch.normal(shape)
        return ops.randn(shape, seed=self.seed, subsequence=row)
