"""The section of docs/benchmarks.md on GPUs: what was measured on each, and what on none."""

from __future__ import annotations

import json
from typing import Any

import gpu_rows
import timing
from tables import ms, source, table


def gpu() -> str:
    """Every measured device, and what is not measured on any."""
    found = [json.loads(path.read_text()) for path in sorted(timing.RESULTS.glob("gpu_*.json"))]
    measured = {key for result in found for key in result["rows"]}
    parts = [_device(result) for result in found]
    missing = [row for row in gpu_rows.ROWS if row.key not in measured]
    if missing:
        parts.append(_unmeasured(missing, nothing=not found))
    return "\n".join(parts)


def _device(result: dict[str, Any]) -> str:
    device, rows = result["gpu"], result["rows"]
    ops = {k: r for k, r in rows.items() if k.startswith("ops: ")}
    tasks = {k: r for k, r in rows.items() if k not in ops}
    text = [
        f"### {device['name']}\n",
        f"Driver, clock, power limit: {device['driver_clock_power']}.\n",
    ]
    if tasks:
        header = ["median ms", *gpu_rows.RUNNERS, "fastvid's best over torch.compile"]
        text.append(table(header, [_task(key, row) for key, row in tasks.items()]))
        reasons = {f"{n}: {why}" for row in tasks.values() for n, why in row["absent"].items()}
        text += [f"- Not run, {reason}\n" for reason in sorted(reasons)]
    if ops:
        header = ["op, cold cache", "ms", "torch", "torch.compile", "of copy", "right"]
        text.append(table(header, [_op(key, row) for key, row in ops.items()]))
    return "\n".join([*text, source(result)])


def _task(key: str, row: dict[str, Any]) -> list[str]:
    cells = [ms(row["time"][name]) if name in row["time"] else "-" for name in gpu_rows.RUNNERS]
    own = [n for n in gpu_rows.RUNNERS if n not in gpu_rows.PEERS and n in row["time"]]
    peers = [n for n in gpu_rows.PEERS if "compile" in n and n in row["time"]]
    best = "-"
    if own and peers:
        name = min(own, key=lambda n: row["time"][n]["median_ms"])
        ratio = min(row["time"][n]["median_ms"] for n in peers) / row["time"][name]["median_ms"]
        best = f"{ratio:.2f}x, {name}"
    return [key, *cells, best if row["right"] else "WRONG ANSWER"]


def _op(key: str, row: dict[str, Any]) -> list[str]:
    times, ratio = row["cold"]["time"], row["cold"]["ratio"]
    peers = [f"{ratio[n]:.2f}x" if n in ratio else "-" for n in ("torch", "torch_compile")]
    copy = f"{row['cold']['percent_of_copy']:.0f} %"
    return [key.removeprefix("ops: "), ms(times["fastvid"]), *peers, copy, str(row["right"])]


def _unmeasured(rows: list[gpu_rows.Row], *, nothing: bool) -> str:
    none = (
        "**No GPU has been measured.** Kernels, sessions and engines are compiled and checked "
        "without one; no figure anywhere in this project is of a GPU.\n"
    )
    how = (
        "`.ci/gpu` on a machine with a GPU fills these rows, each beside torch eager and "
        "torch.compile in float16 and channels last with the same weights:\n"
    )
    text = [none if nothing else "**Not measured on any GPU.**\n", how]
    for part in gpu_rows.PARTS:
        names = [row.name for row in rows if row.part == part]
        if names:
            text.append(f"- {part}: {'; '.join(names)}")
    return "\n".join(text) + "\n"
