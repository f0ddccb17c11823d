"""The real-time upscaler: a luma network between pixel unshuffle and pixel shuffle.

    luma (N,1,H,W) ─ pad 2 ─┬─ 6x6/2 1→C ─ [3x3 C→C] x depth ─ 3x3 C→16 ─ + ─ shuffle 4 ─ luma
                            └─ 6x6/2 1→16, starts as bicubic ─────────────┘         (N,1,2H,2W)

A 6x6 convolution with stride 2 is a 3x3 convolution on 2x2 blocks (pixel unshuffle), without moving
the pixels first: channels are wide where positions are few. The skip convolution sees enough to
hold the bicubic kernel exactly, so training starts from bicubic and the graph needs no resize.
Edges are replicated once, at the input; features pad with zeros.

The network trains in another parameterisation than it runs in: input convolutions in whitened
coordinates, inner ones beside an identity branch. `folded` turns both into plain convolutions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastvid_export import ops

_SIDE = 6
"""Pixels that an input convolution spans: 3 blocks of 2."""


@dataclass(frozen=True)
class UpscalerOptions:
    """Shape of the network."""

    channels: int = 32
    """Feature channels, a multiple of 16 so that blocked CPU convolutions waste nothing."""
    depth: int = 6
    """Inner convolutions."""


class InputConv(nn.Module):
    """6x6 convolution with stride 2 from luma, trained in coordinates that whiten natural images.

    Neighbouring pixels are nearly equal, so in pixel coordinates a few directions hold almost all
    of the gradient. The kernel is `weight @ whitening`; the whitening follows from one model of
    images, covariance falling exponentially with distance, and needs no data.
    """

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, _SIDE**2) / (_SIDE / 2**0.5))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.whitening: Tensor
        self.register_buffer("whitening", _whitening(), persistent=False)

    def kernel(self) -> Tensor:
        """The kernel in pixel coordinates, (outputs, 1, 6, 6)."""
        return (self.weight @ self.whitening).view(-1, 1, _SIDE, _SIDE)

    def set_kernel(self, kernel: Tensor) -> None:
        """Makes `kernel()` return `kernel`."""
        with torch.no_grad():
            flat = kernel.reshape(-1, _SIDE**2).double()
            self.weight.copy_(torch.linalg.solve(self.whitening.double(), flat, left=False))

    def forward(self, luma: Tensor) -> Tensor:
        """(N, 1, H, W) → (N, outputs, (H - 4) / 2, (W - 4) / 2)."""
        return F.conv2d(luma, self.kernel(), self.bias, stride=2)


class InnerConv(nn.Conv2d):
    """3x3 convolution beside an identity branch: both are linear, so one kernel does for both."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1)
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        assert self.bias is not None
        with torch.no_grad():
            self.weight.mul_(0.5)
            self.bias.zero_()
        self.identity: Tensor
        self.register_buffer("identity", torch.eye(channels), persistent=False)

    def kernel(self) -> Tensor:
        """The one kernel that both branches amount to."""
        return self.weight + F.pad(self.identity[:, :, None, None], (1, 1, 1, 1))

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape, edges padded with zeros."""
        return F.conv2d(input, self.kernel(), self.bias, padding=1)


class UpscalerNet(nn.Module):
    """Luma (N, 1, H, W) in [0, 1], H and W even → luma (N, 1, 2H, 2W), not clamped."""

    scale = 2

    def __init__(self, options: UpscalerOptions) -> None:
        super().__init__()
        self.options = options
        self.skip: nn.Module = InputConv(16)
        self.head: nn.Module = InputConv(options.channels)
        self.body = nn.ModuleList(InnerConv(options.channels) for _ in range(options.depth))
        self.tail = nn.Conv2d(options.channels, 16, 3, padding=1)
        self.skip.set_kernel(_bicubic_kernel())
        assert self.tail.bias is not None
        nn.init.zeros_(self.tail.weight)
        nn.init.zeros_(self.tail.bias)

    def forward(self, luma: Tensor) -> Tensor:
        """(N, 1, H, W) → (N, 1, 2H, 2W)."""
        padded = F.pad(luma, (2, 2, 2, 2), mode="replicate")
        features = F.relu(self.head(padded))
        for layer in self.body:
            features = F.relu(layer(features))
        return F.pixel_shuffle(self.tail(features) + self.skip(padded), 4)

    def folded(self) -> UpscalerNet:
        """The same function with plain convolutions only, in eval mode, for export."""
        plain = UpscalerNet(self.options)
        plain.skip, plain.head = (_plain(layer, stride=2) for layer in (self.skip, self.head))
        plain.body = nn.ModuleList(_plain(layer, padding=1) for layer in self.body)
        plain.tail.load_state_dict(self.tail.state_dict())
        return plain.eval().requires_grad_(False)


class UpscaleGraph(nn.Module):
    """Frames in, frames out: the graph `upscale` of the bundle.

    Chroma passes by the network and is resized bilinearly: the eye sees little of it.
    """

    def __init__(self, net: UpscalerNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, frames: Tensor) -> Tensor:
        """uint8 (N, H, W, 3), H and W even → uint8 (N, 2H, 2W, 3)."""
        luma, chroma = ops.rgb_to_luma(frames)
        return ops.luma_to_rgb(self.net(luma), chroma)


def _plain(layer: nn.Module, *, stride: int = 1, padding: int = 0) -> nn.Conv2d:
    assert isinstance(layer, InputConv | InnerConv)
    kernel = layer.kernel().detach()
    outputs, inputs, side, _ = kernel.shape
    convolution = nn.Conv2d(inputs, outputs, side, stride=stride, padding=padding)
    assert layer.bias is not None
    with torch.no_grad():
        convolution.weight.copy_(kernel)
        assert convolution.bias is not None
        convolution.bias.copy_(layer.bias)
    return convolution


def _whitening(*, variance: float = 0.063, length: float = 50.0, noise: float = 3e-4) -> Tensor:
    """Inverse square root of the covariance of 6x6 luma patches, (36, 36), symmetric."""
    axis = torch.arange(_SIDE, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    covariance = variance * torch.exp(-torch.cdist(points, points) / length)
    values, vectors = torch.linalg.eigh(covariance + noise * torch.eye(_SIDE**2))
    return ((vectors / values.sqrt()) @ vectors.T).float()


def _bicubic_kernel() -> Tensor:
    """Bicubic x2 (a = -0.5, half-pixel centres) of the middle 2x2 of 6x6 pixels: (16, 1, 6, 6)."""
    rows = torch.zeros(4, _SIDE)
    for out in range(4):
        position = 2 + (out + 0.5) / 2 - 0.5
        for row in range(_SIDE):
            rows[out, row] = _cubic(abs(position - row))
    return torch.einsum("ay,bx->abyx", rows, rows).reshape(16, 1, _SIDE, _SIDE)


def _cubic(t: float, a: float = -0.5) -> float:
    if t < 1:
        return ((a + 2) * t - (a + 3)) * t * t + 1
    if t < 2:
        return ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return 0.0
