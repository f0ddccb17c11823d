"""Small ONNX graphs and bundles around them, made when a test asks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from fastvid.bundle import Bundle, write_bundle

_TYPES = {
    "uint8": TensorProto.UINT8,
    "uint16": TensorProto.UINT16,
    "float32": TensorProto.FLOAT,
    "int64": TensorProto.INT64,
    "bool": TensorProto.BOOL,
}


def tensor(name: str, dtype: str, *shape: int | str) -> dict[str, Any]:
    """An input or output as it stands in a manifest."""
    return {"name": name, "dtype": dtype, "shape": list(shape)}


def _info(spec: dict[str, Any]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(spec["name"], _TYPES[spec["dtype"]], spec["shape"])


def model(
    nodes: list[onnx.NodeProto],
    inputs: list[dict[str, Any]],
    outputs: list[dict[str, Any]],
    initializers: list[onnx.TensorProto] | None = None,
    *,
    opset: int = 18,
    domains: dict[str, int] | None = None,
) -> bytes:
    """Bytes of an ONNX model with one graph."""
    graph = helper.make_graph(
        nodes, "tiny", [*map(_info, inputs)], [*map(_info, outputs)], initializers
    )
    imports = [helper.make_opsetid("", opset)]
    imports += [helper.make_opsetid(name, version) for name, version in (domains or {}).items()]
    made = helper.make_model(graph, opset_imports=imports, ir_version=9)
    return bytes(made.SerializeToString())


X = tensor("x", "float32", "N", 4)
Y = tensor("y", "float32", "N", 4)


def double() -> bytes:
    """y = x + x."""
    return model([helper.make_node("Add", ["x", "x"], ["y"])], [X], [Y])


def endless() -> bytes:
    """Adds x to itself for ever."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["again"], ["again_out"]),
            helper.make_node("Add", ["v", "v"], ["v_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, ["N", 4]),
        ],
        [
            helper.make_tensor_value_info("again_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v_out", TensorProto.FLOAT, ["N", 4]),
        ],
    )
    start = helper.make_tensor("start", TensorProto.BOOL, [], [True])
    return model(
        [helper.make_node("Loop", ["", "start", "x"], ["y"], body=body)], [X], [Y], [start]
    )


def external(location: str, count: int = 400) -> tuple[bytes, bytes]:
    """y = x + w, with w = 1, 2, ... of shape (count / 4, 4) in the file `location`."""
    values = np.arange(1, count + 1, dtype=np.float32)
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[count // 4, 4])
    weights.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": str(4 * count)}.items():
        weights.external_data.add(key=key, value=value)
    node = helper.make_node("Add", ["x", "w"], ["y"])
    return model([node], [X], [Y], [weights]), values.tobytes()


def manifest(**changes: Any) -> dict[str, Any]:
    """A manifest for one graph `run` from X to Y."""
    return {
        "name": "tiny",
        "task": "generator",
        "description": "for tests",
        "licence": "Apache-2.0",
        "provenance": {"weights": "none"},
        "graphs": {"run": {"file": "run.onnx", "inputs": [X], "outputs": [Y]}},
        "size_rule": {"minimum": 1, "multiple_of": 1, "padding": "none"},
        **changes,
    }


def bundle(folder: Path, data: bytes, **changes: Any) -> Bundle:
    """A bundle in `folder` with the one graph `data`, called `run`."""
    return write_bundle(folder, manifest(**changes), {"run.onnx": data})
