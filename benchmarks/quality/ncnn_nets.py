"""Upscalers that were published for ncnn: run by ncnn, and read as modules of PyTorch.

A `.param` file lists layers, one a line: kind, name, counts of inputs and outputs, their names, and
`key=value` settings. The `.bin` file holds their weights in order; a weight is preceded by four
bytes that say whether it is in halves. Only the layers of the two networks here are known.
https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

Frame = NDArray[np.uint8]
_HALVES = 0x01306B47
_LEAKY = 2


@dataclass(frozen=True)
class Layer:
    """One line of a `.param` file."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    settings: dict[int, str]

    def get(self, key: int, default: int) -> int:
        """A whole setting."""
        return int(float(self.settings.get(key, default)))


def layers(path: Path) -> list[Layer]:
    """Of a `.param` file."""
    found = []
    for line in path.read_text().splitlines()[2:]:
        kind, _, inputs, outputs, *rest = line.split()
        cut = int(inputs), int(inputs) + int(outputs)
        settings = dict(word.split("=", 1) for word in rest[cut[1] :])
        found.append(
            Layer(
                kind,
                tuple(rest[: cut[0]]),
                tuple(rest[cut[0] : cut[1]]),
                {int(k): v for k, v in settings.items()},
            )
        )
    return found


class NcnnNet(nn.Module):
    """A network of ncnn in PyTorch: planes (1, 3, H, W) in [0, 1] to larger ones.

    Args:
        param: The `.param` file; the `.bin` file lies beside it.
        margin: Pixels that the network eats on each side of its input, made up by repeating.
    """

    def __init__(self, param: Path, margin: int = 0) -> None:
        super().__init__()
        self.layers, self.margin = layers(param), margin
        weights = _Weights(param.with_suffix(".bin"))
        self.parts = nn.ModuleList(_module(layer, weights) for layer in self.layers)
        weights.require_end()

    def forward(self, planes: Tensor) -> Tensor:
        """See the class."""
        known = {self.layers[0].outputs[0]: F.pad(planes, (self.margin,) * 4, mode="replicate")}
        for layer, part in zip(self.layers, self.parts, strict=True):
            if layer.kind == "Input":
                continue
            made = part(*(known[name] for name in layer.inputs))
            known |= dict.fromkeys(layer.outputs, made)
        return known[self.layers[-1].outputs[0]]


class _Weights:
    def __init__(self, path: Path) -> None:
        self._data, self._at = path.read_bytes(), 0

    def flagged(self, count: int) -> Tensor:
        """Numbers after four bytes that say their kind."""
        flag = int(self.plain(1, np.uint32)[0])
        if flag not in (0, _HALVES):
            raise ValueError(f"weights of ncnn must be floats or halves, got flag {flag:#x}")
        if not flag:
            return torch.from_numpy(self.plain(count, np.float32).copy())
        found = self.plain(count, np.float16).astype(np.float32)
        self._at += -self._at % 4
        return torch.from_numpy(found)

    def plain(self, count: int, dtype: type) -> NDArray[np.generic]:
        found = np.frombuffer(self._data, dtype, count, self._at)
        self._at += found.nbytes
        return found

    def require_end(self) -> None:
        if self._at != len(self._data):
            raise ValueError(f"weights of ncnn: {len(self._data) - self._at} bytes are left over")


def _module(layer: Layer, weights: _Weights) -> nn.Module:
    made: nn.Module
    if layer.kind in ("Convolution", "Deconvolution"):
        made = _convolution(layer, weights)
    elif layer.kind == "PReLU":
        count = layer.get(0, 0)
        made = nn.PReLU(count)
        made.weight.data = torch.from_numpy(weights.plain(count, np.float32).copy())
    elif layer.kind == "PixelShuffle":
        made = nn.PixelShuffle(layer.get(0, 1))
    elif layer.kind == "Interp":
        mode = {1: "nearest", 3: "bicubic"}[layer.get(0, 0)]
        made = nn.Upsample(scale_factor=float(layer.settings[1]), mode=mode)
    elif layer.kind == "BinaryOp" and layer.get(0, 0) == 0:
        made = _Sum()
    elif layer.kind in ("Input", "Split"):
        made = nn.Identity()
    else:
        raise ValueError(f"ncnn: layer {layer.kind} is not known here")
    return made.requires_grad_(False)


class _Sum(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


def _convolution(layer: Layer, weights: _Weights) -> nn.Module:
    outputs, side = layer.get(0, 0), layer.get(1, 1)
    stride, padding, count = layer.get(3, 1), layer.get(4, 0), layer.get(6, 0)
    inputs = count // (outputs * side**2)
    weight = weights.flagged(count).view(outputs, inputs, side, side)
    made: nn.Conv2d | nn.ConvTranspose2d
    if layer.kind == "Convolution":
        made = nn.Conv2d(inputs, outputs, side, stride, padding)
    else:
        made = nn.ConvTranspose2d(inputs, outputs, side, stride, padding)
        weight = weight.transpose(0, 1).contiguous()
    made.weight.data = weight
    assert made.bias is not None
    made.bias.data = torch.from_numpy(weights.plain(outputs, np.float32).copy())
    if layer.get(9, 0) == _LEAKY:
        return nn.Sequential(made, nn.LeakyReLU(float(layer.settings[-23310].split(",")[1])))
    return made


def through_ncnn(param: Path, margin: int, threads: int) -> Callable[[Frame], Frame]:
    """Frames to frames by ncnn itself."""
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    net.load_param(str(param))
    net.load_model(str(param.with_suffix(".bin")))
    listed = layers(param)
    source, result = listed[0].outputs[0], listed[-1].outputs[0]

    def enlarge(frame: Frame) -> Frame:
        padded = np.pad(frame, ((margin, margin), (margin, margin), (0, 0)), "edge")
        height, width = padded.shape[:2]
        pixels = np.ascontiguousarray(padded)
        planes = ncnn.Mat.from_pixels(pixels, ncnn.Mat.PixelType.PIXEL_RGB, width, height)
        planes.substract_mean_normalize([], [1 / 255] * 3)
        extractor = net.create_extractor()
        extractor.input(source, planes)
        _, made = extractor.extract(result)
        levels = np.asarray(made) * np.float32(255) + np.float32(0.5)
        return np.ascontiguousarray(np.clip(levels, 0, 255).astype(np.uint8).transpose(1, 2, 0))

    return enlarge
