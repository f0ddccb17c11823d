"""A frame as the mean of several, each warped by another motion field, with learned shares.

Where motion is in doubt the picture that errs least in the mean square is a mean of all that may
be: two searches that differ in their patches err in different places. Every field warps both
frames; a small network sees at 1/4 where the warped frames disagree and chooses the share of each
field and of each frame. Then the picture is spread a little, along the motion, because a step
between two frames says nothing of how it was accelerated, and in a direction of choice.

A blend of two pictures is `warp_blend` with flows of zero, and a spread is the mean of a picture
moved forth and back. Where the frames are alike nothing moves, and a mean of equals is exact.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fastvid_export import ops
from fastvid_export.models.interpolator import project, quiet_conv, up
from fastvid_export.models.residual_layers import residual_body

SHARES = (0.42, 0.12, 0.24, 0.17, 0.05)
"""Of the refined field, then of `others`, before training: the best fixed ones on real clips."""
ALONG = 0.03
"""How far the picture is spread before training, in parts of the motion."""
ACROSS = (0.05, -0.05)
"""And in pixels, right and down. Not zero, where a spread has no slope to learn by."""


class Refined(NamedTuple):
    """What the network knows before it mixes."""

    flow: Tensor
    """(N, 4, H/4, W/4): of frame 0, then of frame 1, in pixels of the frame."""
    fine: Tensor
    """The same at 1/2."""
    mask: Tensor
    """(N, 1, H/2, W/2): logit of frame 0's share."""
    residual: Tensor
    """(N, 3, H, W), added to the picture."""
    scene: Tensor
    """(N, C, H/4, W/4): features."""


def others(flow: Tensor, loose: Tensor, t: Tensor, moving: Tensor) -> tuple[list[Tensor], Tensor]:
    """The unrefined fields at time t, and how far the search disagrees with itself.

    Args:
        flow: (N, 4, h, w): flow 0 to 1, then 1 to 0, in pixels of these h and w.
        loose: The same of another search.
        t: (N, 1, 1, 1) in [0, 1].
        moving: (N, 1, h, w) in [0, 1].

    Returns:
        Flows (N, 4, h, w) in pixels of the frame, which is four times as large: of both searches,
        of the first one smoothed, and none; then (N, 2, h, w).
    """
    near, doubt = project(flow, t)
    far, _ = project(loose, t)
    smooth = up(ops.downscale(near, 4), 4)
    fields = [4 * moving * x for x in (near, far, smooth)]
    return [*fields, torch.zeros_like(near)], doubt


def drawn_anew(moving: Tensor) -> Tensor:
    """How far pixels may be made of more than moved ones: where half a level differs, from 0 on."""
    return (2 * moving - 1).clamp(min=0)


