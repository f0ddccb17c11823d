"""Folders of diffusers through the command in every precision, with LoRA files, to frames.

Frames are held against diffusers' in float32. The autoencoder of most runs is PyTorch's module,
because it takes no precision and long to trace; slow tests export all of it.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")
pytest.importorskip("onnxruntime")

import diffusers_folders
import ltx_folders
import pipelines
import torch
from diffusers.pipelines.wan import pipeline_wan_i2v
from PIL import Image

from fastvid import Generator
from fastvid.bundle import Bundle
from fastvid.cli import main
from fastvid_export import fidelity, large_graphs

PROMPT, SEED = "a red cat", 3
RUN = {"height": 32, "width": 64, "num_frames": 9, "num_inference_steps": 3, "guidance_scale": 3.0}
GATES = {"float32": 0.9999, "bfloat16": 0.98, "int8": 0.95, "int4": 0.8}
"""Cosine of the frames, less their mean, with diffusers' in float32.

Sums of thirty values, as these networks have, keep more of their rounding than those of thousands.
"""
SECONDS = {"ltx": {"frame_rate": 24}}
WAN = {"blocks.0.attn1.to_q": "blocks.0.self_attn.q", "blocks.1.ffn.net.2": "blocks.1.ffn.2"}
LTX = {"proj_in": "patchify_proj", "transformer_blocks.1.ff.net.2": "transformer_blocks.1.ff.net.2"}
SHAPES: dict[str, Any] = {
    "wan": diffusers_folders.wan,
    "wan-image": diffusers_folders.wan_image,
    "wan-two": diffusers_folders.wan_22_large,
    "ltx": ltx_folders.ltx,
}


@pytest.fixture(scope="module", autouse=True)
def quick():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large_graphs, "traced", pipelines.TracedOnce())
        # So that the smallest layers are narrow too, and lie beside the graph.
        patch.setattr(large_graphs, "INLINE", 64)
        # Sums of a few values keep more of their rounding than those of thousands.
        low = fidelity.Gate(pictures=15, values=15, cosine=0.9)
        patch.setitem(fidelity.GATES, "int4", low)
        if not hasattr(pipeline_wan_i2v, "ftfy"):
            fixed = SimpleNamespace(fix_text=str)
            patch.setattr(pipeline_wan_i2v, "ftfy", fixed, raising=False)
        yield
    torch.set_num_threads(before)


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.slow)], ids=["", "whole"])
def whole(request, monkeypatch):
    """Whether the autoencoder is exported too."""
    if not request.param:
        pipelines.Modules(monkeypatch)


def slow(*cases: Any) -> list[Any]:
    return [pytest.param(*case, marks=pytest.mark.slow) for case in cases]


@pytest.mark.parametrize(
    ("kind", "precision", "style"),
    [
        ("wan", "int8", "published"),
        ("ltx", "int8", "kohya"),
        ("wan-image", "bfloat16", None),
        ("wan-two", "int8", "diffusers"),
        *slow(
            ("wan", "bfloat16", "kohya"), ("wan", "int4", "diffusers"),
            ("ltx", "bfloat16", "diffusers"), ("ltx", "int4", None),
            ("wan-image", "int8", "published"), ("wan-image", "int4", None),
            ("wan-two", "float32", None), ("wan-two", "int4", "kohya"),
        ),
    ],
)  # fmt: skip
def test_frames_are_those_of_diffusers(tmp_path, whole, kind, precision, style):
    source, out = tmp_path / "Source", tmp_path / "made"
    pipeline = SHAPES[kind](source)
    command = ["export", str(source), "--out", str(out), "--precision", precision, "--quiet"]
    if style is not None:
        network = pipeline.transformer_2 if kind == "wan-two" else pipeline.transformer
        layers = LTX if kind == "ltx" else WAN
        pipelines.lora(tmp_path / "style.safetensors", network, layers, style, 0.5)
        into = "transformer_2=" if kind == "wan-two" else ""
        command += ["--lora", f"{into}{tmp_path / 'style.safetensors'}:0.5"]
    assert main(command) == 0
    assert Bundle.load(out).precision == precision
    shown = {}
    if kind == "wan-image":
        shown = {"image": np.random.default_rng(0).integers(0, 256, (32, 64, 3), np.uint8)}
    more = {**RUN, **SECONDS.get(kind, {})}
    with Generator(out, device="cpu", threads=1) as generator:
        found = generator.generate(
            PROMPT, negative_prompt="snow", seed=SEED, noise="torch-cpu", **shown, **more
        ).frames()
    expected = of_diffusers(pipeline, shown, more)
    assert found.shape == expected.shape
    near = cosine(found, expected)
    assert near >= GATES[precision], (kind, near)
    if style is not None and precision == "int8":
        # Without the file they are others.
        plain = of_diffusers(SHAPES[kind](tmp_path / "Plain"), shown, more)
        assert 1 - cosine(plain, expected) > 1.5 * (1 - near)


def of_diffusers(pipeline: Any, shown: dict[str, Any], more: dict[str, Any]) -> np.ndarray:
    frames = pipeline(
        prompt=PROMPT,
        negative_prompt="snow",
        generator=torch.Generator("cpu").manual_seed(SEED),
        output_type="np",
        **{name: Image.fromarray(value) for name, value in shown.items()},
        **more,
    ).frames[0]
    return np.rint(np.asarray(frames) * 255).astype(np.uint8)


def cosine(found: np.ndarray, expected: np.ndarray) -> float:
    a, b = (x.astype(np.float64) - x.mean() for x in (found, expected))
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def test_a_bundle_stays_narrow_where_it_should(tmp_path: Path, monkeypatch) -> None:
    """The products of the text encoder and the transformer are narrow, and nothing else."""
    pipelines.Modules(monkeypatch)
    diffusers_folders.wan(tmp_path / "Source")
    command = ["export", str(tmp_path / "Source"), "--out", str(tmp_path / "made"), "--quiet"]
    assert main([*command, "--precision", "int8"]) == 0
    bundle = Bundle.load(tmp_path / "made")
    assert {figure.graph for figure in bundle.fidelity} == {"text_encoder", "transformer"}
    for name in ("text_encoder", "transformer"):
        assert b"MatMulNBits" in bundle.read(bundle.graphs[name].file)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["Source", "made"]
