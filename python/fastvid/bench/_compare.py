"""Two results side by side: ratios, where they lie, and what differs between the machines."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fastvid.bench import _sampling
from fastvid.bench._metrics import METRICS, Metric
from fastvid.bench._tables import figure
from fastvid.bench._work import QUIET
from fastvid.bench.results import Results, Row
from fastvid.errors import InputTypeError

_SHOWN: tuple[str, ...] = (
    "cold",
    "load",
    "warm",
    "p50",
    "p90",
    "fps",
    "filefps",
    "decode",
    "infer",
    "encode",
)
_SHOWN += ("text", "denoise", "first", "total", "rss", "vram", "size", "build", "psnr", "joules")
_PERCENTILES = {"p50": 50.0, "p90": 90.0}
_STARTS = {"cold": "cold_samples_ms", "load": "load_samples_ms"}
# What changes from run to run without making figures incomparable is told by the warnings.
_VARYING = ("load_before", "others_busy", "memory_available_bytes")
_METHOD = ("input", "threads", "interleaved", "seconds", "min_samples")


@dataclass(frozen=True)
class Change:
    """One figure of a row in both results."""

    row: str
    metric: str
    before: float
    after: float
    ratio: float
    """after / before."""
    low: float | None
    """Bounds of the ratio by the spread of the samples; None where there is one sample only."""
    high: float | None
    verdict: str
    """`better`, `worse`, `within noise`, or empty where the noise is not known. A `?` behind it:
    other programs or a drift disturbed one of the rows, which no band covers."""


@dataclass(frozen=True)
class Comparison:
    """All figures that both results have."""

    changes: tuple[Change, ...]
    differences: tuple[str, ...]
    """What differs between the environments and methods; empty if nothing does."""
    unmatched: tuple[str, ...]
    """Rows that only one of the results has, or that did not run in one."""

    def to_dict(self) -> dict[str, Any]:
        """The comparison as plain JSON values."""
        return {
            "changes": [dataclasses.asdict(change) for change in self.changes],
            "differences": list(self.differences),
            "unmatched": list(self.unmatched),
        }

    def to_json(self) -> str:
        """The comparison as JSON text."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)

    def to_markdown(self) -> str:
        """The comparison as Markdown."""
        lines = [
            "| row | metric | before | after | ratio | 95 % | |",
            "|---|---|--:|--:|--:|--:|---|",
        ]
        lines += [f"| {' | '.join(cells)} |" for cells in self._cells()]
        return "\n".join([*lines, "", *(f"- {line}" for line in self._lines())]) + "\n"

    def to_text(self) -> str:
        """The comparison for a terminal."""
        table = [["row", "metric", "before", "after", "ratio", "95 %", ""], *self._cells()]
        widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in table]
        return "\n".join([*(line.rstrip() for line in lines), "", *self._lines()])

    def __str__(self) -> str:
        return self.to_text()

    def _cells(self) -> Iterator[list[str]]:
        for change in self.changes:
            band = "" if change.low is None else f"{change.low:.3f} to {change.high:.3f}"
            unit = METRICS[change.metric].unit
            values = [f"{figure(v)} {unit}".strip() for v in (change.before, change.after)]
            yield [change.row, change.metric, *values, f"{change.ratio:.3f}", band, change.verdict]

    def _lines(self) -> Iterator[str]:
        if self.differences:
            yield "the runs differ, so ratios are not of the rows alone:"
            yield from self.differences
        yield from self.unmatched
        if any(change.verdict.endswith("?") for change in self.changes):
            yield (
                "? one of the rows was disturbed by other programs or drifted, so that the ratio "
                "may lie beyond its band: measure both again, in turns, on a quiet machine"
            )
        if any(change.low is None for change in self.changes):
            yield "ratios without a band are of single measurements"


