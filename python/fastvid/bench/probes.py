"""What the system says about a machine and about this process: plain facts, None where unknown.

Nothing here raises, starts a process, or loads a library besides NVIDIA's NVML and driver.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "Busy",
    "EnergyMeter",
    "Nvml",
    "busy_seconds",
    "cpu_frequency",
    "cpu_name",
    "cpu_quota",
    "in_container",
    "is_virtual_machine",
    "memory_available",
    "memory_limit",
    "memory_total",
    "peak_rss",
    "power_mode",
    "real_time_pause",
]

_CPU0 = Path("/sys/devices/system/cpu/cpu0/cpufreq")
_CGROUP = Path("/sys/fs/cgroup")
_POWERCAP = Path("/sys/class/powercap")
# A limit near 2**63 is how the first version of control groups says that there is none.
_NO_LIMIT = 1 << 60


def _text(path: Path | str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip(" \0\n")
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdecimal() else None


@functools.cache
def cpu_name() -> str:
    """The processor, or the board where the processor has no name, as on many ARM machines."""
    match = re.search(r"^(?:model name|Model)\s*:\s*(\S.*)$", _text("/proc/cpuinfo"), re.MULTILINE)
    board = _text("/proc/device-tree/model")
    return match[1].strip() if match else board or platform.processor() or platform.machine()


def cpu_quota() -> float | None:
    """CPUs that the control group of this process may use on average; None without a limit."""
    parts = _text(_CGROUP / "cpu.max").split()
    if len(parts) == 2 and all(part.isdecimal() for part in parts) and int(parts[1]):
        return round(int(parts[0]) / int(parts[1]), 2)
    quota = _text(_CGROUP / "cpu/cpu.cfs_quota_us")
    period = _number(_CGROUP / "cpu/cpu.cfs_period_us")
    return round(int(quota) / period, 2) if quota.isdecimal() and period else None


def memory_total() -> int | None:
    """Bytes of memory of the machine."""
    return _meminfo("MemTotal")


def memory_available() -> int | None:
    """Bytes that programs can still take: the machine's, or what the control group leaves."""
    free = _meminfo("MemAvailable")
    limit, used = memory_limit(), _number(_CGROUP / "memory.current")
    if limit is not None and used is not None:
        # Files that were read count as used, and give way to whoever wants the memory.
        cached = re.search(r"^inactive_file (\d+)$", _text(_CGROUP / "memory.stat"), re.MULTILINE)
        used -= int(cached[1]) if cached else 0
        left = max(0, limit - used)
        return left if free is None else min(free, left)
    return free


