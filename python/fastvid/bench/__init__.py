"""Measures models on this machine: `fastvid bench`, and `fastvid.bench.run` for programs.

Every row is one model in one format at one size, measured in a process of its own. Names are
imported when they are first used: the processes that measure a cold start import this package too.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastvid.bench._environment import environment

__all__ = ["environment"]

_HOMES = {"environment": "_environment"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fastvid.bench' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"fastvid.bench.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
