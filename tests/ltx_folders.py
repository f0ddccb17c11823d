"""Tiny random LTX-Video checkpoints in diffusers' layout, as `diffusers_folders`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers_folders import TEXT_WIDTH, randomized, saved, tokenizer

CHANNELS = 8
VAE: dict[str, Any] = {
    "latent_channels": CHANNELS, "block_out_channels": (8, 8, 8, 8),
    "decoder_block_out_channels": (8, 8, 8, 8), "layers_per_block": (1,) * 5,
    "decoder_layers_per_block": (1,) * 5, "spatio_temporal_scaling": (True, True, False, False),
    "decoder_spatio_temporal_scaling": (True, True, False, False), "patch_size": 1,
    "patch_size_t": 1, "scaling_factor": 1.25,
}  # fmt: skip
"""Version 0.9.0, with latents of 4 pixels and 4 frames."""
TIMED: dict[str, Any] = VAE | {
    "decoder_block_out_channels": (8, 16), "decoder_layers_per_block": (1, 1, 1),
    "decoder_spatio_temporal_scaling": (True, True), "decoder_inject_noise": (False,) * 3,
    "upsample_residual": (True, True), "upsample_factor": (2, 2), "timestep_conditioning": True,
}  # fmt: skip
"""Later versions: a decoder with a timestep."""
SHIFTED: dict[str, Any] = {
    "use_dynamic_shifting": True, "base_shift": 0.95, "max_shift": 2.05, "shift_terminal": 0.1,
    "base_image_seq_len": 1024,
}  # fmt: skip
"""The scheduler of versions 0.9.0 and 0.9.1."""


def ltx(folder: Path, kind: str = "LTXPipeline", vae: dict[str, Any] = VAE) -> Any:
    """A pipeline of a class of diffusers, which is saved into `folder`."""
    import diffusers

    shifted = {} if kind == "LTXConditionPipeline" else SHIFTED
    transformer = diffusers.LTXVideoTransformer3DModel(
        in_channels=CHANNELS, out_channels=CHANNELS, num_attention_heads=4, attention_head_dim=8,
        cross_attention_dim=32, num_layers=2, caption_channels=TEXT_WIDTH,
    )  # fmt: skip
    pipeline = getattr(diffusers, kind)(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**shifted),
        vae=autoencoder(vae),
        text_encoder=text_encoder(),
        tokenizer=tokenizer(),
        transformer=randomized(transformer, 4),
    )
    return saved(pipeline, folder)


def autoencoder(options: dict[str, Any]) -> Any:
    """The autoencoder, with statistics of its latents that are seen."""
    import diffusers

    vae = randomized(diffusers.AutoencoderKLLTXVideo(**options), 3)
    vae.latents_mean.copy_(0.1 * (vae.latents_mean + 1))
    vae.latents_std.copy_(0.8 * vae.latents_std)
    vae.use_framewise_encoding = vae.use_framewise_decoding = False
    return vae


def text_encoder() -> Any:
    """A T5 encoder of 24 thousand parameters."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=256, d_model=TEXT_WIDTH, d_kv=8, d_ff=37, num_layers=2, num_heads=4,
        relative_attention_num_buckets=8, feed_forward_proj="gated-gelu",
    )  # fmt: skip
    return randomized(T5EncoderModel(config), 1)
