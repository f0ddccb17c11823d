"""Models whose parts are not in memory together: each is loaded when it is first used.

A run goes through its parts one after another: prompts, pictures, steps, frames. Loading one lets
go of the others, so that the largest part and not the sum of them has to fit. Parts come and go as
often as runs do; their files are verified the first time, and after that only recognised.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

from fastvid._specs import GraphSpec
from fastvid.backends import GraphReport
from fastvid.backends._checks import InputCheck
from fastvid.backends._described import Described
from fastvid.bundle import Bundle
from fastvid.errors import DeviceError

STAGED_BYTES = 1 << 30
"""Bytes of all files from which on parts are loaded one after another."""

_PAIRED = ("_first", "_next")
_CHAIN = "decoder_"


class _Loaded(Protocol):
    def run(self, inputs: Mapping[str, Any], *, keep: Collection[str] = ()) -> dict[str, Any]: ...

    def cancel(self) -> None: ...

    def close(self) -> None: ...

    def report(self) -> GraphReport: ...


def is_staged(bundle: Bundle) -> bool:
    """Whether a bundle is so large that its parts are loaded one after another."""
    return len(parts(bundle)) > 1 and sum(f.size for f in bundle.files.values()) >= STAGED_BYTES


def part_of(graph: str) -> str:
    """The part that a graph belongs to: `decoder` for both of its pair and for all its stages."""
    if graph.startswith(_CHAIN):
        return _CHAIN[:-1]
    for end in _PAIRED:
        graph = graph.removesuffix(end)
    return graph


def parts(bundle: Bundle) -> dict[str, int]:
    """Bytes of the files of each part, in the order of the graphs; a file counts in each."""
    files: dict[str, set[str]] = {}
    for name, graph in bundle.graphs.items():
        files.setdefault(part_of(name), set()).update((graph.file, *graph.external_data))
    return {part: sum(bundle.files[f].size for f in names) for part, names in files.items()}


class Stages:
    """Knows which part of a model is loaded."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._sessions: list[StagedSession] = []

    def add(self, session: StagedSession) -> None:
        """Takes a session in."""
        self._sessions.append(session)

    def enter(self, part: str) -> None:
        """Lets go of what belongs to other parts."""
        for session in self._sessions:
            if session.part != part:
                session.release()


class StagedSession(Described):
    """A graph that is loaded when it is first run; see `fastvid.backends.Session`.

    Args:
        graph: The graph's description.
        stages: Shared by the sessions of a model.
        load: Loads the graph.
        check: Checks inputs, before the graph is loaded for them.
        report: What will run the graph.
    """

    def __init__(
        self,
        graph: GraphSpec,
        stages: Stages,
        load: Callable[[], _Loaded],
        check: InputCheck,
        report: GraphReport,
    ) -> None:
        self._graph = graph
        self.part = part_of(graph.name)
        self._stages, self._load, self._check, self._report = stages, load, check, report
        self._loaded: _Loaded | None = None
        self._closed = False
        stages.add(self)

    @property
    def stream(self) -> int | None:
        """None: it runs on the CPU."""
        return None

    def run(self, inputs: Mapping[str, Any], *, keep: Collection[str] = ()) -> dict[str, Any]:
        """Runs the graph once; see `Session.run`."""
        self._check(inputs, keep)
        return self._session().run(inputs, keep=keep)

    def _session(self) -> _Loaded:
        with self._stages.lock:
            if self._closed:
                raise DeviceError(f"{self._graph.name}: session is closed")
            if self._loaded is None:
                self._stages.enter(self.part)
                self._loaded = self._load()
                self._report = self._loaded.report()
            return self._loaded

    def release(self) -> None:
        """Frees the memory of the graph; a run that is under way ends first."""
        with self._stages.lock:
            if self._loaded is not None:
                self._loaded.close()
                self._loaded = None

    def cancel(self) -> None:
        """Stops the runs that are under way; see `Session.cancel`."""
        loaded = self._loaded
        if loaded is not None:
            loaded.cancel()

    def close(self) -> None:
        """Frees the session's memory; it cannot run again."""
        self._closed = True
        self.release()

    def report(self) -> GraphReport:
        """What runs the graph, or will."""
        return self._report
