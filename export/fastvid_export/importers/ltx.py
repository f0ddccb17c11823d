"""LTX-Video in diffusers' layout: `LTXPipeline`, `LTXImageToVideoPipeline`, `LTXConditionPipeline`.

Versions 0.9.0 to 0.9.8 differ in their autoencoder, and from 0.9.5 on in how positions and noise
levels are counted; the configurations say which is which.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastvid import __version__, schedulers
from fastvid.bundle import write_bundle
from fastvid.errors import InputError
from fastvid_export import onnx
from fastvid_export.errors import CheckpointError
from fastvid_export.importers import ImportOptions, Say, ltx_graphs
from fastvid_export.importers.diffusers import PipelineFolder, read_json
from fastvid_export.importers.t5_tokenizer import read_tokenizer
from fastvid_export.models import t5
from fastvid_export.models.ltx_decoder import LtxDecoderOptions
from fastvid_export.models.ltx_encoder import LtxEncoderOptions
from fastvid_export.models.ltx_transformer import LtxGrid, LtxTransformerOptions
from fastvid_export.weight_files import WeightFiles

if TYPE_CHECKING:
    from fastvid.bundle import Bundle

_TOKENS, _LATER_TOKENS = 128, 256
_SIDE = 32
"""Pixels that the pipelines want heights and widths to be a multiple of."""
_LARGEST = 4096
_MOST_LATENTS = 256
_SCHEDULER = "FlowMatchEulerDiscreteScheduler"
_LICENCE = "that of the LTX-Video weights it was made from; it differs by version"


def build(source: PipelineFolder, folder: Path, options: ImportOptions, say: Say) -> Bundle:
    """Writes the bundle, see `Importer.build`."""
    shapes = _Shapes(source)
    tokenizer = read_tokenizer(source.component("tokenizer", "T5TokenizerFast", "T5Tokenizer"))
    parts = ltx_graphs.Parts(
        shapes.text,
        shapes.transformer,
        shapes.grid,
        shapes.decoder,
        shapes.encoder,
        tokens=shapes.tokens,
        masked=shapes.conditioned,
    )
    graphs: dict[str, onnx.ExportedGraph] = {}
    for name, plans in parts.plans(lambda part: WeightFiles.open(shapes.paths[part])):
        say(f"exporting {name}")
        for plan in plans:
            graphs[plan.name] = onnx.export(plan)
    manifest = {
        "name": options.name,
        "task": "generator",
        "description": f"LTX-Video, made from a folder of diffusers ({source.class_name}).",
        "licence": _LICENCE,
        "requires_fastvid": __version__,
        "provenance": {
            "weights": f"{source.class_name} in {source.path.name}, as its publisher made it",
            "exporter": f"fastvid_export {__version__}",
            "command": "fastvid export FOLDER",
        },
        "size_rule": {
            "minimum": shapes.multiple, "multiple_of": shapes.multiple, "padding": "none",
            "maximum": _LARGEST,
        },
        "scheduler": shapes.scheduler,
        "generation": shapes.generation(),
        "graphs": {name: graph.manifest() for name, graph in graphs.items()},
        "quality": ltx_graphs.figures(graphs.values()),
    }  # fmt: skip
    files = {f"{name}.onnx": graph.data for name, graph in graphs.items()}
    return write_bundle(folder, manifest, files | {"tokenizer.json": tokenizer})


class _Shapes:
    """What the configurations of a folder say; nothing but them is read.

    Raises:
        CheckpointError: A file is missing or damaged.
        InputError: An option is not supported; names it.
    """

    def __init__(self, source: PipelineFolder) -> None:
        # This pipeline counts positions, noise levels and tokens in another way.
        self.conditioned = source.class_name == "LTXConditionPipeline"
        self.tokens = _LATER_TOKENS if self.conditioned else _TOKENS
        self.paths = {
            "text_encoder": source.component("text_encoder", "T5EncoderModel"),
            "transformer": source.component("transformer", "LTXVideoTransformer3DModel"),
            "vae": source.component("vae", "AutoencoderKLLTXVideo"),
        }
        configs = {name: read_json(path / "config.json") for name, path in self.paths.items()}
        self.text = _text(configs["text_encoder"])
        self.transformer = _transformer(configs["transformer"])
        self.decoder, self.encoder = _autoencoder(configs["vae"])
        self.spatial, self.temporal = _compression(configs["vae"], self.decoder, self.encoder)
        self.grid = LtxGrid(self.spatial, self.temporal, from_first=self.conditioned)
        self.multiple = math.lcm(self.spatial, _SIDE)
        path = source.component("scheduler", _SCHEDULER) / "scheduler_config.json"
        self.scheduler = _scheduler(read_json(path))
        channels, text = self.decoder.latent_channels, self.text.d_model
        for what, got, wanted in (
            ("transformer: in_channels", self.transformer.in_channels, channels),
            ("transformer: out_channels", self.transformer.out_channels, channels),
            ("transformer: caption_channels", self.transformer.caption_channels, text),
        ):
            if got != wanted:
                raise InputError(f"{what} must be {wanted} beside the other networks, got {got}")

    def generation(self) -> dict[str, Any]:
        """The settings of the bundle: defaults are those of the pipelines."""
        step = self.temporal
        frames = 161 // step * step + 1
        return {
            "height": 512 // self.multiple * self.multiple,
            "width": 704 // self.multiple * self.multiple,
            "num_frames": frames, "max_num_frames": 1 + _MOST_LATENTS * step, "frame_rate": 25,
            "num_inference_steps": 50, "guidance_scale": 3.0, "max_prompt_tokens": self.tokens,
            "latent_channels": self.decoder.latent_channels, "spatial_compression": self.spatial,
            "temporal_compression": step,
            "picture_conditioning": f"{'noised_' if self.conditioned else ''}first_frames",
            "schedule": "linear_quadratic" if self.conditioned else "linear",
        }  # fmt: skip


def _text(config: Mapping[str, Any]) -> t5.T5Options:
    kind = config.get("model_type", "t5")
    if kind != "t5":
        raise InputError(f"text_encoder: model_type must be 't5', got {kind!r:.40}")
    try:
        return t5.options_of(config, bias_in_each_layer=False)
    except ValueError as error:
        raise InputError(f"text_encoder: {error}") from None


def _transformer(config: Mapping[str, Any]) -> LtxTransformerOptions:
    own = _own(LtxTransformerOptions)
    only = {
        "patch_size": 1, "patch_size_t": 1, "activation_fn": "gelu-approximate",
        "qk_norm": "rms_norm_across_heads",
    }  # fmt: skip
    options = _filled("transformer", LtxTransformerOptions, config, {n: n for n in own}, only)
    if options.cross_attention_dim != options.width:
        raise InputError(
            f"transformer: cross_attention_dim must be {options.width}, heads times their width, "
            f"got {options.cross_attention_dim}"
        )
    if config.get("out_channels", 0) is None:
        options = replace(options, out_channels=options.in_channels)
    return options


def _autoencoder(config: Mapping[str, Any]) -> tuple[LtxDecoderOptions, LtxEncoderOptions]:
    both = ("latent_channels", "patch_size", "resnet_norm_eps")
    sides = ("block_out_channels", "layers_per_block", "spatio_temporal_scaling", "inject_noise")
    decoder = {f"decoder_{name}": name for name in (*sides, "causal")} | {n: n for n in both}
    decoder |= {
        name: name
        for name in (
            "out_channels", "upsample_residual", "upsample_factor", "timestep_conditioning",
            "scaling_factor",
        )
    }  # fmt: skip
    encoder = {name: name for name in (*both, *sides[:3], "in_channels", "downsample_type")}
    only = {"in_channels": 3, "out_channels": 3, "patch_size_t": 1, "encoder_causal": True}
    rest = ("down_block_types", "spatial_compression_ratio", "temporal_compression_ratio")
    known = {*decoder, *encoder, *only, *rest}
    for key in config:
        if not key.startswith("_") and key not in known:
            raise InputError(f"vae: options must be those of AutoencoderKLLTXVideo, got {key!r}")
    kinds = set(config.get("down_block_types", ["LTXVideoDownBlock3D"]))
    names = ("LTXVideoDownBlock3D", "LTXVideo095DownBlock3D")
    if len(kinds) != 1 or not kinds <= set(names):
        raise InputError(f"vae: down_block_types must be all {' or all '.join(names)}")
    inside = {key: value for key, value in config.items() if key not in rest}
    made = _filled("vae", LtxDecoderOptions, inside, decoder, only, ignored=encoder)
    coded = _filled("vae", LtxEncoderOptions, inside, encoder, only, ignored=decoder)
    _check_blocks(made)
    return made, replace(coded, shuffled=kinds == {names[1]})


def _check_blocks(decoder: LtxDecoderOptions) -> None:
    blocks = len(decoder.block_out_channels)
    for name, more in (
        ("layers_per_block", 1), ("spatio_temporal_scaling", 0), ("inject_noise", 1),
        ("upsample_residual", 0), ("upsample_factor", 0),
    ):  # fmt: skip
        count = len(getattr(decoder, name))
        if count < blocks + more:
            raise InputError(f"vae: {name} must have {blocks + more} entries, got {count}")


def _compression(
    config: Mapping[str, Any], decoder: LtxDecoderOptions, encoder: LtxEncoderOptions
) -> tuple[int, int]:
    """Pixels of a latent's side and frames of a latent, which both networks must agree on."""
    doubled = sum(decoder.spatio_temporal_scaling)
    found = decoder.patch_size * 2**doubled, 2**doubled
    coded = ltx_graphs.compression(encoder)
    named = tuple(
        config.get(f"{name}_compression_ratio") or own
        for name, own in zip(("spatial", "temporal"), coded, strict=True)
    )
    if coded != found or named != found:
        raise InputError(
            f"vae: encoder and decoder must agree, got latents of {coded[0]} pixels and {coded[1]} "
            f"frames, {found[0]} and {found[1]}, and the configuration says {named[0]} and "
            f"{named[1]}"
        )
    return found


