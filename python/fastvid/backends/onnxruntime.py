"""The onnxruntime backend: CPU and CUDA providers, named explicitly and checked after loading.

Graphs are loaded from the verified bytes. Nothing in a bundle reaches session or provider options.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from fastvid._safe_files import Identity
from fastvid._specs import GraphSpec
from fastvid.backends import GraphReport, Report, _onnxruntime_setup, _placement, _stages
from fastvid.backends._checks import InputCheck
from fastvid.backends._loaded import Loaded
from fastvid.backends._onnx_external import ExternalWeights
from fastvid.backends._onnx_file import loops, opset_imports
from fastvid.backends._onnxruntime_setup import (
    CPU,
    CUDA,
    INSTALL_CUDA,
    OPERATOR_DOMAIN,
    OPERATOR_VERSION,
    first_line,
)
from fastvid.backends._worker import Call, Worker
from fastvid.backends.onnxruntime_cuda import CudaSession, Lane
from fastvid.backends.onnxruntime_session import FATAL, OnnxSession, raise_if_out_of_memory
from fastvid.bundle import Bundle
from fastvid.devices import Device, cuda_driver
from fastvid.errors import (
    BackendUnavailableError,
    CancelledError,
    DeviceError,
    FastvidError,
    ManifestError,
    ModelError,
    NoDeviceError,
    UnsupportedModelError,
)

# Threads of the runtime that spin between operators save their wake-up, and take the cores from
# decoding and encoding meanwhile.
_SPINNING = False

_NO_CPU = "session.disable_cpu_ep_fallback"
_RECORD_PLACEMENT = "session.record_ep_graph_assignment_info"

_DTYPES = {"float": "float32", "double": "float64"}


class OnnxModel(Loaded):
    """All graphs of a bundle in onnxruntime.

    Args:
        bundle: As for `Loaded`, like the arguments that follow.
        sessions: By the name of their graph.
        worker: Of the sessions.
        report: What runs the graphs.
        lane: Stream and memory that are closed with the model; None if somebody else does.
    """

    def __init__(
        self,
        bundle: Bundle,
        sessions: Mapping[str, OnnxSession | _stages.StagedSession],
        worker: Worker,
        report: Report,
        lane: Lane | None,
    ) -> None:
        super().__init__(bundle, sessions, worker, report)
        self._lane = lane

    def add_reason(self, reason: str) -> None:
        """Adds to why the graphs run where they do; an empty reason adds nothing."""
        if reason:
            both = f"{self._report.reason}; {reason}"
            self._report = dataclasses.replace(self._report, reason=both)

    def close(self) -> None:
        """Closes all sessions, and the stream if it is the model's own."""
        super().close()
        if self._lane is not None:
            self._lane.close()


@dataclass(frozen=True)
class Options:
    """How graphs are run; see `fastvid.backends.open`."""

    threads: int
    check_finite: bool = False
    low_memory: bool = False
    cuda_graphs: bool = False


def cuda_problem() -> str:
    """Why the first CUDA device cannot be used; empty if it can."""
    if cuda_driver().problem:
        return cuda_driver().problem
    try:
        return _onnxruntime_setup.cuda_problem(0)
    except BackendUnavailableError as error:
        return error.message


def load(
    bundle: Bundle, device: Device, options: Options, *, lane: Lane | None = None
) -> OnnxModel:
    """Loads every graph of a bundle; see `fastvid.backends.open`.

    Args:
        bundle: The bundle.
        device: Where to.
        options: How graphs are run.
        lane: Stream and memory on a CUDA device that another model has and closes; None makes some.
    """
    worker = Worker(f"fastvid-{bundle.name}")
    try:
        loader = _Loader(bundle, worker, options, lane)
        return worker.run(lambda call: loader.load(device, call))
    except BaseException:
        worker.close()
        raise


