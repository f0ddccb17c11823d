"""EFDN: distilled features and a pooled attention, RGB upscaling; a baseline of NTIRE challenges.

Wang, "Edge-enhanced Feature Distillation Network for Efficient Super-Resolution", CVPR Workshops
2022, arXiv:2204.08759; parameter names as in https://github.com/icandle/EFDN, after its training
branches are folded (`rep_conv`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastvid_export.state_dicts import Shapes

_CELLS = 4


@dataclass(frozen=True)
class EfdnOptions:
    """Shape of the network."""

    channels: int = 48
    attention: int = 12
    """Channels of the attention."""
    scale: int = 4

    @classmethod
    def of(cls, shapes: Shapes) -> EfdnOptions:
        """Read from the shapes of a state dict."""
        return cls(
            channels=shapes.size("head.weight", 0),
            attention=shapes.size("cells.0.att.conv1.weight", 0),
            scale=shapes.scale("tail.0.weight", 3),
        )


class _Activated(nn.Module):
    """A convolution and a PReLU, below the names they have in files."""

    def __init__(self, name: str, channels: int, side: int) -> None:
        super().__init__()
        self._name = name
        self.add_module(name, nn.Conv2d(channels, channels, side, padding=side // 2))
        self.act = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape."""
        out: Tensor = self.act(self.get_submodule(self._name)(x))
        return out


class PooledAttention(nn.Module):
    """ESA, with all its convolutions: a gate from features pooled over 15 pixels every 6.

    Liu, Zhang, Tang et al., "Residual Feature Aggregation Network for Image Super-Resolution",
    CVPR 2020.
    """

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, inner, 1)
        self.conv_f = nn.Conv2d(inner, inner, 1)
        self.conv_max = nn.Conv2d(inner, inner, 3, padding=1)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=2)
        self.conv3 = nn.Conv2d(inner, inner, 3, padding=1)
        self.conv3_ = nn.Conv2d(inner, inner, 3, padding=1)
        self.conv4 = nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """(N, C, H, W), H and W at least 15, and H, W themselves → the same shape."""
        narrow = self.conv1(x)
        pooled = F.relu(self.conv_max(F.max_pool2d(self.conv2(narrow), 7, 3)))
        pooled = self.conv3_(F.relu(self.conv3(pooled)))
        wide = F.interpolate(pooled, size=size, mode="bilinear", align_corners=False)
        return x * self.conv4(wide + self.conv_f(narrow)).sigmoid()


class Cell(nn.Module):
    """Three convolutions whose results are all kept, narrowed and joined."""

    def __init__(self, options: EfdnOptions) -> None:
        super().__init__()
        c = options.channels
        self.conv1 = _Activated("conv1x1", c, 1)
        self.conv2, self.conv3 = (_Activated("rep_conv", c, 3) for _ in range(2))
        self.fuse = nn.Conv2d(4 * (c // 2), c, 1)
        self.att = PooledAttention(c, options.attention)
        self.branch = nn.ModuleList(nn.Conv2d(c, c // 2, 1) for _ in range(4))

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """(N, C, H, W), and H, W themselves → the same shape."""
        kept = [x]
        for layer in (self.conv1, self.conv2, self.conv3):
            kept.append(layer(kept[-1]))
        narrow = [branch(y) for branch, y in zip(self.branch, kept, strict=True)]
        return self.att(self.fuse(torch.cat(narrow, 1)), size) + x


class Efdn(nn.Module):
    """RGB (N, 3, H, W) in [0, 1], H and W at least 15, → RGB (N, 3, sH, sW) in [0, 1]."""

    minimum = 15

    def __init__(self, options: EfdnOptions) -> None:
        super().__init__()
        self.options = options
        self.scale = options.scale
        c = options.channels
        self.head = nn.Conv2d(3, c, 3, padding=1)
        self.cells = nn.ModuleList(Cell(options) for _ in range(_CELLS))
        self.local_fuse = nn.ModuleList(nn.Conv2d(2 * c, c, 1) for _ in range(3))
        self.tail = nn.Sequential(nn.Conv2d(c, 3 * options.scale**2, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """The picture, `scale` times as large."""
        size = x.shape[2:]
        first = self.head(x)
        one = self.cells[0](first, size)
        two = self.cells[1](one, size)
        three = self.cells[2](self.local_fuse[0](torch.cat([one, two], 1)), size)
        four = self.cells[3](self.local_fuse[1](torch.cat([two, three], 1)), size)
        # The second, not the third: so in the published network.
        joined = self.local_fuse[2](torch.cat([two, four], 1))
        return F.pixel_shuffle(self.tail(joined + first), self.scale).clamp(0, 1)

    def for_export(self) -> nn.Module:
        """The same with each branch and its share of `fuse` as one convolution."""
        return self.eval().requires_grad_(False)
