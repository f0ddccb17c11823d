"""A Wan pipeline of diffusers, as small as the shipped generator, in a process of its own.

    python benchmarks/generation/cold_peer.py make FOLDER
    python benchmarks/generation/cold_peer.py draw FOLDER FIRST.png

`make` saves a pipeline of random weights: transformer, text encoder and autoencoder of about the
sizes of fastvid's, 4 steps without guidance, 17 frames of 64x64. `draw` loads it, draws, writes the
first frame, and prints how long its imports took.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

TOKENS = 48


class Peer:
    """The pipeline and the commands for it.

    Args:
        folder: Where the pipeline is saved.
        packages: Folder with diffusers and transformers; None where they are installed.
    """

    def __init__(self, folder: Path, packages: str | None) -> None:
        self._folder, self._packages = folder, packages

    def make(self) -> dict[str, object]:
        """Saves the pipeline and says what it is."""
        done = subprocess.run(
            [sys.executable, __file__, "make", str(self._folder)],
            env=self.environment("diffusers"),
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise SystemExit(f"diffusers' pipeline cannot be made: {done.stderr[-2000:]}")
        described: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
        return described

    def command(self, picture: Path) -> list[str]:
        """The process that draws and writes its first frame."""
        return [sys.executable, __file__, "draw", str(self._folder), str(picture)]

    def environment(self, kind: str) -> dict[str, str]:
        """Of the process: nothing may be fetched."""
        own = dict(os.environ) | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        if kind == "diffusers" and self._packages is not None:
            own["PYTHONPATH"] = self._packages
        return own

    @staticmethod
    def seconds_of_imports(output: str) -> float:
        """What `draw` printed."""
        return float(json.loads(output.splitlines()[-1])["imports_s"])


def make(folder: str) -> None:
    import diffusers
    import torch
    import transformers
    from diffusers import (
        AutoencoderKLWan,
        FlowMatchEulerDiscreteScheduler,
        WanPipeline,
        WanTransformer3DModel,
    )
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

    torch.manual_seed(0)
    transformer = WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=4, attention_head_dim=64, in_channels=16,
        out_channels=16, text_dim=192, freq_dim=256, ffn_dim=1024, num_layers=8,
        cross_attn_norm=True, qk_norm="rms_norm_across_heads", rope_max_seq_len=64,
    )  # fmt: skip
    vae = AutoencoderKLWan(
        base_dim=24, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=1,
        temperal_downsample=[False, True, True],
    )  # fmt: skip
    text_encoder = UMT5EncoderModel(
        UMT5Config(vocab_size=512, d_model=192, d_kv=48, d_ff=384, num_layers=2, num_heads=4)
    )
    words = ["<pad>", "</s>", "<unk>", "a", "red", "circle", "moves", "left"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    pipeline = WanPipeline(
        tokenizer=fast,
        text_encoder=text_encoder,
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        transformer=transformer,
    )
    pipeline.save_pretrained(folder)

    def millions(network: torch.nn.Module) -> float:
        return round(sum(p.numel() for p in network.parameters()) / 1e6, 2)

    described = {
        "pipeline": "WanPipeline of random weights",
        "transformer_million": millions(transformer),
        "decoder_million": millions(vae.decoder),
        "text_encoder_million": millions(text_encoder),
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
        "torch": torch.__version__,
    }
    print(json.dumps(described))


def draw(folder: str, picture: str) -> None:
    start = time.perf_counter()
    import torch
    from diffusers import WanPipeline
    from PIL import Image

    imports = time.perf_counter() - start
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    pipeline = WanPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    frames = pipeline(
        "a red circle moves left",
        height=64,
        width=64,
        num_frames=17,
        num_inference_steps=4,
        guidance_scale=1.0,
        max_sequence_length=TOKENS,
        generator=torch.Generator().manual_seed(1),
        output_type="np",
    ).frames[0]
    Image.fromarray((frames[0] * 255).round().clip(0, 255).astype("uint8")).save(picture)
    print(json.dumps({"imports_s": imports, "frames": len(frames)}))


if __name__ == "__main__":
    {"make": make, "draw": draw}[sys.argv[1]](*sys.argv[2:])
