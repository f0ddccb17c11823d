"""Rows of a ranking on disk: each is kept until what it measured changes."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
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
        measured = _now()
        with self._alone():
            self._rows.setdefault(name, {})[part] = {"mark": mark, **found, "measured": measured}

    def keep(self, names: Collection[str]) -> None:
        """Drops the rows of models that do not ship any more."""
        if set(self._rows) - set(names):
            with self._alone():
                self._rows = {k: v for k, v in self._rows.items() if k in names}

    def _read(self) -> dict[str, Any]:
        if not self._path.is_file():
            return {}
        rows: dict[str, Any] = json.loads(self._path.read_text())["rows"]
        return rows

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """The rows as they are on disk, written when the block ends; others wait."""
        lock = Path(tempfile.gettempdir()) / f"fastvid-{self._path.stem}.lock"
        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._rows = self._read()
            yield
            timing.write_results(self._path, {"rows": self._rows})


def _now() -> dict[str, Any]:
    facts = bench.environment()
    return {
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        "commit": facts["commit"],
        "load": round(os.getloadavg()[0], 1),
        "real_time_priority": facts["real_time_priority"],
    }
