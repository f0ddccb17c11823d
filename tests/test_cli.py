"""The command line: results, names, exit codes and how it stops."""

from __future__ import annotations

import io
import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import bundles
import numpy as np
import pytest

from fastvid import _commands
from fastvid.bundle import shipped
from fastvid.cli import main
from fastvid.errors import FastvidError
from fastvid.pipeline import Progress
from fastvid.progress import ProgressDisplay, clock_time, describe
from fastvid.scene import Scene
from fastvid.video import Video

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    bundles.upscaler(folder / "up")
    bundles.upscaler(folder / "up3", scale=3)
    bundles.interpolator(folder / "ip")
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight frames of 64x64 at 10 frames per second."""
    path = tmp_path_factory.mktemp("clips") / "clip.mkv"
    scene = Scene(64, 64, seed=1)
    Video.from_frames([scene.draw(k / 40) for k in range(8)], 10).save(path)
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line in this process: exit code, standard output, standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def facts(path: Path) -> tuple[int, int, Fraction, int]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        count = sum(1 for _ in container.decode(stream))
        rate = Fraction(stream.average_rate or 0)
        return stream.codec_context.width, stream.codec_context.height, rate, count


def test_run_interpolates_and_upscales_in_one_pass(
    run: Run, models: Path, source: Path, tmp_path: Path
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


def test_interpolate_to_a_broadcast_rate(
    run: Run, models: Path, source: Path, tmp_path: Path
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
    run: Run, models: Path, tmp_path: Path, size: tuple[int, int]
) -> None:
    clip, target = tmp_path / "frames", tmp_path / "out.mp4"
    Video.from_frames(np.full((3, *size, 3), 90, np.uint8), 10).save(clip)
    arguments = ["--interpolate", 2, "--upscale", 3, "--quiet"]
    arguments += ["--interpolate-model", models / "ip", "--upscale-model", models / "up3"]
    assert run("run", clip, "-o", target, "--input-fps", 10, *arguments)[0] == 0
    assert facts(target) == (3 * size[1], 3 * size[0], 20, 6)


def test_existing_output_exits_7_and_stays(
    run: Run, models: Path, source: Path, tmp_path: Path
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
        (["upscale", "{source}", "--codec", "mjpeg"], "mjpeg"),
        (["upscale", "{source}", "--quality", "101", "--model", "{up}"], "101"),
        (["upscale", "{source}", "--scale", "5", "--model", "{up}"], "scale"),
        (["upscale", "{source}", "--model", "nonsuch"], "nonsuch"),
        (["upscale", "{source}", "--model", "{up}", "--device", "gpu"], "gpu"),
        (["upscale", "{source}", "--model", "{up}", "--threads", "0"], "threads"),
        (["upscale", "{source}", "--model", "{up}", "--input-fps", "x"], "fps"),
        (["interpolate", "{source}", "--factor", "2", "--fps", "60"], "not allowed"),
        (["interpolate", "{source}", "--factor", "1", "--model", "{ip}"], "from 2 to 64"),
        (["interpolate", "{source}", "--fps", "-1", "--model", "{ip}"], "fps"),
        (["run", "{source}"], "--interpolate"),
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
    page = (Path(__file__).parent.parent / "docs" / "cli.md").read_text()

    def tree(kind: type[FastvidError]) -> list[type[FastvidError]]:
        return [kind, *(leaf for child in kind.__subclasses__() for leaf in tree(child))]

    public = [kind for kind in tree(FastvidError) if kind.__module__ == "fastvid.errors"]
    for kind in public:
        row = next(line for line in page.splitlines() if f"`{kind.__name__}`" in line)
        assert row.startswith(f"| {kind.exit_code} |")


# Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def state(frames: int, total: int | None, elapsed: float) -> Progress:
    eta = None if total is None or not frames else (total - frames) * elapsed / frames
    fps = frames / elapsed if elapsed else 0.0
    return Progress(frames, total, elapsed, fps, eta, {"decode": 0.1, "upscale": 2.0})


def test_line_has_rate_time_left_and_stage_split() -> None:
    line = describe(state(40, 100, 2.0))
    assert line == "40/100 frames  20.0 fps  ETA 0:03  decode 2.5 upscale 50.0 ms/frame"
    assert describe(state(0, 100, 0.0)) == "0/100 frames"
    assert describe(state(40, 30, 2.0)).startswith("40 frames  20.0 fps  decode")
    assert describe(state(40, None, 2.0)).startswith("40 frames  20.0 fps  decode")


def test_terminal_gets_a_bar_that_redraws_and_clears(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    stream = Terminal()
    display = ProgressDisplay(stream)
    for frames in (10, 50):
        display(state(frames, 100, frames / 20))
    display.close()
    drawn = stream.getvalue().split("\r")
    assert "10%" in drawn[1]
    assert "50%" in drawn[2]
    assert drawn[2].count("█") == 12
    assert drawn[3] == "\x1b[K"
    assert "\n" not in stream.getvalue()


@pytest.mark.parametrize("columns", [20, 60, 79, 90, 200])
def test_terminal_lines_fit(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = Terminal()
    ProgressDisplay(stream)(state(50, 100, 1.0))
    line = stream.getvalue().removeprefix("\r").removesuffix("\x1b[K")
    assert len(line) < columns
    assert "50%" in line


def test_other_streams_get_a_line_every_five_seconds() -> None:
    stream = io.StringIO()
    display = ProgressDisplay(stream)
    for second in range(13):
        display(state(20 * second, 400, float(second)))
    display.close()
    lines = stream.getvalue().splitlines()
    assert [line.split("/")[0] for line in lines] == ["100", "200"]
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00"), (7.4, "0:07"), (754, "12:34"), (3723, "1:02:03")]
)
def test_times_are_clock_times(seconds: float, shown: str) -> None:
    assert clock_time(seconds) == shown


# Whole processes


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "fastvid", *map(str, arguments)]


def test_module_and_exit_code_work_as_a_process(tmp_path: Path) -> None:
    done = subprocess.run(
        command("upscale", tmp_path / "none.mp4"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 4
    assert done.stderr.startswith("fastvid: error: ")
    assert done.stdout == ""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_stop_at_once_and_leave_nothing(
    models: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    clip, folder = tmp_path / "long.mkv", tmp_path / "out"
    folder.mkdir()
    scene = Scene(160, 120, seed=2)
    pictures = [scene.draw(k / 30) for k in range(8)]
    Video.from_frames((pictures[k % 8] for k in range(600)), 30).save(clip)
    arguments = command(
        "run", clip, "-o", folder / "out.mp4", "--interpolate", 16, "--upscale", 3,
        "--interpolate-model", models / "ip", "--upscale-model", models / "up3",
        "--effort", "slow", "--quiet",
    )  # fmt: skip
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not any(part.stat().st_size for part in folder.iterdir()):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        sent = time.monotonic()
        _, err = process.communicate(timeout=30)
        taken = time.monotonic() - sent
    assert process.returncode == code
    assert "Traceback" not in err
    assert list(folder.iterdir()) == []
    # Generous for a loaded machine; without a handler the file would be finished first.
    assert taken < 10


def test_full_disk_exits_7_and_leaves_nothing(models: Path, source: Path, tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    folder = tmp_path / "out"
    folder.mkdir()
    done = subprocess.run(
        command("upscale", source, "-o", folder / "o.mp4", "--model", models / "up", "--json"),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limit,
    )
    assert done.returncode == 7, done.stderr
    assert json.loads(done.stdout)["error"]["type"] == "DiskFullError"
    assert list(folder.iterdir()) == []


def test_closed_pipe_ends_quietly(tmp_path: Path) -> None:
    line = f"{sys.executable} -m fastvid doctor | true"
    done = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
