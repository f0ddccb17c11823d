"""Does a clip show what was asked for? Classical detection of one shape over a plain backdrop.

Only for watching a training: it reads pixels, and shares neither colours nor shapes with the code
that draws the world.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

_DIFFERENT = 45
"""Levels between a pixel and the backdrop, in the channel that differs most."""
_LEAST_PIXELS = 10
_LEAST_WAY = 0.06
"""Of the frame's side: less is standing still."""
_SIDE = 24
_HUES = (
    ("red", 0.0, 14.0), ("orange", 14.0, 40.0), ("yellow", 40.0, 66.0), ("green", 66.0, 175.0),
    ("blue", 175.0, 256.0), ("purple", 256.0, 335.0), ("red", 335.0, 360.1),
)  # fmt: skip


@dataclass(frozen=True)
class Observation:
    """What was seen; empty strings where nothing was."""

    colour: str = ""
    shape: str = ""
    direction: str = ""
    """`left`, `right`, `up`, `down` or `none`."""


def observe(frames: NDArray[np.uint8]) -> Observation:
    """Looks at a clip of one shape over a plain backdrop.

    Args:
        frames: uint8 (T, H, W, 3).
    """
    pixels = frames.astype(np.int16)
    border = np.concatenate([pixels[:, 0], pixels[:, -1], pixels[:, :, 0], pixels[:, :, -1]], 1)
    backdrop = np.median(border.reshape(-1, 3), axis=0)
    masks = np.abs(pixels - backdrop).max(-1) > _DIFFERENT
    areas = masks.sum((1, 2))
    seen = np.flatnonzero(areas >= _LEAST_PIXELS)
    if len(seen) < 2:
        return Observation()
    inside = pixels[seen][_core(masks[seen])]
    best = int(seen[np.argmax(areas[seen] - 1e6 * _cut(masks[seen]))])
    return Observation(
        _colour(np.median(inside, axis=0)), _shape(masks[best]), _direction(masks[seen])
    )


def _core(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Masks without their edge pixels, where anything is left of them."""
    core = masks.copy()
    core[:, 1:] &= masks[:, :-1]
    core[:, :-1] &= masks[:, 1:]
    core[:, :, 1:] &= masks[:, :, :-1]
    core[:, :, :-1] &= masks[:, :, 1:]
    return core if core.any() else masks


def _cut(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether each mask touches the frame's border."""
    edges = (masks[:, 0], masks[:, -1], masks[:, :, 0], masks[:, :, -1])
    touched: NDArray[np.bool_] = np.stack([edge.any(1) for edge in edges]).any(0)
    return touched


def _colour(rgb: NDArray[np.float64]) -> str:
    hue, saturation, value = colorsys.rgb_to_hsv(*(float(c) / 255.0 for c in rgb))
    if value < 0.32:
        return "black"
    if saturation < 0.22:
        return "white" if value > 0.75 else "grey"
    return next(name for name, low, high in _HUES if low <= hue * 360.0 < high)


def _direction(masks: NDArray[np.bool_]) -> str:
    side = masks.shape[1]
    centres = np.array([np.argwhere(mask).mean(0) for mask in masks])
    some = max(1, len(centres) // 4)
    dy, dx = (centres[-some:].mean(0) - centres[:some].mean(0)) / side
    if math.hypot(dx, dy) < _LEAST_WAY:
        return "none"
    if abs(dx) > abs(dy):
        return "right" if dx > 0 else "left"
    return "down" if dy > 0 else "up"


def _shape(mask: NDArray[np.bool_]) -> str:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    cut = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    image = Image.fromarray(cut.astype(np.uint8) * 255).resize((_SIDE, _SIDE))
    own = np.asarray(image, np.float64) / 255.0

    def overlap(other: NDArray[np.float64]) -> float:
        return float(np.minimum(own, other).sum() / np.maximum(own, other).sum())

    return max(_TEMPLATES, key=lambda name: overlap(_TEMPLATES[name]))


def _templates() -> dict[str, NDArray[np.float64]]:
    def star(count: int, outer: float, inner: float) -> list[tuple[float, float]]:
        return [
            (r * math.sin(math.pi * i / count), -r * math.cos(math.pi * i / count))
            for i in range(2 * count)
            for r in [outer if i % 2 == 0 else inner]
        ]

    a = 1 / 3
    polygons = {
        "square": [(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)],
        "triangle": [(0.0, -1.0), (1.0, 1.0), (-1.0, 1.0)],
        "star": star(5, 1.0, 0.42),
        "cross": [
            (-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a),
            (a, 1), (-a, 1), (-a, a), (-1, a), (-1, -a), (-a, -a),
        ],
        "circle": star(32, 1.0, 1.0),
        "ring": star(32, 1.0, 1.0),
    }  # fmt: skip
    made = {}
    for name, points in polygons.items():
        corners = np.array(points)
        low, high = corners.min(0), corners.max(0)
        scaled = (corners - low) / (high - low) * (8 * _SIDE - 1)
        image = Image.new("L", (8 * _SIDE, 8 * _SIDE))
        draw = ImageDraw.Draw(image)
        draw.polygon([tuple(p) for p in scaled.tolist()], fill=255)
        if name == "ring":
            draw.ellipse([2.1 * _SIDE, 2.1 * _SIDE, 5.9 * _SIDE, 5.9 * _SIDE], fill=0)
        made[name] = np.asarray(image.resize((_SIDE, _SIDE)), np.float64) / 255.0
    return made


_TEMPLATES = _templates()
