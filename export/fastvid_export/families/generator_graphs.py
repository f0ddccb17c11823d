"""The graphs of a generator's bundle, and what they are checked with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn

from fastvid_export.models.decoder_graph import DecoderFirst, DecoderNext
from fastvid_export.models.generator import GeneratorNet, GeneratorOptions, condition_on
from fastvid_export.models.transformer_graph import TransformerGraph
from fastvid_export.models.video_vae import (
    BACK,
    GROUP,
    EncoderFirst,
    EncoderNext,
    Stage,
    VideoVae,
)
from fastvid_export.onnx import Arrays, GraphPlan, Port
from fastvid_export.registry import Run
from fastvid_export.training import vocabulary

Clip = NDArray[np.uint8]
"""uint8 (T, H, W, 3)."""

PROMPTS = ("a red circle moves left over a white background", "two stars meet", "")


def clip_of(frames: Sequence[NDArray[np.uint8]], size: int) -> Clip:
    """The middle of real frames, 1 + 2 groups of them, size x size."""
    middle = []
    for frame in frames[: 1 + 2 * GROUP]:
        top, left = ((side - size) // 2 for side in frame.shape[:2])
        middle.append(frame[top : top + size, left : left + size])
    return np.stack(middle)


def text_encoder_plan(
    net: GeneratorNet, options: GeneratorOptions, tokenizer: Tokenizer
) -> GraphPlan:
    """`input_ids` and `attention_mask` to `prompt_embeds`."""
    ids = vocabulary.encode(tokenizer, PROMPTS, options.length)
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, options.vocabulary, ids.shape)
    tokens = ("N", options.length)
    return GraphPlan(
        "text_encoder",
        net.text_encoder,
        (
            Port("input_ids", "int64", tokens, (0, options.vocabulary - 1)),
            Port("attention_mask", "int64", tokens, (0, 1)),
        ),
        (Port("prompt_embeds", "float32", (*tokens, options.text_width)),),
        {
            "random": [{"input_ids": drawn, "attention_mask": np.ones_like(drawn)}],
            "real": [{"input_ids": ids, "attention_mask": (ids > 0).astype(np.int64)}],
        },
        compact=True,
    )


def transformer_plan(
    net: GeneratorNet,
    vae: VideoVae,
    options: GeneratorOptions,
    tokenizer: Tokenizer,
    clip: Clip,
) -> GraphPlan:
    """Noisy latents, timestep, prompt and what is known to the velocity."""
    rng = np.random.default_rng(1)
    with torch.no_grad():
        planes = torch.from_numpy(clip).permute(0, 3, 1, 2).float().div(255)
        latents = vae.encode(planes[None]).transpose(1, 2)
        ids = torch.from_numpy(vocabulary.encode(tokenizer, PROMPTS[:2], options.length))
        text, mask = net.read(ids)
    known = torch.zeros(2, latents.shape[2])
    known[1, 0] = 1
    noisy = torch.from_numpy(rng.normal(size=(2, *latents.shape[1:])).astype(np.float32))

    def sample(hidden_states: Tensor, timestep: float, condition: Tensor) -> Arrays:
        return {
            "hidden_states": hidden_states.contiguous().numpy(),
            "timestep": np.full(2, timestep, np.float32),
            "encoder_hidden_states": text.numpy(),
            "encoder_attention_mask": mask.numpy(),
            "condition": condition.contiguous().numpy(),
        }

    condition = condition_on(latents.expand(2, -1, -1, -1, -1), known)
    narrow = [x[..., :2, :6] for x in (noisy, condition)]
    grid = ("T", "h", "w")
    tokens = ("N", options.length)
    return GraphPlan(
        "transformer",
        TransformerGraph(net.transformer),
        (
            Port("hidden_states", "float32", ("N", options.latent_channels, *grid)),
            Port("timestep", "float32", ("N",), (0.0, 1000.0)),
            Port("encoder_hidden_states", "float32", (*tokens, options.text_width)),
            Port("encoder_attention_mask", "int64", tokens, (0, 1)),
            Port("condition", "float32", ("N", options.latent_channels + 1, *grid)),
        ),
        (Port("sample", "float32", ("N", options.latent_channels, *grid)),),
        {
            "random": [
                sample(noisy, 999.0, torch.zeros_like(condition)),
                sample(narrow[0], 500.0, narrow[1]),
            ],
            "real": [sample(0.5 * latents + 0.5 * noisy, 500.0, condition)],
        },
        compact=True,
    )


def autoencoder_plans(vae: VideoVae, clip: Clip) -> list[GraphPlan]:
    """The decoder's and the encoder's pairs of graphs."""
    channels = vae.options.latent_channels
    latent = Port("latents", "float32", (1, channels, 1, "h", "w"))
    decoder_caches = _caches(vae.decoder.stages, (1, 2, 4), channels_last=True)
    encoder_caches = _caches(vae.encoder.stages, (2, 1), channels_last=False)
    rng = np.random.default_rng(2)
    noise = rng.integers(0, 256, clip.shape, np.uint8)
    decoded: dict[str, dict[str, list[Arrays]]] = {"first": {}, "next": {}}
    encoded: dict[str, dict[str, list[Arrays]]] = {"first": {}, "next": {}}
    for kind, frames in {"random": noise[:, :48], "real": clip}.items():
        first = {"frames": np.ascontiguousarray(frames[:1])}
        following = np.ascontiguousarray(frames[1 : 1 + GROUP])
        latents, caches = _run(EncoderFirst(vae), first["frames"])
        encoded["first"][kind] = [first]
        encoded["next"][kind] = [{"frames": following, **_named(encoder_caches, caches)}]
        later, _ = _run(EncoderNext(vae), following, *caches)
        decoded["first"][kind] = [{"latents": latents}]
        _, caches = _run(DecoderFirst(vae), latents)
        decoded["next"][kind] = [{"latents": later, **_named(decoder_caches, caches)}]
    plans = []
    for coder, modules, samples, ports in (
        ("decoder", (DecoderFirst(vae), DecoderNext(vae)), decoded, decoder_caches),
        ("encoder", (EncoderFirst(vae), EncoderNext(vae)), encoded, encoder_caches),
    ):
        after = tuple(Port(f"next_{port.name}", "float32", port.shape) for port in ports)
        for part, module, outgoing in zip(("first", "next"), modules, (ports, after), strict=True):
            count = 1 if part == "first" else GROUP
            frames_port = Port("frames", "uint8", (count, "8*h", "8*w", 3))
            source, result = (latent, frames_port) if coder == "decoder" else (frames_port, latent)
            incoming = () if part == "first" else ports
            plans.append(
                GraphPlan(
                    f"{coder}_{part}",
                    module,
                    (source, *incoming),
                    (result, *outgoing),
                    samples[part],
                    compact=True,
                )
            )
    return plans


def reconstruct(run: Run, clip: Clip) -> Clip:
    """A clip of 1 + k groups after the encoder's and the decoder's graphs."""
    frames = []
    encoder: Arrays = {}
    decoder: Arrays = {}
    for i, start in enumerate([0, *range(1, len(clip), GROUP)]):
        part = "first" if i == 0 else "next"
        piece = np.ascontiguousarray(clip[start : start + (1 if i == 0 else GROUP)])
        outputs = run(f"encoder_{part}", {"frames": piece, **encoder})
        latents, encoder = outputs.pop("latents"), _passed_on(outputs)
        outputs = run(f"decoder_{part}", {"latents": latents, **decoder})
        frames.append(outputs.pop("frames"))
        decoder = _passed_on(outputs)
    return np.concatenate(frames)


def _passed_on(outputs: Arrays) -> Arrays:
    return {name.removeprefix("next_"): value for name, value in outputs.items()}


def _caches(
    stages: Sequence[Stage], factors: Sequence[int], *, channels_last: bool
) -> tuple[Port, ...]:
    """A port for each block; sizes are those of its stage, `factor` times the latents'."""
    ports = []
    for stage, factor in zip(stages, factors, strict=True):
        times = "" if factor == 1 else f"{factor}*"
        size = (f"{times}h", f"{times}w")
        last = (1, *size, BACK * stage.channels)
        shape = last if channels_last else (BACK, stage.channels, *size)
        for _ in stage.blocks:
            ports.append(Port(f"cache_{len(ports)}", "float32", shape))
    return tuple(ports)


def _named(ports: Sequence[Port], arrays: Sequence[NDArray[np.float32]]) -> Arrays:
    return {port.name: array for port, array in zip(ports, arrays, strict=True)}


def _run(module: nn.Module, *inputs: NDArray) -> tuple[NDArray, list[NDArray]]:
    with torch.no_grad():
        first, *rest = module(*(torch.from_numpy(x) for x in inputs))
    return first.numpy(), [x.contiguous().numpy() for x in rest]
