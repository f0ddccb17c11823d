"""What video goes through before somebody wants it larger or cleaner, as a seeded pipeline.

    frames → blur → reduction → noise → colour blotches → JPEG → H.264 → frames

One draw of settings serves a whole clip, as one camera and one encoder do; the noise differs from
frame to frame. H.264 runs over the clip in time, so that frames carry what prediction from others
leaves behind and not only the blocks of single pictures. The order and the ranges follow the
practical degradation models of Real-ESRGAN (Wang et al., 2021), without its second round.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from fastvid import ops
from fastvid.errors import InputError

Picture = NDArray[np.uint8]

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_FILTERS = (
    Image.Resampling.BICUBIC,
    Image.Resampling.BILINEAR,
    Image.Resampling.LANCZOS,
    Image.Resampling.BOX,
)


@dataclass(frozen=True)
class Degradation:
    """Settings of one clip; the defaults are the bicubic reduction alone."""

    blur: float = 0.0
    """Standard deviation of a Gaussian in pixels of the large picture, from 0."""
    filter: Image.Resampling = Image.Resampling.BICUBIC
    """Antialiased reduction."""
    noise: float = 0.0
    """Standard deviation of sensor noise at mid grey in levels, from 0."""
    colour_noise: bool = False
    """Whether the noise of the three colours is independent."""
    blotches: float = 0.0
    """Standard deviation of colour noise that is coarser than pixels and leaves luma as it is, in
    levels, from 0: what cameras' own denoising and subsampled chroma leave of noise."""
    jpeg: int | None = None
    """Quality of JPEG, 1 to 95; None leaves it out."""
    crf: int | None = None
    """Constant rate factor of H.264, 0 to 51; None leaves it out."""
    preset: str = "veryfast"
    """Effort of x264."""


def draw(rng: np.random.Generator, scale: int) -> Degradation:
    """Settings as wild video has them: most of it compressed, some noisy, little of it blurred.

    Args:
        rng: What the settings are drawn with.
        scale: Factor of the reduction; blur grows with it.
    """
    return Degradation(
        blur=float(rng.uniform(0.2, 0.5 + 0.4 * scale)) if rng.random() < 0.5 else 0.0,
        filter=_FILTERS[int(rng.integers(len(_FILTERS)))],
        noise=float(rng.exponential(4.5)) if rng.random() < 0.6 else 0.0,
        colour_noise=bool(rng.random() < 0.7),
        blotches=float(rng.exponential(5.0)) if rng.random() < 0.4 else 0.0,
        jpeg=int(rng.integers(40, 96)) if rng.random() < 0.25 else None,
        crf=int(rng.integers(18, 37)) if rng.random() < 0.85 else None,
        preset=str(rng.choice(["ultrafast", "veryfast", "medium"])),
    )


def degrade(
    frames: Sequence[Picture], scale: int, settings: Degradation, rng: np.random.Generator
) -> list[Picture]:
    """The frames of one clip, degraded.

    Args:
        frames: uint8 RGB (H, W, 3), all of one size; H and W are multiples of `scale`, and with
            H.264 their quotients are even.
        scale: Whole factor of the reduction, from 1.
        settings: What is done.
        rng: What noise is drawn with.

    Returns:
        As many uint8 RGB (H / scale, W / scale, 3).

    Raises:
        InputError: No frames, other sizes or types, or a setting out of its range.
    """
    _check(frames, scale, settings)
    small = [_reduced(frame, scale, settings) for frame in frames]
    if settings.noise > 0:
        small = [_noisy(frame, settings, rng) for frame in small]
    if settings.blotches > 0:
        small = [_blotched(frame, settings.blotches, rng) for frame in small]
    if settings.jpeg is not None:
        small = [_through_jpeg(frame, settings.jpeg) for frame in small]
    if settings.crf is not None:
        small = through_h264(small, settings.crf, settings.preset)
    return small


