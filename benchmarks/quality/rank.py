"""Ranks fastvid's models and their peers: quality on held-back material, time, memory.

    python benchmarks/quality/rank.py interpolation quality --data DATA
    python benchmarks/quality/rank.py interpolation time
    python benchmarks/quality/rank.py upscaling quality --data DATA [--scale 2 3 4]
    python benchmarks/quality/rank.py upscaling prepare --data DATA
    python benchmarks/quality/rank.py upscaling time --data DATA
        [--row NAME ...] [--again] [--missing] [--seconds 45] [--cache FOLDER]

Rows are what ships in the package and every peer that runs here (`between.py`, `enlarge.py`). A row
stays in `results/rank_*.json` until its model changes, so a second call computes what is new;
`--again` computes all anew, `--missing` lists what is to do. Quality needs no quiet machine: one
thread. `prepare` exports the peers' graphs. Time is taken in a process for each row and runtime,
best under `chrt -f 10` on an idle machine, `--seconds` at a time.

Interpolation: PSNR over RGB, SSIM of luma and the feature distance (`learned_features.py`, not
LPIPS) of the frame in the middle of two, strides 1 and 2; then three frames between frames that are
four apart, for other times than the middle and for the temporal error (`measures.py`).

Upscaling: luma PSNR and SSIM by the papers' protocol, the feature distance, and on clips the
temporal error; the same clips once more through H.264 at rate factor 28, which is what networks for
real video were trained for.
"""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import timing
from rank_store import Rows

_CHILD = Path(__file__).with_name("rank_child.py")
_DATA = timing.ROOT.parent / "shared" / "data"
SCALES = (2, 3, 4)
SIZES = {2: ((960, 540), (640, 360)), 3: ((640, 360),), 4: ((480, 270), (640, 360))}
"""Of the frames that are upscaled for time; the first size is that of the ranking."""


def main() -> None:
    """Computes the rows that are missing."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("task", choices=("interpolation", "upscaling"))
    parser.add_argument("part", choices=("quality", "prepare", "time"))
    parser.add_argument("--data", type=Path, default=_DATA)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "fastvid-rank")
    parser.add_argument("--scale", type=int, nargs="*", default=SCALES, choices=SCALES)
    parser.add_argument("--row", nargs="*", help="these alone")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--missing", action="store_true", help="list what is to do, and stop")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no row after so many")
    parser.add_argument("--count", type=int, default=4, help="places per clip and stride")
    parser.add_argument("--threads", type=int, help="1 for quality, 2 for time")
    options = parser.parse_args()
    options.threads = options.threads or (1 if options.part == "quality" else 2)
    start = time.monotonic()
    for name, work in _TASKS[options.task](options):
        if time.monotonic() - start > options.seconds:
            break
        print(name, flush=True)
        if not options.missing:
            work()


Work = Iterator[tuple[str, Callable[[], None]]]


# Interpolation


def _interpolation(options: argparse.Namespace) -> Work:
    import between

    methods, rows = between.methods(), Rows("rank_interpolation")
    rows.keep(methods)
    for name, method in methods.items():
        if options.row and name not in options.row:
            continue
        mark = f"{options.count} {method.mark}".strip()
        scored = rows.has(name, "quality", mark) and not options.again
        if options.part == "quality" and method.scored and not scored:
            yield name, functools.partial(_score_between, rows, method, mark, options)
        for runtime in method.runtimes if options.part == "time" else ():
            part = f"time {runtime}".strip()
            if options.again or not rows.has(name, part, method.mark):
                request = {"task": "interpolation", "name": name, "runtime": runtime,
                           "size": between.SIZE, "threads": options.threads}  # fmt: skip
                yield (
                    f"{name} {runtime}",
                    functools.partial(_time, rows, name, part, method.mark, request),
                )


def _score_between(rows: Rows, method: Any, mark: str, options: argparse.Namespace) -> None:
    draw = method.open(method.runtimes[0], options.threads)
    rows.put(method.name, "quality", mark, _scored_between(draw, options))


def _scored_between(draw: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Figures of each clip and stride, and their means."""
    import clips
    import torch
    from learned_features import FeatureDistance
    from measures import full_luma, ssim, temporal_error

    from fastvid.metrics import psnr

    torch.set_num_threads(options.threads)
    store = clips.Clips(options.data, options.cache / "clips")
    sets: dict[str, dict[str, Any]] = {}
    for name in store.names:
        for stride in (1, 2):
            found = []
            for gap in store.gaps(name, options.count, stride=stride):
                made, truth = draw(gap, gap.times)[0], gap.truth[0]
                found.append((
                    psnr(made, truth),
                    ssim(full_luma(made), full_luma(truth)),
                    FeatureDistance(truth)(made),
                ))  # fmt: skip
            means = np.mean(found, 0)
            sets[f"{name}/{stride}"] = {
                "psnr": means[0], "ssim": means[1], "features": means[2],
                "unseen": name in clips.UNSEEN,
            }  # fmt: skip
        quarters, steady = [], []
        for gap in store.gaps(name, 2, stride=1, parts=4):
            drawn = draw(gap, gap.times)
            quarters.append(np.mean([psnr(a, b) for a, b in zip(drawn, gap.truth, strict=True)]))
            ends = gap.frame0, gap.frame1
            steady.append(
                temporal_error([ends[0], *drawn, ends[1]], [ends[0], *gap.truth, ends[1]])
            )
        sets[f"{name}/quarters"] = {
            "psnr": np.mean(quarters), "temporal": np.mean(steady), "unseen": name in clips.UNSEEN,
        }  # fmt: skip
        print(name, {k: round(float(v), 3) for k, v in sets[f"{name}/1"].items()}, flush=True)
    return {"mean": _means(sets), "sets": _plain(sets)}


