"""IFNet 4.x of Practical-RIFE: the intermediate flow networks of RIFE's later versions.

Huang et al., "Real-Time Intermediate Flow Estimation for Video Frame Interpolation" (RIFE), ECCV
2022, https://arxiv.org/abs/2011.06294; the versions after the paper are Practical-RIFE's
(https://github.com/hzwer/Practical-RIFE, MIT). Written after the arithmetic of those networks as
vs-rife runs them (https://github.com/HolyWu/vs-rife, MIT), with the names of their weights.

Each block reads both frames warped by the flow so far, at a coarser scale, and corrects flow and
mask; the last flow and mask warp and blend the frames. From 4.7 on a small encoder gives features
that are warped as well, from 4.21 on a block hands features to the next.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastvid_export import ops

SLOPE = 0.2
"""Of every LeakyReLU."""
DEPTH = 8
"""Convolutions of a block's body."""


@dataclass(frozen=True)
class Encoder:
    """The network that makes features of a frame: at half its size, then back."""

    style: str
    """How its layers are called: `named` (cnn0 to cnn3), or `sequence` (0, 2, 4 and 6); `pair` is
    two layers, 0 and 1, without an activation between them."""
    width: int
    features: int


@dataclass(frozen=True)
class IFNetOptions:
    """What tells the versions apart."""

    widths: tuple[int, ...]
    """Channels of each block, coarse to fine."""
    scales: tuple[int, ...]
    """How many times smaller than the frame what each block reads is."""
    outputs: int = 6
    """Channels that a block gives: flow 4, mask 1, and from 13 on features for the next block."""
    shuffle: bool = True
    """Whether a block's output comes at the size of its input, by a pixel shuffle; else at half."""
    residual: bool = True
    """Whether the convolutions of a block's body add what they read."""
    groups: int = 1
    """Groups of those convolutions."""
    encoder: Encoder | None = None

    @property
    def carried(self) -> int:
        """Features that a block hands to the next."""
        return self.outputs - 5 if self.outputs > 6 else 0

    @property
    def adds_masks(self) -> bool:
        """Whether a block corrects the mask, rather than giving another."""
        return self.encoder is None

    @property
    def multiple_of(self) -> int:
        """What heights and widths of frames must be multiples of: 4 pixels of the coarsest."""
        return 4 * self.scales[0]

    def inputs(self, block: int) -> int:
        """Channels that a block reads."""
        images = 6 + (2 * self.encoder.features if self.encoder else 0)
        # The time; for all but the first the mask, the features of the block before and the flow.
        return images + 1 + (0 if block == 0 else 1 + self.carried + 4)


