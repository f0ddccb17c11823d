"""The graphs of Wan's pipelines, with inputs to check them with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fastvid_export.large_graphs import hollow
from fastvid_export.models.clip_vision import ClipVision
from fastvid_export.models.t5 import T5Encoder
from fastvid_export.models.wan_transformer import WanTransformer
from fastvid_export.models.wan_vae import WanVae
from fastvid_export.models.wan_vae_graph import DecoderFirst, DecoderNext, EncoderFirst, EncoderNext
from fastvid_export.onnx import Arrays, GraphPlan, Port
from fastvid_export.weight_files import Weights

_GRID = (3, 6, 8)
"""Latents that transformers are checked on."""
_PLANE = (4, 6)
"""And autoencoders."""


@dataclass(frozen=True)
class Network:
    """A network and where its weights come from."""

    module: nn.Module
    weights: Weights
    names: Mapping[str, str]
    """Names of the weights by the module's keys."""

    def load(self) -> nn.Module:
        """The module with its weights, in float32."""
        state = {key: self.weights.read(name).float() for key, name in self.names.items()}
        self.module.load_state_dict(state, strict=True, assign=True)
        return self.module


@dataclass(frozen=True)
class Part:
    """A graph to be, and the weights of its module."""

    plan: GraphPlan
    weights: Weights
    names: Mapping[str, str]


def _part(network: Network, plan: GraphPlan, prefix: str = "") -> Part:
    names = {f"{prefix}{key}": name for key, name in network.names.items()}
    return Part(plan, network.weights, names)


def text_encoder(network: Network) -> Part:
    """`input_ids` and `attention_mask` to `prompt_embeds`."""
    module = network.module
    assert isinstance(module, T5Encoder)
    o = module.options
    rng = np.random.default_rng(0)
    ids = rng.integers(0, o.vocab_size, (2, 9))
    mask = np.ones_like(ids)
    mask[1, 6:] = 0
    one = {"input_ids": ids[:1, :5].copy(), "attention_mask": mask[:1, :5].copy()}
    plan = GraphPlan(
        "text_encoder",
        module,
        (
            Port("input_ids", "int64", ("N", "L"), (0, o.vocab_size - 1)),
            Port("attention_mask", "int64", ("N", "L"), (0, 1)),
        ),
        (Port("prompt_embeds", "float32", ("N", "L", o.d_model)),),
        {"random": [{"input_ids": ids, "attention_mask": mask}, one]},
    )
    return _part(network, plan)


