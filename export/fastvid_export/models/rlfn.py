"""RLFN: residual local features and a pooled attention, RGB upscaling at x2 to x4.

Kong, Li, Xu et al., "Residual Local Feature Network for Efficient Super-Resolution", CVPR
Workshops 2022, arXiv:2205.07514; parameter names as in https://github.com/bytedance/RLFN.

    rgb ─ conv 3x3 ─┬─ [block] x n ─ conv 3x3 ─ + ─ conv 3x3 ─ shuffle ─ rgb
                    └────────────────────────────┘
    block:  x ─ [conv 3x3, LeakyReLU] x 3 ─ + x ─ conv 1x1 ─ attention
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from fastvid_export.models import folding
from fastvid_export.state_dicts import Shapes, indices

_SLOPE = 0.05


@dataclass(frozen=True)
class RlfnOptions:
    """Shape of the network."""

    channels: int = 48
    """Feature channels: 52 in the paper's network, 48 in RLFN-S, 46 in that of NTIRE 2022."""
    middle: int = 48
    """Channels inside a block, 48 in that of NTIRE 2022; else `channels`."""
    blocks: int = 6
    attention: int = 16
    """Channels of the attention."""
    scale: int = 2

    @classmethod
    def of(cls, shapes: Shapes) -> RlfnOptions:
        """Read from the shapes of a state dict."""
        return cls(
            channels=shapes.size("conv_1.weight", 0),
            middle=shapes.size("block_1.c1_r.weight", 0),
            blocks=len(indices(shapes, r"block_(\d+)\.c1_r\.weight")),
            attention=shapes.size("block_1.esa.conv1.weight", 0),
            scale=shapes.scale("upsampler.0.weight", 3),
        )


class PooledAttention(nn.Module):
    """ESA: a gate per pixel and channel, from features pooled over 15 pixels every 6.

    Liu, Zhang, Tang et al., "Residual Feature Aggregation Network for Image Super-Resolution",
    CVPR 2020, without two of its convolutions. The pooled grid is stretched over the whole frame,
    so that the gate at a pixel depends on the frame's size.
    """

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, inner, 1)
        self.conv_f = nn.Conv2d(inner, inner, 1)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=2)
        self.conv3 = nn.Conv2d(inner, inner, 3, padding=1)
        self.conv4 = nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """(N, C, H, W), H and W at least 15, and H, W themselves → the same shape.

        The size is the caller's: asked of `x`, a runtime would have to bring all of `x` into the
        plain layout for it.
        """
        narrow = self.conv1(x)
        pooled = self.conv3(F.max_pool2d(self.conv2(narrow), 7, 3))
        wide = F.interpolate(pooled, size=size, mode="bilinear", align_corners=False)
        return x * self.conv4(wide + self.conv_f(narrow)).sigmoid()


class Block(nn.Module):
    """Three convolutions, a skip, and the attention."""

    def __init__(self, options: RlfnOptions) -> None:
        super().__init__()
        outer, inner = options.channels, options.middle
        self.c1_r = nn.Conv2d(outer, inner, 3, padding=1)
        self.c2_r = nn.Conv2d(inner, inner, 3, padding=1)
        self.c3_r = nn.Conv2d(inner, outer, 3, padding=1)
        self.c5 = nn.Conv2d(outer, outer, 1)
        self.esa = PooledAttention(outer, options.attention)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """(N, C, H, W), and H, W themselves → the same shape."""
        y = x
        for layer in (self.c1_r, self.c2_r, self.c3_r):
            y = F.leaky_relu(layer(y), _SLOPE)
        out: Tensor = self.esa(self.c5(y + x), size)
        return out


class Rlfn(nn.Module):
    """RGB (N, 3, H, W) in [0, 255], H and W at least 15, → RGB (N, 3, sH, sW), not clamped."""

    minimum = 15

    def __init__(self, options: RlfnOptions) -> None:
        super().__init__()
        self.options = options
        self.scale = options.scale
        self.conv_1 = nn.Conv2d(3, options.channels, 3, padding=1)
        for i in range(options.blocks):
            self.add_module(f"block_{i + 1}", Block(options))
        self.conv_2 = nn.Conv2d(options.channels, options.channels, 3, padding=1)
        self.upsampler = nn.Sequential(
            nn.Conv2d(options.channels, 3 * options.scale**2, 3, padding=1)
        )

    def blocks(self) -> list[Block]:
        """In order."""
        named: Mapping[str, nn.Module] = self._modules  # type: ignore[assignment]
        found = [named[f"block_{i + 1}"] for i in range(self.options.blocks)]
        return [block for block in found if isinstance(block, Block)]

    def forward(self, x: Tensor) -> Tensor:
        """The picture, `scale` times as large."""
        first = self.conv_1(x)
        y = first
        for block in self.blocks():
            y = block(y, x.shape[2:])
        return F.pixel_shuffle(self.upsampler(self.conv_2(y) + first), self.scale)

    def for_export(self) -> nn.Module:
        """The same on [0, 1]: the range is in the weights of the ends, whose padding is zeros."""
        made = Rlfn(self.options)
        made.load_state_dict(self.state_dict())
        folding.scale_input(made.conv_1, 255.0)
        last = made.upsampler[0]
        assert isinstance(last, nn.Conv2d)
        folding.scale_output(last, 1 / 255.0)
        return made.eval().requires_grad_(False)