class NamedEncoder(nn.Module):
    """An encoder whose layers have names of their own."""

    def __init__(self, width: int, features: int) -> None:
        super().__init__()
        self.cnn0 = nn.Conv2d(3, width, 3, 2, 1)
        self.cnn1 = nn.Conv2d(width, width, 3, 1, 1)
        self.cnn2 = nn.Conv2d(width, width, 3, 1, 1)
        self.cnn3 = nn.ConvTranspose2d(width, features, 4, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, features, H, W)."""
        x = F.leaky_relu(self.cnn0(image), SLOPE)
        x = F.leaky_relu(self.cnn1(x), SLOPE)
        return self.cnn3(F.leaky_relu(self.cnn2(x), SLOPE))


def build_encoder(options: Encoder) -> nn.Module:
    """(N, 3, H, W) in [0, 1] to (N, features, H, W)."""
    width, features = options.width, options.features
    if options.style == "named":
        return NamedEncoder(width, features)
    first, last = nn.Conv2d(3, width, 3, 2, 1), nn.ConvTranspose2d(width, features, 4, 2, 1)
    if options.style == "pair":
        return nn.Sequential(first, last)
    layers: list[nn.Module] = [first, nn.LeakyReLU(SLOPE)]
    for _ in range(2):
        layers += [nn.Conv2d(width, width, 3, 1, 1), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers, last)


def _conv(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.LeakyReLU(SLOPE))


class ResidualConv(nn.Module):
    """LeakyReLU(conv(x) * beta + x)."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, 1, 1, groups=groups)
        self.beta = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W), the same."""
        return F.leaky_relu(self.conv(x) * self.beta + x, SLOPE)


class IFBlock(nn.Module):
    """Corrects flow and mask at one scale."""

    def __init__(self, options: IFNetOptions, index: int) -> None:
        super().__init__()
        o, width = options, options.widths[index]
        self.scale = o.scales[index]
        self.stretch = self.scale * (1 if o.shuffle else 2)
        self.conv0 = nn.Sequential(
            _conv(o.inputs(index), width // 2, 2), _conv(width // 2, width, 2)
        )
        self.convblock = nn.Sequential(
            *(
                ResidualConv(width, o.groups) if o.residual else _conv(width, width, 1)
                for _ in range(DEPTH)
            )
        )
        if o.shuffle:
            up = nn.ConvTranspose2d(width, 4 * o.outputs, 4, 2, 1)
            self.lastconv: nn.Module = nn.Sequential(up, nn.PixelShuffle(2))
        else:
            self.lastconv = nn.ConvTranspose2d(width, o.outputs, 4, 2, 1)

    def forward(self, x: Tensor, flow: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Looks at a picture of the state.

        Args:
            x: (N, C, H, W): images, features, time, mask.
            flow: (N, 4, H, W) in pixels; None for the first block.

        Returns:
            Changes of the flow (N, 4, H, W), mask (N, 1, H, W) and features for the next block.
        """
        x = _resized(x, 1 / self.scale)
        if flow is not None:
            x = torch.cat([x, _resized(flow, 1 / self.scale) / self.scale], 1)
        given = _resized(self.lastconv(self.convblock(self.conv0(x))), float(self.stretch))
        return given[:, :4] * self.stretch, given[:, 4:5], given[:, 5:]


def _resized(x: Tensor, factor: float) -> Tensor:
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


class IFNet(nn.Module):
    """The network, as it is published; `ifnet_graphs` computes the same in fewer steps."""

    def __init__(self, options: IFNetOptions) -> None:
        super().__init__()
        self.options = options
        for index in range(len(options.widths)):
            setattr(self, f"block{index}", IFBlock(options, index))
        if options.encoder is not None:
            self.encode = build_encoder(options.encoder)

    def warp(self, image: Tensor, flow: Tensor) -> Tensor:
        """Backward bilinear warp by a flow in pixels; what lies outside repeats the edge."""
        return ops.warp(image, flow.contiguous())

    def blocks(self) -> list[IFBlock]:
        """Coarse to fine."""
        return [self.get_submodule(f"block{i}") for i in range(len(self.options.widths))]

    def forward(self, image0: Tensor, image1: Tensor, timestep: Tensor) -> Tensor:
        """The frame at a time between two.

        Args:
            image0: (N, 3, H, W) in [0, 1]; H and W are multiples of `options.multiple_of`.
            image1: The same.
            timestep: (N,) in [0, 1].

        Returns:
            (N, 3, H, W).
        """
        o = self.options
        time = timestep[:, None, None, None].expand(-1, 1, *image0.shape[2:])
        first, second = [image0], [image1]
        if o.encoder is not None:
            first, second = [image0, self.encode(image0)], [image1, self.encode(image1)]
        coarse, *finer = self.blocks()
        inputs = [x for pair in zip(first, second, strict=True) for x in pair]
        flow, mask, carried = coarse(torch.cat([*inputs, time], 1), None)
        for block in finer:
            warped = [
                self.warp(x, field)
                for pair in zip(first, second, strict=True)
                for x, field in zip(pair, (flow[:, :2], flow[:, 2:]), strict=True)
            ]
            rest = [time, mask, carried] if o.carried else [time, mask]
            change, given, carried = block(torch.cat([*warped, *rest], 1), flow)
            flow = flow + change
            mask = mask + given if o.adds_masks else given
        share = torch.sigmoid(mask)
        warped0, warped1 = self.warp(image0, flow[:, :2]), self.warp(image1, flow[:, 2:])
        return warped0 * share + warped1 * (1 - share)
