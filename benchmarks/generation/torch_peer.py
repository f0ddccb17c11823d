"""The generator in torch: the exporter's modules on the weights that the bundle was made of."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fastvid import ops
from fastvid_export.compact import round_weights
from fastvid_export.models.generator import GeneratorNet, GeneratorOptions, no_condition
from fastvid_export.models.video_vae import GROUP, PATCH, VideoVae, VideoVaeOptions
from fastvid_export.training import checkpoint as ckpt
from fastvid_export.training import vocabulary
from fastvid_export.training.sampling import sample

Decode = Callable[[Tensor], Tensor]
"""Latents (1, C, T, h, w) to frames (1, 1 + 4k, 3, H, W) in [0, 1]."""


class Peer:
    """Draws what the bundle draws.

    Args:
        checkpoint: Of the generator, of few steps or not.
        vae: Of the autoencoder.
        threads: Of torch.
        compiled: Whether `methods` has compiled networks too.
    """

    def __init__(self, checkpoint: Path, vae: Path, threads: int, compiled: bool) -> None:
        torch.set_num_threads(threads)
        state = ckpt.load(checkpoint)
        # Those that a generator of few steps has beside the network's.
        options = {k: v for k, v in state.options.items() if k not in ("jumps", "shift")}
        self._net = GeneratorNet(GeneratorOptions(**options))
        self._net.load_state_dict(state.ema)
        part = ckpt.load(vae, task="video-vae")
        self._vae = VideoVae(VideoVaeOptions(**part.options))
        self._vae.load_state_dict(part.ema)
        for network in (self._net, self._vae):
            round_weights(network)
            network.eval().requires_grad_(False)
        self._streaming = copy.deepcopy(self._vae).to(memory_format=torch.channels_last)
        self._tokenizer = vocabulary.build()
        self._length = state.options["length"]
        self._compiled: tuple[GeneratorNet, Decode] | None = None
        if compiled:
            net = copy.deepcopy(self._net)
            net.transformer = torch.compile(net.transformer)  # type: ignore[assignment]
            decoder = torch.compile(copy.deepcopy(self._vae).decode)
            self._compiled = net, lambda latents: decoder(latents.transpose(1, 2))

    def methods(self) -> dict[str, tuple[GeneratorNet, Decode]]:
        """By name the network, and how latents are decoded."""
        methods = {
            "eager, decoded whole": (self._net, lambda z: self._vae.decode(z.transpose(1, 2))),
            "eager, latent by latent": (self._net, self._one_by_one),
        }
        return methods if self._compiled is None else {**methods, "compiled": self._compiled}

    def frames(
        self,
        prompt: str,
        seed: int,
        shift: float,
        method: tuple[GeneratorNet, Decode],
        asked: dict[str, Any],
    ) -> NDArray[np.uint8]:
        """A clip uint8 (T, H, W, 3), with the arguments `asked` of `Generator.generate`."""
        net, decode = method
        noise = torch.from_numpy(ops.randn(self._shape(asked), seed=seed))
        with torch.inference_mode():
            latents = sample(
                net,
                self._ids(prompt),
                self._ids(""),
                noise,
                steps=asked["num_inference_steps"],
                guidance=asked["guidance_scale"],
                shift=shift,
            )
            frames = decode(latents)[0].mul(255).round().byte()
            return frames.permute(0, 2, 3, 1).contiguous().numpy()

    def work(self, size: int, frames: int) -> dict[str, float]:
        """Operations and bytes of weights, of one evaluation and of decoding a whole clip."""
        shape = self._shape({"height": size, "width": size, "num_frames": frames})
        noise = torch.zeros(shape)
        text = self._net.read(self._ids("a"))
        time = torch.full((1,), 500.0)
        counted = {}
        for name, run in (
            ("evaluation", lambda: self._net.transformer(noise, time, *text, no_condition(noise))),
            ("decoding", lambda: self._vae.decode(noise.transpose(1, 2))),
        ):
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                run()
            counted[f"{name}_gflop"] = round(counter.get_total_flops() / 1e9, 3)
        parts = (("transformer", self._net.transformer), ("decoder", self._vae.decoder))
        for name, network in parts:
            weights = sum(4 * p.numel() for p in network.parameters())
            counted[f"{name}_megabytes"] = round(weights / 1e6, 2)
        return counted

    def _one_by_one(self, latents: Tensor) -> Tensor:
        decoder, pieces = self._streaming.decoder, []
        features, caches = decoder.trunk(self._streaming.raw(latents[:, :, 0]), 1, None)
        pieces.append(decoder.first_frame(features)[:, None])
        for i in range(1, latents.shape[2]):
            features, caches = decoder.trunk(self._streaming.raw(latents[:, :, i]), 1, caches)
            pieces.append(decoder.next_frames(features))
        return torch.cat(pieces, 1).clamp(0.0, 1.0)

    def _ids(self, prompt: str) -> Tensor:
        return torch.from_numpy(vocabulary.encode(self._tokenizer, [prompt], self._length))

    def _shape(self, asked: dict[str, Any]) -> tuple[int, ...]:
        count = 1 + (asked["num_frames"] - 1) // GROUP
        channels = self._vae.options.latent_channels
        return (1, channels, count, asked["height"] // PATCH, asked["width"] // PATCH)
