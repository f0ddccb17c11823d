"""The real-time upscaler: a luma network between pixel unshuffle and pixel shuffle.

    luma (N,1,H,W) ─ pad 2 ─ unshuffle 2 ─┬─ 3x3 4→C ─ [3x3 C→C] x depth ─ 3x3 C→16 ─ + ─ shuffle 4
                                           └─ 3x3 4→16, starts as bicubic ────────────┘

Working on 2x2 blocks keeps the channels wide where the pixels are few. The skip convolution sees
6x6 pixels, enough to hold the bicubic kernel exactly, so training starts from bicubic and no resize
op is needed. Edges are replicated once at the input; features pad with zeros.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


@dataclass(frozen=True)
class UpscalerOptions:
    """Shape of the network."""

    channels: int = 32
    """Feature channels, a multiple of 16 so that blocked CPU convolutions waste nothing."""
    depth: int = 5
    """Inner convolutions."""
    expansion: int = 2
    """Width of the 1x1-3x3-1x1 training branch over `channels`; 0 trains plain convolutions."""
    negative_slope: float = 0.0
    """Slope of the activation below zero; 0 is ReLU, which runtimes fuse best."""


class RepConv(nn.Module):
    """A 3x3 convolution that trains as 3x3 + (1x1 → 3x3 → 1x1) + identity and runs as one 3x3.

    All branches are linear, so training composes the kernels and runs the one convolution too: the
    over-parameterisation changes the optimisation, not the cost.
    """

    def __init__(
        self, inputs: int, outputs: int, *, expansion: int, identity: bool, padding: int = 1
    ) -> None:
        super().__init__()
        self.padding = padding
        self.identity = identity
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        if identity:
            with torch.no_grad():
                self.weight.mul_(0.5)
        self.expansion = expansion
        if expansion:
            wide_in, wide_out = inputs * expansion, outputs * expansion
            self.squeeze = nn.Parameter(torch.randn(wide_in, inputs) / inputs**0.5)
            self.spatial = nn.Parameter(
                torch.randn(wide_out, wide_in, 3, 3) * (0.5 / (9 * wide_in) ** 0.5)
            )
            self.expand = nn.Parameter(torch.randn(outputs, wide_out) / wide_out**0.5)

    def kernel(self) -> Tensor:
        """The one 3x3 kernel (outputs, inputs, 3, 3) that all branches amount to."""
        kernel = self.weight
        if self.expansion:
            kernel = kernel + torch.einsum(
                "oa,abhw,bi->oihw", self.expand, self.spatial, self.squeeze
            )
        if self.identity:
            unit = torch.zeros_like(self.weight)
            unit[:, :, 1, 1] = torch.eye(self.weight.shape[0], dtype=unit.dtype)
            kernel = kernel + unit
        return kernel

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            kernel = self.kernel()
        return F.conv2d(x, kernel, self.bias, padding=self.padding)


class UpscalerNet(nn.Module):
    """Luma (N, 1, H, W) in [0, 1], H and W even → luma (N, 1, 2H, 2W), not clamped."""

    scale = 2

    def __init__(self, options: UpscalerOptions) -> None:
        super().__init__()
        self.options = options
        width, wide = options.channels, options.expansion
        self.skip = nn.Conv2d(4, 16, 3)
        self.head = RepConv(4, width, expansion=wide, identity=False, padding=0)
        self.body = nn.ModuleList(
            RepConv(width, width, expansion=wide, identity=True) for _ in range(options.depth)
        )
        self.tail = RepConv(width, 16, expansion=wide, identity=False)
        with torch.no_grad():
            self.skip.weight.copy_(_bicubic_kernel())
            assert self.skip.bias is not None
            self.skip.bias.zero_()
            self.tail.weight.mul_(0.1)

    def forward(self, luma: Tensor) -> Tensor:
        blocks = F.pixel_unshuffle(F.pad(luma, (2, 2, 2, 2), mode="replicate"), 2)
        features = self._act(self.head(blocks))
        for layer in self.body:
            features = self._act(layer(features))
        return F.pixel_shuffle(self.tail(features) + self.skip(blocks), 4)

    def _act(self, x: Tensor) -> Tensor:
        slope = self.options.negative_slope
        return F.leaky_relu(x, slope) if slope else F.relu(x)

    def folded(self) -> UpscalerNet:
        """The same function with every branch folded into plain 3x3 convolutions."""
        options = UpscalerOptions(
            self.options.channels, self.options.depth, 0, self.options.negative_slope
        )
        plain = UpscalerNet(options)
        plain.skip.load_state_dict(self.skip.state_dict())
        for ours, theirs in zip(self._convolutions(), plain._convolutions(), strict=True):
            theirs.identity = False
            with torch.no_grad():
                theirs.weight.copy_(ours.kernel())
                theirs.bias.copy_(ours.bias)
        return plain.eval()

    def _convolutions(self) -> list[RepConv]:
        return [self.head, *(m for m in self.body if isinstance(m, RepConv)), self.tail]


def _bicubic_kernel() -> Tensor:
    """Bicubic x2 (a = -0.5, half-pixel centres) from 3x3 blocks of 2x2 pixels: (16, 4, 3, 3)."""
    rows = torch.zeros(4, 6)
    for out in range(4):
        # Output row `out` of the centre block lies at this row of the 6 that the blocks span.
        position = 2 + (out + 0.5) / 2 - 0.5
        for row in range(6):
            rows[out, row] = _cubic(abs(position - row))
    full = torch.einsum("ay,bx->abyx", rows, rows)  # (4, 4, 6, 6): outputs by inputs
    # Input (2 * block + phase) becomes channel 2 * phase_y + phase_x of that block.
    blocks = full.reshape(4, 4, 3, 2, 3, 2).permute(0, 1, 3, 5, 2, 4)
    return blocks.reshape(16, 4, 3, 3)


def _cubic(t: float, a: float = -0.5) -> float:
    if t < 1:
        return ((a + 2) * t - (a + 3)) * t * t + 1
    if t < 2:
        return ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return 0.0
