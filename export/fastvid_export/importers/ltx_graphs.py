"""The graphs of an LTX-Video bundle, and what they are checked with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from fastvid_export import onnx
from fastvid_export.importers import ImportOptions, Say, parts
from fastvid_export.large_graphs import LargeGraph
from fastvid_export.models.ltx_decoder import (
    LtxDecoderOptions,
    LtxDecoderStage,
    LtxDecoderVae,
    stages,
)
from fastvid_export.models.ltx_encoder import (
    LtxEncoderFirst,
    LtxEncoderNext,
    LtxEncoderOptions,
    LtxEncoderVae,
    strides,
)
from fastvid_export.models.ltx_transformer import (
    LtxGrid,
    LtxTransformer,
    LtxTransformerOptions,
)
from fastvid_export.models.t5 import T5Encoder, T5Options
from fastvid_export.onnx import Arrays, ExportedGraph, GraphPlan, Port
from fastvid_export.weight_files import WeightFiles, match
from fastvid_export.weight_store import WeightStore

LARGE = 1 << 28
"""Bytes of weights above which those of a network stay beside its graph."""
_HEIGHT, _WIDTH = 2, 3
"""Latents that graphs are checked with."""


def compression(options: LtxEncoderOptions) -> tuple[int, int]:
    """Pixels of a latent's side and frames of a latent."""
    side, frames = options.patch_size, 1
    for by_frames, by_side in strides(options):
        side, frames = side * by_side, frames * by_frames
    return side, frames


Graph = ExportedGraph | LargeGraph


@dataclass(frozen=True)
class _Entry:
    """A graph to be, as `parts.Part`."""

    plan: GraphPlan
    weights: WeightFiles
    names: Mapping[str, str]


def export(
    networks: Networks,
    weights: Callable[[str], WeightFiles],
    store: WeightStore,
    options: ImportOptions,
    say: Say,
) -> Mapping[str, Graph]:
    """All graphs of a pipeline, by their names.

    Args:
        networks: What it is made of.
        weights: Opens those of a component.
        store: Takes weights that stay beside their graphs: all where a component has more than
            `LARGE` bytes, or is to be made narrow or other than it is.
        options: Precision and LoRA files.
        say: Called with lines about the progress.
    """
    found = list(networks.parts())
    files = {part.component: weights(part.component) for part in found}
    large = any(one.nbytes > LARGE for one in files.values())
    if large or options.loras or options.precision != "float32":
        entries = [entry for part in found for entry in _hollow(part, files[part.component])]
        return parts.export(entries, store, options, say)
    graphs: dict[str, Graph] = {}
    for part in found:
        its = files[part.component]
        names = match(part.network, its, rename=part.rename(its), what=part.component)
        state = {key: its.read(name).to(torch.float32) for key, name in names.items()}
        part.network.load_state_dict(state, assign=True)
        part.network.eval().requires_grad_(False)
        for plan in part.plans():
            say(f"exporting {plan.name}")
            graphs[plan.name] = onnx.export(plan)
    return graphs


def _hollow(part: Part, files: WeightFiles) -> list[_Entry]:
    """Graphs whose weights stay where they are."""
    names = match(part.network, files, rename=part.rename(files), what=part.component)
    part.network.eval().requires_grad_(False)
    # Graphs are of parts of the network, which have their own names for its weights.
    keys = {id(value): key for key, value in part.network.named_parameters()}
    entries = []
    for plan in part.plans():
        own = plan.module.named_parameters()
        entries.append(_Entry(plan, files, {n: names[keys[id(value)]] for n, value in own}))
    return entries


def figures(graphs: Iterable[Graph]) -> list[dict[str, Any]]:
    """How far onnxruntime is from PyTorch, for `quality` in `bundle.json`.

    That of large graphs is their fidelity.
    """
    found = []
    for graph in graphs:
        if isinstance(graph, LargeGraph):
            continue
        each = [(d.output, d.value, d.unit) for d in graph.differences]
        output, value, unit = max(each, key=lambda one: one[1])
        found.append(
            {
                "metric": "largest difference from PyTorch",
                "data": f"{output} of {graph.plan.name}, random inputs",
                "value": float(f"{value:.3g}"),
                "unit": unit,
            }
        )
    return found


@dataclass(frozen=True)
class Part:
    """One network, on the meta device, and its graphs."""

    component: str
    network: nn.Module
    rename: Callable[[WeightFiles], Callable[[str], str | None]]
    """The network's name for a name in its files."""
    plans: Callable[[], list[GraphPlan]]
    """Made once the network has its weights, or will not be given any."""


