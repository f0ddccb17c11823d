"""All graphs of a bundle on one device: in TensorRT, and in onnxruntime where that serves."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Mapping

from fastvid._specs import GraphSpec
from fastvid.backends import GraphReport, LoadedModel, Report, Session
from fastvid.backends._checks import InputCheck
from fastvid.backends._loaded import Loaded
from fastvid.backends._worker import Worker
from fastvid.backends.onnxruntime_cuda import Lane
from fastvid.backends.tensorrt._provide import Provider, ReadyEngine
from fastvid.backends.tensorrt._session import SwitchedSession, TensorRTSession
from fastvid.bundle import Bundle
from fastvid.errors import CancelledError, FastvidError

PROVIDER = "TensorRT"


class TensorRTModel(Loaded):
    """All graphs of a bundle, some of them perhaps in another backend.

    Args:
        bundle: The bundle.
        sessions: By the name of their graph.
        worker: Of the TensorRT sessions.
        report: What runs the graphs.
        others: Models of other backends that some sessions belong to; closed with this one.
        end: Closes the stream that the sessions share; None if somebody else does.
    """

    def __init__(
        self,
        bundle: Bundle,
        sessions: Mapping[str, Session],
        worker: Worker,
        report: Report,
        others: Callable[[], list[LoadedModel]],
        end: Callable[[], None] | None,
    ) -> None:
        super().__init__(bundle, sessions, worker, report)
        self._others = others
        self._end = end

    def close(self) -> None:
        """Closes all sessions, and what was opened for them."""
        for session in self._sessions.values():
            session.close()
        for other in self._others():
            other.close()
        self._worker.close()
        if self._end is not None:
            self._end()


class BackgroundModel:
    """A bundle that onnxruntime runs until its engines are built; see `LoadedModel`.

    All graphs change over at once, between two runs. Should the engines not come about, onnxruntime
    goes on and the report says why.

    Args:
        serving: The model that runs meanwhile, on the same device.
        build: Makes the other one; it is given whether to stop.
        lane: Stream and memory that both share, so that arrays of one may go to the other.
    """

    def __init__(
        self,
        serving: LoadedModel,
        build: Callable[[Callable[[], bool]], LoadedModel],
        lane: Lane,
    ) -> None:
        self._serving = serving
        self._lane = lane
        self._current: LoadedModel = serving
        self._note = "onnxruntime serves while TensorRT builds its engines"
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._build = build
        self._started = time.monotonic()
        self._thread = threading.Thread(
            target=self._run, name=f"fastvid-build-{serving.bundle.name}", daemon=True
        )
        self._thread.start()

    def _run(self) -> None:
        try:
            made = self._build(self._stop.is_set)
        except CancelledError:
            self._note = "onnxruntime serves: building TensorRT engines was cancelled"
            return
        except FastvidError as error:
            self._note = f"onnxruntime serves: TensorRT engines cannot be built: {error.message}"
            return
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
            self._note = f"onnxruntime serves: TensorRT engines cannot be built: {problem}"
            return
        with self._lock:
            if self._stop.is_set():
                made.close()
                return
            seconds = time.monotonic() - self._started
            self._note = f"TensorRT took over from onnxruntime after {seconds:.0f} s"
            self._current = made

    def wait(self, timeout: float | None = None) -> bool:
        """Waits for the end of the build; gives whether TensorRT runs the graphs."""
        self._thread.join(timeout)
        return self._current is not self._serving

    @property
    def bundle(self) -> Bundle:
        """The bundle that was opened."""
        return self._serving.bundle

    def graph(self, name: str) -> Session:
        """The session of one graph, which changes over by itself."""
        return SwitchedSession(self.bundle.graph(name), lambda one: self._current.graph(one))

    def report(self) -> Report:
        """What runs each graph now, and why there."""
        report = self._current.report()
        return dataclasses.replace(report, reason=f"{self._note}; {report.reason}")

    def cancel(self) -> None:
        """Stops the runs that are under way in any graph; the build goes on."""
        self._current.cancel()

    def close(self) -> None:
        """Stops the build, waits until TensorRT has noticed, and closes all sessions."""
        self._stop.set()
        self._thread.join()
        with self._lock:
            if self._current is not self._serving:
                self._current.close()
        self._serving.close()
        self._lane.close()

    def __enter__(self) -> BackgroundModel:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def session_of(
    graph: GraphSpec,
    engines: list[ReadyEngine],
    provider: Provider,
    worker: Worker,
    *,
    finite: bool,
    seconds: float,
    other: Callable[[], Session] | None,
) -> TensorRTSession:
    """A session that runs a graph with the engines given."""
    device = f"cuda:{provider.device.index}"
    report = GraphReport(
        graph=graph.name,
        backend="tensorrt",
        version=str(provider.trt.__version__),
        provider=PROVIDER,
        device=device,
        threads=1,
        custom_ops=bool(provider.graph(graph).plugins),
        shape_nodes_on_cpu=0,
        file=graph.file,
        sha256=provider.bundle.files[graph.file].sha256,
        load_seconds=round(seconds, 6),
        cuda_graphs=provider.options.cuda_graphs,
        note=_note(engines),
    )
    check = InputCheck(graph, provider.bundle.size_rule, device)
    return TensorRTSession(
        graph, engines, provider.lane, worker, check, report, finite=finite, other=other
    )


def _note(engines: list[ReadyEngine]) -> str:
    """Which engines there are, where they come from and how near they are to the graph."""
    parts = []
    for one in engines:
        origin = f"built in {one.seconds:.0f} s" if one.built else "from the cache"
        parts.append(f"engine for {one.size} {origin}, within {one.difference:.1g} of the graph")
    return "; ".join(parts)
