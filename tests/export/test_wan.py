"""Wan's pipelines from export to frames, beside diffusers on the same noise.

Every folder is written by diffusers' own classes. How the generator runs is tested with the
networks in place of their graphs; slow tests export them by the command.
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
import onnx
import torch
import torch_sessions
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanVideoToVideoPipeline,
)
from diffusers.pipelines.wan import pipeline_wan_i2v, pipeline_wan_video2video
from PIL import Image

from fastvid import Generator
from fastvid._generation import sampling
from fastvid.cli import main
from fastvid.errors import InputError
from fastvid.metrics import psnr
from fastvid_export.importers import ImportOptions, diffusers, wan

PROMPT = "a red  cat &amp;amp; a dog"
SIZE = {"height": 32, "width": 48}
RUN = {**SIZE, "num_frames": 9, "num_inference_steps": 3, "guidance_scale": 5.0}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def exported(folder: Path, make: Any, **options: Any) -> tuple[Any, Generator]:
    """A pipeline, and the generator made of its folder by the command."""
    source, out = folder / "Some-Wan-Diffusers", folder / "made"
    pipeline = make(source, **options)
    assert main(["export", str(source), "--out", str(out), "--quiet"]) == 0
    return pipeline, Generator(out, device="cpu", threads=1)


def unexported(
    folder: Path, patch: pytest.MonkeyPatch, make: Any, **options: Any
) -> tuple[Any, Generator]:
    """The same with the networks themselves in place of their graphs, which takes no time."""
    source = folder / "Some-Wan-Diffusers"
    pipeline = make(source, **options)
    model = wan.Model(diffusers.read(source))
    plans = []
    for part in model.parts():
        state = {key: part.weights.read(name).float() for key, name in part.names.items()}
        part.plan.module.load_state_dict(state, assign=True)
        plans.append(part.plan)
    manifest = model.manifest(ImportOptions("made"), {})
    tokenizer = (source / "tokenizer" / "tokenizer.json").read_bytes()
    torch_sessions.bundle(folder / "made", manifest, plans, tokenizer, patch)
    return pipeline, Generator(folder / "made", device="cpu", threads=1)


@pytest.fixture(scope="module", autouse=True)
def patch():
    with pytest.MonkeyPatch.context() as context:
        for module in (pipeline_wan_i2v, pipeline_wan_video2video):
            if not hasattr(module, "ftfy"):
                # These two call it without asking whether it is there; the prompt needs no mending.
                context.setattr(module, "ftfy", SimpleNamespace(fix_text=str), raising=False)
        yield context


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch) -> Any:
    return unexported(tmp_path_factory.mktemp("wan"), patch, diffusers_folders.wan)


def picture(seed: int, height: int = 32, width: int = 48) -> np.ndarray:
    """Something smooth with an edge."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (4, 6, 3), np.uint8)
    image = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    return np.array(image)


def compare(pipeline: Any, generator: Generator, shared: dict[str, Any], **ours: Any) -> None:
    """Latents after every step, and frames."""
    theirs_seen: list[np.ndarray] = []
    seen: list[np.ndarray] = []

    def keep_theirs(pipe: Any, step: int, timestep: Any, state: Any) -> Any:
        theirs_seen.append(state["latents"].numpy().copy())
        return state

    def keep(owner: Any, step: int, timestep: float, state: Any) -> None:
        seen.append(np.array(state["latents"]))

    torch_only = {k: ours.pop(k) for k in ("pil",) if k in ours}
    theirs = pipeline(
        prompt=PROMPT,
        generator=torch.Generator("cpu").manual_seed(3),
        output_type="np",
        callback_on_step_end=keep_theirs,
        **torch_only.get("pil", {}),
        **shared,
    ).frames[0]
    video = generator.generate(
        PROMPT, seed=3, noise="torch-cpu", callback_on_step_end=keep, **{**shared, **ours}
    )
    frames = video.frames()
    assert len(seen) == len(theirs_seen) > 0
    for ours_now, theirs_now in zip(seen, theirs_seen, strict=True):
        worst = np.abs(ours_now - theirs_now).max() / np.abs(theirs_now).max()
        assert worst <= 1e-4
    wanted = np.rint(theirs * 255).astype(np.uint8)
    assert frames.shape == wanted.shape
    assert wanted.std() > 5
    assert psnr(frames, wanted) >= 50


@pytest.mark.parametrize(
    "changed",
    [{}, {"guidance_scale": 1.0}, {"negative_prompt": "snow"}, {"num_frames": 5, "height": 48}],
)
def test_text_to_video(plain, changed):
    pipeline, generator = plain
    compare(pipeline, generator, {**RUN, **changed})


def test_text_to_video_with_euler(plain):
    pipeline, generator = plain
    euler = FlowMatchEulerDiscreteScheduler(shift=7.0)
    compare(
        WanPipeline(**{**pipeline.components, "scheduler": euler}), generator, RUN,
        scheduler="FlowMatchEulerDiscreteScheduler", flow_shift=7.0,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["unipc", "euler"])
