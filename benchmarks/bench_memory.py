"""Memory of a frame: what `plan()` says, what a process takes, and what pieces and low memory save.

Each figure is the peak of a process of its own beyond what it held when its model was loaded, after
three frames. The plan is made first, from runs at 512x384 and 1024x768, and knows nothing of it.

    python benchmarks/bench_memory.py
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

import timing

from fastvid import Interpolator, Upscaler

SIZES = ((640, 360), (1280, 720), (1920, 1080), (3840, 2160))
WAYS: dict[str, dict[str, Any]] = {
    "whole": {},
    "low_memory": {"low_memory": True},
    "tile=512": {"tile": 512},
    "tile=256": {"tile": 256},
}
_FRAMES = 3
_RUN = """
import json, sys, time
import numpy as np
from fastvid import Interpolator, Upscaler
from fastvid._memory_probe import reset_peak
from fastvid.bench import probes
task, width, height, frames, options = json.loads(sys.argv[1])
pictures = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
kind = {"upscaling": Upscaler, "interpolation": Interpolator}[task]
with kind(device="cpu", **options) as model:
    run = (lambda: model.upscale_frame(pictures[0])) if task == "upscaling" else (
        lambda: model.between(*pictures))
    if not reset_peak():
        sys.exit("the system does not let processes reset their peak")
    before = probes.peak_rss()
    seconds = []
    for _ in range(frames):
        begun = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begun)
    peak = probes.peak_rss() - before
    reset_peak()
    print(json.dumps({"peak": peak, "held": probes.peak_rss() - before, "ms": 1e3 * min(seconds)}))
"""


def taken(task: str, size: tuple[int, int], options: dict[str, Any]) -> dict[str, float]:
    """Bytes at the peak and after the runs, and the time of the fastest."""
    request = json.dumps([task, *size, _FRAMES, options])
    answer = subprocess.check_output([sys.executable, "-c", _RUN, request], text=True)
    found: dict[str, float] = json.loads(answer)
    return {**found, "ms": round(found["ms"], 1)}


def planned(kind: type[Interpolator] | type[Upscaler], threads: int) -> list[dict[str, Any]]:
    task = "upscaling" if kind is Upscaler else "interpolation"
    rows = []
    with kind(device="cpu", threads=threads) as model:
        for width, height in SIZES:
            plan = sum(model.plan(height, width).graphs.values())
            found = taken(task, (width, height), {"threads": threads})
            rows.append({"size": [width, height], "planned": plan, **found})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    threads = parser.parse_args().threads
    size = (1920, 1080)
    ways = {
        task: {
            name: taken(task, size, {"threads": threads, **way})
            for name, way in WAYS.items()
            if task == "upscaling" or "tile" not in name
        }
        for task in ("upscaling", "interpolation")
    }
    results = {
        "threads": threads,
        "plans": {
            "upscaling": planned(Upscaler, threads),
            "interpolation": planned(Interpolator, threads),
        },
        "ways_size": size,
        "ways": ways,
    }
    timing.write_results(timing.RESULTS / "memory.json", results)


if __name__ == "__main__":
    main()
