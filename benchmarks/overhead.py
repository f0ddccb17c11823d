"""The table of what the SDK adds to onnxruntime, for report.py."""

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
