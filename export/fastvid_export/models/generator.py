"""Text to video: the text encoder and the transformer, which train together on latents."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastvid_export.models.text_encoder import PAD, TextEncoder, TextEncoderOptions
from fastvid_export.models.video_transformer import VideoTransformer, VideoTransformerOptions


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

    def transformer(self) -> VideoTransformerOptions:
        """Those of the transformer."""
        return VideoTransformerOptions(
            self.latent_channels, self.text_width, self.width, self.depth, self.heads, self.mlp
        )


class GeneratorNet(nn.Module):
    """Text encoder and transformer.

    The buffer `autoencoder` holds the digest of the encoder whose latents the network knows.
    """

    def __init__(self, options: GeneratorOptions) -> None:
        super().__init__()
        self.options = options
        self.text_encoder = TextEncoder(options.text_encoder())
        self.transformer = VideoTransformer(options.transformer())
        self.autoencoder: Tensor
        self.register_buffer("autoencoder", torch.zeros(32, dtype=torch.uint8))

    def forward(self, latents: Tensor, timestep: Tensor, ids: Tensor, condition: Tensor) -> Tensor:
        """The velocity, see `VideoTransformer`, for prompts of token ids (N, L)."""
        velocity: Tensor = self.transformer(latents, timestep, *self.read(ids), condition)
        return velocity

    def read(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """What the transformer is told of prompts (N, L): (N, L, D) and the mask (N, L)."""
        mask = (ids != PAD).long()
        return self.text_encoder(ids, mask), mask


def no_condition(latents: Tensor) -> Tensor:
    """The transformer's `condition` where nothing but the prompt is given."""
    n, c, *rest = latents.shape
    return latents.new_zeros((n, c + 1, *rest))


def condition_on(latents: Tensor, known: Tensor) -> Tensor:
    """The transformer's `condition` where frames are given.

    Args:
        latents: (N, C, T, h, w); read where `known` is 1.
        known: (N, T), 1 where the latents are given: position 0 for a first image, the first few
            for a clip to go on with, the last for a last image.
    """
    mask = known[:, None, :, None, None].expand(-1, 1, -1, *latents.shape[-2:])
    return torch.cat([latents * mask, mask], 1)
