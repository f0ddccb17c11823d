"""Where the weights of a bundle's graphs lie: in the checkpoint's own files, or in a new one.

A graph names each of its weights by file, offset and length. A bundle's files lie in its folder, so
the checkpoint's files are linked into it: the same bytes on the disk under a second name. Where the
disk allows no link the tensors that are needed are copied, one after another.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fastvid.bundle import Linked
from fastvid.errors import DiskFullError
from fastvid_export.weight_files import Weights, WeightSpec, pieces

ALIGNMENT = 64
"""Bytes that tensors in a new file start at a multiple of."""
_SPARE = 256 << 20
"""Bytes of disk that are left free beside what is written."""
_SAY_EVERY = 1 << 30

Say = Callable[[str], None]


@dataclass(frozen=True)
class Place:
    """Where a tensor lies, as a graph names it."""

    location: str
    offset: int
    length: int


class WeightStore:
    """The weight files of one bundle.

    Args:
        folder: Where new files are written; on the disk of the bundle, and free of others.
        say: Called with lines about the progress.
        link: Whether the checkpoint's files may be linked.
    """

    def __init__(self, folder: Path, say: Say, *, link: bool = True) -> None:
        self.folder = folder
        self._say, self._link = say, link
        self._linked: dict[Path, str] = {}
        self._moved: dict[tuple[Path, int], Place] = {}
        self._written = 0
        self.files: dict[str, Linked] = {}
        """Files of the bundle by their names in it."""

    def require_disk(self, nbytes: int, what: str) -> None:
        """Refuses to start what cannot be written to the end.

        Raises:
            DiskFullError: There is less free than that.
        """
        free = shutil.disk_usage(self.folder).free
        if nbytes + _SPARE > free:
            raise DiskFullError(
                f"export: {what} needs {(nbytes + _SPARE) / 1e9:.2f} GB of disk, "
                f"{free / 1e9:.2f} GB are free in {self.folder}",
                hint="--output on another disk, or --precision int8 or int4",
            )

    def can_link(self, file: Path) -> bool:
        """Whether a file can have a second name in the folder; gives it one."""
        source = file.resolve()
        if not self._link or source in self._linked:
            return source in self._linked
        name = self._name(f"{file.name.split('.')[0]}.data")
        try:
            os.link(source, self.folder / name)
        except OSError:
            # Another disk, or one without hard links: the same for every file.
            self._link = False
            return False
        self._linked[source] = name
        self.files[name] = Linked(self.folder / name)
        return True

    def place(self, graph: str, weights: Weights, name: str, *, link: bool = True) -> Place:
        """The place of a tensor as it is: in the linked file, or copied.

        Args:
            graph: Its copies go into the file of that name.
            weights: Holds the tensor.
            name: Of the tensor.
            link: Whether the file may be linked for it.
        """
        spec = weights.spec(name)
        if not weights.in_place(name):
            return self.write(graph, weights.read(name))
        if link and not self._copies(weights, spec):
            return Place(self._linked[spec.file.resolve()], spec.offset, spec.nbytes)
        key = (spec.file, spec.offset)
        if key not in self._moved:
            self._moved[key] = self.append(graph, pieces(spec), spec.nbytes)
        return self._moved[key]

    def cost(self, weights: Weights, name: str, *, link: bool = True) -> int:
        """Bytes that `place` would write for a tensor."""
        spec = weights.spec(name)
        return 0 if link and not self._copies(weights, spec) else spec.nbytes

    def _copies(self, weights: Weights, spec: WeightSpec) -> bool:
        if not weights.in_place(spec.name):
            return True
        return spec.offset % spec.dtype.itemsize != 0 or not self.can_link(spec.file)

    def write(self, graph: str, tensor: Tensor) -> Place:
        """The place of a new tensor, written as it is."""
        flat = tensor.contiguous().flatten().view(torch.uint8)
        return self.append(graph, [memoryview(flat.numpy())], flat.numel())

    def append(self, graph: str, data: Iterable[bytes | memoryview], nbytes: int) -> Place:
        """The place of a new tensor whose bytes come piece by piece."""
        name = f"{graph}.data"
        path = self.folder / name
        with path.open("ab") as file:
            file.write(b"\0" * (-file.tell() % ALIGNMENT))
            offset = file.tell()
            for piece in data:
                file.write(piece)
        self.files[name] = Linked(path)
        before, self._written = self._written, self._written + nbytes
        if before // _SAY_EVERY != self._written // _SAY_EVERY:
            self._say(f"{graph}: {self._written / 1e9:.1f} GB of weights written")
        return Place(name, offset, nbytes)

    def _name(self, wanted: str) -> str:
        """A free name that a bundle may have."""
        stem = "".join(c if c.isalnum() or c in "-_" else "-" for c in wanted.removesuffix(".data"))
        stem = f"weights-{stem}"[:100]
        name, number = f"{stem}.data", 1
        while name in self.files:
            number += 1
            name = f"{stem}-{number}.data"
        return name
