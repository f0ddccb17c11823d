"""LTX-Video in diffusers' layout: `LTXPipeline`, `LTXImageToVideoPipeline`, `LTXConditionPipeline`.

Versions 0.9.0 to 0.9.8 differ in their autoencoder, and from 0.9.5 on in how positions, noise
levels and tokens are counted; the configurations say which is which.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from fastvid import __version__, schedulers
from fastvid.bundle import write_bundle
from fastvid.errors import InputError
from fastvid_export.importers import ImportOptions, Say, ltx_graphs, parts, t5_config
from fastvid_export.importers.configs import Config, read_json
from fastvid_export.importers.diffusers import PipelineFolder
from fastvid_export.importers.t5_tokenizer import read_tokenizer
from fastvid_export.models.ltx_decoder import LtxDecoderOptions
from fastvid_export.models.ltx_encoder import LtxEncoderOptions
from fastvid_export.models.ltx_transformer import LtxGrid, LtxTransformerOptions
from fastvid_export.weight_files import WeightFiles
from fastvid_export.weight_store import WeightStore

if TYPE_CHECKING:
    from fastvid.bundle import Bundle

LARGE = True
"""Whether a precision and LoRA files are taken."""
_TOKENS, _LATER_TOKENS = 128, 256
_SIDE = 32
"""Pixels that the pipelines want heights and widths to be a multiple of."""
_LARGEST = 4096
_MOST_LATENTS = 256
_SCHEDULER = "FlowMatchEulerDiscreteScheduler"
_LICENCE = "that of the LTX-Video weights it was made from; it differs by version"
_DOWN_BLOCKS = ("LTXVideoDownBlock3D", "LTXVideo095DownBlock3D")


def build(source: PipelineFolder, folder: Path, options: ImportOptions, say: Say) -> Bundle:
    """Writes the bundle, see `Importer.build`."""
    shapes = _Shapes(source)
    tokenizer = read_tokenizer(source.component("tokenizer", "T5TokenizerFast", "T5Tokenizer"))
    networks = ltx_graphs.Networks(
        shapes.text,
        shapes.transformer,
        shapes.grid,
        shapes.decoder,
        shapes.encoder,
        tokens=shapes.tokens,
        masked=shapes.conditioned,
    )
    with tempfile.TemporaryDirectory(prefix=".weights-", dir=folder.parent) as beside:
        store = WeightStore(Path(beside), say)
        graphs = ltx_graphs.export(
            networks, lambda part: WeightFiles.open(shapes.paths[part]), store, options, say
        )
        files: dict[str, Any] = {f"{name}.onnx": graph.data for name, graph in graphs.items()}
        files |= store.files | {"tokenizer.json": tokenizer}
        return write_bundle(folder, _manifest(source, shapes, options, graphs), files)


def _manifest(
    source: PipelineFolder,
    shapes: _Shapes,
    options: ImportOptions,
    graphs: Mapping[str, ltx_graphs.Graph],
) -> dict[str, Any]:
    return {
        "name": options.name,
        "task": "generator",
        "description": (
            f"LTX-Video, made from a folder of diffusers ({source.class_name}): transformer of "
            f"{shapes.transformer.num_layers} layers and width {shapes.transformer.width}."
        ),
        "licence": options.flags.licence or _LICENCE,
        "precision": options.precision,
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
        "fidelity": parts.fidelity(graphs.values()),
    }  # fmt: skip


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
        self.text = t5_config.read(self.paths["text_encoder"] / "config.json", "t5")
        self.transformer = _transformer(Config(self.paths["transformer"] / "config.json"))
        config = Config(self.paths["vae"] / "config.json")
        self.decoder, self.encoder = _autoencoder(config)
        self.spatial, self.temporal = _compression(config, self.decoder, self.encoder)
        config.finish()
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


def _transformer(config: Config) -> LtxTransformerOptions:
    config.expect("patch_size", 1)
    config.expect("patch_size_t", 1)
    config.expect("activation_fn", "gelu-approximate")
    config.expect("qk_norm", "rms_norm_across_heads")
    channels = config.take("in_channels", int, LtxTransformerOptions.in_channels)
    out = config.take("out_channels", int | None, LtxTransformerOptions.out_channels)
    options = config.fill(LtxTransformerOptions, in_channels=channels, out_channels=out or channels)
    config.finish()
    if options.cross_attention_dim != options.width:
        raise InputError(
            f"transformer: cross_attention_dim must be {options.width}, heads times their width, "
            f"got {options.cross_attention_dim}"
        )
    return options


def _autoencoder(config: Config) -> tuple[LtxDecoderOptions, LtxEncoderOptions]:
    both = ("latent_channels", "patch_size", "resnet_norm_eps")
    shared = _taken(config, LtxDecoderOptions, {name: name for name in both})
    config.expect("in_channels", 3)
    config.expect("out_channels", 3)
    config.expect("patch_size_t", 1)
    config.expect("encoder_causal", True)
    sides = ("block_out_channels", "layers_per_block", "spatio_temporal_scaling")
    own = (
        "upsample_residual", "upsample_factor", "timestep_conditioning", "scaling_factor",
    )  # fmt: skip
    names = {name: f"decoder_{name}" for name in (*sides, "inject_noise", "causal")}
    decoder = LtxDecoderOptions(
        **shared, **_taken(config, LtxDecoderOptions, names | {name: name for name in own})
    )
    kinds = config.take("down_block_types", tuple[str, ...], _DOWN_BLOCKS[:1])
    if len(set(kinds)) != 1 or kinds[0] not in _DOWN_BLOCKS:
        raise InputError(f"vae: down_block_types must be all {' or all '.join(_DOWN_BLOCKS)}")
    names = {name: name for name in (*sides, "downsample_type")}
    encoder = LtxEncoderOptions(
        **shared,
        **_taken(config, LtxEncoderOptions, names),
        shuffled=kinds[0] == _DOWN_BLOCKS[1],
    )
    _check_blocks(decoder)
    return decoder, encoder


def _taken(config: Config, kind: type, names: Mapping[str, str]) -> dict[str, Any]:
    """Options of a configuration: `names` are ours and its own."""
    hints, defaults = get_type_hints(kind), {field.name: field.default for field in fields(kind)}
    return {name: config.take(key, hints[name], defaults[name]) for name, key in names.items()}


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
    config: Config, decoder: LtxDecoderOptions, encoder: LtxEncoderOptions
) -> tuple[int, int]:
    """Pixels of a latent's side and frames of a latent, which both networks must agree on."""
    doubled = sum(decoder.spatio_temporal_scaling)
    found = decoder.patch_size * 2**doubled, 2**doubled
    coded = ltx_graphs.compression(encoder)
    named = tuple(
        config.take(f"{name}_compression_ratio", int | None, None) or own
        for name, own in zip(("spatial", "temporal"), coded, strict=True)
    )
    if coded != found or named != found:
        raise InputError(
            f"vae: encoder and decoder must agree, got latents of {coded[0]} pixels and {coded[1]} "
            f"frames, {found[0]} and {found[1]}, and the configuration says {named[0]} and "
            f"{named[1]}"
        )
    return found


def _scheduler(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that `fastvid.schedulers` takes, as they are."""
    settings = {key: value for key, value in config.items() if not key.startswith("_")}
    schedulers.FlowMatchEulerDiscreteScheduler(**settings)
    return {"_class_name": _SCHEDULER, **{k: v for k, v in settings.items() if v is not None}}
