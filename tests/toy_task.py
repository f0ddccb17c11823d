"""A training task of two parameters, for tests of the loop."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class ToyOptions:
    bias: bool = True


class ToyTask:
    """Fits y = 3x - 1 from noisy points."""

    name = "toy"

    def __init__(self, options: ToyOptions | None = None, *, explode_at: int = -1) -> None:
        self.options = options or ToyOptions()
        self.explode_at = explode_at
        self.drawn: list[float] = []
        self.losses = 0

    def build(self) -> nn.Module:
        return nn.Linear(1, 1, bias=self.options.bias)

    def prepare(self) -> None:
        pass

    def batch(self, rng: np.random.Generator) -> dict[str, Tensor]:
        x = torch.from_numpy(rng.normal(size=(16, 1)).astype(np.float32))
        self.drawn.append(float(x[0]))
        return {"x": x, "y": 3 * x - 1}

    def loss(
        self, model: nn.Module, batch: dict[str, Tensor], progress: float
    ) -> tuple[Tensor, dict[str, float]]:
        noise = 0.01 * torch.randn(())
        loss = (model(batch["x"]) - batch["y"] + noise).square().mean()
        self.losses += 1
        if self.losses == self.explode_at:
            loss = loss * torch.inf
        return loss, {"progress": progress}

    def validate(self, model: nn.Module, samples: Path, step: int) -> dict[str, float]:
        x = torch.ones(1, 1)
        return {"error": float((model(x) - 2).abs())}

    def score(self, metrics: dict[str, float]) -> float:
        return -metrics["error"]
