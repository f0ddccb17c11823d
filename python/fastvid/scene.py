"""A drawn scene that moves: a picture for any time, so that restored frames have an exact truth.

A textured background pans and zooms; shapes with patterns, thin spokes, a see-through fence and
lettering move, turn and pass over each other. Everything follows from the seed and the time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvid._font import text_mask
from fastvid._resample import sample_axis, to_uint8
from fastvid.errors import InputError

Grid = NDArray[Any]
"""float32 (h, w): a coordinate or a coverage per sub-pixel."""
Painter = Callable[[Grid, Grid, float], tuple[Grid, Grid]]
"""Coordinates u, v (the shape's radius is 1) and a sub-pixel's size to coverage and a tone 0..1."""

_SUBPIXELS = 2


def _inside(distance: Grid, pixel: float) -> Grid:
    """Coverage of what has negative distance, with an edge one sub-pixel wide."""
    return np.asarray(np.clip(0.5 - distance / pixel, 0.0, 1.0))


def _box(u: Grid, v: Grid, half_width: float, half_height: float) -> Grid:
    return np.maximum(np.abs(u) - half_width, np.abs(v) - half_height)


def _ball(u: Grid, v: Grid, pixel: float) -> tuple[Grid, Grid]:
    sector = np.sin(3 * np.arctan2(v, u)) > 0
    return _inside(np.hypot(u, v) - 1, pixel), np.where(sector, 1.0, 0.1)


def _checker(u: Grid, v: Grid, pixel: float) -> tuple[Grid, Grid]:
    squares = (np.floor(u * 5) + np.floor(v * 5)) % 2
    return _inside(_box(u, v, 0.7, 0.7), pixel), squares


def _flower(u: Grid, v: Grid, pixel: float) -> tuple[Grid, Grid]:
    radius = np.hypot(u, v)
    petals = 0.75 + 0.25 * np.cos(5 * np.arctan2(v, u))
    return _inside(radius - petals, 2 * pixel), np.clip(1 - radius, 0.0, 1.0)


def _wheel(u: Grid, v: Grid, pixel: float) -> tuple[Grid, Grid]:
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    sixth = math.pi / 6
    from_spoke = np.abs((angle + sixth / 2) % sixth - sixth / 2)
    spoke = np.maximum(radius * np.sin(from_spoke) - 0.012, radius - 0.95)
    rim = np.abs(radius - 0.92) - 0.07
    return _inside(np.minimum(spoke, rim), pixel), np.clip(radius, 0.0, 1.0)


def _fence(u: Grid, v: Grid, pixel: float) -> tuple[Grid, Grid]:
    lines = np.minimum(np.abs((u * 6) % 1 - 0.5), np.abs((v * 6) % 1 - 0.5)) / 6 - 0.012
    return _inside(np.maximum(lines, _box(u, v, 0.7, 0.7)), pixel), np.full_like(u, 0.9)


def _pole(u: Grid, v: Grid, pixel: float) -> tuple[Grid, Grid]:
    return _inside(_box(u, v, 0.045, 1.0), pixel), np.floor(v * 12) % 2


def _sign(text: str) -> tuple[Painter, tuple[float, float]]:
    dots = np.pad(text_mask(text), 2)
    aspect = dots.shape[0] / dots.shape[1]

    def paint(u: Grid, v: Grid, pixel: float) -> tuple[Grid, Grid]:
        column = np.clip((u + 1) / 2 * dots.shape[1], 0, dots.shape[1] - 1).astype(int)
        row = np.clip((v / aspect + 1) / 2 * dots.shape[0], 0, dots.shape[0] - 1).astype(int)
        return _inside(_box(u, v, 1.0, aspect), pixel), np.where(dots[row, column], 0.0, 1.0)

    return paint, (1.0, aspect)


@dataclass(frozen=True)
class _Shape:
    """One thing that moves: a Lissajous path about a point, and a steady turn."""

    paint: Painter
    radius: float
    """Of the picture's height."""
    extent: tuple[float, float]
    """Half width and half height before turning, of the radius."""
    centre: tuple[float, float]
    """x, y of the path's middle, of the picture's width and height."""
    reach: tuple[float, float]
    """How far the path leads from there, of the picture's height."""
    rate: tuple[float, float]
    """Angular speed of the path along x and y, radians per second."""
    phase: float
    spin: float
    """Radians per second."""
    dark: tuple[float, float, float]
    light: tuple[float, float, float]


def _texture(rng: np.random.Generator, size: int) -> NDArray[np.float32]:
    """A seamless texture (size, size, 3) of stone slabs with veins and grain, 0 to 255."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])

    def noise(falloff: float) -> NDArray[Any]:
        amplitude = np.maximum(frequency, 2 / size) ** -falloff * np.exp(-((frequency / 0.3) ** 4))
        cloud = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((size, size))) * amplitude)
        return np.asarray(cloud / cloud.std())

    stone, grain, hue = noise(1.6), noise(0.5), noise(2.0)
    veins = np.exp(-((noise(1.8) / 0.06) ** 2))
    rows, columns = np.mgrid[0:size, 0:size] * (8 / size)
    # Every second row of slabs is shifted by half a slab.
    shifted = columns / 2 + 0.5 * (np.floor(rows) % 2)
    from_joint = np.minimum(np.abs((rows + 0.5) % 1 - 0.5), 2 * np.abs((shifted + 0.5) % 1 - 0.5))
    joints = np.clip(from_joint * (size / 8) - 0.8, 0, 1)
    light = 118 + 22 * stone + 7 * grain + 45 * veins
    warm = np.stack([light + 10 * hue, light, light - 12 - 12 * hue], -1)
    return np.asarray(warm * (0.45 + 0.55 * joints[..., None]), np.float32)


class Scene:
    """A moving picture known at every time.

    Args:
        width: Pixels, 64 to 4096.
        height: Pixels, 64 to 4096.
        seed: Chooses texture, colours, paths and speeds.

    Raises:
        InputError: A size is out of range.
    """

    def __init__(self, width: int = 640, height: int = 360, *, seed: int = 0) -> None:
        if not (64 <= width <= 4096 and 64 <= height <= 4096):
            raise InputError(f"scene: size must be 64x64 to 4096x4096, got {width}x{height}")
        self.width, self.height = width, height
        rng = np.random.default_rng(seed)
        self._texture = _texture(rng, 512)
        self._heading = rng.uniform(0, 2 * math.pi)
        kinds: list[tuple[Painter, tuple[float, float], float]] = [
            (_pole, (0.045, 1.0), 0.62),
            (_checker, (0.7, 0.7), 0.2),
            (_fence, (0.7, 0.7), 0.3),
            (_flower, (1.0, 1.0), 0.17),
            (_wheel, (1.0, 1.0), 0.24),
            (*_sign("MOVING PICTURES"), 0.42),
            (_ball, (1.0, 1.0), 0.12),
            (*_sign("30 TO 60"), 0.16),
        ]
        self._shapes = [_place(rng, index, *kind) for index, kind in enumerate(kinds)]

    def draw(self, time: float) -> NDArray[np.uint8]:
        """The picture at a time.

        Args:
            time: Seconds; any finite number.

        Returns:
            uint8 RGB (height, width, 3).
        """
        canvas = self._background(float(time))
        for shape in self._shapes:
            self._add(canvas, shape, float(time))
        return to_uint8(canvas)

    def _background(self, time: float) -> NDArray[np.float32]:
        scale = (self.height / 360) * (1 + 0.05 * math.sin(0.9 * time))
        speed = 95 * time
        x = (np.arange(self.width) - self.width / 2) / scale + speed * math.cos(self._heading)
        y = (np.arange(self.height) - self.height / 2) / scale + speed * math.sin(self._heading)
        rows = sample_axis(self._texture, y, 0, edge="wrap")
        return sample_axis(rows, x, 1, edge="wrap")

    def _add(self, canvas: NDArray[np.float32], shape: _Shape, time: float) -> None:
        radius = shape.radius * self.height
        x = shape.centre[0] * self.width + shape.reach[0] * self.height * math.sin(
            shape.rate[0] * time + shape.phase
        )
        y = shape.centre[1] * self.height + shape.reach[1] * self.height * math.cos(
            shape.rate[1] * time + shape.phase
        )
        sine, cosine = math.sin(shape.spin * time), math.cos(shape.spin * time)
        half_width, half_height = shape.extent
        reach_x = radius * (abs(half_width * cosine) + abs(half_height * sine)) + 2
        reach_y = radius * (abs(half_width * sine) + abs(half_height * cosine)) + 2
        left, right = (int(np.clip(x + s * reach_x, 0, self.width)) for s in (-1, 1))
        top, bottom = (int(np.clip(y + s * reach_y, 0, self.height)) for s in (-1, 1))
        if left >= right or top >= bottom:
            return
        columns = (np.arange((right - left) * _SUBPIXELS) + 0.5) / _SUBPIXELS + left - x
        rows = (np.arange((bottom - top) * _SUBPIXELS) + 0.5) / _SUBPIXELS + top - y
        along, across = (columns / radius).astype(np.float32), (rows / radius).astype(np.float32)
        u = along[None, :] * np.float32(cosine) + across[:, None] * np.float32(sine)
        v = across[:, None] * np.float32(cosine) - along[None, :] * np.float32(sine)
        coverage, tone = shape.paint(u, v, 1 / (_SUBPIXELS * radius))
        dark, light = np.array([shape.dark, shape.light], np.float32)
        part = canvas[top:bottom, left:right]
        # The tone is a fraction between two colours, so its pooled weight mixes them exactly.
        covered, bright = _pool(coverage), _pool(coverage * tone)
        part *= 1 - covered[..., None]
        part += (covered - bright)[..., None] * dark + bright[..., None] * light


def _place(
    rng: np.random.Generator,
    index: int,
    paint: Painter,
    extent: tuple[float, float],
    radius: float,
) -> _Shape:
    column, row = index % 4, index // 4
    hue = rng.uniform(0, 2 * math.pi)
    tints = 0.5 + 0.5 * np.cos(hue + np.array([0.0, 2.1, 4.2]))
    dark, light = 30 + 60 * tints, 130 + 120 * np.roll(tints, 1)
    sense = rng.choice([-1.0, 1.0], 3)
    return _Shape(
        paint=paint,
        radius=radius,
        extent=extent,
        centre=(0.16 + 0.23 * column + rng.uniform(-0.03, 0.03), 0.32 + 0.36 * row),
        reach=(rng.uniform(0.12, 0.3), rng.uniform(0.06, 0.16)),
        rate=(sense[0] * rng.uniform(1.2, 2.6), sense[1] * rng.uniform(1.2, 2.6)),
        phase=rng.uniform(0, 2 * math.pi),
        spin=sense[2] * (rng.uniform(0.1, 0.25) if radius > 0.4 else rng.uniform(0.5, 1.6)),
        dark=(float(dark[0]), float(dark[1]), float(dark[2])),
        light=(float(light[0]), float(light[1]), float(light[2])),
    )


def _pool(samples: Grid) -> NDArray[np.float32]:
    """Mean over the sub-pixels of each pixel."""
    rows, columns = samples.shape[0] // _SUBPIXELS, samples.shape[1] // _SUBPIXELS
    blocks = samples.astype(np.float32).reshape(rows, _SUBPIXELS, columns, _SUBPIXELS)
    return np.asarray(blocks.mean((1, 3)))