@dataclass(frozen=True)
class Networks:
    """The networks of a pipeline."""

    text: T5Options
    transformer: LtxTransformerOptions
    grid: LtxGrid
    decoder: LtxDecoderOptions
    encoder: LtxEncoderOptions
    tokens: int
    """Of a prompt, padding included."""
    masked: bool
    """Whether tokens of a prompt do not see the padding."""

    def parts(self) -> Iterator[Part]:
        """One after another, on the meta device."""
        with torch.device("meta"):
            text = T5Encoder(self.text, masked=self.masked)
        yield Part("text_encoder", text, _t5_name, lambda: [self._text_plan(text)])
        with torch.device("meta"):
            transformer = LtxTransformer(self.transformer, self.grid)
        plan = self._transformer_plan
        yield Part("transformer", transformer, _same, lambda: [plan(transformer)])
        with torch.device("meta"):
            decoder = LtxDecoderVae(self.decoder)
        yield Part("vae", decoder, _without("encoder."), lambda: self._stage_plans(decoder))
        with torch.device("meta"):
            encoder = LtxEncoderVae(self.encoder)
        yield Part("vae", encoder, _without("decoder."), lambda: self._encoder_plans(encoder))

    def _stage_plans(self, decoder: LtxDecoderVae) -> list[GraphPlan]:
        return [self._stage_plan(number, stage) for number, stage in enumerate(stages(decoder))]

    def _text_plan(self, network: nn.Module) -> GraphPlan:
        ids = np.random.default_rng(0).integers(0, self.text.vocab_size, (2, self.tokens))
        # Of any length: how far tokens are apart is then no constant of the graph.
        tokens = ("N", "L")
        ports = [Port("input_ids", "int64", tokens, (0, self.text.vocab_size - 1))]
        sample = {"input_ids": ids}
        if self.masked:
            ports.append(Port("attention_mask", "int64", tokens, (0, 1)))
            lengths = np.array([[self.tokens], [self.tokens // 2]])
            sample["attention_mask"] = (np.arange(self.tokens) < lengths).astype(np.int64)
        return GraphPlan(
            "text_encoder",
            network,
            tuple(ports),
            (Port("prompt_embeds", "float32", (*tokens, self.text.d_model)),),
            {"random": [sample]},
        )

    def _transformer_plan(self, network: nn.Module) -> GraphPlan:
        o, rng = self.transformer, np.random.default_rng(1)
        grid, tokens = ("N", o.in_channels, "T", "h", "w"), ("N", self.tokens)
        ports = (
            Port("hidden_states", "float32", grid),
            Port("timestep", "float32", ("N", "T"), (0.0, 1000.0)),
            Port("encoder_hidden_states", "float32", (*tokens, o.caption_channels)),
            Port("encoder_attention_mask", "int64", tokens, (0, 1)),
            Port("frame_rate", "float32", (1,)),
        )

        def sample(count: int, frames: int, rate: float) -> Arrays:
            made = _normal(rng, ports, {"N": count, "T": frames, "h": _HEIGHT, "w": _WIDTH})
            made["timestep"] = np.full((count, frames), 700, np.float32)
            made["timestep"][:, :1] = 0
            mask = np.arange(self.tokens) < rng.integers(1, self.tokens, (count, 1))
            made["encoder_attention_mask"] = mask.astype(np.int64)
            made["frame_rate"] = np.array([rate], np.float32)
            return made

        return GraphPlan(
            "transformer",
            network,
            ports,
            (Port("sample", "float32", ("N", o.out_channels, "T", "h", "w")),),
            {"random": [sample(2, 3, 25), sample(1, 1, 24)]},
        )

    def _stage_plan(self, number: int, stage: LtxDecoderStage) -> GraphPlan:
        shape, channels = stage.shape, self.decoder.latent_channels
        inside = (1, shape.channels, shape.frames, *_sides(shape.scale))
        latents = (1, channels, shape.frames, "h", "w")
        ports = [
            Port("latents", "float32", latents)
            if stage.first
            else Port("features", "float32", inside),
            Port("position", "int64", (2,)),
        ]
        if stage.timed:
            ports.append(Port("decode_timestep", "float32", (1,), (0.0, 1.0)))
            if stage.first:
                ports.append(Port("decode_noise", "float32", latents))
                ports.append(Port("decode_noise_scale", "float32", (1,), (0.0, 1.0)))
        if shape.sites:
            ports.append(Port("noise", "float32", (shape.sites, *_sides(shape.noise_scale))))
        caches = [
            Port(f"cache_{i}", "float32", (1, width, 2, *_sides(shape.scale)))
            for i, width in enumerate(stage.caches())
        ]
        size = (*_sides(shape.out_scale),)
        result = Port("frames", "uint8", (shape.out_frames, *size, shape.out_channels))
        if not stage.last:
            made = (1, shape.out_channels, shape.out_frames, *size)
            result = Port("next_features", "float32", made)
        after = [Port(f"next_{port.name}", "float32", port.shape) for port in caches]
        rng = np.random.default_rng(2 + number)
        samples = []
        for begin, total in ((0, 3 * shape.frames), (-1, shape.frames - 1)):
            made = _normal(rng, (*ports, *caches), {"h": _HEIGHT, "w": _WIDTH})
            made["position"] = np.array([begin, max(total, 1)], np.int64)
            samples.append(made)
        return GraphPlan(
            f"decoder_{number}",
            stage,
            (*ports, *caches),
            (result, Port("next_position", "int64", (2,)), *after),
            {"random": samples},
        )

    def _encoder_plans(self, vae: LtxEncoderVae) -> list[GraphPlan]:
        side, step = compression(self.encoder)
        latents = (1, self.encoder.latent_channels, 1, "h", "w")
        size = (*_sides(side), 3)
        noise, result = (Port(name, "float32", latents) for name in ("noise", "latents"))
        rng = np.random.default_rng(9)
        plans = []
        caches: list[Port] = []
        for part, count, network in (
            ("first", 1, LtxEncoderFirst(vae)),
            ("next", step, LtxEncoderNext(vae)),
        ):
            ports = [Port("frames", "uint8", (count, *size)), noise, *caches]
            sample = _normal(rng, ports, {"h": _HEIGHT, "w": _WIDTH})
            after = [Port(f"next_{port.name}", "float32", port.shape) for port in caches]
            if part == "first":
                after = caches = self._encoder_caches(sample)
            plans.append(
                GraphPlan(
                    f"encoder_{part}",
                    network,
                    tuple(ports),
                    (result, *after),
                    {"random": [sample]},
                )
            )
        return plans

    def _encoder_caches(self, sample: Arrays) -> list[Port]:
        """As the network makes them of a picture."""
        with torch.device("meta"), torch.no_grad():
            network = LtxEncoderFirst(LtxEncoderVae(self.encoder))
            _, *kept = network(*(torch.from_numpy(x).to("meta") for x in sample.values()))
        ports = []
        for i, cache in enumerate(kept):
            _, channels, count, height, _ = cache.shape
            shape = (1, channels, count, *_sides(height // _HEIGHT))
            ports.append(Port(f"cache_{i}", "float32", shape))
        return ports


def _sides(scale: int) -> tuple[str, str]:
    times = "" if scale == 1 else f"{scale}*"
    return f"{times}h", f"{times}w"


def _normal(rng: np.random.Generator, ports: Iterable[Port], sizes: dict[str, int]) -> Arrays:
    """Random inputs: noise, and any bytes for frames."""
    made: Arrays = {}
    for port in ports:
        shape = []
        for size in port.shape:
            factor, _, symbol = str(size).rpartition("*")
            number = sizes[symbol] if isinstance(size, str) else size
            shape.append(int(factor or 1) * int(number))
        if port.dtype == "uint8":
            made[port.name] = rng.integers(0, 256, shape, np.uint8)
        elif port.dtype == "int64":
            made[port.name] = np.zeros(shape, np.int64)
        elif port.range is not None:
            made[port.name] = rng.uniform(*port.range, shape).astype(np.float32)
        else:
            made[port.name] = rng.normal(size=shape).astype(np.float32)
    return made


def _same(weights: WeightFiles) -> Callable[[str], str | None]:
    return lambda name: name


def _t5_name(weights: WeightFiles) -> Callable[[str], str | None]:
    """The table of tokens has two names, of which files hold one or both."""
    shared, tied = "shared.weight", "encoder.embed_tokens.weight"
    if shared in weights.names:
        return lambda name: None if name == tied else name
    return lambda name: shared if name == tied else name


def _without(prefix: str) -> Callable[[WeightFiles], Callable[[str], str | None]]:
    return lambda weights: lambda name: None if name.startswith(prefix) else name
