"""The command as a process: signals, a full disk, a closed pipe."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fastvid import _commands
from fastvid.cli import main
from fastvid.scene import Scene
from fastvid.video import Video


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


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_that_an_import_swallows_is_one_still(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
    code: int,
) -> None:
    def models(options: object) -> int:
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            raise ImportError("module could not be imported") from None
        return 0

    monkeypatch.setattr(_commands, "models", models)
    before = signal.getsignal(number)
    assert main(["models"]) == code
    assert capsys.readouterr().err in ("fastvid: interrupted\n", "fastvid: terminated\n")
    assert signal.getsignal(number) is before


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
