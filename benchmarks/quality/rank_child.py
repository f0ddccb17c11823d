"""Time and memory of one row of a ranking, in a process of its own; `rank.py` starts it.

    python benchmarks/quality/rank_child.py '{"task": ..., "name": ..., "runtime": ..., ...}'

Prints one JSON object. The memory is the most that the whole process held: interpreter, packages,
network and two frames. `pace` is the time of ten billion multiply-adds in registers, in turn with
the row: rows of minutes in which the machine was slower show it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import timing

from fastvid.bench import probes

_SECONDS = 4.0
_FLOPS = 2e10


def main() -> None:
    """Opens the row, times it, and says what it took."""
    request = json.loads(sys.argv[1])
    start = time.perf_counter()
    run, drawn = _interpolation(request) if request["task"] == "interpolation" else _upscaling(
        request
    )  # fmt: skip
    run()
    opened = time.perf_counter() - start
    start = time.perf_counter()
    run()
    once = time.perf_counter() - start
    peak = probes.peak_rss()
    rounds = max(3, min(15, int(_SECONDS / (2 * once))))
    functions = {"row": run, "pace": timing.multiply(_FLOPS, request["threads"])}
    times = timing.compare(functions, rounds=rounds, sample_seconds=0.02)
    found = {key: round(value / drawn, 3) for key, value in times["row"].items()}
    print(json.dumps({
        **found,
        "rounds": rounds,
        "pace_ms": times["pace"]["median_ms"],
        "first_frame_ms": round(1e3 * opened / drawn, 1),
        "peak_mib": round(peak / 2**20, 1) if peak else None,
        "threads": request["threads"],
    }))  # fmt: skip


def _interpolation(request: dict[str, Any]) -> tuple[Callable[[], Any], int]:
    import between

    method = between.methods()[request["name"]]
    gap = between.scene_gap(tuple(request["size"]))
    draw = method.open(request["runtime"], request["threads"])
    return lambda: draw(gap, [0.5]), method.drawn


def _upscaling(request: dict[str, Any]) -> tuple[Callable[[], Any], int]:
    import enlarge

    from fastvid.scene import Scene

    width, height = request["size"]
    method = enlarge.methods(request["scale"], Path(request["weights"]))[request["name"]]
    frame = Scene(width, height, seed=7).draw(0.4)
    made = method.open(
        request["runtime"], request["threads"], (width, height), Path(request["cache"])
    )
    return lambda: made(frame), 1


if __name__ == "__main__":
    main()
