"""Every op on a GPU beside torch eager, torch.compile and a copy of as many bytes.

    python benchmarks/gpu.py [--rounds 30] [--only warp]

Times are of the device, by events around each call. Cold: the second-level cache holds other data,
as within a model; warm: the call before left its own. Functions take turns, the answer is checked
first, and a copy of the bytes an op must move shows how near the memory's limit it comes. Writes
benchmarks/results/gpu_NAME.json, NAME being the device's.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import timing
import torch
from gpu_peers import Comparison, comparisons


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--only", default="", help="ops whose name begins so")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("gpu: torch sees no CUDA device; nothing was measured")
        return 1
    torch.set_grad_enabled(False)
    cases: dict[str, Any] = {}
    wrong = []
    torch.manual_seed(0)
    for comparison in comparisons():
        if comparison.name.startswith(options.only):
            cases[comparison.name] = measure(comparison, options.rounds)
            show(comparison.name, cases[comparison.name])
            if not cases[comparison.name]["error"] <= comparison.tolerance:
                wrong.append(comparison.name)
    name = re.sub(r"\W+", "_", torch.cuda.get_device_name().lower())
    timing.write_results(
        timing.RESULTS / f"gpu_{name}.json",
        {"gpu": device(), "rounds": options.rounds, "cases": cases},
    )
    for case in wrong:
        print(f"gpu: {case} differs from torch by {cases[case]['error']}")
    return 1 if wrong else 0


def measure(comparison: Comparison, rounds: int) -> dict[str, Any]:
    answer, right = comparison.fastvid(), comparison.torch()
    error = float((answer.float() - right.float()).abs().max())
    source = torch.empty(comparison.nbytes // 2, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    functions: dict[str, Callable[[], object]] = {
        "fastvid": comparison.fastvid,
        "torch": comparison.torch,
        "copy": lambda: target.copy_(source),
    }
    result: dict[str, Any] = {"bytes": comparison.nbytes, "error": error}
    try:
        compiled = torch.compile(comparison.torch)
        compiled()
        functions["torch_compile"] = compiled
    except Exception as problem:  # of any kind: it depends on compilers of the machine
        result["torch_compile"] = f"{type(problem).__name__}: {problem}"[:200]
    for state in ("cold", "warm"):
        times = device_times(functions, rounds, cold=state == "cold")
        result[state] = {
            "time": times,
            "ratio": {
                peer: timing.ratio(times, peer, "fastvid")
                for peer in ("torch", "torch_compile")
                if peer in times
            },
            "percent_of_copy": timing.percent(times, "fastvid", of="copy"),
        }
    result["call_us"] = {name: call_us(function) for name, function in functions.items()}
    return result


def device_times(
    functions: dict[str, Callable[[], object]], rounds: int, *, cold: bool
) -> timing.Times:
    flush = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")
    samples: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(3):
        for function in functions.values():
            function()
    for _ in range(rounds):
        for name, function in functions.items():
            if cold:
                flush.zero_()
            else:
                function()
            # The call is queued while the device still waits, so that its own cost does not show.
            torch.cuda._sleep(400_000)
            start, end = (torch.cuda.Event(enable_timing=True) for _ in "01")
            start.record()
            function()
            end.record()
            end.synchronize()
            samples[name].append(start.elapsed_time(end))
    return {
        name: {
            "median_ms": round(float(np.median(values)), 5),
            "min_ms": round(min(values), 5),
            "p90_ms": round(float(np.percentile(values, 90)), 5),
        }
        for name, values in samples.items()
    }


def call_us(function: Callable[[], object], calls: int = 50) -> float:
    """What a call costs the processor, without waiting for the device; the best of five rounds."""
    best = float("inf")
    for _ in range(5):
        torch.cuda.synchronize()
        torch.cuda._sleep(20_000_000)
        start = time.perf_counter()
        for _ in range(calls):
            function()
        best = min(best, (time.perf_counter() - start) / calls)
        torch.cuda.synchronize()
    return round(1e6 * best, 2)


def show(name: str, result: dict[str, Any]) -> None:
    print(f"{name}: error {result['error']:.2g}, call {result['call_us']['fastvid']} us")
    for state in ("cold", "warm"):
        times = {peer: row["median_ms"] for peer, row in result[state]["time"].items()}
        print(f"  {state} {times} ms, {result[state]['percent_of_copy']} % of copy", flush=True)


def device() -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(0)
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version,clocks.max.sm,power.limit"]
        driver = subprocess.run(
            [*command, "--format=csv,noheader"], capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        driver = "unknown"
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "processors": properties.multi_processor_count,
        "driver_clock_power": driver,
        "cuda": torch.version.cuda,
    }


if __name__ == "__main__":
    sys.exit(main())