def _filled(
    where: str,
    options: Callable[..., Any],
    config: Mapping[str, Any],
    names: Mapping[str, str],
    only: Mapping[str, Any],
    *,
    ignored: Mapping[str, str] | None = None,
) -> Any:
    """Options from a configuration: `names` are its keys and ours, `only` what it may hold."""
    given: dict[str, Any] = {}
    for key, value in config.items():
        if key.startswith("_"):
            continue
        if key in only and value != only[key]:
            raise InputError(f"{where}: {key} must be {only[key]!r}, got {value!r:.80}")
        if key in names:
            given[names[key]] = tuple(value) if isinstance(value, list) else value
        elif key not in only and key not in (ignored or {}):
            raise InputError(f"{where}: options must be among those supported, got {key!r}")
    defaults = options()
    for name, value in given.items():
        kind = type(getattr(defaults, name))
        if not isinstance(value, kind | int if kind is float else kind) and value is not None:
            raise CheckpointError(
                f"{where}: {name} in config.json must be {kind.__name__}, got {value!r:.80}"
            )
    return options(**{name: value for name, value in given.items() if value is not None})


def _own(options: type) -> list[str]:
    return [field.name for field in fields(options)]


def _scheduler(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that `fastvid.schedulers` takes, as they are."""
    settings = {key: value for key, value in config.items() if not key.startswith("_")}
    schedulers.FlowMatchEulerDiscreteScheduler(**settings)
    return {"_class_name": _SCHEDULER, **{k: v for k, v in settings.items() if v is not None}}
