"""Rows of a ranking on disk: each is kept until what it measured changes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import timing

from fastvid import bench


class Rows:
    """The rows of one results file; every change is written at once.

    Args:
        name: Of the file, without suffix.
    """

    def __init__(self, name: str) -> None:
        self._path: Path = timing.RESULTS / f"{name}.json"
        self._rows: dict[str, Any] = self._read()

    def has(self, name: str, part: str, mark: str) -> bool:
        """Whether a part of a row is there, of the thing that the mark names."""
        row = self._rows.get(name, {})
        return part in row and row[part]["mark"] == mark

    def part(self, name: str, part: str) -> dict[str, Any]:
        """A part of a row; empty where it is missing."""
        found: dict[str, Any] = self._rows.get(name, {}).get(part, {})
        return found

    def put(self, name: str, part: str, mark: str, found: dict[str, Any]) -> None:
        """Keeps a part of a row."""
        # Quality and times may be measured at once.
        self._rows = self._read()
        self._rows.setdefault(name, {})[part] = {"mark": mark, **found, "measured": _now()}
        self._write()

    def keep(self, names: Collection[str]) -> None:
        """Drops the rows of models that do not ship any more."""
        if gone := set(self._rows) - set(names):
            self._rows = {k: v for k, v in self._rows.items() if k not in gone}
            self._write()

    def _read(self) -> dict[str, Any]:
        if not self._path.is_file():
            return {}
        rows: dict[str, Any] = json.loads(self._path.read_text())["rows"]
        return rows

    def _write(self) -> None:
        timing.write_results(self._path, {"rows": self._rows})


def _now() -> dict[str, Any]:
    facts = bench.environment()
    return {
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        "commit": facts["commit"],
        "load": round(os.getloadavg()[0], 1),
        "real_time_priority": facts["real_time_priority"],
    }
