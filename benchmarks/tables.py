"""What pages of results are made of: tables, times and where a result comes from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import timing


def exists(name: str) -> bool:
    return (timing.RESULTS / f"{name}.json").is_file()


def load(name: str) -> Any:
    return json.loads((timing.RESULTS / f"{name}.json").read_text())


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def ms(entry: dict[str, float]) -> str:
    return f"{entry['median_ms']:.2f}"


def times(entries: dict[str, dict[str, float]], base: str) -> str:
    own = entries[base]["median_ms"]
    rows = [
        (name, ms(e), f"{e['min_ms']:.2f}", f"{e['p90_ms']:.2f}", f"{e['median_ms'] / own:.2f}x")
        for name, e in entries.items()
    ]
    return table(["", "median ms", "min ms", "p90 ms", f"of {base}"], rows)


def source(result: dict[str, Any]) -> str:
    e = result["environment"]
    versions = ", ".join(f"{k} {v}" for k, v in e["versions"].items())
    priority = ", real-time priority" if e.get("real_time_priority") else ""
    return (
        f"`{e['command']}` on {e['cpu']}, {e['cores']} cores, {e['instruction_set']}{priority}, "
        f"load before {e['load_before']}; {versions}.\n"
    )
