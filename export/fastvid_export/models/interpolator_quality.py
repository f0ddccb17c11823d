"""Frame interpolation for quality: searched flows, refined on warped features, then synthesis.

The same start as `models.interpolator`, dense inverse search both ways carried to the wanted time
at 1/4, but from three searches: of full luma, which is refined, and two of half-size luma.

- Refinement at 1/16, 1/8 and 1/4 (in the spirit of IFRNet, Kong et al., CVPR 2022): both frames'
  features are warped to time t by the current flows, and a block corrects flows and mask. Where
  the searches from frame 0 and from frame 1 differ, which they do where something is covered or
  uncovered, one of them is right as often as neither: a block also turns towards one of both.
- Synthesis (in the spirit of the context and refinement nets of RIFE and SoftSplat): a small U-Net
  at 1/2 and 1/4 reads both warped frames and the last block's features, and gives a residual at
  full resolution, and flows and mask at 1/2, where edges are. It smooths where flows leave doubt,
  which no warp can.
- Mixing (`models.field_mixing`): the refined field is one of several. The mean of frames warped by
  fields that err in different places errs less than any; a network chooses the shares.

Flows and residual fade to zero where the frames are alike, so that still content passes bit by
bit, trained or not.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastvid_export import ops
from fastvid_export.models.field_mixing import Mixing, Refined, drawn_anew, others
from fastvid_export.models.interpolator import (
    Prediction,
    luma,
    movement,
    project,
    quarter,
    quiet_conv,
    up,
)
from fastvid_export.models.residual_layers import conv, residual_body

LOOSE = {"stride": 6, "iterations": 16}
"""Of the third search: patches overlap less, so it errs elsewhere."""


@dataclass(frozen=True)
class QualityOptions:
    """Sizes of the network; channels are multiples of 8."""

    encoder4: int = 24
    """Channels of the features at 1/4."""
    encoder8: int = 32
    encoder16: int = 48
    refine4: int = 32
    """Channels of the refining block at 1/4."""
    refine8: int = 48
    refine16: int = 64
    depth4: int = 2
    """Residual blocks of the refining block at 1/4."""
    depth8: int = 3
    depth16: int = 2
    detail: int = 32
    """Channels of the synthesis at 1/2."""
    scene: int = 48
    """Channels of the synthesis at 1/4."""
    scene_depth: int = 2
    """Residual blocks there."""
    mixing: int = 32
    """Channels of the network that mixes fields, at 1/4."""
    mixing_depth: int = 1
    """Residual blocks there."""


class Encoder(nn.Module):
    """Features of one frame at 1/4, 1/8 and 1/16, from the frame at half size."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        widths = (3, *channels)
        self.levels = nn.ModuleList(
            nn.Sequential(conv(a, b, 2), conv(b, b)) for a, b in itertools.pairwise(widths)
        )

    def forward(self, half: Tensor) -> list[Tensor]:
        """(N, 3, H/2, W/2) in [0, 1] to the features, finest first."""
        features = []
        for level in self.levels:
            half = level(half)
            features.append(half)
        return features


