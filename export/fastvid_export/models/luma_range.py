"""Luma in studio range, as MATLAB's `rgb2ycbcr` gives it and many networks were trained on it."""

from __future__ import annotations

from torch import Tensor, nn

_BLACK, _SPAN = 16 / 255, 219 / 255


class StudioLuma(nn.Module):
    """A network on luma from 16/255 to 235/255, as one on luma from 0 to 1."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, luma: Tensor) -> Tensor:
        """(N, 1, H, W) in [0, 1] → (N, 1, sH, sW)."""
        out: Tensor = (self.net(luma * _SPAN + _BLACK) - _BLACK) / _SPAN
        return out