def image_encoder(network: Network, pictures: int) -> Part:
    """`frames`, one picture or the first and the last, to `image_embeds`."""
    module = network.module
    assert isinstance(module, ClipVision)
    o = module.options
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 256, (pictures, o.image_size, o.image_size, 3), np.uint8)
    tokens = 1 + (o.image_size // o.patch_size) ** 2
    plan = GraphPlan(
        "image_encoder",
        module,
        (Port("frames", "uint8", (pictures, o.image_size, o.image_size, 3)),),
        (Port("image_embeds", "float32", (pictures, tokens, o.hidden_size)),),
        {"random": [{"frames": frames}]},
    )
    return _part(network, plan)


def transformer(
    network: Network,
    *,
    name: str,
    tokens: int,
    image_tokens: int = 0,
) -> Part:
    """Noisy latents, timestep, prompt and pictures to the velocity.

    Args:
        network: A `WanTransformer`.
        name: Of the graph.
        tokens: Of a padded prompt.
        image_tokens: That the image encoder makes of a picture; 0 where there is none.
    """
    module = network.module
    assert isinstance(module, WanTransformer)
    o = module.options
    grid = ("T", "h", "w")
    pairs = o.pos_embed_seq_len is not None
    further = o.in_channels - o.out_channels
    ports = [
        Port("hidden_states", "float32", ("N", o.out_channels, *grid)),
        Port("timestep", "float32", ("N", "T") if o.per_frame else ("N",), (0.0, 1000.0)),
        Port("encoder_hidden_states", "float32", ("N", tokens, o.text_dim)),
    ]
    if further:
        ports.append(Port("condition", "float32", ("N", further, *grid)))
    if o.image_dim is not None:
        # Of a pair both pictures are there for each clip.
        rows = "2*N" if pairs else "N"
        ports.append(Port("image_embeds", "float32", (rows, image_tokens, o.image_dim)))
    samples = []
    for seed, (count, frames, height, width) in enumerate(((2, *_GRID), (1, 2, 4, 6))):
        rng = np.random.default_rng(10 + seed)
        sizes = {"N": count, "2*N": 2 * count, "T": frames, "h": height, "w": width}
        samples.append(
            {p.name: _drawn(rng, tuple(sizes.get(str(d), d) for d in p.shape), p) for p in ports}
        )
    plan = GraphPlan(
        name,
        _Called(module, tuple(port.name for port in ports)),
        tuple(ports),
        (Port("sample", "float32", ("N", o.out_channels, *grid)),),
        {"random": samples},
    )
    return _part(network, plan, "network.")


class _Called(nn.Module):
    """A network that takes its inputs in the order of the ports."""

    def __init__(self, network: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.network, self.names = network, names

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.network(**dict(zip(self.names, inputs, strict=True)))
        return result


def _drawn(rng: np.random.Generator, shape: Sequence[object], port: Port) -> NDArray[np.float32]:
    values = rng.normal(size=shape).astype(np.float32)  # type: ignore[call-overload]
    if port.name == "timestep":
        values = (500 + 200 * values).clip(0, 1000)
    return np.asarray(values, np.float32)


def autoencoder(network: Network, *, grey: bool) -> list[Part]:
    """The decoder's and the encoder's pairs of graphs.

    Args:
        network: A `WanVae`.
        grey: Whether frames go in as float32 from 0 to 255, so that there is a middle grey.
    """
    vae = network.module
    assert isinstance(vae, WanVae)
    o = vae.options
    side, step = o.spatial, o.temporal
    latent = Port("latents", "float32", (1, o.z_dim, 1, "h", "w"))
    rng = np.random.default_rng(20)
    h, w = _PLANE
    # Only their shapes are wanted here, so the weights may be any.
    hollow(vae, network.names)
    latents = rng.normal(size=(2, 1, o.z_dim, 1, h, w)).astype(np.float32)
    kind = "float32" if grey else "uint8"
    frames = rng.integers(0, 256, (1 + step, side * h, side * w, 3)).astype(kind)
    parts = []
    for coder, first, following, pieces in (
        ("decoder", DecoderFirst(vae), DecoderNext(vae), (latents[0], latents[1])),
        ("encoder", EncoderFirst(vae), EncoderNext(vae), (frames[:1], frames[1:])),
    ):
        shapes = [cache.shape for cache in _run(first, pieces[0])[1:]]
        ports = tuple(
            Port(
                f"cache_{i}",
                "float32",
                (*shape[:2], _times(shape[2], h, "h"), _times(shape[3], w, "w")),
            )
            for i, shape in enumerate(shapes)
        )
        named = {
            port.name: rng.normal(size=shape).astype(np.float32)
            for port, shape in zip(ports, shapes, strict=True)
        }
        after = tuple(Port(f"next_{port.name}", "float32", port.shape) for port in ports)
        for part, module, incoming, outgoing in (
            ("first", first, (), ports),
            ("next", following, ports, after),
        ):
            count = 1 if part == "first" else step
            limits = (0.0, 255.0) if grey and coder == "encoder" else None
            shown = "uint8" if coder == "decoder" else kind
            picture = Port("frames", shown, (count, f"{side}*h", f"{side}*w", 3), limits)
            source, result = (latent, picture) if coder == "decoder" else (picture, latent)
            sample: Arrays = {source.name: pieces[0 if part == "first" else 1]}
            if part == "next":
                sample |= named
            plan = GraphPlan(
                f"{coder}_{part}",
                module,
                (source, *incoming),
                (result, *outgoing),
                {"random": [sample]},
            )
            parts.append(_part(network, plan, "vae."))
    return parts


def _times(side: int, size: int, name: str) -> str:
    return name if side == size else f"{side // size}*{name}"


def _run(module: nn.Module, piece: NDArray) -> list[NDArray]:
    with torch.no_grad():
        return [x.contiguous().numpy() for x in module(torch.from_numpy(piece))]
