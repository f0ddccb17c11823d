"""The machine: processor, memory, board, folders, and the packages beside fastvid."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import re
import resource
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastvid._version import __version__
from fastvid.bench import probes
from fastvid.devices import available_cpus
from fastvid.doctor._check import ABSENT, LIMIT, OK, PROBLEM, Check
from fastvid.errors import DeviceError

_PART = "machine"
_PACKAGES = ("numpy", "av", "onnxruntime", "onnxruntime-gpu", "tensorrt", "cuda-bindings")
_LITTLE = 2 << 30
"""Bytes of memory or disk below which the report says that they are short."""


def machine() -> Iterator[Check]:
    """Board, processor, memory, cache folder, versions."""
    if board := _board():
        yield board
    yield Check(_PART, "cpu", OK, f"{probes.cpu_name()}, {available_cpus()} CPUs for this process")
    if threads := _threads():
        yield threads
    yield _memory()
    if limit := _address_limit():
        hint = "a model that does not fit ends with exit code 6; `ulimit -v unlimited` lifts it"
        yield Check(_PART, "addresses", LIMIT, f"at most {_size(limit)} (ulimit -v)", hint)
    yield _cache()
    yield Check(_PART, "versions", OK, f"Python {platform.python_version()}, {_versions()}")


def ops() -> Iterator[Check]:
    """The compiled ops: instruction set, threads, CUDA."""
    hint = "install a wheel of fastvid-sdk, or build it for this machine"
    try:
        core: Any = importlib.import_module("fastvid._core")
    except ImportError as error:
        yield Check("ops", "compiled ops", PROBLEM, str(error), hint, DeviceError.exit_code)
        return
    if core.__version__ != __version__:
        detail = f"built for fastvid {core.__version__}, this is {__version__}"
        yield Check("ops", "compiled ops", PROBLEM, detail, hint, DeviceError.exit_code)
        return
    others = ", ".join(isa for isa in core.cpu_isas() if isa != core.cpu_isa()) or "no other"
    detail = f"{core.cpu_isa()} on {core.default_threads()} threads; {others} would run too"
    yield from _instruction_set(core.cpu_isa(), detail)
    if core.cuda_compiled():
        yield Check("ops", "CUDA ops", OK, "compiled in")
    else:
        hint = "models run without; with nvcc and the source tree: FASTVID_CUDA=ON pip install ."
        yield Check("ops", "CUDA ops", ABSENT, "this build was made without CUDA", hint)


def _instruction_set(isa: str, detail: str) -> Iterator[Check]:
    forced = os.environ.get("FASTVID_CPU_ISA")
    if forced:
        hint = "slower if it is not the best one, with the same results; `unset FASTVID_CPU_ISA`"
        detail += f"; FASTVID_CPU_ISA={forced} chose it"
        yield Check("ops", "compiled ops", LIMIT, detail, hint)
    elif isa == "baseline" and platform.machine() == "x86_64":
        hint = "ops are slower than with AVX2, with the same results; only a newer processor helps"
        yield Check("ops", "compiled ops", LIMIT, f"{detail}; it has no AVX2", hint)
    else:
        yield Check("ops", "compiled ops", OK, detail)


def _threads() -> Check | None:
    cores, allowed = os.cpu_count() or 1, len(os.sched_getaffinity(0))
    quota = probes.cpu_quota()
    name = "threads"
    if quota is not None and quota < allowed:
        detail = f"the container may use {quota:g} of {cores} CPUs' time"
        hint = f"networks and ops take {available_cpus()} threads; `docker run --cpus=N` or the "
        return Check(_PART, name, LIMIT, detail, hint + "pod's CPU limit allows more")
    if allowed < cores:
        hint = f"networks and ops take {allowed} threads; `taskset -pc 0-{cores - 1} {os.getpid()}`"
        return Check(_PART, name, LIMIT, f"affinity allows {allowed} of {cores} CPUs", hint)
    if set_ := os.environ.get("FASTVID_NUM_THREADS"):
        hint = "networks do not follow it, they take threads=; `unset FASTVID_NUM_THREADS`"
        return Check(_PART, name, LIMIT, f"FASTVID_NUM_THREADS={set_} limits the ops", hint)
    return None


def _memory() -> Check:
    total, left, group = probes.memory_total(), probes.memory_available(), probes.memory_limit()
    known = left is not None and total is not None
    detail = f"{_size(left or 0)} free of {_size(total or 0)}" if known else "not known"
    if group is not None and (not total or group < total):
        detail += f"; the container may use {_size(group)}"
    if left is not None and left < _LITTLE:
        hint = (
            f"{_size(left)} are left: large frames end with exit code 6 or are killed; close other "
            "programs, raise `docker run --memory`, or take --threads 1 and smaller frames"
        )
        return Check(_PART, "memory", LIMIT, detail, hint)
    return Check(_PART, "memory", OK, detail)


def _address_limit() -> int | None:
    """Bytes of addresses this process may have; None without a limit."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def _size(number: int) -> str:
    return f"{number / 2**30:.1f} GiB"


def _board() -> Check | None:
    """A Jetson says what it is in files of its device tree and of NVIDIA's release."""
    model = _text("/proc/device-tree/model").strip("\0\n ")
    release = re.search(r"R(\d+) .*?REVISION: ([\d.]+)", _text("/etc/nv_tegra_release"))
    if "jetson" not in model.lower() and not release:
        return None
    detail = model or "NVIDIA Jetson"
    if not release:
        return Check(_PART, "board", OK, detail, "routes and limits: docs/jetson.md")
    major = int(release[1])
    detail += f", Jetson Linux {release[1]}.{release[2]}"
    if major < 38:
        hint = (
            "JetPack 6 has Python 3.10 and TensorRT 10.3, fastvid needs 3.11 and, for its plugins, "
            "10.16: flash JetPack 7.2 or newer (docs/jetson.md)"
        )
        return Check(_PART, "board", LIMIT, detail, hint)
    hint = "before measuring: sudo nvpmodel -m 0 && sudo jetson_clocks"
    return Check(_PART, "board", OK, f"{detail} (JetPack 7)", hint)


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _versions() -> str:
    found = [f"{name} {version}" for name in _PACKAGES if (version := version_of(name))]
    return ", ".join(found)


def version_of(name: str) -> str:
    """The version of an installed distribution; empty if it is not there."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _cache() -> Check:
    """Whether engines can be kept; the innermost folder that exists decides."""
    from fastvid.backends.tensorrt._store import default_folder

    folder = default_folder()
    there = next(p for p in (folder, *folder.parents) if os.path.exists(p))
    if not os.path.isdir(there) or not os.access(there, os.W_OK | os.X_OK):
        hint = (
            f"engines are built again by every process; `mkdir -p {folder} && chmod u+rwx "
            f"{folder}`, or set XDG_CACHE_HOME to a folder of yours"
        )
        return Check(_PART, "cache", LIMIT, f"{there} cannot be written by this user", hint)
    free = shutil.disk_usage(there).free
    detail = f"{folder}{'' if there == folder else ', not made yet'}, {_size(free)} free"
    if free < _LITTLE:
        hint = f"engines may not fit; free some, or set XDG_CACHE_HOME: du -sh {folder}"
        return Check(_PART, "cache", LIMIT, detail, hint)
    return Check(_PART, "cache", OK, detail)


def summary() -> str:
    """The machine in a few words."""
    return f"{platform.system()} {platform.machine()}, {available_cpus()} CPUs"


def python() -> str:
    """The interpreter's version."""
    return ".".join(map(str, sys.version_info[:3]))