class _Refine(nn.Module):
    """Corrects flows and mask at one level; writes at `finer` times its resolution."""

    def __init__(self, features: int, hidden: int, channels: int, depth: int, finer: int) -> None:
        super().__init__()
        # Two warped features; flow, doubt, time and mask; what the coarser level thought.
        self.body = residual_body(2 * features + 4 + 2 + 1 + 1 + hidden, channels, depth)
        self.head = quiet_conv(channels, 7 * finer * finer)
        self.finer = finer

    def forward(
        self, feature0: Tensor, feature1: Tensor, flow: Tensor, rest: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Corrections of flow, mask and trust, and what they were read from."""
        warped = [
            ops.warp(feature.float(), part.contiguous())
            for feature, part in zip((feature0, feature1), flow.split(2, 1), strict=True)
        ]
        # Flows in units of ten pixels are about as large as features.
        x = self.body(torch.cat([*warped, 0.1 * flow, *rest], 1))
        change = self.head(x).float()
        if self.finer > 1:
            change = F.pixel_shuffle(change, self.finer)
        return *change.split([4, 1, 2], 1), x


class QualityNet(nn.Module):
    """Predicts the frame at any time between two frames."""

    def __init__(self, options: QualityOptions) -> None:
        super().__init__()
        self.options = o = options
        self.encoder = Encoder((o.encoder4, o.encoder8, o.encoder16))
        # Finest first; each also reads what the next coarser one thought.
        self.refine = nn.ModuleList(
            [
                _Refine(o.encoder4, o.refine8, o.refine4, o.depth4, 1),
                _Refine(o.encoder8, o.refine16, o.refine8, o.depth8, 2),
                _Refine(o.encoder16, 0, o.refine16, o.depth16, 2),
            ]
        )
        self.detail = nn.Sequential(nn.Conv2d(6, o.detail, 4, 2, 1), nn.LeakyReLU(0.1))
        self.down = conv(o.detail, o.scene, 2)
        self.scene = residual_body(o.scene + o.refine4, o.scene, o.scene_depth)
        self.rise = nn.ConvTranspose2d(o.scene, o.detail, 2, 2)
        self.fuse = conv(o.detail, o.detail)
        self.mask = quiet_conv(o.scene, 1)
        # The residual, shuffled to full resolution; corrections of mask and flows at 1/2.
        self.last = quiet_conv(o.detail, 12 + 1 + 4)
        self.mixing = Mixing(o.scene, o.mixing, o.mixing_depth)

    def forward(self, image0: Tensor, image1: Tensor, flow: Tensor, timestep: Tensor) -> Prediction:
        """Interpolates.

        Args:
            image0: (N, 3, H, W) in [0, 1]; H and W are multiples of 16.
            image1: The same for the other frame.
            flow: (N, 12, H/2, W/2): flow 0 to 1, then 1 to 0, in pixels of the half-size frame; of
                the searches on half-size frames, on full ones, and with loose patches.
            timestep: (N,) in [0, 1].
        """
        half0, half1 = ops.downscale(image0, 2), ops.downscale(image1, 2)
        known0, known1 = self.encoder(half0), self.encoder(half1)
        moving = movement(ops.downscale(half0, 2), ops.downscale(half1, 2))
        frame, flow_t, mask, steps = self.between(
            image0, image1, known0, known1, moving, quarter(flow), timestep
        )
        return Prediction(frame, flow_t, mask, steps)

    def between(
        self,
        image0: Tensor,
        image1: Tensor,
        known0: list[Tensor],
        known1: list[Tensor],
        moving: Tensor,
        flow: Tensor,
        timestep: Tensor,
        *,
        as_frames: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...]]:
        """Frame, flow, mask and steps of `Prediction`, from what `QualityMotionGraph` gives."""
        near, full, loose = flow.split(4, 1)
        flow_t, mask, steps, x = self.flows(known0, known1, full, moving, timestep)
        refined = self.synthesis(image0, image1, flow_t, mask, x, moving)
        t, moving = timestep[:, None, None, None], up(moving, 4)
        fields, doubt = others(near, loose, t, moving)
        frame = self.mixing(image0, image1, refined, fields, doubt, t, moving, as_frames=as_frames)
        return frame, flow_t, mask, steps

    def flows(
        self,
        known0: list[Tensor],
        known1: list[Tensor],
        flow: Tensor,
        moving: Tensor,
        timestep: Tensor,
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...], Tensor]:
        """Flow, mask and steps of `Prediction`, and the last block's features."""
        t = timestep[:, None, None, None]
        moving = up(moving, 4)
        start, doubt = project(flow, t)
        current = start = start * moving
        # Half of what the search from frame 0 and that from frame 1 differ by, on either flow.
        apart = 0.5 * moving * torch.cat([-t * doubt, (1 - t) * doubt], 1)
        trust = torch.zeros_like(doubt)
        mask = torch.zeros_like(ops.downscale(current[:, :1], 4))
        hidden: list[Tensor] = []
        steps = [current]
        for level, block in reversed(list(enumerate(self.refine))):
            size = 2**level
            at = [ops.downscale(x, size) * (1 / size) if level else x for x in (current, doubt)]
            rest = [at[1], t.expand_as(mask), mask, *hidden]
            change, more, turn, x = block(known0[level], known1[level], at[0], rest)
            start = start + (up(change, 2) * 2 if level == 2 else change) * moving
            trust = trust + (up(turn, 2) if level == 2 else turn)
            side0, side1 = torch.tanh(trust).split(1, 1)
            current = start + torch.cat([side0, side0, side1, side1], 1) * apart
            mask = (up(mask, 2) if level else mask) + more
            hidden = [up(x, 2)] if level else [x]
            steps.append(current)
        return 4 * current, mask, tuple(steps), hidden[0]

    def synthesis(
        self,
        image0: Tensor,
        image1: Tensor,
        flow: Tensor,
        mask: Tensor,
        hidden: Tensor,
        moving: Tensor,
    ) -> Refined:
        """Corrects flows and mask at 1/2."""
        warped = [
            ops.warp(image, part.contiguous())
            for image, part in zip((image0, image1), flow.split(2, 1), strict=True)
        ]
        fine = self.detail(torch.cat(warped, 1))
        scene = self.scene(torch.cat([self.down(fine), hidden], 1))
        mask = mask + self.mask(scene).float()
        x = self.last(self.fuse(fine + self.rise(scene))).float()
        residual, more, change = x.split([12, 1, 4], 1)
        moving = up(moving, 8)
        return Refined(
            flow,
            up(flow, 2) + change * moving,
            up(mask, 2) + more,
            F.pixel_shuffle(residual * drawn_anew(moving), 2),
            scene.float(),
        )


class QualityMotionGraph(nn.Module):
    """What two frames share over all times between them; the graph `motion` of the bundle."""

    def __init__(self, net: QualityNet) -> None:
        super().__init__()
        self.encoder = net.encoder

    def forward(self, frame0: Tensor, frame1: Tensor) -> tuple[Tensor, ...]:
        """Prepares both frames and searches the motion between them.

        Args:
            frame0: uint8 (1, H, W, 3); H and W are multiples of 16.
            frame1: The same.

        Returns:
            image0, image1 (1, 3, H, W); features at 1/4, 1/8 and 1/16 of frame 0, then of frame 1;
            moving (1, 1, H/16, W/16); flow (1, 12, H/4, W/4) of three searches.
        """
        image0, image1 = ops.rgb_to_planar(frame0), ops.rgb_to_planar(frame1)
        half0, half1 = ops.downscale(image0, 2), ops.downscale(image1, 2)
        luma0, luma1 = luma(half0), luma(half1)
        near = quarter(ops.inverse_search(luma0, luma1))
        full = 0.25 * ops.downscale(ops.inverse_search(luma(image0), luma(image1)), 4)
        loose = quarter(ops.inverse_search(luma0, luma1, **LOOSE))
        flow = torch.cat([near, full, loose], 1)
        moving = movement(ops.downscale(half0, 2), ops.downscale(half1, 2))
        known = [*self.encoder(half0), *self.encoder(half1)]
        return image0, image1, *known, moving, flow


class QualityBetweenGraph(nn.Module):
    """The frame at one time; the graph `between` of the bundle."""

    def __init__(self, net: QualityNet, *, as_frames: bool = True) -> None:
        super().__init__()
        self.net = net
        self.as_frames = as_frames

    def forward(
        self,
        image0: Tensor,
        image1: Tensor,
        fine0: Tensor,
        middle0: Tensor,
        coarse0: Tensor,
        fine1: Tensor,
        middle1: Tensor,
        coarse1: Tensor,
        moving: Tensor,
        flow: Tensor,
        timestep: Tensor,
    ) -> Tensor:
        """uint8 (1, H, W, 3), or (1, 3, H, W) without `as_frames`."""
        known0, known1 = [fine0, middle0, coarse0], [fine1, middle1, coarse1]
        frame, *_ = self.net.between(
            image0, image1, known0, known1, moving, flow, timestep, as_frames=self.as_frames
        )
        return frame
