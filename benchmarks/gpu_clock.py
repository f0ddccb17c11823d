"""Timing on a device: by events on a GPU, by the clock of the host where work returns to it.

`Machine("cpu", dry=True)` walks the same path with CPU tensors of tiny sizes, so that a machine
without a GPU can test it. What it times means nothing.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import timing
import torch

Functions = dict[str, Callable[[], object]]


@dataclass(frozen=True)
class Machine:
    """Where tensors are, and whether this is only a rehearsal."""

    device: str
    dry: bool = False

    def pick(self, real: Any, rehearsal: Any) -> Any:
        """A size: what is measured, or the tiny one of a rehearsal."""
        return rehearsal if self.dry else real

    def wait(self) -> None:
        """Until all work of every stream is done."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def describe(self) -> dict[str, Any]:
        """Name, driver and versions of the device."""
        if self.device != "cuda":
            return {"name": "rehearsal on the CPU, not a result"}
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


def device_times(m: Machine, functions: Functions, rounds: int, *, cold: bool) -> timing.Times:
    """Times of the device alone; `cold` fills its cache with other data before each call."""
    flush = torch.empty(m.pick(256 << 20, 1024), dtype=torch.uint8, device=m.device)
    samples: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(m.pick(3, 1)):
        for function in functions.values():
            function()
    for _ in range(rounds):
        for name, function in functions.items():
            if cold:
                flush.zero_()
            else:
                function()
            samples[name].append(_one(m, function))
    return summarise(samples)


def _one(m: Machine, function: Callable[[], object]) -> float:
    """Milliseconds of one call on the device."""
    if m.device != "cuda":
        start = time.perf_counter()
        function()
        return 1e3 * (time.perf_counter() - start)
    # The call is queued while the device still waits, so that its own cost does not show.
    torch.cuda._sleep(400_000)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in "01")
    begin.record()
    function()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end))


def host_times(m: Machine, functions: Functions, rounds: int, *, calls: int = 1) -> timing.Times:
    """Times by the host's clock, per call, from an idle device until it is idle again.

    Every stream counts, whoever made it. With more than one call they are queued one after
    another, as in a video, and the wait is at their end.
    """
    samples: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            function()
            m.wait()
            start = time.perf_counter()
            for _ in range(calls):
                function()
            m.wait()
            samples[name].append(1e3 * (time.perf_counter() - start) / calls)
    return summarise(samples)


def call_us(m: Machine, function: Callable[[], object], calls: int = 50) -> float:
    """What a call costs the processor, without waiting for the device; the best of five rounds."""
    calls, best = m.pick(calls, 1), float("inf")
    for _ in range(m.pick(5, 1)):
        m.wait()
        if m.device == "cuda":
            torch.cuda._sleep(20_000_000)
        start = time.perf_counter()
        for _ in range(calls):
            function()
        best = min(best, (time.perf_counter() - start) / calls)
        m.wait()
    return round(1e6 * best, 2)


def summarise(samples: dict[str, list[float]]) -> timing.Times:
    """Median, least and 90th percentile of each."""
    return {
        name: {
            "median_ms": round(float(np.median(values)), 5),
            "min_ms": round(min(values), 5),
            "p90_ms": round(float(np.percentile(values, 90)), 5),
        }
        for name, values in samples.items()
    }


def compiled(m: Machine, function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """`torch.compile`; a rehearsal traces in the same way and generates no code."""
    if m.dry:
        return torch.compile(function, backend="eager")
    return torch.compile(function, **options)
