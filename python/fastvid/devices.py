"""What this machine can compute on: CPU cores, and CUDA devices as the driver reports them.

The driver is asked through ctypes before any CUDA library is loaded, because those may crash the
process where no driver is installed.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastvid.errors import InputError, InputTypeError, NoDeviceError

_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CUdevice_attribute
_MAX_THREADS = 1024
_MAX_DEVICES = 64

# CUresult that a user can do something about; others are given by number.
_STATUS = {
    2: "out of memory",
    34: "libcuda.so.1 is the toolkit's stub, not a driver",
    100: "no device",
    101: "invalid device",
    802: "the system is not ready yet",
    803: "the driver and its libraries have different versions",
    804: "forward compatibility is not supported on this device",
    999: "unknown error; a driver update without a reboot gives this",
}


@dataclass(frozen=True)
class Device:
    """A device as the caller asked for it."""

    kind: str
    """`auto`, `cpu` or `cuda`."""
    index: int = 0
    """Number of the CUDA device; 0 for the others."""

    def __str__(self) -> str:
        return f"cuda:{self.index}" if self.kind == "cuda" else self.kind


@dataclass(frozen=True)
class CudaDevice:
    """A CUDA device that the driver lists."""

    index: int
    name: str
    capability: tuple[int, int]
    """Compute capability, for example (9, 0)."""
    memory: int
    """Bytes of device memory."""

    def __str__(self) -> str:
        major, minor = self.capability
        return f"cuda:{self.index} {self.name} (sm_{major}{minor}, {self.memory >> 20} MiB)"


@dataclass(frozen=True)
class CudaDriver:
    """What the NVIDIA driver says."""

    devices: tuple[CudaDevice, ...] = ()
    version: str = ""
    """Newest CUDA version the driver supports, for example `13.0`; empty without a driver."""
    problem: str = ""
    """Why no device can be used; empty if one can."""


def parse_device(device: str) -> Device:
    """The device that a `device=` argument names.

    Args:
        device: `auto`, `cpu`, `cuda` (the first one) or `cuda:N`.

    Raises:
        InputError: It is none of these.
    """
    if not isinstance(device, str):
        raise InputTypeError(f"device: argument must be a string, got {type(device).__name__}")
    if device in ("auto", "cpu", "cuda"):
        return Device(device)
    if match := re.fullmatch(r"cuda:([0-9]{1,3})", device, re.ASCII):
        return Device("cuda", int(match[1]))
    shown = device if len(device) <= 40 else device[:37] + "..."
    raise InputError(f"device: argument must be 'auto', 'cpu', 'cuda' or 'cuda:N', got {shown!a}")


def thread_count(threads: int | None) -> int:
    """The number of threads that a `threads=` argument means.

    Args:
        threads: From 1 to 1024, or None for all CPUs this process may use.

    Raises:
        InputError: It is outside that range.
    """
    if threads is None:
        return available_cpus()
    if isinstance(threads, bool) or not isinstance(threads, int):
        raise InputTypeError(
            f"threads: argument must be an integer or None, got {type(threads).__name__}"
        )
    if not 1 <= threads <= _MAX_THREADS:
        raise InputError(f"threads: argument must be from 1 to {_MAX_THREADS}, got {threads}")
    return threads


@functools.cache
def available_cpus() -> int:
    """CPUs that this process may use: its affinity, and the quota of its control group."""
    cpus = len(os.sched_getaffinity(0))
    quota = _cgroup_quota()
    return max(1, min(cpus, -(-quota[0] // quota[1]) if quota else cpus))


def _cgroup_quota() -> tuple[int, int] | None:
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            quota, period = file.read().split()[:2]
        return None if quota == "max" else (int(quota), max(1, int(period)))
    except (OSError, ValueError):
        return None


@functools.cache
def cuda_driver() -> CudaDriver:
    """Asks the NVIDIA driver for its devices; never raises, and never ends the process.

    The answer is kept for the life of the process. Everything of fastvid that touches CUDA asks
    here first: `tensorrt.Runtime` on a machine without a driver is a segmentation fault.
    """
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return CudaDriver(problem="no NVIDIA driver: libcuda.so.1 cannot be loaded")
    try:
        return _query(library)
    except AttributeError as error:
        return CudaDriver(problem=f"the NVIDIA driver is too old: {error}")


def require_cuda(index: int = 0) -> CudaDevice:
    """The CUDA device `index`, as the driver lists it.

    Raises:
        NoDeviceError: The driver is missing or broken, or lists no such device.
    """
    driver = cuda_driver()
    problem = driver.problem
    if not problem and not 0 <= index < len(driver.devices):
        problem = f"the driver lists {', '.join(map(str, driver.devices))}"
    if problem:
        raise NoDeviceError(
            f"device: argument must be a device that works, got 'cuda:{index}': {problem}",
            hint="install the NVIDIA driver (`nvidia-smi` must list the device), or device='cpu'",
        )
    return driver.devices[index]


def _query(library: Any) -> CudaDriver:
    number = ctypes.c_int()
    version = ""
    if library.cuDriverGetVersion(ctypes.byref(number)) == 0:
        version = f"{number.value // 1000}.{number.value % 1000 // 10}"
    status = library.cuInit(0)
    if status != 0:
        return CudaDriver(
            version=version,
            problem=f"the NVIDIA driver failed: cuInit gave {status}{_meaning(status)}",
        )
    status = library.cuDeviceGetCount(ctypes.byref(number))
    if status != 0 or number.value < 1:
        return CudaDriver(
            version=version, problem=f"the NVIDIA driver lists no device{_meaning(status)}"
        )
    devices = []
    for index in range(min(number.value, _MAX_DEVICES)):
        device, status = _describe(library, index)
        if device is None:
            return CudaDriver(
                version=version,
                problem=f"the NVIDIA driver does not describe device {index}: "
                f"status {status}{_meaning(status)}",
            )
        devices.append(device)
    return CudaDriver(tuple(devices), version)


def _meaning(status: int) -> str:
    return f" ({_STATUS[status]})" if status in _STATUS else ""


def _describe(library: Any, index: int) -> tuple[CudaDevice | None, int]:
    """A device, or None and the status of the call that failed."""
    handle, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    memory = ctypes.c_size_t()
    name = ctypes.create_string_buffer(256)
    calls: tuple[Callable[[], int], ...] = (
        lambda: library.cuDeviceGet(ctypes.byref(handle), index),
        lambda: library.cuDeviceGetName(name, len(name), handle),
        lambda: library.cuDeviceTotalMem_v2(ctypes.byref(memory), handle),
        lambda: library.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, handle),
        lambda: library.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, handle),
    )
    for call in calls:
        if (status := call()) != 0:
            return None, status
    text = name.value.decode("utf-8", "replace")
    return CudaDevice(index, text, (major.value, minor.value), memory.value), 0
