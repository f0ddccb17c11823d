"""The generator's training material: latents and tokens of drawn clips, on disk in shards.

Encoding is done once; a shard is one `.npz`-like set of plain arrays, mapped from disk when read:

    shard_00012.latents.npy   float16 (clips, 1 + k, C, h, w), normalised
    shard_00012.still.npy     float16 (clips, C, h, w), of the last frame, shown for a whole group
    shard_00012.tokens.npy    uint16 (clips, captions, length)

Clip i of shard s is drawn from (seed, s, i) alone. Shards are written in one move each, so building
can be stopped, resumed, and asked for more.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from fastvid_export.errors import TrainingDataError
from fastvid_export.models.video_vae import GROUP, VideoVae
from fastvid_export.training import vocabulary
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
    shards: int,
    vae: VideoVae,
    tokenizer: Tokenizer,
    photos: Sequence[NDArray[np.uint8]],
    *,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Makes sure that the folder holds at least `shards` shards.

    Raises:
        TrainingDataError: The folder holds shards of another recipe.
    """
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / "recipe.json"
    if index.exists() and json.loads(index.read_text()) != asdict(recipe):
        raise TrainingDataError(
            f"latents: {folder} must be empty or of the same recipe, {asdict(recipe)}",
            hint="give another --cache",
        )
    index.write_text(json.dumps(asdict(recipe)))
    vae.eval()
    for number in range(shards):
        if all(shard_path(folder, number, part).exists() for part in _PARTS):
            continue
        arrays = _make(recipe, number, vae, tokenizer, photos)
        for part, array in zip(_PARTS, arrays, strict=True):
            write_array(shard_path(folder, number, part), array)
        say(f"latents: shard {number + 1} of {shards}")


class LatentBank:
    """Opened shards, as if they were one set of clips."""

    def __init__(self, folder: Path, shards: int) -> None:
        self._parts = [
            [np.load(shard_path(folder, n, part), mmap_mode="r") for n in range(shards)]
            for part in _PARTS
        ]
        self._shard = len(self._parts[0][0])

    def __len__(self) -> int:
        return self._shard * len(self._parts[0])

    def take(
        self, indices: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
        """Latents (N, C, 1 + k, h, w), still ends (N, C, h, w), tokens (N, captions, length)."""
        latents, still, tokens = (
            np.stack([part[i // self._shard][i % self._shard] for i in indices])
            for part in self._parts
        )
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


def shard_path(folder: Path, number: int, part: str) -> Path:
    """Where one array of one shard lies."""
    return folder / f"shard_{number:05d}.{part}.npy"


def write_array(path: Path, array: NDArray[np.generic]) -> None:
    """Writes an array in one move."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.save(file, array)
    os.replace(partial, path)
