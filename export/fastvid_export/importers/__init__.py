"""Weights that others made, in the layout they are published in: one module per kind of source.

A module here has three names:

- `matches(path) -> bool`: whether a path looks like its kind. It reads names, a JSON file or a
  header, and never unpickles.
- `build(path, folder, options, say) -> Bundle`: writes a bundle to `folder`, which is not there
  yet; `folder.parent` is on the disk that the bundle will stay on, and is removed afterwards.
- `ARCHITECTURES: tuple[Architecture, ...]`: what it reads; the table in the docs is made from it.

One that takes `precision` and `loras` of its options says so with `LARGE = True`; others are never
given any.

Nothing that is slow to import is imported when such a module is.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from fastvid.bundle import Bundle
from fastvid_export.foreign_graphs import OnnxFlags

if TYPE_CHECKING:
    from fastvid_export.lora import Lora

Say = Callable[[str], None]


@dataclass(frozen=True)
class Architecture:
    """A network whose published weights can be exported."""

    name: str
    """As its authors call it."""
    task: str
    """`upscaler`, `interpolator` or `generator`."""
    source: str
    """The paper or the repository that it comes from."""
    reads: str
    """The files it is read from, for example `.safetensors` or `a diffusers folder`."""
    notes: str = ""
    """Sizes, limits and licence, where they matter."""
    runs: str = "any size"
    """Of an upscaler: `any size`, `fixed tile` (pieces of one size) or `refused: ` and why."""


@dataclass(frozen=True)
class ImportOptions:
    """What the caller says about the weights."""

    name: str
    """Of the bundle."""
    flags: OnnxFlags = field(default_factory=OnnxFlags)
    """What the file does not say itself; an importer refuses those that it has no use for."""
    precision: str = "float32"
    """What large networks compute their products in, see `large_graphs.PRECISIONS`."""
    loras: tuple[Lora, ...] = ()
    """Files to merge into the weights."""


class Importer(Protocol):
    """A module of this package."""

    ARCHITECTURES: tuple[Architecture, ...]

    def matches(self, path: Path) -> bool:
        """Whether `path` looks like this kind; cheap, and without unpickling."""

    def build(self, path: Path, folder: Path, options: ImportOptions, say: Say) -> Bundle:
        """Writes the bundle of `path` to `folder`.

        Raises:
            CheckpointError: A file is missing, damaged or of another model.
            InputError: An option of the model or of the caller is not supported.
            ExportError: A graph cannot be exported, or differs from the network.
            OutputError: The bundle cannot be written.
        """


# The last takes every file of weights that no other knows.
_MODULES = ("diffusers", "rife", "upscalers", "spandrel")


def find(path: Path) -> Importer | None:
    """The importer that knows what `path` is; None if none does."""
    return next((module for module in _importers() if module.matches(path)), None)


def architectures() -> tuple[Architecture, ...]:
    """Everything that can be imported, in the order of the modules."""
    return tuple(one for module in _importers() for one in module.ARCHITECTURES)


def _importers() -> list[Importer]:
    return [cast(Importer, importlib.import_module(f"{__name__}.{name}")) for name in _MODULES]
