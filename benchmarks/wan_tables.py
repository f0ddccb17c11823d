"""The page section of Wan."""

from __future__ import annotations

from tables import load, source, table


def times() -> str:
    """From process start to frames."""
    result = load("wan")
    rows = []
    for name, case in result["cases"].items():
        ours, theirs = (case["times"][who]["median_ms"] / 1e3 for who in ("fastvid", "diffusers"))
        rows.append((name, f"{ours:.2f}", f"{theirs:.2f}", f"{theirs / ours:.1f}x", case["psnr"]))
    header = ["", "fastvid s", "diffusers s", "faster", "frames against diffusers, dB"]
    return (
        "A tiny Wan with random weights from process start to frames: imports, loading, prompt, "
        f"steps with guidance, decoding; {result['threads']} threads, the same folder and noise. "
        "Nearly all of it is start and loading.\n\n" + table(header, rows) + "\n" + source(result)
    )
