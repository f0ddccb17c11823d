"""The onnxruntime backend: CPU and CUDA providers, named explicitly and checked after loading.

Graphs are loaded from the verified bytes. Nothing in a bundle reaches session or provider options.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Collection, Mapping
from typing import Any, NoReturn

from fastvid._specs import GraphSpec, TensorSpec
from fastvid.backends import GraphReport, Report, _onnxruntime_setup, _placement
from fastvid.backends._checks import InputCheck, check_finite
from fastvid.backends._onnx_file import opset_imports
from fastvid.backends._onnxruntime_setup import (
    CPU,
    CUDA,
    INSTALL_CUDA,
    OPERATOR_DOMAIN,
    OPERATOR_VERSION,
    first_line,
)
from fastvid.backends._worker import Call, Worker
from fastvid.bundle import Bundle
from fastvid.devices import Device
from fastvid.errors import (
    BackendUnavailableError,
    CancelledError,
    DeviceError,
    FastvidError,
    ManifestError,
    ModelError,
    NoDeviceError,
    OutOfMemoryError,
    UnsupportedModelError,
)

# Threads of the runtime that spin between operators save their wake-up, and take the cores from
# decoding and encoding meanwhile.
_SPINNING = False

# Without it a graph loaded from bytes reads weights it names from the working directory.
_NO_FOLDER = "/dev/null/none"

_NO_CPU = "session.disable_cpu_ep_fallback"
_RECORD_PLACEMENT = "session.record_ep_graph_assignment_info"

_FATAL = 4
_OUT_OF_MEMORY = (
    "bad_alloc",
    "out of memory",
    "failed to allocate memory",
    "bad allocation",
    "alloc_failed",
)
_DTYPES = {"float": "float32", "double": "float64"}


class OnnxSession:
    """One graph in an onnxruntime session; see `fastvid.backends.Session`."""

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
    ) -> None:
        self._graph = graph
        self._session: Any = session
        # onnxruntime reads external weights where they lie, as long as the session lives.
        self._keep = keep
        self._worker = worker
        self._check = check
        self._report = report
        self._finite = finite
        self._run_options = _onnxruntime_setup.runtime().RunOptions
        self._names = [spec.name for spec in graph.outputs]
        self._calls: set[Call[Any]] = set()

    @functools.cached_property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """Description of each input by its name."""
        return {spec.name: spec for spec in self._graph.inputs}

    @functools.cached_property
    def outputs(self) -> Mapping[str, TensorSpec]:
        """Description of each output by its name."""
        return {spec.name: spec for spec in self._graph.outputs}

    @property
    def stream(self) -> int | None:
        """None: onnxruntime waits for the device at the end of each run."""
        return None

    def run(self, inputs: Mapping[str, Any], *, keep: Collection[str] = ()) -> dict[str, Any]:
        """Runs the graph once; see `Session.run`."""
        self._check(inputs, keep)
        session = self._session
        if session is None:
            raise DeviceError(f"{self._graph.name}: session is closed")
        options = self._run_options()
        options.log_severity_level = _FATAL

        def run(call: Call[list[Any]]) -> list[Any]:
            call.on_cancel = lambda: setattr(options, "terminate", True)
            self._calls.add(call)
            try:
                result: list[Any] = session.run(self._names, inputs, options)
                return result
            except Exception as error:
                if call.cancelled:
                    raise CancelledError(f"{self._graph.name}: was cancelled") from None
                _raise_run_error(self._graph.name, self._report.device, error)
            finally:
                self._calls.discard(call)

        arrays = self._worker.run(run)
        outputs = dict(zip(self._names, arrays, strict=True))
        if self._finite:
            check_finite(self._graph.name, outputs)
        return outputs

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


class OnnxModel:
    """All graphs of a bundle in onnxruntime; see `fastvid.backends.LoadedModel`."""

    def __init__(
        self, bundle: Bundle, sessions: dict[str, OnnxSession], worker: Worker, report: Report
    ) -> None:
        self._bundle = bundle
        self._sessions = sessions
        self._worker = worker
        self._report = report

    @property
    def bundle(self) -> Bundle:
        """The bundle that was opened."""
        return self._bundle

    def graph(self, name: str) -> OnnxSession:
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

    def __enter__(self) -> OnnxModel:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def load(bundle: Bundle, device: Device, *, threads: int, check_finite: bool) -> OnnxModel:
    """Loads every graph of a bundle; see `fastvid.backends.open`."""
    worker = Worker(f"fastvid-{bundle.name}")
    try:
        loader = _Loader(bundle, worker, threads, check_finite)
        return worker.run(lambda call: loader.load(device, call))
    except BaseException:
        worker.close()
        raise


class _Loader:
    """Opens the graphs of one bundle, on one device after another if need be."""

    def __init__(self, bundle: Bundle, worker: Worker, threads: int, finite: bool) -> None:
        self._bundle = bundle
        self._worker = worker
        self._threads = threads
        self._finite = finite

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
        sessions = {
            name: self._open_graph(graph, device, call) for name, graph in bundle.graphs.items()
        }
        graphs = tuple(session.report() for session in sessions.values())
        report = Report(
            bundle.name, bundle.task, str(device), "onnxruntime", bundle.precision, reason, graphs
        )
        return OnnxModel(bundle, sessions, self._worker, report)

    def _open_graph(self, graph: GraphSpec, device: Device, call: Call[OnnxModel]) -> OnnxSession:
        start = time.perf_counter()
        ort = _onnxruntime_setup.runtime()
        model = self._bundle.read(graph.file)
        external = {path: self._bundle.read(path) for path in graph.external_data}
        custom_ops = _uses_operators(graph, model)
        session, on_cpu = self._create(graph, device, model, external, custom_ops, call)
        _check_signature(graph, "inputs", session.get_inputs())
        _check_signature(graph, "outputs", session.get_outputs())
        report = GraphReport(
            graph=graph.name,
            backend="onnxruntime",
            version=str(ort.__version__),
            provider=CUDA if device.kind == "cuda" else CPU,
            device=str(device),
            threads=self._threads if device.kind == "cpu" else 1,
            custom_ops=custom_ops,
            shape_nodes_on_cpu=on_cpu,
            file=graph.file,
            sha256=self._bundle.files[graph.file].sha256,
            load_seconds=round(time.perf_counter() - start, 6),
        )
        check = InputCheck(graph, self._bundle.size_rule, "cpu")
        keep = list(external.values())
        return OnnxSession(graph, session, keep, self._worker, check, report, finite=self._finite)

    def _create(
        self,
        graph: GraphSpec,
        device: Device,
        model: bytes,
        external: Mapping[str, bytes],
        custom_ops: bool,
        call: Call[OnnxModel],
    ) -> tuple[Any, int]:
        """The session, and how many nodes a session for another device left on the CPU."""
        ort = _onnxruntime_setup.runtime()

        def create(*entries: str) -> Any:
            options = _session_options(ort, graph, device, self._threads, external, custom_ops)
            for entry in entries:
                options.add_session_config_entry(entry, "1")
            if hasattr(options, "set_load_cancellation_flag"):
                call.on_cancel = lambda: options.set_load_cancellation_flag(True)
            # TF32 would round products to 10 bits without anybody having asked.
            cuda = (CUDA, {"device_id": device.index, "use_tf32": 0})
            provider = cuda if device.kind == "cuda" else CPU
            return ort.InferenceSession(model, options, providers=[provider], enable_fallback=0)

        try:
            if device.kind == "cpu":
                return _require_provider(graph, create(), CPU), 0
            try:
                return _require_provider(graph, create(_NO_CPU), CUDA), 0
            except Exception as error:
                if _placement.REFUSED_FALLBACK not in str(error):
                    raise
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
        return session, nodes.total()


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
    threads: int,
    external: Mapping[str, bytes],
    custom_ops: bool,
) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL
    options.intra_op_num_threads = threads if device.kind == "cpu" else 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(_SPINNING)))
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", _NO_FOLDER
    )
    if custom_ops:
        library = _onnxruntime_setup.operators_library()
        try:
            options.register_custom_ops_library(str(library))
        except Exception as error:
            raise BackendUnavailableError(
                f"{graph.name}: operators of fastvid cannot be registered with onnxruntime "
                f"{ort.__version__}: {first_line(error)}"
            ) from None
    if external:
        if not hasattr(options, "add_external_initializers_from_files_in_memory"):
            raise BackendUnavailableError(
                f"{graph.name}: weights beside the graph need a newer onnxruntime than "
                f"{ort.__version__}",
                hint="pip install --upgrade onnxruntime",
            )
        options.add_external_initializers_from_files_in_memory(
            list(external), list(external.values()), [len(data) for data in external.values()]
        )
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


def _raise_if_out_of_memory(what: str, error: Exception) -> None:
    text = str(error).lower()
    if isinstance(error, MemoryError) or any(mark in text for mark in _OUT_OF_MEMORY):
        raise OutOfMemoryError(
            f"{what}: not enough memory: {first_line(error)}", hint="use smaller frames"
        ) from None


def _raise_load_error(graph: GraphSpec, device: Device, error: Exception) -> NoReturn:
    _raise_if_out_of_memory(f"{graph.name}: loading {graph.file}", error)
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


def _raise_run_error(graph: str, device: str, error: Exception) -> NoReturn:
    if isinstance(error, FastvidError):
        raise error
    _raise_if_out_of_memory(f"{graph}: running on {device}", error)
    raise DeviceError(f"{graph}: failed on {device}: {first_line(error)}") from None