class Mixing(nn.Module):
    """Draws the frame from all fields.

    Args:
        scene: Channels of `Refined.scene`.
        channels: Of the network that chooses.
        depth: Residual blocks of it.
    """

    def __init__(self, scene: int, channels: int, depth: int) -> None:
        super().__init__()
        count = len(SHARES) - 1
        # Per field how far the warped frames are apart, and of the unrefined ones how far either
        # is from the refined picture and how far the flows are; texture, speed, doubt, time, and
        # what fades.
        seen = (count + 1) + 2 * count + count + 7
        self.body = residual_body(scene + seen, channels, depth)
        # Per unrefined field the share of what was mixed so far, and of frame 0; the spread.
        self.head = quiet_conv(channels, 2 * count + 5)

    def forward(
        self,
        image0: Tensor,
        image1: Tensor,
        refined: Refined,
        fields: list[Tensor],
        doubt: Tensor,
        t: Tensor,
        moving: Tensor,
        *,
        as_frames: bool = False,
    ) -> Tensor:
        """Draws.

        Args:
            image0: (N, 3, H, W) in [0, 1].
            image1: The same.
            refined: Of both.
            fields: What `others` gives.
            doubt: The same.
            t: (N, 1, 1, 1) in [0, 1].
            moving: (N, 1, H/4, W/4) in [0, 1].
            as_frames: Return frames instead of planes.

        Returns:
            The frame at time t: (N, 3, H, W), or uint8 (N, H, W, 3) with `as_frames`.
        """
        speed = refined.flow[:, 2:] - refined.flow[:, :2]
        seen = _seen(image0, image1, refined.flow, fields)
        t = t.expand_as(moving)
        # Flows in units of ten pixels are about as large as features.
        mask = ops.downscale(refined.mask, 2)
        seen += [0.1 * _length(speed), 0.1 * doubt, t, moving, mask]
        x = self.head(self.body(torch.cat([refined.scene, *seen], 1))).float()
        shares, masks, along, free = x.split([len(fields), len(fields), 1, 4], 1)
        # Without motion the nearer frame counts more; by default the others count alike.
        nearer = torch.log((1 - t).clamp(min=0.02)) - torch.log(t.clamp(min=0.02))
        picture = ops.warp_blend(image0, image1, refined.fine, refined.mask)
        so_far = [sum(SHARES[: k + 1]) for k in range(len(SHARES))]
        for k, (before, after) in enumerate(pairwise(so_far)):
            mask = masks[:, k : k + 1] + (nearer if k == len(fields) - 1 else 0)
            other = ops.warp_blend(image0, image1, fields[k], mask)
            start = torch.log(torch.tensor(before / (after - before)))
            picture = self._blended(picture, other, shares[:, k : k + 1] + start)
        # Acceleration tells most half way.
        reach = 4 * t * (1 - t) * (ALONG + 0.1 * along)
        changing = drawn_anew(moving)
        first = changing * (reach * speed + free[:, :2])
        second = changing * (free[:, 2:] + x.new_tensor(ACROSS).view(1, 2, 1, 1))
        half = torch.zeros_like(t)
        picture = ops.warp_blend(picture, picture, torch.cat([first, -first], 1), half)
        return ops.warp_blend(
            picture,
            picture,
            torch.cat([second, -second], 1),
            half,
            residual=refined.residual,
            as_frames=as_frames,
        )

    def _blended(self, a: Tensor, b: Tensor, logit: Tensor) -> Tensor:
        """Sigmoid(logit) of the first picture, and the rest of the second."""
        if self.training:
            # The same, and its gradient need not pass through a warp.
            return torch.lerp(b, a, torch.sigmoid(up(logit, 4)))
        nothing = torch.zeros_like(logit).repeat(1, 4, 1, 1)
        return ops.warp_blend(a, b, nothing, logit)


def _seen(image0: Tensor, image1: Tensor, flow: Tensor, fields: list[Tensor]) -> list[Tensor]:
    """Planes (N, 1, H/4, W/4) of how the frames warped by each field disagree, and of texture."""
    half0, half1 = ops.downscale(image0, 2), ops.downscale(image1, 2)
    seen: list[Tensor] = []
    middle = None
    for field in (flow, *fields):
        sides = [
            ops.warp(half, (0.5 * part).contiguous())
            for half, part in zip((half0, half1), field.split(2, 1), strict=True)
        ]
        seen.append(_apart(*sides))
        if middle is None:
            middle = 0.5 * (sides[0] + sides[1])
            seen.append(_apart(middle, up(ops.downscale(middle, 2), 2)))
        else:
            seen += [_apart(side, middle) for side in sides]
            seen.append(0.1 * _length(field - flow))
    return seen


def _apart(a: Tensor, b: Tensor) -> Tensor:
    """The sum over channels of the mean difference, at half the size; ten levels are about 1."""
    return 8 * ops.downscale((a - b).abs(), 2).sum(1, keepdim=True)


def _length(x: Tensor) -> Tensor:
    return x.abs().sum(1, keepdim=True)
