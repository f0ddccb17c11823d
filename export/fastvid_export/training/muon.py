"""Muon (Jordan et al., 2024): momentum, with the update of each weight matrix made orthogonal.

All directions of a matrix then learn at the same speed, which small transformers and convolutional
networks repay with about half the steps of Adam. Everything that is not the weight of a linear or
convolutional layer (embeddings, tables, norms, biases) is left to Adam.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_STEPS = 5
_BETAS = (0.9, 0.98)


class Muon(torch.optim.Optimizer):
    """Muon for the weights of linear and convolutional layers, Adam for the rest.

    A weight (O, I, kh, kw) counts as the matrix (O, I * kh * kw). Updates are scaled to the size
    that Adam's would have (Liu et al., 2025), so one learning rate and one decay do for both.

    Args:
        model: Network to train.
        lr: Learning rate, on Adam's scale.
        momentum: Memory of the mean of gradients.
        weight_decay: Decoupled decay of the matrices.
    """

    def __init__(
        self, model: nn.Module, lr: float, *, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        layers = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
        matrices = {id(m.weight) for m in model.modules() if isinstance(m, layers)}
        parameters = [p for p in model.parameters() if p.requires_grad]
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        groups = [
            {"params": [p for p in parameters if id(p) in matrices], "orthogonal": True},
            {"params": [p for p in parameters if id(p) not in matrices], "orthogonal": False},
        ]
        super().__init__([group for group in groups if group["params"]], defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Updates every parameter that has a gradient."""
        for group in self.param_groups:
            update = self._orthogonal if group["orthogonal"] else self._adam
            for parameter in group["params"]:
                if parameter.grad is not None:
                    update(parameter, parameter.grad, group)

    def _orthogonal(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["mean"] = torch.zeros_like(gradient)
        state["mean"].lerp_(gradient, 1 - group["momentum"])
        ahead = gradient.lerp(state["mean"], group["momentum"])
        update = orthogonal(ahead.flatten(1))
        scale = 0.2 * max(update.shape) ** 0.5
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(update.view(parameter.shape), alpha=-group["lr"] * scale)

    def _adam(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state |= {
                "steps": 0,
                "mean": torch.zeros_like(gradient),
                "square": torch.zeros_like(gradient),
            }
        state["steps"] += 1
        beta1, beta2 = _BETAS
        state["mean"].lerp_(gradient, 1 - beta1)
        state["square"].lerp_(gradient.square(), 1 - beta2)
        scale = (state["square"] / (1 - beta2 ** state["steps"])).sqrt().add_(1e-8)
        parameter.addcdiv_(state["mean"], scale, value=-group["lr"] / (1 - beta1 ** state["steps"]))


def orthogonal(matrix: Tensor) -> Tensor:
    """About the nearest matrix whose singular values are equal, near 1, by Newton-Schulz steps.

    Args:
        matrix: (m, n), any scale.

    Returns:
        float32 (m, n); singular values between about 0.7 and 1.2.
    """
    a, b, c = _COEFFICIENTS
    x = matrix.to(torch.bfloat16)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.float().norm() + 1e-12).to(x.dtype)
    for _ in range(_STEPS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).float()
