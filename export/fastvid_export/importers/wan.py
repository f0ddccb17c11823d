"""Wan 2.1 and 2.2 in diffusers' layout: text to video, image to video, and both at once.

`WanPipeline` and `WanImageToVideoPipeline` differ in the transformer's inputs; `expand_timesteps`
(the 5B model) gives each latent frame a timestep, `boundary_ratio` (the A14B models) adds a second
transformer for low noise.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

import fastvid
from fastvid import schedulers
from fastvid.bundle import Bundle, write_bundle
from fastvid.errors import InputError
from fastvid_export.importers import ImportOptions, Say, parts, t5_config, wan_graphs
from fastvid_export.importers.configs import Config
from fastvid_export.importers.t5_tokenizer import read_tokenizer
from fastvid_export.importers.wan_graphs import Network, Part
from fastvid_export.large_graphs import LargeGraph
from fastvid_export.models.clip_vision import ClipVision, ClipVisionOptions
from fastvid_export.models.t5 import T5Encoder
from fastvid_export.models.wan_transformer import WanTransformer, WanTransformerOptions
from fastvid_export.models.wan_vae import WanVae, WanVaeOptions
from fastvid_export.weight_files import WeightFiles, match
from fastvid_export.weight_store import WeightStore

if TYPE_CHECKING:
    from fastvid_export.importers.diffusers import PipelineFolder

LARGE = True
TOKENS = 512
"""Of a padded prompt, `max_sequence_length` of the pipelines."""
_IMAGE = "WanImageToVideoPipeline"
_SCHEDULERS = ("UniPCMultistepScheduler", "FlowMatchEulerDiscreteScheduler")
_TEXT_ENCODERS = ("UMT5EncoderModel",)
_TOKENIZERS = ("T5TokenizerFast", "T5Tokenizer")
_IMAGE_PROCESSORS = ("CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil")
_EXTRA_IDS = 300
"""Marks behind the pieces of UMT5's tokenizer."""
_OPTIONS = ("boundary_ratio", "expand_timesteps")
_COMPONENTS = (
    "scheduler", "text_encoder", "tokenizer", "transformer", "transformer_2", "vae",
    "image_encoder", "image_processor",
)  # fmt: skip


def build(source: PipelineFolder, folder: Path, options: ImportOptions, say: Say) -> Bundle:
    """Writes the bundle of a Wan folder, see `Importer.build`."""
    model = Model(source)
    tokenizer = read_tokenizer(source.path / "tokenizer", extra_ids=_EXTRA_IDS)
    with tempfile.TemporaryDirectory(prefix=".weights-", dir=folder.parent) as beside:
        store = WeightStore(Path(beside), say)
        graphs = parts.export(model.parts(), store, options, say)
        files: dict[str, Any] = {f"{name}.onnx": graph.data for name, graph in graphs.items()}
        files |= {**store.files, "tokenizer.json": tokenizer}
        return write_bundle(folder, model.manifest(options, graphs), files)


