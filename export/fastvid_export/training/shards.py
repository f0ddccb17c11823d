"""Training material that is made once: arrays on disk in shards, each written in one move.

    recipe.json               what every shard is made of
    shard_00012.latents.npy   one part of one shard, mapped from disk when read

Making shards can be stopped, resumed, and asked for more.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvid_export.errors import TrainingDataError


def build(
    folder: Path,
    recipe: Any,
    parts: Sequence[str],
    count: int,
    make: Callable[[int], Sequence[NDArray[Any]]],
    *,
    what: str,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Makes sure that the folder holds at least `count` shards.

    Args:
        folder: Where they lie; it holds one recipe.
        recipe: A dataclass of plain values.
        parts: Names of a shard's arrays.
        count: How many shards.
        make: The arrays of a shard, by its number alone.
        what: Says in messages what is made.
        say: Called with lines about the progress.

    Raises:
        TrainingDataError: The folder holds shards of another recipe.
    """
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / "recipe.json"
    if index.exists() and json.loads(index.read_text()) != asdict(recipe):
        raise TrainingDataError(
            f"{what}: {folder} must be empty or of the same recipe, {asdict(recipe)}",
            hint="give another --cache",
        )
    index.write_text(json.dumps(asdict(recipe)))
    for number in range(count):
        paths = [_path(folder, number, part) for part in parts]
        if all(path.exists() for path in paths):
            continue
        for path, array in zip(paths, make(number), strict=True):
            _write(path, array)
        say(f"{what}: shard {number + 1} of {count}")


class Shards:
    """Opened shards, as if they were one array per part.

    Args:
        folder: Where they lie.
        parts: Names of the arrays.
        count: How many shards to open; all have the length of the first.
    """

    def __init__(self, folder: Path, parts: Sequence[str], count: int) -> None:
        self._parts = {
            part: [np.load(_path(folder, n, part), mmap_mode="r") for n in range(count)]
            for part in parts
        }
        first = next(iter(self._parts.values()))
        self._rows, self._count = len(first[0]), count

    def __len__(self) -> int:
        return self._rows * self._count

    def take(
        self, part: str, indices: NDArray[np.int64], inner: NDArray[np.int64] | None = None
    ) -> NDArray[Any]:
        """Rows of one part, or of each row the element at `inner`."""
        rows = [self._parts[part][i // self._rows][i % self._rows] for i in indices.tolist()]
        if inner is not None:
            rows = [row[k] for row, k in zip(rows, inner.tolist(), strict=True)]
        return np.stack(rows)


def _path(folder: Path, number: int, part: str) -> Path:
    return folder / f"shard_{number:05d}.{part}.npy"


def _write(path: Path, array: NDArray[Any]) -> None:
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.save(file, array)
    os.replace(partial, path)
