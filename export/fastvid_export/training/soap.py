"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al., 2024).

Small convolutional networks are badly conditioned: the inputs of a layer are strongly correlated.
Rotating each gradient into the eigenvectors of its row and column covariance before Adam's
element-wise scaling removes most of that, for a few small matrix products per step.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter


class Soap(torch.optim.Optimizer):
    """SOAP for weights, plain Adam for vectors.

    A weight (O, I, kh, kw) counts as the matrix (O, I * kh * kw).

    Args:
        params: Parameters.
        lr: Learning rate of matrices; Adam's scale, though it stands higher ones.
        betas: Memory of the mean and of the squares and covariances.
        refresh: Steps between updates of the eigenvectors.
        eps: Keeps divisions finite.
    """

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: float = 3e-3,
        *,
        betas: tuple[float, float] = (0.95, 0.99),
        refresh: int = 10,
        eps: float = 1e-8,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "refresh": refresh, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Updates every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)

    def _update(self, parameter: Parameter, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        matrix = gradient.dim() > 1
        flat = gradient.flatten(1) if matrix else gradient[None]
        if not state:
            state |= {"steps": 0, "mean": torch.zeros_like(flat), "square": torch.zeros_like(flat)}
            if matrix:
                _start_bases(state, flat)
        state["steps"] += 1
        beta1, beta2 = group["betas"]
        state["mean"].lerp_(flat, 1 - beta1)
        rotated = _rotate(state, flat) if matrix else flat
        state["square"].lerp_(rotated.square(), 1 - beta2)
        mean = _rotate(state, state["mean"]) if matrix else state["mean"]
        scale = (state["square"] / (1 - beta2 ** state["steps"])).sqrt().add_(group["eps"])
        update = mean / (1 - beta1 ** state["steps"]) / scale
        if matrix:
            update = state["left_basis"] @ update @ state["right_basis"].T
            _learn_bases(state, flat, beta2, group["refresh"])
        parameter.add_(update.view(parameter.shape), alpha=-group["lr"])


def _start_bases(state: dict[str, Any], flat: Tensor) -> None:
    for side, covariance in (("left", flat @ flat.T), ("right", flat.T @ flat)):
        state[f"{side}_covariance"] = covariance
        state[f"{side}_basis"] = torch.linalg.eigh(covariance)[1]


def _learn_bases(state: dict[str, Any], flat: Tensor, beta: float, refresh: int) -> None:
    due = state["steps"] % refresh == 0 or state["steps"] < 4
    for side, covariance in (("left", flat @ flat.T), ("right", flat.T @ flat)):
        state[f"{side}_covariance"].lerp_(covariance, 1 - beta)
        if due:
            # One step of orthogonal iteration follows the slowly moving eigenvectors.
            basis = state[f"{side}_covariance"] @ state[f"{side}_basis"]
            state[f"{side}_basis"] = torch.linalg.qr(basis)[0]


def _rotate(state: dict[str, Any], flat: Tensor) -> Tensor:
    rotated: Tensor = state["left_basis"].T @ flat @ state["right_basis"]
    return rotated
