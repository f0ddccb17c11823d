"""Features of clips from a fixed network, and what distances between sets of them say.

The network is never trained: layers of random filters, drawn from a seed, still separate textures,
edges and motion, and everybody who has the seed has the same network (Saxe et al., On random
weights and unsupervised feature learning, 2011). So its Fréchet distances compare only with each
other, and stand beside the distance between two sets of real clips.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

_SEED = 20240
_WIDTHS = (3, 24, 48, 64)


def features(clips: list[NDArray[np.uint8]]) -> NDArray[np.float64]:
    """Mean and deviation of the last channels over each clip uint8 (T, H, W, 3): (clips, 128)."""
    generator = torch.Generator().manual_seed(_SEED)
    filters = []
    for before, after in itertools.pairwise(_WIDTHS):
        weight = torch.randn(after, before, 3, 3, 3, generator=generator)
        # A filter that answers to flat colour would see little else.
        flat = weight.mean((2, 3, 4), keepdim=True)
        filters.append((weight - 0.8 * flat) / (before * 27) ** 0.5)
    rows = []
    with torch.no_grad():
        for clip in clips:
            x = torch.from_numpy(clip).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
            for weight in filters:
                x = F.avg_pool3d(F.relu(F.conv3d(x, weight, padding=1)), (1, 2, 2)) * 2**0.5
            flat = x[0].flatten(1)
            rows.append(torch.cat([flat.mean(1), flat.std(1)]).double().numpy())
    return np.stack(rows)


def frechet_distance(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Between the Gaussians that fit two sets of rows: |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)).

    Dowson and Landau, 1982; Heusel et al., 2017.
    """
    apart = first.mean(0) - second.mean(0)
    one, two = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    # The eigenvalues of C1 C2 are those of the symmetric C1^(1/2) C2 C1^(1/2).
    values, vectors = np.linalg.eigh(one)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    mixed = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ two @ root), 0)).sum()
    return float(apart @ apart + np.trace(one) + np.trace(two) - 2 * mixed)


def diversity(rows: NDArray[np.float64]) -> float:
    """Mean distance between two different rows."""
    apart = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    count = len(rows)
    return float(apart.sum() / (count * (count - 1)))
