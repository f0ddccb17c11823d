"""What float16 and int8 leave in float32, and how graphs are compared."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bundles
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from fastvid.bundle import Bundle, GraphSpec, TensorSpec
from fastvid.devices import CudaDevice, CudaDriver
from fastvid.errors import BackendUnavailableError
from fastvid_export import engines, export, fidelity, onnx_files
from fastvid_export.compact import compact, expand, on_grid
from fastvid_export.convert import int8, roles
from fastvid_export.convert.half import to_float16
from fastvid_export.convert.standard import to_standard
from fastvid_export.errors import ExportError, FidelityError
from fastvid_export.running import Runner

RNG = np.random.default_rng(0)
FRAME = ["N", 3, "H", "W"]


def uniform(*shape: int) -> NDArray[np.float32]:
    return RNG.random(shape).astype(np.float32)


def flow_graph(scale: float = 3.0) -> onnx.ModelProto:
    """Features of two convolutions, a flow of a third (the head), a warp by `scale` times it."""
    weights = {
        "w0": RNG.normal(0, 0.2, (32, 3, 3, 3)).astype(np.float32),
        "w1": RNG.normal(0, 0.1, (32, 32, 3, 3)).astype(np.float32),
        "w2": RNG.normal(0, 0.1, (8, 32, 3, 3)).astype(np.float32),
        "scale": np.float32(scale),
        "parts": np.array([2, 6], np.int64),
    }
    conv = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["image", "w0"], ["c0"], **conv),
        helper.make_node("Relu", ["c0"], ["r0"]),
        helper.make_node("Conv", ["r0", "w1"], ["c1"], **conv),
        helper.make_node("Add", ["r0", "c1"], ["sum"]),
        helper.make_node("Conv", ["sum", "w2"], ["c2"], **conv),
        helper.make_node("Split", ["c2", "parts"], ["part", "rest"], axis=1),
        helper.make_node("Mul", ["part", "scale"], ["flow"]),
        helper.make_node("Warp", ["image", "flow"], ["out"], domain="fastvid"),
        helper.make_node("ReduceMean", ["rest"], ["mean"], keepdims=1),
        helper.make_node("Add", ["out", "mean"], ["result"]),
    ]
    tensors = [numpy_helper.from_array(np.asarray(a), n) for n, a in weights.items()]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "flow",
        [info("image", TensorProto.FLOAT, FRAME)],
        [info("result", TensorProto.FLOAT, FRAME)],
        tensors,
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("fastvid", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def types_of(model: onnx.ModelProto) -> dict[str, str]:
    found = roles.value_types(model)
    return {name: TensorProto.DataType.Name(kind) for name, kind in found.items()}


def test_coordinates_and_their_head_stay_float32() -> None:
    model = flow_graph()
    before = model.SerializeToString()
    half = to_float16(model)
    assert model.SerializeToString() == before, "the model given was changed"
    types = types_of(half)
    assert [types[name] for name in ("c0", "r0", "c1", "sum")] == ["FLOAT16"] * 4
    assert [types[name] for name in ("c2", "part", "flow", "mean", "result")] == ["FLOAT"] * 5
    # The head's weights are stored narrowly all the same.
    stored = {weight.name: weight.data_type for weight in half.graph.initializer}
    assert stored["w2.half"] == TensorProto.FLOAT16
    assert not {"w0", "w1", "w2"} & set(stored)
    image = uniform(1, 3, 24, 32)
    ours, theirs = (
        Runner(m.SerializeToString())({"image": image})["result"] for m in (half, model)
    )
    assert ours.dtype == np.float32
    assert np.abs(ours - theirs).max() < 5e-3


def test_portable_graphs_keep_them_too() -> None:
    types = types_of(to_float16(to_standard(flow_graph())))
    assert [types[name] for name in ("c0", "c1", "c2", "flow")] == ["FLOAT16"] * 2 + ["FLOAT"] * 2


def test_int8_is_for_what_lies_between_convolutions() -> None:
    # A slope, on which an error of place is a small one of value.
    image = np.broadcast_to(np.linspace(0, 1, 32, dtype=np.float32), (1, 3, 24, 32)).copy()
    model = flow_graph(0.1)
    made = int8.static(model, [{"image": image}, {"image": image[..., ::-1].copy()}])
    assert made is not None
    readers = {name: node.op_type for node in made.graph.node for name in node.input}
    quantised = {n.input[0] for n in made.graph.node if n.op_type == "QuantizeLinear"}
    assert {"image", "c0", "r0", "c1", "sum"} >= quantised >= {"sum"}
    assert not quantised & {"c2", "part", "flow", "out", "result"}
    assert readers["flow"] == "Warp"
    ours, theirs = (
        Runner(m.SerializeToString())({"image": image})["result"] for m in (made, model)
    )
    assert np.abs(ours - theirs).mean() < 0.02


def test_products_round_what_they_read_and_weights_can_be_rounded_alone() -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    info = helper.make_tensor_value_info
    weight = numpy_helper.from_array(RNG.normal(size=(64, 64)).astype(np.float32), "w")
    ends = [info(n, TensorProto.FLOAT, ["N", 64]) for n in "xy"]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    assert int8.static(model, []) is None
    x = uniform(3, 64)
    theirs = Runner(model.SerializeToString())({"x": x})["y"]
    for made in (int8.weights_only(model), int8.dynamic(model)):
        assert made is not None
        assert made.ByteSize() < 0.35 * model.ByteSize()
        ours = Runner(made.SerializeToString())({"x": x})["y"]
        assert np.abs(ours - theirs).max() < 0.03 * np.abs(theirs).max()
    assert "MatMulInteger" in [node.op_type for node in made.graph.node]


def test_graphs_without_products_are_not_quantised_dynamically() -> None:
    assert int8.dynamic(flow_graph()) is None


def test_a_weight_that_float16_cannot_hold_is_refused() -> None:
    model = flow_graph()
    weight = model.graph.initializer[0]
    array = numpy_helper.to_array(weight).copy()
    array[0, 0, 0, 0] = 7e4
    weight.CopyFrom(numpy_helper.from_array(array, "w0"))
    with pytest.raises(ExportError, match=r"w0 must be finite and at most 65504 .*got 70000"):
        to_float16(model)


def test_values_that_loops_read_stay_float32() -> None:
    """A body cannot be told that a value outside of it has another type now."""
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["on"]),
            helper.make_node("Add", ["state", "c0"], ["next"]),
        ],
        "body",
        [
            info("turn", TensorProto.INT64, []),
            info("go", TensorProto.BOOL, []),
            info("state", TensorProto.FLOAT, None),
        ],
        [info("on", TensorProto.BOOL, []), info("next", TensorProto.FLOAT, None)],
    )
    nodes = [
        helper.make_node("Conv", ["image", "w0"], ["c0"], pads=[1, 1, 1, 1]),
        helper.make_node("Loop", ["turns", "", "image"], ["result"], body=body),
    ]
    weights = {"w0": RNG.normal(0, 0.2, (3, 3, 3, 3)).astype(np.float32), "turns": np.int64(3)}
    tensors = [numpy_helper.from_array(np.asarray(a), n) for n, a in weights.items()]
    ends = [info(n, TensorProto.FLOAT, FRAME) for n in ("image", "result")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    image = uniform(1, 3, 8, 8)
    ours, theirs = (
        Runner(m.SerializeToString())({"image": image})["result"]
        for m in (to_float16(model), model)
    )
    np.testing.assert_allclose(ours, theirs, atol=2e-3)


def test_expanding_undoes_compacting(tmp_path: Path) -> None:
    model = onnx_files.load(bundles.conv_upscaler(tmp_path / "up"), "upscale")
    for weight in model.graph.initializer:
        array = numpy_helper.to_array(weight)
        if array.ndim == 4:
            weight.CopyFrom(numpy_helper.from_array(on_grid(array, 0), weight.name))
    arrays = {w.name: numpy_helper.to_array(w) for w in model.graph.initializer}
    again = expand(compact(onnx.ModelProto.FromString(model.SerializeToString())))
    assert {w.name for w in again.graph.initializer} == set(arrays)
    for weight in again.graph.initializer:
        np.testing.assert_array_equal(numpy_helper.to_array(weight), arrays[weight.name])


# Comparing


def compared(ours: NDArray[Any], theirs: NDArray[Any], **port: Any) -> fidelity.FidelityFigure:
    output = TensorSpec("y", str(theirs.dtype), theirs.shape, **port)
    graph = GraphSpec("g", "g.onnx", (), (output,))
    (figure,) = fidelity.compare(
        graph, lambda _: {"y": theirs}, lambda _: {"y": ours}, [{}, {}], "noise"
    )
    return figure


def test_figures_are_those_of_their_definitions() -> None:
    theirs = RNG.integers(0, 255, (4, 5), np.uint8)
    ours = theirs.copy()
    ours[0, 0] += 1
    figure = compared(ours, theirs)
    assert (figure.max_error, figure.unit) == (1, "levels")
    assert figure.psnr == pytest.approx(10 * np.log10(255**2 * 20), abs=0.01)
    a, b = ours.astype(float).ravel(), theirs.astype(float).ravel()
    assert figure.cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-6)
    assert compared(theirs, theirs).psnr is None
    floats = uniform(4, 5)
    ranged = compared(floats + np.float32(0.02), floats, range=(-1.0, 1.0))
    assert ranged.max_error == pytest.approx(0.01, rel=1e-3)
    assert ranged.psnr == pytest.approx(40, abs=0.01)
    zero = np.zeros((2, 2), np.float32)
    assert (compared(zero, zero).cosine, compared(zero + 1, zero).cosine) == (1.0, 0.0)


def test_outputs_that_cannot_be_compared_are_refused() -> None:
    y = uniform(2, 2)
    with pytest.raises(ExportError, match=r"y of g must be float32 \(2, 2\), got float32 \(2, 1\)"):
        compared(y[:, :1], y)
    with pytest.raises(FidelityError, match="must be finite"):
        compared(y * np.float32("nan"), y)
    with pytest.raises(ExportError, match="was given nothing"):
        fidelity.compare(GraphSpec("g", "", (), ()), None, None, [], "noise")  # type: ignore[arg-type]


def test_gates_say_which_limit_is_missed() -> None:
    gate = fidelity.Gate(pictures=40, values=30, cosine=0.99)
    y = uniform(8, 8)
    figure = compared(y + np.float32(0.05) * uniform(8, 8), y, range=(0.0, 1.0))
    assert fidelity.failure([figure], gate) == ""
    assert "at least 60 dB, got" in fidelity.failure([figure], gate, psnr=60)
    flat = compared(np.full((2, 2), 0.01, np.float32), -np.full((2, 2), 0.01, np.float32),
                    range=(-9.0, 9.0))  # fmt: skip
    assert "cosine of y of g on noise must be at least 0.99, got -1" in fidelity.failure(
        [flat], gate
    )


# Engines, with a backend that only says what it was asked


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    asked: list[Any] = []

    def build(bundle: Bundle, device: Any, options: Any, *, progress: Any) -> tuple[Path, ...]:
        progress(SimpleNamespace(graph="upscale", size="720p", phase="p", to_text=lambda: "built"))
        asked.append((bundle.precision, str(device), options))
        if options == ("fail",):
            raise BackendUnavailableError("engine: no")
        return (Path("engine"),)

    backend = SimpleNamespace(EngineOptions=lambda sizes: sizes, build=build)
    device = CudaDevice(0, "GPU", (9, 0), 1 << 34)
    monkeypatch.setattr(engines, "cuda_driver", lambda: CudaDriver((device,), "13.0"))
    monkeypatch.setattr(engines, "_backend", lambda: backend)
    return asked


def test_an_engine_is_built_from_the_bundle_that_is_written(gpu: list[Any], tmp_path: Path) -> None:
    made = bundles.conv_upscaler(tmp_path / "up")
    lines: list[str] = []
    path = export(made.path, "engine", sizes=("1080p",), say=lines.append)
    assert path == tmp_path / "up-engine"
    assert gpu == [("float16", "cuda:0", ("1080p",))]
    assert Bundle.load(path).precision == "float16"
    assert "built" in lines


def test_engines_have_no_products_that_find_their_ranges(gpu: list[Any], tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    import generators

    assert tokenizers
    made = generators.bundle(tmp_path / "gen")
    path = export(made.path, "engine", precision="int8")
    kinds = {n.op_type for g in made.graphs for n in onnx.load(path / f"{g}.onnx").graph.node}
    assert "DynamicQuantizeLinear" not in kinds


def test_where_an_engine_cannot_be_built_nothing_is_written(gpu: list[Any], tmp_path: Path) -> None:
    made = bundles.conv_upscaler(tmp_path / "up")
    with pytest.raises(BackendUnavailableError, match="engine: no"):
        export(made.path, "engine", sizes=("fail",))
    assert [path.name for path in tmp_path.iterdir()] == ["up"]
    with pytest.raises(BackendUnavailableError, match="cuda:3 is not one"):
        export(made.path, "engine", device="cuda:3")


def test_engines_read_int8_around_zero_and_processors_uint8() -> None:
    model = flow_graph()
    samples = [{"image": uniform(1, 3, 24, 32)}]
    for symmetric, kind in ((True, TensorProto.INT8), (False, TensorProto.UINT8)):
        made = int8.static(model, samples, symmetric=symmetric)
        assert made is not None
        weights = {w.name: w for w in made.graph.initializer}
        zeros = [weights[n.input[2]] for n in made.graph.node if n.op_type == "QuantizeLinear"]
        assert {zero.data_type for zero in zeros} == {kind}
        assert not symmetric or not any(numpy_helper.to_array(zero).any() for zero in zeros)
