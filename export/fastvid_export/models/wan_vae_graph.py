"""The four graphs of Wan's autoencoder: latents to uint8 frames, and frames to latents."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastvid_export import ops
from fastvid_export.models.wan_vae import Caches, WanVae

_MIDDLE = 127.5


class _Half(nn.Module):
    def __init__(self, vae: WanVae) -> None:
        super().__init__()
        self.vae = vae

    def _decoded(self, latents: Tensor, caches: Caches) -> tuple[Tensor, ...]:
        planes = self.vae.decode(latents, caches)
        return ops.planar_to_rgb(planes * 0.5 + 0.5), *caches.outgoing

    def _encoded(self, frames: Tensor, caches: Caches) -> tuple[Tensor, ...]:
        planes = (frames.to(torch.float32).permute(0, 3, 1, 2) - _MIDDLE) / _MIDDLE
        return self.vae.encode(planes, caches), *caches.outgoing


class DecoderFirst(_Half):
    """The graph `decoder_first`: starts a clip."""

    def forward(self, latents: Tensor) -> tuple[Tensor, ...]:
        """Normalised latents (1, C, 1, h, w) → frames uint8 (1, H, W, 3), and the caches."""
        return self._decoded(latents, Caches(None))


class DecoderNext(_Half):
    """The graph `decoder_next`: goes on with a clip by one latent."""

    def forward(self, latents: Tensor, *caches: Tensor) -> tuple[Tensor, ...]:
        """Latents (1, C, 1, h, w) and caches → frames uint8 (r, H, W, 3) and the next caches."""
        return self._decoded(latents, Caches(caches))


class EncoderFirst(_Half):
    """The graph `encoder_first`: starts a clip."""

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """Frames (1, H, W, 3), from 0 to 255 → normalised latents (1, C, 1, h, w), and caches."""
        return self._encoded(frames, Caches(None))


class EncoderNext(_Half):
    """The graph `encoder_next`: goes on with a clip by the frames of one latent."""

    def forward(self, frames: Tensor, *caches: Tensor) -> tuple[Tensor, ...]:
        """Frames (r, H, W, 3) and caches → latents (1, C, 1, h, w) and the next caches."""
        return self._encoded(frames, Caches(caches))
