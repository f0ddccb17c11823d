"""IFNet in PyTorch, frames in to frame out: as RIFE's own scripts compute it, to measure against.

`TorchIFNet("4.6")` is the yardstick of interpolation classes here: its time does not depend on its
weights, which are drawn at random. Warps are grid_sample's, as everybody has them who runs RIFE in
PyTorch or exports it; the grid is kept from call to call.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from fastvid_export.models.ifnet import IFNet
from fastvid_export.models.ifnet_versions import VERSIONS, Version

Frame = NDArray[np.uint8]


def version_of(name: str) -> Version:
    """By one of its names, for example `4.6`."""
    return next(version for version in VERSIONS if name in version.names)


def random_weights(version: Version, seed: int = 0) -> dict[str, Tensor]:
    """Weights that keep the size of what passes through, and give smooth flows of some pixels."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in version.shapes().items():
        value = 2 * torch.rand(shape, generator=generator) - 1
        if name.endswith("beta"):
            state[name] = 1 + 0.3 * value
        elif "lastconv" not in name:
            state[name] = value * (0.1 if value.dim() == 1 else 2.0 / value[0].numel() ** 0.5)
        elif value.dim() == 1:
            # The same in every place of the pixel shuffle.
            state[name] = 0.3 * value.reshape(-1, 4)[:, :1].expand(-1, 4).reshape(-1)
        else:
            state[name] = 0.003 * value
    return state


class SampledIFNet(IFNet):
    """IFNet with grid_sample."""

    def warp(self, image: Tensor, flow: Tensor) -> Tensor:
        """See `IFNet.warp`."""
        height, width = image.shape[2:]
        grid, sides = _grid(height, width)
        at = (grid + flow / sides).permute(0, 2, 3, 1)
        return F.grid_sample(image, at, padding_mode="border", align_corners=True)


@functools.cache
def _grid(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Where pixels are, from -1 to 1, and what a displacement in pixels is divided by."""
    ys, xs = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
    sides = torch.tensor([(width - 1) / 2, (height - 1) / 2]).reshape(1, 2, 1, 1)
    return torch.stack(torch.meshgrid(ys, xs, indexing="ij")[::-1])[None], sides


class FramesToFrame(nn.Module):
    """A network between frames."""

    def __init__(self, net: IFNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, frame0: Tensor, frame1: Tensor, timestep: Tensor) -> Tensor:
        """uint8 (1, H, W, 3) twice, and (1,), to uint8 (1, H, W, 3)."""
        images = [frame.permute(0, 3, 1, 2).float() / 255 for frame in (frame0, frame1)]
        made = self.net(*images, timestep).clamp(0, 1)
        return (made * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


class TorchIFNet:
    """A version in PyTorch; sizes must be multiples of what it takes.

    Args:
        name: Of the version.
        threads: PyTorch's, for the whole process.
        state: Weights; random ones by default.
    """

    def __init__(
        self, name: str = "4.6", *, threads: int = 2, state: dict[str, Tensor] | None = None
    ) -> None:
        torch.set_num_threads(threads)
        version = version_of(name)
        self.multiple_of = version.options.multiple_of
        with torch.device("meta"):
            net = SampledIFNet(version.options)
        net.load_state_dict(state or random_weights(version), assign=True)
        self.module = FramesToFrame(net).eval()

    def between(self, frame0: Frame, frame1: Frame, timestep: float = 0.5) -> Frame:
        """uint8 (H, W, 3) twice to the same."""
        frames = [torch.from_numpy(frame)[None] for frame in (frame0, frame1)]
        with torch.inference_mode():
            made: Frame = self.module(*frames, torch.tensor([timestep]))[0].numpy()
        return made

    def onnx(self, path: Path, height: int, width: int) -> None:
        """The module as PyTorch exports it, with GridSample, for frames of one size."""
        frames = [torch.zeros(1, height, width, 3, dtype=torch.uint8) for _ in range(2)]
        _grid(height, width)
        torch.onnx.export(
            self.module,
            (*frames, torch.tensor([0.5])),
            path,
            input_names=["frame0", "frame1", "timestep"],
            output_names=["frame"],
            opset_version=17,
            dynamo=False,
        )

    def products(self, height: int, width: int) -> int:
        """Multiplications of one frame's convolutions."""
        found = 0

        def count(layer: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
            nonlocal found
            side = given[0] if isinstance(layer, nn.ConvTranspose2d) else made
            found += layer.weight.numel() * side.shape[2] * side.shape[3]

        kinds = nn.Conv2d | nn.ConvTranspose2d
        layers = [layer for layer in self.module.modules() if isinstance(layer, kinds)]
        hooks = [layer.register_forward_hook(count) for layer in layers]
        step = self.multiple_of
        self.between(*(np.zeros((step, step, 3), np.uint8) for _ in range(2)))
        for hook in hooks:
            hook.remove()
        return found * height * width // step**2