def compare(before: Results, after: Results) -> Comparison:
    """Compares the rows of two results that have the same model, format and size.

    The band of percentiles and rates is a bootstrap over bursts, that of starts the spread of
    their samples. A change counts where its whole band lies on one side of 1.

    Args:
        before: One run.
        after: Another.

    Raises:
        InputTypeError: An argument is no `Results`.
    """
    for name, results in (("before", before), ("after", after)):
        if not isinstance(results, Results):
            raise InputTypeError(
                f"{name}: argument must be Results, got {type(results).__name__}",
                hint="Results.load(path) reads a file",
            )
    firsts = {row.key: row for row in before.rows}
    seconds = {row.key: row for row in after.rows}
    changes: list[Change] = []
    unmatched = []
    for key in dict.fromkeys([*firsts, *seconds]):
        first, second = firsts.get(key), seconds.get(key)
        if first is not None and second is not None and first.measured and second.measured:
            changes += _changes(first, second)
        elif first is None or second is None or first.measured or second.measured:
            known = first or second
            assert known is not None
            states = [row.status if row else "absent" for row in (first, second)]
            unmatched.append(f"{known.label}: {states[0]} before, {states[1]} after")
    return Comparison(tuple(changes), tuple(_differences(before, after)), tuple(unmatched))


def _changes(first: Row, second: Row) -> Iterator[Change]:
    disturbed = _is_disturbed(first) or _is_disturbed(second)
    for name in _SHOWN:
        metric = METRICS[name]
        before, after = metric.of(first), metric.of(second)
        if not before or after is None or not (math.isfinite(before) and math.isfinite(after)):
            continue
        band = _band(metric, first, second)
        low, high = band or (None, None)
        verdict = _verdict(metric, band, disturbed=disturbed)
        ratio = round(after / before, 4)
        yield Change(first.label, name, before, after, ratio, low, high, verdict)


def _band(metric: Metric, first: Row, second: Row) -> tuple[float, float] | None:
    sampled = bool(first.samples_ms and second.samples_ms)
    if sampled and metric.name in (*_PERCENTILES, "fps"):
        low, high = _sampling.ratio_band(
            first.samples_by_process, second.samples_by_process, _PERCENTILES.get(metric.name)
        )
        return (low, high) if metric.name != "fps" else (round(1 / high, 4), round(1 / low, 4))
    if metric.name in _STARTS:
        samples = [row.start.get(_STARTS[metric.name], ()) for row in (first, second)]
        if all(len(s) > 1 and min(s) > 0 for s in samples):
            before, after = samples
            return round(min(after) / max(before), 4), round(max(after) / min(before), 4)
    return None


def _verdict(metric: Metric, band: tuple[float, float] | None, *, disturbed: bool) -> str:
    if band is None:
        return ""
    low, high = band
    if low <= 1 <= high:
        return "within noise"
    word = "better" if (low > 1) == metric.higher_is_better else "worse"
    return f"{word}?" if disturbed else word


def _is_disturbed(row: Row) -> bool:
    """Whether other programs or a drift may have moved the figures of a row as a whole."""
    busy = row.frame.get("others_busy")
    return (busy is not None and busy > QUIET) or _sampling.drifts(row.frame.get("drift"))


def _differences(before: Results, after: Results) -> Iterator[str]:
    pairs = (
        (_flat(before.environment), _flat(after.environment)),
        (
            {f"method: {k}": before.method.get(k) for k in _METHOD},
            {f"method: {k}": after.method.get(k) for k in _METHOD},
        ),
    )
    for first, second in pairs:
        for name in dict.fromkeys([*first, *second]):
            values = [side.get(name) for side in (first, second)]
            if values[0] != values[1]:
                shown = ["none" if value is None else str(value) for value in values]
                yield f"{name}: {shown[0]} before, {shown[1]} after"


def _flat(environment: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in environment.items():
        if name == "versions":
            flat |= value
        elif name == "gpus":
            # Clocks of the moment differ from run to run.
            flat["gpus"] = [gpu.get("name") for gpu in value] or None
        elif name not in _VARYING:
            flat[name] = value
    return flat
