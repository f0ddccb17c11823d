"""Every op, both video tasks and generation on a GPU, beside torch eager and torch.compile.

    python benchmarks/gpu.py [ops] [upscaling] [interpolation] [generation] [--minutes 9]

Needs this source tree, a build of it with CUDA, and a Python with torch and onnx; no network. Each
row (`benchmarks/gpu_rows.py`) is written to gpu_NAME.json, NAME being the device's, when it is
measured; a run that is stopped, or that `--minutes` ends with status 75, goes on where it was.
Rows of another commit are measured again, and so are those in which a runner was missing with
`--again`. A wrong answer makes the exit status 1.

What is timed: ops on the device, by events, with a cold and a warm cache; tasks by the host's
clock, from NumPy frames to NumPy frames and with frames that stay on the device. All functions of a
row take turns in one process. `--dry-run` takes the same path with tiny CPU tensors and no
generated code, so that a machine without a GPU can test it; its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import gpu_rows
import timing
import torch
from gpu_clock import Machine
from gpu_rows import Row

MORE = 75
"""Exit status of a run that has rows left, as sysexits calls a temporary failure."""


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    if not options.dry_run and not torch.cuda.is_available():
        print("gpu: torch sees no CUDA device; nothing was measured")
        return 1
    m = Machine("cpu", dry=True) if options.dry_run else Machine("cuda")
    if options.dry_run and options.out == timing.RESULTS:
        print("gpu: a rehearsal needs --out FOLDER: its numbers are no results")
        return 2
    torch.set_grad_enabled(False)
    if m.dry:
        torch.set_num_threads(1)
    results = Results(m, options.out, again=options.again)
    rows = [row for row in gpu_rows.rows(tuple(options.parts)) if options.only in row.name]
    begun, longest = time.monotonic(), 0.0
    for row in [row for row in rows if not results.has(row)]:
        # Another one as long as the longest so far must still fit in.
        if options.minutes and time.monotonic() - begun + longest > 60 * options.minutes:
            print("gpu: time is up; run it again for the rows that are left")
            return MORE
        start = time.monotonic()
        results.add(row, measure(m, row, 1 if m.dry else options.rounds, options.models))
        longest = max(longest, time.monotonic() - start)
    wrong = [row.key for row in rows if results.has(row) and not results.rows[row.key]["right"]]
    for key in wrong:
        print(f"gpu: {key} is wrong: {results.rows[key]}")
    return 1 if wrong else 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("parts", nargs="*", choices=[*gpu_rows.PARTS, []], metavar="PART")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--only", default="", help="rows whose name has this in it")
    parser.add_argument("--minutes", type=float, default=0, help="start no row after these")
    parser.add_argument(
        "--models", type=Path, help="folder of bundles to take before those shipped"
    )
    parser.add_argument("--out", type=Path, default=timing.RESULTS, help="folder of the results")
    parser.add_argument("--again", action="store_true", help="repeat rows with missing runners")
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args(arguments)
    options.parts = options.parts or list(gpu_rows.PARTS)
    return options


def measure(m: Machine, row: Row, rounds: int, models: Path | None) -> dict[str, Any]:
    """One row; the module of its part is loaded here, since not every part needs every package."""
    if row.part == "ops":
        import gpu_ops

        return gpu_ops.measure(m, row.spec, rounds)
    if row.part == "generation":
        import gpu_generation

        return gpu_generation.measure(m, row.spec, rounds, models)
    import gpu_frames

    return gpu_frames.measure(m, row.part, row.spec, rounds, models)


class Results:
    """The file of one device, written after every row."""

    def __init__(self, m: Machine, folder: Path, *, again: bool) -> None:
        self.device, self.again = m.describe(), again
        name = re.sub(r"\W+", "_", self.device["name"].lower())
        self.path = folder / f"gpu_{name}.json"
        self.commit = timing.environment()["commit"]
        self.rows: dict[str, Any] = {}
        if self.path.is_file():
            self.rows = json.loads(self.path.read_text(encoding="utf-8"))["rows"]

    def has(self, row: Row) -> bool:
        """Whether there is nothing left to measure."""
        found = self.rows.get(row.key)
        if found is None or found["commit"] != self.commit:
            return False
        return not (self.again and found.get("absent"))

    def add(self, row: Row, result: dict[str, Any]) -> None:
        """Keeps a row, and shows it."""
        self.rows[row.key] = {"commit": self.commit, **result}
        order = [one.key for one in gpu_rows.ROWS]
        kept = {key: self.rows[key] for key in order if key in self.rows}
        timing.write_results(self.path, {"gpu": self.device, "rows": kept})
        shown = {
            name: result[name] for name in ("ratio", "psnr", "error", "absent") if name in result
        }
        print(row.key, json.dumps(shown), flush=True)


if __name__ == "__main__":
    sys.exit(main())
