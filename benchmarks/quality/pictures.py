"""Held-back pictures and short clips that upscalers are measured on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import protocol
from numpy.typing import NDArray
from PIL import Image

from fastvid_export.training import material
from fastvid_export.training.bank import ArrayBank, open_or_build
from fastvid_export.training.degradations import through_h264
from fastvid_export.training.upscaling import held_back_pictures

Frame = NDArray[np.uint8]
FRAMES = 6
"""Consecutive frames of each clip."""
RATE_FACTOR = 28
_FIRST = 20
_SIDE = 24
"""Sides are multiples: of every scale, and even after it, which H.264 needs."""


def still(data: Path, cache: Path) -> Iterator[tuple[str, Frame]]:
    """Pictures `photo:...` and `clip:...`."""
    bank = held_back_pictures(data, cache)
    for name in sorted(bank):
        yield name, np.array(bank[name])


def moving(
    data: Path, cache: Path, scale: int, kind: str
) -> Iterator[tuple[list[Frame], list[Frame]]]:
    """Clips at full size and reduced; `kind` is `clean`, or `compressed` after reduction."""
    bank = _bank(data, cache)
    for name in sorted(bank):
        truths = list(np.array(bank[name]))
        small = [protocol.reduced(frame, scale) for frame in truths]
        yield truths, through_h264(small, RATE_FACTOR) if kind == "compressed" else small


def _bank(data: Path, cache: Path) -> ArrayBank:
    clips = material.clips(data, held_back=True)
    recipe: dict[str, object] = {"files": [p.name for p in clips], "frames": FRAMES, "version": 1}
    return open_or_build(cache / "moving", recipe, _frames(clips))


def _frames(clips: list[Path]) -> Iterator[tuple[str, Frame]]:
    for path in clips:
        frames = []
        for frame in material.read_frames(path, start=_FIRST, count=FRAMES):
            # As the pictures are made: smaller by so much that what the codec did is gone.
            image = material.reduce(Image.fromarray(frame), max(1.5, frame.shape[1] / 640))
            width, height = (side - side % _SIDE for side in image.size)
            frames.append(np.asarray(image.crop((0, 0, width, height))))
        yield path.stem, np.stack(frames)
