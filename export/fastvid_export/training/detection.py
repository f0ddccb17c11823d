"""What a clip of one moving shape shows, found by classical means: colour, shape and direction.

Nothing here knows how the clips were drawn. The backdrop is fitted to the border of each frame,
what differs from it is the object, and colour, outline and track of it are named by rules:

- colour by hue, saturation and value, as colour names are used in English;
- shape by how much of it lies on a circle, square, triangle, star, ring or cross of the same area,
  at the best of many angles and proportions, in the clearest third of the frames;
- direction by where the centre goes from the first to the last frames.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]
Array = NDArray[np.float64]

# Side of the pictures that outlines are measured on; small ones are enlarged to it.
_SIDE = 256
# Distance of colours (CIE Lab, 1976) from which a pixel is not of the backdrop.
_DIFFERENT = 14.0
# An object smaller than this share of the frame is taken for an artefact.
_LEAST_AREA = 0.004
# Side of the pictures that shapes are compared on, and the area all have there.
_CANVAS = 48
_AREA = 400.0

SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")


@dataclass(frozen=True)
class Seen:
    """What one frame shows."""

    colour: str
    likeness: dict[str, float]
    """To each shape: overlap over union with it, at most 1."""
    centre: tuple[float, float]
    """x and y in sides of the frame."""
    area: float
    """Share of the frame."""


@dataclass(frozen=True)
class Found:
    """What a clip shows; None where it could not be told."""

    colour: str | None
    shape: str | None
    direction: str | None
    """left, right, up, down, or still."""
    growth: float | None
    """Area at the end over that at the start."""
    seen: int
    """Frames in which an object was found."""


def detect(frames: Frames) -> Found:
    """Names what a clip uint8 (T, H, W, 3) shows."""
    sights = [sight for frame in frames if (sight := look(frame)) is not None]
    if len(sights) < max(2, len(frames) // 2):
        return Found(None, None, None, None, len(sights))
    colour = Counter(sight.colour for sight in sights).most_common(1)[0][0]
    # The frames that are most like any shape show it most clearly; motion and codecs blur others.
    clearest = sorted(sights, key=lambda sight: -max(sight.likeness.values()))[: len(sights) // 3]
    shape = max(SHAPES, key=lambda name: sum(sight.likeness[name] for sight in clearest))
    few = max(1, len(sights) // 6)
    start, end = sights[:few], sights[-few:]
    growth = float(np.mean([s.area for s in end]) / np.mean([s.area for s in start]))
    return Found(colour, shape, _direction(sights), growth, len(sights))


def look(frame: Frames) -> Seen | None:
    """Names what one frame uint8 (H, W, 3) shows, None where it shows nothing but a backdrop."""
    scale = _SIDE / max(frame.shape[:2])
    large = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    lab = cv2.cvtColor(large.astype(np.float32) / 255, cv2.COLOR_RGB2Lab).astype(np.float64)
    distance = np.linalg.norm(lab - _backdrop(lab), axis=2)
    mask = _largest_part(distance)
    if mask is None:
        return None
    core = cv2.erode(mask, np.ones((5, 5), np.uint8))
    inner = large[(core if core.any() else mask) > 0]
    ys, xs = np.nonzero(mask)
    height, width = mask.shape
    return Seen(
        colour_name(np.median(inner, axis=0)),
        likeness(mask),
        (float(xs.mean()) / width, float(ys.mean()) / height),
        float(len(xs)) / mask.size,
    )


def _backdrop(lab: Array) -> Array:
    """A plane through the colours of the border, by least squares that disregards outliers."""
    height, width = lab.shape[:2]
    y, x = np.mgrid[0:height, 0:width]
    basis = np.stack([np.ones_like(x), x / width - 0.5, y / height - 0.5], -1).astype(np.float64)
    rim = max(2, height // 24)
    border = np.ones((height, width), bool)
    border[rim:-rim, rim:-rim] = False
    points, colours = basis[border], lab[border]
    weights = np.ones(len(points))
    for _ in range(12):
        root = np.sqrt(weights)[:, None]
        plane, *_ = np.linalg.lstsq(points * root, colours * root, rcond=None)
        away = np.linalg.norm(colours - points @ plane, axis=1)
        weights = 1.0 / (1.0 + (away / 4.0) ** 2) ** 2
    return basis @ plane


def _largest_part(distance: Array) -> NDArray[np.uint8] | None:
    """The largest connected part that differs, cut half way between backdrop and object."""
    rough = (distance > _DIFFERENT).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(rough)
    if count < 2:
        return None
    part = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    inside = labels == part
    if inside.sum() < _LEAST_AREA * distance.size:
        return None
    # The edge of an object is a blend; where it is half the object is where its outline runs.
    half = 0.5 * float(np.percentile(distance[inside], 75))
    return (inside & (distance > max(half, _DIFFERENT))).astype(np.uint8)


def colour_name(rgb: Array) -> str:
    """One of eight English colour names, for sRGB from 0 to 255."""
    red, green, blue = (float(v) / 255 for v in rgb)
    value, low = max(red, green, blue), min(red, green, blue)
    saturation = 0.0 if value == 0 else (value - low) / value
    if value < 0.22 or (value < 0.3 and saturation < 0.5):
        return "black"
    if saturation < 0.2:
        return "white" if value > 0.6 else "grey"
    span = value - low
    if value == red:
        hue = 60 * ((green - blue) / span % 6)
    elif value == green:
        hue = 60 * ((blue - red) / span + 2)
    else:
        hue = 60 * ((red - green) / span + 4)
    bounds = ((14, "red"), (40, "orange"), (70, "yellow"), (170, "green"), (252, "blue"))
    for bound, name in bounds:
        if hue < bound:
            return name
    return "purple" if hue < 330 else "red"


def likeness(mask: NDArray[np.uint8]) -> dict[str, float]:
    """Overlap over union of a mask with each shape of its area and centre, turned to fit."""
    moments = cv2.moments(mask, binaryImage=True)
    area = max(moments["m00"], 1.0)
    scale = _AREA**0.5 / area**0.5
    centre = np.array([moments["m10"], moments["m01"]]) / area
    middle = (_CANVAS - 1) / 2
    move = np.array(
        [[scale, 0.0, middle - scale * centre[0]], [0.0, scale, middle - scale * centre[1]]]
    )
    fitted = cv2.warpAffine(
        mask.astype(np.float32), move, (_CANVAS, _CANVAS), flags=cv2.INTER_AREA
    ).ravel()
    found = {}
    for name, patterns in _patterns().items():
        both = np.minimum(patterns, fitted).sum(1)
        either = np.maximum(patterns, fitted).sum(1)
        found[name] = float((both / either).max())
    return found


@functools.cache
def _patterns() -> dict[str, NDArray[np.float32]]:
    """Each shape at many angles and proportions, one per row, drawn with `_AREA`."""
    return {
        "circle": np.stack([_draw([_polygon(64)], 0.0)]),
        "ring": np.stack([_draw([_polygon(64), _polygon(64, r)], 0.0) for r in (0.45, 0.55, 0.65)]),
        "square": _turned([[_polygon(4)]], 90),
        "triangle": _turned([[_polygon(3)]], 120),
        "star": _turned([[_rays(5, inner)] for inner in (0.38, 0.45, 0.52)], 72),
        "cross": _turned([[_cross(width)] for width in (0.26, 0.33, 0.4)], 90),
    }


def _turned(outlines: list[list[Array]], period: int) -> NDArray[np.float32]:
    """Outlines at angles 5 degrees apart, over the period after which they repeat."""
    return np.stack([_draw(o, math.radians(a)) for o in outlines for a in range(0, period, 5)])


def _polygon(count: int, radius: float = 1.0) -> Array:
    angle = 2 * math.pi * np.arange(count) / count
    return radius * np.stack([np.cos(angle), np.sin(angle)], 1)


def _rays(count: int, inner: float) -> Array:
    angle = math.pi * np.arange(2 * count) / count
    radius = np.where(np.arange(2 * count) % 2, inner, 1.0)[:, None]
    return radius * np.stack([np.cos(angle), np.sin(angle)], 1)


def _cross(width: float) -> Array:
    arm = np.array([[1.0, -width], [1.0, width], [width, width]])
    turn = np.array([[0.0, 1.0], [-1.0, 0.0]])
    return np.concatenate([arm @ np.linalg.matrix_power(turn, k) for k in range(4)])


def _draw(outlines: list[Array], angle: float) -> NDArray[np.float32]:
    """An outline, less those that follow it, turned about its centroid and scaled to `_AREA`."""
    fine = 8
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    areas = [cv2.contourArea(o.astype(np.float32)) for o in outlines]
    scale = (_AREA / (areas[0] - sum(areas[1:]))) ** 0.5
    canvas = np.zeros((fine * _CANVAS, fine * _CANVAS), np.float32)
    for i, outline in enumerate(outlines):
        corners = (scale * outline @ turn + _CANVAS / 2) * fine - 0.5
        cv2.fillPoly(canvas, [np.rint(corners).astype(np.int32)], float(i == 0))
    return cv2.resize(canvas, (_CANVAS, _CANVAS), interpolation=cv2.INTER_AREA).ravel()


def _direction(sights: list[Seen]) -> str:
    few = max(1, len(sights) // 6)
    start = np.mean([s.centre for s in sights[:few]], axis=0)
    end = np.mean([s.centre for s in sights[-few:]], axis=0)
    dx, dy = (end - start).tolist()
    if max(abs(dx), abs(dy)) < 0.07:
        return "still"
    if abs(dx) > abs(dy):
        return "right" if dx > 0 else "left"
    return "down" if dy > 0 else "up"
