"""Graphs for TensorRT: rewritten on the wire, read back with `onnx`, and run for what they mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from tensorrt_graphs import runnable

from fastvid import _core
from fastvid.backends import _protobuf
from fastvid.backends.tensorrt import _reference, _shapes
from fastvid.backends.tensorrt._graph import plugin_graph
from fastvid.backends.tensorrt._options import EngineOptions, FrameSize, frame_sizes
from fastvid.bundle import Bundle, SizeRule, TensorSpec
from fastvid.errors import EngineLoadError, InputError

FLOATS = TensorProto.FLOAT


def model(*nodes: onnx.NodeProto, functions: list[onnx.FunctionProto] | None = None) -> bytes:
    """A graph from x (1, 3, 8, 8) to y."""
    x = helper.make_tensor_value_info("x", FLOATS, [1, 3, 8, 8])
    y = helper.make_tensor_value_info("y", FLOATS, None)
    graph = helper.make_graph(list(nodes), "graph", [x], [y])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("fastvid", 1)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=9, functions=functions or [])
    return bytes(made.SerializeToString())


def node(kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, outputs, domain="fastvid", **attributes)


def run(data: bytes, **inputs: Any) -> list[Any]:
    options = ort.SessionOptions()
    options.register_custom_ops_library(_core.__file__)
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return list(session.run(None, inputs))


@pytest.mark.parametrize(
    "path", ["interpolator-fast/between.onnx", "upscaler-fast-x2/upscale.onnx"]
)
def test_shipped_graphs_mean_the_same_as_plugins(path: str) -> None:
    name = Path(path).parent.name
    bundle = Bundle.find(name, name.partition("-")[0])
    graph = bundle.graph(Path(path).stem)
    data = bundle.read(graph.file)
    made = plugin_graph(data)
    assert made.plugins
    assert not made.missing
    assert len(made.model) < len(data) + 4096, "weights are carried over, not copied"
    sizes = {"N": 1, "H": 48, "W": 64, "h4": 12, "w4": 16, "h16": 3, "w16": 4}
    shapes = _shapes.shapes_at(graph.inputs, sizes)
    inputs = {s.name: _reference.pattern(s, shapes[s.name]) for s in graph.inputs}
    back = runnable(onnx.load_from_string(made.model)).SerializeToString()
    for wanted, got in zip(run(data, **inputs), run(back, **inputs), strict=True):
        np.testing.assert_array_equal(wanted, got)


def test_graph_without_our_operators_stays_as_it_is() -> None:
    data = model(helper.make_node("Relu", ["x"], ["y"]))
    made = plugin_graph(data)
    assert made.model is data
    assert (made.plugins, made.missing) == ((), ())


def test_missing_plugins_are_described() -> None:
    data = model(
        node("Downscale", ["x"], ["a"]),
        node("InverseSearch", ["a", "a"], ["y", "z"], name="search"),
        node("Warp", ["x"], ["b"]),
    )
    made = plugin_graph(data)
    assert made.missing == (
        "InverseSearch (search) of 2 inputs and {}",
        "Warp (b) of 1 inputs and {}",
    )
    assert made.model is data


def test_bodies_of_branches_and_functions_are_changed_too() -> None:
    then = helper.make_graph(
        [node("Downscale", ["x"], ["small"], factor=2)],
        "then",
        [],
        [helper.make_tensor_value_info("small", FLOATS, None)],
    )
    other = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["same"])],
        "else",
        [],
        [helper.make_tensor_value_info("same", FLOATS, None)],
    )
    function = helper.make_function(
        "mine",
        "Half",
        ["a"],
        ["b"],
        [node("Downscale", ["a"], ["b"], factor=4)],
        [helper.make_opsetid("fastvid", 1)],
    )
    constant = helper.make_node(
        "Constant", [], ["flag"], value=helper.make_tensor("v", TensorProto.BOOL, [], [True])
    )
    branch = helper.make_node("If", ["flag"], ["z"], then_branch=then, else_branch=other)
    call = helper.make_node("Half", ["z"], ["y"], domain="mine")
    made = plugin_graph(model(constant, branch, call, functions=[function]))
    assert made.plugins == ("Downscale",)
    read = onnx.load_from_string(made.model)
    inside = helper.get_node_attr_value(read.graph.node[1], "then_branch").node[0]
    for plugin, factor in ((inside, b"2"), (read.functions[0].node[0], b"4")):
        found = {a.name: helper.get_attribute_value(a) for a in plugin.attribute}
        assert (found["factor"], found["aot"]) == (factor, 1)


def test_negative_and_float_attributes_become_text() -> None:
    data = model(
        node("Attention", ["x", "x", "x"], ["y"], causal=1, scale=-0.125),
    )
    (made,) = onnx.load_from_string(plugin_graph(data).model).graph.node
    found = {a.name: helper.get_attribute_value(a) for a in made.attribute}
    assert (found["causal"], found["scale"]) == (b"1", b"-0.125")


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x05ab", b"\x3a\x02\x0a\x09", b"\x0b\x0b"])
def test_what_is_no_model_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        plugin_graph(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_kept(data: bytes) -> None:
    try:
        made = plugin_graph(data)
    except ValueError:
        return
    assert made.model == data


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_numbers_of_the_wire_are_those_of_protobuf(value: int) -> None:
    attribute = onnx.AttributeProto(i=value)
    assert _protobuf.number(3, value) == attribute.SerializeToString()
    (field,) = _protobuf.fields(attribute.SerializeToString())
    assert field.value == value % (1 << 64)


# Sizes


def test_named_sizes_keep_the_rule() -> None:
    rule = SizeRule(minimum=20, multiple_of=16, padding="edge")
    assert frame_sizes(None, rule) == (
        FrameSize("720p", (32, 32), (720, 1280), (720, 1280)),
        FrameSize("1080p", (32, 32), (1088, 1920), (1088, 1920)),
    )
    assert frame_sizes(("100x50",), rule) == (FrameSize("100x50", (64, 112), (64, 112), (64, 112)),)
    none = SizeRule(minimum=16, multiple_of=64, padding="none")
    (size,) = frame_sizes(("720p",), none)
    assert (size.low, size.high) == ((64, 64), (704, 1280))
    with pytest.raises(InputError, match="multiples of 64"):
        frame_sizes(("100x50",), none)
    assert len(frame_sizes(("720p", "720p"), rule)) == 1


def test_generators_know_their_sizes(tmp_path: Path) -> None:
    import generators

    bundle = generators.bundle(tmp_path / "generator-tiny")
    (size,) = frame_sizes(("24x16",), bundle.size_rule)
    found = _shapes.known_ranges(bundle, EngineOptions(shapes={"K": (1, 2, 3)}), size)
    assert {name: tuple(found[name]) for name in "NTLhwK"} == {
        "N": (1, 2, 2), "T": (1, 3, 9), "L": (1, 8, 8), "h": (2, 2, 2), "w": (3, 3, 3),
        "K": (1, 2, 3),
    }  # fmt: skip


# Golden results


@pytest.mark.parametrize(
    ("dtype", "limits", "expected"),
    [
        ("uint8", None, (0, 255)),
        ("float32", (0.0, 1.0), (0, 1)),
        ("float32", None, (-1.5, 1.5)),
        ("float16", (-2.0, 0.0), (-2, 0)),
        ("int64", None, (0, 1)),
        ("bool", None, (0, 1)),
    ],
)
def test_patterns_fill_their_range(
    dtype: str, limits: tuple[float, float] | None, expected: tuple[float, float]
) -> None:
    spec = TensorSpec("x", dtype, (1, "H", "W", 3), limits)
    array = _reference.pattern(spec, (1, 40, 50, 3))
    assert array.dtype == np.dtype(dtype)
    assert array.shape == (1, 40, 50, 3)
    low, high = float(array.min()), float(array.max())
    assert expected[0] <= low < high <= expected[1]
    assert high - low > (expected[1] - expected[0]) / 2
    np.testing.assert_array_equal(array, _reference.pattern(spec, (1, 40, 50, 3)))
    other = TensorSpec("other", dtype, spec.shape, limits)
    assert not np.array_equal(array, _reference.pattern(other, (1, 40, 50, 3)))


@pytest.mark.parametrize("shape", [(3, 5), (40, 50, 60)])
def test_results_near_enough_pass_and_others_do_not(
    rng: np.random.Generator, shape: tuple[int, ...]
) -> None:
    y = rng.normal(size=shape).astype(np.float32)
    kept = _reference.golden({"y": y}, "float32")
    assert _reference.compare(kept, {"y": y}, "engine") == 0
    near = y + rng.normal(0, 0.002, shape).astype(np.float32)
    assert 0.0005 < _reference.compare(kept, {"y": near}, "engine") < 0.01
    wrong = {
        "must be within": [y + 0.05, y * 1.05, y[::-1].copy(), np.zeros_like(y), y * 0 + y.mean()],
        "must be float32": [y.astype(np.float16), y[..., :-1].copy()],
        "must be finite": [np.where(y == y.reshape(-1)[-1], np.nan, y), y + np.float32("inf")],
    }
    for said, arrays in wrong.items():
        for array in arrays:
            with (
                np.errstate(all="ignore"),
                pytest.raises(EngineLoadError, match=f"engine: output 'y' {said}"),
            ):
                _reference.compare(kept, {"y": array.astype(array.dtype)}, "engine")


def test_coarser_precisions_may_differ_more() -> None:
    order = [_reference.TOLERANCE[p] for p in ("float32", "float16", "bfloat16", "int8")]
    assert order == sorted(order)
    assert order[-1] < 0.2
