"""Inference runtimes behind one small protocol.

A backend is one module here with a `load` function; it imports its runtime inside that function.
Only `device="auto"` and `backend="auto"` choose, and the report says what was chosen and why.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fastvid.backends._cuda import DeviceArray
from fastvid.bundle import Bundle, TensorSpec
from fastvid.devices import parse_device, thread_count
from fastvid.errors import InputError, InputTypeError

if TYPE_CHECKING:
    from fastvid.backends.tensorrt import EngineOptions

__all__ = [
    "BACKENDS",
    "PRECISIONS",
    "Array",
    "DeviceArray",
    "GraphReport",
    "LoadedModel",
    "Report",
    "Session",
    "open",
]

Array = np.ndarray[Any, Any] | DeviceArray
"""What a graph takes: a NumPy array, or one that lies on the session's device."""

BACKENDS = ("auto", "onnxruntime", "openvino", "tensorrt")
PRECISIONS = ("auto", "float32", "float16", "bfloat16", "int8", "int4")


@dataclass(frozen=True)
class GraphReport:
    """What runs one graph."""

    graph: str
    backend: str
    version: str
    """Version of the inference runtime."""
    provider: str
    """The runtime's own name of what executes the nodes."""
    device: str
    threads: int
    """Threads of the CPU provider; other providers use one to feed the device."""
    custom_ops: bool
    """Whether operators of fastvid run inside the graph."""
    shape_nodes_on_cpu: int
    """Nodes that a graph on another device leaves on the CPU, all of them shape arithmetic."""
    file: str
    sha256: str
    load_seconds: float
    cuda_graphs: bool = False
    """Whether runs of a size are recorded and repeated as CUDA graphs."""
    note: str = ""
    """What else is to be known: the engines of TensorRT, and how near their results are."""

    def to_text(self) -> str:
        """One line for people."""
        ops = ", with fastvid operators" if self.custom_ops else ""
        threads = f", {self.threads} threads" if self.device == "cpu" else ""
        shapes = (
            f", {self.shape_nodes_on_cpu} shape nodes on cpu" if self.shape_nodes_on_cpu else ""
        )
        return (
            f"{self.graph}: {self.backend} {self.version}, {self.provider} on {self.device}"
            f"{threads}{ops}{shapes}{f', {self.note}' if self.note else ''}"
        )


@dataclass(frozen=True)
class Report:
    """What runs a model, and why it runs there."""

    model: str
    task: str
    device: str
    backend: str
    precision: str
    reason: str
    """Why this device and backend."""
    graphs: tuple[GraphReport, ...]

    def to_dict(self) -> dict[str, Any]:
        """The report as plain objects."""
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        """The report as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    def to_text(self) -> str:
        """The report for people, one line per graph."""
        lines = [f"{self.model}: {self.backend} on {self.device}, {self.precision}"]
        lines += [f"  {graph.to_text()}" for graph in self.graphs]
        return "\n".join([*lines, f"  because {self.reason}"])

    def __str__(self) -> str:
        return self.to_text()


class Session(Protocol):
    """One graph that is ready to run."""

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """Description of each input by its name."""

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        """Description of each output by its name."""

    @property
    def stream(self) -> int | None:
        """Address of the CUDA stream that runs are queued on; None on the CPU.

        All sessions of a model share it, and `fastvid.ops` take it as `stream=`.
        """

    def run(self, inputs: Mapping[str, Array], *, keep: Collection[str] = ()) -> dict[str, Any]:
        """Runs the graph once; threads may call this at the same time.

        Args:
            inputs: An array for each input, of the dtype, shape and range that `inputs` gives.
                A `DeviceArray` must be on the session's device; its values are not looked at.
            keep: Names of outputs that stay on a CUDA device, as `DeviceArray`, without waiting
                for them. On the CPU it changes nothing.

        Returns:
            An array for each output: of NumPy, or a `DeviceArray` for those in `keep`.

        Raises:
            InputTypeError: An input is not an array, or has another dtype.
            InputError: An input is missing, unknown, on another device, or has another shape or
                range; or `keep` names an output that there is not.
            OutOfMemoryError: The device has too little memory.
            CancelledError: `cancel` was called.
            DeviceError: The runtime failed, or the session is closed.
        """

    def cancel(self) -> None:
        """Stops the runs that are under way, which then raise `CancelledError`.

        A run stops between two nodes of its graph, so large frames delay it.
        """

    def close(self) -> None:
        """Frees the session's memory; it cannot run again."""

    def report(self) -> GraphReport:
        """What runs the graph."""


class LoadedModel(Protocol):
    """All graphs of a bundle, ready to run; a context manager that closes them."""

    @property
    def bundle(self) -> Bundle:
        """The bundle that was opened."""

    def graph(self, name: str) -> Session:
        """The session of one graph.

        Raises:
            InputError: The bundle has no such graph.
        """

    def report(self) -> Report:
        """What runs each graph, and why there."""

    def cancel(self) -> None:
        """Stops the runs that are under way in any graph."""

    def close(self) -> None:
        """Closes all sessions."""

    def __enter__(self) -> LoadedModel: ...

    def __exit__(self, *exception: object) -> None: ...


