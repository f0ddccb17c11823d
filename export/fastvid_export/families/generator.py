"""The generator family: `GeneratorNet` on the latents of a trained `VideoVae`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastvid.bundle import QualityFigure
from fastvid.metrics import psnr
from fastvid_export.compact import round_weights
from fastvid_export.errors import ExportError
from fastvid_export.families import settings as options_of
from fastvid_export.families.generator_graphs import (
    autoencoder_plans,
    clip_of,
    reconstruct,
    text_encoder_plan,
    transformer_plan,
)
from fastvid_export.models.generator import GeneratorNet, GeneratorOptions
from fastvid_export.models.video_transformer import SPATIAL_PATCH
from fastvid_export.models.video_vae import GROUP, PATCH, VideoVae, VideoVaeOptions
from fastvid_export.registry import BundlePlan, Frames, Run
from fastvid_export.training import material, vocabulary
from fastvid_export.training.checkpoint import Checkpoint
from fastvid_export.training.generation import GenerationData, GeneratorTask, encoder_digest
from fastvid_export.training.loop import LoopConfig
from fastvid_export.training.sampling import SHIFT
from fastvid_export.training.world import draw_scene
from fastvid_export.training.world_drawing import render

SIZE = 64
FRAMES = 17
_TEST_SEED = 91


class GeneratorFamily:
    """Implements `registry.Family`."""

    name = "generator"

    def loop(self) -> LoopConfig:
        """Mostly at the peak rate, so that a run can be made to end when time does."""
        return LoopConfig(
            steps=40_000, optimizer="muon", lr=1.5e-3, final_lr=1e-5, warmup=300, hold=0.7,
            weight_decay=0.02, ema=0.9995, bfloat16_until=1.0, log_every=50, validate_every=1_000,
            save_every=200,
        )  # fmt: skip

    def task(self, data: Path, cache: Path, settings: dict[str, Any]) -> GeneratorTask:
        """Settings are the fields of `GeneratorOptions` and `GenerationData`."""
        settings = dict(settings)
        options = options_of.fill(GeneratorOptions, settings)
        sampling = options_of.fill(GenerationData, settings)
        options_of.refuse_rest(settings)
        return GeneratorTask(options, sampling, data=data, cache=cache)

    def plan(
        self, checkpoint: Checkpoint, frames: Frames, parts: Mapping[str, Checkpoint]
    ) -> BundlePlan:
        """Text encoder, transformer, and the autoencoder's four graphs; needs part `video-vae`.

        Raises:
            ExportError: There is no such part, or it has another encoder than the generator knows.
        """
        if "video-vae" not in parts:
            raise ExportError(
                "bundle: a generator needs its autoencoder, got none",
                hint="add --part video-vae=FILE",
            )
        options = GeneratorOptions(**checkpoint.options)
        net = GeneratorNet(options)
        net.load_state_dict(checkpoint.ema)
        if not torch.equal(net.autoencoder, encoder_digest(parts["video-vae"])):
            raise ExportError(
                "bundle: part video-vae must have the encoder that the generator was trained with, "
                "got another"
            )
        vae = VideoVae(VideoVaeOptions(**parts["video-vae"].options))
        vae.load_state_dict(parts["video-vae"].ema)
        for network in (net, vae):
            round_weights(network)
        clip = clip_of(frames, SIZE)
        tokenizer = vocabulary.build()
        graphs = [
            text_encoder_plan(net, options, tokenizer),
            transformer_plan(net, vae, options, tokenizer, clip),
            *autoencoder_plans(vae, clip),
        ]
        parameters = sum(p.numel() for p in net.parameters())
        return BundlePlan(
            name="generator-tiny",
            manifest={
                "task": "generator",
                "description": (
                    "Text to video of a drawn world: shapes that move over backdrops, 17 frames of "
                    f"64x64; a latent diffusion transformer of {parameters} parameters with its "
                    "text encoder, and a causal video autoencoder, weights rounded to 8 bits."
                ),
                "licence": "Apache-2.0",
                "size_rule": {
                    "minimum": 32, "multiple_of": PATCH * SPATIAL_PATCH, "padding": "none",
                    "maximum": 256,
                },
                "scheduler": {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": SHIFT},
                "generation": {
                    "height": SIZE, "width": SIZE, "num_frames": FRAMES,
                    "max_num_frames": 1 + 16 * GROUP, "frame_rate": 8, "num_inference_steps": 30,
                    "guidance_scale": 3.0, "max_prompt_tokens": options.length,
                    "latent_channels": options.latent_channels, "spatial_compression": PATCH,
                    "temporal_compression": GROUP,
                },
            },
            graphs=tuple(graphs),
            weights="Trained from scratch by the fastvid authors on scenes drawn by the trainer.",
            training_data=("scenes drawn from a seed", *material.titles_used("photos/")),
            credits=tuple(material.credit_entries("photos/")),
            files={"tokenizer.json": tokenizer.to_str().encode()},
        )  # fmt: skip

    def measure(
        self, checkpoint: Checkpoint, run: Run, data: Path, cache: Path
    ) -> list[QualityFigure]:
        """PSNR of held-out scenes after the autoencoder's graphs; the rest needs the runtime."""
        values = []
        for i in range(16):
            rng = np.random.default_rng([_TEST_SEED, i])
            clip = render(draw_scene(rng, test=True), size=SIZE, frames=FRAMES)
            values.append(psnr(reconstruct(run, clip), clip))
        return [
            QualityFigure(
                metric="PSNR of the autoencoder",
                data="16 held-out scenes",
                value=round(float(np.mean(values)), 3),
                unit="dB",
            )
        ]
