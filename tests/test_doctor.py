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
from fastvid.devices import CudaDevice, CudaDriver
from fastvid.doctor import Check, DoctorReport, _machine, _runtimes, _video


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
    assert parts == {
        "machine", "ops", "devices", "onnxruntime", "openvino", "tensorrt", "video", "models"
    }  # fmt: skip
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

    monkeypatch.setattr(_runtimes, "cuda_driver", fail)
    report = doctor.collect(run_models=False)
    (check, *_) = _checks(report, "devices")
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


def _only(checks: Any, name: str) -> Check:
    (found,) = [check for check in checks if check.name == name]
    return found


def _driver(monkeypatch: pytest.MonkeyPatch, *capabilities: tuple[int, int], version: str) -> None:
    devices = tuple(
        CudaDevice(index, "some GPU", capability, 8 << 30)
        for index, capability in enumerate(capabilities)
    )
    for module in (_runtimes, _video, _onnxruntime_setup):
        monkeypatch.setattr(module, "cuda_driver", lambda: CudaDriver(devices, version))


def test_container_with_half_a_cpu_and_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_machine.probes, "cpu_quota", lambda: 0.5)
    monkeypatch.setattr(_machine.probes, "memory_limit", lambda: 1 << 30)
    monkeypatch.setattr(_machine.probes, "memory_available", lambda: 1 << 29)
    checks = list(_machine.machine())
    threads, memory = _only(checks, "threads"), _only(checks, "memory")
    assert threads.status == memory.status == "limit"
    assert "0.5 of" in threads.detail
    assert "docker run --cpus" in threads.hint
    assert "the container may use 1.0 GiB" in memory.detail
    assert "0.5 GiB are left" in memory.hint


def test_process_that_is_bound_to_few_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_machine.probes, "cpu_quota", lambda: None)
    monkeypatch.setattr(_machine.os, "cpu_count", lambda: 64)
    check = _only(_machine.machine(), "threads")
    assert "of 64 CPUs" in check.detail
    assert "taskset -pc 0-63 " in check.hint


def test_limits_of_the_shell_and_of_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_machine, "_address_limit", lambda: 4 << 30)
    assert _only(_machine.machine(), "addresses").detail == "at most 4.0 GiB (ulimit -v)"
    monkeypatch.setenv("FASTVID_CPU_ISA", "baseline")
    check = _only(_machine.ops(), "compiled ops")
    assert (check.status, "unset FASTVID_CPU_ISA" in check.hint) == ("limit", True)


def test_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert _only(_machine.machine(), "cache").status == "ok"
    (tmp_path / "fastvid").mkdir()
    (tmp_path / "fastvid" / "engines").write_text("a file where a folder should be")
    check = _only(_machine.machine(), "cache")
    assert check.status == "limit"
    assert f"mkdir -p {tmp_path / 'fastvid' / 'engines'}" in check.hint
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/names/do/not/count")
    assert str(Path.home()) in _only(_machine.machine(), "cache").detail


@pytest.mark.parametrize(
    ("release", "status", "words"),
    [
        ("# R36 (release), REVISION: 4.3, GCID: 1", "limit", "flash JetPack 7.2"),
        ("# R39 (release), REVISION: 0.0, GCID: 1", "ok", "sudo nvpmodel -m 0"),
        ("", "ok", "docs/jetson.md"),
    ],
)
def test_jetson_says_what_its_system_means(
    monkeypatch: pytest.MonkeyPatch, release: str, status: str, words: str
) -> None:
    files = {
        "/proc/device-tree/model": "NVIDIA Jetson AGX Orin\0",
        "/etc/nv_tegra_release": release,
    }
    monkeypatch.setattr(_machine, "_text", lambda path: files[path])
    check = _only(_machine.machine(), "board")
    assert (check.status, words in check.hint) == (status, True)
    assert "AGX Orin" in check.detail


def test_devices_are_held_to_the_wheel_and_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    _driver(monkeypatch, (8, 6), (10, 0), (6, 1), version="12.4")
    checks = list(_runtimes.devices())
    assert [c.name for c in checks] == ["cuda:0", "cuda:1", "cuda:2", "cuda:2", "driver"]
    assert "older than 7.5" in checks[3].detail
    assert "nvidia-driver-580" in checks[4].hint
    monkeypatch.setattr(_onnxruntime_setup.platform, "machine", lambda: "x86_64")
    (note,) = _runtimes._capability(CudaDevice(1, "B200", (10, 0), 8 << 30))
    assert "built for compute capability 7.5, 8.0" in note.detail
    assert list(_runtimes._capability(CudaDevice(0, "A10", (8, 6), 8 << 30))) == []


@pytest.mark.parametrize(
    ("version", "status", "words"),
    [
        ("8.6.1", "limit", "pip install"),
        ("10.13.3", "limit", "--portable"),
        ("10.16.2.1", "ok", ""),
        ("11.4.0.106", "ok", ""),
    ],
)
def test_tensorrt_is_held_to_what_plugins_need(
    monkeypatch: pytest.MonkeyPatch, version: str, status: str, words: str
) -> None:
    monkeypatch.setattr(_runtimes, "version_of", lambda name: version if "cu13" in name else "")
    monkeypatch.setattr(_runtimes.importlib.util, "find_spec", lambda name: name)
    checks = list(_runtimes.tensorrt())
    assert (checks[0].status, words in checks[0].hint) == (status, True)
    assert checks[1].detail == "not loaded, because there is no CUDA device"


def test_tensorrt_that_cannot_be_loaded_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    _driver(monkeypatch, (9, 0), version="13.0")
    monkeypatch.setattr(_runtimes, "version_of", lambda name: "11.4.0")
    monkeypatch.setattr(_runtimes.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    check = _only(_runtimes.tensorrt(), "bindings")
    assert (check.status, "--force-reinstall" in check.hint) == ("limit", True)


def test_packages_that_overwrite_each_other_name_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both = ("onnxruntime", "onnxruntime-gpu")
    monkeypatch.setattr(_runtimes, "version_of", lambda name: "1.31.1" if name in both else "")
    check = _only(_runtimes.onnxruntime(), "package")
    assert (check.status, check.exit_code) == ("problem", 6)
    assert check.hint.startswith("pip uninstall -y onnxruntime onnxruntime-gpu && pip install ")


def test_hardware_codecs_are_named_and_not_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    _driver(monkeypatch, (9, 0), version="13.0")
    check = _only(_video.video(), "hardware")
    assert (check.status, check.detail[:8]) == ("absent", "not used")
    assert "fastvid run" in check.hint


def test_every_limit_and_problem_says_what_to_do(here: DoctorReport) -> None:
    for check in here.checks:
        if check.status in ("limit", "problem"):
            assert check.hint, check


def test_openvino_says_what_it_computes_in(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastvid.backends import _openvino_setup

    pytest.importorskip("openvino", reason="openvino is not installed")
    package, precision = _runtimes.openvino()
    assert (package.status, precision.status) == ("ok", "ok" if _wide() else "absent")
    assert package.detail.startswith("openvino 20")
    monkeypatch.setattr(_openvino_setup, "precisions", lambda: ("float32",))
    _, precision = _runtimes.openvino()
    assert precision.status == "absent"
    assert "AVX512-BF16 or AMX" in precision.hint


def _wide() -> bool:
    from fastvid.backends import _openvino_setup

    return "bfloat16" in _openvino_setup.precisions()


def test_missing_openvino_names_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_runtimes, "version_of", lambda name: "")
    (check,) = _runtimes.openvino()
    assert check.status == "absent"
    assert "pip install 'fastvid-sdk[openvino]'" in check.hint
