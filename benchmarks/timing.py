"""What every benchmark here uses: interleaved timing, the environment, results as JSON.

On a machine with other work to do, `chrt -f 10 python ...` keeps that work from being measured; the
results say whether it was used.

Functions are compared within one run: each round calls every function, so that a slower minute of
the machine hits all of them. Before the timed calls of a round each function is called once
untimed, so that it finds its own data in the caches and the threads of the one before asleep.

What the machine can do at most takes its turn as well: add `copy(nbytes, threads)` for the bytes
an op must read and write, or `multiply(flops, threads)` for its operations, to the functions, and
`percent(times, "fastvid", of="copy")` says how near the op comes:

    functions["copy"] = timing.copy(2 * image.nbytes + flow.nbytes, threads)
    times = timing.compare(functions)
    percent = timing.percent(times, "fastvid", of="copy")
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from limits import copy, multiply

__all__ = [
    "RESULTS",
    "ROOT",
    "Times",
    "compare",
    "copy",
    "copy_ms",
    "environment",
    "multiply",
    "percent",
    "ratio",
    "write_results",
]

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"

_PACKAGES = ["fastvid-sdk", "numpy", "av", "onnxruntime", "onnxruntime-gpu", "torch"]
_PACKAGES += ["opencv-python-headless", "opencv-python"]

Times = dict[str, dict[str, float]]


def compare(
    functions: dict[str, Callable[[], object]], *, rounds: int = 15, sample_seconds: float = 0.05
) -> Times:
    """Times functions against each other.

    Args:
        functions: What to time, by name.
        rounds: Samples of each function.
        sample_seconds: A sample repeats a function until about this much time is spent, and
            at least once.

    Returns:
        By name: `median_ms`, `min_ms` and `p90_ms` of the samples, each per call.
    """
    repeats = {}
    for name, function in functions.items():
        function()
        repeats[name] = max(1, int(sample_seconds / max(_seconds(function, 1), 1e-7)))
    samples: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            function()
            samples[name].append(1e3 * _seconds(function, repeats[name]))
    return {
        name: {
            "median_ms": round(float(np.median(values)), 4),
            "min_ms": round(min(values), 4),
            "p90_ms": round(float(np.percentile(values, 90)), 4),
        }
        for name, values in samples.items()
    }


def ratio(times: Times, slower: str, faster: str) -> float:
    """How many times longer one function takes than another, by their medians."""
    return round(times[slower]["median_ms"] / times[faster]["median_ms"], 2)


def percent(times: Times, name: str, *, of: str) -> float:
    """How near a function comes to a limit in percent, by their medians; 100 is the limit."""
    return round(100 * times[of]["median_ms"] / times[name]["median_ms"], 1)


def copy_ms(nbytes: int, threads: int, *, rounds: int = 15) -> float:
    """The median time in ms of a plain copy that moves `nbytes` in all, see `copy`."""
    times = compare({"copy": copy(nbytes, threads)}, rounds=rounds)
    return times["copy"]["median_ms"]


def environment() -> dict[str, Any]:
    """The machine, the versions, the commit and the command of this run."""
    from fastvid import _core

    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": round(os.getloadavg()[0], 1),
        "real_time_priority": os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR),
        "instruction_set": _core.cpu_isa(),
        "default_threads": _core.default_threads(),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": _versions(),
        "commit": _commit(),
        "command": _command(),
    }


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Writes results with their environment as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"environment": environment(), **results}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")
    print(f"wrote {path.name}")


def _seconds(function: Callable[[], object], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        function()
    return (time.perf_counter() - start) / repeats


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _versions() -> dict[str, str]:
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _commit() -> str:
    try:
        commit = _git("rev-parse", "HEAD")
        return commit + (" with changes" if _git("diff", "HEAD", "--", "csrc", "python") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _command() -> str:
    script = Path(sys.argv[0]).resolve()
    name = script.relative_to(ROOT).as_posix() if script.is_relative_to(ROOT) else script.name
    # A path of this machine means nothing elsewhere; its last part does.
    arguments = [Path(a).name if Path(a).is_absolute() else a for a in sys.argv[1:]]
    return " ".join(["python", name, *arguments])