class _Loader:
    """Opens the graphs of one bundle, on one device after another if need be."""

    def __init__(self, bundle: Bundle, worker: Worker, options: Options, lane: Lane | None) -> None:
        self._bundle = bundle
        self._worker = worker
        self._options = options
        self._shared = lane

    def load(self, device: Device, call: Call[OnnxModel]) -> OnnxModel:
        """Loads onto `device`, or for `auto` onto the first that takes every graph."""
        _onnxruntime_setup.runtime()
        if device.kind == "cpu":
            return self._load_on(device, "device='cpu' was asked for", call)
        target = device if device.kind == "cuda" else Device("cuda", 0)
        problem = _onnxruntime_setup.cuda_problem(target.index)
        if device.kind == "cuda":
            if problem:
                raise NoDeviceError(
                    f"device: argument must be a device that works, got {str(device)!r}: "
                    f"{problem}; found {_onnxruntime_setup.found()}",
                    hint=f"{INSTALL_CUDA}, or device='cpu'",
                )
            return self._load_on(target, f"device={str(device)!r} was asked for", call)
        if not problem:
            try:
                return self._load_on(target, "device='auto' takes a CUDA device that works", call)
            except (DeviceError, UnsupportedModelError) as error:
                problem = error.message
        reason = f"device='auto' found no CUDA device to use: {problem}"
        return self._load_on(Device("cpu"), reason, call)

    def _load_on(self, device: Device, reason: str, call: Call[OnnxModel]) -> OnnxModel:
        bundle = self._bundle
        if device.kind == "cpu" and _stages.is_staged(bundle):
            return self._load_staged(device, reason)
        own = Lane(device.index) if device.kind == "cuda" and self._shared is None else None
        lane = own or self._shared
        try:
            sessions = {
                name: self._open_graph(graph, device, lane, call)
                for name, graph in bundle.graphs.items()
            }
        except BaseException:
            if own is not None:
                own.close()
            raise
        graphs = tuple(session.report() for session in sessions.values())
        report = Report(
            bundle.name, bundle.task, str(device), "onnxruntime", bundle.precision, reason, graphs
        )
        return OnnxModel(bundle, sessions, self._worker, report, own)

    def _load_staged(self, device: Device, reason: str) -> OnnxModel:
        """The same for a bundle whose parts are loaded one after another, when they are used."""
        bundle, stages = self._bundle, _stages.Stages()
        version = str(_onnxruntime_setup.runtime().__version__)
        seen: dict[str, Identity] = {}

        def session(graph: GraphSpec) -> _stages.StagedSession:
            def load() -> OnnxSession:
                return self._worker.run(lambda c: self._open_graph(graph, device, None, c, seen))

            report = GraphReport(
                graph=graph.name,
                backend="onnxruntime",
                version=version,
                provider=CPU,
                device=str(device),
                threads=self._options.threads,
                custom_ops=_uses_operators(graph, bundle.read(graph.file)),
                shape_nodes_on_cpu=0,
                file=graph.file,
                sha256=bundle.files[graph.file].sha256,
                load_seconds=0.0,
                note="loaded when it is used, and let go when another part is",
            )
            check = InputCheck(graph, bundle.size_rule, str(device))
            return _stages.StagedSession(graph, stages, load, check, report)

        sessions = {name: session(graph) for name, graph in bundle.graphs.items()}
        graphs = tuple(one.report() for one in sessions.values())
        report = Report(
            bundle.name, bundle.task, str(device), "onnxruntime", bundle.precision, reason, graphs
        )
        return OnnxModel(bundle, sessions, self._worker, report, None)

    def _open_graph(
        self,
        graph: GraphSpec,
        device: Device,
        lane: Lane | None,
        call: Call[Any],
        seen: dict[str, Identity] | None = None,
    ) -> OnnxSession:
        start = time.perf_counter()
        ort = _onnxruntime_setup.runtime()
        model = self._bundle.read(graph.file)
        weights = ExternalWeights(self._bundle, graph, model, seen)
        custom_ops = _uses_operators(graph, model)
        made = self._create(graph, device, lane, model, weights, custom_ops, call)
        weights.require_unchanged()
        _check_signature(graph, "inputs", made.session.get_inputs())
        _check_signature(graph, "outputs", made.session.get_outputs())
        report = GraphReport(
            graph=graph.name,
            backend="onnxruntime",
            version=str(ort.__version__),
            provider=CUDA if device.kind == "cuda" else CPU,
            device=str(device),
            threads=self._options.threads if device.kind == "cpu" else 1,
            custom_ops=custom_ops,
            shape_nodes_on_cpu=made.on_cpu,
            file=graph.file,
            sha256=self._bundle.files[graph.file].sha256,
            load_seconds=round(time.perf_counter() - start, 6),
            cuda_graphs=made.cuda_graphs,
        )
        check = InputCheck(graph, self._bundle.size_rule, str(device))
        keep = list(weights.read.values())
        arguments = (graph, made.session, keep, self._worker, check, report)
        finite = self._options.check_finite
        if lane is None:
            return OnnxSession(*arguments, finite=finite, loops=loops(model))
        return CudaSession(
            *arguments,
            finite=finite,
            lane=lane,
            graphs=made.cuda_graphs,
            shrink=f"gpu:{device.index}" if self._options.low_memory else "",
        )

    def _create(
        self,
        graph: GraphSpec,
        device: Device,
        lane: Lane | None,
        model: bytes,
        weights: ExternalWeights,
        custom_ops: bool,
        call: Call[Any],
    ) -> _Made:
        """The session; on CUDA only if nothing but shape arithmetic stays on the CPU."""
        ort = _onnxruntime_setup.runtime()

        def create(*entries: str, cuda_graphs: bool = False) -> Any:
            options = _session_options(ort, graph, device, self._options, weights, custom_ops)
            for entry in entries:
                options.add_session_config_entry(entry, "1")
            if hasattr(options, "set_load_cancellation_flag"):
                call.on_cancel = lambda: options.set_load_cancellation_flag(True)
            provider: Any = CPU
            if lane is not None:
                provider = CUDA, cuda_options(lane, self._options.low_memory, cuda_graphs)
            return ort.InferenceSession(model, options, providers=[provider], enable_fallback=0)

        try:
            if device.kind == "cpu":
                return _Made(_require_provider(graph, create(), CPU))
            graphs = self._options.cuda_graphs
            try:
                session = create(_NO_CPU, cuda_graphs=graphs)
                return _Made(_require_provider(graph, session, CUDA), cuda_graphs=graphs)
            except Exception as error:
                if _placement.REFUSED_FALLBACK not in str(error):
                    raise
            # What copies shapes to the CPU and back cannot be recorded.
            session = _require_provider(graph, create(_RECORD_PLACEMENT), CUDA)
            nodes = _placement.cpu_nodes(session, CPU)
        except FastvidError:
            raise
        except Exception as error:
            if call.cancelled:
                raise CancelledError(f"{graph.name}: loading was cancelled") from None
            _raise_load_error(graph, device, error)
        if refused := _placement.beyond_shapes(nodes):
            raise UnsupportedModelError(
                f"{graph.name}: {graph.file} cannot run on {device}, onnxruntime leaves "
                f"{', '.join(refused)} on the CPU",
                hint="device='cpu' runs it",
            )
        return _Made(session, nodes.total())


