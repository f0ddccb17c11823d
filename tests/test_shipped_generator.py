"""The generator that ships: repeatable, obedient to every argument, and what its bundle claims."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastvid import Generator, Video, schedulers
from fastvid.bundle import Bundle, shipped
from fastvid.cli import main
from fastvid.errors import CancelledError, FastvidError, InputError, InputTypeError, ModelError
from fastvid.metrics import psnr

NAME = "generator-tiny"
PROMPT = "a red circle moves right over a white background"
MEGABYTES = 20

pytestmark = pytest.mark.skipif(
    NAME not in shipped(), reason=f"the bundle {NAME} is not in python/fastvid/models"
)
tokenizers = pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def generator() -> Any:
    with Generator(threads=2) as model:
        yield model


@pytest.fixture(scope="module")
def clip(generator: Generator) -> Any:
    return frames(generator)


def frames(generator: Generator, prompt: str = PROMPT, **options: Any) -> Any:
    return generator.generate(prompt, **{"seed": 7, **options}).frames()


def centres(clip: Any) -> Any:
    """Columns of the mean of the pixels that are more red than green."""
    red = clip[..., 0].astype(int) - clip[..., 1] > 80
    assert red.any((1, 2)).sum() > len(clip) // 2, "nothing red is there"
    return [np.nonzero(mask)[1].mean() for mask in red if mask.any()]


def test_a_clip_has_the_size_and_the_length_of_the_bundle(clip: Any) -> None:
    assert clip.shape == (17, 64, 64, 3)


def test_a_clip_shows_what_was_asked_for(clip: Any) -> None:
    ways = centres(clip)
    assert ways[-1] - ways[0] > 6
    border = np.concatenate([clip[:, 0].reshape(-1, 3), clip[:, -1].reshape(-1, 3)])
    assert np.median(border, axis=0).min() > 200


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_change_nothing(clip: Any, threads: int) -> None:
    with Generator(threads=threads) as model:
        np.testing.assert_array_equal(frames(model), clip)


def test_streaming_changes_nothing(generator: Generator, clip: Any) -> None:
    pieces = list(generator.stream(PROMPT, seed=7))
    assert [len(piece) for piece in pieces] == [1, 4, 4, 4, 4]
    np.testing.assert_array_equal(np.concatenate(pieces), clip)


def test_what_ran_before_changes_nothing(generator: Generator, clip: Any) -> None:
    frames(generator, "a star meets a ring", seed=1, height=128, width=96, num_frames=9)
    np.testing.assert_array_equal(frames(generator), clip)


def test_seeds_and_prompts_change_the_clip(generator: Generator, clip: Any) -> None:
    assert not np.array_equal(frames(generator, seed=8), clip)
    other = frames(generator, "a blue square moves left over a yellow background")
    assert psnr(other, clip) < 20


@pytest.mark.parametrize(
    "name", ["FlowMatchEulerDiscreteScheduler", "DPMSolverMultistepScheduler",
             "UniPCMultistepScheduler"],
)  # fmt: skip
def test_every_scheduler_draws(generator: Generator, name: str) -> None:
    made = frames(generator, scheduler=name, num_inference_steps=8)
    assert made.shape == (17, 64, 64, 3)
    assert made.std() > 10


def test_a_scheduler_of_ones_own_is_taken(generator: Generator, clip: Any) -> None:
    own = dict(generator.bundle.scheduler)
    name = own.pop("_class_name")
    same = getattr(schedulers, name)(**own)
    np.testing.assert_array_equal(frames(generator, scheduler=same), clip)


def test_a_negative_prompt_needs_guidance_and_shows(generator: Generator, clip: Any) -> None:
    np.testing.assert_array_equal(frames(generator, guidance_scale=1), clip[:])
    guided = frames(generator, guidance_scale=3)
    led_away = frames(generator, guidance_scale=3, negative_prompt="a blue square")
    assert not np.array_equal(guided, led_away)


def test_a_picture_is_the_first_frame_and_another_the_last(generator: Generator, clip: Any) -> None:
    made = frames(generator, seed=3, image=clip[0])
    assert psnr(made[0], clip[0]) > 25
    both = frames(generator, seed=3, image=clip[0], last_image=clip[-1])
    assert psnr(both[0], clip[0]) > 25
    assert psnr(both[-1], clip[-1]) > 22


def test_a_clip_is_continued_and_redrawn(generator: Generator, clip: Any) -> None:
    longer = frames(generator, seed=3, video=Video.from_frames(clip, 8))
    # It begins with the end of the clip; two of its latents are known.
    assert psnr(longer[:5], clip[-5:]) > 22
    near, far = (
        psnr(frames(generator, seed=3, video=clip, strength=strength), clip)
        for strength in (0.25, 1.0)
    )
    assert near > far


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"prompt": ""}, InputError, "prompt: argument must say what to draw"),
        ({"prompt": "a " * 5_000_000}, InputError, "at most 10000 characters"),
        ({"prompt": "red " * 60}, InputError, "prompt: argument must have at most 48 tokens"),
        ({"seed": -1}, InputError, "seed: argument must be from 0"),
        ({"num_inference_steps": 0}, InputError, "from 1 to 1000, got 0"),
        ({"num_inference_steps": 10**9}, InputError, "from 1 to 1000, got 1000000000"),
        ({"height": 72}, InputError, "multiple of 16 from 32 to 256, .*nearest are 64 and 80"),
        ({"width": 10**9}, InputError, "the nearest is 256"),
        ({"num_frames": 18}, InputError, r"4k \+ 1 and at most 65, .*nearest are 17 and 21"),
        ({"image": np.zeros((64, 64), np.uint8)}, InputError, r"shape \(H, W, 3\)"),
        ({"image": np.zeros((64, 64, 3))}, InputTypeError, "image: argument must be uint8"),
        ({"video": np.zeros((5, 64, 64, 3), np.uint8), "strength": 1.01}, InputError, "from 0"),
        ({"scheduler": "PNDMScheduler"}, InputError, "scheduler: argument must be one of Flow"),
    ],
)
def test_wrong_arguments_are_named(
    generator: Generator, changed: dict[str, Any], error: type[FastvidError], message: str
) -> None:
    with pytest.raises(error, match=message):
        generator.generate(**{"prompt": PROMPT, **changed})


def test_unknown_words_are_named(generator: Generator) -> None:
    with pytest.warns(UserWarning, match="the model does not know 'dragon', '☃'$"):
        generator.generate("a Red dragon moves slowly, ☃", seed=1)


def test_a_callback_stops_the_run(generator: Generator, clip: Any) -> None:
    with pytest.raises(CancelledError, match="stopped at step 2"):
        generator.generate(PROMPT, seed=7, callback_on_step_end=lambda g, i, t, v: i < 1)
    np.testing.assert_array_equal(frames(generator), clip)


def test_a_missing_graph_is_an_error_of_the_model(tmp_path: Path) -> None:
    shutil.copytree(shipped()[NAME], tmp_path / "broken")
    (tmp_path / "broken" / "decoder_next.onnx").unlink()
    with pytest.raises(ModelError, match=r"decoder_next\.onnx"):
        Generator(tmp_path / "broken")


def test_the_bundle_says_what_it_is_and_is_small() -> None:
    bundle = Bundle.load(shipped()[NAME])
    bundle.verify()
    assert sum(file.size for file in bundle.files.values()) <= MEGABYTES * 1_000_000
    manifest = json.loads((Path(shipped()[NAME]) / "bundle.json").read_text())
    assert manifest["provenance"]["settings"]["seed"] is not None
    assert manifest["provenance"]["training_data"]
    apart: dict[str, float] = {}
    for figure in bundle.quality:
        if figure.metric == "largest difference from PyTorch":
            limit = 1 if figure.unit == "levels" else 1e-4
            assert figure.value <= limit, figure
            graph = figure.data.split(" of ")[1].split(",")[0]
            apart[graph] = max(apart.get(graph, 0.0), figure.value)
    assert set(apart) == set(bundle.graphs)


def test_the_transformer_holds_the_projects_ops() -> None:
    onnx = pytest.importorskip("onnx")
    bundle = Bundle.load(shipped()[NAME])
    nodes = onnx.load_from_string(bundle.read(bundle.graphs["transformer"].file)).graph.node
    kinds = [node.op_type for node in nodes if node.domain == "fastvid"]
    assert kinds.count("Attention") == kinds.count("QkNormRope") > 0
    assert not any(node.op_type == "Softmax" for node in nodes)


def test_doctor_draws_a_clip_or_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastvid.doctor import _models

    def checks() -> list[Any]:
        return [check for check in _models.models(run=True) if check.name == NAME]

    assert [check.status for check in checks()] == ["ok", "ok"]
    assert "17 frames of 64x64 in" in checks()[1].detail
    monkeypatch.setattr(_models, "find_spec", lambda name: None)
    assert [check.status for check in checks()] == ["ok", "absent"]
    assert "fastvid-sdk[generate]" in checks()[1].hint


def test_one_command_draws_retimes_enlarges_and_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, sheet = tmp_path / "out.mp4", tmp_path / "sheet.png"
    command = ["generate", PROMPT, "-o", str(output), "--seed", "7", "--json"]
    command += ["--interpolate", "4", "--upscale", "4", "--preview", str(sheet)]
    assert main(command) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["width"], told["height"], told["fps"]) == (256, 256, "32")
    assert [model["task"] for model in told["models"]] == ["generator", "interpolator", "upscaler"]
    video = Video.open(output)
    assert len(list(video)) == 17 * 4
    assert sheet.stat().st_size > 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mp4", "sheet.png"]
