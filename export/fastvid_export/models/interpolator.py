"""Frame interpolation: a coarse-to-fine intermediate flow network that starts from inverse search.

In the spirit of IFNet (Huang et al., "Real-Time Intermediate Flow Estimation for Video Frame
Interpolation", ECCV 2022): at each level both frames are warped to the wanted time by the current
flows, and a small convolutional block corrects the flows and the mask that blends them. Two things
differ, both for speed on a CPU. The first flows come from dense inverse search (Kroeger et al.,
ECCV 2016) on half-resolution luma, which finds large and sub-pixel motion without learning; and no
feature map is finer than 1/8 of the frame: blocks read images through a 4x4 stride-4 convolution
and write flows through a pixel shuffle of 4.

The flow at time t from the flows between the frames is Super SloMo's linear combination (Jiang et
al., CVPR 2018): F_t0 = -(1-t) t F_01 + t^2 F_10,  F_t1 = (1-t)^2 F_01 - t (1-t) F_10.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastvid_export import ops


@dataclass(frozen=True)
class InterpolatorOptions:
    """Sizes of the network."""

    coarse_channels: int = 64
    """Channels of the block at 1/16."""
    coarse_depth: int = 7
    """3x3 convolutions of that block's body."""
    fine_channels: int = 32
    """Channels of the block at 1/8."""
    fine_depth: int = 7


class Prediction(NamedTuple):
    """What `InterpolationNet` predicts."""

    frame: Tensor
    """(N, 3, H, W) in [0, 1]."""
    flow: Tensor
    """(N, 4, H/2, W/2): flow from the middle frame to frame 0, then 1, in pixels of the frame."""
    mask: Tensor
    """(N, 1, H/2, W/2): logit of frame 0's share."""
    steps: tuple[Tensor, ...]
    """The flow after each level, coarse to fine, in pixels of the half-size frame."""


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.LeakyReLU(0.1))


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(channels, channels, 3, 1, 1)
        self.conv1 = nn.Conv2d(channels, channels, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x + self.conv1(F.leaky_relu(self.conv0(x), 0.1)), 0.1)


