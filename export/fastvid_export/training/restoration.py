"""How the upscalers for real video train: clips that a codec, a camera and a resize have harmed.

Pairs are made once: a short clip (a window that moves over a photo, or frames of a real clip) is
degraded as a whole, see `degradations`, and single frames of it are stored beside the clean ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from fastvid_export.models.upscaler import UpscalerNet, UpscalerOptions
from fastvid_export.training import material
from fastvid_export.training.bank import ArrayBank, open_or_build
from fastvid_export.training.degradations import Degradation, Picture, degrade, draw
from fastvid_export.training.drawings import drawn_pictures
from fastvid_export.training.loop import Batch
from fastvid_export.training.losses import charbonnier
from fastvid_export.training.sheets import save_sheet
from fastvid_export.training.upscaling import (
    DRAWN,
    UpscalingData,
    luma_psnr,
    reduced,
    turned,
)

_SIDE = 112
"""Of the stored small pictures."""
_FRAMES = 4
"""Of a clip that is degraded, of which the last and one other are stored."""
_PHOTO_FACTORS = (2.0, 3.0, 4.5)
_WINDOWS = 20
"""Windows of each reduced photo."""
_MOMENTS, _CROPS = 12, 5
"""Moments of each clip, and windows of each moment."""
_DRAWN, _DRAWN_WINDOWS = 90, 4
"""Drawn pictures, and windows of each."""

HELD_BACK = (
    ("light", Degradation(crf=23)),
    ("compressed", Degradation(crf=31, blur=0.6)),
    ("noisy", Degradation(crf=26, noise=6.0)),
    ("coloured", Degradation(crf=24, noise=6.0, colour_noise=True, blotches=8.0)),
)
"""Degradations that validate: a good upload, a bad one, a dark room, and a phone in it."""
_HELD_BACK_FRAMES = 6


@dataclass(frozen=True)
class RealSample:
    """A degraded clip of held-back material and its truth."""

    name: str
    """Kind of degradation and source."""
    small: NDArray[np.uint8]
    """uint8 RGB (T, H, W, 3), degraded."""
    truth: NDArray[np.uint8]
    """uint8 RGB (T, sH, sW, 3)."""


class RestorationTask:
    """Trains `UpscalerNet` with colour on degraded video; implements `loop.Task`.

    Args:
        options: Shape of the network.
        settings: Sampling.
        data: Folder of material, see `material`.
        cache: Folder for prepared material.
    """

    name = "upscaler"

    def __init__(
        self, options: UpscalerOptions, settings: UpscalingData, *, data: Path, cache: Path
    ) -> None:
        self.options, self.settings = options, settings
        self.data, self.cache = data, cache
        self._bank: ArrayBank | None = None
        self._samples: list[RealSample] | None = None

    def build(self) -> nn.Module:
        """The untrained network, which is bicubic interpolation."""
        return UpscalerNet(self.options)

    def prepare(self) -> None:
        """Builds or opens the pairs."""
        scale = self.options.scale
        photos = material.photos(self.data, held_back=False)
        clips = material.clips(self.data, held_back=False)
        recipe = {
            "version": 4,
            "scale": scale,
            "counts": [_SIDE, _FRAMES, *_PHOTO_FACTORS, _WINDOWS, _MOMENTS, _CROPS, _DRAWN],
            "files": [p.name for p in photos + clips],
        }
        path = self.cache / f"real-x{scale}"
        self._bank = open_or_build(path, recipe, _pairs(photos, clips, scale))
        self._names = sorted({name.split(":")[0] for name in self._bank})
        self._weights = self.settings.chances(self._names)

    def batch(self, rng: np.random.Generator) -> Batch:
        """`low` (N, 3, S, S), wanted `colour` (N, 2, S, S) and `high` (N, 1, sS, sS), uint8."""
        assert self._bank is not None
        side, size, scale = self.settings.patch, self.settings.batch, self.options.scale
        low = np.empty((size, side, side, 3), np.uint8)
        high = np.empty((size, scale * side, scale * side), np.uint8)
        colour = np.empty((size, side, side, 2), np.uint8)
        for i, k in enumerate(rng.choice(len(self._names), size, p=self._weights)):
            y, x = rng.integers(_SIDE - side + 1, size=2)
            turns, flip = int(rng.integers(4)), bool(rng.integers(2))
            name = self._names[k]
            for part, target, unit in (
                ("low", low, 1),
                ("colour", colour, 1),
                ("high", high, scale),
            ):
                area = self._bank[f"{name}:{part}"][
                    unit * y : unit * (y + side), unit * x : unit * (x + side)
                ]
                target[i] = turned(area, turns, flip)
        return {
            "low": torch.from_numpy(low).movedim(-1, 1),
            "high": torch.from_numpy(high)[:, None],
            "colour": torch.from_numpy(colour).movedim(-1, 1),
        }

    def loss(
        self, model: nn.Module, batch: Batch, progress: float
    ) -> tuple[Tensor, dict[str, float]]:
        """Charbonnier of luma, and of chroma with half the weight."""
        assert isinstance(model, UpscalerNet)
        low = batch["low"].float() / 255.0
        high, colour = batch["high"].float() / 255.0, _centred(batch["colour"].float() / 255.0)
        luma, chroma = model.with_colour(low[:, :1], _centred(low[:, 1:]))
        luma, chroma = luma.float(), chroma.float()
        squared = float((luma.detach() - high).square().mean())
        figures = {"psnr": -10.0 * float(np.log10(squared + 1e-9))}
        return charbonnier(luma, high) + 0.5 * charbonnier(chroma, colour), figures

    def validate(self, model: nn.Module, samples: Path, step: int) -> dict[str, float]:
        """Gain over bicubic resizing in dB of luma, and flicker beside it, per degradation."""
        assert isinstance(model, UpscalerNet)
        if self._samples is None:
            self._samples = held_back(self.data, self.cache, self.options.scale)
        figures: dict[str, list[float]] = {}
        tiles = []
        for sample in self._samples:
            low = torch.from_numpy(_ycc(sample.small)).movedim(-1, 1).float() / 255.0
            large = model.with_colour(low[:, :1], _centred(low[:, 1:]))[0][:, 0].clamp(0, 1)
            ours = large.numpy() * 255.0
            bicubic, truth = _luma(enlarged(sample.small, self.options.scale)), _luma(sample.truth)
            for name, value in compared(ours, bicubic, truth, self.options.scale).items():
                figures.setdefault(f"{sample.name.split(':')[0]}_{name}", []).append(value)
            tiles.append([_tile(bicubic[-1]), _tile(ours[-1]), _tile(truth[-1])])
        save_sheet(tiles[::2], samples / f"step_{step:06d}.png", side=256)
        return {name: float(np.mean(values)) for name, values in sorted(figures.items())}

    def score(self, metrics: dict[str, float]) -> float:
        """All degradations count the same."""
        return sum(metrics[f"{name}_gain"] for name, _ in HELD_BACK)


def compared(
    ours: NDArray[np.float64], plain: NDArray[np.float64], truth: NDArray[np.float64], scale: int
) -> dict[str, float]:
    """Figures of a restored clip beside the merely resized one.

    Args:
        ours: Luma (T, H, W), 0..255.
        plain: The same of the input, resized.
        truth: The same.
        scale: Border that is left out.

    Returns:
        `psnr` and `gain` over `plain` in dB; `flicker`, the mean error of the differences between
        neighbouring frames in levels, and `flicker_share`, that divided by the flicker of `plain`.
    """
    psnr, other = (
        float(np.mean([luma_psnr(a, b, border=scale) for a, b in zip(clip, truth, strict=True)]))
        for clip in (ours, plain)
    )
    flicker, before = (
        float(np.abs(np.diff(clip, axis=0) - np.diff(truth, axis=0)).mean())
        for clip in (ours, plain)
    )
    return {
        "psnr": psnr,
        "gain": psnr - other,
        "flicker": flicker,
        "flicker_share": flicker / max(before, 1e-6),
    }


def colour_share(
    ours: NDArray[np.uint8], plain: NDArray[np.uint8], truth: NDArray[np.uint8]
) -> float:
    """Mean error of the colour differences of RGB frames (T, H, W, 3), over that of `plain`."""

    def error(clip: NDArray[np.uint8]) -> float:
        pairs = (_ycc(picture)[..., 1:].astype(np.int16) for picture in (clip, truth))
        return float(np.abs(next(pairs) - next(pairs)).mean())

    return error(ours) / max(error(plain), 1e-6)


def enlarged(clip: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Bicubically resized frames (T, H, W, 3)."""
    if scale == 1:
        return clip
    size = (clip.shape[2] * scale, clip.shape[1] * scale)
    pictures = [Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC) for frame in clip]
    return np.stack([np.asarray(picture) for picture in pictures])


