"""Bounds that rows must keep, such as `p99<33 psnr>40`, and which rows do not."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fastvid.bench._metrics import METRICS
from fastvid.bench._plan import FORMATS
from fastvid.bench.results import Results, Row
from fastvid.errors import InputError, InputTypeError

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_ONE = re.compile(r"(?:([a-z-]+(?::\d+)?)[:/])?([a-z0-9]+)(<=|>=|<|>)([0-9.eE+-]+)")
ENOUGH = {"p90": 10, "p99": 100}
"""Samples that a percentile needs to be one."""


@dataclass(frozen=True)
class Assertion:
    """One bound."""

    metric: str
    sign: str
    bound: float
    format: str = ""
    """The format whose rows are meant; empty for all."""

    def __str__(self) -> str:
        where = f"{self.format}/" if self.format else ""
        return f"{where}{self.metric}{self.sign}{self.bound:g}"


@dataclass(frozen=True)
class Failure:
    """A bound that a row, or the whole run, does not keep."""

    assertion: Assertion
    row: str
    """Label of the row; empty where no row has the figure."""
    problem: str
    """What was found, with its unit, or why there is nothing."""

    def __str__(self) -> str:
        return f"{self.assertion}: {self.row or 'no row'}: {self.problem}"


def parse(text: str) -> tuple[Assertion, ...]:
    """The bounds of a text, separated by blanks or commas.

    Args:
        text: `METRIC SIGN NUMBER`, with `FORMAT/` in front for the rows of one format only.

    Raises:
        InputError: It is none; the message names the metrics.
    """
    if not isinstance(text, str):
        raise InputTypeError(f"assert: argument must be text, got {type(text).__name__}")
    parts = re.sub(r"\s*(<=|>=|<|>)\s*", r"\1", text.strip()).replace(",", " ").split()
    if not parts:
        raise InputError("assert: argument must hold at least one bound", hint=_hint())
    return tuple(map(_parse_one, parts))


def _parse_one(part: str) -> Assertion:
    match = _ONE.fullmatch(part)
    if match is None:
        raise InputError(f"assert: must be METRIC<NUMBER, got {part!r:.60}", hint=_hint())
    form, metric, sign, number = match.groups()
    if metric not in METRICS:
        raise InputError(
            f"assert: metric must be one of {', '.join(METRICS)}, got {metric!r:.60}", hint=_hint()
        )
    if form is not None and form.partition(":")[0] not in FORMATS:
        raise InputError(f"assert: format must be one of {', '.join(FORMATS)}, got {form!r:.60}")
    try:
        bound = float(number)
    except ValueError:
        bound = math.nan
    if not math.isfinite(bound):
        raise InputError(f"assert: bound of {metric!r} must be a number, got {number!r:.60}")
    return Assertion(metric, sign, bound, form or "")


def _hint() -> str:
    units = ", ".join(f"{m.name} ({m.unit})" if m.unit else m.name for m in METRICS.values())
    return f"for example 'p99<33 psnr>40'; metrics: {units}"


def check(
    results: Results, assertions: Sequence[Assertion], *, skip_unavailable: bool = False
) -> list[Failure]:
    """What misses the bounds; empty if all is well.

    A row that failed keeps no bound, and so does one that cannot run here, unless
    `skip_unavailable`. A bound that no row has a figure for is missed by the run.

    Args:
        results: The rows.
        assertions: From `parse`.
        skip_unavailable: Whether rows that cannot run on this machine are left out.
    """
    failures = []
    for assertion in assertions:
        rows = [
            row
            for row in results.rows
            if (not assertion.format or row.format == assertion.format)
            and not (skip_unavailable and row.status == "unavailable")
        ]
        found = [_check_row(row, assertion) for row in rows]
        failures += [failure for _, failure in found if failure is not None]
        if not any(answered for answered, _ in found):
            failures.append(Failure(assertion, "", "has the figure, so nothing was checked"))
    return failures


def _check_row(row: Row, assertion: Assertion) -> tuple[bool, Failure | None]:
    """Whether the row answers the assertion, and its failure."""
    metric = METRICS[assertion.metric]
    if row.task not in metric.tasks:
        return False, None
    if row.status != "ok":
        reason = f"{row.status}: {row.reason}" if row.reason else row.status
        return True, Failure(assertion, row.label, reason)
    value = metric.of(row)
    if value is None:
        missing = Failure(assertion, row.label, "was not measured")
        return (True, missing) if metric.applies(row) else (False, None)
    if _COMPARE[assertion.sign](value, assertion.bound):
        return True, None
    shown = f"{value:.6g} {metric.unit}".strip()
    count = row.frame.get("samples", 0)
    if count < ENOUGH.get(metric.name, 0):
        shown += f", of {count} samples only"
    return True, Failure(assertion, row.label, shown)
