"""A graph in an onnxruntime session: on the CPU, and what it shares with CUDA."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any, NoReturn

from fastvid._specs import GraphSpec
from fastvid.backends import GraphReport, _onnxruntime_setup
from fastvid.backends._checks import InputCheck, check_finite
from fastvid.backends._described import Described
from fastvid.backends._onnxruntime_setup import first_line
from fastvid.backends._worker import Call, Worker
from fastvid.errors import CancelledError, DeviceError, FastvidError, OutOfMemoryError

FATAL = 4
"""The severity from which onnxruntime may write to standard error."""

# A run that took less, at the size that comes again, stays in the main thread: the hand-over to the
# worker takes 0.03 ms, and signals may wait for this long.
_SHORT_SECONDS = 0.001

_SHRINK = "memory.enable_memory_arena_shrinkage"
_OUT_OF_MEMORY = (
    "bad_alloc",
    "out of memory",
    "failed to allocate memory",
    "bad allocation",
    "alloc_failed",
)


class OnnxSession(Described):
    """One graph in an onnxruntime session; see `fastvid.backends.Session`.

    Args:
        graph: The graph's description.
        session: onnxruntime's.
        keep: Weights that onnxruntime reads where they lie, as long as the session lives.
        worker: The thread that runs are handed to.
        check: Checks the inputs.
        report: What runs the graph.
        finite: Whether outputs must be finite.
        loops: Whether runs of one size may take different times.
        shrink: Arenas that give their memory back after each run, as onnxruntime names them.
    """

    def __init__(
        self,
        graph: GraphSpec,
        session: Any,
        keep: list[bytes],
        worker: Worker,
        check: InputCheck,
        report: GraphReport,
        *,
        finite: bool,
        loops: bool = True,
        shrink: str = "",
    ) -> None:
        self._graph = graph
        self._session: Any = session
        self._keep = keep
        self._worker = worker
        self._check = check
        self._report = report
        self._finite = finite
        self._loops = loops
        self._shrink = shrink
        self._run_options = _onnxruntime_setup.runtime().RunOptions
        self._names = [spec.name for spec in graph.outputs]
        self._calls: set[Call[Any]] = set()
        self._last = (0, _SHORT_SECONDS)

    @property
    def stream(self) -> int | None:
        """The CUDA stream of the runs; None on the CPU."""
        return None

    def run(self, inputs: Mapping[str, Any], *, keep: Collection[str] = ()) -> dict[str, Any]:
        """Runs the graph once; see `Session.run`."""
        self._check(inputs, keep)
        session, options = self._ready()
        size = sum(array.nbytes for array in inputs.values())

        def run(call: Call[list[Any]]) -> list[Any]:
            start = time.perf_counter()
            result = self._guarded(call, options, lambda: session.run(self._names, inputs, options))
            self._last = size, time.perf_counter() - start
            return result  # type: ignore[no-any-return]

        last_size, seconds = self._last
        short = size == last_size and seconds < _SHORT_SECONDS and not self._loops
        arrays = self._worker.run(run, direct=short)
        outputs = dict(zip(self._names, arrays, strict=True))
        if self._finite:
            check_finite(self._graph.name, outputs)
        return outputs

    def _ready(self) -> tuple[Any, Any]:
        """The session, which cannot be closed from here on, and options for a run."""
        session = self._session
        if session is None:
            raise DeviceError(f"{self._graph.name}: session is closed")
        options = self._run_options()
        options.log_severity_level = FATAL
        if self._shrink:
            options.add_run_config_entry(_SHRINK, self._shrink)
        return session, options

    def _guarded(self, call: Call[Any], options: Any, work: Any) -> Any:
        """What `work` returns, which `cancel` can end; its errors are of fastvid's types."""
        call.on_cancel = lambda: setattr(options, "terminate", True)
        self._calls.add(call)
        try:
            return work()
        except Exception as error:
            if call.cancelled:
                raise CancelledError(f"{self._graph.name}: was cancelled") from None
            raise_run_error(self._graph.name, self._report.device, error)
        finally:
            self._calls.discard(call)

    def cancel(self) -> None:
        """Stops the runs that are under way; see `Session.cancel`."""
        for call in tuple(self._calls):
            call.cancel()

    def close(self) -> None:
        """Frees the session's memory once its runs have ended."""
        self._session = None
        self._keep = []

    def report(self) -> GraphReport:
        """What runs the graph."""
        return self._report


def raise_if_out_of_memory(what: str, error: Exception) -> None:
    """Raises `OutOfMemoryError` if that is what onnxruntime means."""
    text = str(error).lower()
    if isinstance(error, MemoryError) or any(mark in text for mark in _OUT_OF_MEMORY):
        raise OutOfMemoryError(
            f"{what}: not enough memory: {first_line(error)}", hint="use smaller frames or tiles"
        ) from None


def raise_run_error(graph: str, device: str, error: Exception) -> NoReturn:
    """Raises the error of fastvid that says what onnxruntime said."""
    if isinstance(error, FastvidError):
        raise error
    raise_if_out_of_memory(f"{graph}: running on {device}", error)
    raise DeviceError(f"{graph}: failed on {device}: {first_line(error)}") from None
