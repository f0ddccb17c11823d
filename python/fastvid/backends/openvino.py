"""The OpenVINO backend: float32 graphs on the CPU, their products in float32 or bfloat16, and int8.

Graphs are read from the verified bytes, fastvid's operators run inside them, and compiled models
are never kept: they are native code. What is computed in is always said, because OpenVINO would
choose for itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, NoReturn

from fastvid._specs import GraphSpec, TensorSpec
from fastvid.backends import GraphReport, Report, _openvino_ops
from fastvid.backends import _openvino_setup as setup
from fastvid.backends._checks import InputCheck, check_finite
from fastvid.backends._described import Described
from fastvid.backends._loaded import Loaded
from fastvid.backends._onnx_file import opset_imports
from fastvid.backends._onnx_weights import in_one_piece
from fastvid.backends._openvino_plan import Chain, Plan, Shapes, compile_plan
from fastvid.backends._worker import Call, Worker
from fastvid.backends.onnxruntime import Options
from fastvid.backends.onnxruntime_session import raise_if_out_of_memory
from fastvid.bundle import Bundle
from fastvid.errors import (
    CancelledError,
    DeviceError,
    FastvidError,
    ManifestError,
    ModelError,
    UnsupportedModelError,
)

_DTYPES = {
    "boolean": "bool", "u8": "uint8", "i8": "int8", "u16": "uint16", "i16": "int16",
    "i32": "int32", "i64": "int64", "f16": "float16", "f32": "float32", "f64": "float64",
}  # fmt: skip
_NO_RULE = "No conversion rule"
_MOST_ROUNDS = 1 << 20
_SIZES = 4
"""Sets of input shapes that a graph stays compiled for."""


def load(bundle: Bundle, options: Options, precision: str, reason: str) -> Loaded:
    """Compiles every graph of a bundle; see `fastvid.backends.open`.

    Args:
        bundle: The bundle.
        options: How graphs are run.
        precision: What products are computed in: one of `setup.TYPES`, or the bundle's own.
        reason: Why this backend and precision.
    """
    module = setup.runtime()
    worker = Worker(f"fastvid-{bundle.name}")
    try:
        loader = _Loader(module, bundle, worker, options, precision)
        sessions = worker.run(lambda _: loader.sessions())
    except BaseException:
        worker.close()
        raise
    graphs = tuple(session.report() for session in sessions.values())
    report = Report(bundle.name, bundle.task, "cpu", "openvino", precision, reason, graphs)
    return Loaded(bundle, sessions, worker, report)


class OpenVinoSession(Described):
    """One graph in OpenVINO; see `fastvid.backends.Session`.

    It is compiled for each set of input shapes when they first come, which takes a tenth of a
    second for a small network: fixed sizes run up to a third faster than ones that may vary.

    Args:
        graph: The graph's description.
        make: Compiles the graph for shapes of its inputs.
        worker: The thread that runs are handed to.
        check: Checks the inputs.
        report: What runs the graph.
        options: How it is run.
    """

    def __init__(
        self,
        graph: GraphSpec,
        make: Callable[[Shapes], Plan],
        worker: Worker,
        check: InputCheck,
        report: GraphReport,
        options: Options,
    ) -> None:
        self._graph = graph
        self._make: Callable[[Shapes], Plan] | None = make
        self._worker = worker
        self._check = check
        self._report = report
        self._options = options
        self._plans: dict[tuple[tuple[int, ...], ...], Plan] = {}
        self._most = 1 if options.low_memory else _SIZES
        self._lock = threading.Lock()
        self._calls: set[Call[Any]] = set()

    @property
    def stream(self) -> int | None:
        """None: it runs on the CPU."""
        return None

    def run(self, inputs: Mapping[str, Any], *, keep: Collection[str] = ()) -> dict[str, Any]:
        """Runs the graph once; see `Session.run`."""
        self._check(inputs, keep)
        self._require_open()
        outputs = self._worker.run(lambda call: self._guarded(call, inputs))
        if self._options.check_finite:
            check_finite(self._graph.name, outputs)
        return outputs

    def _require_open(self) -> Callable[[Shapes], Plan]:
        make = self._make
        if make is None:
            raise DeviceError(f"{self._graph.name}: session is closed")
        return make

    def _guarded(self, call: Call[Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs of a run, which `cancel` can end; its errors are of fastvid's types."""
        self._calls.add(call)
        try:
            plan, chain = self._take(inputs)
            call.on_cancel = chain.cancel
            if call.cancelled:
                raise CancelledError(f"{self._graph.name}: was cancelled")
            outputs = chain.run(inputs)
        except FastvidError:
            raise
        except Exception as error:
            if call.cancelled:
                raise CancelledError(f"{self._graph.name}: was cancelled") from None
            _raise_run_error(self._graph.name, error)
        finally:
            self._calls.discard(call)
        if not self._options.low_memory:
            with self._lock:
                plan.idle.append(chain)
        return outputs

    def _take(self, inputs: Mapping[str, Any]) -> tuple[Plan, Chain]:
        """What runs inputs of these shapes, and requests that no other run uses."""
        shapes = {spec.name: inputs[spec.name].shape for spec in self._graph.inputs}
        key = tuple(shapes.values())
        with self._lock:
            make = self._require_open()
            # The plan that was used last is the last to go.
            plan = self._plans.pop(key, None) or make(shapes)
            self._plans[key] = plan
            while len(self._plans) > self._most:
                del self._plans[next(iter(self._plans))]
            chain = plan.idle.pop() if plan.idle else None
        return plan, chain or plan.chain()

    def cancel(self) -> None:
        """Stops the runs that are under way; see `Session.cancel`."""
        for call in tuple(self._calls):
            call.cancel()

    def close(self) -> None:
        """Frees the session's memory once its runs have ended."""
        with self._lock:
            self._make = None
            self._plans.clear()

    def report(self) -> GraphReport:
        """What runs the graph."""
        return self._report