class _Block(nn.Module):
    """Corrects flows and mask at one level.

    Reads both warped images at four times the block's resolution and `context` at the block's own;
    writes corrections at four times its resolution.
    """

    def __init__(self, context: int, channels: int, depth: int) -> None:
        super().__init__()
        self.image = nn.Conv2d(6, channels, 4, 4)
        self.context = nn.Conv2d(context, channels, 1)
        self.mix = _conv(channels, channels)
        self.body = nn.Sequential(*(_Residual(channels) for _ in range(depth // 2)))
        self.head = nn.Conv2d(channels, 5 * 16, 3, 1, 1)
        # Untrained, the network is two-sided warping by the searched flows.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = F.leaky_relu(self.image(images) + self.context(context), 0.1)
        x = self.body(self.mix(x))
        flow, mask = F.pixel_shuffle(self.head(x), 4).split([4, 1], 1)
        return flow, mask, x


class InterpolationNet(nn.Module):
    """Predicts the frame at any time between two frames."""

    def __init__(self, options: InterpolatorOptions) -> None:
        super().__init__()
        o = options
        self.coarse = _Block(4 + 4 + 1, o.coarse_channels, o.coarse_depth)
        self.fine = _Block(4 + 4 + 1 + 4 + 1 + o.coarse_channels, o.fine_channels, o.fine_depth)

    def forward(self, image0: Tensor, image1: Tensor, flow: Tensor, timestep: Tensor) -> Prediction:
        """Interpolates.

        Args:
            image0: (N, 3, H, W) in [0, 1]; H and W are multiples of 16.
            image1: The same for the other frame.
            flow: (N, 4, H/2, W/2): flow 0 to 1, then 1 to 0, in pixels of the half-size frame.
            timestep: (N,) in [0, 1].
        """
        half0, half1 = ops.downscale(image0, 2), ops.downscale(image1, 2)
        flow_t, mask, steps = self.flows(half0, half1, flow, timestep)
        frame = ops.warp_blend(image0, image1, flow_t, mask)
        return Prediction(frame, flow_t, mask, steps)

    def flows(
        self, half0: Tensor, half1: Tensor, flow: Tensor, timestep: Tensor
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Flow, mask and steps of `Prediction`; `half0` and `half1` are the frames at half size."""
        t = timestep[:, None, None, None]
        forth, back = flow[:, :2], flow[:, 2:]
        current = torch.cat(
            [
                (t * t) * back - (t * (1 - t)) * forth,
                (1 - t) * (1 - t) * forth - (t * (1 - t)) * back,
            ],
            1,
        )

        quarter0, quarter1 = ops.downscale(half0, 2), ops.downscale(half1, 2)
        small = ops.downscale(current, 2) * 0.5
        warped = _warp_both(quarter0, quarter1, small)
        # How far the two searches disagree: near zero where the motion is sure.
        doubt = ops.downscale(forth + back, 8) * 0.125
        context = torch.cat(
            [ops.downscale(small, 4) * 0.25, doubt, doubt.abs(), _plane(t, doubt)], 1
        )
        change, mask, hidden = self.coarse(warped, context)
        current = current + 2 * _up(change, 2)
        mask = _up(mask, 2)
        steps = [current]

        warped = _warp_both(half0, half1, current)
        doubt = ops.downscale(forth + back, 4) * 0.25
        context = torch.cat(
            [
                ops.downscale(current, 4) * 0.25,
                doubt,
                doubt.abs(),
                _plane(t, doubt),
                ops.downscale(change, 2),
                ops.downscale(mask, 4),
                _up(hidden, 2),
            ],
            1,
        )
        change, more, _ = self.fine(warped, context)
        current = current + change
        mask = mask + more
        steps.append(current)

        return 2 * current, mask, tuple(steps)


class MotionGraph(nn.Module):
    """What two frames share over all times between them; the graph `motion` of the bundle."""

    def forward(
        self, frame0: Tensor, frame1: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Prepares both frames and searches the motion between them.

        Args:
            frame0: uint8 (1, H, W, 3); H and W are multiples of 16.
            frame1: The same.

        Returns:
            image0, image1 (1, 3, H, W); half0, half1 (1, 3, H/2, W/2); flow (1, 4, H/2, W/2).
        """
        image0, image1 = ops.rgb_to_planar(frame0), ops.rgb_to_planar(frame1)
        half0, half1 = ops.downscale(image0, 2), ops.downscale(image1, 2)
        flow = ops.inverse_search(_luma(half0), _luma(half1))
        return image0, image1, half0, half1, flow


class BetweenGraph(nn.Module):
    """The frame at one time; the graph `between` of the bundle."""

    def __init__(self, net: InterpolationNet, *, as_frames: bool = True) -> None:
        super().__init__()
        self.net = net
        self.as_frames = as_frames

    def forward(
        self,
        image0: Tensor,
        image1: Tensor,
        half0: Tensor,
        half1: Tensor,
        flow: Tensor,
        timestep: Tensor,
    ) -> Tensor:
        """uint8 (1, H, W, 3), or (1, 3, H, W) without `as_frames`."""
        flow_t, mask, _ = self.net.flows(half0, half1, flow, timestep)
        return ops.warp_blend(image0, image1, flow_t, mask, as_frames=self.as_frames)


def _luma(image: Tensor) -> Tensor:
    return F.conv2d(image, image.new_tensor([0.299, 0.587, 0.114]).reshape(1, 3, 1, 1))


def _warp_both(image0: Tensor, image1: Tensor, flow: Tensor) -> Tensor:
    return torch.cat([ops.warp(image0, flow[:, :2]), ops.warp(image1, flow[:, 2:])], 1)


def _plane(t: Tensor, like: Tensor) -> Tensor:
    return like[:, :1] * 0 + t


def _up(x: Tensor, factor: int) -> Tensor:
    return F.interpolate(x, scale_factor=float(factor), mode="bilinear", align_corners=False)
