"""What every loaded model does with its sessions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

from fastvid.backends._worker import Worker
from fastvid.bundle import Bundle

if TYPE_CHECKING:
    from fastvid.backends import Report, Session


class Loaded:
    """The sessions of a bundle's graphs; see `fastvid.backends.LoadedModel`.

    Args:
        bundle: The bundle.
        sessions: By the name of their graph.
        worker: The thread that their runs are handed to.
        report: What runs the graphs.
    """

    def __init__(
        self, bundle: Bundle, sessions: Mapping[str, Session], worker: Worker, report: Report
    ) -> None:
        self._bundle = bundle
        self._sessions = sessions
        self._worker = worker
        self._report = report

    @property
    def bundle(self) -> Bundle:
        """The bundle that was opened."""
        return self._bundle

    def graph(self, name: str) -> Session:
        """The session of one graph."""
        self._bundle.graph(name)
        return self._sessions[name]

    def report(self) -> Report:
        """What runs each graph, and why there."""
        return self._report

    def cancel(self) -> None:
        """Stops the runs that are under way in any graph."""
        for session in self._sessions.values():
            session.cancel()

    def close(self) -> None:
        """Closes all sessions."""
        for session in self._sessions.values():
            session.close()
        self._worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
