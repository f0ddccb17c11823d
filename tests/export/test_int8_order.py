"""Quantised graphs list every node behind what it reads, which others than onnxruntime rely on."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

pytest.importorskip("fastvid_export")
from fastvid_export.convert import int8


def test_quantised_graph_is_in_order(rng: np.random.Generator) -> None:
    weights = [
        numpy_helper.from_array(rng.normal(0, 0.1, (8, 8, 3, 3)).astype(np.float32), f"w{i}")
        for i in range(3)
    ]
    nodes = [
        helper.make_node("Conv", [f"x{i}", f"w{i}"], [f"x{i + 1}"], pads=[1] * 4) for i in range(3)
    ]
    shape = [1, 8, 16, 16]
    graph = helper.make_graph(
        # As a quantiser leaves them: what was added last stands last.
        nodes[::-1],
        "convolutions",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("x3", TensorProto.FLOAT, shape)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    with pytest.raises(onnx.checker.ValidationError, match="topologically sorted"):
        onnx.checker.check_model(model)
    onnx.checker.check_model(int8.weights_only(model))
