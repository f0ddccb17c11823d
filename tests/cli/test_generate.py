"""`fastvid generate`, with a model of a few numbers."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("tokenizers")

import generators

from fastvid import Video
from fastvid._sheet import write_png
from fastvid.cli import main

PROMPT = "a red circle moves left"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    generators.bundle(folder)
    return str(folder)


def generate(model: str, output: Path, *more: str) -> int:
    arguments = ["generate", PROMPT, "--model", model, "-o", str(output), "--seed", "3"]
    return main([*arguments, "--codec", "lossless", *more])


def test_frames_are_those_of_the_class(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from fastvid import Generator

    assert generate(model, tmp_path / "out.mkv") == 0
    assert "24x16, 8 fps, 9 frames, 1.125 s" in (told := capsys.readouterr().out)
    assert "seed 3" in told
    with Generator(model) as generator:
        expected = generator.generate(PROMPT, seed=3).frames()
    # Lossless video is stored as YUV; it is RGB that makes the trip.
    np.testing.assert_allclose(
        Video.open(tmp_path / "out.mkv").frames().astype(int), expected.astype(int), atol=3
    )


def test_one_process_draws_retimes_and_enlarges(model: str, tmp_path: Path) -> None:
    output, preview = tmp_path / "out.mp4", tmp_path / "sheet.png"
    more = ("--interpolate", "4", "--upscale", "2", "--preview", str(preview))
    assert generate(model, output, *more, "--quiet") == 0
    video = Video.open(output)
    assert (video.width, video.height, video.fps) == (48, 32, 32)
    assert video.frames().shape == (36, 32, 48, 3)
    # Nine frames of 24x16 in rows of four.
    assert preview.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    sheet = Video.open(_folder_of(preview)).frames()
    assert sheet.shape == (1, 3 * 18 + 2, 4 * 26 + 2, 3)


def _folder_of(file: Path) -> Path:
    folder = file.with_suffix("")
    folder.mkdir()
    (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_pictures_and_clips_are_read(model: str, tmp_path: Path) -> None:
    picture = np.full((16, 24, 3), 200, np.uint8)
    write_png(tmp_path / "first.png", picture, overwrite=False)
    assert generate(model, tmp_path / "a.mkv", "--image", str(tmp_path / "first.png")) == 0
    made = Video.open(tmp_path / "a.mkv").frames()
    assert abs(made[0].astype(int) - 200).max() <= 3
    redrawn = ("--video", str(tmp_path / "a.mkv"), "--strength", "0.3")
    assert generate(model, tmp_path / "b.mkv", *redrawn) == 0
    assert Video.open(tmp_path / "b.mkv").frames().shape == made.shape


def test_json_names_model_and_size(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate(model, tmp_path / "out.mkv", "--json") == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (told["width"], told["height"], told["frames_out"], told["seed"]) == (24, 16, 9, 3)
    assert told["models"][0]["model"] == "generator-test"


def test_words_that_are_not_known_are_one_line(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["generate", "a red zebra", "--model", model, "-o", str(tmp_path / "out.mp4")]
    assert main([*command, "--seed", "3"]) == 0
    assert "fastvid: warning: prompt: the model does not know 'zebra'\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (("--height", "20"), 2, "the nearest are 16 and 24"),
        (("--seed", "-1"), 2, "seed: argument must be from 0"),
        (("--strength", "0.5"), 2, "strength: argument needs video too"),
        (("--image", "nonsuch.png"), 4, "nonsuch.png: image file must exist"),
        (("--scheduler", "nonsuch"), 2, "scheduler: argument must be one of"),
        (("--preview", "no/such/sheet.png"), 7, "its folder must exist"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(
    model: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    assert generate(model, tmp_path / "out.mkv", *more) == code
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_output_that_exists_is_named_before_anything_is_drawn(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out.mkv").write_bytes(b"mine")
    assert generate(model, tmp_path / "out.mkv") == 7
    assert "drawing" not in capsys.readouterr().err
    assert (tmp_path / "out.mkv").read_bytes() == b"mine"


def test_control_c_while_drawing_leaves_nothing(tmp_path: Path) -> None:
    rule = {"minimum": 16, "multiple_of": 8, "padding": "none", "maximum": 1024}
    generators.bundle(
        tmp_path / "model",
        size_rule=rule,
        generation=generators.GENERATION | {"max_num_frames": 65},
    )
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-m", "fastvid", "generate", PROMPT]
    command += ["--model", str(tmp_path / "model"), "-o", str(tmp_path / "out" / "out.mp4")]
    command += ["--num-inference-steps", "1000", "--num-frames", "65"]
    command += ["--height", "1024", "--width", "1024"]
    # Steps are counted on a terminal only.
    terminal, errors = pty.openpty()
    with subprocess.Popen(command, stderr=errors, stdout=subprocess.DEVNULL) as process:
        os.close(errors)
        told = b""
        while b"drawing: step" not in told:
            told += os.read(terminal, 1000)
        process.send_signal(signal.SIGINT)
        while b"interrupted" not in told:
            told += os.read(terminal, 1000)
        assert process.wait(60) == 130
    os.close(terminal)
    assert not list((tmp_path / "out").iterdir())
