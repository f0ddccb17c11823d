"""The machine, the versions and the limits that a measurement was made under, as plain values."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from fastvid._version import __version__
from fastvid.bench import probes
from fastvid.devices import available_cpus, cuda_driver

__all__ = ["environment", "warnings_of"]

_PACKAGES = (
    "numpy",
    "av",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
    "tensorrt-cu12",
    "tensorrt-cu13",
    "nvidia-cuda-runtime",
    "nvidia-cuda-runtime-cu12",
    "nvidia-cudnn-cu12",
    "nvidia-cudnn-cu13",
    "cuda-bindings",
    "torch",
    "opencv-python-headless",
    "opencv-python",
)
_QUIET = 0.1
"""Processors that others may keep busy on a machine that counts as quiet."""
_WATCH_SECONDS = 0.25
_GIT_SECONDS = 10


def environment() -> dict[str, Any]:
    """What a result depends on besides the model.

    Returns:
        Values that JSON can hold. Facts that the machine hides are None; `cores` is what this
        process may use, `others_busy` the processors that other programs kept busy just now.
    """
    from fastvid import _core

    driver = cuda_driver()
    return {
        "cpu": probes.cpu_name(),
        "cores": available_cpus(),
        "cores_of_machine": os.cpu_count(),
        "cpu_quota": probes.cpu_quota(),
        "cpu_frequency": probes.cpu_frequency(),
        "memory_bytes": probes.memory_total(),
        "memory_limit_bytes": probes.memory_limit(),
        "memory_available_bytes": probes.memory_available(),
        "container": probes.in_container(),
        "virtual_machine": probes.is_virtual_machine(),
        "power_mode": probes.power_mode(),
        "load_before": round(os.getloadavg()[0], 1),
        "others_busy": others_busy(),
        "real_time_priority": os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR),
        "real_time_pause_ms": probes.real_time_pause(),
        "instruction_set": _core.cpu_isa(),
        "default_threads": _core.default_threads(),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "kernel": platform.release(),
        "driver": driver.version or None,
        "no_cuda": driver.problem or None,
        "gpus": [_gpu(device.index, str(device)) for device in driver.devices],
        "versions": {"fastvid-sdk": __version__} | _versions(),
        "commit": commit(),
    }


def warnings_of(facts: dict[str, Any]) -> list[str]:
    """What in an environment makes figures less sure, a sentence each."""
    found = []
    if facts["real_time_priority"]:
        # Others wait while this works; what they took anyway stands in the rows.
        if pause := facts["real_time_pause_ms"]:
            found.append(
                f"the kernel stops processes of real-time priority for {pause:.0f} ms of each busy "
                "second: slow percentiles hold these stops"
            )
    elif (busy := facts["others_busy"]) is not None and busy > _QUIET:
        found.append(
            f"other programs keep {busy:.1f} of {facts['cores']} cores busy: times are too long"
        )
    elif facts["load_before"] > max(1.0, facts["cores"] / 2):
        found.append(f"the load average before was {facts['load_before']}: the machine was busy")
    frequency = facts["cpu_frequency"] or {}
    if frequency.get("governor") == "powersave":
        found.append("the CPU frequency governor is powersave: short work runs at a low clock")
    if facts["cpu_quota"] is not None:
        found.append(f"the control group allows {facts['cpu_quota']:g} CPUs and throttles beyond")
    if facts["power_mode"] == "battery":
        found.append("the machine runs on battery")
    return found


def others_busy() -> float | None:
    """Processors that other programs keep busy, watched for a quarter of a second."""
    before = probes.busy_seconds()
    time.sleep(_WATCH_SECONDS)
    return probes.busy_seconds().others_since(before)


def commit() -> str | None:
    """The commit of the checkout that this package lies in; None for an installed package."""
    root = Path(__file__).resolve().parents[3]
    if not ((root / ".git").exists() and (root / "python" / "fastvid").is_dir()):
        return None
    try:
        head = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "diff", "HEAD", "--", "csrc", "python")
    except (OSError, subprocess.SubprocessError):
        return None
    return head + (" with changes" if changed else "")


def command() -> str:
    """The command that this process was started with, without the paths of this machine."""
    script = Path(sys.argv[0]) if sys.argv and sys.argv[0] else Path("python")
    resolved = script.resolve()
    root = next((p for p in resolved.parents if (p / "pyproject.toml").is_file()), None)
    if resolved.suffix != ".py":
        name = resolved.name
    elif resolved.name == "__main__.py":
        name = f"python -m {resolved.parent.name}"
    elif root is not None:
        name = f"python {resolved.relative_to(root).as_posix()}"
    else:
        name = f"python {resolved.name}"
    # A path of this machine means nothing elsewhere; its last part does.
    arguments = [Path(a).name if Path(a).is_absolute() else a for a in sys.argv[1:]]
    return " ".join([name, *(f'"{a}"' if " " in a else a for a in arguments)])


def _gpu(index: int, name: str) -> dict[str, Any]:
    device = probes.Nvml.open(index)
    return {"name": name, **(device.state() if device else {})}


def _versions() -> dict[str, str]:
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_GIT_SECONDS)
    return done.stdout.strip()
