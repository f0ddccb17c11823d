"""Losses and quality figures; images are float tensors (N, C, H, W) with values in [0, 1]."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def charbonnier(prediction: Tensor, target: Tensor, *, epsilon: float = 1e-3) -> Tensor:
    """Mean of sqrt(difference² + epsilon²): L1 with a smooth foot."""
    return torch.sqrt((prediction - target).square() + epsilon * epsilon).mean()


def laplacian_pyramid_l1(prediction: Tensor, target: Tensor, *, levels: int = 5) -> Tensor:
    """L1 over the bands of a Laplacian pyramid, level k weighted by 2^k.

    Args:
        prediction: (N, C, H, W); H and W at least 2^levels.
        target: The same.
        levels: Number of bands, the last one being the low-pass rest.
    """
    total = prediction.new_zeros(())
    rest = prediction - target  # the pyramid is linear: one pyramid of the difference does
    for level in range(levels - 1):
        low = F.avg_pool2d(_blur(rest), 2)
        up = F.interpolate(low, size=rest.shape[-2:], mode="bilinear", align_corners=False)
        total = total + 2.0**level * (rest - up).abs().mean()
        rest = low
    return total + 2.0 ** (levels - 1) * rest.abs().mean()


def _blur(image: Tensor) -> Tensor:
    taps = image.new_tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16.0
    channels = image.shape[1]
    kernel = (taps[:, None] * taps[None, :]).expand(channels, 1, 5, 5)
    return F.conv2d(F.pad(image, (2, 2, 2, 2), mode="reflect"), kernel, groups=channels)


def census(prediction: Tensor, target: Tensor, *, radius: int = 3) -> Tensor:
    """Soft Hamming distance of census transforms of the grey images: structure, not brightness."""
    return _soft_hamming(_census_transform(prediction, radius), _census_transform(target, radius))


def _census_transform(image: Tensor, radius: int) -> Tensor:
    grey = image.mean(1, keepdim=True) * 255.0
    size = 2 * radius + 1
    patches = F.unfold(F.pad(grey, (radius,) * 4, mode="reflect"), size)
    patches = patches.view(grey.shape[0], size * size, *grey.shape[-2:])
    difference = patches - grey
    return difference / torch.sqrt(0.81 + difference.square())


def _soft_hamming(a: Tensor, b: Tensor) -> Tensor:
    squared = (a - b).square()
    return (squared / (0.1 + squared)).mean()


def psnr(prediction: Tensor, target: Tensor, *, border: int = 0) -> float:
    """Peak signal-to-noise ratio in dB over all values, peak 1, `border` pixels left out."""
    if border:
        inner = (..., slice(border, -border), slice(border, -border))
        prediction, target = prediction[inner], target[inner]
    mse = float((prediction.double() - target.double()).square().mean())
    return 10.0 * math.log10(1.0 / max(mse, 1e-12))


def mean_square_unknown(difference: Tensor, known: Tensor) -> Tensor:
    """Mean square of what is not given away: (N, C, T, h, w), where `known` (N, T) is not 1."""
    unknown = (1.0 - known)[:, None, :, None, None].expand_as(difference)
    return (difference.square() * unknown).sum() / unknown.sum()