def open(
    bundle: Bundle,
    *,
    device: str = "auto",
    backend: str | EngineOptions = "auto",
    precision: str = "auto",
    threads: int | None = None,
    check_finite: bool = False,
    low_memory: bool = False,
    cuda_graphs: bool = False,
) -> LoadedModel:
    """Loads every graph of a bundle onto a device.

    Args:
        bundle: The bundle; its files are verified as they are read.
        device: `auto` takes the first CUDA device if all graphs load there, else the CPU, and the
            report says why. `cpu`, `cuda` and `cuda:N` are taken as they are or raise.
        backend: `onnxruntime`; `openvino`, on the CPU only; `tensorrt`, or `EngineOptions` of
            `fastvid.backends.tensorrt`, which builds engines where none are cached and takes
            minutes then; `auto` takes engines that are cached, on the CPU OpenVINO where it is
            installed and the bundle says that it was measured to be faster on such a processor,
            else onnxruntime.
        precision: `auto` is that of the bundle's graphs. `bfloat16` computes the products of
            float32 graphs in it, in OpenVINO, where the bundle says what that costs and the
            processor has it. `int8` and `float16` take the bundle that `fastvid export` made of
            this one beside it. Every other precision than the graphs' own raises, because a bundle
            computes in the precision it was exported with.
        threads: CPU threads of each graph; None takes all CPUs this process may use.
        check_finite: Whether to look for NaN and infinity in every output, which costs time.
        low_memory: Whether memory goes back to the system after each run, which costs time.
        cuda_graphs: Whether runs on CUDA are recorded once per size and then repeated, which saves
            the time to launch kernels one by one. On the CPU it changes nothing, and TensorRT does
            it unless `EngineOptions` say no.

    Returns:
        The loaded model.

    Raises:
        InputError: An argument is not one of those above.
        BackendUnavailableError: The runtime is not installed or not offered.
        NoDeviceError: The device asked for is not there.
        ModelError: A graph is damaged, not supported or not what the manifest says.
        EngineError: TensorRT cannot build an engine of a graph.
        OutOfMemoryError: The graphs do not fit into the memory of the device.
    """
    if not isinstance(bundle, Bundle):
        raise InputTypeError(f"bundle: argument must be a Bundle, got {type(bundle).__name__}")
    target = parse_device(device)
    engines = _engine_options(backend)
    _check_choice("precision", precision, PRECISIONS)
    count = thread_count(threads)
    from fastvid.backends import _choice, onnxruntime

    bundle = _choice.narrow_form(bundle, precision) or bundle
    named = "tensorrt" if engines is not None else str(backend)
    choice = _choice.choose(bundle, target, named, precision)
    options = onnxruntime.Options(
        count, check_finite=check_finite, low_memory=low_memory, cuda_graphs=cuda_graphs
    )
    if engines is not None:
        from fastvid.backends import tensorrt

        return tensorrt.load(bundle, target, engines, options)
    missing = choice.reason if backend == "auto" else ""
    if backend == "auto" and precision in ("auto", bundle.precision):
        from fastvid.backends import tensorrt

        made, without = tensorrt.load_cached(bundle, target, options)
        if made is not None:
            return made
        missing = "; ".join(filter(None, (without, missing)))
    if choice.backend == "openvino":
        from fastvid.backends import openvino

        if target.kind != "auto" or precision not in ("auto", bundle.precision):
            return openvino.load(bundle, options, choice.precision, choice.reason)
        problem = onnxruntime.cuda_problem()
        if problem:
            reason = f"device='auto' found no CUDA device to use: {problem}; {choice.reason}"
            return openvino.load(bundle, options, choice.precision, reason)
        missing = ""
    loaded = onnxruntime.load(bundle, target, options)
    loaded.add_reason(missing)
    return loaded


def _engine_options(backend: object) -> EngineOptions | None:
    """How `backend=` wants TensorRT to be used; None if it does not."""
    if not isinstance(backend, str):
        from fastvid.backends.tensorrt import EngineOptions

        if isinstance(backend, EngineOptions):
            return backend
    _check_choice("backend", backend, BACKENDS)
    if backend != "tensorrt":
        return None
    from fastvid.backends.tensorrt import EngineOptions

    return EngineOptions()


def _check_choice(what: str, value: object, allowed: tuple[str, ...]) -> None:
    if not isinstance(value, str):
        raise InputTypeError(f"{what}: argument must be a string, got {type(value).__name__}")
    if value not in allowed:
        names = ", ".join(map(repr, allowed))
        raise InputError(f"{what}: argument must be one of {names}, got {value[:40]!r}")