def memory_limit() -> int | None:
    """Bytes that the control group of this process may take; None without a limit."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        limit = _number(_CGROUP / name)
        if limit is not None and limit < _NO_LIMIT:
            return limit
    return None


def _meminfo(name: str) -> int | None:
    match = re.search(rf"^{name}:\s*(\d+) kB", _text("/proc/meminfo"), re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def cpu_frequency() -> dict[str, Any] | None:
    """`governor`, and `min_mhz` and `max_mhz` that it may choose; None where it is hidden."""
    governor = _text(_CPU0 / "scaling_governor")
    limits = {side: _number(_CPU0 / f"scaling_{side}_freq") for side in ("min", "max")}
    if not governor and limits["max"] is None:
        return None
    found = {f"{side}_mhz": khz // 1000 for side, khz in limits.items() if khz is not None}
    return {"governor": governor or None, **found}


def power_mode() -> str | None:
    """The power profile: of a Jetson board, of the firmware, or `battery`."""
    match = re.search(r"pmode:\s*(\w+)", _text("/var/lib/nvpmodel/status"))
    if match:
        return f"nvpmodel {match[1]}"
    if profile := _text("/sys/firmware/acpi/platform_profile"):
        return profile
    with contextlib.suppress(OSError):
        for supply in Path("/sys/class/power_supply").iterdir():
            if _text(supply / "status") == "Discharging":
                return "battery"
    return None


def real_time_pause() -> float | None:
    """Milliseconds of each second that the kernel keeps from processes of real-time priority."""
    runtime = _text("/proc/sys/kernel/sched_rt_runtime_us")
    period = _number(Path("/proc/sys/kernel/sched_rt_period_us"))
    if not period or not re.fullmatch(r"-?[0-9]+", runtime):
        return None
    # A runtime of -1 is no limit.
    return 0.0 if int(runtime) < 0 else max(0.0, 1e3 * (1 - int(runtime) / period))


def in_container() -> bool:
    """Whether this process runs in a container, as far as it shows."""
    marks = ("/.dockerenv", "/run/.containerenv")
    groups = _text("/proc/1/cgroup")
    return any(map(os.path.exists, marks)) or bool(re.search("docker|kubepods|lxc", groups))


def is_virtual_machine() -> bool:
    """Whether a hypervisor lies under the system, as far as it shows."""
    flags = re.search(r"^flags\s*:(.*)$", _text("/proc/cpuinfo"), re.MULTILINE)
    return bool(flags and " hypervisor" in flags[1])


def peak_rss() -> int | None:
    """Most bytes of memory that this process has held at a time since it started."""
    # Not ru_maxrss: a process inherits that from the one that started it.
    match = re.search(r"^VmHWM:\s*(\d+) kB", _text("/proc/self/status"), re.MULTILINE)
    return int(match[1]) * 1024 if match else None


@dataclass(frozen=True)
class Busy:
    """Processor time so far, to be subtracted from that of later."""

    wall: float
    machine: float | None
    """Seconds that all processors together have worked, for anybody or stolen by the host."""
    process: float
    """Seconds of this process and the children that it waited for."""

    def others_since(self, before: Busy) -> float | None:
        """Processors that others kept busy since `before`; 0 is a quiet machine."""
        wall = self.wall - before.wall
        if self.machine is None or before.machine is None or wall <= 0:
            return None
        own = self.process - before.process
        return round(max(0.0, self.machine - before.machine - own) / wall, 2)


def busy_seconds() -> Busy:
    """Processor time of the machine and of this process so far."""
    used = os.times()
    process = used.user + used.system + used.children_user + used.children_system
    fields = _text("/proc/stat").split("\n", 1)[0].split()
    machine = None
    if len(fields) >= 9 and fields[0] == "cpu" and all(f.isdecimal() for f in fields[1:9]):
        user, nice, system, _idle, _wait, irq, softirq, steal = map(int, fields[1:9])
        machine = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    return Busy(time.perf_counter(), machine, process)


class EnergyMeter:
    """Joules that the processor packages, and a CUDA device, have taken.

    They are counters of the hardware, so whatever else runs there is in them.

    Args:
        gpu: The device to add; None for the processors alone.
        folder: Where the kernel shows the counters.
    """

    def __init__(self, gpu: Nvml | None = None, folder: Path = _POWERCAP) -> None:
        self._gpu = gpu
        self._zones: list[tuple[Path, int]] = []
        with contextlib.suppress(OSError):
            for zone in sorted(folder.glob("intel-rapl:*")):
                is_package = _text(zone / "name").startswith("package")
                if is_package and _number(zone / "energy_uj") is not None:
                    self._zones.append(
                        (zone / "energy_uj", _number(zone / "max_energy_range_uj") or 0)
                    )

    def sources(self) -> list[str]:
        """What is counted: `cpu`, `gpu`, both or nothing."""
        found = ["cpu"] if self._zones else []
        if self._gpu is not None and self._gpu.joules() is not None:
            found.append("gpu")
        return found

    def read(self) -> list[float]:
        """Counters in joules; `between` subtracts two readings."""
        values = [(_number(path) or 0) / 1e6 for path, _ in self._zones]
        return [*values, self._gpu.joules() or 0.0] if self._gpu is not None else values

    def between(self, before: list[float], after: list[float]) -> float | None:
        """Joules between two readings; None where nothing is counted.

        A counter that has started anew in between is continued by its range.
        """
        if not self.sources():
            return None
        ranges = [limit / 1e6 for _, limit in self._zones] + [0.0]
        total = 0.0
        for start, end, limit in zip(before, after, ranges, strict=False):
            total += end - start if end >= start else end - start + limit
        return total


class _Memory(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]


class _Process(ctypes.Structure):
    _fields_ = [
        ("pid", ctypes.c_uint),
        ("memory", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    ]


_SM_CLOCK = 1
_MAX_PROCESSES = 256


class Nvml:
    """Memory, energy and clocks of one CUDA device, by NVIDIA's management library.

    Args:
        nvml: The loaded library.
        handle: NVML's handle of the device.
    """

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml = nvml
        self._handle = handle

    @classmethod
    def open(cls, index: int) -> Nvml | None:
        """The device that CUDA calls `index`; None where NVML or the device is not there."""
        try:
            cuda = ctypes.CDLL("libcuda.so.1")
            nvml = ctypes.CDLL("libnvidia-ml.so.1")
        except OSError:
            return None
        return cls.of(cuda, nvml, index)

    @classmethod
    def of(cls, cuda: Any, nvml: Any, index: int) -> Nvml | None:
        """As `open`, of libraries that are loaded."""
        # The two libraries count devices differently; the bus they sit on is the same.
        bus, device, handle = ctypes.create_string_buffer(32), ctypes.c_int(), ctypes.c_void_p()
        try:
            failed = (
                cuda.cuInit(0)
                or cuda.cuDeviceGet(ctypes.byref(device), index)
                or cuda.cuDeviceGetPCIBusId(bus, len(bus), device)
                or nvml.nvmlInit_v2()
                or nvml.nvmlDeviceGetHandleByPciBusId_v2(bus, ctypes.byref(handle))
            )
        except AttributeError:
            return None
        return None if failed else cls(nvml, handle)

    def memory(self) -> tuple[int, str] | None:
        """Bytes of device memory in use, and by whom.

        That is `process` or, where it is hidden, `device` for everybody on the device.
        """
        mine = self._own_memory()
        if mine is not None:
            return mine, "process"
        info = _Memory()
        if self._call("nvmlDeviceGetMemoryInfo", ctypes.byref(info)):
            return int(info.used), "device"
        return None

    def _own_memory(self) -> int | None:
        count = ctypes.c_uint(_MAX_PROCESSES)
        processes = (_Process * _MAX_PROCESSES)()
        name = "nvmlDeviceGetComputeRunningProcesses_v3"
        if not self._call(name, ctypes.byref(count), processes):
            return None
        # A container sees the numbers that processes have outside, so that its own is not found.
        found = [int(p.memory) for p in processes[: count.value] if p.pid == os.getpid()]
        return found[0] if found and found[0] < _NO_LIMIT else None

    def joules(self) -> float | None:
        """Energy since the driver was loaded; None for devices that do not count it."""
        value = ctypes.c_ulonglong()
        done = self._call("nvmlDeviceGetTotalEnergyConsumption", ctypes.byref(value))
        return value.value / 1e3 if done else None

    def state(self) -> dict[str, float | str]:
        """`driver_version`, `power_limit_w`, `sm_mhz` and `max_sm_mhz`, as far as they are told."""
        value = ctypes.c_uint()
        found: dict[str, float | str] = {}
        text = ctypes.create_string_buffer(96)
        with contextlib.suppress(AttributeError):
            if self._nvml.nvmlSystemGetDriverVersion(text, len(text)) == 0:
                found["driver_version"] = text.value.decode("ascii", "replace")
        if self._call("nvmlDeviceGetPowerManagementLimit", ctypes.byref(value)):
            found["power_limit_w"] = value.value / 1e3
        for key, name in (
            ("sm_mhz", "nvmlDeviceGetClockInfo"),
            ("max_sm_mhz", "nvmlDeviceGetMaxClockInfo"),
        ):
            if self._call(name, _SM_CLOCK, ctypes.byref(value)):
                found[key] = value.value
        return found

    def _call(self, name: str, *arguments: Any) -> bool:
        try:
            return bool(getattr(self._nvml, name)(self._handle, *arguments) == 0)
        except AttributeError:
            return False
