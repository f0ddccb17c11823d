"""Pages of mapped weights, given back while a graph runs.

A page that was read from a mapped file counts as the process's until the system wants it: a graph
that reads every weight once ends up as large as its weights, though nothing needs them together.
Here a thread looks at that number and lets go of the pages. They stay in the system's cache and are
mapped again when they are read, so that nothing else changes.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

MOST = 1 << 30
"""Bytes of mapped pages from which on they are given back."""
_SECONDS = 0.05
_PLACE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \S+ +(/.*)")
_DONT_NEED = getattr(mmap, "MADV_DONTNEED", None)


@contextlib.contextmanager
def bounded(folder: Path, most: int = MOST) -> Iterator[None]:
    """Keeps the mapped pages of the files of a folder below a number of bytes, or near it.

    Args:
        folder: Holds the files. Elsewhere than on Linux nothing happens.
        most: Bytes of all mapped pages of the process.
    """
    if _DONT_NEED is None or not Path("/proc/self/smaps").is_file():
        yield
        return
    done = threading.Event()
    thread = threading.Thread(target=_watch, args=(folder.resolve(), most, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        give_back(folder.resolve())


def _watch(folder: Path, most: int, done: threading.Event) -> None:
    while not done.wait(_SECONDS):
        if mapped() > most:
            give_back(folder)


def mapped() -> int:
    """Bytes of this process's memory that files back; Linux only."""
    return int(Path("/proc/self/statm").read_text().split()[2]) * mmap.PAGESIZE


def give_back(folder: Path) -> None:
    """Lets go of the pages of the files of a folder that nobody has written to; Linux only.

    Args:
        folder: An absolute path without links.
    """
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for begin, end in _clean(folder):
        advise(begin, end - begin, _DONT_NEED)


def _clean(folder: Path) -> list[tuple[int, int]]:
    """Where files of a folder are mapped and none of their pages is a copy of this process's."""
    inside = f"{folder}{os.sep}"
    found: list[tuple[int, int]] = []
    place: tuple[int, int] | None = None
    for line in Path("/proc/self/smaps").read_text(errors="replace").splitlines():
        if header := _PLACE.match(line):
            here = header[3].startswith(inside)
            place = (int(header[1], 16), int(header[2], 16)) if here else None
        elif place is not None and line.startswith("Anonymous:"):
            if line.split()[1] == "0":
                found.append(place)
            place = None
    return found
