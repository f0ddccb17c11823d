"""Frame interpolation: a coarse-to-fine intermediate flow network that starts from inverse search.

In the spirit of IFNet (Huang et al., "Real-Time Intermediate Flow Estimation for Video Frame
Interpolation", ECCV 2022): at each level both frames are warped to the wanted time by the current
flows, and a small convolutional block corrects the flows and the mask that blends them. Two things
differ, both for speed on a CPU. The first flows come from dense inverse search (Kroeger et al.,
ECCV 2016) on half-resolution luma, which finds large and sub-pixel motion without learning; and
all that is computed before the frame itself is at 1/4 of its resolution or below: flows of the
search are averages over patches, and lose nothing there.

The searched flows live on the pixels of frames 0 and 1. The motion v through a pixel of time t is
found by a fixed point, v = (1-t) F_01(x - t v) - t F_10(x + (1-t) v).
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
    last_channels: int = 16
    """Channels of the block at 1/4."""
    last_depth: int = 4


class Prediction(NamedTuple):
    """What `InterpolationNet` predicts."""

    frame: Tensor
    """(N, 3, H, W) in [0, 1]."""
    flow: Tensor
    """(N, 4, H/4, W/4): flow from the middle frame to frame 0, then 1, in pixels of the frame."""
    mask: Tensor
    """(N, 1, H/4, W/4): logit of frame 0's share."""
    steps: tuple[Tensor, ...]
    """The flow after each level, coarse to fine, in pixels of the quarter-size frame."""


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

    Reads both warped images at 1/4 of the frame's size and `context` at the block's own; writes
    corrections at `finer` times the block's resolution.
    """

    def __init__(self, stride: int, context: int, channels: int, depth: int, finer: int) -> None:
        super().__init__()
        self.image = nn.Conv2d(6, channels, 4, stride, (4 - stride) // 2)
        self.context = nn.Conv2d(context, channels, 1)
        self.mix = _conv(channels, channels)
        self.body = nn.Sequential(*(_Residual(channels) for _ in range(depth // 2)))
        self.head = quiet_conv(channels, 5 * finer * finer)
        self.finer = finer

    def forward(
        self, images: Tensor, context: Tensor, hidden: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Corrections of flow and mask, and what they were read from.

        `hidden` is context at half the resolution. It is read before it is enlarged, which gives
        the same and moves less, because both are linear.
        """
        if hidden is None:
            x = self.context(context)
        else:
            here, coarser = self.context.weight.split([context.shape[1], hidden.shape[1]], 1)
            x = F.conv2d(context, here, self.context.bias) + up(F.conv2d(hidden, coarser), 2)
        x = F.leaky_relu(self.image(images) + x, 0.1)
        x = self.body(self.mix(x))
        flow, mask = F.pixel_shuffle(self.head(x).float(), self.finer).split([4, 1], 1)
        return flow, mask, x


class _LastBlock(nn.Module):
    """Corrects flows and mask at 1/4, where edges are."""

    def __init__(self, hidden: int, channels: int, depth: int) -> None:
        super().__init__()
        self.hidden = nn.Conv2d(hidden, channels, 1)
        # Both warped images and how they differ; flow and mask.
        self.first = nn.Conv2d(6 + 3 + 4 + 1, channels, 3, 1, 1)
        self.body = nn.Sequential(*(_conv(channels, channels) for _ in range(depth - 2)))
        self.head = quiet_conv(channels, 5)

    def forward(
        self, images: Tensor, flow: Tensor, mask: Tensor, hidden: Tensor
    ) -> tuple[Tensor, Tensor]:
        apart = (images[:, :3] - images[:, 3:]).abs()
        x = self.first(torch.cat([images, apart, 0.1 * flow, mask], 1))
        x = self.body(F.leaky_relu(x + up(self.hidden(hidden), 2), 0.1))
        change, more = self.head(x).float().split([4, 1], 1)
        return change, more


