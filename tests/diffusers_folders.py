"""Tiny random checkpoints in diffusers' layout, written by diffusers' and transformers' classes.

Nothing comes from a hub. Weights are drawn from a seed and are large enough that every part of the
pipeline shows in the pictures.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

WORDS = ["a", "red", "blue", "cat", "dog", "circle", "moves", "left", "over", "the", "in", "snow"]
TEXT_WIDTH = 32
VAE = {
    "base_dim": 3,
    "z_dim": 16,
    "dim_mult": [1, 1, 1, 1],
    "num_res_blocks": 1,
    "temperal_downsample": [False, True, True],
}
VAE_48 = {
    "base_dim": 4,
    "decoder_base_dim": 4,
    "z_dim": 48,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 1,
    "temperal_downsample": [False, True, True],
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "scale_factor_spatial": 16,
    "latents_mean": [0.02 * i - 0.4 for i in range(48)],
    "latents_std": [0.5 + 0.03 * i for i in range(48)],
}
TRANSFORMER = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": TEXT_WIDTH,
    "freq_dim": 256,
    "ffn_dim": 32,
    "num_layers": 2,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "rope_max_seq_len": 32,
}
UNIPC = {
    "prediction_type": "flow_prediction",
    "use_flow_sigmas": True,
    "num_train_timesteps": 1000,
    "flow_shift": 3.0,
}


def tokenizer() -> Any:
    """A Unigram tokenizer in T5's manner: `<pad>`, `</s>`, `<unk>`, then pieces of words."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import T5TokenizerFast

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(f"▁{word}", -2.0 - 0.01 * i) for i, word in enumerate(WORDS)]
    pieces += [("▁", -3.0), *((letter, -9.0) for letter in "abcdefghijklmnopqrstuvwxyz&;<>,.'")]
    made = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    made.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return T5TokenizerFast(
        tokenizer_object=made, eos_token="</s>", unk_token="<unk>", pad_token="<pad>", extra_ids=0
    )


def text_encoder() -> Any:
    """A UMT5 encoder of 24 thousand parameters."""
    from transformers import UMT5Config, UMT5EncoderModel

    config = UMT5Config(
        vocab_size=256, d_model=TEXT_WIDTH, d_kv=8, d_ff=37, num_layers=2, num_heads=4,
        relative_attention_num_buckets=8, feed_forward_proj="gated-gelu",
    )  # fmt: skip
    return randomized(UMT5EncoderModel(config), 1)


def image_encoder(width: int = 4, size: int = 32) -> Any:
    """CLIP's vision transformer, tiny."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        hidden_size=width, projection_dim=4, num_hidden_layers=3, num_attention_heads=2,
        image_size=size, intermediate_size=16, patch_size=8, hidden_act="gelu",
    )  # fmt: skip
    return randomized(CLIPVisionModel(config), 2)


def randomized(module: Any, seed: int, scale: float = 1.0) -> Any:
    """Weights drawn so that signals keep their size; norms near one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() >= 2 and "gamma" not in name:
                fan_in = parameter[0].numel()
                parameter.copy_(scale * noise / fan_in**0.5)
            elif name.endswith(("bias", "table")):
                parameter.copy_(0.1 * noise)
            else:
                parameter.copy_(1 + 0.1 * noise)
    return module.eval()


def scheduler(kind: str) -> Any:
    """`unipc` as real Wan checkpoints have it, or `euler`."""
    import diffusers

    if kind == "unipc":
        return diffusers.UniPCMultistepScheduler(**UNIPC)
    return diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0)


def _wan_parts(kind: str, vae: dict[str, Any]) -> dict[str, Any]:
    from diffusers import AutoencoderKLWan

    return {
        "tokenizer": tokenizer(),
        "text_encoder": text_encoder(),
        "vae": randomized(AutoencoderKLWan(**vae), 3),
        "scheduler": scheduler(kind),
    }


def _transformer(seed: int, **options: Any) -> Any:
    from diffusers import WanTransformer3DModel

    return randomized(WanTransformer3DModel(**{**TRANSFORMER, **options}), seed)


def wan(folder: Path, kind: str = "unipc") -> Any:
    """Wan 2.1 text to video; the pipeline, which is saved into `folder`."""
    from diffusers import WanPipeline

    return saved(WanPipeline(**_wan_parts(kind, VAE), transformer=_transformer(4)), folder)


def wan_image(folder: Path, kind: str = "unipc", *, last: bool = False) -> Any:
    """Wan 2.1 image to video, with `last` the one that takes the last picture too."""
    from diffusers import WanImageToVideoPipeline
    from transformers import CLIPImageProcessor

    places = 2 * 17 if last else None
    transformer = _transformer(
        5, in_channels=36, image_dim=4, added_kv_proj_dim=24, pos_embed_seq_len=places
    )
    parts = _wan_parts(kind, VAE)
    processor = CLIPImageProcessor(crop_size=32, size=32)
    return saved(
        WanImageToVideoPipeline(
            **parts, transformer=transformer, image_encoder=image_encoder(),
            image_processor=processor,
        ),
        folder,
    )  # fmt: skip


def wan_22_small(folder: Path) -> Any:
    """Wan 2.2 5B: a timestep for each latent frame, and the autoencoder of 48 channels."""
    from diffusers import WanPipeline

    transformer = _transformer(6, in_channels=48, out_channels=48)
    parts = _wan_parts("unipc", VAE_48)
    return saved(WanPipeline(**parts, transformer=transformer, expand_timesteps=True), folder)


def wan_22_large(folder: Path, *, image: bool = False) -> Any:
    """Wan 2.2 A14B: two transformers."""
    from diffusers import WanImageToVideoPipeline, WanPipeline

    channels = {"in_channels": 36} if image else {}
    both = {
        "transformer": _transformer(7, **channels),
        "transformer_2": _transformer(8, **channels),
        "boundary_ratio": 0.9 if image else 0.875,
    }
    parts = _wan_parts("unipc", VAE)
    kind = WanImageToVideoPipeline if image else WanPipeline
    return saved(kind(**parts, **both), folder)


def saved(pipeline: Any, folder: Path) -> Any:
    """The pipeline, written to `folder`, and quiet."""
    pipeline.save_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
