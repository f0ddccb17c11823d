"""Folders of Wan that are not as they should be: each is refused by name before any export."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import torch
from safetensors.torch import load_file, save_file

from fastvid.errors import InputError
from fastvid_export.errors import CheckpointError
from fastvid_export.importers import ImportOptions, diffusers, find, wan


def change(file: Path, **values: Any) -> None:
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, **values}))


def refused(folder: Path, error: type[Exception], problem: str) -> None:
    """By the reader, and so before anything is written."""
    with pytest.raises(error, match=problem):
        read_all(folder)


def read_all(folder: Path) -> None:
    model = wan.Model(diffusers.read(folder))
    for name in ("text_encoder", "transformer", "vae"):
        model.network(name)


@pytest.mark.parametrize(
    ("file", "values", "problem"),
    [
        ("transformer/config.json", {"window_size": [1, 1]}, r"got window_size=\[1, 1\]"),
        ("transformer/config.json", {"qk_norm": "layer"}, "qk_norm must be 'rms_norm"),
        ("transformer/config.json", {"num_layers": "2"}, "num_layers must be int, got '2'"),
        ("transformer/config.json", {"in_channels": 36}, "must take 16 channels .* got 36"),
        ("transformer/config.json", {"text_dim": 64}, "text_dim .* must be d_model .* 32, got 64"),
        ("vae/config.json", {"attn_scales": [0.5]}, r"attn_scales must be \[\], got \[0.5\]"),
        ("vae/config.json", {"scale_factor_spatial": 16}, "scale_factor_spatial must be 8"),
        ("vae/config.json", {"latents_mean": [0.0]}, "must have 16 values, got 1 and 16"),
        ("text_encoder/config.json", {"model_type": "t5"}, "model_type must be 'umt5'"),
        ("text_encoder/config.json", {"feed_forward_proj": "gated-silu"}, "feed_forward_proj must"),
        ("scheduler/scheduler_config.json", {"thresholding": True}, "thresholding must be False"),
        ("scheduler/scheduler_config.json", {"magic": 1}, "options must be among those of UniPC"),
        ("model_index.json", {"boundary_ratio": 0.9}, "boundary_ratio exactly with transformer_2"),
        ("model_index.json", {"magic": True}, "must hold known options and components, got magic"),
        ("model_index.json", {"scheduler": ["diffusers", "DDIMScheduler"]}, "class UniPC"),
        ("model_index.json", {"vae": ["diffusers", "AutoencoderKL"]}, "class AutoencoderKLWan"),
    ],
)  # fmt: skip
def test_options(folder, file, values, problem):
    change(folder / file, **values)
    refused(folder, InputError, problem)


@pytest.mark.parametrize("name", ["transformer", "vae", "text_encoder", "scheduler", "tokenizer"])
def test_components(folder, name):
    shutil.rmtree(folder / name)
    refused(folder, CheckpointError, f"folder {name!r} must be there, it is missing")


def test_a_component_that_is_not_named(folder):
    change(folder / "model_index.json", vae=[None, None])
    refused(folder, CheckpointError, "must name 'vae', which it does not")


def test_all_keys_are_listed(folder):
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    del tensors["blocks.0.attn1.to_q.weight"], tensors["proj_out.bias"]
    tensors |= {"extra.one": torch.zeros(1), "extra.two": torch.zeros(2)}
    save_file(tensors, file)
    with pytest.raises(CheckpointError) as caught:
        wan.Model(diffusers.read(folder)).network("transformer")
    for name in ("blocks.0.attn1.to_q.weight", "proj_out.bias", "extra.one", "extra.two"):
        assert name in str(caught.value)


def test_pickles(folder):
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    torch.save({}, folder / "vae" / "diffusion_pytorch_model.bin")
    refused(folder, CheckpointError, "must be a safetensors file, got a pickle")


@pytest.mark.parametrize("text", [None, "{}", "no JSON"])
def test_tokenizers(folder, tmp_path, text):
    file = folder / "tokenizer" / "tokenizer.json"
    file.unlink() if text is None else file.write_text(text)
    importer = find(folder)
    assert importer is not None
    out = tmp_path / "out"
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        importer.build(folder, out, ImportOptions("x"), lambda line: None)
    assert not out.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_licence_of_the_model_card(folder):
    model = wan.Model(diffusers.read(folder))
    assert model.manifest(ImportOptions("x"), {})["licence"] == "LicenseRef-unknown"
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Wan\n")
    assert model.manifest(ImportOptions("x"), {})["licence"] == "Apache-2.0"
