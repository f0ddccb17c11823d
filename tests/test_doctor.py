"""The doctor: it tells the truth about what works, and survives whatever does not."""

from __future__ import annotations

import builtins
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import bundles
import pytest
import tiny_models as tiny
from onnx import helper

import fastvid
from fastvid import bundle, doctor
from fastvid.backends import _onnxruntime_setup
from fastvid.doctor import Check, DoctorReport


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands in for the shipped models."""
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setattr(bundle, "_MODELS", folder)
    return folder


def _checks(report: DoctorReport, name: str) -> list[Check]:
    return [check for check in report.checks if check.name == name]


@pytest.fixture(scope="module")
def here() -> DoctorReport:
    return doctor.collect()


def test_nothing_that_is_needed_fails_here(here: DoctorReport) -> None:
    problems = [check for check in here.checks if check.status == "problem"]
    assert (problems, here.exit_status) == ([], 0)


def test_every_part_is_looked_at(here: DoctorReport) -> None:
    parts = {check.part for check in here.checks}
    assert parts == {"ops", "devices", "onnxruntime", "video", "models"}
    assert (here.version, here.python) == (fastvid.__version__, sys.version.split()[0])


def test_report_is_the_same_as_text_and_json(here: DoctorReport) -> None:
    as_json = json.loads(here.to_json())
    assert as_json["exit_status"] == 0
    text = here.to_text()
    for check in as_json["checks"]:
        assert check["detail"] in text
        assert check["hint"] in text


def test_cpu_provider_was_tried(here: DoctorReport) -> None:
    (check,) = _checks(here, "CPUExecutionProvider")
    assert (check.status, check.detail) == ("ok", "computed a small graph")


def test_model_runs_on_a_frame(models: Path) -> None:
    bundles.upscaler(models / "upscaler-tiny-x2")
    report = doctor.collect()
    verified, ran = _checks(report, "upscaler-tiny-x2")
    assert "every sha256 is right" in verified.detail
    assert "640x360 in " in ran.detail
    assert "CPUExecutionProvider" in ran.detail or "CUDAExecutionProvider" in ran.detail
    assert len(_checks(doctor.collect(run_models=False), "upscaler-tiny-x2")) == 1


def test_graphs_that_feed_each_other_run_in_order(models: Path) -> None:
    bundles.interpolator(models / "interpolator-tiny")
    _, ran = _checks(doctor.collect(), "interpolator-tiny")
    assert (ran.status, ran.detail[:8]) == ("ok", "640x360 ")


def test_model_that_paints_black_is_a_problem(models: Path) -> None:
    frames = tiny.tensor("frames", "uint8", "N", "H", "W", 3)
    upscaled = tiny.tensor("upscaled", "uint8", "N", "H", "W", 3)
    graph = {"file": "run.onnx", "inputs": [frames], "outputs": [upscaled]}
    nodes = [helper.make_node("BitwiseXor", ["frames", "frames"], ["upscaled"])]
    tiny.bundle(
        models / "upscaler-tiny-x1",
        tiny.model(nodes, [frames], [upscaled]),
        task="upscaler",
        scale=1,
        graphs={"upscale": graph},
    )
    report = doctor.collect()
    (*_, ran) = _checks(report, "upscaler-tiny-x1")
    assert "mean of 'upscaled' must be near 128" in ran.detail
    assert (ran.status, report.exit_status) == ("problem", 5)


def test_damaged_model_is_a_problem_and_the_others_still_run(models: Path) -> None:
    bundles.upscaler(models / "a")
    bundles.upscaler(models / "b")
    (models / "a" / "run.onnx").write_bytes(b"")
    report = doctor.collect()
    assert [check.status for check in _checks(report, "a")] == ["problem"]
    assert [check.status for check in _checks(report, "b")] == ["ok", "ok"]
    assert report.exit_status == 5


def test_missing_runtime_is_a_problem_that_names_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    report = doctor.collect()
    (check,) = _checks(report, "onnxruntime")
    assert check.status == "problem"
    assert "pip install 'fastvid-sdk[cpu]'" in check.hint
    assert report.exit_status == 6


@pytest.mark.parametrize(
    ("module", "name", "status"), [("av", "PyAV", 4), ("fastvid._core", "compiled ops", 6)]
)
def test_missing_parts_are_problems(
    monkeypatch: pytest.MonkeyPatch, module: str, name: str, status: int
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    _onnxruntime_setup.operators_library.cache_clear()
    report = doctor.collect()
    _onnxruntime_setup.operators_library.cache_clear()
    (check,) = _checks(report, name)
    assert (check.status, report.exit_status) == ("problem", status)


def test_unexpected_failure_becomes_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Any:
        raise RuntimeError("the driver\nfell over")

    monkeypatch.setattr(doctor, "cuda_driver", fail)
    report = doctor.collect(run_models=False)
    (check,) = _checks(report, "devices")
    assert check.detail == "RuntimeError: the driver fell over"
    assert report.exit_status == 1


def test_unreadable_proc_files_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.open

    def refuse(path: Any, *args: Any, **options: Any) -> Any:
        if str(path).startswith("/proc"):
            raise PermissionError(13, "no")
        return real(path, *args, **options)

    monkeypatch.setattr(builtins, "open", refuse)
    (check,) = _checks(doctor.collect(run_models=False), "cpu")
    assert check.status == "ok"


def test_doctor_never_ends_by_a_signal() -> None:
    code = "from fastvid import doctor; r = doctor.collect(); print(r); exit(r.exit_status)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    assert done.stdout.startswith(b"fastvid ")
