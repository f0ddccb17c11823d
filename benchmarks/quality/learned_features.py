"""A perceptual distance whose features are learned from photos: "feature distance" in the tables.

    python benchmarks/quality/learned_features.py --data DATA

It is not LPIPS: nobody was asked what looks alike, and its network has seen three dozen photos
instead of a million labelled ones. What it shares with LPIPS (Zhang et al., "The unreasonable
effectiveness of deep features as a perceptual metric", 2018) is the form: activations of a
convolutional network at three depths, scaled to unit length at each place, and the mean squared
difference, summed over the depths. So it compares edges and textures by kind, less by strength.

The filters are the centres of k-means over whitened patches, layer after layer (Coates, Lee and Ng,
"An analysis of single-layer networks in unsupervised feature learning", 2011), of photos that may
train models, none of them held back. Everything follows from the seed; `feature_filters.npz` keeps
the filters that the results were measured with.
"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

FILTERS = Path(__file__).with_name("feature_filters.npz")
_SEED = 4
_SIDES = (5, 3, 3)
_COUNTS = (32, 48, 64)
_PATCHES = 30_000
_ROUNDS = 15
_CROPS, _CROP = 4, 192
Frame = NDArray[np.uint8]


class FeatureDistance:
    """The distance of frames to one truth, which is looked at once.

    Args:
        truth: uint8 RGB (H, W, 3), at least 32 pixels on each side.
    """

    def __init__(self, truth: Frame) -> None:
        self._truth = _activations(truth)

    def __call__(self, made: Frame) -> float:
        """Times 100, from 0 for the truth itself."""
        layers = zip(_activations(made), self._truth, strict=True)
        return 1e2 * sum(float((a - b).square().sum(1).mean()) for a, b in layers)


@torch.inference_mode()
def _activations(frame: Frame) -> list[Tensor]:
    x = _planes(frame)
    found = []
    for filters, bias in _filters():
        x = _layer(x, filters, bias)
        found.append(x / (x.square().sum(1, keepdim=True).sqrt() + 0.05))
        x = F.avg_pool2d(x, 2)
    return found


def _layer(x: Tensor, filters: Tensor, bias: Tensor) -> Tensor:
    """Soft activations around a threshold, of half as many pixels where the patch is large."""
    side = filters.shape[-1]
    return F.relu(F.conv2d(x, filters, bias, stride=2 if side == 5 else 1))


def _planes(frame: Frame) -> Tensor:
    """Luma and two differences of colours, (1, 3, H, W)."""
    rgb = torch.tensor(np.ascontiguousarray(frame)).permute(2, 0, 1)[None].float() / 255
    luma = (rgb * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    return torch.cat([luma, 0.5 * (rgb[:, 2:] - luma), 0.5 * (rgb[:, :1] - luma)], 1)


@functools.cache
def _filters() -> list[tuple[Tensor, Tensor]]:
    with np.load(FILTERS, allow_pickle=False) as stored:
        return [
            (
                torch.from_numpy(stored[f"filters{n}"].astype(np.float32)),
                torch.from_numpy(stored[f"bias{n}"].astype(np.float32)),
            )
            for n in range(len(_SIDES))
        ]


# Learning


def learn(photos: list[Frame]) -> dict[str, NDArray[np.float16]]:
    """Filters and biases of all layers, from pictures of at least 192x192."""
    generator = torch.Generator().manual_seed(_SEED)
    maps = [_planes(crop) for photo in photos for crop in _crops(photo, generator)]
    made: dict[str, NDArray[np.float16]] = {}
    for n, (side, count) in enumerate(zip(_SIDES, _COUNTS, strict=True)):
        patches = _patches(maps, side, generator)
        if n == 0:
            # Brightness alone is no texture: the luma of a patch counts against its mean.
            patches[:, : side**2] -= patches[:, : side**2].mean(1, keepdim=True)
        filters, bias = _centres(patches, count, generator)
        if n == 0:
            filters[:, : side**2] -= filters[:, : side**2].mean(1, keepdim=True)
        weight = filters.view(count, maps[0].shape[1], side, side)
        # What is stored in halves is what the next layer sees.
        made[f"filters{n}"] = weight.half().numpy()
        made[f"bias{n}"] = bias.half().numpy()
        weight, bias = weight.half().float(), bias.half().float()
        maps = [F.avg_pool2d(_layer(x, weight, bias), 2) for x in maps]
    return made


def _crops(photo: Frame, generator: torch.Generator) -> list[Frame]:
    height, width = photo.shape[:2]
    crops = []
    for _ in range(_CROPS):
        y = int(torch.randint(height - _CROP + 1, (1,), generator=generator))
        x = int(torch.randint(width - _CROP + 1, (1,), generator=generator))
        crops.append(photo[y : y + _CROP, x : x + _CROP])
    return crops


def _patches(maps: list[Tensor], side: int, generator: torch.Generator) -> Tensor:
    each = -(-_PATCHES // len(maps))
    found = []
    for x in maps:
        columns = F.unfold(x, side)[0].T
        found.append(columns[torch.randint(len(columns), (each,), generator=generator)])
    patches = torch.cat(found)
    # Flat patches would fill centres with noise.
    spread = patches.std(1)
    return patches[spread >= spread.quantile(0.25)]


def _centres(patches: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Filters and biases such that relu(filters x + bias) fires for a patch near a centre.

    Spherical k-means over whitened patches; a filter is a centre seen through the whitening. The
    bias subtracts the mean, and half a deviation as a threshold.
    """
    mean = patches.mean(0)
    centred = (patches - mean).double()
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    noise = 0.01 * values.max()
    whitening = (vectors / (values + noise).sqrt()) @ vectors.T
    points = F.normalize(centred @ whitening, dim=1)
    centres = points[torch.randperm(len(points), generator=generator)[:count]]
    for _ in range(_ROUNDS):
        nearest = (points @ centres.T).argmax(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        empty = sums.norm(dim=1) == 0
        centres = F.normalize(torch.where(empty[:, None], centres, sums), dim=1)
    filters = centres @ whitening
    answers = centred @ filters.T
    filters = filters / answers.std(0)[:, None]
    bias = -(filters @ mean.double()) - 0.5
    return filters.float(), bias.float()


def main() -> None:
    """Learns the filters from the photos that may train, and stores them."""
    from fastvid_export.training import material

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=FILTERS)
    options = parser.parse_args()
    pictures = []
    for path in material.photos(options.data, held_back=False):
        photo = material.load_photo(path)
        pictures.append(np.asarray(material.reduce(photo, photo.width / 1280)))
        print(path.stem, flush=True)
    np.savez_compressed(options.out, **learn(pictures))
    print(f"wrote {options.out.name}, {options.out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