class _Loader:
    """Compiles the graphs of one bundle."""

    def __init__(
        self, module: Any, bundle: Bundle, worker: Worker, options: Options, precision: str
    ) -> None:
        self._module = module
        self._bundle = bundle
        self._worker = worker
        self._options = options
        self._precision = precision if precision in setup.TYPES else "float32"

    def sessions(self) -> dict[str, OpenVinoSession]:
        """The session of each graph."""
        return {name: self._open(graph) for name, graph in self._bundle.graphs.items()}

    def _open(self, graph: GraphSpec) -> OpenVinoSession:
        start = time.perf_counter()
        model = self._bundle.read(graph.file)
        external = {path: self._bundle.read(path) for path in graph.external_data}
        try:
            domains = opset_imports(model)
            whole = in_one_piece(model, external)
        except ValueError as error:
            raise ModelError(f"{graph.file}: must be an ONNX model: {error}") from None
        _openvino_ops.check_version(graph.file, domains)
        try:
            registered = _openvino_ops.Registered(self._module, self._options.threads)
            read = registered.read(whole)
            del whole
            _check_loops(graph, read)
            _check_signature(graph, "inputs", read.inputs)
            _check_signature(graph, "outputs", read.outputs)
        except FastvidError:
            raise
        except Exception as error:
            _raise_load_error(graph, error)
        outputs = [spec.name for spec in graph.outputs]

        def make(shapes: Shapes) -> Plan:
            threads = self._options.threads
            return compile_plan(registered, read, shapes, outputs, self._precision, threads)

        report = GraphReport(
            graph=graph.name,
            backend="openvino",
            version=setup.version(self._module),
            provider=setup.CPU,
            device="cpu",
            threads=self._options.threads,
            custom_ops=_openvino_ops.DOMAIN in domains,
            shape_nodes_on_cpu=0,
            file=graph.file,
            sha256=self._bundle.files[graph.file].sha256,
            load_seconds=round(time.perf_counter() - start, 6),
        )
        check = InputCheck(graph, self._bundle.size_rule, "cpu")
        return OpenVinoSession(graph, make, self._worker, check, report, self._options)


def _check_loops(graph: GraphSpec, model: Any) -> None:
    """Refuses loops that need not end: OpenVINO cannot be stopped inside one."""
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Loop":
            continue
        limit = node.input_value(0).get_node()
        rounds = int(limit.get_data().ravel()[0]) if limit.get_type_name() == "Constant" else 0
        if not 0 <= rounds <= _MOST_ROUNDS:
            raise UnsupportedModelError(
                f"{graph.name}: {graph.file} holds a Loop without a limit, and openvino cannot be "
                "stopped inside one",
                hint="backend='onnxruntime' runs it",
            )


def _check_signature(graph: GraphSpec, side: str, ports: list[Any]) -> None:
    """Compares what the ONNX file declares with what the manifest says."""
    specs: dict[str, TensorSpec] = {spec.name: spec for spec in getattr(graph, side)}
    at = f"bundle.json: $.graphs.{graph.name}.{side}"
    found = {}
    for port in ports:
        names = port.get_names()
        name = next((name for name in specs if name in names), None)
        found[name or next(iter(sorted(names)), "")] = port
    if set(found) != set(specs) or len(ports) != len(specs):
        raise ManifestError(f"{at} must be {sorted(found)} as in {graph.file}, got {sorted(specs)}")
    for name, port in found.items():
        spec = specs[name]
        kind = port.element_type.get_type_name()
        dtype = _DTYPES.get(kind, kind)
        if dtype != spec.dtype:
            raise ManifestError(
                f"{at}: {name!r} must have dtype {dtype} as in {graph.file}, got {spec.dtype}"
            )
        shape = port.partial_shape
        if shape.rank.is_dynamic:
            continue
        declared = [None if size.is_dynamic else size.get_length() for size in shape]
        if not _fits(declared, spec.shape, exact=side == "inputs"):
            shown = ["?" if size is None else size for size in declared]
            raise ManifestError(
                f"{at}: {name!r} must have shape {shown} as in {graph.file}, got {list(spec.shape)}"
            )


def _fits(declared: list[int | None], shape: tuple[int | str, ...], *, exact: bool) -> bool:
    # A graph that fixes a size refuses others; as an output it is just one that varies little.
    return len(declared) == len(shape) and all(
        theirs is None or ours == theirs or (isinstance(ours, str) and not exact)
        for ours, theirs in zip(shape, declared, strict=True)
    )


def _raise_load_error(graph: GraphSpec, error: Exception) -> NoReturn:
    raise_if_out_of_memory(f"{graph.name}: loading {graph.file}", error)
    text = setup.first_line(error)
    known = _NO_RULE in str(error) or "not supported" in str(error).lower()
    if known:
        raise UnsupportedModelError(
            f"{graph.name}: {graph.file} cannot be run by openvino: {text}",
            hint="backend='onnxruntime' may run it",
        ) from None
    raise ModelError(
        f"{graph.name}: {graph.file} cannot be run by openvino: {text}",
        hint="it may be damaged; backend='onnxruntime' says more",
    ) from None


def _raise_run_error(graph: str, error: Exception) -> NoReturn:
    if isinstance(error, FastvidError):
        raise error
    raise_if_out_of_memory(f"{graph}: running on cpu", error)
    raise DeviceError(f"{graph}: failed on cpu: {setup.first_line(error)}") from None
