"""How the upscaler trains: luma pairs from photos and clips, Charbonnier loss."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor, nn

from fastvid.errors import InputError
from fastvid_export.models.upscaler import UpscalerNet, UpscalerOptions
from fastvid_export.training import material
from fastvid_export.training.bank import ArrayBank, open_or_build
from fastvid_export.training.drawings import draw_static, drawn_pictures
from fastvid_export.training.loop import Batch
from fastvid_export.training.losses import charbonnier
from fastvid_export.training.sheets import save_sheet

_PHOTO_FACTORS = (2.0, 3.0, 4.5, 6.0)
_SHARPENED_FACTORS = (2.5, 4.0)
"""Cameras and broadcasters sharpen, and leave halos along edges, which bare photos lack."""
_DRAWN, _DRAWN_SIDE = 160, 360
_FRAMES_PER_CLIP = 12
"""How many pictures are drawn, and how large."""
DRAWN = "/drawn/"
"""What names of drawn pictures begin with, and no file's."""
_LUMA = np.array([0.299, 0.587, 0.114])
# Standard figures are of limited-range luma: a smaller range, so a higher figure.
_LIMITED_RANGE = 219.0 / 255.0


@dataclass(frozen=True)
class UpscalingData:
    """What a batch is made of."""

    patch: int = 48
    """Side of the low-resolution crops, even."""
    batch: int = 16
    """Crops per step."""
    drawn: float = 0.2
    """Share of the crops that come from drawn pictures, from 0 to 1."""
    static: float = 0.06
    """Chance of a crop to show nothing but dots, from 0 to 1; `real` sees noise enough. Without,
    deep networks answer some noise with spikes far beyond black and white."""

    def __post_init__(self) -> None:
        for name, share in (("drawn", self.drawn), ("static", self.static)):
            if not 0 <= share <= 1:
                raise InputError(f"{name}: setting must be from 0 to 1, got {share}")

    def chances(self, names: Sequence[str]) -> NDArray[np.float64]:
        """How likely each picture is to be drawn from: drawn ones have their share."""
        drawn = np.array([name.startswith(DRAWN) for name in names])
        if drawn.all() or not drawn.any():
            return np.full(len(names), 1 / len(names))
        return np.where(drawn, self.drawn / drawn.sum(), (1 - self.drawn) / (~drawn).sum())


class UpscalerTask:
    """Trains `UpscalerNet` on pairs of a picture and its antialiased bicubic reduction.

    Implements `fastvid_export.training.loop.Task`.

    Args:
        options: Shape of the network.
        settings: Sampling.
        data: Folder of material, see `material`.
        cache: Folder for prepared material.
    """

    name = "upscaler"

    def __init__(
        self,
        options: UpscalerOptions,
        settings: UpscalingData | None = None,
        *,
        data: Path,
        cache: Path,
    ) -> None:
        self.options = options
        self.settings = settings or UpscalingData()
        self.data, self.cache = data, cache
        self._bank: ArrayBank | None = None
        self._held_back: ArrayBank | None = None

    def build(self) -> nn.Module:
        """The untrained network, which is bicubic interpolation."""
        return UpscalerNet(self.options)

    def prepare(self) -> None:
        """Builds or opens the pairs."""
        photos = material.photos(self.data, held_back=False)
        clips = material.clips(self.data, held_back=False)
        scale = self.options.scale
        recipe = {
            "factors": (_PHOTO_FACTORS, _SHARPENED_FACTORS),
            "frames": _FRAMES_PER_CLIP,
            "drawn": (_DRAWN, _DRAWN_SIDE),
            "files": [p.name for p in photos + clips],
            "scale": scale,
        }
        path = self.cache / f"pairs-x{scale}"
        self._bank = open_or_build(path, recipe, _training_pairs(photos, clips, scale))
        self._held_back = held_back_pictures(self.data, self.cache)
        self._names = sorted(n.removesuffix(":high") for n in self._bank if n.endswith(":high"))
        self._weights = self.settings.chances(self._names)

    def batch(self, rng: np.random.Generator) -> Batch:
        """`low` (N, 1, S, S) and `high` (N, 1, sS, sS), uint8 luma, turned and mirrored."""
        assert self._bank is not None
        side, size, scale = self.settings.patch, self.settings.batch, self.options.scale
        low = np.empty((size, 1, side, side), np.uint8)
        high = np.empty((size, 1, scale * side, scale * side), np.uint8)
        for i, k in enumerate(rng.choice(len(self._names), size, p=self._weights)):
            if rng.random() < self.settings.static:
                large = draw_static(rng, scale * side)
                small = np.asarray(reduced(Image.fromarray(large), scale))
            else:
                small, large = _crop(self._bank, self._names[k], side, scale, rng)
            turns, flip = int(rng.integers(4)), bool(rng.integers(2))
            low[i, 0], high[i, 0] = turned(small, turns, flip), turned(large, turns, flip)
        return {"low": torch.from_numpy(low), "high": torch.from_numpy(high)}

    def loss(
        self, model: nn.Module, batch: Batch, progress: float
    ) -> tuple[Tensor, dict[str, float]]:
        """Charbonnier; squared error and PSNR at the end of a run were tried and gained nothing."""
        high = batch["high"].float() / 255.0
        prediction = model(batch["low"].float() / 255.0).float()
        squared = (prediction.detach() - high).square().mean()
        return charbonnier(prediction, high), {"psnr": -10.0 * float(torch.log10(squared + 1e-9))}

    def validate(self, model: nn.Module, samples: Path, step: int) -> dict[str, float]:
        """See `validate` below."""
        if self._held_back is None:
            self._held_back = held_back_pictures(self.data, self.cache)
        sheet = samples / f"step_{step:06d}.png"
        return validate(model, self._held_back, sheet, self.options.scale)

    def score(self, metrics: dict[str, float]) -> float:
        """Photos and clips count the same."""
        return metrics["photos_psnr"] + metrics["clips_psnr"]


