"""Runs single nodes of the ONNX domain `fastvid` in onnxruntime."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from arrays import BFLOAT16
from numpy.typing import NDArray
from onnx import helper

from fastvid import _core

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def model_of(
    op_type: str, *inputs: NDArray[Any] | None, outputs: int = 1, **attributes: Any
) -> bytes:
    """A graph of one node; its sizes, and the dtypes of its outputs, are left open."""
    names = [f"in{i}" if array is not None else "" for i, array in enumerate(inputs)]
    values = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim
        )
        for name, array in zip(names, inputs, strict=True)
        if array is not None
    ]
    results = [f"out{i}" for i in range(outputs)]
    node = helper.make_node(op_type, names, results, domain="fastvid", **attributes)
    graph = helper.make_graph(
        [node], "one", values, [onnx.ValueInfoProto(name=name) for name in results]
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("fastvid", 1)]
    model = helper.make_model(graph, opset_imports=opsets)
    model.ir_version = 9
    data: bytes = model.SerializeToString()
    return data


def session_of(model: bytes, *, threads: int = 2, provider: str = CPU) -> ort.InferenceSession:
    """A session with the project's ops; on another provider than the CPU, without falling back."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    if provider != CPU:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    options.register_custom_ops_library(_core.__file__)
    return ort.InferenceSession(model, options, providers=[provider], enable_fallback=0)


def run_node(
    op_type: str,
    *inputs: NDArray[Any] | None,
    threads: int = 2,
    outputs: int = 1,
    provider: str = CPU,
    **attributes: Any,
) -> Any:
    """Runs one node; None leaves an optional input out.

    Gives its output, or a list of them with `outputs` above 1.
    """
    model = model_of(op_type, *inputs, outputs=outputs, **attributes)
    session = session_of(model, threads=threads, provider=provider)
    given = {f"in{i}": value_of(array) for i, array in enumerate(inputs) if array is not None}
    found = [array_of(value) for value in session.run_with_ort_values(None, given)]
    return found[0] if outputs == 1 else found


def value_of(array: NDArray[Any]) -> ort.OrtValue:
    """An OrtValue in host memory; NumPy's bfloat16 is unknown to onnxruntime."""
    array = np.ascontiguousarray(array)
    if array.dtype != BFLOAT16:
        return ort.OrtValue.ortvalue_from_numpy(array)
    bits, dtype = array.view(np.uint16), onnx.TensorProto.BFLOAT16
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, dtype)


def array_of(value: ort.OrtValue) -> NDArray[Any]:
    """The other way; the array is a copy."""
    if value.data_type() != "tensor(bfloat16)":
        return value.numpy().copy()
    shape = value.shape()
    bits = ctypes.string_at(value.data_ptr(), 2 * int(np.prod(shape)))
    return np.frombuffer(bits, BFLOAT16).reshape(shape)
