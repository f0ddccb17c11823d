"""Drawn pictures of what photos of landscapes lack: text, lines, façades, tiles and gratings.

Sharp edges and repeated structure carry most of what a larger picture can be told from a small
one. All is drawn several times as large as needed and reduced, so that edges fall between pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from fastvid_export.training import material

_FINER = 3
"""How many times as large a picture is drawn on each side."""
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;-+()&%?!/"

Colour = tuple[int, int, int]
Draw = Callable[[np.random.Generator, Image.Image], Image.Image]


def draw_picture(
    rng: np.random.Generator, side: int, photos: Sequence[Image.Image] = ()
) -> NDArray[np.uint8]:
    """Draws a collage of structures.

    Args:
        rng: Source of every choice.
        side: Height and width in pixels.
        photos: RGB pictures that backgrounds may show; those below `3 * side` are left out.

    Returns:
        uint8 (side, side, 3).
    """
    large = side * _FINER
    canvas = _background(rng, large, photos)
    for _ in range(int(rng.integers(2, 5))):
        kind = _KINDS[int(rng.integers(len(_KINDS)))]
        layer = _turned(rng, kind(rng, _plain(rng, large)))
        window = Image.new("L", (large, large), 0)
        _polygon(rng, ImageDraw.Draw(window), large, 255, corners=int(rng.integers(3, 7)))
        canvas = Image.composite(layer, canvas, window)
    if rng.random() < 0.5:
        canvas = _writing(rng, _lines(rng, canvas))
    small = canvas.resize((side, side), Image.Resampling.BOX)
    if rng.random() < 0.3:
        small = small.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 0.8))))
    return np.asarray(small)


def draw_static(rng: np.random.Generator, side: int) -> NDArray[np.uint8]:
    """Grey dots of all sizes and densities, as noise without a picture has them.

    Args:
        rng: Source of every choice.
        side: Height and width in pixels.

    Returns:
        uint8 (side, side).
    """
    dot = int(rng.integers(1, 5))
    shape = (-(-side // dot),) * 2
    kind = rng.random()
    if kind < 0.4:
        levels = rng.uniform(0, 255, shape)
    elif kind < 0.7:
        levels = 255.0 * (rng.random(shape) < rng.uniform(0.1, 0.9))
    else:
        dotted = rng.random(shape) < np.exp(rng.uniform(np.log(0.003), np.log(0.3)))
        levels = np.where(dotted, 255.0 * rng.integers(0, 2, shape), rng.uniform(0, 255))
    levels = rng.uniform(0, 255) * (1 - (share := rng.uniform(0.3, 1.0))) + share * levels
    large = np.kron(levels, np.ones((dot, dot)))[:side, :side]
    return np.clip(np.rint(large), 0, 255).astype(np.uint8)


def drawn_pictures(photos: Sequence[Path], count: int, side: int) -> Iterator[NDArray[np.uint8]]:
    """The same `count` pictures each time, some over parts of every fourth of the photos."""
    backgrounds = []
    for path in photos[::4]:
        photo = material.load_photo(path)
        backgrounds.append(
            material.reduce(photo, max(1.0, min(photo.size) / (1.2 * _FINER * side)))
        )
    for index in range(count):
        yield draw_picture(np.random.default_rng(index), side, backgrounds)


def _colour(rng: np.random.Generator) -> Colour:
    grey = rng.uniform(0, 255)
    spread = rng.choice([0.0, 20.0, 70.0])
    red, green, blue = (int(v) for v in np.clip(grey + rng.uniform(-spread, spread, 3), 0, 255))
    return red, green, blue


def _plain(rng: np.random.Generator, side: int) -> Image.Image:
    return Image.new("RGB", (side, side), _colour(rng))


def _background(rng: np.random.Generator, side: int, photos: Sequence[Image.Image]) -> Image.Image:
    fitting = [photo for photo in photos if min(photo.size) >= side]
    if fitting and rng.random() < 0.5:
        photo = fitting[int(rng.integers(len(fitting)))]
        x, y = (int(rng.integers(0, edge - side + 1)) for edge in photo.size)
        return photo.crop((x, y, x + side, y + side))
    # Light that falls off slowly: the larger the enlargement, the smoother.
    corners = np.array([[_colour(rng) for _ in range(2)] for _ in range(2)], np.uint8)
    return Image.fromarray(corners).resize((side, side), Image.Resampling.BICUBIC)


def _polygon(
    rng: np.random.Generator, draw: ImageDraw.ImageDraw, side: int, fill: int | Colour, corners: int
) -> None:
    centre, radius = rng.uniform(0.1, 0.9, 2) * side, rng.uniform(0.15, 0.7) * side
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    reach = radius * rng.uniform(0.5, 1.0, corners)
    points = zip(
        centre[0] + reach * np.cos(angles), centre[1] + reach * np.sin(angles), strict=True
    )
    draw.polygon(list(points), fill=fill)


def _turned(rng: np.random.Generator, layer: Image.Image) -> Image.Image:
    """The layer as a plane that is seen from the side."""
    side = layer.width
    if rng.random() < 0.25:
        return layer
    angle, shear = rng.uniform(0, 2 * np.pi), rng.normal(0, 0.15)
    zoom = np.exp(rng.uniform(-0.5, 0.3))
    c, s = zoom * np.cos(angle), zoom * np.sin(angle)
    tilt = rng.normal(0, 0.25 / side, 2)
    offset = side / 2 - (c + s) * side / 2, side / 2 + (s - c) * side / 2
    data = (c, s + shear, offset[0], -s, c, offset[1], float(tilt[0]), float(tilt[1]))
    # Beyond its edges the layer goes on as its mirror image.
    wide = np.pad(np.asarray(layer), ((side // 2,) * 2, (side // 2,) * 2, (0, 0)), mode="reflect")
    moved = (*data[:2], data[2] + side / 2, *data[3:5], data[5] + side / 2, *data[6:])
    return Image.fromarray(wide).transform(
        (side, side), Image.Transform.PERSPECTIVE, moved, Image.Resampling.BICUBIC
    )


def _grating(rng: np.random.Generator, layer: Image.Image) -> Image.Image:
    """Stripes whose width changes over the picture, straight or curved, soft or hard."""
    side = layer.width
    y, x = np.mgrid[:side, :side].astype(np.float32) / side
    angle = rng.uniform(0, np.pi)
    along = x * np.cos(angle) + y * np.sin(angle)
    if rng.random() < 0.4:
        centre = rng.uniform(-0.3, 1.3, 2)
        along = np.hypot(x - centre[0], y - centre[1])
    across = y * np.cos(angle) - x * np.sin(angle)
    cycles = side / _FINER / np.exp(rng.uniform(np.log(2.5), np.log(24)))
    phase = cycles * along * (1 + rng.uniform(-0.4, 0.4) * along) + rng.normal(0, 1) * across**2
    wave = np.sin(2 * np.pi * phase + rng.uniform(0, 6))
    hardness = rng.choice([1.0, 4.0, 40.0])
    share = (np.clip(hardness * (wave - rng.uniform(-0.6, 0.6)), -1, 1)[..., None] + 1) / 2
    ends = [np.array(_colour(rng), np.float32) for _ in range(2)]
    return Image.fromarray((ends[0] + share * (ends[1] - ends[0])).round().astype(np.uint8))


def _facade(rng: np.random.Generator, layer: Image.Image) -> Image.Image:
    """Rows of equal windows."""
    draw, side = ImageDraw.Draw(layer), layer.width
    step_x, step_y = rng.uniform(5, 40, 2) * _FINER
    width, height = step_x * rng.uniform(0.3, 0.85), step_y * rng.uniform(0.3, 0.85)
    thick, bar = max(1, round(rng.uniform(0.3, 2.0) * _FINER)), rng.random() < 0.5
    fill, edge = _colour(rng), _colour(rng)
    for top in np.arange(0, side, step_y):
        for left in np.arange(0, side, step_x):
            shade = tuple(int(np.clip(v + rng.normal(0, 8), 0, 255)) for v in fill)
            box = [left, top, left + width, top + height]
            draw.rectangle(box, fill=shade, outline=edge, width=thick)
            if bar:
                middle = left + width / 2
                draw.line([middle, top, middle, top + height], fill=edge, width=thick)
    return layer


def _tiles(rng: np.random.Generator, layer: Image.Image) -> Image.Image:
    """Bricks or a checkerboard, with or without joints."""
    draw, side = ImageDraw.Draw(layer), layer.width
    height = rng.uniform(3, 20) * _FINER
    width = height * rng.choice([1.0, 1.0, 2.0, 3.0])
    joint = rng.uniform(0, 1.5) * _FINER
    shift = rng.choice([0.0, 0.5])
    ends, spread = (_colour(rng), _colour(rng)), rng.choice([0.0, 12.0])
    for row, top in enumerate(np.arange(0, side, height)):
        for column, left in enumerate(np.arange(-width * shift * (row % 2), side, width)):
            fill = tuple(
                int(np.clip(v + rng.normal(0, spread), 0, 255)) for v in ends[(row + column) % 2]
            )
            draw.rectangle([left, top, left + width - joint, top + height - joint], fill=fill)
    return layer


def _lines(rng: np.random.Generator, layer: Image.Image) -> Image.Image:
    """Lines, rings and polygons of all widths."""
    draw, side = ImageDraw.Draw(layer), layer.width
    for _ in range(int(rng.integers(5, 40))):
        width = max(1, round(float(np.exp(rng.uniform(np.log(0.5), np.log(8)))) * _FINER))
        colour, kind = _colour(rng), rng.random()
        if kind < 0.6:
            ends = rng.uniform(-0.1, 1.1, 4) * side
            draw.line(list(ends), fill=colour, width=width)
        elif kind < 0.8:
            (x, y), r = rng.uniform(0, 1, 2) * side, rng.uniform(0.01, 0.3) * side
            draw.ellipse([x - r, y - r, x + r, y + r], outline=colour, width=width)
        else:
            _polygon(rng, draw, side // 3, colour, corners=int(rng.integers(3, 8)))
    return layer


def _writing(rng: np.random.Generator, layer: Image.Image) -> Image.Image:
    """Lines of random letters."""
    draw, side = ImageDraw.Draw(layer), layer.width
    size = float(np.exp(rng.uniform(np.log(7), np.log(48)))) * _FINER
    font, colour = ImageFont.load_default(size), _colour(rng)
    top, left = rng.uniform(-0.1, 0.6) * side, rng.uniform(-0.1, 0.5) * side
    for row in range(int(rng.integers(1, 30))):
        letters = rng.choice(list(_LETTERS + " " * 12), int(rng.integers(4, 60)))
        draw.text((left, top + row * 1.25 * size), "".join(letters), fill=colour, font=font)
    return layer


_KINDS: tuple[Draw, ...] = (_grating, _grating, _facade, _facade, _tiles, _lines, _writing)
