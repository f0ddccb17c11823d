"""The TensorRT backend, native: engines are built on the user's machine and kept in a cache.

An engine is native code for one GPU and one TensorRT. So none comes with a model: it is built from
the bundle's ONNX graph, held against what onnxruntime computes of the same graph on the CPU, sealed
with a key of the user's and kept. What is not sealed, or computes something else, is never used.

Nothing here imports `tensorrt` before the driver has been asked for its devices.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from fastvid.backends import GraphReport, LoadedModel, Report, Session
from fastvid.backends._worker import Call, Worker
from fastvid.backends.tensorrt import _setup
from fastvid.backends.tensorrt._options import EngineOptions
from fastvid.backends.tensorrt._setup import Progress, ProgressCallback
from fastvid.backends.tensorrt._store import Store, StoredEngine, folder_argument
from fastvid.bundle import Bundle
from fastvid.devices import Device, cuda_driver, parse_device, require_cuda
from fastvid.errors import (
    EngineBuildError,
    FastvidError,
    InputError,
    InputTypeError,
    UnsupportedModelError,
)

if TYPE_CHECKING:
    from fastvid.backends.onnxruntime import Options
    from fastvid.backends.onnxruntime_cuda import Lane
    from fastvid.backends.tensorrt._provide import Provider, ReadyEngine

__all__ = ["EngineOptions", "Progress", "StoredEngine", "build", "cached_engines", "clear", "load"]

T = TypeVar("T")

_BUILD_HINT = "`fastvid export MODEL --format engine` builds them"


def load(
    bundle: Bundle,
    device: Device,
    engines: EngineOptions,
    options: Options,
) -> LoadedModel:
    """Loads every graph of a bundle; see `fastvid.backends.open`.

    Graphs with an op that has no plugin run in onnxruntime on the same device, and the report says
    so; where no graph can be an engine the bundle is refused.

    Args:
        bundle: The bundle.
        device: A CUDA device, or `auto` for the first.
        engines: How engines are built.
        options: How graphs are run.

    Raises:
        NoDeviceError: There is no such CUDA device.
        BackendUnavailableError: TensorRT is not installed, or of a version that is not supported.
        UnsupportedModelError: No graph can run in TensorRT.
        EngineBuildError: An engine cannot be built, or is missing with `build="never"`.
    """
    index = _index(device)
    _setup.runtime(index)

    opening = _Opening(bundle, index, engines, options)
    reason = f"backend='tensorrt' was asked for on cuda:{index}"
    if engines.build == "background":
        return _background(opening, reason)
    return _interruptible(
        f"fastvid-open-{bundle.name}", lambda cancelled: opening.model(reason, cancelled)
    )


def _background(opening: _Opening, reason: str) -> LoadedModel:
    """A model that onnxruntime runs until the engines are there, on the same stream."""
    from fastvid.backends import onnxruntime
    from fastvid.backends.onnxruntime_cuda import Lane
    from fastvid.backends.tensorrt._model import BackgroundModel

    assert opening.run is not None
    lane = opening.lane = Lane(opening.index)
    try:
        serving = onnxruntime.load(
            opening.bundle, Device("cuda", opening.index), opening.run, lane=lane
        )
    except BaseException:
        lane.close()
        raise
    return BackgroundModel(serving, lambda stop: opening.model(reason, stop), lane)


def load_cached(bundle: Bundle, device: Device, options: Options) -> tuple[LoadedModel | None, str]:
    """What `backend="auto"` takes: engines that are there already; it never builds any.

    Sizes that none of the engines takes run in onnxruntime on the same device.

    Returns:
        The model, or None and why there is none; without a reason where TensorRT is not installed.
    """
    if device.kind == "cpu" or cuda_driver().problem or not _setup.is_installed():
        return None, ""
    missing = f"TensorRT is not used: no engines of {bundle.name} are cached; {_BUILD_HINT}"
    if not Store().names():
        return None, missing
    engines = EngineOptions(build="never")
    opening = _Opening(bundle, _index(device), engines, options, serve=True)
    reason = "backend='auto' takes TensorRT engines that are cached"
    try:
        made = _interruptible(
            f"fastvid-open-{bundle.name}", lambda cancelled: opening.model(reason, cancelled)
        )
    except EngineBuildError:
        return None, missing
    except FastvidError as error:
        return None, f"TensorRT is not used: {error.message}"
    except Exception as error:  # a TensorRT that nobody asked for must not end the call
        return None, f"TensorRT is not used: {type(error).__name__}: {error}"
    return made, ""


def build(
    bundle: Bundle,
    device: str | Device = "auto",
    options: EngineOptions | None = None,
    *,
    progress: ProgressCallback | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> tuple[Path, ...]:
    """Builds the engines of a bundle, or finds them in the cache, and checks their results.

    Several processes may do this at once: one builds an engine, the others wait and take it.

    Args:
        bundle: The model.
        device: `auto`, which is the first CUDA device, `cuda` or `cuda:N`.
        options: How engines are built, and for which sizes; `build` in it is not looked at.
        progress: Told of progress at most ten times a second, from any thread.
        cancelled: Asked at every step of a build; Ctrl-C works without it.

    Returns:
        The engines' files. They are of use on this machine and for this user only.

    Raises:
        NoDeviceError: There is no such CUDA device.
        BackendUnavailableError: TensorRT is not installed, or of a version that is not supported.
        UnsupportedModelError: No graph can run in TensorRT.
        EngineBuildError: An engine cannot be built.
        OutputError: The cache cannot be written; said before anything is built.
        CancelledError: `cancelled` became true.
    """
    if not isinstance(bundle, Bundle):
        raise InputTypeError(f"bundle: argument must be a Bundle, got {type(bundle).__name__}")
    chosen = options or EngineOptions()
    if not isinstance(chosen, EngineOptions):
        raise InputTypeError(
            f"options: argument must be EngineOptions, got {type(chosen).__name__}"
        )
    index = _index(device if isinstance(device, Device) else parse_device(device))
    _setup.runtime(index)
    store = Store(folder_argument(chosen.cache))

    def make(stopped: Callable[[], bool]) -> tuple[Path, ...]:
        store.open()
        now = chosen.replaced(build="now", progress=progress or chosen.progress)
        opening = _Opening(bundle, index, now, None, strict=True)
        names = opening.names(lambda: stopped() or cancelled())
        return tuple(store.path(name) for name in names)

    return _interruptible(f"fastvid-build-{bundle.name}", make)


def cached_engines(cache: str | Path | None = None) -> tuple[StoredEngine, ...]:
    """The engines of a cache folder, the one last used first.

    Args:
        cache: The folder; None is the default one.

    Raises:
        OutputError: The user's key cannot be read.
    """
    return tuple(Store(folder_argument(cache)).entries())


def clear(cache: str | Path | None = None) -> int:
    """Removes all engines of a cache folder; gives the bytes that were freed."""
    return Store(folder_argument(cache)).clear()


def _index(device: Device) -> int:
    if device.kind == "cpu":
        raise InputError(
            "device: argument must be 'cuda', 'cuda:N' or 'auto' for TensorRT, got 'cpu'",
            hint="backend='onnxruntime' runs on the CPU",
        )
    return device.index


def _interruptible(name: str, make: Callable[[Callable[[], bool]], T]) -> T:
    """Runs `make` where signals interrupt it; it is given whether to stop."""
    worker = Worker(name)

    def run(call: Call[T]) -> T:
        return make(lambda: call.cancelled)

    try:
        return worker.run(run)
    finally:
        worker.close()


@dataclasses.dataclass
class _Opening:
    """One bundle on its way to a device."""

    bundle: Bundle
    index: int
    options: EngineOptions
    run: Options | None
    """How sessions run; None where none are made."""
    serve: bool = False
    """Whether onnxruntime runs the sizes that no engine takes."""
    strict: bool = False
    """Whether a cache that cannot be written is an error."""
    lane: Lane | None = None
    """Stream and memory that somebody else closes; None makes some."""

    def names(self, cancelled: Callable[[], bool]) -> list[str]:
        """Makes the engines; gives their names in the cache."""
        lane, provider = self._provider(cancelled)
        try:
            engines, _ = self._engines(provider)
            made = [one for some, _ in engines.values() for one in some]
            for one in made:
                one.engine.close()
            return [one.name for one in made]
        finally:
            provider.close()
            self._give_back(lane)

    def model(self, reason: str, cancelled: Callable[[], bool]) -> LoadedModel:
        """Makes the engines, and sessions with them."""
        from fastvid.backends import onnxruntime
        from fastvid.backends.tensorrt._model import TensorRTModel, session_of

        assert self.run is not None
        run = self.run
        lane, provider = self._provider(cancelled)
        worker = Worker(f"fastvid-{self.bundle.name}")
        others: list[LoadedModel] = []
        target = Device("cuda", self.index)

        def served(names: tuple[str, ...]) -> LoadedModel:
            part = {name: self.bundle.graphs[name] for name in names}
            bundle = dataclasses.replace(self.bundle, graphs=part)
            other = onnxruntime.load(bundle, target, run, lane=lane)
            others.append(other)
            return other

        try:
            engines, refused = self._engines(provider)
            sessions: dict[str, Session] = {}
            for name, (made, seconds) in engines.items():
                graph = self.bundle.graphs[name]
                sessions[name] = session_of(
                    graph,
                    made,
                    provider,
                    worker,
                    finite=run.check_finite,
                    seconds=seconds,
                    other=_lazily(served, name) if self.serve else None,
                )
            if refused:
                other = served(tuple(refused))
                sessions |= {name: other.graph(name) for name in refused}
                said = "; ".join(error.message for error in refused.values())
                reason += f"; onnxruntime runs {', '.join(refused)} on the same device: {said}"
            if self.serve:
                reason += "; sizes that no engine takes run in onnxruntime"
            if provider.cache_problem:
                reason += f"; engines are not kept: {provider.cache_problem}"
            ordered = {name: sessions[name] for name in self.bundle.graphs}
            report = self._report(reason, tuple(s.report() for s in ordered.values()))
            end = None if self.lane is lane else lane.close
            return TensorRTModel(self.bundle, ordered, worker, report, lambda: others, end)
        except BaseException:
            for other in others:
                other.close()
            worker.close()
            self._give_back(lane)
            raise
        finally:
            provider.close()

    def _provider(self, cancelled: Callable[[], bool]) -> tuple[Lane, Provider]:
        from fastvid.backends.onnxruntime_cuda import Lane
        from fastvid.backends.tensorrt._provide import Provider

        trt = _setup.runtime(self.index)
        lane = self.lane or Lane(self.index)
        provider = Provider(
            trt,
            self.bundle,
            require_cuda(self.index),
            self.options,
            lane,
            cancelled,
            self.strict,
        )
        return lane, provider

    def _give_back(self, lane: Lane) -> None:
        if lane is not self.lane:
            lane.close()

    def _engines(
        self, provider: Provider
    ) -> tuple[dict[str, tuple[list[ReadyEngine], float]], dict[str, UnsupportedModelError]]:
        """The engines of each graph with the seconds they took, and the graphs that have none.

        Raises:
            UnsupportedModelError: No graph can run in TensorRT.
        """
        made: dict[str, tuple[list[ReadyEngine], float]] = {}
        refused: dict[str, UnsupportedModelError] = {}
        try:
            for name, graph in self.bundle.graphs.items():
                start = time.perf_counter()
                try:
                    provider.graph(graph)
                except UnsupportedModelError as error:
                    refused[name] = error
                    continue
                made[name] = (provider.get(graph), time.perf_counter() - start)
            if not made:
                raise next(iter(refused.values()))
        except BaseException:
            for engines, _ in made.values():
                for one in engines:
                    one.engine.close()
            raise
        return made, refused

    def _report(self, reason: str, graphs: tuple[GraphReport, ...]) -> Report:
        bundle = self.bundle
        return Report(
            bundle.name,
            bundle.task,
            f"cuda:{self.index}",
            "tensorrt",
            bundle.precision,
            reason,
            graphs,
        )


def _lazily(served: Callable[[tuple[str, ...]], LoadedModel], name: str) -> Callable[[], Session]:
    """A graph's session in onnxruntime, which is opened when it is first needed."""
    kept: list[Session] = []
    lock = threading.Lock()

    def session() -> Session:
        with lock:
            if not kept:
                kept.append(served((name,)).graph(name))
            return kept[0]

    return session