@dataclass(frozen=True)
class _Made:
    """A session of onnxruntime."""

    session: Any
    on_cpu: int = 0
    """Nodes that a session for another device left on the CPU."""
    cuda_graphs: bool = False


def cuda_options(lane: Lane, low_memory: bool, cuda_graphs: bool) -> dict[str, Any]:
    """Options of the CUDA provider."""
    options: dict[str, Any] = {
        "device_id": lane.device,
        "user_compute_stream": str(lane.stream.handle),
        # TF32 would round products to 10 bits without anybody having asked.
        "use_tf32": 0,
        # A frame's memory is the same every time, so a larger step would only lie idle.
        "arena_extend_strategy": "kSameAsRequested",
    }
    if low_memory:
        options["cudnn_conv_use_max_workspace"] = 0
    if cuda_graphs:
        options["enable_cuda_graph"] = 1
    return options


def _require_provider(graph: GraphSpec, session: Any, provider: str) -> Any:
    actual = session.get_providers()[0]
    if actual != provider:
        raise DeviceError(f"{graph.name}: must run on {provider}, onnxruntime chose {actual}")
    return session


def _uses_operators(graph: GraphSpec, model: bytes) -> bool:
    try:
        version = opset_imports(model).get(OPERATOR_DOMAIN)
    except ValueError as error:
        raise ModelError(f"{graph.file}: must be an ONNX model: {error}") from None
    if version is not None and version > OPERATOR_VERSION:
        raise UnsupportedModelError(
            f"{graph.file}: operators of fastvid must be version {OPERATOR_VERSION}, got {version}",
            hint="pip install --upgrade fastvid-sdk",
        )
    return version is not None


