"""Draws the scenes of `world`: antialiased shapes by signed distance, a window around each actor.

Edges are exact for straight lines: the share of a pixel that a shape covers is the distance of the
pixel's centre from the edge, clipped to half a pixel on either side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fastvid_export.training.world import Actor, Backdrop, Scene

Floats = NDArray[np.float32]
SPAN = 16
"""Frames in one span of time."""

_PAN = 0.3
_ZOOM = 0.5
_SHADOW = (0.05, 0.06)
_STAR_TIP, _STAR_NOTCH = 1.2, 0.5


def render(
    scene: Scene, *, size: int = 64, frames: int = 17, photos: Sequence[NDArray[np.uint8]] = ()
) -> NDArray[np.uint8]:
    """Draws a scene.

    Args:
        scene: What to draw.
        size: Height and width in pixels.
        frames: Number of frames; 16 are one span of the scene's time.
        photos: Square uint8 pictures (S, S, 3) that `Backdrop.photo` counts in.

    Returns:
        uint8 (frames, size, size, 3).
    """
    time = np.arange(frames, dtype=np.float64) / SPAN
    pan, zoom = _camera(scene.camera, time)
    canvas = np.empty((frames, size, size, 3), np.float32)
    canvas[:] = _backdrop(scene.backdrop, size, time, pan, zoom, photos)
    placed = [_place(actor, size, time, pan, zoom) for actor in scene.actors]
    if scene.shadow:
        for actor, place in zip(scene.actors, placed, strict=True):
            _draw_shadow(canvas, actor, place)
    for actor, place in zip(scene.actors, placed, strict=True):
        _draw_actor(canvas, actor, place)
    return np.rint(canvas).astype(np.uint8)


def _camera(camera: str, time: NDArray[np.float64]) -> tuple[Floats, Floats]:
    still, way = np.zeros_like(time), time - 0.5
    pan = {"pans left": -_PAN, "pans right": _PAN}.get(camera)
    zoom = {"zooms in": _ZOOM, "zooms out": -_ZOOM}.get(camera)
    return (
        (still if pan is None else pan * way).astype(np.float32),
        np.exp(still if zoom is None else zoom * way).astype(np.float32),
    )


def _place(
    actor: Actor, size: int, time: NDArray[np.float64], pan: Floats, zoom: Floats
) -> tuple[Floats, Floats, Floats, Floats]:
    """Centre and radius in pixels, and angle, of each frame, as the camera sees them."""
    x, y, scale, angle = actor.path.at(time)
    x = (x - 0.5 - pan) * zoom + 0.5
    y = (y - 0.5) * zoom + 0.5
    radius = actor.radius * scale * zoom
    return tuple(v.astype(np.float32) for v in (x * size, y * size, radius * size, angle))  # type: ignore[return-value]


class _Window:
    """The same square of pixels around an actor in every frame, cut where the frame ends."""

    def __init__(self, x: Floats, y: Floats, reach: float) -> None:
        self.half = math.ceil(reach) + 1
        self.left = np.floor(x).astype(int) - self.half
        self.top = np.floor(y).astype(int) - self.half
        axis = np.arange(2 * self.half + 1, dtype=np.float32) + 0.5
        self.dx = ((self.left - x).astype(np.float32)[:, None] + axis)[:, None, :]
        self.dy = ((self.top - y).astype(np.float32)[:, None] + axis)[:, :, None]

    def paint(self, canvas: Floats, cover: Floats, colour: Floats) -> None:
        """Blends `colour`, (3,) or (T, h, w, 3), into the canvas by `cover` (T, h, w)."""
        size, side = canvas.shape[1], 2 * self.half + 1
        for t, (left, top) in enumerate(zip(self.left, self.top, strict=True)):
            x0, y0, x1, y1 = (
                max(left, 0),
                max(top, 0),
                min(left + side, size),
                min(top + side, size),
            )
            if x0 >= x1 or y0 >= y1:
                continue
            inside = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
            target = canvas[t, y0:y1, x0:x1]
            paint = colour if colour.ndim == 1 else colour[t][inside]
            target += cover[t][inside][..., None] * (paint - target)


def _draw_actor(canvas: Floats, actor: Actor, place: tuple[Floats, Floats, Floats, Floats]) -> None:
    x, y, radius, angle = place
    window = _Window(x, y, 1.25 * float(radius.max()))
    u, v = _own_axes(window, angle)
    unit = radius[:, None, None]
    cover = np.clip(0.5 - _distance(actor.shape, u / unit, v / unit) * unit, 0.0, 1.0)
    colour = np.array(actor.rgb, np.float32)
    if actor.texture != "plain":
        dark = _texture(actor.texture, u / unit, v / unit, unit)
        shade = colour * 0.5 if colour.sum() > 120 else colour + 95.0
        colour = colour + dark[..., None] * (shade - colour)
    window.paint(canvas, cover.astype(np.float32), colour.astype(np.float32))


def _draw_shadow(
    canvas: Floats, actor: Actor, place: tuple[Floats, Floats, Floats, Floats]
) -> None:
    x, y, radius, angle = place
    size = canvas.shape[1]
    x, y = x + np.float32(_SHADOW[0] * size), y + np.float32(_SHADOW[1] * size)
    blur = 0.05 * size
    window = _Window(x, y, 1.25 * float(radius.max()) + blur)
    u, v = _own_axes(window, angle)
    unit = radius[:, None, None]
    depth = np.clip(0.5 - _distance(actor.shape, u / unit, v / unit) * unit / (2 * blur), 0.0, 1.0)
    cover = 0.45 * depth * depth * (3 - 2 * depth)
    window.paint(canvas, cover.astype(np.float32), np.zeros(3, np.float32))


def _own_axes(window: _Window, angle: Floats) -> tuple[Floats, Floats]:
    c, s = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    if not angle.any():
        shape = np.broadcast_shapes(window.dx.shape, window.dy.shape)
        return np.broadcast_to(window.dx, shape), np.broadcast_to(window.dy, shape)
    return c * window.dx + s * window.dy, c * window.dy - s * window.dx


def _distance(shape: str, x: Floats, y: Floats) -> Floats:
    """Signed distance from a shape of radius about 1 at the origin, negative inside."""
    match shape:
        case "circle":
            d = np.hypot(x, y) - 1.0
        case "ring":
            d = np.abs(np.hypot(x, y) - 0.74) - 0.26
        case "square":
            d = np.maximum(np.abs(x), np.abs(y)) - 0.86
        case "triangle":
            d = np.maximum(y, 0.8660254 * np.abs(x) - 0.5 * y) - 0.6
        case "cross":
            a, b = np.abs(x), np.abs(y)
            d = np.minimum(np.maximum(a - 1.0, b - 0.34), np.maximum(a - 0.34, b - 1.0))
        case "star":
            d = _star(x, y)
        case _:
            raise ValueError(f"shape: must be one of the world's, got {shape!r}")
    return d.astype(np.float32)


def _star(x: Floats, y: Floats) -> Floats:
    # Folded onto half a point of the star, its edge is one line from the tip to the notch.
    fifth = 2 * math.pi / 5
    angle = np.abs(np.mod(np.arctan2(x, -y) + fifth / 2, fifth) - fifth / 2)
    radius = np.hypot(x, y)
    a, b = radius * np.sin(angle), radius * np.cos(angle)
    nx = _STAR_TIP - _STAR_NOTCH * math.cos(fifth / 2)
    ny = _STAR_NOTCH * math.sin(fifth / 2)
    distance: Floats = (a * nx + (b - _STAR_TIP) * ny) / math.hypot(nx, ny)
    return distance


def _texture(texture: str, x: Floats, y: Floats, unit: Floats) -> Floats:
    """Share of the darker shade, 0 to 1."""
    if texture == "striped":
        wave = np.abs(np.mod(x / 0.5, 2.0) - 1.0) - 0.5
        return np.clip(0.5 + wave * 0.5 * unit, 0.0, 1.0)
    u, v = np.mod(x / 0.62 + 0.5, 1.0) - 0.5, np.mod(y / 0.62 + 0.5, 1.0) - 0.5
    return np.clip(0.5 - (np.hypot(u, v) - 0.3) * 0.62 * unit, 0.0, 1.0)


def _backdrop(
    backdrop: Backdrop,
    size: int,
    time: NDArray[np.float64],
    pan: Floats,
    zoom: Floats,
    photos: Sequence[NDArray[np.uint8]],
) -> Floats:
    """Float32 (T or 1, H, W or 1, 3), 0 to 255."""
    colours = [np.array(rgb, np.float32) for rgb in backdrop.rgb]
    if backdrop.kind == "plain":
        return colours[0][None, None, None]
    if backdrop.kind == "photo":
        return _photo(backdrop, size, pan, photos[backdrop.photo])
    if not pan.any() and (zoom == 1).all():
        pan, zoom = pan[:1], zoom[:1]
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    x = (axis / zoom[:, None] + pan[:, None] + 0.5)[:, None, :]
    y = (axis / zoom[:, None] + 0.5)[:, :, None]
    match backdrop.kind:
        case "gradient":
            c, s = math.cos(backdrop.angle), math.sin(backdrop.angle)
            share = np.clip(0.5 + c * (x - 0.5) + s * (y - 0.5), 0.0, 1.0)[..., None]
            return (colours[0] + share * (colours[1] - colours[0])).astype(np.float32)
        case "checker":
            unit = backdrop.scale * size * zoom[:, None, None]
            across, down = (
                np.clip((np.abs(np.mod(v / backdrop.scale, 2.0) - 1.0) - 0.5) * unit, -0.5, 0.5)
                for v in (x, y)
            )
            share = (0.5 + 2.0 * across * down)[..., None]
            return (colours[0] + share * (colours[1] - colours[0])).astype(np.float32)
        case "sea":
            return _sea(backdrop.scale, colours, x, y, time.astype(np.float32), size)
    raise ValueError(f"backdrop: must be one of the world's, got {backdrop.kind!r}")


def _sea(
    horizon: float, colours: list[Floats], x: Floats, y: Floats, time: Floats, size: int
) -> Floats:
    sky, sea = colours
    up = np.clip((horizon - y) / horizon, 0.0, 1.0)[..., None]
    depth = np.clip((y - horizon) / (1.0 - horizon), 0.0, 1.0)
    t = time[:, None, None]
    wave = np.sin(2 * math.pi * (3.0 * x + 5.0 * y + t)) * np.sin(2 * math.pi * (11.0 * y - t))
    above = sky + 0.35 * (255.0 - sky) * (1.0 - up)
    below = sea + (16.0 * wave - 30.0 * depth)[..., None]
    share = np.clip((y - horizon) * size + 0.5, 0.0, 1.0)[..., None]
    mixed: Floats = np.clip(above + share * (below - above), 0.0, 255.0).astype(np.float32)
    return mixed


def _photo(backdrop: Backdrop, size: int, pan: Floats, photo: NDArray[np.uint8]) -> Floats:
    """A crop; a panning camera moves over it, between whole pixels by linear interpolation."""
    room = math.ceil(_PAN * size) + 1 if pan.any() else 0
    whole = photo.shape[0]
    height = max(8, round(whole * backdrop.scale * size / (size + room)))
    width = max(8, round(height * (size + room) / size))
    left = round(backdrop.corner[0] * (whole - min(width, whole)))
    top = round(backdrop.corner[1] * (whole - height))
    crop = Image.fromarray(photo).resize(
        (size + room, size),
        Image.Resampling.BICUBIC,
        box=(left, top, min(left + width, whole), top + height),
    )
    picture = np.asarray(crop, np.float32)
    if not room:
        return picture[None]
    offset = np.clip(pan * size + room / 2, 0.0, room - 1e-3)
    first = np.floor(offset).astype(int)
    part = (offset - first).astype(np.float32)
    return np.stack(
        [
            (1 - p) * picture[:, f : f + size] + p * picture[:, f + 1 : f + 1 + size]
            for f, p in zip(first, part, strict=True)
        ]
    )
