"""Wrong arguments and unusable files: exit codes, one line, and nothing left behind."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import bundles
import numpy as np
import pytest
from PIL import Image

from fastvid import _commands
from fastvid.cli import main
from fastvid.video import Video

Run = Callable[..., tuple[int, str, str]]
Facts = Callable[[Path], tuple[int, int, Fraction, int]]


def bad_files(folder: Path) -> dict[str, Path]:
    """Inputs that are no usable video."""
    made = {name: folder / name for name in ("text.mp4", "html.mp4", "empty.mp4", "list.m3u8")}
    made["text.mp4"].write_text("hello " * 100)
    made["html.mp4"].write_text("<!DOCTYPE html><html><body>not found</body></html>")
    made["empty.mp4"].write_bytes(b"")
    made["list.m3u8"].write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")
    made["folder"] = folder / "folder"
    made["folder"].mkdir()
    made["missing"] = folder / "missing.mp4"
    made["audio.mka"] = folder / "audio.mka"
    with av.open(str(made["audio.mka"]), "w") as container:
        stream = container.add_stream("flac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.sample_rate, frame.pts = 8000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return made


@pytest.mark.parametrize(
    "name",
    ["text.mp4", "html.mp4", "empty.mp4", "list.m3u8", "folder", "missing", "audio.mka"],
)
def test_unusable_media_exits_4_with_one_line(
    run: Run, models: Path, tmp_path: Path, name: str
) -> None:
    path = bad_files(tmp_path)[name]
    target = tmp_path / "out.mp4"
    code, out, err = run("upscale", path, "-o", target, "--model", models / "up")
    assert (code, out) == (4, "")
    lines = err.splitlines()
    assert lines[0].startswith("fastvid: error: ")
    assert all(line.startswith("hint: ") for line in lines[1:])
    assert "Traceback" not in err
    assert not target.exists()


@pytest.mark.parametrize("path", ["http://127.0.0.1:9/a.mp4", "concat:a|b", "lavfi:testsrc"])
def test_urls_and_protocols_exit_4(run: Run, models: Path, tmp_path: Path, path: str) -> None:
    code, _, err = run("upscale", path, "-o", tmp_path / "o.mp4", "--model", models / "up")
    assert code == 4
    assert "error" in err


def test_one_frame_exits_2_and_leaves_nothing(run: Run, models: Path, tmp_path: Path) -> None:
    clip = tmp_path / "one.mkv"
    Video.from_frames(np.zeros((1, 16, 16, 3), np.uint8), 10).save(clip)
    code, _, err = run("interpolate", clip, "-o", tmp_path / "o.mp4", "--model", models / "ip")
    assert code == 2
    assert "at least 2 frames, got 1" in err
    assert [p.name for p in tmp_path.iterdir()] == ["one.mkv"]


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (17, 31)])
def test_odd_and_tiny_sizes_pass(
    run: Run, facts: Facts, models: Path, tmp_path: Path, size: tuple[int, int]
) -> None:
    clip, target = tmp_path / "frames", tmp_path / "out.mp4"
    Video.from_frames(np.full((3, *size, 3), 90, np.uint8), 10).save(clip)
    arguments = ["--interpolate", 2, "--upscale", 3, "--quiet"]
    arguments += ["--interpolate-model", models / "ip", "--upscale-model", models / "up3"]
    assert run("run", clip, "-o", target, "--input-fps", 10, *arguments)[0] == 0
    assert facts(target) == (3 * size[1], 3 * size[0], 20, 6)


def test_existing_output_exits_7_and_stays(
    run: Run, facts: Facts, models: Path, source: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out.mp4"
    target.write_text("mine")
    arguments = ["upscale", source, "-o", target, "--model", models / "up", "--quiet"]
    code, _, err = run(*arguments)
    assert code == 7
    assert "--overwrite" in err
    assert target.read_text() == "mine"
    assert run(*arguments, "--overwrite")[0] == 0
    assert facts(target)[3] == 8


@pytest.mark.parametrize("name", ["{source}", "{tmp}/none/out.mp4", "{tmp}/out.xyz"])
def test_impossible_outputs_exit_7(
    run: Run, models: Path, source: Path, tmp_path: Path, name: str
) -> None:
    before = source.read_bytes()
    target = name.format(source=source, tmp=tmp_path)
    code, _, err = run(
        "upscale", source, "-o", target, "--model", models / "up", "--overwrite", "--quiet"
    )
    assert code == 7
    assert err.startswith("fastvid: error: ")
    assert source.read_bytes() == before
    assert list(tmp_path.iterdir()) == []


def test_tampered_bundle_exits_5(run: Run, source: Path, tmp_path: Path) -> None:
    bundles.upscaler(tmp_path / "up")
    graph = tmp_path / "up" / "run.onnx"
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)
    code, _, err = run("upscale", source, "-o", tmp_path / "o.mp4", "--model", tmp_path / "up")
    assert code == 5
    assert "run.onnx" in err


def test_missing_cuda_exits_6(run: Run, models: Path, source: Path, tmp_path: Path) -> None:
    from fastvid.devices import cuda_driver

    if cuda_driver().devices:
        pytest.skip("this machine has a CUDA device")
    target = tmp_path / "o.mp4"
    code, _, err = run(
        "upscale", source, "-o", target, "--model", models / "up", "--device", "cuda"
    )
    assert code == 6
    assert "cuda" in err
    assert not target.exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "COMMAND"),
        (["frobnicate"], "frobnicate"),
        (["upscale"], "IN"),
        (["upscale", "{source}", "--scale", "two"], "two"),
        (["upscale", "{source}", "--scale", "0.5"], "whole number"),
        (["upscale", "{source}", "--scale", "0"], "makes it smaller"),
        (["upscale", "{source}", "--scale", "-2"], "makes it smaller"),
        (["upscale", "{source}", "--scale", "1"], "one of 2"),
        (["upscale", "{source}", "--scale", "17", "--model", "quality"], "one of 2"),
        (["upscale", "{source}", "--precision", "float16"], "'auto' or 'float32' or "),
        (["upscale", "{source}", "--precision", "float8"], "one of 'auto', 'float32'"),
        (["upscale", "{source}", "--model", "{up}", "--precision", "int4"], "transformers"),
        (["upscale", "{source}", "--codec", "mjpeg"], "mjpeg"),
        (["upscale", "{source}", "--quality", "101", "--model", "{up}"], "101"),
        (["upscale", "{source}", "--scale", "5", "--model", "{up}"], "scale"),
        (["upscale", "{source}", "--model", "nonsuch"], "nonsuch"),
        (["restore", "{source}", "--model", "{up}"], "scale: argument must be 2"),
        (["restore", "{source}", "--model", "nonsuch"], "nonsuch"),
        (["restore", "{source}", "--scale", "2"], "--scale"),
        (["restore"], "IN"),
        (["upscale", "{source}", "--model", "{up}", "--device", "gpu"], "gpu"),
        (["upscale", "{source}", "--model", "{up}", "--threads", "0"], "threads"),
        (["upscale", "{source}", "--model", "{up}", "--input-fps", "x"], "fps"),
        (["interpolate", "{source}", "--factor", "2", "--fps", "60"], "not allowed"),
        (["interpolate", "{source}", "--factor", "1", "--model", "{ip}"], "from 2 to 64"),
        (["interpolate", "{source}", "--factor", "2.5", "--model", "{ip}"], "whole number"),
        (["interpolate", "{source}", "--factor", "-2", "--model", "{ip}"], "from 2 to 64"),
        (["interpolate", "{source}", "--factor", "1000000", "--model", "{ip}"], "from 2 to 64"),
        (["interpolate", "{source}", "--fps", "-1", "--model", "{ip}"], "fps"),
        (["interpolate", "{source}", "--fps", "0", "--model", "{ip}"], "above 0"),
        (["interpolate", "{source}", "--fps", "1e9", "--model", "{ip}"], "at most 1000"),
        (["interpolate", "{source}", "--fps", "60/0", "--model", "{ip}"], "60/0"),
        (["interpolate", "{source}", "--fps", "nan", "--model", "{ip}"], "nan"),
        (["interpolate", "{source}", "--duplicates", "drop", "--model", "{ip}"], "merge"),
        (["interpolate", "{source}", "--precision", "int8", "--model", "{ip}"], "onnx-int8"),
        (["run", "{source}"], "--interpolate"),
        (["run", "{source}", "--interpolate", "1"], "from 2 to 64"),
        (["run", "{source}", "--upscale", "1"], "one of 2"),
        (["run", "{source}", "--interpolate", "2", "--upscale", "-2"], "makes it smaller"),
        (["demo", "--size", "big"], "size"),
        (["demo", "--seconds", "nan"], "seconds"),
        (["demo", "--seed", "-1"], "seed"),
    ],
)
def test_wrong_usage_exits_2_and_writes_nothing(
    run: Run,
    models: Path,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    beside = sorted(source.parent.iterdir())
    names = {"source": source, "up": models / "up", "ip": models / "ip"}
    code, out, err = run(*(argument.format(**names) for argument in arguments))
    assert (code, out) == (2, "")
    assert says in err
    assert err.startswith("fastvid: error: ")
    assert list(tmp_path.iterdir()) == []
    assert sorted(source.parent.iterdir()) == beside


def test_errors_are_json_objects_on_request(run: Run, tmp_path: Path) -> None:
    code, out, err = run("upscale", tmp_path / "none.mp4", "--json")
    error = json.loads(out)["error"]
    assert (code, err) == (4, "")
    assert error["type"] == "UnreadableMediaError"
    assert error["exit_code"] == 4
    assert "none.mp4" in error["message"]
    code, out, _ = run("upscale", "--json")
    assert (code, json.loads(out)["error"]["type"]) == (2, "UsageError")


def test_unexpected_errors_are_one_line_and_raised_with_debug(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: object) -> int:
        raise RuntimeError("broken\nbadly")

    monkeypatch.setattr(_commands, "models", fail)
    code, _, err = run("models")
    assert code == 1
    assert err.splitlines()[0] == "fastvid: error: unexpected RuntimeError: broken badly"
    with pytest.raises(RuntimeError, match="broken"):
        main(["models", "--debug"])
    del capsys


def test_debug_shows_where_an_error_came_from(run: Run, tmp_path: Path) -> None:
    code, _, err = run("upscale", tmp_path / "none.mp4", "--debug")
    assert code == 4
    assert "Traceback" in err
    assert "fastvid: error:" in err


def test_named_pipe_exits_4_at_once(run: Run, models: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    code, _, err = run(
        "upscale", tmp_path / "pipe.mp4", "-o", tmp_path / "o.mp4", "--model", models / "up"
    )
    assert code == 4
    assert "named pipe" in err
    assert [p.name for p in tmp_path.iterdir()] == ["pipe.mp4"]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_video_without_frames_exits_4(
    run: Run, models: Path, make_clip: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    clip = make_clip(name, frames=5)
    data = clip.read_bytes()
    # Where the frames begin: the media data of MP4, the first cluster of Matroska.
    clip.write_bytes(data[: data.index(b"mdat" if name == "a.mp4" else b"\x1f\x43\xb6\x75")])
    code, _, err = run("upscale", clip, "-o", tmp_path / "o.mp4", "--model", models / "up")
    assert code == 4
    assert "file ends before" in err
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_size_change_exits_4_and_leaves_nothing(
    run: Run, models: Path, make_clip: Callable[..., Path], tmp_path: Path
) -> None:
    joined, folder = tmp_path / "joined.ts", tmp_path / "out"
    folder.mkdir()
    parts = [make_clip("a.ts"), make_clip("b.ts", size=(128, 96), pts=range(20, 28))]
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    for target in (folder / "o.mp4", folder / "o.y4m", folder / "images"):
        code, _, err = run(
            "run", joined, "-o", target, "--interpolate", 2, "--upscale", 2, "--quiet",
            "--interpolate-model", models / "ip", "--upscale-model", models / "up",
        )  # fmt: skip
        assert code == 4
        assert "64x48, got 128x96" in err
        assert list(folder.iterdir()) == []


def test_cut_file_warns_and_with_strict_exits_4(
    run: Run, models: Path, make_clip: Callable[..., Path], tmp_path: Path
) -> None:
    clip, folder = make_clip("a.mkv", frames=60, options={"g": "10"}), tmp_path / "out"
    folder.mkdir()
    data = clip.read_bytes()
    clip.write_bytes(data[: len(data) * 6 // 10 + 7])
    arguments = ["upscale", clip, "-o", folder / "o.mp4", "--model", models / "up"]
    code, _, err = run(*arguments, "--strict")
    assert code == 4
    assert list(folder.iterdir()) == []
    code, _, err = run(*arguments)
    assert code == 0
    assert "is cut" in err


def test_ten_bits_exit_5_where_the_model_takes_eight(
    run: Run, facts: Facts, models: Path, make_clip: Callable[..., Path], tmp_path: Path
) -> None:
    clip, target = make_clip("a.mkv", pix_fmt="yuv420p10le"), tmp_path / "o.mp4"
    arguments = ["upscale", clip, "-o", target, "--model", models / "up", "--quiet"]
    code, _, err = run(*arguments)
    assert code == 5
    assert "take 16 bits a sample" in err
    assert "--to-8bit" in err
    assert not target.exists()
    assert run(*arguments, "--to-8bit")[0] == 0
    assert facts(target)[3] == 8


def test_hdr_exits_4_with_eight_bits(
    run: Run, models: Path, make_clip: Callable[..., Path], tmp_path: Path
) -> None:
    colour = {"colorspace": 9, "color_primaries": 9, "color_trc": 16, "color_range": 1}
    clip = make_clip("a.mkv", pix_fmt="yuv420p10le", colour=colour)
    arguments = ["upscale", clip, "-o", tmp_path / "o.mp4", "--model", models / "up"]
    code, _, err = run(*arguments, "--to-8bit")
    assert code == 4
    assert "HDR" in err
    assert [p.name for p in tmp_path.iterdir()] == ["a.mkv"]


def test_transparency_exits_4_unless_dropped(run: Run, models: Path, tmp_path: Path) -> None:
    folder, target = tmp_path / "frames", tmp_path / "o.mp4"
    folder.mkdir()
    Image.new("RGBA", (8, 8), (200, 200, 200, 100)).save(folder / "a.png")
    arguments = ["upscale", folder, "-o", target, "--model", models / "up", "--quiet"]
    code, _, err = run(*arguments)
    assert code == 4
    assert "hint: pass --drop-alpha" in err
    assert not target.exists()
    assert run(*arguments, "--drop-alpha")[0] == 0


def test_stream_chooses_and_is_checked(
    run: Run, models: Path, source: Path, tmp_path: Path
) -> None:
    arguments = ["upscale", source, "-o", tmp_path / "o.mp4", "--model", models / "up", "--quiet"]
    code, _, err = run(*arguments, "--stream", 3)
    assert code == 2
    assert "must be one of [0], got 3" in err
    assert run(*arguments, "--stream", 0)[0] == 0


def test_empty_output_name_is_refused(run: Run, models: Path, source: Path) -> None:
    beside = sorted(source.parent.iterdir())
    code, _, err = run("upscale", source, "-o", "", "--model", models / "up")
    assert code == 7
    assert "output path" in err
    assert sorted(source.parent.iterdir()) == beside


def test_tracks_that_do_not_fit_exit_7_with_the_option(
    run: Run, models: Path, make_clip: Callable[..., Path], tmp_path: Path
) -> None:
    clip = make_clip("a.mp4", audio="aac")
    target = tmp_path / "o.webm"
    arguments = ["upscale", clip, "-o", target, "--model", models / "up", "--quiet"]
    code, _, err = run(*arguments)
    assert code == 7
    assert "--no-audio" in err
    assert not target.exists()
    assert run(*arguments, "--no-audio")[0] == 0
