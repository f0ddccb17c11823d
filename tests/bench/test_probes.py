"""What is read from the system: right where it is there, None where it is not, never an error."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastvid import bench
from fastvid.bench import _environment, probes
from fastvid.bench.probes import Busy, EnergyMeter, Nvml


def test_the_environment_is_plain_values_and_true_of_this_process() -> None:
    facts = bench.environment()
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert 1 <= facts["cores"] <= len(os.sched_getaffinity(0))
    assert facts["versions"]["numpy"] == np.__version__
    assert facts["memory_bytes"] >= facts["memory_available_bytes"] > 0
    assert facts["cpu"]


def test_memory_of_a_control_group_counts_files_as_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "_CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("900000\n")
    assert probes.memory_available() == 100_000
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 700000\nactive_file 7\n")
    assert probes.memory_available() == 800_000
    (tmp_path / "memory.max").write_text("max\n")
    monkeypatch.setattr(probes, "_meminfo", {"MemAvailable": 123}.get)
    assert probes.memory_available() == 123


def test_the_environment_follows_the_cores_allowed() -> None:
    code = "from fastvid import bench; print(bench.environment()['cores'])"
    first = str(min(os.sched_getaffinity(0)))
    done = subprocess.run(
        ["taskset", "-c", first, sys.executable, "-c", code], capture_output=True, text=True
    )
    assert (done.stdout.strip(), done.stderr) == ("1", "")


def test_others_are_what_the_machine_does_beyond_this_process() -> None:
    before = Busy(wall=10.0, machine=100.0, process=5.0)
    assert Busy(12.0, 103.0, 6.0).others_since(before) == 1.0
    assert Busy(12.0, 101.0, 6.5).others_since(before) == 0.0
    assert Busy(12.0, None, 6.5).others_since(before) is None
    assert Busy(10.0, 103.0, 6.0).others_since(before) is None


def test_own_work_is_not_taken_for_that_of_others() -> None:
    before = probes.busy_seconds()
    total = 0
    while probes.busy_seconds().process - before.process < 0.3:
        total += sum(range(1000))
    after = probes.busy_seconds()
    assert after.machine is not None
    assert before.machine is not None
    # The kernel counts in hundredths of a second, per processor.
    assert after.machine - before.machine >= 0.2
    assert after.others_since(before) is not None


def test_the_peak_of_memory_covers_what_was_held_and_freed() -> None:
    block = np.ones(256 << 20, np.uint8)
    del block
    peak = probes.peak_rss()
    assert peak is not None
    assert peak >= 256 << 20


def zone(folder: Path, number: int, name: str, joules: float, limit: float) -> Path:
    path = folder / f"intel-rapl:{number}"
    path.mkdir()
    (path / "name").write_text(name + "\n")
    (path / "energy_uj").write_text(f"{int(joules * 1e6)}\n")
    (path / "max_energy_range_uj").write_text(f"{int(limit * 1e6)}\n")
    return path


def test_energy_adds_packages_and_survives_a_counter_that_starts_anew(tmp_path: Path) -> None:
    first = zone(tmp_path, 0, "package-0", 10, 100)
    second = zone(tmp_path, 1, "package-1", 95, 100)
    zone(tmp_path, 2, "psys", 1, 100)
    meter = EnergyMeter(folder=tmp_path)
    before = meter.read()
    (first / "energy_uj").write_text("13000000\n")
    (second / "energy_uj").write_text("2000000\n")
    assert meter.between(before, meter.read()) == pytest.approx(3 + 7)
    assert meter.sources() == ["cpu"]


def test_energy_is_none_where_nothing_counts(tmp_path: Path) -> None:
    meter = EnergyMeter(folder=tmp_path)
    assert (meter.sources(), meter.between(meter.read(), meter.read())) == ([], None)


class Driver:
    """libcuda, with one device on a bus."""

    def cuInit(self, flags: int) -> int:
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:
        return 0 if index == 0 else 101

    def cuDeviceGetPCIBusId(self, bus: Any, size: int, device: Any) -> int:
        bus.value = b"0000:65:00.0"
        return 0


class Management:
    """libnvidia-ml, which knows one device; what a process holds is listed under `pid`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def nvmlInit_v2(self) -> int:
        return 0

    def nvmlDeviceGetHandleByPciBusId_v2(self, bus: Any, handle: Any) -> int:
        return 0 if bus.value == b"0000:65:00.0" else 6

    def nvmlDeviceGetMemoryInfo(self, handle: Any, info: Any) -> int:
        info._obj.used = 700 << 20
        return 0

    def nvmlDeviceGetComputeRunningProcesses_v3(self, handle: Any, count: Any, list_: Any) -> int:
        count._obj.value = 1
        list_[0].pid, list_[0].memory = self.pid, 300 << 20
        return 0

    def nvmlSystemGetDriverVersion(self, text: Any, size: int) -> int:
        text.value = b"580.95.05"
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any, value: Any) -> int:
        value._obj.value = 2500
        return 0


