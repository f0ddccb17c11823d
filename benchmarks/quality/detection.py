"""What a clip of one moving shape shows, found by classical means: colour, shape and direction.

Nothing here knows how the clips were drawn. The backdrop is fitted to the border of each frame,
what differs from it is the object, and colour, outline and track of it are named by rules:

- colour by hue, saturation and value, as colour names are used in English;
- shape by holes, by solidity (area over that of the convex hull), by the rays of its outline, and
  by how much of the smallest circle, triangle and rectangle around it is filled;
- direction by where the centre goes from the first to the last frames.
"""

from __future__ import annotations

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


@dataclass(frozen=True)
class Seen:
    """What one frame shows."""

    colour: str
    shape: str
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
    # An outline is clearest where the object is largest.
    largest = sorted(sights, key=lambda sight: -sight.area)[: max(3, len(sights) * 2 // 3)]
    shape = Counter(sight.shape for sight in largest).most_common(1)[0][0]
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
        shape_name(mask),
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


def shape_name(mask: NDArray[np.uint8]) -> str:
    """circle, square, triangle, star, ring or cross, for a mask of one object."""
    contours, hierarchy = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    outer = max(contours, key=cv2.contourArea)
    area = cv2.contourArea(outer)
    holes = [
        cv2.contourArea(contour)
        for contour, link in zip(contours, hierarchy[0], strict=True)
        if link[3] >= 0
    ]
    if holes and max(holes) > 0.06 * area:
        return "ring"
    hull = cv2.contourArea(cv2.convexHull(outer))
    solidity = area / max(hull, 1.0)
    (_, (w, h), _) = cv2.minAreaRect(outer)
    filled = area / max(w * h, 1.0)
    (_, radius) = cv2.minEnclosingCircle(outer)
    roundness = area / (math.pi * max(radius, 1.0) ** 2)
    if solidity < 0.86:
        return "star" if _rays(outer, 5) > _rays(outer, 4) else "cross"
    if roundness > 0.82:
        return "circle"
    triangle, _ = cv2.minEnclosingTriangle(outer)
    if area / max(triangle, 1.0) > 0.78 or filled < 0.66:
        return "triangle"
    return "square"


def _rays(contour: NDArray[np.int32], count: int) -> float:
    """How much the distance of an outline from its centre swings `count` times around it."""
    points = contour[:, 0].astype(np.float64)
    moments = cv2.moments(contour)
    centre = np.array([moments["m10"], moments["m01"]]) / max(moments["m00"], 1.0)
    away = points - centre
    angle, distance = np.arctan2(away[:, 1], away[:, 0]), np.hypot(*away.T)
    grid = np.linspace(-math.pi, math.pi, 256, endpoint=False)
    order = np.argsort(angle)
    swing = np.interp(grid, angle[order], distance[order], period=2 * math.pi)
    return float(abs(np.fft.rfft(swing)[count]))


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
