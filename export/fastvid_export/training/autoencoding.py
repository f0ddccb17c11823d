"""How the video autoencoder trains: drawn scenes in, the same frames out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from fastvid_export.models.video_vae import VideoVae, VideoVaeOptions
from fastvid_export.training import material
from fastvid_export.training.bank import open_or_build
from fastvid_export.training.loop import Batch
from fastvid_export.training.losses import charbonnier, psnr
from fastvid_export.training.sheets import save_sheet
from fastvid_export.training.world import draw_scene
from fastvid_export.training.world_drawing import render

_PHOTO_SIDE = 192
_TEST_CLIPS = 32
_TEST_SEED = 77
_SHOWN = (0, 1, 3, 4, 8, 12, 16)


@dataclass(frozen=True)
class AutoencodingData:
    """What a batch is made of, and what the loss weighs."""

    batch: int = 8
    """Clips per step."""
    size: int = 64
    """Side of the frames."""
    frames: int = 17
    """Length of the clips, 4k + 1."""
    large: float = 0.25
    """Share of the clips that are crops of scenes drawn at twice the size."""
    divergence: float = 1e-3
    """Weight of the divergence from a unit Gaussian, per element of the latents."""
    squared: float = 10.0
    """Weight of the squared error beside the absolute one: small moving things cover few pixels."""
    decoder_only: bool = False
    """Leave the encoder as it is, for a run that starts from another's weights: what was trained on
    its latents stays valid."""
    halved: float = 0.25
    """Weight of decoding halved latents to halved frames, see `VideoVaeTask.loss`."""


class VideoVaeTask:
    """Trains `VideoVae` on the drawn world.

    Implements `fastvid_export.training.loop.Task`.

    Args:
        options: Shape of the network.
        settings: Sampling and loss.
        data: Folder of material: photos for backdrops; without photos none are shown.
        cache: Folder for prepared material.
    """

    name = "video-vae"

    def __init__(
        self,
        options: VideoVaeOptions,
        settings: AutoencodingData | None = None,
        *,
        data: Path,
        cache: Path,
    ) -> None:
        self.options = options
        self.settings = settings or AutoencodingData()
        self.data, self.cache = data, cache
        self._photos: list[NDArray[np.uint8]] = []

    def build(self) -> nn.Module:
        """An untrained network; with `decoder_only` its encoder takes no gradients."""
        vae = VideoVae(self.options)
        vae.encoder.requires_grad_(not self.settings.decoder_only)
        return vae

    def prepare(self) -> None:
        """Reads the photos."""
        self._photos = backdrop_photos(self.data, self.cache, held_back=False)

    def batch(self, rng: np.random.Generator) -> Batch:
        """`frames`: uint8 (N, T, H, W, 3)."""
        s = self.settings
        clips = [
            draw_clip(rng, s.size, s.frames, self._photos, large=rng.random() < s.large)
            for _ in range(s.batch)
        ]
        return {"frames": torch.from_numpy(np.stack(clips))}

    def loss(
        self, model: nn.Module, batch: Batch, progress: float
    ) -> tuple[Tensor, dict[str, float]]:
        """Absolute and squared error, divergence, and the same at half the resolution.

        Latents whose every scale decodes to the same scale of the frames hold little energy in high
        frequencies that diffusion would learn last (Skorokhodov et al., 2025); a quarter of the
        batch is enough to keep them so.
        """
        assert isinstance(model, VideoVae)
        frames = to_planes(batch["frames"])
        latents, divergence = model.sample(frames, follow=not self.settings.decoder_only)
        decoded = model.decoder(latents)
        loss = self._error(decoded, frames) + self.settings.divergence * divergence
        few = max(1, len(frames) // 4)
        if self.settings.halved:
            small = self._error(model.decoder(_halve(latents[:few])), _halve(frames[:few]))
            loss = loss + self.settings.halved * few / len(frames) * small
        error = (decoded.detach() - frames).square().mean()
        figures = {
            "psnr": -10.0 * float(torch.log10(error + 1e-9)),
            "nats": float(divergence.detach()),
        }
        return loss, figures

    def _error(self, decoded: Tensor, frames: Tensor) -> Tensor:
        squared = (decoded - frames).square().mean()
        return charbonnier(decoded, frames) + self.settings.squared * squared

    def validate(self, model: nn.Module, samples: Path, step: int) -> dict[str, float]:
        """PSNR on scenes of held-out combinations, with held-back photos."""
        assert isinstance(model, VideoVae)
        photos = backdrop_photos(self.data, self.cache, held_back=True)
        figures, rows = [], []
        for frames in test_clips(_TEST_CLIPS, self.settings.size, self.settings.frames, photos):
            truth = to_planes(torch.from_numpy(frames)[None])
            decoded = model.decode(model.encode(truth))
            figures.append(psnr(decoded, truth))
            if len(rows) < 16:
                shown = [i for i in _SHOWN if i < truth.shape[1]]
                rows.append([x[:, i] for i in shown for x in (truth, decoded)])
        save_sheet(rows, samples / f"step_{step:06d}.png")
        return {"psnr": float(np.mean(figures)), "worst": float(np.min(figures))}

    def score(self, metrics: dict[str, float]) -> float:
        """The mean PSNR."""
        return metrics["psnr"]


def to_planes(frames: Tensor) -> Tensor:
    """uint8 (N, T, H, W, 3) → float32 (N, T, 3, H, W) in [0, 1]."""
    return frames.permute(0, 1, 4, 2, 3).float() / 255.0


def draw_clip(
    rng: np.random.Generator,
    size: int,
    frames: int,
    photos: list[NDArray[np.uint8]],
    *,
    large: bool = False,
    test: bool = False,
) -> NDArray[np.uint8]:
    """A random scene as uint8 (T, H, W, 3); `large` cuts a random quarter out of a larger one."""
    scene = draw_scene(rng, photos=len(photos), test=test)
    if not large:
        return render(scene, size=size, frames=frames, photos=photos)
    clip = render(scene, size=2 * size, frames=frames, photos=photos)
    y, x = rng.integers(0, size + 1, 2)
    return clip[:, y : y + size, x : x + size]


def test_clips(
    count: int, size: int, frames: int, photos: list[NDArray[np.uint8]]
) -> Iterator[NDArray[np.uint8]]:
    """Always the same scenes, whose first actor is a combination that never trains."""
    for i in range(count):
        yield draw_clip(np.random.default_rng([_TEST_SEED, i]), size, frames, photos, test=True)


def backdrop_photos(data: Path, cache: Path, *, held_back: bool) -> list[NDArray[np.uint8]]:
    """Square photos (192, 192, 3) for backdrops, two of each; none where `data` has no photos."""
    if not any((data / "photos").glob("*/*")):
        return []
    files = material.photos(data, held_back=held_back)
    bank = open_or_build(
        cache / ("backdrops_held_back" if held_back else "backdrops"),
        {"side": _PHOTO_SIDE, "files": [path.name for path in files]},
        _squares(files),
    )
    return [np.array(bank[name]) for name in sorted(bank)]


def _squares(files: list[Path]) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    for path in files:
        photo = material.load_photo(path)
        side = min(photo.size)
        for i, share in enumerate((0.0, 1.0)):
            left, top = (round(share * (length - side)) for length in photo.size)
            square = photo.crop((left, top, left + side, top + side))
            small = square.resize((_PHOTO_SIDE, _PHOTO_SIDE), Image.Resampling.LANCZOS)
            yield f"{path.stem}/{i}", np.asarray(small)


def _halve(x: Tensor) -> Tensor:
    """(N, T, C, H, W) → (N, T, C, H / 2, W / 2)."""
    return F.avg_pool2d(x.flatten(0, 1), 2).unflatten(0, x.shape[:2])
