"""`fastvid bench` as a command: what it prints and writes, its exit codes, and Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from fastvid.bench import Results
from fastvid.cli import main
from fastvid.devices import cuda_driver

QUICK = ("--seconds", "0.05", "--min-samples", "4", "--processes", "1", "--size", "64x48")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*arguments: object) -> tuple[int, str, str]:
        code = main(["bench", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_tables_go_to_the_terminal_and_results_to_files(
    run: Any, models: Path, tmp_path: Path
) -> None:
    files = tmp_path / "r.json", tmp_path / "r.md"
    code, out, err = run(
        models / "up", "--formats", "onnx-cpu", *QUICK, "-o", files[0], "--output", files[1],
        "--assert", "p99<60000 psnr>40", "--assert", "rss<100000",
    )  # fmt: skip
    assert code == 0, err
    assert "milliseconds per frame" in out
    assert "[1/1] up onnx-cpu 64x48: process 1 of 1, loading and warming up" in err
    results = Results.load(files[0])
    assert results.rows[0].status == "ok"
    assert results.to_markdown() == files[1].read_text()
    assert sorted(os.listdir(tmp_path)) == ["r.json", "r.md"]


def test_rows_that_miss_a_bound_exit_3_and_are_named(
    run: Any, models: Path, schema: dict[str, Any]
) -> None:
    code, out, err = run(
        models / "up", models / "bad", "--formats", "onnx-cpu", *QUICK, "--json", "--quiet",
        "--assert", "p50<0.000001",
    )  # fmt: skip
    assert code == 3
    jsonschema.validate(json.loads(out), schema)
    missed = json.loads(out)["missed"]
    assert [m["row"] for m in missed] == ["up onnx-cpu 64x48", "bad onnx-cpu 64x48"]
    lines = [line for line in err.splitlines() if line.startswith("fastvid: missed: p50<1e-06: ")]
    assert len(lines) == 2


def test_failed_rows_are_rows_and_if_there_are_no_others_the_exit_code(
    run: Any, models: Path
) -> None:
    code, out, _ = run(models / "up", models / "bad", "--formats", "onnx-cpu", *QUICK)
    assert code == 0
    assert "bad onnx-cpu 64x48: failed" in out
    code, out, _ = run(models / "bad", "--formats", "onnx-cpu", *QUICK)
    assert code == 5
    assert "bad (failed)" in out


def test_formats_that_cannot_run_exit_6_if_there_are_no_others(run: Any, models: Path) -> None:
    if cuda_driver().devices:
        pytest.skip("there is a CUDA device")
    code, out, _ = run(models / "up", "--formats", "engine", *QUICK)
    assert code == 6
    assert "engine 64x48: unavailable: no NVIDIA driver" in out
    # Of all formats, those that are not here do not miss a bound; those asked for do.
    bound = ("--assert", "p50<60000", "--quiet")
    assert run(models / "up", *QUICK, *bound)[0] == 0
    assert run(models / "up", "--formats", "onnx-cpu,engine", *QUICK, *bound)[0] == 3


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--formats", "onnx"], 2, "formats: argument must be among onnx-cpu"),
        (["--size", "64"], 2, "size: argument must be WxH"),
        (["--assert", "p98<3"], 2, "assert: metric must be one of load, cold, warm, p50"),
        (["--assert", "p99"], 2, "assert: must be METRIC<NUMBER"),
        (["--seconds", "0"], 2, "seconds: argument must be from 0.01"),
        (["--seconds", "nan"], 2, "seconds: argument must be from 0.01"),
        (["--min-samples", "x"], 2, "invalid int value"),
        (["--input", "/nowhere/clip.mp4"], 4, "/nowhere/clip.mp4"),
        (["--output", "results.txt"], 2, "output: argument must end in .json or .md"),
        (["--output", "/nowhere/r.json"], 7, "folder must exist"),
        (["--compare", "/nowhere/a.json", "/nowhere/b.json"], 2, "takes no MODEL"),
        (["--reference", "fastest"], 2, "must be a shipped model"),
    ],
)
def test_wrong_arguments_end_before_anything_is_measured(
    run: Any, models: Path, arguments: list[str], code: int, words: str
) -> None:
    found, out, err = run(models / "up", *arguments)
    assert (found, out) == (code, "")
    assert words in err
    assert "loading" not in err


def test_a_size_that_is_not_legal_is_refused(run: Any, models: Path) -> None:
    code, _, err = run(models / "even", "--size", "31x31")
    assert code == 2
    assert "even does not take 31x31: frame: height and width must be at least 1 and" in err


def test_outputs_that_exist_are_kept_unless_they_may_be_replaced(
    run: Any, models: Path, tmp_path: Path
) -> None:
    output = tmp_path / "r.md"
    output.write_text("precious")
    arguments = (models / "up", "--formats", "onnx-cpu", *QUICK, "-o", output)
    code, _, err = run(*arguments)
    assert (code, output.read_text()) == (7, "precious")
    assert "--overwrite" in err
    assert run(*arguments, "--overwrite")[0] == 0
    assert output.read_text() != "precious"


def test_no_place_for_temporary_files_is_an_error(
    run: Any, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    code, _, err = run(models / "up", *QUICK)
    assert code == 7
    assert "a temporary folder cannot be made: No such file" in err
    assert "hint: TMPDIR" in err


def test_two_results_are_compared(run: Any, tmp_path: Path, make_row: Any, results_of: Any) -> None:
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, cpu in zip(paths, ("one", "two"), strict=True):
        path.write_text(results_of(make_row(), cpu=cpu).to_json())
    code, out, _ = run("--compare", *paths)
    assert code == 0
    assert "cpu: one before, two after" in out
    assert "within noise" in out
    code, out, _ = run("--compare", *paths, "--json", "-o", tmp_path / "c.md")
    assert json.loads(out)["differences"] == ["cpu: one before, two after"]
    assert (tmp_path / "c.md").read_text().startswith("| row |")
    assert run("--compare", paths[0], tmp_path / "none.json")[0] == 2
    assert run("--compare", *paths, "--assert", "p50<3")[0] == 2


def children_of(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in path.read_text().split()] if path.exists() else []


def start(models: Path, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """A run that would take an hour, once it measures; its temporary files go to `folder`."""
    folder.mkdir()
    return subprocess.Popen(
        [
            sys.executable, "-m", "fastvid", "bench", str(models / "up"), str(models / "ip"),
            "--formats", "onnx-cpu", "--size", "64x48", "--processes", "1", "--seconds", "3600",
            "--max-seconds", "3600", *arguments,
        ],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": str(folder)},
    )  # fmt: skip


def wait_until_steady(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if "loading and warming up" in line:
            return
    raise AssertionError("it ended before it measured")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("as_json", [True, False])
def test_signals_leave_the_rows_that_are_there_and_nothing_else(
    models: Path, tmp_path: Path, number: signal.Signals, code: int, as_json: bool
) -> None:
    output = tmp_path / "r.json"
    arguments = ["--output", str(output), *(["--json"] if as_json else [])]
    process = start(models, tmp_path / "tmp", *arguments)
    try:
        wait_until_steady(process)
        children = children_of(process.pid)
        process.send_signal(number)
        sent = time.monotonic()
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == code, err
    # Generous for a loaded machine; the run would take an hour.
    assert time.monotonic() - sent < 30
    assert "Traceback" not in err
    results = Results.load(output)
    assert results.interrupted
    assert [row.status for row in results.rows] == ["interrupted", "not run"] or [
        row.status for row in results.rows
    ] == ["not run", "not run"]
    if as_json:
        assert json.loads(out)["interrupted"] is True
    else:
        assert "stopped before the end" in out
    assert os.listdir(tmp_path / "tmp") == []
    # One that was just being started ends when it finds nobody to talk to.
    wait_for_the_end_of(children)


def test_processes_of_rows_do_not_outlive_a_command_that_was_killed(
    models: Path, tmp_path: Path
) -> None:
    process = start(models, tmp_path / "tmp", "--quiet")
    deadline = time.monotonic() + 60
    try:
        while not (children := children_of(process.pid)) and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:
        process.kill()
        process.communicate()
    assert children
    wait_for_the_end_of(children)


def wait_for_the_end_of(processes: list[int]) -> None:
    deadline = time.monotonic() + 60
    while any(map(alive, processes)):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended may still wait to be counted."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state not in "ZX"
