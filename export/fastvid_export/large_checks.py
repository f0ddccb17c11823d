"""Large graphs beside their modules, with the weights of one layer at a time in memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime
import torch.nn.functional as F
from torch import Tensor, nn

from fastvid import _core
from fastvid._specs import FidelityFigure, graph_spec
from fastvid_export import fidelity, mapped_pages
from fastvid_export.errors import ExportError, FidelityError
from fastvid_export.onnx import GraphPlan, run_module
from fastvid_export.running import Arrays
from fastvid_export.weight_files import Weights

_PACKED = b"MatMulNBits"


class LargeRunner:
    """A graph in onnxruntime on the CPU, its weights mapped from files.

    Args:
        data: The ONNX file.
        folder: Holds the files that it names.
        threads: CPU threads; 0 is onnxruntime's choice.

    Raises:
        ExportError: onnxruntime refuses the graph.
    """

    def __init__(self, data: bytes, folder: Path, *, threads: int = 0) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4
        options.enable_cpu_mem_arena = False
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(folder)
        )
        # Packing makes copies; only products of few bits need it.
        packing = "0" if _PACKED in data else "1"
        options.add_session_config_entry("session.disable_prepacking", packing)
        options.register_custom_ops_library(_core.__file__)
        try:
            self._session = onnxruntime.InferenceSession(
                data, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors have no common base
            raise ExportError(f"export: onnxruntime refuses the graph: {error}") from error
        self._names = [output.name for output in self._session.get_outputs()]

    def __call__(self, inputs: Arrays) -> Arrays:
        """Runs the graph."""
        try:
            results = self._session.run(self._names, inputs)
        except Exception as error:
            raise ExportError(f"export: the graph fails in onnxruntime: {error}") from error
        return dict(zip(self._names, results, strict=True))


def check(
    plan: GraphPlan,
    data: bytes,
    folder: Path,
    weights: Weights,
    names: Mapping[str, str],
    precision: str,
) -> list[FidelityFigure]:
    """Runs a graph beside its module in float32; one figure per output and kind of samples.

    Args:
        plan: The module and the samples.
        data: The ONNX file.
        folder: Holds its weight files.
        weights: The checkpoint.
        names: Names in the checkpoint by the module's keys.
        precision: Whose gate is to be reached.

    Raises:
        FidelityError: The graph is below its gate.
    """
    entry = {
        "file": f"{plan.name}.onnx",
        "inputs": [port.manifest() for port in plan.inputs],
        "outputs": [port.manifest() for port in plan.outputs],
    }
    spec = graph_spec(plan.name, entry)
    expected = {kind: _expected(plan, s, weights, names) for kind, s in plan.samples.items()}
    figures = []
    with mapped_pages.bounded(folder):
        runner = LargeRunner(data, folder)
        for kind, samples in plan.samples.items():
            right = iter(expected[kind])
            where = f"{kind} inputs, beside PyTorch"
            figures += fidelity.compare(spec, lambda _: next(right), runner, samples, where)  # noqa: B023
    if problem := fidelity.failure(figures, fidelity.GATES[precision]):
        raise FidelityError(f"fidelity: {problem}", hint="--precision float32 loses nothing")
    return figures


def _expected(
    plan: GraphPlan, samples: Sequence[Arrays], weights: Weights, names: Mapping[str, str]
) -> list[Arrays]:
    outputs = [port.name for port in plan.outputs]
    with streamed(plan.module, weights, names):
        return [dict(zip(outputs, run_module(plan, sample), strict=True)) for sample in samples]


@contextlib.contextmanager
def streamed(module: nn.Module, weights: Weights, names: Mapping[str, str]) -> Iterator[None]:
    """Lets a module compute with weights that are read, as float32, whenever they are used.

    Args:
        module: Its own weights are not looked at.
        weights: The checkpoint.
        names: Names in the checkpoint by the module's keys.
    """
    with contextlib.ExitStack() as stack:
        for path, owner in module.named_modules():
            prefix = f"{path}." if path else ""
            for kind in ("_parameters", "_buffers"):
                own = getattr(owner, kind)
                there = {key: names[prefix + key] for key in own if prefix + key in names}
                if there:
                    lazy = _Lazy(own, weights, there)
                    stack.callback(setattr, owner, kind, own)
                    setattr(owner, kind, lazy)
            if isinstance(owner, nn.Embedding) and f"{prefix}weight" in names:
                stack.callback(owner.__dict__.pop, "forward")
                owner.__dict__["forward"] = _Lookup(weights, names[f"{prefix}weight"])
        yield


class _Lazy(dict[str, Any]):
    """The parameters of a module, each read when it is asked for."""

    def __init__(self, own: Mapping[str, Any], weights: Weights, names: Mapping[str, str]) -> None:
        super().__init__(own)
        self._weights, self._names = weights, names

    def __getitem__(self, key: str) -> Any:
        if key not in self._names:
            return super().__getitem__(key)
        value = self._weights.read(self._names[key])
        wide = value.float() if value.is_floating_point() else value
        return wide.reshape(super().__getitem__(key).shape)


class _Lookup:
    """An embedding in a table that is not widened as a whole."""

    def __init__(self, weights: Weights, name: str) -> None:
        self._weights, self._name = weights, name

    def __call__(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self._weights.read(self._name)).float()