class Model:
    """What a folder holds, its configurations read and checked before any weight is."""

    def __init__(self, source: PipelineFolder) -> None:
        self.source = source
        _check_index(source)
        self.shifted = bool(source.index.get("expand_timesteps"))
        self.image = source.class_name == _IMAGE
        self.scheduler = _scheduler(source)
        folder = source.component("text_encoder", *_TEXT_ENCODERS)
        self.text = t5_config.read(folder / "config.json", "umt5")
        source.component("tokenizer", *_TOKENIZERS)
        self.vae = _vae_options(source.component("vae", "AutoencoderKLWan"))
        self.transformer = self._transformer("transformer")
        self.second = None
        ratio = source.index.get("boundary_ratio")
        if (ratio is None) != (source.class_of("transformer_2") is None):
            raise InputError(
                "model: model_index.json must give boundary_ratio exactly with transformer_2, got "
                f"{ratio!r} with {source.class_of('transformer_2')!r}"
            )
        if ratio is not None:
            if not isinstance(ratio, float) or not 0 < ratio < 1:
                raise InputError(
                    f"model: boundary_ratio must be above 0 and below 1, got {ratio!r:.40}"
                )
            self.second = self._transformer("transformer_2")
            if self.second != self.transformer:
                raise InputError("model: transformer and transformer_2 must have the same shape")
        self.vision = None
        if self.transformer.image_dim is not None:
            self.vision = _vision_options(source)
        self._check()

    def _transformer(self, name: str) -> WanTransformerOptions:
        folder = self.source.component(name, "WanTransformer3DModel")
        config = Config(folder / "config.json")
        config.expect("qk_norm", "rms_norm_across_heads")
        options = config.fill(WanTransformerOptions, per_frame=self.shifted)
        config.finish()
        return options

    def _check(self) -> None:
        """What must fit together."""
        latent, taken = self.vae.z_dim, self.transformer.in_channels
        expected = latent + latent + self.vae.temporal if self._masked else latent
        if taken != expected or self.transformer.out_channels != latent:
            raise InputError(
                f"model: transformer must take {expected} channels and give {latent} in a "
                f"{self.source.class_name} with these latents, got {taken} and "
                f"{self.transformer.out_channels}"
            )
        if self.transformer.text_dim != self.text.d_model:
            raise InputError(
                f"model: text_dim of the transformer must be d_model of the text encoder, "
                f"{self.text.d_model}, got {self.transformer.text_dim}"
            )
        if self.vision is None:
            return
        tokens, width = self._image_tokens, self.vision.hidden_size
        if self.transformer.image_dim != width:
            raise InputError(
                f"model: image_dim of the transformer must be hidden_size of the image encoder, "
                f"{width}, got {self.transformer.image_dim}"
            )
        if self.transformer.pos_embed_seq_len not in (None, 2 * tokens):
            raise InputError(
                f"model: pos_embed_seq_len of the transformer must be {2 * tokens}, two pictures "
                f"of the image encoder, got {self.transformer.pos_embed_seq_len}"
            )

    @property
    def _masked(self) -> bool:
        """Whether pictures come as further channels of the transformer."""
        return self.image and not self.shifted

    @property
    def _image_tokens(self) -> int:
        assert self.vision is not None
        return 1 + (self.vision.image_size // self.vision.patch_size) ** 2

    def network(self, name: str) -> Network:
        """A network of the folder, on the meta device."""
        folder = self.source.path / name
        rename: Callable[[str], str | None] = _same
        with torch.device("meta"):
            module: nn.Module
            if name == "text_encoder":
                module, rename = T5Encoder(self.text), _shared
            elif name == "image_encoder":
                assert self.vision is not None
                module, rename = ClipVision(self.vision), _vision_name
            elif name == "vae":
                module = WanVae(self.vae)
            else:
                module = WanTransformer(self.transformer)
        weights = WeightFiles.open(folder)
        names = match(module, weights, rename=rename, what=f"model: {name}")
        return Network(module.eval(), weights, names)

    def parts(self) -> list[Part]:
        """All graphs, in the order in which they run."""
        found = [wan_graphs.text_encoder(self.network("text_encoder"))]
        if self.vision is not None:
            pictures = 1 if self.transformer.pos_embed_seq_len is None else 2
            found.append(wan_graphs.image_encoder(self.network("image_encoder"), pictures))
        for name in ("transformer", "transformer_2")[: 1 if self.second is None else 2]:
            tokens = self._image_tokens if self.vision is not None else 0
            found.append(
                wan_graphs.transformer(
                    self.network(name), name=name, tokens=TOKENS, image_tokens=tokens
                )
            )
        return [*found, *wan_graphs.autoencoder(self.network("vae"), grey=self._masked)]

    def manifest(self, options: ImportOptions, graphs: Mapping[str, LargeGraph]) -> dict[str, Any]:
        """`bundle.json`, but for what the writer adds."""
        source = self.source
        version = source.index.get("_diffusers_version", "unknown")
        licence = options.flags.licence or _licence(source.path) or "LicenseRef-unknown"
        return {
            "name": options.name,
            "task": "generator",
            "description": (
                f"{source.path.absolute().name}, a {source.class_name} of diffusers {version}: "
                f"transformer of {self.transformer.num_layers} layers and width "
                f"{self.transformer.width}."
            ),
            "licence": licence,
            "precision": options.precision,
            "requires_fastvid": fastvid.__version__,
            "size_rule": self._sizes(),
            "scheduler": self.scheduler,
            "generation": self._generation(),
            "provenance": {
                "weights": f"From a folder in diffusers' layout, {source.class_name}.",
                "exporter": f"fastvid_export {fastvid.__version__}, torch "
                f"{torch.__version__.split('+')[0]}",
                "command": "fastvid export FOLDER",
                "created": time.strftime("%Y-%m-%d", time.gmtime()),
            },
            "graphs": {name: graph.manifest() for name, graph in graphs.items()},
            "fidelity": parts.fidelity(graphs.values()),
        }

    def _sizes(self) -> dict[str, Any]:
        step = self.vae.spatial * self.transformer.patch_size[1]
        most = min(step * self.transformer.rope_max_seq_len, 1 << 14)
        return {"minimum": step, "multiple_of": step, "padding": "none", "maximum": most}

    def _generation(self) -> dict[str, Any]:
        """Defaults are those of the pipelines; for the 5B model those its authors recommend."""
        rule, frames = self._sizes(), 121 if self.shifted else 81
        longest = 1 + self.vae.temporal * (self.transformer.rope_max_seq_len - 1)
        sides = (704, 1280) if self.shifted else (480, 832)
        height, width = (min(side, rule["maximum"]) for side in sides)
        kind = "first_frame" if self.shifted else "masked_video" if self.image else "latents"
        generation = {
            "height": height // rule["multiple_of"] * rule["multiple_of"],
            "width": width // rule["multiple_of"] * rule["multiple_of"],
            "num_frames": min(frames, longest),
            "max_num_frames": longest,
            "frame_rate": 24 if self.shifted else 16,
            "num_inference_steps": 50,
            "guidance_scale": 5.0,
            "max_prompt_tokens": TOKENS,
            "latent_channels": self.vae.z_dim,
            "spatial_compression": self.vae.spatial,
            "temporal_compression": self.vae.temporal,
            "prompt_cleaning": "html",
            "zero_padding": True,
            "schedule": "scheduler",
            "picture_conditioning": kind,
        }
        if self.second is not None:
            ratio = self.source.index["boundary_ratio"]
            count = self.scheduler.get("num_train_timesteps", 1000)
            generation["boundary_timestep"] = ratio * count
        return generation


def _check_index(source: PipelineFolder) -> None:
    known = {*_OPTIONS, *_COMPONENTS}
    left = [key for key in source.index if not key.startswith("_") and key not in known]
    if left:
        raise InputError(
            f"model: model_index.json must hold known options and components, got "
            f"{', '.join(sorted(left))}"
        )


def _same(name: str) -> str | None:
    return name


def _shared(name: str) -> str | None:
    """The table of tokens is stored under either name of it, or both."""
    return None if name == "encoder.embed_tokens.weight" else name


def _vision_name(name: str) -> str | None:
    name = name.removeprefix("vision_model.")
    return None if name in ("embeddings.position_ids", "visual_projection.weight") else name


def _vae_options(folder: Path) -> WanVaeOptions:
    config = Config(folder / "config.json")
    config.expect("attn_scales", [])
    patch = config.take("patch_size", int | None, None)
    options = config.fill(WanVaeOptions, patch_size=patch or 1)
    config.expect("scale_factor_spatial", options.spatial)
    config.expect("scale_factor_temporal", options.temporal)
    # Pictures are clipped as they become uint8, whatever it says.
    config.ignore("clip_output")
    config.finish()
    counts = {len(options.latents_mean), len(options.latents_std)}
    if counts != {options.z_dim}:
        raise InputError(
            f"{config.what}: latents_mean and latents_std must have {options.z_dim} values, got "
            f"{len(options.latents_mean)} and {len(options.latents_std)}"
        )
    planes = 3 * options.patch_size**2
    if options.in_channels != planes or options.out_channels != planes:
        raise InputError(
            f"{config.what}: in_channels and out_channels must be {planes}, got "
            f"{options.in_channels} and {options.out_channels}"
        )
    if len(options.temperal_downsample) != len(options.dim_mult) - 1:
        raise InputError(
            f"{config.what}: temperal_downsample must have {len(options.dim_mult) - 1} values, got "
            f"{len(options.temperal_downsample)}"
        )
    return options


def _vision_options(source: PipelineFolder) -> ClipVisionOptions:
    source.component("image_processor", *_IMAGE_PROCESSORS)
    processor = Config(source.path / "image_processor" / "preprocessor_config.json")
    for step in ("do_center_crop", "do_convert_rgb", "do_normalize", "do_rescale", "do_resize"):
        processor.expect(step, True)
    processor.expect("resample", 3)
    factor = processor.take("rescale_factor", float, 1 / 255)
    if abs(factor * 255 - 1) > 1e-6:
        raise InputError(f"{processor.what}: rescale_factor must be 1 / 255, got {factor}")
    mean = processor.take("image_mean", tuple[float, float, float])
    std = processor.take("image_std", tuple[float, float, float])
    crop, size = processor.rest().get("crop_size"), processor.rest().get("size")

    folder = source.component("image_encoder", "CLIPVisionModel", "CLIPVisionModelWithProjection")
    config = Config(folder / "config.json")
    act = config.expect("hidden_act", "quick_gelu", "gelu")
    config.expect("num_channels", 3)
    config.ignore("projection_dim")
    options = config.fill(ClipVisionOptions, hidden_act=act, image_mean=mean, image_std=std)
    config.finish()
    side = options.image_size
    if crop not in (side, {"height": side, "width": side}) or size not in (
        side,
        {"shortest_edge": side},
    ):
        raise InputError(
            f"{processor.what}: size and crop_size must be those of the image encoder, {side}, got "
            f"{size!r:.60} and {crop!r:.60}"
        )
    processor.ignore("crop_size", "size", "image_processor_type", "feature_extractor_type")
    processor.finish()
    return options


def _scheduler(source: PipelineFolder) -> dict[str, Any]:
    """The settings as a bundle holds them, tried on the scheduler that will take them."""
    folder = source.component("scheduler", *_SCHEDULERS)
    name = str(source.class_of("scheduler"))
    config = Config(folder / "scheduler_config.json")
    settings = {key: value for key, value in config.rest().items() if value not in (None, [])}
    try:
        getattr(schedulers, name)(**settings)
    except InputError as error:
        raise InputError(f"{config.what}: {error}", hint=error.hint) from None
    lists = [key for key, value in settings.items() if isinstance(value, list | dict)]
    if lists:
        raise InputError(f"{config.what}: {lists[0]} must be a number or a text, got a list")
    return {"_class_name": name, **settings}


def _licence(folder: Path) -> str | None:
    """What the model card says, if it comes along."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    head = card.read_text(encoding="utf-8", errors="replace")[:4096]
    found = re.search(r"^license:\s*([A-Za-z0-9.+-]+)\s*$", head, re.MULTILINE)
    if found is None:
        return None
    return {"apache-2.0": "Apache-2.0", "mit": "MIT"}.get(
        found[1].lower(), f"LicenseRef-{found[1]}"
    )
