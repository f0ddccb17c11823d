"""From an ONNX graph to a plan: TensorRT's builder, the same way for versions 10.3 to 11."""

from __future__ import annotations

import atexit
import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from fastvid.backends.tensorrt._graph import PluginGraph
from fastvid.backends.tensorrt._setup import (
    PLUGINS_SINCE,
    SAME_CAPABILITY_SINCE,
    Messages,
    Watch,
    created,
    logger_and_recorder,
    monitor_of,
    version_of,
)
from fastvid.backends.tensorrt._shapes import Profile
from fastvid.errors import (
    BackendUnavailableError,
    CancelledError,
    EngineBuildError,
    InputError,
    OutOfMemoryError,
    UnsupportedModelError,
)

Merge = Callable[[bytes], None]
"""Takes the measurements of one build."""

_running: set[Watch] = set()
# TensorRT calls Python while it builds, which aborts a process whose interpreter has ended.
_EXIT_WAIT_SECONDS = 120.0


@dataclass(frozen=True)
class Source:
    """What one engine is built from."""

    name: str
    """Of the graph, for messages."""
    graph: PluginGraph
    weights: Mapping[str, bytes]
    """Files beside the graph, by the name that it gives them."""
    profile: Profile
    options: Mapping[str, Any]
    """Of `EngineOptions.builder`."""


def require_buildable(trt: Any, graph: PluginGraph, name: str) -> None:
    """Refuses a graph that this TensorRT cannot take.

    Raises:
        UnsupportedModelError: An op has no plugin, or plugins need a newer TensorRT.
        BackendUnavailableError: This build of fastvid lacks the plugins' kernels.
    """
    if graph.missing:
        raise UnsupportedModelError(
            f"{name}: cannot run in TensorRT, no plugin is for {'; '.join(graph.missing)[:200]}",
            hint="`fastvid export MODEL --format onnx --portable` makes a bundle of standard "
            "operators",
        )
    if graph.plugins and version_of(trt) < PLUGINS_SINCE:
        raise UnsupportedModelError(
            f"{name}: operators of fastvid need TensorRT {PLUGINS_SINCE[0]}.{PLUGINS_SINCE[1]} or "
            f"newer, got {trt.__version__}",
            hint="`fastvid export MODEL --format onnx --portable` makes a bundle of standard "
            "operators, or upgrade TensorRT",
        )
    if graph.plugins:
        from fastvid.backends import tensorrt_plugins

        if not tensorrt_plugins.kernels_folder().is_dir():
            raise BackendUnavailableError(
                f"{name}: this build of fastvid must hold the plugins' kernels, none are in "
                f"{tensorrt_plugins.kernels_folder()}",
                hint="install a wheel with CUDA kernels, or build with FASTVID_CUDA=ON",
            )


def build_plan(trt: Any, source: Source, watch: Watch, timing: bytes | None, merge: Merge) -> bytes:
    """Builds one engine; takes minutes.

    Args:
        trt: The module.
        source: What to build.
        watch: Told of progress, and asked whether to stop.
        timing: Measurements of earlier builds, maybe empty; None uses none and keeps none.
        merge: Given the measurements of this one.

    Returns:
        The plan.

    Raises:
        EngineBuildError: TensorRT refuses the graph, the sizes or an option.
        CancelledError: The watch said so.
        OutOfMemoryError: The device or the host has too little memory.
    """
    if source.graph.plugins:
        from fastvid.backends import tensorrt_plugins

        tensorrt_plugins.register()
    # The parser, and with it the files it read, must outlive the build: networks refer to weights.
    with _beside(source.weights) as folder:
        return _build(trt, source, watch, timing, merge, folder)


