"""The section on the formats of `fastvid export`, from results/export.json."""

from __future__ import annotations

from typing import Any

from tables import exists, load, source, table


def formats() -> str:
    """Size, fidelity and time of each model in each format; empty without results."""
    if not exists("export"):
        return ""
    result = load("export")
    width, height = result["size"]
    head = (
        f"`fastvid export` of the models that ship, {width}x{height}, frames in to frame out "
        f"through the SDK, {result['threads']} threads. Share is of the graphs with every weight "
        "in float32. PSNR is that of the finished pictures: against those of the float32 graphs, "
        "and against the truth of the drawn scene that is timed.\n"
    )
    parts = [head]
    for model, rows in result["models"].items():
        timed = "time" in next(iter(rows.values()))
        header = ["format", "MB", "share", "PSNR to float32, dB", "largest difference"]
        drawn = "truth_psnr" not in next(iter(rows.values()))
        header += [] if drawn else ["PSNR to truth, dB"]
        header += ["median ms", "times as fast"] if timed else []
        base = rows["onnx"].get("time", {}).get("median_ms")
        parts.append(f"**{model}**, checked on {next(iter(rows.values()))['data']}\n")
        parts.append(table(header, [_row(name, row, base) for name, row in rows.items()]))
    parts.append(
        "The generator is one of `python -m fastvid_export train` that does not ship; its "
        "time is that of a clip of 4 steps, decoded, and its weights lie on an 8-bit grid from the "
        "start, so that no format makes it much smaller. A CPU without float16 arithmetic widens "
        "float16 to compute with it. Portable graphs search for motion in hundreds of passes where "
        "fastvid's op takes one.\n"
    )
    return "\n".join([*parts, source(result)])


def _row(name: str, row: dict[str, Any], base: float | None) -> list[str]:
    psnr = "equal" if row["psnr"] is None else f"{row['psnr']:.1f}"
    cells = [name, f"{row['bytes'] / 1e6:.2f}", f"{row['share']:.2f}", psnr]
    cells.append(f"{row['largest']} levels")
    if base is not None:
        median = row["time"]["median_ms"]
        cells += [f"{row['truth_psnr']:.2f}"] if "truth_psnr" in row else []
        cells += [f"{median:.1f}", f"{base / median:.2f}x"]
    return cells
