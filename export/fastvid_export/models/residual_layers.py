"""Convolutions that the parts of the quality interpolator are made of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3x3 and a leaky ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.LeakyReLU(0.1))


class Residual(nn.Module):
    """Two 3x3 convolutions around which the input passes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(channels, channels, 3, 1, 1)
        self.conv1 = nn.Conv2d(channels, channels, 3, 1, 1)
        # Blocks begin as small corrections, which keeps the first steps calm.
        with torch.no_grad():
            self.conv1.weight.mul_(0.2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) to the same."""
        return F.leaky_relu(x + self.conv1(F.leaky_relu(self.conv0(x), 0.1)), 0.1)


def residual_body(inputs: int, channels: int, depth: int) -> nn.Sequential:
    """A convolution, then `depth` residual blocks."""
    return nn.Sequential(conv(inputs, channels), *(Residual(channels) for _ in range(depth)))
