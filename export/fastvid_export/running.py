"""Graphs in onnxruntime on the CPU, as the exporter checks them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnxruntime
from numpy.typing import NDArray

from fastvid import _core
from fastvid_export.errors import ExportError

Arrays = dict[str, NDArray[Any]]
"""Named inputs or outputs of one run."""


class Runner:
    """One graph in onnxruntime on the CPU.

    Args:
        data: The ONNX file.
        threads: CPU threads.
        operators: Whether fastvid's operators are there; without them a portable graph is proven.

    Raises:
        ExportError: onnxruntime refuses the graph.
    """

    def __init__(self, data: bytes, *, threads: int = 1, operators: bool = True) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4
        if operators:
            options.register_custom_ops_library(_core.__file__)
        try:
            self._session = onnxruntime.InferenceSession(
                data, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime raises its own types, which have no common base
            raise ExportError(f"export: onnxruntime refuses the graph: {error}") from error

    def __call__(self, inputs: Arrays, names: Sequence[str] | None = None) -> Arrays:
        """Runs the graph; `names` are the outputs wanted, all by default."""
        wanted = list(names or [output.name for output in self._session.get_outputs()])
        try:
            results = self._session.run(wanted, inputs)
        except Exception as error:
            raise ExportError(f"export: the graph fails in onnxruntime: {error}") from error
        return dict(zip(wanted, results, strict=True))
