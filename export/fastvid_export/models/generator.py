"""Text to video: the text encoder and the denoiser, which train together on latents."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastvid_export.models.denoiser import MASKS, Denoiser, DenoiserOptions
from fastvid_export.models.text_encoder import TextEncoder, TextEncoderOptions


@dataclass(frozen=True)
class GeneratorOptions:
    """Shape of both networks."""

    vocabulary: int = 512
    """Number of token ids there is room for."""
    length: int = 48
    """Tokens of a prompt, padding included."""
    text_width: int = 192
    text_depth: int = 2
    text_heads: int = 4
    latent_channels: int = 16
    width: int = 256
    depth: int = 8
    heads: int = 4
    mlp: int = 1024

    def text_encoder(self) -> TextEncoderOptions:
        """Those of the text encoder."""
        return TextEncoderOptions(
            self.vocabulary, self.length, self.text_width, self.text_depth, self.text_heads
        )

    def denoiser(self) -> DenoiserOptions:
        """Those of the denoiser."""
        return DenoiserOptions(
            self.latent_channels, self.text_width, self.width, self.depth, self.heads, self.mlp
        )


class GeneratorNet(nn.Module):
    """Text encoder and denoiser."""

    def __init__(self, options: GeneratorOptions) -> None:
        super().__init__()
        self.options = options
        self.text_encoder = TextEncoder(options.text_encoder())
        self.denoiser = Denoiser(options.denoiser())

    def forward(self, latents: Tensor, condition: Tensor, timestep: Tensor, ids: Tensor) -> Tensor:
        """The velocity, see `denoiser.Denoiser`, for prompts of token ids (N, L)."""
        text, pooled = self.text_encoder(ids)
        velocity: Tensor = self.denoiser(latents, condition, timestep, text, pooled)
        return velocity


def no_condition(latents: Tensor) -> Tensor:
    """The denoiser's `condition` where nothing but the prompt is given."""
    n, c, *rest = latents.shape
    return latents.new_zeros((n, MASKS + c, *rest))


def condition_on(
    latents: Tensor, clip: Tensor, *, last: Tensor | None = None, images: Tensor | None = None
) -> Tensor:
    """The denoiser's `condition` where frames are given.

    Args:
        latents: (N, C, T, h, w); read where `clip` is 1.
        clip: (N, T), 1 where the latents are known: position 0 for a first image, the first few
            for a clip to go on with.
        last: (N,), 1 where the last image is known.
        images: (N, C, h, w), the last image encoded alone; read where `last` is 1.
    """
    known = latents * clip[:, None, :, None, None]
    image = torch.zeros_like(clip)
    if last is not None and images is not None:
        image[:, -1] = last
        at_end = torch.zeros_like(known)
        at_end[:, :, -1] = images * last[:, None, None, None]
        known = known + at_end
    masks = torch.stack([clip, image], 1)[..., None, None]
    return torch.cat([masks.expand(-1, -1, -1, *latents.shape[-2:]), known], 1)
