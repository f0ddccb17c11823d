"""How the generator trains: flow matching on the latents of drawn clips, told by their captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fastvid_export.errors import TrainingDataError
from fastvid_export.models.generator import GeneratorNet, GeneratorOptions, condition_on
from fastvid_export.models.video_vae import VideoVae, VideoVaeOptions
from fastvid_export.training import checkpoint as ckpt
from fastvid_export.training import vocabulary
from fastvid_export.training.autoencoding import backdrop_photos, to_planes
from fastvid_export.training.latents import LatentBank, LatentRecipe, build
from fastvid_export.training.loop import Batch
from fastvid_export.training.losses import mean_square_unknown
from fastvid_export.training.sampling import sample
from fastvid_export.training.sheets import save_sheet
from fastvid_export.training.world import COLOURS, SHAPES, draw_scene, held_out
from fastvid_export.training.world_captions import caption
from fastvid_export.training.world_drawing import render

_TEST_SEED = 78
_DIRECTIONS = ("left", "right", "up", "down")
_SHOWN = (0, 4, 8, 12, 16)


@dataclass(frozen=True)
class GenerationData:
    """What a batch is made of, and how noise is drawn."""

    vae: Path = Path()
    """Checkpoint of the trained autoencoder."""
    shards: int = 16
    """Of encoded clips; a run may be resumed with more."""
    shard: int = 1024
    """Clips of a shard."""
    simple: float = 0.4
    """Share of clips of one plain actor over a plain backdrop."""
    batch: int = 64
    """Clips per step."""
    no_prompt: float = 0.1
    """Share of clips whose prompt is dropped, for guidance."""
    first_image: float = 0.1
    """Share of clips whose first image is given."""
    both_images: float = 0.05
    """Share of clips whose first image is given and that end with a given still one."""
    beginning: float = 0.07
    """Share of clips of which the first positions but one to three are given."""
    noise_mean: float = 0.4
    """Of the logit of the noise level; above 0, as what a prompt decides is decided early."""
    noise_deviation: float = 1.1
    contrast: float = 0.05
    """Weight of being far from the velocity of another clip (Stoica et al., 2025)."""
    tests: int = 32
    """Prompts of a validation, and clips its loss is measured on."""


class GeneratorTask:
    """Trains `GeneratorNet` on the drawn world.

    Implements `fastvid_export.training.loop.Task`.

    Args:
        options: Shape of the networks.
        settings: Sampling and loss.
        data: Folder of material: photos for backdrops; without photos none are shown.
        cache: Folder for prepared material: the latents.
    """

    name = "generator"

    def __init__(
        self,
        options: GeneratorOptions,
        settings: GenerationData | None = None,
        *,
        data: Path,
        cache: Path,
    ) -> None:
        self.options = options
        self.settings = settings or GenerationData()
        self.data, self.cache = data, cache

    def build(self) -> nn.Module:
        """Untrained networks."""
        return GeneratorNet(self.options)

    def prepare(self) -> None:
        """Encodes the clips that are missing, and the ones to validate with."""
        self._vae, self._digest = load_vae(self.settings.vae)
        self._tokenizer = vocabulary.build()
        self._empty = self._encode([""])
        s = self.settings
        digest = bytes(self._digest.tolist()).hex()
        recipe = LatentRecipe(digest, simple=s.simple, length=self.options.length, shard=s.shard)
        folder = self.cache / f"latents_{digest[:12]}"
        photos = backdrop_photos(self.data, self.cache, held_back=False)
        build(folder, recipe, s.shards, self._vae, self._tokenizer, photos, say=print)
        self._bank = LatentBank(folder, s.shards)
        self._test_batch = self._held_back(recipe)

    def batch(self, rng: np.random.Generator) -> Batch:
        """`latents` (N, C, T, h, w), `ids` (N, L), and `known` (N, T): 1 where they are given."""
        s = self.settings
        latents, ends, tokens = self._bank.take(rng.integers(0, len(self._bank), s.batch))
        ids = tokens[np.arange(s.batch), rng.integers(0, tokens.shape[1], s.batch)]
        ids[rng.random(s.batch) < s.no_prompt] = self._empty.numpy()
        known = np.zeros((s.batch, latents.shape[2]), np.float32)
        for i, kind in enumerate(rng.random(s.batch)):
            if kind < s.first_image + s.both_images:
                known[i, 0] = 1.0
                if kind < s.both_images:
                    known[i, -1] = 1.0
                    latents[i, :, -1] = ends[i]
            elif kind < s.first_image + s.both_images + s.beginning:
                known[i, : int(rng.integers(2, max(3, latents.shape[2] - 1)))] = 1.0
        return {
            "latents": torch.from_numpy(latents),
            "ids": torch.from_numpy(ids),
            "known": torch.from_numpy(known),
        }

    def loss(
        self, model: nn.Module, batch: Batch, progress: float
    ) -> tuple[Tensor, dict[str, float]]:
        """Squared error of the velocity, where it is not given away by known latents."""
        assert isinstance(model, GeneratorNet)
        model.autoencoder.copy_(self._digest)
        s = self.settings
        count = len(batch["latents"])
        levels = torch.sigmoid(s.noise_mean + s.noise_deviation * torch.randn(count))
        error, other = self._errors(model, batch, levels, torch.randn_like(batch["latents"]))
        return error - s.contrast * other, {"error": float(error.detach())}

    def _errors(
        self, model: nn.Module, batch: Batch, levels: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mean squared error to the clip's velocity, and to that of its neighbour in the batch."""
        latents, known = batch["latents"], batch["known"]
        share = levels[:, None, None, None, None]
        noisy = latents + share * (noise - latents)
        condition = condition_on(latents, known)
        velocity = model(noisy, levels * 1000.0, batch["ids"], condition).float()
        target = noise - latents
        error, other = (
            mean_square_unknown(velocity - goal, known) for goal in (target, target.roll(1, 0))
        )
        return error, other

    def validate(self, model: nn.Module, samples: Path, step: int) -> dict[str, float]:
        """Loss on held-out combinations, and what samples of their prompts show."""
        assert isinstance(model, GeneratorNet)
        rng = torch.Generator().manual_seed(_TEST_SEED)
        batch = self._test_batch
        levels = (torch.arange(len(batch["latents"])) + 0.5) / len(batch["latents"])
        noise = torch.randn(batch["latents"].shape, generator=rng)
        with torch.autocast("cpu", torch.bfloat16):
            error, _ = self._errors(model, batch, levels, noise)
            wanted = held_out_prompts(self.settings.tests)
            latents = sample(
                model, self._encode([prompt for prompt, *_ in wanted]), self._empty, noise
            )
        return {"error": float(error), **adherence(self._vae, latents, wanted, samples, step)}

    def score(self, metrics: dict[str, float]) -> float:
        """Adherence; the loss decides between equals."""
        right = metrics["colour"] + metrics["shape"] + metrics["direction"]
        return right - 0.1 * metrics["error"]

    def _encode(self, prompts: list[str]) -> Tensor:
        return torch.from_numpy(vocabulary.encode(self._tokenizer, prompts, self.options.length))

    def _held_back(self, recipe: LatentRecipe) -> Batch:
        photos = backdrop_photos(self.data, self.cache, held_back=True)
        clips, captions = [], []
        for i in range(self.settings.tests):
            rng = np.random.default_rng([_TEST_SEED, i])
            scene = draw_scene(rng, photos=len(photos), test=True)
            captions.append(caption(scene, rng))
            clips.append(render(scene, size=recipe.size, frames=recipe.frames, photos=photos))
        with torch.no_grad():
            latents = self._vae.encode(to_planes(torch.from_numpy(np.stack(clips))))
        latents = latents.transpose(1, 2).contiguous()
        return {
            "latents": latents,
            "ids": self._encode(captions),
            "known": torch.zeros(len(latents), latents.shape[2]),
        }


