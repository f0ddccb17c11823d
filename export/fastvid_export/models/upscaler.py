"""The upscaler: a convolutional network from luma to luma s times as large, for any whole s.

    luma (N,1,H,W) ─ pad 2 ─┬─ 5x5 1→C ─ [3x3 C→C] x depth ─ 4x4/2 C→4ss ─ + ─ shuffle 2s ─ luma
                            └─ 6x6/2 1→4ss, starts as bicubic ─────────────┘      (N,1,sH,sW)

The last convolutions answer for 2x2 pixels at a time: they have 4ss outputs where one pixel has ss,
which for s = 2 is a quarter of what blocked CPU convolutions compute anyway, and the shuffle moves
longer rows. With `block` 2 the features belong to 2x2 pixels too (a 6x6 convolution with stride 2
is a 3x3 convolution after pixel unshuffle): wider and coarser at the same cost.

The skip convolution sees enough to hold the bicubic kernel exactly, so training starts from bicubic
and the graph needs no resize. Edges are replicated once, at the input; features pad with zeros.
With s = 1 the network restores: it starts as the identity. With `colour` it sees chroma too, and
corrects it at the input's size, as compression harms both.

The network trains in another parameterisation than it runs in: input convolutions in whitened
coordinates, inner ones beside an identity branch. `folded` turns both into plain convolutions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastvid_export import ops

_PAD = 2
"""Pixels that an input convolution sees beyond its block on each side: what bicubic needs."""
_OUT = 2
"""Side of the blocks that the last convolutions answer for."""


@dataclass(frozen=True)
class UpscalerOptions:
    """Class and shape of the network."""

    kind: str = "fast"
    """`fast`, `quality` or `real`: the class that the bundle is named after."""
    scale: int = 2
    """Factor of both sides."""
    channels: int = 32
    """Feature channels, a multiple of 16 so that blocked CPU convolutions waste nothing."""
    depth: int = 6
    """Inner convolutions."""
    block: int = 2
    """Side of the pixel blocks that have features in common, 1 or 2."""
    slope: float = 0.0
    """Of the activation below zero."""
    colour: bool = False
    """Whether chroma is seen and corrected too."""


class InputConv(nn.Module):
    """Convolution from planes in steps of a block, trained in coordinates that whiten images.

    Neighbouring pixels are nearly equal, so in pixel coordinates a few directions hold almost all
    of the gradient. The kernel is `weight @ whitening`; the whitening follows from one model of
    images, covariance falling exponentially with distance, and needs no data. It is taken for all
    planes alike; without it chroma is so small beside luma that bfloat16 rounds its noise away.
    """

    def __init__(self, outputs: int, block: int, planes: int = 1) -> None:
        super().__init__()
        self.stride = block
        self.side = block + 2 * _PAD
        self.planes = planes
        weight = torch.randn(outputs, planes * self.side**2) / (self.side / 2**0.5)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.whitening: Tensor
        self.register_buffer("whitening", _whitening(self.side), persistent=False)

    def kernel(self) -> Tensor:
        """The kernel in pixel coordinates, (outputs, planes, side, side)."""
        flat = self.weight.view(-1, self.side**2) @ self.whitening
        return flat.view(-1, self.planes, self.side, self.side)

    def set_kernel(self, kernel: Tensor) -> None:
        """Makes `kernel()` return `kernel`."""
        with torch.no_grad():
            flat = kernel.reshape(-1, self.side**2).double()
            found = torch.linalg.solve(self.whitening.double(), flat, left=False)
            self.weight.copy_(found.view_as(self.weight))

    def forward(self, luma: Tensor) -> Tensor:
        """(N, planes, H, W) → (N, outputs, (H - 4) / block, (W - 4) / block), float32.

        Whitening stretches what images hardly contain, which bfloat16 would round away.
        """
        with torch.autocast(luma.device.type, enabled=False):
            return F.conv2d(luma, self.kernel(), self.bias, stride=self.stride)


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
    """Luma (N, 1, H, W) in [0, 1] → luma (N, 1, sH, sW), not clamped; H and W even."""

    def __init__(self, options: UpscalerOptions) -> None:
        super().__init__()
        self.options = options
        outputs = (_OUT * options.scale) ** 2
        self.skip: nn.Module = InputConv(outputs, _OUT)
        self.head: nn.Module = InputConv(options.channels, options.block)
        self.body = nn.ModuleList(InnerConv(options.channels) for _ in range(options.depth))
        stride = _OUT // options.block
        self.tail = nn.Conv2d(options.channels, outputs, 2 + stride, stride=stride, padding=1)
        self.skip.set_kernel(_bicubic_kernel(options.scale))
        if options.colour:
            self.colour_head: nn.Module = InputConv(options.channels, options.block, planes=2)
            self.colour_tail = nn.Conv2d(
                options.channels, 2 * _OUT**2, 2 + stride, stride=stride, padding=1
            )
            nn.init.zeros_(self.colour_tail.weight)
            assert self.colour_tail.bias is not None
            nn.init.zeros_(self.colour_tail.bias)
        assert self.tail.bias is not None
        nn.init.zeros_(self.tail.weight)
        nn.init.zeros_(self.tail.bias)

    def forward(self, luma: Tensor) -> Tensor:
        """(N, 1, H, W) → (N, 1, sH, sW); without colour."""
        padded = F.pad(luma, (_PAD,) * 4, mode="replicate")
        return self.enlarged(padded, self.features(self.head(padded)))

    def with_colour(self, luma: Tensor, chroma: Tensor) -> tuple[Tensor, Tensor]:
        """The network of `colour`.

        Args:
            luma: (N, 1, H, W).
            chroma: (N, 2, H, W), blue first, in [-0.5, 0.5].

        Returns:
            Luma (N, 1, sH, sW) and chroma (N, 2, H, W).
        """
        padded = F.pad(luma, (_PAD,) * 4, mode="replicate")
        colours = F.pad(chroma, (_PAD,) * 4, mode="replicate")
        features = self.features(self.head(padded) + self.colour_head(colours))
        correction = F.pixel_shuffle(self.colour_tail(features), _OUT)
        return self.enlarged(padded, features), chroma + correction

    def features(self, first: Tensor) -> Tensor:
        """What the inner convolutions make of the head's output."""
        features = self.activated(first)
        for layer in self.body:
            features = self.activated(layer(features))
        return features

    def enlarged(self, padded: Tensor, features: Tensor) -> Tensor:
        """Luma (N, 1, sH, sW) from the padded one and the last features."""
        return F.pixel_shuffle(self.tail(features) + self.skip(padded), _OUT * self.options.scale)

    def activated(self, features: Tensor) -> Tensor:
        """ReLU, or leaky where the options have a slope."""
        slope = self.options.slope
        return F.leaky_relu(features, slope) if slope else F.relu(features)

    def softened(self, share: float) -> UpscalerNet:
        """This network with its results moved back towards what it starts from, in place.

        The output is linear in the last layers, so no time is added.

        Args:
            share: From 0, which is bicubic resizing (at scale 1 the input), to 1, which changes
                nothing.
        """
        assert isinstance(self.skip, InputConv)
        with torch.no_grad():
            resized = _bicubic_kernel(self.options.scale)
            self.skip.set_kernel(share * self.skip.kernel() + (1 - share) * resized)
            self.skip.bias.mul_(share)
            tails = [self.tail, self.colour_tail] if self.options.colour else [self.tail]
            for tail in tails:
                tail.weight.mul_(share)
                assert tail.bias is not None
                tail.bias.mul_(share)
        return self

    def folded(self) -> UpscalerNet:
        """The same function with plain convolutions only, in eval mode, for export."""
        plain = UpscalerNet(self.options)
        plain.skip, plain.head = map(_plain, (self.skip, self.head))
        plain.body = nn.ModuleList(map(_plain, self.body))
        plain.tail.load_state_dict(self.tail.state_dict())
        if self.options.colour:
            plain.colour_head = _plain(self.colour_head)
            plain.colour_tail.load_state_dict(self.colour_tail.state_dict())
        return plain.eval().requires_grad_(False)


