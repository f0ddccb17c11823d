"""Results for people: the same tables in Markdown and on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from fastvid.bench._assertions import ENOUGH
from fastvid.bench._metrics import METRICS
from fastvid.bench.results import Results, Row

Table = list[list[str]]

_KEYS = ("model", "format", "precision", "size")
_SPEED = ("cold", "warm", "p50", "p90", "p99", "n", "fps", "filefps", "psnr")
_STAGES = ("load", "decode", "pre", "infer", "post", "encode", "ssim")
_COST = ("rss", "vram", "size", "build", "joules")
_GENERATION: tuple[str, ...] = (
    "cold",
    "warm",
    "text",
    "denoise",
    "step",
    "decode",
    "encode",
    "first",
    "total",
)
_GENERATION += ("n", "psnr")
_RIGHT = 4
"""Columns from here on are figures."""


def markdown(results: Results) -> str:
    """The results as Markdown."""
    parts = [f"`{results.command}`, {results.created}" if results.command else results.created]
    parts += [f"**{title}**\n\n{_pipes(table)}" for title, table in _tables(results)]
    notes = list(_notes(results))
    if notes:
        parts.append("\n".join(f"- {note}" for note in notes))
    parts.append(" ".join([*_environment(results), *_method(results)]))
    return "\n\n".join(parts) + "\n"


def text(results: Results) -> str:
    """The results for a terminal."""
    parts = [f"{title}\n{_columns(table)}" for title, table in _tables(results)]
    parts += ["\n".join(f"! {note}" for note in _notes(results))]
    parts.append("\n".join([*_environment(results), *_method(results)]))
    return "\n\n".join(part for part in parts if part)


def _tables(results: Results) -> Iterator[tuple[str, Table]]:
    frames = [row for row in results.rows if row.task != "generator" and _shown(row)]
    clips = [row for row in results.rows if row.task == "generator" and _shown(row)]
    if frames:
        yield "milliseconds per frame, frames in to frames out", _table(frames, _SPEED)
        yield "load, and where the time of a frame goes, ms", _table(frames, _STAGES)
    if clips:
        yield "generation, milliseconds per clip", _table(clips, _GENERATION)
    if frames or clips:
        yield "memory and files, MB", _table([*frames, *clips], _COST)


def _shown(row: Row) -> bool:
    """Rows without figures are listed below the tables, except those that failed."""
    return row.measured or row.status == "failed"


def _table(rows: Sequence[Row], names: Sequence[str]) -> Table:
    header = [*_KEYS, *(_title(name) for name in names)]
    body = [[*_key(row), *(_cell(row, name) for name in names)] for row in rows]
    # A column that no row has a figure for says nothing.
    keep = [
        i
        for i in range(len(header))
        if i < len(_KEYS) or any(line[i] not in ("", "-") for line in body)
    ]
    return [[line[i] for i in keep] for line in [header, *body]]


def _title(name: str) -> str:
    special = {"filefps": "file fps", "n": "samples", "step": "per step", "joules": "J/frame"}
    special |= {"psnr": "PSNR dB", "rss": "RSS", "vram": "VRAM", "ssim": "SSIM"}
    special |= {"size": "files", "build": "build s", "cold": "cold 1st", "warm": "warm 1st"}
    special |= {"first": "1st frame"}
    return special.get(name, name)


def _key(row: Row) -> list[str]:
    status = "" if row.status == "ok" else f" ({row.status})"
    size = f"{row.size[0]}x{row.size[1]}"
    return [row.model + status, row.format, row.precision or "-", size]


def _cell(row: Row, name: str) -> str:
    if name == "n":
        return str(row.frame.get("samples", "-"))
    if name == "step":
        value = row.generation.get("step_ms")
        return "-" if value is None else figure(value)
    if name in ("psnr", "ssim") and _is_reference(row):
        return "reference"
    if name == "psnr" and row.quality.get("identical"):
        return "identical"
    value = METRICS[name].of(row)
    if value is None:
        return "-"
    if name == "ssim":
        return f"{value:.4f}"
    few = row.frame.get("samples", 0) < ENOUGH.get(name, 0)
    return ("~" if few else "") + figure(value)


def _is_reference(row: Row) -> bool:
    own = f"{row.model} {row.format} {row.precision}"
    return bool(row.quality) and row.quality["reference"] == own


def figure(value: float) -> str:
    """A figure with about three digits."""
    size = abs(value)
    if size >= 100:
        return f"{value:.0f}"
    digits = 1 if size >= 10 else 2 if size >= 0.1 or size == 0 else 4
    return f"{value:.{digits}f}"


def _pipes(table: Table) -> str:
    marks = ["---"] * _RIGHT + ["---:"] * (len(table[0]) - _RIGHT)
    lines = [table[0], marks, *table[1:]]
    return "\n".join(f"| {' | '.join(cell.replace('|', ' ') for cell in c)} |" for c in lines)


def _columns(table: Table) -> str:
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]

    def align(i: int) -> Callable[[str, int], str]:
        return str.ljust if i < _RIGHT else str.rjust

    return "\n".join(
        "  ".join(align(i)(cell, widths[i]) for i, cell in enumerate(line)).rstrip()
        for line in table
    )


def _notes(results: Results) -> Iterator[str]:
    if results.interrupted:
        yield "stopped before the end: rows that are missing or marked were not finished"
    yield from results.warnings
    reasons: dict[tuple[str, str], list[Row]] = {}
    for row in results.rows:
        if row.status != "ok":
            reasons.setdefault((row.status, row.reason), []).append(row)
    for (status, reason), rows in reasons.items():
        names = list(dict.fromkeys(row.format for row in rows))
        where = rows[0].label if len(rows) == 1 else f"{', '.join(names)} ({len(rows)} rows)"
        yield f"{where}: {status}" + (f": {reason}" if reason else "")
    for row in results.rows:
        yield from (f"{row.label}: {note}" for note in row.notes)
    if any(0 < row.frame.get("samples", 0) < ENOUGH["p99"] for row in results.rows):
        yield (
            "~ marks percentiles of too few samples, which are little else than the slowest call: "
            "--seconds and --min-samples take more"
        )
    references = {
        row.quality["reference"] for row in results.rows if row.quality and not _is_reference(row)
    }
    if references:
        yield f"PSNR and SSIM are of the worst frame against {', '.join(sorted(references))}"


def _environment(results: Results) -> Iterator[str]:
    facts = results.environment
    if not facts:
        return
    known = facts.get
    parts = [str(known("cpu"))]
    if known("cores") is not None:
        parts.append(f"{known('cores')} of {known('cores_of_machine')} cores")
    frequency = known("cpu_frequency")
    if isinstance(frequency, dict) and frequency.get("governor"):
        parts.append(f"governor {frequency['governor']}")
    named = (
        ("limited to {} CPUs", "cpu_quota"),
        ("{}", "instruction_set"),
        ("power mode {}", "power_mode"),
        ("driver for CUDA {}", "driver"),
        ("load before {}", "load_before"),
    )
    parts += [form.format(facts[key]) for form, key in named if known(key) is not None]
    parts += [str(gpu.get("name")) for gpu in known("gpus", ())] or ["no CUDA device"]
    if known("real_time_priority"):
        parts.append("real-time priority")
    packages = [f"{name} {version}" for name, version in known("versions", {}).items()]
    yield (
        "; ".join(filter(None, [", ".join(parts), str(known("system") or ""), ", ".join(packages)]))
        + "."
    )


def _method(results: Results) -> Iterator[str]:
    known = results.method.get
    if not results.method:
        return
    turns = "rows of one size in turns" if known("interleaved") else "one row after the other"
    threads = f", {known('threads')} threads" if known("threads") else ""
    yield (
        f"On {known('input')}, {turns}, at least {known('seconds')} s and "
        f"{known('min_samples')} calls or {known('max_seconds')} s each, in "
        f"{known('processes')} processes{threads}; timing adds {known('timer_overhead_us')} us "
        f"to a call, the split of stages {known('hook_overhead_us')} us to a run."
    )
