"""SPAN: attention without parameters of its own, RGB upscaling.

Wan, Yu, Yu et al., "Swift Parameter-free Attention Network for Efficient Super-Resolution", CVPR
Workshops 2024, arXiv:2311.12770; parameter names as in https://github.com/hongyuanyu/SPAN.

Published files are of two kinds: those of training hold four convolutions where one runs (`sk`,
`conv.0` to `conv.2`, and an `eval_conv` that may be out of date), folded ones `eval_conv` alone.
Here the four are folded once, and the network has no others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastvid_export.models import folding
from fastvid_export.state_dicts import Shapes

_MEAN = (0.4488, 0.4371, 0.4040)
"""Of DIV2K's pixels; no file holds it, and all were trained with it."""
_RANGE = 255.0
_BLOCKS = 6


@dataclass(frozen=True)
class SpanOptions:
    """Shape of the network."""

    channels: int = 48
    joined: int = 48
    """Channels before the last convolution; fewer than `channels` in some challenge entries."""
    scale: int = 4
    normalised: bool = True
    """Whether the mean is taken off; files with a `no_norm` entry say that it is not."""

    @classmethod
    def of(cls, shapes: Shapes) -> SpanOptions:
        """Read from the shapes of a folded state dict."""
        return cls(
            channels=shapes.size("conv_1.eval_conv.weight", 0),
            joined=shapes.size("conv_cat.weight", 0),
            scale=shapes.scale("upsampler.0.weight", 3),
            normalised="no_norm" not in shapes.sizes,
        )


class Conv(nn.Module):
    """A folded 3x3 convolution, below the name it has in files."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.eval_conv = nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) → (N, outputs, H, W)."""
        out: Tensor = self.eval_conv(x)
        return out


class Block(nn.Module):
    """Three convolutions whose result is its own attention."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.c1_r, self.c2_r, self.c3_r = (Conv(channels, channels) for _ in range(3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) → the result, and the first convolution's after its activation."""
        first = F.silu(self.c1_r(x))
        last = self.c3_r(F.silu(self.c2_r(first)))
        return (last + x) * (last.sigmoid() - 0.5), first


class Span(nn.Module):
    """RGB (N, 3, H, W) in [0, 1] → RGB (N, 3, sH, sW), not clamped."""

    minimum = 1

    def __init__(self, options: SpanOptions) -> None:
        super().__init__()
        self.options = options
        self.scale = options.scale
        c = options.channels
        self.conv_1 = Conv(3, c)
        for i in range(_BLOCKS):
            self.add_module(f"block_{i + 1}", Block(c))
        self.conv_cat = nn.Conv2d(4 * c, options.joined, 1)
        self.conv_2 = Conv(c, c)
        self.upsampler = nn.Sequential(
            nn.Conv2d(options.joined, 3 * options.scale**2, 3, padding=1)
        )
        self.mean: Tensor
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The picture, `scale` times as large."""
        if self.options.normalised:
            x = (x - self.mean) * _RANGE
        first = self.conv_1(x)
        y, results, inner = first, [], first
        for i in range(_BLOCKS):
            y, inner = self.get_submodule(f"block_{i + 1}")(y)
            results.append(y)
        joined = torch.cat([first, self.conv_2(y), results[0], inner], 1)
        return F.pixel_shuffle(self.upsampler(self.conv_cat(joined)), self.scale)

    def for_export(self) -> nn.Module:
        """Itself: what can be folded is folded."""
        return self.eval().requires_grad_(False)


def folded(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with one convolution in the place of four."""
    result = {name: value for name, value in state.items() if name != "no_norm"}
    for name in sorted(state):
        if not name.endswith(".sk.weight"):
            continue
        base = name.removesuffix(".sk.weight")
        parts = [f"{base}.conv.{i}" for i in range(3)]
        needed = [
            f"{part}.{kind}" for part in (f"{base}.sk", *parts) for kind in ("weight", "bias")
        ]
        if any(part not in state for part in needed):
            continue  # what is missing is said when the weights are matched
        (first, middle, last) = ((state[f"{p}.weight"], state[f"{p}.bias"]) for p in parts)
        weight, bias = folding.chain_1x1_3x3_1x1(first, middle, last)
        weight = weight + folding.as_3x3(state[f"{base}.sk.weight"].double())
        bias = bias + state[f"{base}.sk.bias"].double()
        for part in needed:
            del result[part]
        result[f"{base}.eval_conv.weight"] = weight.float()
        result[f"{base}.eval_conv.bias"] = bias.float()
    return result
