"""From a PyTorch module to a checked ONNX graph.

Every export runs the graph in onnxruntime beside the module, on random and on real inputs, and
refuses when they differ; the differences are returned, to be written into the bundle.
"""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fastvid_export import ops
from fastvid_export.compact import compact
from fastvid_export.errors import ExportError
from fastvid_export.running import Arrays, Runner

OPSET = 18
TOLERANCE = 1e-4
"""Largest difference of a float output, as a share of its range."""
LEVELS = 1
"""Largest difference of a uint8 output: a value on the edge may round either way."""


@dataclass(frozen=True)
class Port:
    """One input or output of a graph, as the manifest describes it."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    """Sizes; a string is a size that varies."""
    range: tuple[float, float] | None = None

    def manifest(self) -> dict[str, Any]:
        """The entry in `bundle.json`."""
        entry: dict[str, Any] = {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}
        return entry if self.range is None else entry | {"range": list(self.range)}


@dataclass(frozen=True)
class GraphPlan:
    """One graph to export and how to check it."""

    name: str
    module: nn.Module
    """Takes the inputs in order; returns one tensor or a tuple of them, in order."""
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    samples: Mapping[str, Sequence[Arrays]]
    """Inputs to check with, by kind, for example `random` and `real`. The first of all is also the
    one that the module is traced with: its varying sizes must be at least 2."""
    compact: bool = False
    """Whether weights that `compact.round_weights` or `compact.halve_weights` rounded are stored in
    fewer bits."""


@dataclass(frozen=True)
class Difference:
    """How far onnxruntime is from PyTorch on one kind of samples."""

    output: str
    samples: str
    value: float
    """Largest difference; a share of the range for floats, levels for uint8."""
    unit: str


@dataclass(frozen=True)
class ExportedGraph:
    """A graph that passed its checks."""

    plan: GraphPlan
    data: bytes
    """The ONNX file."""
    differences: tuple[Difference, ...] = field(default=())

    def manifest(self) -> dict[str, Any]:
        """The entry in `bundle.json`."""
        return {
            "file": f"{self.plan.name}.onnx",
            "inputs": [port.manifest() for port in self.plan.inputs],
            "outputs": [port.manifest() for port in self.plan.outputs],
        }


def export(plan: GraphPlan) -> ExportedGraph:
    """Exports and checks one graph.

    Raises:
        ExportError: The module cannot be traced, onnxruntime does not load the graph, or it
            differs from the module by more than `TOLERANCE` or `LEVELS`.
    """
    data = trace(plan)
    return ExportedGraph(plan, data, tuple(compare(plan, Runner(data))))


def trace(plan: GraphPlan) -> bytes:
    """The ONNX file of a module, with nothing in it that depends on this machine."""
    model = traced(plan)
    return (compact(model) if plan.compact else model).SerializeToString(deterministic=True)


def traced(
    plan: GraphPlan, table: Mapping[Any, Any] | None = None, absent: Collection[str] = ()
) -> onnx.ModelProto:
    """The ONNX model of a module.

    Args:
        plan: What to trace.
        table: Translations of operators; None is that of fastvid's.
        absent: Names of weights whose values are left out; the graph says that they lie in a file
            without a name.

    Raises:
        ExportError: The module cannot be traced.
    """
    first = next(sample for samples in plan.samples.values() for sample in samples)
    example = tuple(torch.from_numpy(first[port.name]) for port in plan.inputs)
    varying = tuple(
        {
            axis: torch.export.Dim.DYNAMIC
            for axis, size in enumerate(port.shape)
            if isinstance(size, str)
        }
        for port in plan.inputs
    )
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # torch's own deprecations, inside its exporter.
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                plan.module.eval(),
                example,
                dynamo=True,
                dynamic_shapes=_as_called(plan.module, varying),
                input_names=[port.name for port in plan.inputs],
                output_names=[port.name for port in plan.outputs],
                opset_version=OPSET,
                custom_translation_table={
                    torch.ops.aten.sort.stable: _sorted,
                    **(table or ops.onnx_translations()),
                },
                verbose=False,
                optimize=not absent,
            )
        except Exception as error:  # the exporter raises many types
            raise ExportError(f"export: {plan.name} cannot be traced: {error}") from error
    assert program is not None
    if absent:
        _leave_out(program, absent)
    return _clean(program.model_proto, plan)


def _sorted(x: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
    """`torch.sort(x, stable=...)`, for which the exporter has no translation.

    ONNX puts the first of equal values first, which PyTorch does too on a CPU if not asked to.
    """
    from onnxscript import opset18 as op

    count = op.Shape(x, start=dim, end=None if dim == -1 else dim + 1)
    return op.TopK(x, count, axis=dim, largest=int(descending), sorted=1)


def _leave_out(program: torch.onnx.ONNXProgram, absent: Collection[str]) -> None:
    """Optimises the graph with some of its weights as inputs, whose values nothing can look at."""
    graph = program.model.graph
    taken = [value for name, value in graph.initializers.items() if name in absent]
    for value in taken:
        del graph.initializers[value.name]
        value.const_value = None
        graph.inputs.append(value)
    program.optimize()
    graph = program.model.graph
    for value in taken:
        graph.inputs.remove(value)
        dtype, shape = value.dtype, value.shape
        assert dtype is not None
        assert isinstance(shape, onnx_ir.Shape)
        value.const_value = onnx_ir.ExternalTensor("", 0, 0, dtype, shape=shape, name=value.name)
        graph.register_initializer(value)


def _as_called(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """One entry per parameter of the module: `*rest` takes the rest as one tuple."""
    parameters = inspect.signature(module.forward).parameters.values()
    named = sum(p.kind is not inspect.Parameter.VAR_POSITIONAL for p in parameters)
    return inputs if named == len(parameters) else (*inputs[:named], inputs[named:])


def _clean(model: onnx.ModelProto, plan: GraphPlan) -> onnx.ModelProto:
    """Drops stack traces and paths of this machine, and names sizes as the manifest does."""
    graph = model.graph
    del model.metadata_props[:], graph.metadata_props[:]
    model.producer_name, model.doc_string, graph.name = "fastvid_export", "", plan.name
    for item in [*graph.node, *graph.input, *graph.output, *graph.initializer, *graph.value_info]:
        del item.metadata_props[:]
        item.doc_string = ""
    for values, ports in ((graph.input, plan.inputs), (graph.output, plan.outputs)):
        for value, port in zip(values, ports, strict=True):
            for dim, size in zip(value.type.tensor_type.shape.dim, port.shape, strict=True):
                if isinstance(size, str):
                    dim.dim_param = size
                else:
                    dim.dim_value = size
    return model


def compare(plan: GraphPlan, runner: Runner) -> list[Difference]:
    """Runs module and graph on all samples of the plan.

    Raises:
        ExportError: They differ by more than is allowed.
    """
    found = []
    for kind, samples in plan.samples.items():
        worst = dict.fromkeys((port.name for port in plan.outputs), 0.0)
        for sample in samples:
            theirs = runner(sample)
            for port, ours in zip(plan.outputs, run_module(plan, sample), strict=True):
                difference = _difference(port, ours, theirs[port.name], f"{plan.name} ({kind})")
                worst[port.name] = max(worst[port.name], difference)
        found += [
            Difference(port.name, kind, worst[port.name], _limit(port)[1]) for port in plan.outputs
        ]
    return found


def run_module(plan: GraphPlan, sample: Arrays) -> list[NDArray[Any]]:
    """What the module itself gives, in the order of the outputs."""
    with torch.no_grad():
        result = plan.module(*(torch.from_numpy(sample[port.name]) for port in plan.inputs))
    tensors = [result] if isinstance(result, Tensor) else list(result)
    return [tensor.numpy() for tensor in tensors]


def _limit(port: Port) -> tuple[float, str]:
    return (LEVELS, "levels") if port.dtype == "uint8" else (TOLERANCE, "of the range")


def _difference(port: Port, ours: NDArray[Any], theirs: NDArray[Any], where: str) -> float:
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        raise ExportError(
            f"export: {port.name} of {where} must be {ours.dtype} {ours.shape} as in PyTorch, "
            f"got {theirs.dtype} {theirs.shape}"
        )
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ExportError(f"export: {port.name} of {where} must be finite")
    difference = float(np.abs(a - b).max(initial=0.0))
    limit, unit = _limit(port)
    if unit != "levels":
        # Of a constant output any scale would do; 1 is that of images.
        span = np.ptp(port.range) if port.range is not None else np.ptp(a) if a.size else 0.0
        difference /= float(span) or 1.0
    if difference > limit:
        raise ExportError(
            f"export: {port.name} of {where} must differ from PyTorch by at most {limit:g} {unit}, "
            f"got {difference:.3g}"
        )
    return difference
