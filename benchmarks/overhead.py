"""Tables of what the SDK adds to onnxruntime and of memory, for report.py."""

from __future__ import annotations

from tables import load, source, table


def table_of_calls() -> str:
    result = load("overhead")
    tiny = result["tiny"]
    width, height = result["size"]
    bare = 1e3 * tiny["time"]["onnxruntime"]["median_ms"]
    rows = [
        (
            "One node, again at the same size",
            f"{bare:.1f} us",
            f"+{tiny['added_us']['fastvid']} us",
        ),
        (
            "One node, handed to the worker thread",
            f"{bare:.1f} us",
            f"+{tiny['added_us']['fastvid_handed_over']} us",
        ),
    ]
    for task in ("interpolation", "upscaling"):
        time = result[task]["time"]["onnxruntime"]["median_ms"]
        added = f"{result[task]['added_percent']:+.1f} %"
        rows.append((f"{task.capitalize()}, {width}x{height}", f"{time:.1f} ms", added))
    return (
        "The same sessions, bare with their inputs at hand and through the SDK, in turns; medians, "
        f"{result['threads']} threads. Runs of more than a millisecond, and the first of a size, "
        "are handed to a worker thread, so that Ctrl-C reaches the main thread.\n\n"
        + table(["Call", "onnxruntime", "the SDK"], rows)
        + "\n"
        + source(result)
    )


def table_of_memory() -> str:
    result = load("memory")
    plans = [
        (task, "{}x{}".format(*row["size"]), _mb(row["planned"]), _mb(row["peak"]))
        for task, rows in result["plans"].items()
        for row in rows
    ]
    size = "{}x{}".format(*result["ways_size"])
    ways = [
        (task, name, _mb(way["peak"]), _mb(way["held"]), f"{way['ms']:.0f} ms")
        for task, found in result["ways"].items()
        for name, way in found.items()
    ]
    return (
        "What `plan()` says before anything ran at the size, and the peak of a process beyond what "
        f"it held with the model loaded; {result['threads']} threads, CPU.\n\n"
        + table(["Task", "Frame", "planned", "taken"], plans)
        + f"\nWays to take less at {size}; held is what stays between frames.\n\n"
        + table(["Task", "Way", "peak", "held", "a frame"], ways)
        + "\n"
        + source(result)
    )


def _mb(size: float) -> str:
    return f"{size / 1e6:.0f} MB"
