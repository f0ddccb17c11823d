"""The sections on the classes of upscalers, from their bundles and upscaler_classes.json."""

from __future__ import annotations

from tables import exists, load, source, table

from fastvid.bundle import Bundle, shipped


def quality() -> str:
    """What each bundle says was measured of it when it was made, training checks left out."""
    rows = []
    for name, path in shipped().items():
        bundle = Bundle.load(path)
        if bundle.task != "upscaler":
            continue
        rows += [
            (name, q.metric, q.data, f"{q.value:g} {q.unit}".strip())
            for q in bundle.quality
            if not q.metric.startswith("largest difference")
        ]
    head = (
        "Material that never trained. Flicker is the mean error of the differences between "
        "neighbouring frames.\n\n"
    )
    return head + table(["model", "metric", "on", ""], rows)


def time() -> str:
    """Time of each class and of peers, per size; empty without results."""
    if not exists("upscaler_classes"):
        return ""
    result = load("upscaler_classes")
    rows = [
        (
            f"{row['input'][0]}x{row['input'][1]} x{row['scale']}",
            row["model"],
            row["runtime"],
            f"{row['macs_per_pixel'] / 1e3:.1f}",
            f"{row['time']['median_ms']:.1f}",
            f"{row['time']['min_ms']:.1f}",
            f"{row['gflops']}",
        )
        for row in result["rows"]
    ]
    header = ["input", "model", "runtime", "kMAC per pixel", "median ms", "min ms", "GFLOP/s"]
    head = (
        f"Frame in to frame out through the SDK, {result['threads']} threads; peers are bundles "
        "made from their published weights by `fastvid export`.\n\n"
    )
    return head + table(header, rows) + "\n" + source(result)
