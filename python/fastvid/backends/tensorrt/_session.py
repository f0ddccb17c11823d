"""One graph that TensorRT runs, behind the protocol of all backends."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from fastvid._specs import GraphSpec
from fastvid.backends import GraphReport, Session
from fastvid.backends._checks import InputCheck, check_finite
from fastvid.backends._cuda import DeviceArray
from fastvid.backends._described import Described
from fastvid.backends._worker import Call, Worker
from fastvid.backends.onnxruntime_cuda import Lane
from fastvid.backends.tensorrt._engine import Engine
from fastvid.backends.tensorrt._provide import ReadyEngine
from fastvid.errors import CancelledError, DeviceError, InputError


class TensorRTSession(Described):
    """One graph and its engines; see `fastvid.backends.Session`.

    Args:
        graph: The graph.
        engines: At least one, each for a range of shapes.
        lane: Stream and memory of the model.
        worker: Runs calls of the main thread.
        check: Holds inputs against the graph's description.
        report: What is said of the graph.
        finite: Whether outputs are looked at for NaN and infinity.
        other: Gives the session that runs shapes which no engine takes; None refuses them.
    """

    def __init__(
        self,
        graph: GraphSpec,
        engines: Sequence[ReadyEngine],
        lane: Lane,
        worker: Worker,
        check: InputCheck,
        report: GraphReport,
        *,
        finite: bool,
        other: Callable[[], Session] | None = None,
    ) -> None:
        self._graph = graph
        self._engines = sorted(engines, key=_largest)
        self._lane = lane
        self._worker = worker
        self._check = check
        self._report = report
        self._finite = finite
        self._other = other
        self._runs: set[_Run] = set()
        self._open = True

    @property
    def stream(self) -> int:
        """Address of the CUDA stream that runs are queued on."""
        return self._lane.stream.handle

    @property
    def engines(self) -> tuple[ReadyEngine, ...]:
        """The engines, the one for the smallest frames first."""
        return tuple(self._engines)

    def run(self, inputs: Mapping[str, Any], *, keep: Collection[str] = ()) -> dict[str, Any]:
        """Runs the graph once; see `Session.run`."""
        self._check(inputs, keep)
        if not self._open:
            raise DeviceError(f"{self._graph.name}: session is closed")
        shapes = {name: tuple(array.shape) for name, array in inputs.items()}
        ready = next((one for one in self._engines if one.takes(shapes)), None)
        if ready is None:
            return self._run_elsewhere(inputs, shapes, keep)
        under_way = _Run()
        self._runs.add(under_way)
        try:
            outputs = self._finished(ready.engine, inputs, keep)
        finally:
            self._runs.discard(under_way)
        if under_way.cancelled:
            raise CancelledError(f"{self._graph.name}: was cancelled")
        if self._finite:
            read = {n: a.numpy() if isinstance(a, DeviceArray) else a for n, a in outputs.items()}
            check_finite(self._graph.name, read)
        return outputs

    def _finished(
        self, engine: Engine, inputs: Mapping[str, Any], keep: Collection[str]
    ) -> dict[str, Any]:
        """One run, with what is not kept on the host."""

        def queue(call: Call[dict[str, Any]]) -> dict[str, Any]:
            with self._lane.lock:
                return self._queued(engine, inputs, keep)

        # Only queueing happens here, which is short.
        outputs = self._worker.run(queue, direct=True)
        host = {n: array for n, array in outputs.items() if isinstance(array, np.ndarray)}
        if host:
            self._lane.stream.mark().wait()
            # Page-locked memory is scarce, and a caller may keep its arrays.
            outputs |= {n: array.copy() for n, array in host.items()}
        return outputs

    def _queued(
        self, engine: Engine, inputs: Mapping[str, Any], keep: Collection[str]
    ) -> dict[str, Any]:
        """Queues a run and the copies of what is not kept."""
        lane = self._lane
        arrays: dict[str, DeviceArray] = {}
        for spec in self._graph.inputs:
            given = inputs[spec.name]
            if isinstance(given, DeviceArray):
                if given.stream != self.stream:
                    given.use_on(self.stream)
                arrays[spec.name] = given
            else:
                arrays[spec.name] = lane.memory.put(np.ascontiguousarray(given))
        outputs: dict[str, Any] = {}
        for name, array in engine.run(arrays).items():
            outputs[name] = array
            if name not in keep:
                outputs[name] = lane.pinned.empty(array.shape, array.dtype)
                array.copy_to(outputs[name], lane.stream)
        return outputs

    def _run_elsewhere(
        self,
        inputs: Mapping[str, Any],
        shapes: Mapping[str, tuple[int, ...]],
        keep: Collection[str],
    ) -> dict[str, Any]:
        if self._other is None:
            sizes = ", ".join(one.size for one in self._engines)
            given = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise InputError(
                f"{self._graph.name}: inputs must fit one of the engines, for {sizes}, got {given}",
                hint="name the sizes to build engines for: EngineOptions(sizes=...)",
            )
        return self._other().run(inputs, keep=keep)

    def cancel(self) -> None:
        """Lets the runs that are under way raise `CancelledError`; the device ends them first."""
        for run in tuple(self._runs):
            run.cancelled = True

    def close(self) -> None:
        """Frees the engines once their runs have ended."""
        self._open = False
        for ready in self._engines:
            ready.engine.close()

    def report(self) -> GraphReport:
        """What runs the graph."""
        return self._report


class _Run:
    """A run that is under way."""

    cancelled = False


class SwitchedSession(Described):
    """A graph that one backend runs until another one is ready.

    Args:
        graph: The graph.
        current: Gives the session that runs it now; asked once per run.
    """

    def __init__(self, graph: GraphSpec, current: Callable[[str], Session]) -> None:
        self._graph = graph
        self._current = current

    @property
    def stream(self) -> int | None:
        """Of the session that runs the graph now."""
        return self._current(self._graph.name).stream

    def run(self, inputs: Mapping[str, Any], *, keep: Collection[str] = ()) -> dict[str, Any]:
        """Runs the graph once; see `Session.run`."""
        return self._current(self._graph.name).run(inputs, keep=keep)

    def cancel(self) -> None:
        """Stops the runs that are under way."""
        self._current(self._graph.name).cancel()

    def close(self) -> None:
        """Does nothing: the model closes the sessions."""

    def report(self) -> GraphReport:
        """What runs the graph now."""
        return self._current(self._graph.name).report()


def _largest(ready: ReadyEngine) -> int:
    """Elements of the greatest inputs."""
    total = 0
    for sizes in ready.profile.values():
        count = 1
        for size in sizes:
            count *= size.high
        total += count
    return total