def _build(
    trt: Any,
    source: Source,
    watch: Watch,
    timing: bytes | None,
    merge: Merge,
    folder: Path | None,
) -> bytes:
    messages, logger, recorder = logger_and_recorder(trt)
    builder = created(trt.Builder, messages, logger)
    builder.error_recorder = recorder
    # From 11 on every network is strongly typed: it computes in the dtypes that the graph has.
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed if version_of(trt)[0] < 11 else 0)
    parser = _parsed(trt, network, logger, source, messages, folder)
    config = _configured(trt, builder, source)
    monitor = monitor_of(trt, watch)
    config.progress_monitor = monitor
    profile = builder.create_optimization_profile()
    for name, sizes in source.profile.items():
        low, best, high = zip(*sizes, strict=True) if sizes else ((), (), ())
        profile.set_shape(name, min=low, opt=best, max=high)
    if config.add_optimization_profile(profile) < 0:
        raise EngineBuildError(f"{source.name}: TensorRT refuses the sizes: {messages.drain()}")
    cache = None
    if timing is not None:
        # A cache of another TensorRT or GPU is refused; then it starts anew.
        cache = config.create_timing_cache(timing)
        if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
            cache = config.create_timing_cache(b"")
            config.set_timing_cache(cache, ignore_mismatch=False)
    watch.tell("building", always=True)
    _running.add(watch)
    try:
        plan = builder.build_serialized_network(network, config)
    except Exception as error:  # the bindings raise where a plugin's Python code did
        _raise(source.name, watch, messages, f"{type(error).__name__}: {error}")
    finally:
        _running.discard(watch)
    if plan is None or watch.cancelled:
        _raise(source.name, watch, messages, "")
    if cache is not None:
        measured = config.get_timing_cache()
        merge(bytes(memoryview(measured.serialize())))
    del parser
    return bytes(memoryview(plan))


def merged_timing(trt: Any, kept: bytes, measured: bytes) -> bytes:
    """The measurements of two builds in one; those of `measured` if they do not fit together."""
    messages, logger, recorder = logger_and_recorder(trt)
    builder = created(trt.Builder, messages, logger)
    builder.error_recorder = recorder
    config = builder.create_builder_config()
    cache = config.create_timing_cache(measured)
    other = config.create_timing_cache(kept) if kept else None
    if other is not None and cache is not None and cache.combine(other, ignore_mismatch=False):
        return bytes(memoryview(cache.serialize()))
    messages.clear()
    return measured


def _raise(name: str, watch: Watch, messages: Messages, problem: str) -> NoReturn:
    if watch.error is not None:
        raise watch.error
    if watch.cancelled:
        raise CancelledError(f"{name}: building the engine was cancelled")
    if messages.out_of_memory():
        raise OutOfMemoryError(
            f"{name}: building the engine took more memory than there is: {messages.drain()}",
            hint="EngineOptions(workspace=...), smaller sizes, or free the device",
        )
    said = "; ".join(part for part in (problem, messages.drain()) if part)
    raise EngineBuildError(f"{name}: TensorRT cannot build the engine: {said}")


def _parsed(
    trt: Any, network: Any, logger: Any, source: Source, messages: Messages, folder: Path | None
) -> Any:
    """The parser, after it has filled the network."""
    parser = created(trt.OnnxParser, messages, network, logger)
    if folder is None:
        done = parser.parse(source.graph.model)
    else:
        # The name of a file beside which the weights lie; the graph itself comes from memory.
        done = parser.parse(source.graph.model, path=str(folder / "graph.onnx"))
    if not done:
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        said = "; ".join(" ".join(str(error.desc()).split()) for error in errors[:4])
        raise EngineBuildError(
            f"{source.name}: TensorRT cannot read the graph: {said or messages.drain()}",
            hint="`fastvid export MODEL --format onnx --portable` makes a bundle of standard "
            "operators, backend='onnxruntime' runs this one",
        )
    names = sorted(network.get_input(i).name for i in range(network.num_inputs))
    if names != sorted(source.profile):
        raise EngineBuildError(
            f"{source.name}: inputs must be {sorted(source.profile)}, TensorRT found {names}"
        )
    return parser


@contextlib.contextmanager
def _beside(weights: Mapping[str, bytes]) -> Iterator[Path | None]:
    """A private folder with verified weights while the parser reads them; None without any."""
    if not weights:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="fastvid-weights-") as name:
        folder = Path(name)
        for file, data in weights.items():
            target = folder / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        yield folder


def _configured(trt: Any, builder: Any, source: Source) -> Any:
    options = source.options
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options["workspace"])
    config.builder_optimization_level = options["optimization_level"]
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    change = config.set_flag if options["tf32"] else config.clear_flag
    change(trt.BuilderFlag.TF32)
    if options["compatibility"] == "same_compute_capability":
        if version_of(trt) < SAME_CAPABILITY_SINCE:
            since = ".".join(map(str, SAME_CAPABILITY_SINCE))
            raise InputError(
                f"compatibility: 'same_compute_capability' needs TensorRT {since} or newer, got "
                f"{trt.__version__}"
            )
        level = trt.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY
        config.hardware_compatibility_level = level
    return config


@atexit.register
def _stop_all() -> None:
    end = time.monotonic() + _EXIT_WAIT_SECONDS
    while _running and time.monotonic() < end:
        for watch in tuple(_running):
            watch.stop()
        time.sleep(0.01)
