"""Drawn motion: photos cut into layers that move linearly in time; any time can be drawn exactly.

Each layer moves by its own rotation, zoom and translation, interpolated linearly over [0, 1]; the
frames at 0, t and 1 are rendered from the full-size photos by one resampling each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter


@dataclass(frozen=True)
class _Motion:
    """A similarity transform about the frame's centre, linear in time."""

    angle: tuple[float, float]
    zoom: tuple[float, float]
    shift: tuple[tuple[float, float], tuple[float, float]]

    def inverse_affine(
        self, time: float, out: int, source: tuple[float, float]
    ) -> tuple[float, ...]:
        """PIL's output-to-source coefficients; `source` is what the centre shows at rest."""
        a = self.angle[0] + time * (self.angle[1] - self.angle[0])
        z = np.exp(self.zoom[0] + time * (self.zoom[1] - self.zoom[0]))
        dx = self.shift[0][0] + time * (self.shift[1][0] - self.shift[0][0])
        dy = self.shift[0][1] + time * (self.shift[1][1] - self.shift[0][1])
        c, s = np.cos(a) / z, np.sin(a) / z
        px, py = out / 2 + dx, out / 2 + dy
        return (c, s, source[0] - c * px - s * py, -s, c, source[1] + s * px - c * py)


def _random_motion(rng: np.random.Generator, reach: float, *, still: bool) -> _Motion:
    if still:
        return _Motion((0.0, 0.0), (0.0, 0.0), ((0.0, 0.0), (0.0, 0.0)))
    direction = rng.uniform(0, 2 * np.pi)
    # Half of the speeds are small: most of a real frame moves by a few pixels.
    length = reach * (rng.uniform(0, 1) ** 2 if rng.random() < 0.5 else rng.uniform(0, 1))
    dx, dy = length * np.cos(direction), length * np.sin(direction)
    turn = rng.normal(0, 0.06) if rng.random() < 0.5 else 0.0
    grow = rng.normal(0, 0.05) if rng.random() < 0.5 else 0.0
    return _Motion(
        (-turn / 2, turn / 2), (-grow / 2, grow / 2), ((-dx / 2, -dy / 2), (dx / 2, dy / 2))
    )


def _blob(rng: np.random.Generator, size: int, canvas: int) -> Image.Image:
    """A random shape at the centre of a canvas; sometimes thin, sometimes with a hole."""
    mask = Image.new("L", (canvas, canvas), 0)
    draw = ImageDraw.Draw(mask)
    centre = canvas / 2
    kind = rng.random()
    if kind < 0.2:
        for _ in range(int(rng.integers(1, 6))):
            p = rng.uniform(centre - size, centre + size, 4)
            draw.line([tuple(p[:2]), tuple(p[2:])], fill=255, width=int(rng.integers(2, 9)))
    else:
        corners = int(rng.integers(3, 14))
        radius = size * rng.uniform(0.4, 1.0, corners)
        angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
        stretch = rng.uniform(0.4, 1.0)
        points = [
            (centre + r * np.cos(a), centre + stretch * r * np.sin(a))
            for r, a in zip(radius, angle, strict=True)
        ]
        draw.polygon(points, fill=255)
        if kind > 0.8:
            r = size * rng.uniform(0.1, 0.3)
            draw.ellipse([centre - r, centre - r, centre + r, centre + r], fill=0)
    if rng.random() < 0.5:
        mask = mask.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.5, 2.5))))
    return mask


def _pick(
    rng: np.random.Generator, photos: Sequence[Image.Image], room: int
) -> tuple[Image.Image, tuple[float, float]]:
    photo = photos[int(rng.integers(len(photos)))]
    x = rng.uniform(min(room, photo.width / 2), max(photo.width - room, photo.width / 2))
    y = rng.uniform(min(room, photo.height / 2), max(photo.height - room, photo.height / 2))
    return photo, (float(x), float(y))


def draw_triplet(
    rng: np.random.Generator,
    photos: Sequence[Image.Image],
    size: int,
    reach: float,
    timestep: float,
) -> np.ndarray:
    """Draws the frames at times 0, `timestep` and 1 of one random scene.

    Args:
        rng: Source of every choice.
        photos: RGB photos, larger than `size + 2 * reach` on both sides where possible.
        size: Height and width of the frames in pixels.
        reach: Largest displacement over the whole interval, in pixels.
        timestep: Time of the middle frame in (0, 1).

    Returns:
        uint8 array (3, size, size, 3): the frames at 0, `timestep` and 1.
    """
    times = (0.0, timestep, 1.0)
    room = int(size * 0.6 + reach)
    photo, at = _pick(rng, photos, room)
    camera = _random_motion(rng, reach * 0.7, still=rng.random() < 0.25)
    frames = [
        photo.transform(
            (size, size),
            Image.Transform.AFFINE,
            camera.inverse_affine(t, size, at),
            Image.Resampling.BICUBIC,
        )
        for t in times
    ]
    for _ in range(int(rng.integers(0, 5))):
        photo, at = _pick(rng, photos, room)
        radius = float(rng.uniform(0.06, 0.35)) * size
        canvas = int(size * 1.6)
        mask = _blob(rng, int(radius), canvas)
        centre = rng.uniform(0.1, 0.9, 2) * size
        motion = _random_motion(rng, reach, still=rng.random() < 0.1)
        offset = (float(centre[0] - size / 2), float(centre[1] - size / 2))
        motion = _Motion(
            motion.angle,
            motion.zoom,
            tuple((s[0] + offset[0], s[1] + offset[1]) for s in motion.shift),  # type: ignore[arg-type]
        )
        for i, t in enumerate(times):
            texture = photo.transform(
                (size, size),
                Image.Transform.AFFINE,
                motion.inverse_affine(t, size, at),
                Image.Resampling.BICUBIC,
            )
            cover = mask.transform(
                (size, size),
                Image.Transform.AFFINE,
                motion.inverse_affine(t, size, (canvas / 2, canvas / 2)),
                Image.Resampling.BILINEAR,
            )
            frames[i] = Image.composite(texture, frames[i], cover)
    out = np.stack([np.asarray(f, dtype=np.uint8) for f in frames])
    return _degrade(rng, out, timestep)


def _degrade(rng: np.random.Generator, frames: np.ndarray, timestep: float) -> np.ndarray:
    """Blur, exposure drift and sensor noise, as clips have them."""
    if rng.random() < 0.3:
        radius = float(rng.uniform(0.4, 1.2))
        frames = np.stack(
            [
                np.asarray(Image.fromarray(f).filter(ImageFilter.GaussianBlur(radius)))
                for f in frames
            ]
        )
    if rng.random() < 0.2:
        drift = rng.uniform(-6, 6)
        gain = drift * (2 * np.array([0.0, timestep, 1.0]) - 1)
        frames = _to_uint8(frames + gain[:, None, None, None])
    if rng.random() < 0.25:
        # The truth stays clean: a network cannot predict noise, and should not learn to pass it on.
        noise = rng.normal(0, rng.uniform(0.5, 3.0), (2, *frames.shape[1:]))
        frames[[0, 2]] = _to_uint8(frames[[0, 2]] + noise)
    return frames


def _to_uint8(x: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(x), 0, 255).astype(np.uint8)
