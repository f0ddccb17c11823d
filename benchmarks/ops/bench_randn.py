"""`randn` beside torch and NumPy.

    python benchmarks/ops/bench_randn.py [--shape 1,16,21,60,104] [--threads 2] [--rounds 15]

The shape is the latent of a short video. torch draws with its default generator, NumPy with its
Philox; all write to memory that is there. Before timing, the noise is checked to have the same bits
on every instruction set and number of threads, and to be standard normal.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import timing
import torch

from fastvid import _core, ops


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shape", default="1,16,21,60,104")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    shape = tuple(map(int, options.shape.split(",")))
    torch.set_num_threads(options.threads)
    out = np.empty(shape, np.float32)
    own = {
        f"fastvid_{name}": forced(name, lambda: ops.randn(shape, seed=1, threads=options.threads))
        for name in _core.cpu_isas()
    }
    checked = check({name: function() for name, function in own.items()}, shape)
    tensor, copied = torch.empty(shape), np.empty_like(out)
    generator = np.random.Generator(np.random.Philox(1))
    functions: dict[str, Callable[[], object]] = {
        "fastvid": lambda: ops.randn(shape, seed=1, out=out, threads=options.threads),
        "fastvid_one_thread": lambda: ops.randn(shape, seed=1, out=out, threads=1),
        "torch": lambda: torch.randn(shape, out=tensor),
        "numpy_philox": lambda: generator.standard_normal(out=copied, dtype=np.float32),
        "copy": lambda: np.copyto(out, copied),
    }
    for name in _core.cpu_isas():
        if name != _core.cpu_isa():
            functions[f"fastvid_{name}"] = forced(name, functions["fastvid"])
    time = timing.compare(functions, rounds=options.rounds)
    elements = math.prod(shape)
    results = {
        "shape": shape,
        "threads": options.threads,
        "rounds": options.rounds,
        "checked": checked,
        "time": time,
        "ratio": {name: timing.ratio(time, name, "fastvid") for name in time if name != "fastvid"},
        "nanoseconds_per_element": {
            name: round(1e6 * entry["median_ms"] / elements, 3) for name, entry in time.items()
        },
    }
    for name, entry in time.items():
        print(f"  {name:20s} {entry['median_ms']:9.3f} ms  (min {entry['min_ms']:.3f})")
    print("  ratios", results["ratio"])
    timing.write_results(timing.RESULTS / "randn.json", results)


def check(noises: dict[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
    """Raises where bits differ or the moments are not those of a standard normal."""
    first = next(iter(noises.values()))
    noises["one_thread"] = ops.randn(shape, seed=1, threads=1)
    if not all(np.array_equal(noise, first) for noise in noises.values()):
        raise SystemExit("randn: the bits differ between instruction sets or thread counts")
    values = first.astype(np.float64)
    n = values.size
    mean, variance = float(values.mean()), float(values.var())
    if abs(mean) > 5 / math.sqrt(n) or abs(variance - 1) > 5 * math.sqrt(2 / n):
        raise SystemExit(f"randn: mean {mean} and variance {variance} must be 0 and 1")
    return {"equal_bits": list(noises), "mean": mean, "variance": variance}


def forced(name: str, function: Callable[[], object]) -> Callable[[], Any]:
    def run() -> object:
        _core._force_isa(name)
        try:
            return function()
        finally:
            _core._force_isa(None)

    return run


if __name__ == "__main__":
    main()
