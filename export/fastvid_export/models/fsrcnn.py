"""FSRCNN: a luma network that works at low resolution and grows at its end.

Dong, Loy and Tang, "Accelerating the Super-Resolution Convolutional Neural Network", ECCV 2016,
arXiv:1608.00367. Two kinds of published weights: PyTorch's, with the paper's 9x9 transposed
convolution (names as in https://github.com/yjn870/FSRCNN-pytorch), and TensorFlow's frozen graphs,
with a 1x1 convolution and a pixel shuffle (https://github.com/Saafke/FSRCNN_Tensorflow).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastvid_export.state_dicts import Shapes, indices


@dataclass(frozen=True)
class FsrcnnOptions:
    """Shape of the network."""

    channels: int = 56
    """`d` in the paper."""
    inner: int = 12
    """`s` in the paper."""
    depth: int = 4
    """`m` in the paper: inner 3x3 convolutions."""
    scale: int = 2
    shuffled: bool = False
    """Whether a 1x1 convolution and a pixel shuffle end it, not a transposed convolution."""

    @classmethod
    def of(cls, shapes: Shapes, scale: int) -> FsrcnnOptions:
        """Read from the shapes of a state dict in PyTorch's names; they do not tell the scale."""
        layers = [i for i in range(0, 200, 2) if f"mid_part.{i}.weight" in shapes.sizes]
        return cls(
            channels=shapes.size("first_part.0.weight", 0),
            inner=shapes.size("mid_part.0.weight", 0),
            depth=max(len(layers) - 2, 1),
            scale=scale,
        )

    @classmethod
    def of_graph(cls, shapes: Shapes) -> FsrcnnOptions:
        """Read from the constants of a frozen graph."""
        layers = len(indices(shapes, r"f(\d+)"))
        return cls(
            channels=shapes.size("f1", 3),
            inner=shapes.size("f2", 3),
            depth=max(layers - 4, 1),
            scale=max(round(shapes.size(f"f{layers}", 3) ** 0.5), 1),
            shuffled=True,
        )


class Fsrcnn(nn.Module):
    """Luma (N, 1, H, W) in [0, 1] → luma (N, 1, sH, sW), not clamped."""

    minimum = 1

    def __init__(self, options: FsrcnnOptions) -> None:
        super().__init__()
        self.options = options
        self.scale = options.scale
        d, s = options.channels, options.inner
        self.first_part = nn.Sequential(nn.Conv2d(1, d, 5, padding=2), nn.PReLU(d))
        middle: list[nn.Module] = [nn.Conv2d(d, s, 1), nn.PReLU(s)]
        for _ in range(options.depth):
            middle += [nn.Conv2d(s, s, 3, padding=1), nn.PReLU(s)]
        self.mid_part = nn.Sequential(*middle, nn.Conv2d(s, d, 1), nn.PReLU(d))
        factor = options.scale
        if options.shuffled:
            self.last_part: nn.Module = nn.Conv2d(d, factor**2, 1)
        else:
            self.last_part = nn.ConvTranspose2d(
                d, 1, 9, stride=factor, padding=4, output_padding=factor - 1
            )

    def forward(self, luma: Tensor) -> Tensor:
        """The luma, `scale` times as large."""
        y: Tensor = self.last_part(self.mid_part(self.first_part(luma)))
        return F.pixel_shuffle(y, self.scale) if self.options.shuffled else y

    def for_export(self) -> nn.Module:
        """Itself."""
        return self.eval().requires_grad_(False)


def from_graph(constants: Mapping[str, Tensor], options: FsrcnnOptions) -> dict[str, Tensor]:
    """A frozen graph's constants under PyTorch's names; what is not known keeps its own."""
    last = options.depth + 4
    result = {}
    for name, value in constants.items():
        kind, number = name.rstrip("0123456789"), int(name[len(name.rstrip("0123456789")) :] or 0)
        base = f"mid_part.{2 * (number - 2)}"
        if number == 1:
            base = "first_part.0"
        elif number == last:
            base = "last_part"
        if kind == "f":
            result[f"{base}.weight"] = value.permute(3, 2, 0, 1).contiguous()
        elif kind == "b":
            # One number for all phases of the last layer.
            result[f"{base}.bias"] = (
                value.expand(options.scale**2).clone() if number == last else value
            )
        elif kind == "alpha":
            layer, _, index = base.rpartition(".")
            result[f"{layer}.{int(index) + 1}.weight"] = value
        else:
            result[name] = value
    return {name: torch.as_tensor(value) for name, value in result.items()}