def test_video_to_video(plain, kind):
    pipeline, generator = plain
    parts = {k: v for k, v in pipeline.components.items() if k != "transformer_2"}
    solver = diffusers_folders.scheduler(kind)
    redraw = WanVideoToVideoPipeline(**{**parts, "scheduler": solver})
    redraw.set_progress_bar_config(disable=True)
    clip = np.stack([picture(i) for i in range(9)])
    shared = {k: v for k, v in RUN.items() if k != "num_frames"}
    shared |= {"num_inference_steps": 5, "strength": 0.6}
    ours = {} if kind == "unipc" else {
        "scheduler": "FlowMatchEulerDiscreteScheduler", "flow_shift": 7.0
    }  # fmt: skip
    compare(
        redraw, generator, shared, pil={"video": [Image.fromarray(f) for f in clip]}, video=clip,
        **ours,
    )  # fmt: skip


def test_pictures_are_refused_by_a_model_of_text(plain):
    _, generator = plain
    with pytest.raises(InputError, match="must be trained to start from pictures"):
        generator.generate("a cat", image=picture(0))


def test_frames_come_out_one_latent_at_a_time(plain):
    _, generator = plain
    pieces = list(generator.stream("a cat", **{**RUN, "num_inference_steps": 1}, seed=1))
    assert [len(piece) for piece in pieces] == [1, 4, 4]


@pytest.mark.parametrize("last", [False, True])
def test_image_to_video(tmp_path, patch, last):
    made = unexported(tmp_path, patch, diffusers_folders.wan_image, last=last)
    check_image_to_video(*made, last=last)


def check_image_to_video(pipeline: Any, generator: Generator, *, last: bool) -> None:
    shown = {"image": picture(1)} | ({"last_image": picture(2)} if last else {})
    pil = {name: Image.fromarray(value) for name, value in shown.items()}
    compare(pipeline, generator, RUN, pil=pil, **shown)
    with pytest.raises(InputError, match="must be given a picture to start from"):
        generator.generate("a cat", **SIZE)
    one, two = {"image": picture(1)}, {"image": picture(1), "last_image": picture(2)}
    with pytest.raises(InputError, match="last_image: model 'made' must be"):
        generator.generate("a cat", **(one if last else two))


def test_a_timestep_for_each_frame(tmp_path, patch):
    check_small(*unexported(tmp_path, patch, diffusers_folders.wan_22_small))


def check_small(pipeline: Any, generator: Generator) -> None:
    run = {**RUN, "height": 64, "width": 96}
    compare(pipeline, generator, run)
    from_picture = WanImageToVideoPipeline(**pipeline.components, expand_timesteps=True)
    from_picture.set_progress_bar_config(disable=True)
    shown = picture(1, 64, 96)
    compare(from_picture, generator, run, pil={"image": Image.fromarray(shown)}, image=shown)
    with pytest.raises(InputError, match="last_image: model 'made' must be trained for it"):
        generator.generate("a cat", image=shown, last_image=shown)


def test_two_transformers(tmp_path, patch):
    pipeline, generator = unexported(tmp_path, patch, diffusers_folders.wan_22_large)
    compare(pipeline, generator, {**RUN, "guidance_scale_2": 2.0})
    compare(pipeline, generator, RUN)


def test_two_transformers_from_pictures(tmp_path, patch):
    pipeline, generator = unexported(tmp_path, patch, diffusers_folders.wan_22_large, image=True)
    shown = {"image": picture(1), "last_image": picture(2)}
    pil = {name: Image.fromarray(value) for name, value in shown.items()}
    compare(pipeline, generator, RUN, pil=pil, **shown)


def test_long_clips_run_one_prompt_after_the_other(plain, monkeypatch):
    """The same latents, whether two evaluations are one of a batch or not."""
    _, generator = plain
    together = generator.generate(PROMPT, seed=1, **RUN).frames()
    monkeypatch.setattr(sampling, "MOST_BATCHED", 0)
    apart = generator.generate(PROMPT, seed=1, **RUN).frames()
    assert psnr(together, apart) >= 60


@pytest.mark.slow
def test_exported_text_to_video(tmp_path):
    pipeline, generator = exported(tmp_path, diffusers_folders.wan)
    compare(pipeline, generator, RUN)
    bundle = generator.bundle
    assert bundle.name == "made"
    assert bundle.scheduler["_class_name"] == "UniPCMultistepScheduler"
    operators = set()
    for spec in bundle.graphs.values():
        graph = onnx.load(bundle.path / spec.file, load_external_data=False).graph
        operators |= {node.op_type for node in graph.node}
    assert "ScatterND" not in operators
    assert {"Attention", "QkNormRope"} <= operators
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["Some-Wan-Diffusers", "made"]


@pytest.mark.slow
def test_exported_image_to_video(tmp_path):
    check_image_to_video(*exported(tmp_path, diffusers_folders.wan_image, last=True), last=True)


@pytest.mark.slow
def test_exported_small(tmp_path):
    check_small(*exported(tmp_path, diffusers_folders.wan_22_small))