def _session_options(
    ort: Any,
    graph: GraphSpec,
    device: Device,
    how: Options,
    weights: ExternalWeights,
    custom_ops: bool,
) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = FATAL
    options.intra_op_num_threads = how.threads if device.kind == "cpu" else 1
    options.inter_op_num_threads = 1
    if how.low_memory:
        options.enable_cpu_mem_arena = False
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(_SPINNING)))
    weights.configure(options, str(ort.__version__))
    if custom_ops:
        library = _onnxruntime_setup.operators_library()
        try:
            options.register_custom_ops_library(str(library))
        except Exception as error:
            raise BackendUnavailableError(
                f"{graph.name}: operators of fastvid cannot be registered with onnxruntime "
                f"{ort.__version__}: {first_line(error)}"
            ) from None
    return options


def _check_signature(graph: GraphSpec, side: str, arguments: list[Any]) -> None:
    """Compares what the ONNX file declares with what the manifest says."""
    specs = {spec.name: spec for spec in getattr(graph, side)}
    try:
        declared = {a.name: (str(a.type), a.shape) for a in arguments}
    except UnicodeDecodeError as error:
        raise ModelError(f"{graph.file}: is not a valid ONNX model: {error}") from None
    at = f"bundle.json: $.graphs.{graph.name}.{side}"
    if set(declared) != set(specs):
        raise ManifestError(
            f"{at} must be {sorted(declared)} as in {graph.file}, got {sorted(specs)}"
        )
    for name, (kind, shape) in declared.items():
        spec = specs[name]
        element = kind.removeprefix("tensor(").removesuffix(")")
        dtype = _DTYPES.get(element, element)
        if dtype != spec.dtype:
            raise ManifestError(
                f"{at}: {name!r} must have dtype {dtype} as in {graph.file}, got {spec.dtype}"
            )
        # An empty shape may also mean that the file declares none.
        if shape and not _fits(shape, spec.shape, exact=side == "inputs"):
            raise ManifestError(
                f"{at}: {name!r} must have shape {shape} as in {graph.file}, got {list(spec.shape)}"
            )


def _fits(declared: list[Any], shape: tuple[int | str, ...], *, exact: bool) -> bool:
    # A graph that fixes a size refuses others; as an output it is just one that varies little.
    return len(declared) == len(shape) and all(
        ours == theirs or not isinstance(theirs, int) or (isinstance(ours, str) and not exact)
        for ours, theirs in zip(shape, declared, strict=True)
    )


def _raise_load_error(graph: GraphSpec, device: Device, error: Exception) -> NoReturn:
    raise_if_out_of_memory(f"{graph.name}: loading {graph.file}", error)
    kind, text = type(error).__name__, first_line(error)
    if device.kind == "cuda":
        raise UnsupportedModelError(
            f"{graph.name}: {graph.file} cannot run on {device}: {text}",
            hint="device='cpu' may run it",
        ) from None
    damaged = kind in ("InvalidProtobuf", "InvalidArgument", "UnicodeDecodeError")
    cls = ModelError if damaged else UnsupportedModelError
    problem = "is not a valid ONNX model" if damaged else "cannot be run by onnxruntime"
    raise cls(f"{graph.name}: {graph.file} {problem}: {text}") from None