class InterpolationNet(nn.Module):
    """Predicts the frame at any time between two frames."""

    def __init__(self, options: InterpolatorOptions) -> None:
        super().__init__()
        o = options
        self.coarse = _Block(4, 4 + 4 + 1, o.coarse_channels, o.coarse_depth, 2)
        seen = 4 + 4 + 1 + 4 + 1 + o.coarse_channels
        self.fine = _Block(2, seen, o.fine_channels, o.fine_depth, 2)
        self.last = _LastBlock(o.fine_channels, o.last_channels, o.last_depth)

    def forward(self, image0: Tensor, image1: Tensor, flow: Tensor, timestep: Tensor) -> Prediction:
        """Interpolates.

        Args:
            image0: (N, 3, H, W) in [0, 1]; H and W are multiples of 16.
            image1: The same for the other frame.
            flow: (N, 4, H/2, W/2): flow 0 to 1, then 1 to 0, in pixels of the half-size frame.
            timestep: (N,) in [0, 1].
        """
        small0, small1 = ops.downscale(image0, 4), ops.downscale(image1, 4)
        moving = movement(small0, small1)
        flow_t, mask, steps = self.flows(small0, small1, quarter(flow), moving, timestep)
        frame = ops.warp_blend(image0, image1, flow_t, mask)
        return Prediction(frame, flow_t, mask, steps)

    def flows(
        self, small0: Tensor, small1: Tensor, flow: Tensor, moving: Tensor, timestep: Tensor
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Flow, mask and steps of `Prediction`; all arguments are at 1/4, but `moving`."""
        t = timestep[:, None, None, None]
        moving = up(moving, 4)
        current, doubt = project(flow, t)
        current = current * moving

        warped = _warp_both(small0, small1, current)
        unsure = ops.downscale(doubt, 4) * 0.25
        context = torch.cat(
            [ops.downscale(current, 4) * 0.25, unsure, unsure.abs(), _plane(t, unsure)], 1
        )
        change, mask, hidden = self.coarse(warped, context)
        current = current + 2 * up(change, 2) * moving
        steps = [current]

        warped = _warp_both(small0, small1, current)
        unsure = ops.downscale(doubt, 2) * 0.5
        context = torch.cat(
            [
                ops.downscale(current, 2) * 0.5,
                unsure,
                unsure.abs(),
                _plane(t, unsure),
                change,
                mask,
            ],
            1,
        )
        change, more, hidden = self.fine(warped, context, hidden)
        current = current + change * moving
        mask = up(mask, 2) + more
        steps.append(current)

        warped = _warp_both(small0, small1, current)
        change, more = self.last(warped, current, mask, hidden)
        current = current + change * moving
        steps.append(current)
        return 4 * current, mask + more, tuple(steps)


class MotionGraph(nn.Module):
    """What two frames share over all times between them; the graph `motion` of the bundle."""

    def forward(self, frame0: Tensor, frame1: Tensor) -> tuple[Tensor, ...]:
        """Prepares both frames and searches the motion between them.

        Args:
            frame0: uint8 (1, H, W, 3); H and W are multiples of 16.
            frame1: The same.

        Returns:
            image0, image1 (1, 3, H, W); small0, small1 (1, 3, H/4, W/4); moving
            (1, 1, H/16, W/16); flow (1, 4, H/4, W/4).
        """
        image0, image1 = ops.rgb_to_planar(frame0), ops.rgb_to_planar(frame1)
        half0, half1 = ops.downscale(image0, 2), ops.downscale(image1, 2)
        flow = quarter(ops.inverse_search(luma(half0), luma(half1)))
        small0, small1 = ops.downscale(half0, 2), ops.downscale(half1, 2)
        return image0, image1, small0, small1, movement(small0, small1), flow


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
        small0: Tensor,
        small1: Tensor,
        moving: Tensor,
        flow: Tensor,
        timestep: Tensor,
    ) -> Tensor:
        """uint8 (1, H, W, 3), or (1, 3, H, W) without `as_frames`."""
        flow_t, mask, _ = self.net.flows(small0, small1, flow, moving, timestep)
        return ops.warp_blend(image0, image1, flow_t, mask, as_frames=self.as_frames)


def quiet_conv(inputs: int, outputs: int) -> nn.Conv2d:
    """A 3x3 convolution that gives zero until it is trained.

    Where it makes the corrections, the untrained network is two-sided warping by searched flows.
    """
    conv = nn.Conv2d(inputs, outputs, 3, 1, 1)
    nn.init.zeros_(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


def movement(small0: Tensor, small1: Tensor) -> Tensor:
    """How far the frames differ, (N, 1, H/16, W/16): 0 where they are alike, 1 from one level on.

    Flows fade to zero with it, so that still content passes bit by bit, trained or not.

    Args:
        small0: (N, 3, H/4, W/4) in [0, 1].
        small1: The same of the other frame.
    """
    difference = ops.downscale((small0 - small1).abs(), 4).sum(1, keepdim=True)
    return (difference * (255 / 3)).clamp(max=1)


def quarter(flow: Tensor) -> Tensor:
    """A flow in pixels of the half-size frame as one of the quarter-size frame."""
    return ops.downscale(flow, 2) * 0.5


def project(flow: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Flows from time t to both frames, from the flows between the frames.

    Args:
        flow: (N, 4, h, w): flow 0 to 1, then 1 to 0.
        t: (N, 1, 1, 1) in [0, 1].

    Returns:
        (N, 4, h, w): flow t to 0, then to 1; and (N, 2, h, w): how far the two disagree there.
    """
    forth, back = (part.contiguous() for part in flow.split(2, 1))
    ahead, behind = forth, -back
    for _ in range(2):
        through = (1 - t) * ahead + t * behind
        ahead = ops.warp(forth, -t * through)
        behind = -ops.warp(back, (1 - t) * through)
    through = (1 - t) * ahead + t * behind
    return torch.cat([-t * through, (1 - t) * through], 1), ahead - behind


def up(x: Tensor, factor: int) -> Tensor:
    """Bilinear, pixel centres at halves."""
    return F.interpolate(x, scale_factor=float(factor), mode="bilinear", align_corners=False)


def luma(image: Tensor) -> Tensor:
    """BT.601 luma (N, 1, H, W) of an image (N, 3, H, W)."""
    red, green, blue = image.split(1, 1)
    return red * 0.299 + green * 0.587 + blue * 0.114


def _warp_both(image0: Tensor, image1: Tensor, flow: Tensor) -> Tensor:
    return torch.cat([ops.warp(image0, flow[:, :2]), ops.warp(image1, flow[:, 2:])], 1)


def _plane(t: Tensor, like: Tensor) -> Tensor:
    return like[:, :1] * 0 + t