class UpscaleGraph(nn.Module):
    """Frames in, frames out: the graph `upscale` of the bundle.

    Chroma passes by the network, unless that takes colour, and is resized bilinearly: the eye sees
    little of it.
    """

    def __init__(self, net: UpscalerNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, frames: Tensor) -> Tensor:
        """uint8 (N, H, W, 3), H and W even → uint8 (N, sH, sW, 3)."""
        luma, chroma = ops.rgb_to_luma(frames)
        if self.net.options.colour:
            return ops.luma_to_rgb(*self.net.with_colour(luma, chroma))
        return ops.luma_to_rgb(self.net(luma), chroma)


class WithColour(nn.Module):
    """`UpscalerNet.with_colour` as a module, for export."""

    def __init__(self, net: UpscalerNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, luma: Tensor, chroma: Tensor) -> tuple[Tensor, Tensor]:
        """See `UpscalerNet.with_colour`."""
        return self.net.with_colour(luma, chroma)


def _plain(layer: nn.Module) -> nn.Conv2d:
    assert isinstance(layer, InputConv | InnerConv)
    kernel = layer.kernel().detach()
    outputs, inputs, side, _ = kernel.shape
    stride, padding = (layer.stride, 0) if isinstance(layer, InputConv) else (1, 1)
    convolution = nn.Conv2d(inputs, outputs, side, stride=stride, padding=padding)
    assert layer.bias is not None
    with torch.no_grad():
        convolution.weight.copy_(kernel)
        assert convolution.bias is not None
        convolution.bias.copy_(layer.bias)
    return convolution


def _whitening(
    side: int, *, variance: float = 0.063, length: float = 50.0, noise: float = 3e-4
) -> Tensor:
    """Inverse square root of the covariance of square luma patches, symmetric."""
    axis = torch.arange(side, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    covariance = variance * torch.exp(-torch.cdist(points, points) / length)
    values, vectors = torch.linalg.eigh(covariance + noise * torch.eye(side**2))
    return ((vectors / values.sqrt()) @ vectors.T).float()


def _bicubic_kernel(scale: int) -> Tensor:
    """Bicubic (a = -0.5, half-pixel centres) of 2x2 pixels from 6x6: (4ss, 1, 6, 6)."""
    taps = _OUT + 2 * _PAD
    rows = torch.zeros(_OUT * scale, taps)
    for out in range(_OUT * scale):
        position = _PAD + (out + 0.5) / scale - 0.5
        for row in range(taps):
            rows[out, row] = _cubic(abs(position - row))
    return torch.einsum("ay,bx->abyx", rows, rows).reshape(-1, 1, taps, taps)


def _cubic(t: float, a: float = -0.5) -> float:
    if t < 1:
        return ((a + 2) * t - (a + 3)) * t * t + 1
    if t < 2:
        return ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return 0.0
