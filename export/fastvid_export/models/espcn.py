"""ESPCN: three convolutions on luma and a pixel shuffle.

Shi, Caballero, Huszár et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient
Sub-Pixel Convolutional Neural Network", CVPR 2016, arXiv:1609.05158. Two kinds of published
weights: PyTorch's, with the paper's tanh (names as in https://github.com/yjn870/ESPCN-pytorch), and
TensorFlow's frozen graphs, with ReLU inside and tanh at the end
(https://github.com/fannymonori/TF-ESPCN).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from fastvid_export.state_dicts import Shapes

_NAMES = ("first_part.0", "first_part.2", "last_part.0")


@dataclass(frozen=True)
class EspcnOptions:
    """Shape of the network."""

    channels: tuple[int, int] = (64, 32)
    scale: int = 2
    rectified: bool = False
    """ReLU inside and tanh at the end, not tanh inside."""

    @classmethod
    def of(cls, shapes: Shapes) -> EspcnOptions:
        """Read from the shapes of a state dict in PyTorch's names."""
        wide, narrow = (shapes.size(f"{name}.weight", 0) for name in _NAMES[:2])
        return cls((wide, narrow), shapes.scale("last_part.0.weight", 1))

    @classmethod
    def of_graph(cls, shapes: Shapes) -> EspcnOptions:
        """Read from the constants of a frozen graph."""
        wide, narrow, outputs = (shapes.size(f"f{i}", 3) for i in (1, 2, 3))
        return cls((wide, narrow), max(round(outputs**0.5), 1), rectified=True)


class Espcn(nn.Module):
    """Luma (N, 1, H, W) in [0, 1] → luma (N, 1, sH, sW)."""

    minimum = 1

    def __init__(self, options: EspcnOptions) -> None:
        super().__init__()
        self.options = options
        self.scale = options.scale
        wide, narrow = options.channels
        inside = nn.ReLU if options.rectified else nn.Tanh
        self.first_part = nn.Sequential(
            nn.Conv2d(1, wide, 5, padding=2),
            inside(),
            nn.Conv2d(wide, narrow, 3, padding=1),
            inside(),
        )
        self.last_part = nn.Sequential(nn.Conv2d(narrow, options.scale**2, 3, padding=1))

    def forward(self, luma: Tensor) -> Tensor:
        """The luma, `scale` times as large."""
        y: Tensor = F.pixel_shuffle(self.last_part(self.first_part(luma)), self.scale)
        return y.tanh() if self.options.rectified else y

    def for_export(self) -> nn.Module:
        """Itself."""
        return self.eval().requires_grad_(False)


def from_graph(constants: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A frozen graph's constants under PyTorch's names; what is not known keeps its own."""
    known: dict[str, tuple[str, bool]] = {}
    for i, name in enumerate(_NAMES):
        known |= {f"f{i + 1}": (f"{name}.weight", True), f"b{i + 1}": (f"{name}.bias", False)}
    result = {}
    for name, value in constants.items():
        new, is_kernel = known.get(name, (name, False))
        result[new] = value.permute(3, 2, 0, 1).contiguous() if is_kernel else value
    return result
