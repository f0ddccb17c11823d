"""The sections on backends and precisions, from results/backends.json and results/shapes.json."""

from __future__ import annotations

from typing import Any

from tables import exists, load, source, table


def models() -> str:
    """Time of each model by each way to run it, and what that costs; empty without results."""
    if not exists("backends"):
        return ""
    result = load("backends")
    head = (
        "Frames in to frame out through the SDK on the CPU: 960x540 to twice that for the "
        "upscaler, 1280x720 for the interpolator. Lost is PSNR against what the pictures should "
        "be, less than that of float32 in onnxruntime, as a mean over pictures; the limits are "
        "0.05 dB for bfloat16 and 0.15 dB for int8. A way is kept where it is at least 1.1 "
        "times as fast ([what `auto` takes](openvino.md)).\n"
    )
    header = ["", "median ms", "times as fast", "PSNR to float32, dB", "dB lost", "kept"]
    rows: list[list[str]] = []
    for row in result["models"]:
        if row["model"] not in {r[0].split(":")[0] for r in rows}:
            base = f"{row['model']}: onnxruntime, float32"
            rows.append([base, f"{row['reference_ms']:.1f}", "1.00x", "", "", ""])
        rows.append(_row(row))
    return "\n".join([head, table(header, rows), source(result)])


def _row(row: dict[str, Any]) -> list[str]:
    near = "equal" if row["psnr"] is None else f"{row['psnr']:.1f}"
    lost = f"{max(0.0, row['loss']):.3f}"
    return [
        f"{row['model']}: {row['backend']}, {row['precision']}",
        f"{row['median_ms']:.1f}",
        f"{row['speed']:.2f}x",
        near,
        lost,
        "no" if row["problem"] else "yes",
    ]


def shapes() -> str:
    """Time of upscalers of random weights by width and depth; empty without results."""
    if not exists("shapes"):
        return ""
    result = load("shapes")
    width, height = result["size"]
    ways = list(result["shapes"][0]["times"])
    head = (
        f"Upscalers of random weights, luma of {width}x{height} to twice that: a 6x6 convolution "
        "with stride 2, inner 3x3 convolutions, one to the blocks of the result, and a skip "
        "convolution that stays float32; milliseconds, frames in to frame out.\n"
    )
    rows = []
    for row in result["shapes"]:
        name = f"{row['channels']} channels, {row['depth']} inner, {row['gflop']:.1f} GFLOP"
        rows.append([name, *(f"{row['times'][way]:.1f}" for way in ways)])
    tail = (
        "Channels in multiples of 16 are what both runtimes fill their vectors with: 24 cost "
        "nearly what 32 do, and 40 more than 48 in onnxruntime.\n"
    )
    return "\n".join([head, table(["", *ways], rows), tail, source(result)])