def test_nvml_tells_memory_of_the_process_or_else_of_the_device() -> None:
    own = Nvml.of(Driver(), Management(os.getpid()), 0)
    hidden = Nvml.of(Driver(), Management(os.getpid() + 1), 0)
    assert own is not None
    assert hidden is not None
    assert own.memory() == (300 << 20, "process")
    assert hidden.memory() == (700 << 20, "device")
    assert own.joules() == 2.5
    # This library has neither clocks nor limits, as older ones.
    assert own.state() == {"driver_version": "580.95.05"}
    assert EnergyMeter(own, Path("/nowhere")).sources() == ["gpu"]


def test_nvml_is_none_without_the_device_or_the_library() -> None:
    assert Nvml.of(Driver(), Management(1), 1) is None
    assert Nvml.of(object(), Management(1), 0) is None
    assert ctypes.sizeof(probes._Memory) == 24


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"others_busy": 1.0}, "other programs keep 1.0 of"),
        ({"others_busy": None, "load_before": 99.0}, "load average"),
        ({"cpu_frequency": {"governor": "powersave"}}, "powersave"),
        ({"cpu_quota": 1.5}, "control group allows 1.5 CPUs"),
        ({"power_mode": "battery"}, "battery"),
    ],
)
def test_what_makes_figures_unsure_is_said(change: dict[str, Any], word: str) -> None:
    quiet = {
        "others_busy": 0.0, "load_before": 0.0, "cores": 2, "cpu_frequency": None,
        "cpu_quota": None, "power_mode": None, "real_time_priority": False,
    }  # fmt: skip
    assert _environment.warnings_of(quiet) == []
    (sentence,) = _environment.warnings_of(quiet | change)
    assert word in sentence


def test_others_do_not_matter_to_a_process_of_real_time_priority() -> None:
    facts = {
        "others_busy": 2.0, "load_before": 9.0, "cores": 2, "cpu_frequency": None,
        "cpu_quota": None, "power_mode": None, "real_time_priority": True,
        "real_time_pause_ms": 0.0,
    }  # fmt: skip
    assert _environment.warnings_of(facts) == []
    (sentence,) = _environment.warnings_of(facts | {"real_time_pause_ms": 50.0})
    assert "stops processes of real-time priority for 50 ms" in sentence


def test_a_command_is_shown_without_the_paths_of_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = Path(__file__).parents[2]
    monkeypatch.setattr(sys, "argv", [str(root / "benchmarks/timing.py"), "/a/b/clip.mp4", "x y"])
    assert _environment.command() == 'python benchmarks/timing.py clip.mp4 "x y"'
    monkeypatch.setattr(sys, "argv", ["/opt/bin/fastvid", "bench"])
    assert _environment.command() == "fastvid bench"
