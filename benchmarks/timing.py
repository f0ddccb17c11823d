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

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from limits import copy, multiply

from fastvid import bench
from fastvid.bench._environment import command

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
    return {**bench.environment(), "command": command()}


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