def _means(sets: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Over the sets: of the middle frame, of quarters, of clips never seen."""
    middle = {k: s for k, s in sets.items() if not k.endswith("quarters")}
    quarters = [s for k, s in sets.items() if k.endswith("quarters")]

    def mean(values: list[Any]) -> float:
        return round(float(np.mean(values)), 4)

    return {
        "psnr": mean([s["psnr"] for s in middle.values()]),
        "psnr_unseen": mean([s["psnr"] for s in middle.values() if s["unseen"]]),
        "ssim": mean([s["ssim"] for s in middle.values()]),
        "features": mean([s["features"] for s in middle.values()]),
        "psnr_quarters": mean([s["psnr"] for s in quarters]),
        "temporal": mean([s["temporal"] for s in quarters]),
    }


# Upscaling


def _upscaling(options: argparse.Namespace) -> Work:
    import enlarge

    every = {s: enlarge.methods(s, options.data / "weights") for s in SCALES}
    rows = Rows("rank_upscaling")
    rows.keep([_key(scale, name) for scale, methods in every.items() for name in methods])
    for scale in options.scale:
        for name, method in every[scale].items():
            if options.row and name not in options.row:
                continue
            key = _key(scale, name)
            if options.part == "prepare":
                yield key, functools.partial(_prepare, method, scale, options.cache)
            elif options.part == "quality":
                if options.again or not rows.has(key, "quality", method.mark):
                    yield key, functools.partial(_score_large, rows, key, method, scale, options)
            else:
                yield from _upscaling_times(rows, key, method, scale, options)


def _upscaling_times(
    rows: Rows, key: str, method: Any, scale: int, options: argparse.Namespace
) -> Work:
    """Every runtime at the first size, then the fastest at the others."""
    for size in SIZES[scale]:
        runtimes = method.runtimes
        if size != SIZES[scale][0]:
            first = {r: rows.part(key, _part(r, SIZES[scale][0])) for r in runtimes}
            timed = [r for r, found in first.items() if "median_ms" in found]
            runtimes = sorted(timed, key=lambda r: first[r]["median_ms"])[:1]
        for runtime in runtimes:
            part = _part(runtime, size)
            if options.again or not rows.has(key, part, method.mark):
                request = {
                    "task": "upscaling", "name": method.name, "runtime": runtime, "size": size,
                    "scale": scale, "threads": options.threads,
                    "weights": str(options.data / "weights"), "cache": str(options.cache),
                }  # fmt: skip
                yield (
                    f"{key} {runtime} {size}",
                    functools.partial(_time, rows, key, part, method.mark, request),
                )


def _part(runtime: str, size: tuple[int, int]) -> str:
    return f"time {size[0]}x{size[1]} {runtime}".strip()


def _prepare(method: Any, scale: int, cache: Path) -> None:
    import enlarge

    for size in SIZES[scale]:
        for runtime in method.runtimes:
            enlarge.prepare(method, runtime, size, cache)


def _score_large(
    rows: Rows, key: str, method: Any, scale: int, options: argparse.Namespace
) -> None:
    rows.put(key, "quality", method.mark, _scored_large(method, scale, options))


def _key(scale: int, name: str) -> str:
    return f"x{scale} {name}"


def _scored_large(method: Any, scale: int, options: argparse.Namespace) -> dict[str, Any]:
    import protocol
    import torch
    from learned_features import FeatureDistance
    from measures import ssim, temporal_error
    from pictures import moving, still

    torch.set_num_threads(options.threads)
    enlarge = method.open(method.quality_runtime, options.threads, None, options.cache)
    groups: dict[str, list[Any]] = {}
    for name, picture in still(options.data, options.cache):
        truth = protocol.cut(picture, scale)
        made = enlarge(protocol.reduced(truth, scale))
        lumas = protocol.luma(made), protocol.luma(truth)
        figures = (
            protocol.psnr(made, truth, scale),
            ssim(*lumas, border=scale),
            FeatureDistance(truth)(made),
        )
        for group in ("all", name.split(":")[0]):
            groups.setdefault(group, []).append(figures)
    found: dict[str, Any] = {
        group: dict(zip(("psnr", "ssim", "features"), np.mean(rows, 0), strict=True))
        for group, rows in groups.items()
    }
    for kind in ("clean", "compressed"):
        figures = []
        for truths, small in moving(options.data, options.cache, scale, kind):
            made = [enlarge(frame) for frame in small]
            pairs = list(zip(made, truths, strict=True))
            figures.append((
                np.mean([protocol.psnr(a, b, scale) for a, b in pairs]),
                np.mean([FeatureDistance(b)(a) for a, b in pairs[::3]]),
                temporal_error(made, truths),
            ))  # fmt: skip
        means = np.mean(figures, 0)
        found[kind] = dict(zip(("psnr", "features", "temporal"), means, strict=True))
    found["pictures"] = len(groups["all"])
    print(scale, method.name, found["all"], found["compressed"], flush=True)
    return {"mean": _plain(found)}


# Both


def _time(rows: Rows, key: str, part: str, mark: str, request: dict[str, Any]) -> None:
    """Keeps what a process of its own says, or why there is nothing to say."""
    done = subprocess.run(
        [sys.executable, str(_CHILD), json.dumps(request)], capture_output=True, text=True
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        found: dict[str, Any] = {"left_out": last[:300]}
    else:
        found = json.loads(done.stdout.splitlines()[-1])
    print({k: found[k] for k in ("median_ms", "pace_ms", "peak_mib", "left_out") if k in found})
    rows.put(key, part, mark, found | {"size": request["size"], "runtime": request["runtime"]})


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return value if isinstance(value, bool | str | int) else round(float(value), 4)


_TASKS = {"interpolation": _interpolation, "upscaling": _upscaling}

if __name__ == "__main__":
    main()
