"""What a call of an op costs beside its work: the smallest call of each, from three libraries.

    python benchmarks/ops/bench_call_overhead.py [--rounds 15]

One element or as few as the op takes, one thread, `out` given: nothing is allocated and next to
nothing computed, so the time is that of checks, of finding the arrays' memory and of the call
itself. At most 5 us are wanted. Torch's own calls on as little say what a call costs there. Results
are checked for being equal across the libraries first.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

import numpy as np
import onnxruntime as ort
import timing
import torch
import torch.nn.functional as F
from op_cases import OPS, Draw

LIMIT_US = 5.0
LIBRARIES: dict[str, Callable[[Any], Any]] = {
    "numpy": lambda array: array,
    "torch": torch.from_numpy,
    "ortvalue": ort.OrtValue.ortvalue_from_numpy,
}


class Smallest(Draw):
    """The usual of every choice, and one of everything that is counted."""

    def __init__(self) -> None:
        super().__init__(lambda options: options[0])

    def batch(self) -> int:
        return 1

    def size(self, usual: int, *, largest: int = 65, least: int = 0) -> int:
        return max(1, least)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    functions = {"torch.add": torch_add(), "torch.grid_sample": torch_grid_sample()}
    for name in OPS:
        functions |= calls(name)
    # In thousands, since times are rounded to tenths of microseconds.
    many = {name: thousand(function) for name, function in functions.items()}
    times = timing.compare(many, rounds=options.rounds, sample_seconds=0.002)
    cost = {name: round(row["median_ms"], 2) for name, row in times.items()}
    least = {name: round(row["min_ms"], 2) for name, row in times.items()}
    for name, us in cost.items():
        print(f"  {name:32s} {us:7.2f} us  (min {least[name]:.2f})")
    above = sorted(name for name, us in cost.items() if us > LIMIT_US)
    print(f"above {LIMIT_US} us: {', '.join(above) or 'none'}")
    timing.write_results(
        timing.RESULTS / "call_overhead.json",
        {"rounds": options.rounds, "median_us": cost, "min_us": least, "above_limit": above},
    )


def thousand(function: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        for _ in range(1000):
            function()

    return run


def calls(name: str) -> dict[str, Callable[[], object]]:
    op = OPS[name]
    case = op.make(Smallest())
    right = op.allocate(case)
    found: dict[str, Callable[[], object]] = {}
    for library, wrap in LIBRARIES.items():
        outputs = [np.empty_like(output) for output in right]
        arrays = {argument: wrap(array) for argument, array in case.arrays.items()}
        out = op.pack([wrap(output) for output in outputs])
        arguments = op.arguments(case, arrays)
        function = op.function

        def call(function: Any = function, arguments: Any = arguments, out: Any = out) -> object:
            return function(**arguments, out=out, threads=1)

        call()
        for output, same in zip(outputs, right, strict=True):
            np.testing.assert_array_equal(output, same)
        found[f"{name} {library}"] = call
    return found


def torch_add() -> Callable[[], object]:
    a, b, out = torch.zeros(1), torch.zeros(1), torch.zeros(1)
    return lambda: torch.add(a, b, out=out)


def torch_grid_sample() -> Callable[[], object]:
    image, grid = torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 2)
    return lambda: F.grid_sample(image, grid, align_corners=True)


if __name__ == "__main__":
    main()