def adherence(
    vae: VideoVae, latents: Tensor, wanted: Sequence[tuple[str, ...]], samples: Path, step: int
) -> dict[str, float]:
    """Shares of clips that show what was asked for; writes a contact sheet.

    Args:
        vae: Decodes `latents`.
        latents: Samples (N, C, T, h, w).
        wanted: For each the prompt, and the colour, shape and direction it asks for.
        samples: Folder of the sheet.
        step: Names the sheet.
    """
    # Only here: exporting a generator needs no OpenCV.
    from fastvid_export.training.detection import detect

    frames = vae.decode(latents.transpose(1, 2))
    right = np.zeros(3)
    for clip, (_, *asked) in zip(frames, wanted, strict=True):
        pixels = clip.mul(255).round().byte().permute(0, 2, 3, 1).numpy()
        seen = detect(pixels)
        found = (seen.colour, seen.shape, seen.direction)
        right += [a == b for a, b in zip(asked, found, strict=True)]
    shown = [i for i in _SHOWN if i < frames.shape[1]]
    rows = [
        [frames[j : j + 1, i] for j in (k, k + len(frames) // 2) for i in shown]
        for k in range(min(16, len(frames) // 2))
    ]
    save_sheet(rows, samples / f"step_{step:06d}.png")
    colour, shape, direction = (right / len(wanted)).tolist()
    return {"colour": colour, "shape": shape, "direction": direction}


def held_out_prompts(count: int) -> list[tuple[str, str, str, str]]:
    """Prompts of combinations that never train, with the colour, shape and direction they ask for.

    The same first prompts whatever `count` is.
    """
    every = [
        (colour, shape, motion)
        for colour in COLOURS
        for shape in SHAPES
        for motion in _DIRECTIONS
        if held_out(shape, colour, motion)
    ]
    order = np.random.default_rng(_TEST_SEED).permutation(len(every))
    chosen = [every[order[i % len(every)]] for i in range(count)]
    return [
        (
            f"a {c} {s} moves {m} over a {_backdrop_for(c)} background".replace("a o", "an o"),
            c,
            s,
            m,
        )
        for c, s, m in chosen
    ]


def _backdrop_for(colour: str) -> str:
    return "grey" if colour in ("white", "yellow") else "white"


def load_vae(path: Path) -> tuple[VideoVae, Tensor]:
    """The averaged autoencoder of a checkpoint, for use only, and the digest of its encoder.

    Raises:
        CheckpointError: The file is no checkpoint of an autoencoder.
        TrainingDataError: No file is named.
    """
    if path == Path():
        raise TrainingDataError("vae: setting must name a checkpoint", hint="add --set vae=FILE")
    state = ckpt.load(path, task="video-vae")
    vae = VideoVae(VideoVaeOptions(**state.options))
    vae.load_state_dict(state.ema)
    vae = vae.to(memory_format=torch.channels_last).eval().requires_grad_(False)
    return vae, encoder_digest(state)


def encoder_digest(state: ckpt.Checkpoint) -> Tensor:
    """What tells the latents of one autoencoder from those of another, uint8 (32,).

    Latents depend on the encoder alone: the decoder may go on training.
    """
    return torch.tensor(list(ckpt.digest(state, without="decoder.")), dtype=torch.uint8)