def through_h264(frames: Sequence[Picture], crf: int, preset: str = "veryfast") -> list[Picture]:
    """The frames, encoded as one 4:2:0 clip and decoded again.

    Colour is converted by `fastvid.ops`, as it will be where the network runs: libswscale's own
    conversion darkens by a level, which a network would learn to undo.

    Args:
        frames: uint8 RGB (H, W, 3) of one size, H and W even.
        crf: Constant rate factor, 0 to 51.
        preset: Effort of x264.
    """
    import av

    height, width = frames[0].shape[:2]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        options = {"crf": str(crf), "preset": preset, "threads": "1"}
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"  # type: ignore[attr-defined]
        for frame in frames:
            planes = ops.rgb_to_yuv(np.ascontiguousarray(frame))
            flat = np.concatenate([plane.ravel() for plane in planes])
            picture = av.VideoFrame.from_ndarray(flat.reshape(-1, width), format="yuv420p")
            container.mux(stream.encode(picture))  # type: ignore[attr-defined]
        container.mux(stream.encode(None))  # type: ignore[attr-defined]
    buffer.seek(0)
    with av.open(buffer) as container:
        decoded = [frame.to_ndarray(format="yuv420p") for frame in container.decode(video=0)]
    return [_to_rgb(planes.ravel(), height, width) for planes in decoded]


def _to_rgb(flat: Picture, height: int, width: int) -> Picture:
    luma, quarter = height * width, height * width // 4
    planes = flat[:luma], flat[luma : luma + quarter], flat[luma + quarter :]
    sides = (height, width), (height // 2, width // 2), (height // 2, width // 2)
    return ops.yuv_to_rgb(*(p.reshape(s) for p, s in zip(planes, sides, strict=True)))


def _check(frames: Sequence[Picture], scale: int, settings: Degradation) -> None:
    if not frames:
        raise InputError("degrade: frames must hold at least one frame, got none")
    shape = frames[0].shape
    for frame in frames:
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise InputError(f"degrade: frames must be uint8 (H, W, 3), got {frame.shape}")
        if frame.shape != shape:
            raise InputError(f"degrade: frames must have one size, got {shape} and {frame.shape}")
    unit = scale * (1 if settings.crf is None else 2)
    if scale < 1 or shape[0] % unit or shape[1] % unit:
        raise InputError(
            f"degrade: sides must be multiples of {unit}, got {shape[1]}x{shape[0]} at {scale}"
        )
    for name, low, high in (
        ("jpeg", 1, 95),
        ("crf", 0, 51),
        ("blur", 0, 50),
        ("noise", 0, 128),
        ("blotches", 0, 128),
    ):
        value = getattr(settings, name)
        if value is not None and not low <= value <= high:
            raise InputError(f"degrade: {name} must be from {low} to {high}, got {value}")


def _reduced(frame: Picture, scale: int, settings: Degradation) -> Picture:
    image = Image.fromarray(np.ascontiguousarray(frame))
    if settings.blur > 0:
        image = image.filter(ImageFilter.GaussianBlur(settings.blur))
    if scale > 1:
        size = (image.width // scale, image.height // scale)
        image = image.resize(size, settings.filter)
    return np.array(image)


def _noisy(frame: Picture, settings: Degradation, rng: np.random.Generator) -> Picture:
    """Shot noise and read noise in equal parts: its variance grows with the brightness."""
    channels = 3 if settings.colour_noise else 1
    grain = rng.standard_normal((*frame.shape[:2], channels), np.float32)
    deviation = settings.noise * np.sqrt(0.5 + frame.astype(np.float32) / 255.0)
    return np.clip(np.rint(frame + deviation * grain), 0, 255).astype(np.uint8)


def _blotched(frame: Picture, deviation: float, rng: np.random.Generator) -> Picture:
    """Colour noise of one value per some pixels, drawn anew for each frame."""
    height, width = frame.shape[:2]
    coarse = float(rng.uniform(1.5, 4.0))
    sides = max(1, round(height / coarse)), max(1, round(width / coarse))
    planes = [
        np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BICUBIC))
        for plane in rng.standard_normal((3, *sides), np.float32)
    ]
    noise = np.stack(planes, -1)
    noise -= (noise @ _LUMA)[..., None]
    noise *= deviation / max(float(noise.std()), 1e-6)
    return np.clip(np.rint(frame + noise), 0, 255).astype(np.uint8)


def _through_jpeg(frame: Picture, quality: int) -> Picture:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=quality)
    buffer.seek(0)
    return np.array(Image.open(buffer).convert("RGB"))