def luma(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Full-range BT.601 luma in 0..255 of uint8 RGB (H, W, 3)."""
    return image.astype(np.float64) @ _LUMA


def reduced(image: Image.Image, scale: int) -> Image.Image:
    """Antialiased bicubic reduction by a whole factor, of which the sides are multiples."""
    size = (image.width // scale, image.height // scale)
    return image.resize(size, Image.Resampling.BICUBIC)


def even(image: Image.Image, multiple: int) -> Image.Image:
    """The image without the last rows and columns that exceed a multiple of `multiple`."""
    width, height = (side - side % multiple for side in image.size)
    return image.crop((0, 0, width, height))


def held_back_pictures(data: Path, cache: Path) -> ArrayBank:
    """RGB pictures `photo:...` and `clip:...` (H, W, 3), sides multiples of 4, that never train."""
    photos = material.photos(data, held_back=True)
    clips = material.clips(data, held_back=True)
    recipe: dict[str, object] = {"version": 2, "files": [p.name for p in photos + clips]}
    return open_or_build(cache / "held_back", recipe, _validation_pictures(photos, clips))


def validate(
    model: nn.Module, pictures: ArrayBank, sheet: Path | None, scale: int
) -> dict[str, float]:
    """PSNR of limited-range luma, `scale` pixels of border left out, beside bicubic, per kind."""
    figures: dict[str, list[float]] = {}
    tiles = []
    for name in pictures:
        picture = even(Image.fromarray(np.asarray(pictures[name])), 2 * scale)
        small = reduced(picture, scale)
        truth = _tensor(luma(np.asarray(picture)))
        bicubic = _tensor(luma(np.asarray(small.resize(picture.size, Image.Resampling.BICUBIC))))
        restored = model(_tensor(luma(np.asarray(small)))).clamp(0, 1)
        kind = name.split(":")[0] + "s"
        for key, value in (("psnr", restored), ("bicubic", bicubic)):
            figure = luma_psnr(
                value[0, 0].numpy() * 255.0, truth[0, 0].numpy() * 255.0, border=scale
            )
            figures.setdefault(f"{kind}_{key}", []).append(figure)
        tiles.append([bicubic, restored, truth])
    if sheet is not None:
        save_sheet(tiles[::2], sheet, side=192)
    means = {key: float(np.mean(values)) for key, values in sorted(figures.items())}
    for kind in ("photos", "clips"):
        if f"{kind}_psnr" in means:
            means[f"{kind}_gain"] = means[f"{kind}_psnr"] - means[f"{kind}_bicubic"]
    return means


def luma_psnr(image: NDArray[Any], truth: NDArray[Any], *, border: int = 2) -> float:
    """PSNR in dB as super-resolution papers give it: limited-range luma, without the border.

    Args:
        image: Full-range luma (H, W), 0..255.
        truth: The same.
        border: Pixels left out on each side, the scale by convention.
    """
    inner = slice(border, -border)
    difference = (image.astype(np.float64) - truth)[inner, inner] * _LIMITED_RANGE
    return 10.0 * math.log10(255.0**2 / max(float(np.mean(difference**2)), 1e-9))


def _tensor(plane: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(plane.astype(np.float32) / 255.0)[None, None]


def _crop(
    bank: ArrayBank, name: str, side: int, scale: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The more detailed of two random crops: skies and blurred backgrounds teach little."""
    low, high = bank[f"{name}:low"], bank[f"{name}:high"]
    best, detail = (0, 0), -1.0
    for _ in range(2):
        y = int(rng.integers(low.shape[0] - side + 1))
        x = int(rng.integers(low.shape[1] - side + 1))
        patch = low[y : y + side, x : x + side].astype(np.int16)
        found = float(np.abs(np.diff(patch, axis=0)).mean() + np.abs(np.diff(patch, axis=1)).mean())
        if found > detail:
            best, detail = (y, x), found
    y, x = best
    return (
        low[y : y + side, x : x + side],
        high[scale * y : scale * (y + side), scale * x : scale * (x + side)],
    )


def turned(patch: NDArray[np.uint8], turns: int, flip: bool) -> NDArray[np.uint8]:
    """The patch (H, W, ...) turned by quarters, then mirrored if `flip`."""
    patch = np.rot90(patch, turns)
    return patch[:, ::-1] if flip else patch


def _pair(name: str, image: Image.Image, scale: int) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    image = even(image, scale)
    for part, picture in (("low", reduced(image, scale)), ("high", image)):
        yield f"{name}:{part}", np.rint(luma(np.asarray(picture))).astype(np.uint8)


def sharpened(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """The image with the halos that sharpening leaves, faint to strong, narrow to wide."""
    radius, percent = rng.uniform(0.6, 2.0), rng.uniform(50, 220)
    return image.filter(ImageFilter.UnsharpMask(float(radius), int(percent), threshold=0))


def _training_pairs(
    photos: list[Path], clips: list[Path], scale: int
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    rng = np.random.default_rng(5)
    for path in photos:
        photo = material.load_photo(path)
        for factor in _PHOTO_FACTORS:
            yield from _pair(f"{path.stem}/{factor:g}", material.reduce(photo, factor), scale)
        for factor in _SHARPENED_FACTORS:
            smaller = sharpened(rng, material.reduce(photo, factor))
            yield from _pair(f"{path.stem}/{factor:g}", smaller, scale)
    for path in clips:
        for index, frame in enumerate(material.read_frames(path, step=20, count=_FRAMES_PER_CLIP)):
            factor = 1.5 if min(frame.shape[:2]) < 500 else 2.0
            smaller = material.reduce(Image.fromarray(frame), factor)
            yield from _pair(f"{path.stem}/{index}", smaller, scale)
    for index, picture in enumerate(drawn_pictures(photos, _DRAWN, _DRAWN_SIDE)):
        drawn = Image.fromarray(picture)
        if index % 3 == 0:
            drawn = sharpened(rng, drawn)
        yield from _pair(f"{DRAWN}{index}", drawn, scale)


def _validation_pictures(
    photos: list[Path], clips: list[Path]
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    for path in photos:
        photo = material.load_photo(path)
        for factor in (photo.width / 720, photo.width / 1280):
            image = material.reduce(photo, factor)
            left, top = (image.width - 480) // 2, (image.height - 360) // 2
            image = image.crop((left, top, left + 480, top + 360))
            yield f"photo:{path.stem}/{factor:.2f}", np.asarray(even(image, 4))
    for path in clips:
        for index, frame in enumerate(material.read_frames(path, start=10, step=45, count=2)):
            factor = max(1.5, frame.shape[1] / 640)
            image = even(material.reduce(Image.fromarray(frame), factor), 4)
            yield f"clip:{path.stem}/{index}", np.asarray(image)
