"""Contact sheets: what a validation looked like, as one PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor


def save_sheet(rows: Sequence[Sequence[Tensor]], path: Path, *, side: int | None = None) -> None:
    """Writes a grid of images.

    Args:
        rows: Each a sequence of (1, C, H, W) tensors in [0, 1], C 1 or 3.
        path: PNG to write; its folder is made.
        side: Show the centre `side` x `side` pixels of each image; None shows all of it.
    """
    bands = [np.concatenate([_tile(image, side) for image in row], axis=1) for row in rows]
    width = max(band.shape[1] for band in bands)
    bands = [np.pad(band, ((0, 4), (0, width - band.shape[1]), (0, 0))) for band in bands]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(bands, axis=0)).save(path)


def _tile(image: Tensor, side: int | None) -> np.ndarray:
    pixels = image[0].detach().float().clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
    if side is not None:
        top, left = (max(0, (length - side) // 2) for length in pixels.shape[:2])
        pixels = pixels[top : top + side, left : left + side]
    pixels = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    return np.pad(pixels, ((0, 0), (0, 4), (0, 0)))
