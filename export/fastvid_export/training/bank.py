"""Prepared training material on disk: many uint8 arrays in one memory-mapped file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class ArrayBank:
    """Read-only uint8 arrays by name, mapped from disk: opening costs nothing, pages load on use.

    Two files: `PATH.bin` holds the bytes, `PATH.json` the names, shapes, offsets and the recipe.
    """

    def __init__(self, path: Path) -> None:
        index = json.loads(path.with_suffix(".json").read_text())
        self.recipe: dict[str, object] = index["recipe"]
        """What the arrays were made from and how."""
        self._entries: dict[str, tuple[int, tuple[int, ...]]] = {
            name: (offset, tuple(shape)) for name, offset, shape in index["arrays"]
        }
        self._bytes = np.memmap(path.with_suffix(".bin"), dtype=np.uint8, mode="r")

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __getitem__(self, name: str) -> NDArray[np.uint8]:
        offset, shape = self._entries[name]
        size = int(np.prod(shape))
        return self._bytes[offset : offset + size].reshape(shape)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one array."""
        return self._entries[name][1]


def open_or_build(
    path: Path,
    recipe: dict[str, object],
    arrays: Iterable[tuple[str, NDArray[np.uint8]]],
) -> ArrayBank:
    """Opens the bank at `path`, building it first where it is missing or has another recipe.

    Args:
        path: File name without suffix.
        recipe: JSON values that say everything the arrays depend on.
        arrays: Names and arrays; iterated only when building.
    """
    index = path.with_suffix(".json")
    recipe = json.loads(json.dumps(recipe))
    if index.exists() and json.loads(index.read_text())["recipe"] == recipe:
        return ArrayBank(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    index.unlink(missing_ok=True)
    entries: list[tuple[str, int, tuple[int, ...]]] = []
    offset = 0
    with path.with_suffix(".bin").open("wb") as file:
        for name, array in arrays:
            file.write(np.ascontiguousarray(array, dtype=np.uint8).tobytes())
            entries.append((name, offset, array.shape))
            offset += array.size
    # The index comes last and in one move: a build that was cut off is built again.
    partial = index.with_suffix(".json.partial")
    partial.write_text(json.dumps({"recipe": recipe, "arrays": entries}))
    partial.replace(index)
    return ArrayBank(path)
