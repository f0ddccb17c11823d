"""Where engines come from: the cache, or a build that no other process makes at the same time."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fastvid._specs import GraphSpec
from fastvid.backends.onnxruntime_cuda import Lane
from fastvid.backends.tensorrt import _build, _reference
from fastvid.backends.tensorrt._engine import Engine, dtype_of
from fastvid.backends.tensorrt._graph import PluginGraph, plugin_graph
from fastvid.backends.tensorrt._key import base_key, base_name, engine_name, timing_name
from fastvid.backends.tensorrt._options import EngineOptions, FrameSize, frame_sizes
from fastvid.backends.tensorrt._setup import Watch
from fastvid.backends.tensorrt._shapes import (
    Profile,
    Range,
    covers,
    depends_on_frames,
    known_ranges,
    plain,
    profile_of,
    related,
    sample_sizes,
    shapes_at,
    unplain,
)
from fastvid.backends.tensorrt._store import TIMING, Store, folder_argument
from fastvid.bundle import Bundle
from fastvid.devices import CudaDevice, cuda_driver
from fastvid.errors import (
    CancelledError,
    DeviceError,
    DeviceLostError,
    EngineBuildError,
    EngineLoadError,
    ModelError,
    OutOfMemoryError,
    OutputError,
    UnsupportedModelError,
)


@dataclass
class ReadyEngine:
    """An engine whose results were held against the golden ones on this device."""

    name: str
    size: str
    """Label of the size it was built for."""
    engine: Engine
    profile: Profile
    difference: float
    """From the golden results, as a part of their size."""
    built: bool
    """Whether it was built now, and not read from the cache."""
    seconds: float
    """That its build took."""

    def takes(self, shapes: dict[str, tuple[int, ...]]) -> bool:
        """Whether inputs may have these shapes."""
        return covers(self.profile, shapes)


@dataclass
class Provider:
    """Makes the engines of one bundle for one device.

    Call `close` when all are made.
    """

    trt: Any
    bundle: Bundle
    device: CudaDevice
    options: EngineOptions
    lane: Lane
    cancelled: Callable[[], bool] = lambda: False
    strict: bool = False
    """Whether a cache that cannot be written is an error; else engines are kept in memory."""
    cache_problem: str = ""
    """Why engines are not kept; empty if they are."""
    _graphs: dict[str, PluginGraph] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._reference = _reference.Reference(self.bundle)
        self._store: Store | None = Store(
            folder_argument(self.options.cache), limit=self.options.cache_limit
        )

    def close(self) -> None:
        """Frees what only builds need."""
        self._reference.close()
        self._graphs.clear()

    def sizes(self) -> tuple[FrameSize, ...]:
        """The sizes that were asked for, or the default ones."""
        wanted = self.options.sizes
        if wanted is None and (spec := self.bundle.generation) is not None:
            wanted = (f"{spec.width}x{spec.height}",)
        return frame_sizes(wanted, self.bundle.size_rule)

    def graph(self, graph: GraphSpec) -> PluginGraph:
        """The graph as TensorRT takes it.

        Raises:
            ModelError: The file is damaged.
            UnsupportedModelError: This TensorRT cannot take it.
        """
        if graph.name not in self._graphs:
            try:
                self._graphs[graph.name] = plugin_graph(self.bundle.read(graph.file))
            except ValueError as error:
                raise ModelError(f"{graph.file}: must be an ONNX model: {error}") from None
        made = self._graphs[graph.name]
        _build.require_buildable(self.trt, made, graph.name)
        for spec in (*graph.inputs, *graph.outputs):
            if dtype_of(self.trt, spec.dtype) is None:
                raise UnsupportedModelError(
                    f"{graph.name}: TensorRT cannot take {spec.name!r} of dtype {spec.dtype}"
                )
        return made

    def cached(self, graph: GraphSpec) -> list[ReadyEngine]:
        """The engines of a graph that are in the cache and are sound, whatever their sizes."""
        found = []
        for name in self._names(graph):
            ready = self._load(graph, name)
            if ready is not None:
                found.append(ready)
        return found

    def get(self, graph: GraphSpec) -> list[ReadyEngine]:
        """Engines of a graph for the sizes that were asked for; missing ones are built.

        Raises:
            EngineBuildError: One cannot be built, or `build="never"` and it is missing.
            CancelledError: The build was cancelled.
            OutputError: `strict`, and the cache cannot be written.
        """
        if self.options.sizes is None and (found := self.cached(graph)):
            return found
        sizes = self.sizes() if depends_on_frames(graph) else self.sizes()[:1]
        return [self._get(graph, size) for size in sizes]

    def _key(self, graph: GraphSpec) -> dict[str, Any]:
        return base_key(
            self.bundle,
            graph,
            self.graph(graph).plugins,
            self.options,
            self.device,
            str(self.trt.__version__),
            cuda_driver().version,
        )

    def _names(self, graph: GraphSpec) -> list[str]:
        if self._store is None:
            return []
        return self._store.names(f"{base_name(self._key(graph))}-")

    def _asked(self, graph: GraphSpec, size: FrameSize) -> dict[str, Range]:
        """The sizes an engine is asked for; those of frames only where they matter."""
        known = known_ranges(self.bundle, self.options, size)
        if depends_on_frames(graph):
            return known
        return {n: r for n, r in known.items() if n not in ("H", "W", "h", "w")}

    def _get(self, graph: GraphSpec, size: FrameSize) -> ReadyEngine:
        name = engine_name(self._key(graph), self._asked(graph, size))
        if (ready := self._load(graph, name)) is not None:
            return ready
        if self.options.build == "never":
            raise EngineBuildError(
                f"{graph.name}: there must be an engine for {size.label} in the cache, got none "
                f"for {self.device}",
                hint="`fastvid export MODEL --format engine` builds it",
            )
        watch = Watch(graph.name, size.label, self.options.progress, self.cancelled)
        if not self._writable():
            return self._build(graph, size, name, watch)
        assert self._store is not None
        try:
            with self._store.lock(
                name,
                waiting=lambda: watch.tell("waiting", always=True),
                cancelled=lambda: watch.cancelled,
            ):
                # Another process may have built it while this one waited.
                if (ready := self._load(graph, name)) is not None:
                    return ready
                return self._build(graph, size, name, watch)
        except CancelledError:
            if watch.error is not None:
                raise watch.error from None
            raise

    def _writable(self) -> bool:
        if self._store is None:
            return False
        try:
            self._store.open()
        except OutputError as error:
            self._without_cache(error)
            return False
        return True

    def _without_cache(self, error: OutputError) -> None:
        if self.strict:
            raise error
        self._store = None
        self.cache_problem = error.message
        warnings.warn(f"engines are not kept: {error}", RuntimeWarning, stacklevel=2)

    def _load(self, graph: GraphSpec, name: str) -> ReadyEngine | None:
        """An engine of the cache; None if there is none, or the one there is wrong."""
        if self._store is None:
            return None
        try:
            entry = self._store.read(name)
        except OutputError as error:
            self._without_cache(error)
            return None
        if entry is None:
            return None
        header, plan = entry
        try:
            return self._ready(graph, name, header, plan, built=False)
        except EngineLoadError as error:
            # Never used, and never taken for a missing one in silence.
            self._store.quarantine(self._store.path(name))
            warnings.warn(
                f"a cached engine goes into quarantine: {error.message}",
                RuntimeWarning,
                stacklevel=2,
            )
            return None

    def _ready(
        self,
        graph: GraphSpec,
        name: str,
        header: dict[str, Any],
        plan: bytes | memoryview,
        *,
        built: bool,
    ) -> ReadyEngine:
        """Deserialises an engine and holds its results against the golden ones."""
        what = f"{graph.name} for {header['size']}"
        engine = Engine(
            self.trt, plan, graph, self.lane.memory, what, cuda_graphs=self.options.cuda_graphs
        )
        try:
            golden = header["golden"]
            given = {
                spec.name: _reference.pattern(spec, tuple(golden["inputs"][spec.name]))
                for spec in graph.inputs
            }
            with self.lane.lock:
                inputs = {n: self.lane.memory.put(array) for n, array in given.items()}
                outputs = {n: array.numpy() for n, array in engine.run(inputs).items()}
            difference = _reference.compare(golden, outputs, what)
        except (EngineLoadError, OutOfMemoryError, DeviceLostError):
            engine.close()
            raise
        except DeviceError as error:
            engine.close()
            raise EngineLoadError(error.message) from error
        profile = unplain(header["profile"])
        seconds = float(header["seconds"])
        return ReadyEngine(name, header["size"], engine, profile, difference, built, seconds)

    def _build(self, graph: GraphSpec, size: FrameSize, name: str, watch: Watch) -> ReadyEngine:
        start = time.monotonic()
        watch.tell("golden results", always=True)
        header = self._header(graph, size)
        source = _build.Source(
            graph.name,
            self.graph(graph),
            {file: self.bundle.read(file) for file in graph.external_data},
            unplain(header["profile"]),
            self.options.builder(self.device.memory),
        )
        plan = _build.build_plan(self.trt, source, watch, self._timing(), self._merge)
        header["seconds"] = round(time.monotonic() - start, 3)
        watch.tell("checking", always=True)
        try:
            ready = self._ready(graph, name, header, plan, built=True)
        except EngineLoadError as error:
            raise EngineBuildError(
                f"{error.message}, right after it was built",
                hint="please report it; backend='onnxruntime' runs the graph",
            ) from error
        if self._store is not None:
            try:
                self._store.write(name, header, plan)
            except OutputError as error:
                try:
                    self._without_cache(error)
                except OutputError:
                    ready.engine.close()
                    raise
        return ready

    def _header(self, graph: GraphSpec, size: FrameSize) -> dict[str, Any]:
        """What is kept beside a plan: what it was made of, its profile and golden results."""
        known = known_ranges(self.bundle, self.options, size)
        relations = self._reference.relations(graph, {n: r.best for n, r in known.items()})
        ranges = related(known, relations)
        profile = profile_of(graph, ranges)
        sizes = sample_sizes(ranges, relations, self._multiple())
        shapes = shapes_at(graph.inputs, sizes)
        golden = _reference.golden(self._reference.run(graph, shapes), self.bundle.precision)
        golden["inputs"] = {n: list(shape) for n, shape in shapes.items()}
        return {
            "key": self._key(graph),
            "size": size.label if depends_on_frames(graph) else "every size",
            "profile": plain(profile),
            "golden": golden,
            "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }

    def _multiple(self) -> int:
        spec = self.bundle.generation
        return self.bundle.size_rule.multiple_of * (spec.spatial_compression if spec else 1)

    def _timing(self) -> bytes | None:
        """Measurements of earlier builds; None if none are used."""
        if not self.options.timing_cache:
            return None
        entry = None
        if self._store is not None:
            entry = self._store.read(self._timing_name(), TIMING)
        return b"" if entry is None else bytes(entry[1])

    def _merge(self, measured: bytes) -> None:
        """Adds the measurements of a build to those of others that ended meanwhile."""
        if self._store is None:
            return
        name = self._timing_name()
        with self._store.lock(name, cancelled=self.cancelled):
            entry = self._store.read(name, TIMING)
            kept = b"" if entry is None else bytes(entry[1])
            merged = _build.merged_timing(self.trt, kept, measured)
            try:
                self._store.write(name, {}, merged, TIMING)
            except OutputError:
                # The engine is what matters; the next write says what is wrong with the folder.
                return

    def _timing_name(self) -> str:
        return timing_name(self.device, str(self.trt.__version__))
