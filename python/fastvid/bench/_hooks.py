"""Sessions that note when they run, for the split of a call into its stages.

A model whose sessions are watched is opened inside `watched`; all others have none of this in
their way.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from fastvid import _model
from fastvid.backends import _cuda_runtime
from fastvid.bench._sampling import burst

if TYPE_CHECKING:
    from fastvid.backends import LoadedModel, Session

Run = tuple[str, float, float]
"""Graph, start and end of a run in seconds of `perf_counter`."""


class Watch:
    """The runs of all graphs of a model, in order."""

    def __init__(self) -> None:
        self.runs: list[Run] = []

    def take(self) -> list[Run]:
        """The runs since the last time."""
        runs, self.runs = self.runs, []
        return runs

    def model(self, loaded: LoadedModel) -> LoadedModel:
        """The model with sessions that are watched."""
        watched: Any = _WatchedModel(loaded, self)
        model: LoadedModel = watched
        return model


class _WatchedModel:
    def __init__(self, loaded: LoadedModel, watch: Watch) -> None:
        self._loaded, self._watch = loaded, watch

    def graph(self, name: str) -> Session:
        watched: Any = WatchedSession(name, self._loaded.graph(name), self._watch)
        session: Session = watched
        return session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loaded, name)

    def __enter__(self) -> Any:
        self._loaded.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._loaded.__exit__(*exception)


class WatchedSession:
    """A session that notes when `run` began and when its results were there."""

    def __init__(self, name: str, session: Any, watch: Watch) -> None:
        self._name, self._session, self._watch = name, session, watch
        self._run = session.run
        # Outputs that stay on a device are there before the work that makes them is done.
        self._is_queued = getattr(session, "stream", None) is not None

    def run(self, *arguments: Any, **options: Any) -> Any:
        """As the session's own, but for waiting until a device has done it."""
        start = time.perf_counter()
        outputs = self._run(*arguments, **options)
        if self._is_queued:
            _cuda_runtime.call("cudaStreamSynchronize", self._session.stream)
        self._watch.runs.append((self._name, start, time.perf_counter()))
        return outputs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


@contextlib.contextmanager
def watched() -> Iterator[Watch]:
    """Models that are constructed inside have sessions that report to the watch."""
    watch = Watch()
    _model.wrap_loaded = watch.model
    try:
        yield watch
    finally:
        _model.wrap_loaded = None


class _Nothing:
    def run(self, inputs: object) -> None:
        return None


def hook_overhead() -> float:
    """Microseconds that a watched run takes longer than one that is not."""
    watch = Watch()
    sessions: list[Any] = [_Nothing(), WatchedSession("none", _Nothing(), watch)]
    medians = []
    for session in sessions:
        samples, _ = burst(session.run, seconds=0.05, most=5000, first=0)
        medians.append(float(np.median(samples)))
    return round(1e6 * max(0.0, medians[1] - medians[0]), 3)
