"""Measures models on this machine: `fastvid bench`, and `fastvid.bench.run` for programs.

Every row is one model in one format at one size, measured in a process of its own. Names are
imported when they are first used: the processes that measure a cold start import this package too.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastvid.bench._assertions import Assertion, Failure
    from fastvid.bench._compare import Comparison, compare
    from fastvid.bench._environment import environment
    from fastvid.bench._metrics import METRICS, Metric
    from fastvid.bench._plan import FORMATS
    from fastvid.bench._runner import run
    from fastvid.bench.results import SCHEMA, Results, Row

__all__ = [
    "FORMATS",
    "METRICS",
    "SCHEMA",
    "Assertion",
    "Comparison",
    "Failure",
    "Metric",
    "Results",
    "Row",
    "compare",
    "environment",
    "run",
]

_HOMES = {
    "FORMATS": "_plan",
    "METRICS": "_metrics",
    "SCHEMA": "results",
    "Assertion": "_assertions",
    "Comparison": "_compare",
    "Failure": "_assertions",
    "Metric": "_metrics",
    "Results": "results",
    "Row": "results",
    "compare": "_compare",
    "environment": "_environment",
    "run": "_runner",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fastvid.bench' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"fastvid.bench.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
