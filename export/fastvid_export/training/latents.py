"""The generator's training material: latents and tokens of drawn clips, on disk in shards.

Encoding is done once:

    shard_00012.latents.npy   float16 (clips, 1 + k, C, h, w), normalised
    shard_00012.still.npy     float16 (clips, C, h, w), of the last frame, shown for a whole group
    shard_00012.tokens.npy    uint16 (clips, captions, length)

Clip i of shard s is drawn from (seed, s, i) alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from fastvid_export.models.video_vae import GROUP, VideoVae
from fastvid_export.training import shards, vocabulary
from fastvid_export.training.autoencoding import to_planes
from fastvid_export.training.world import draw_scene
from fastvid_export.training.world_captions import caption
from fastvid_export.training.world_drawing import render

_PARTS = ("latents", "still", "tokens")


@dataclass(frozen=True)
class LatentRecipe:
    """What a bank is made of; a folder holds one recipe."""

    autoencoder: str
    """Digest of the autoencoder's weights."""
    size: int = 64
    frames: int = 17
    seed: int = 11
    simple: float = 0.4
    """Share of scenes that are as simple as can be, see `world.draw_scene`."""
    captions: int = 3
    """Captions of each clip."""
    length: int = 48
    """Tokens of a caption."""
    shard: int = 1024
    """Clips in a shard."""


def build(
    folder: Path,
    recipe: LatentRecipe,
    count: int,
    vae: VideoVae,
    tokenizer: Tokenizer,
    photos: Sequence[NDArray[np.uint8]],
    *,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Makes sure that the folder holds at least `count` shards.

    Raises:
        TrainingDataError: The folder holds shards of another recipe.
    """
    vae.eval()
    shards.build(
        folder, recipe, _PARTS, count, lambda n: _make(recipe, n, vae, tokenizer, photos),
        what="latents", say=say,
    )  # fmt: skip


class LatentBank:
    """Opened shards, as if they were one set of clips."""

    def __init__(self, folder: Path, count: int) -> None:
        self._shards = shards.Shards(folder, _PARTS, count)

    def __len__(self) -> int:
        return len(self._shards)

    def take(
        self, indices: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
        """Latents (N, C, 1 + k, h, w), still ends (N, C, h, w), tokens (N, captions, length)."""
        latents, still, tokens = (self._shards.take(part, indices) for part in _PARTS)
        return (
            latents.astype(np.float32).transpose(0, 2, 1, 3, 4),
            still.astype(np.float32),
            tokens.astype(np.int64),
        )


def _make(
    recipe: LatentRecipe,
    number: int,
    vae: VideoVae,
    tokenizer: Tokenizer,
    photos: Sequence[NDArray[np.uint8]],
) -> tuple[NDArray[np.float16], NDArray[np.float16], NDArray[np.uint16]]:
    latents, still, captions = [], [], []
    step = 16
    for start in range(0, recipe.shard, step):
        clips = []
        for i in range(start, min(start + step, recipe.shard)):
            rng = np.random.default_rng([recipe.seed, number, i])
            simple = bool(rng.random() < recipe.simple)
            scene = draw_scene(rng, photos=len(photos), simple=simple)
            captions += [caption(scene, rng) for _ in range(recipe.captions)]
            clips.append(render(scene, size=recipe.size, frames=recipe.frames, photos=photos))
        frames = to_planes(torch.from_numpy(np.stack(clips)))
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            latents.append(vae.encode(frames).half().numpy())
            # As serving encodes a last image: a still clip, without its first frame.
            ends = frames[:, -1:].expand(-1, 1 + GROUP, -1, -1, -1)
            still.append(vae.encode(ends)[:, 1].half().numpy())
    tokens = vocabulary.encode(tokenizer, captions, recipe.length)
    return (
        np.concatenate(latents),
        np.concatenate(still),
        tokens.reshape(recipe.shard, recipe.captions, recipe.length).astype(np.uint16),
    )