def held_back(data: Path, cache: Path, scale: int) -> list[RealSample]:
    """Degraded clips of material that never trains."""
    clips = material.clips(data, held_back=True)
    recipe: dict[str, object] = {
        "version": 3,
        "scale": scale,
        "frames": _HELD_BACK_FRAMES,
        "settings": [repr(kind) for kind in HELD_BACK],
        "files": [p.name for p in clips],
    }
    bank = open_or_build(cache / f"real_held_back-x{scale}", recipe, _held_back(clips, scale))
    names = sorted({name.rsplit(":", 1)[0] for name in bank})
    return [
        RealSample(n, np.array(bank[f"{n}:small"]), np.array(bank[f"{n}:truth"])) for n in names
    ]


def _held_back(clips: list[Path], scale: int) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    rng = np.random.default_rng(11)
    for path in clips:
        frames = [
            material.reduce(Image.fromarray(frame), max(1.5, frame.shape[1] / 640))
            for frame in material.read_frames(path, start=20, count=_HELD_BACK_FRAMES)
        ]
        unit = 4 * scale
        width, height = (min(side, 384) // unit * unit for side in frames[0].size)
        left, top = (frames[0].width - width) // 2, (frames[0].height - height) // 2
        box = (left, top, left + width, top + height)
        truth = [np.asarray(frame.crop(box)) for frame in frames]
        for kind, settings in HELD_BACK:
            yield f"{kind}:{path.stem}:small", np.stack(degrade(truth, scale, settings, rng))
            yield f"{kind}:{path.stem}:truth", np.stack(truth)


def _pairs(
    photos: list[Path], clips: list[Path], scale: int
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    rng = np.random.default_rng([7, scale])
    side = _SIDE * scale
    for path in photos:
        photo = material.load_photo(path)
        for factor in _PHOTO_FACTORS:
            picture = np.asarray(material.reduce(photo, factor))
            if min(picture.shape[:2]) < side + 8:
                continue
            for index in range(_WINDOWS):
                frames = _moving_window(picture, side, rng)
                yield from _stored(f"{path.stem}/{factor:g}/{index}", frames, scale, rng)
    for number, drawn in enumerate(drawn_pictures(photos, _DRAWN, side + 64)):
        for index in range(_DRAWN_WINDOWS):
            frames = _moving_window(drawn, side, rng)
            yield from _stored(f"{DRAWN}{number}/{index}", frames, scale, rng)
    for path in clips:
        moments = list(material.read_frames(path, count=_MOMENTS * 20))
        for moment in range(0, len(moments) - _FRAMES, 20):
            found = moments[moment : moment + _FRAMES]
            factor = 1.5 if min(found[0].shape[:2]) < 500 else 2.0
            clip = [np.asarray(material.reduce(Image.fromarray(f), factor)) for f in found]
            if min(clip[0].shape[:2]) < side:
                clip = found
            if min(clip[0].shape[:2]) < side:
                continue
            for index in range(_CROPS):
                y = int(rng.integers(clip[0].shape[0] - side + 1))
                x = int(rng.integers(clip[0].shape[1] - side + 1))
                frames = [frame[y : y + side, x : x + side] for frame in clip]
                yield from _stored(f"{path.stem}/{moment}/{index}", frames, scale, rng)


def _moving_window(picture: Picture, side: int, rng: np.random.Generator) -> list[Picture]:
    """A window that a camera moves evenly over a picture; the more detailed of two places."""
    places = []
    for _ in range(2):
        y, x = (int(rng.integers(length - side + 1)) for length in picture.shape[:2])
        area = picture[y : y + side, x : x + side].astype(np.int16)
        places.append((float(np.abs(np.diff(area, axis=1)).mean()), y, x))
    _, y, x = max(places)
    speed = rng.integers(-6, 7, size=2) * (rng.random() < 0.7)
    frames = []
    for k in range(_FRAMES):
        top = int(np.clip(y + k * speed[0], 0, picture.shape[0] - side))
        left = int(np.clip(x + k * speed[1], 0, picture.shape[1] - side))
        frames.append(picture[top : top + side, left : left + side])
    return frames


def _stored(
    name: str, frames: Sequence[Picture], scale: int, rng: np.random.Generator
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    name = name.replace(":", "_")
    harmed = degrade(frames, scale, draw(rng, scale), rng)
    for k in (int(rng.integers(_FRAMES - 1)), _FRAMES - 1):
        clean = reduced(Image.fromarray(np.ascontiguousarray(frames[k])), scale)
        yield f"{name}/{k}:low", _ycc(harmed[k])
        yield f"{name}/{k}:high", _ycc(frames[k])[..., 0]
        yield f"{name}/{k}:colour", _ycc(np.asarray(clean))[..., 1:]


def _luma(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    return frames.astype(np.float64) @ np.array([0.299, 0.587, 0.114])


def _ycc(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Full-range BT.601 luma and colour differences around 128, uint8 (..., 3)."""
    luma = _luma(frames)
    blue = (frames[..., 2] - luma) / 1.772 + 128.0
    red = (frames[..., 0] - luma) / 1.402 + 128.0
    return np.clip(np.rint(np.stack([luma, blue, red], -1)), 0, 255).astype(np.uint8)


def _centred(chroma: Tensor) -> Tensor:
    return chroma - 128.0 / 255.0


def _tile(luma: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(luma.astype(np.float32) / 255.0)[None, None]
