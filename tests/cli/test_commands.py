"""What the commands write and print."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastvid import _commands
from fastvid.bundle import shipped
from fastvid.cli import build_parser
from fastvid.errors import FastvidError
from fastvid.video import Video

Run = Callable[..., tuple[int, str, str]]
Facts = Callable[[Path], tuple[int, int, Fraction, int]]


def test_run_interpolates_and_upscales_in_one_pass(
    run: Run, facts: Facts, models: Path, source: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out.mp4"
    code, out, err = run(
        "run", source, "-o", target, "--interpolate", 2, "--upscale", 2,
        "--interpolate-model", models / "ip", "--upscale-model", models / "up", "--quiet",
    )  # fmt: skip
    assert (code, out, err) == (0, "", "")
    assert facts(target) == (128, 128, 20, 16)


def test_upscale_keeps_pictures(run: Run, models: Path, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.mkv"
    code, _, _ = run(
        "upscale", source, "-o", target, "--model", models / "up3", "--scale", 3,
        "--codec", "lossless", "--quiet",
    )  # fmt: skip
    assert code == 0
    expected = Video.open(source).frames().repeat(3, 1).repeat(3, 2)
    found = Video.open(target).frames()
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= 3


def test_restore_keeps_the_size_and_says_so_in_the_name(
    run: Run, models: Path, source: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "clip.mkv"
    copy.write_bytes(source.read_bytes())
    code, out, _ = run("restore", copy, "--model", models / "up1", "--codec", "lossless", "--json")
    assert code == 0
    result = json.loads(out)
    assert result["path"] == str(tmp_path / "clip-restored.mkv")
    assert set(result["busy"]) == {"decode", "restore", "encode"}
    found, expected = Video.open(result["path"]).frames(), Video.open(source).frames()
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= 3


def test_interpolate_to_a_broadcast_rate(
    run: Run, facts: Facts, models: Path, source: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out.mp4"
    code, out, _ = run(
        "interpolate", source, "-o", target, "--fps", "29.97", "--model", models / "ip", "--json"
    )
    assert code == 0
    result = json.loads(out)
    assert result["fps"] == "30000/1001"
    assert result["duration"] == result["duration_in"] == pytest.approx(0.8)
    assert result["frames_out"] == 24
    assert facts(target)[3] == 24


def test_json_tells_sizes_costs_and_models(
    run: Run, models: Path, source: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out.mp4"
    code, out, _ = run("upscale", source, "-o", target, "--model", models / "up", "--json")
    result = json.loads(out)
    assert code == 0
    assert (result["width"], result["height"], result["fps"]) == (128, 128, "10")
    assert result["path"] == str(target)
    assert set(result["busy"]) == {"decode", "upscale", "encode"}
    assert result["models"][0]["device"] == "cpu"


def test_summary_names_the_file_and_the_costs(
    run: Run, models: Path, source: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out.mp4"
    _, out, _ = run("upscale", source, "-o", target, "--model", models / "up")
    assert f"{target}: 128x128, 10 fps, 8 frames, 0.800 s" in out
    assert "upscale" in out
    assert "onnxruntime on cpu" in out


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["upscale", "--scale", 2], "clip-2x.mkv"),
        (["interpolate", "--factor", 3], "clip-30fps.mkv"),
        (["interpolate", "--fps", "23.976"], "clip-23.976fps.mkv"),
    ],
)
def test_default_output_says_what_was_done(
    run: Run, models: Path, source: Path, tmp_path: Path, arguments: list[Any], name: str
) -> None:
    copy = tmp_path / "clip.mkv"
    copy.write_bytes(source.read_bytes())
    model = models / ("up" if arguments[0] == "upscale" else "ip")
    assert run(arguments[0], copy, *arguments[1:], "--model", model, "--quiet")[0] == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["clip.mkv", name])


def test_default_output_of_other_containers_and_folders_is_mp4() -> None:
    video = Video.from_frames(np.zeros((2, 8, 8, 3), np.uint8), 10)
    for path in ("a/clip.264", "a/clip.avi", "a/clip/"):
        assert _commands.default_output(path, video, (4, 4)) == "a/clip-2x.mp4"


def test_models_lists_what_ships(run: Run) -> None:
    code, out, _ = run("models", "--json", "--verify")
    assert code == 0
    rows = json.loads(out)["models"]
    assert [row["name"] for row in rows] == list(shipped())
    assert all(row["verified"] and row["bytes"] > 0 for row in rows)
    code, out, _ = run("models")
    assert code == 0
    assert all(name in out for name in shipped())


def test_doctor_answers(run: Run) -> None:
    code, out, _ = run("doctor", "--json")
    report = json.loads(out)
    assert code == report["exit_status"]
    assert report["checks"]


def test_each_error_class_has_a_documented_exit_code() -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()

    def tree(kind: type[FastvidError]) -> list[type[FastvidError]]:
        return [kind, *(leaf for child in kind.__subclasses__() for leaf in tree(child))]

    public = [kind for kind in tree(FastvidError) if kind.__module__ == "fastvid.errors"]
    for kind in public:
        row = next(line for line in page.splitlines() if f"`{kind.__name__}`" in line)
        assert row.startswith(f"| {kind.exit_code} |")


def test_page_and_help_name_the_same_options() -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    named = set(re.findall(r"(?<![\w-])--[a-z0-9][a-z0-9-]*", page))
    commands = next(
        action for action in build_parser()._actions if isinstance(action.choices, dict)
    ).choices
    offered = {
        option
        for command in commands.values()
        for action in command._actions
        for option in action.option_strings
        if option.startswith("--")
    }
    assert named - {"--help", "--output"} == offered - {"--help", "--output"}
