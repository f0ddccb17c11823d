"""fastvid's operators inside OpenVINO's graphs: the same answers as in onnxruntime."""

from __future__ import annotations

import gc
import re
from pathlib import Path
from typing import Any

import ml_dtypes
import nodes
import numpy as np
import onnx
import pytest
import tiny_models as tiny
from onnx import helper, numpy_helper

from fastvid import Interpolator, Upscaler, backends
from fastvid.backends import _openvino_ops
from fastvid.bundle import Bundle
from fastvid.errors import DeviceError
from fastvid.scene import Scene

pytest.importorskip("openvino", reason="openvino is not installed")


def _open(bundle: Bundle, **options: Any) -> backends.LoadedModel:
    return backends.open(bundle, **{"device": "cpu", "backend": "openvino", **options})


def _frames(count: int = 2, height: int = 96, width: int = 128) -> list[np.ndarray[Any, Any]]:
    scene = Scene(width, height, seed=5)
    return [scene.draw(0.4 + t / 30) for t in range(count)]


def _both(make: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """What onnxruntime and OpenVINO draw, as integers."""
    return tuple(  # type: ignore[return-value]
        make({"device": "cpu", "backend": name, "threads": 2}).astype(np.int16)
        for name in ("onnxruntime", "openvino")
    )


def test_shipped_upscaler_draws_the_same() -> None:
    (frame,) = _frames(1)
    theirs, ours = _both(lambda options: Upscaler(**options).upscale_frame(frame))
    assert np.abs(ours - theirs).max() <= 1


def test_shipped_interpolator_draws_the_same() -> None:
    frames = _frames(3)

    def draw(options: dict[str, Any]) -> np.ndarray[Any, Any]:
        return Interpolator(**options).between(frames[0], frames[2], [0.25, 0.5])

    theirs, ours = _both(draw)
    # A pixel whose flow is found in float32 may move by a rounding.
    assert (np.abs(ours - theirs) <= 1).mean() > 0.999


def test_nodes_that_read_the_same_are_not_merged(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Downscale", ["x"], [name], domain="fastvid", factor=factor)
        for name, factor in (("y", 2), ("z", 4))
    ]
    x = tiny.tensor("x", "float32", 1, 1, "H", "W")
    y = tiny.tensor("y", "float32", 1, 1, "h", "w")
    z = tiny.tensor("z", "float32", 1, 1, "k", "l")
    graph = {"file": "run.onnx", "inputs": [x], "outputs": [y, z]}
    data = tiny.model(nodes, [x], [y, z], domains={"fastvid": 1})
    image = np.arange(64, dtype=np.float32).reshape(1, 1, 8, 8)
    with _open(tiny.bundle(tmp_path / "model", data, graphs={"run": graph})) as model:
        found = model.graph("run").run({"x": image})
    np.testing.assert_array_equal(found["y"], image.reshape(1, 1, 4, 2, 4, 2).mean((3, 5)))
    np.testing.assert_array_equal(found["z"], image.reshape(1, 1, 2, 4, 2, 4).mean((3, 5)))


@pytest.mark.parametrize("threads", [1, 2])
def test_errors_of_operators_are_fastvids(tmp_path: Path, threads: int) -> None:
    node = helper.make_node("Downscale", ["x"], ["y"], domain="fastvid", factor=2)
    x = tiny.tensor("x", "float32", 1, 1, "H", "W")
    y = tiny.tensor("y", "float32", 1, 1, "h", "w")
    graph = {"file": "run.onnx", "inputs": [x], "outputs": [y]}
    data = tiny.model([node], [x], [y], domains={"fastvid": 1})
    bundle = tiny.bundle(tmp_path / "model", data, graphs={"run": graph})
    with (
        _open(bundle, threads=threads) as model,
        pytest.raises(DeviceError, match=r"downscale: .*multiples"),
    ):
        model.graph("run").run({"x": np.ones((1, 1, 7, 8), np.float32)})


def _normal(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _unit(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).uniform(size=shape).astype(np.float32)


BYTES = np.random.default_rng(2).integers(0, 256, (2, 24, 32, 3), np.uint8)
QKV = [_normal(1, 12, 2, 16, seed=i) for i in range(3)]
NODES: dict[str, tuple[tuple[np.ndarray[Any, Any] | None, ...], int, dict[str, Any]]] = {
    "RgbToPlanar": ((BYTES,), 1, {}),
    "PlanarToRgb": ((_unit(2, 3, 24, 32),), 1, {}),
    "RgbToLuma": ((BYTES,), 2, {}),
    "LumaToRgb": ((_unit(2, 1, 48, 64), _unit(2, 2, 24, 32) - 0.5), 1, {}),
    "Downscale": ((_normal(1, 3, 16, 24),), 1, {"factor": 4}),
    "InverseSearch": ((_unit(1, 1, 48, 64), _unit(1, 1, 48, 64, seed=1)), 2, {"finest": 1}),
    "Warp": ((_unit(1, 5, 24, 32), 3 * _normal(1, 2, 12, 16)), 1, {"zeros": 1}),
    "WarpBlend": (
        (
            _unit(1, 3, 24, 32),
            _unit(1, 3, 24, 32, seed=1),
            2 * _normal(1, 4, 12, 16),
            _normal(1, 1, 12, 16),
            None,
        ),
        1,
        {"output_uint8": 1},
    ),
    "SoftmaxSplat": ((_unit(1, 3, 24, 32), _normal(1, 2, 24, 32), _normal(1, 1, 24, 32)), 1, {}),
    "Attention": ((*QKV, _normal(1, 1, 12, 12)), 1, {"scale": 0.5}),
    "TemporalAttention": (tuple(_normal(1, 4, 6, 2, 16, seed=i) for i in range(3)), 1, {}),
    "QkNormRope": (
        (QKV[0], QKV[1], None, None, _normal(12, 8, seed=5), _normal(12, 8, seed=6)),
        2,
        {"norm": "head"},
    ),
    "PlanarToRgb of 16 bits": ((_unit(2, 3, 24, 32),), 1, {"output_uint16": 1}),
    "LumaToRgb of 16 bits": (
        (_unit(2, 1, 48, 64), _unit(2, 2, 24, 32) - 0.5),
        1,
        {"output_uint16": 1},
    ),
    "RgbToPlanar of 16 bits": ((BYTES.astype(np.uint16) * 257,), 1, {}),
    "Linear": ((_normal(3, 5, 16), _normal(8, 16, seed=1), _normal(8, seed=2)), 1, {}),
    "Linear in bfloat16": ((_normal(5, 64), _normal(8, 64, seed=1)), 1, {"bfloat16": 1}),
    "QkNormRope of weights": (
        (QKV[0], QKV[1], _unit(32), _unit(32, seed=1)),
        2,
        {"norm": "full", "rope": "none", "eps": 1e-5},
    ),
    "Attention without a bias": ((*QKV, None), 1, {"causal": 1}),
    "Warp of channels last": (
        (_unit(1, 24, 32, 5), 3 * _normal(1, 2, 24, 32)),
        1,
        {"channels_last": 1},
    ),
    "WarpBlend to planes": (
        (
            _unit(1, 3, 24, 32),
            _unit(1, 3, 24, 32, seed=1),
            2 * _normal(1, 4, 24, 32),
            _normal(1, 1, 24, 32),
            _normal(1, 3, 24, 32),
        ),
        1,
        {},
    ),
    "SchedulerStep": (
        (_normal(1, 4, 8), np.array([0.5, 0.25], np.float32), None, _normal(1, 4, 8, seed=1)),
        1,
        {},
    ),
}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_of_a_checkpoint_are_taken_as_they_are(tmp_path: Path, dtype: str) -> None:
    values = _normal(8, 16, seed=1).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    kind = onnx.TensorProto.BFLOAT16 if dtype == "bfloat16" else onnx.TensorProto.FLOAT16
    weight = helper.make_tensor("w", kind, values.shape, values.tobytes(), raw=True)
    node = helper.make_node("Linear", ["x", "w"], ["y"], domain="fastvid")
    x, y = tiny.tensor("x", "float32", "N", 16), tiny.tensor("y", "float32", "N", 8)
    graph = {"file": "run.onnx", "inputs": [x], "outputs": [y]}
    data = tiny.model([node], [x], [y], [weight], domains={"fastvid": 1})
    given = {"x": _normal(3, 16)}
    bundle = tiny.bundle(tmp_path / "model", data, graphs={"run": graph})
    with _open(bundle) as ours, backends.open(bundle, backend="onnxruntime") as theirs:
        found, wanted = (model.graph("run").run(given)["y"] for model in (ours, theirs))
    np.testing.assert_array_equal(found, wanted)


def test_every_operator_of_onnxruntime_is_here_with_its_attributes() -> None:
    sources = Path(__file__).parents[2] / "csrc" / "bindings" / "onnxruntime"
    text = "\n".join(path.read_text() for path in sorted(sources.glob("*.cc")))
    described = {}
    for part in re.split(r"const Op k\w+\{", text)[1:]:
        found = re.search(r"\.attributes =\s*\{(.*?)\},\s*\.compute", part, flags=re.DOTALL)
        name = re.search(r'\.name = "(\w+)"', part)
        assert name is not None
        described[name[1]] = sorted(re.findall(r'\{"(\w+)",', found[1])) if found else []
    ours = {name: sorted(op.attributes) for name, op in _openvino_ops.OPERATORS.items()}
    assert ours == described
    assert {case.partition(" ")[0] for case in NODES} == set(ours)


@pytest.mark.parametrize("case", NODES)
def test_operator_computes_as_in_onnxruntime(tmp_path: Path, case: str) -> None:
    arrays, outputs, attributes = NODES[case]
    name = case.partition(" ")[0]
    wanted = nodes.run_node(name, *arrays, outputs=outputs, **attributes)
    wanted = [wanted] if outputs == 1 else wanted
    given = {f"in{i}": array for i, array in enumerate(arrays) if array is not None}
    graph = {
        "file": "run.onnx",
        "inputs": [tiny.tensor(k, str(a.dtype), *a.shape) for k, a in given.items()],
        "outputs": [tiny.tensor(f"out{i}", str(a.dtype), *a.shape) for i, a in enumerate(wanted)],
    }
    names = [f"in{i}" if array is not None else "" for i, array in enumerate(arrays)]
    node = helper.make_node(
        name, names, [f"out{i}" for i in range(outputs)], domain="fastvid", **attributes
    )
    data = tiny.model([node], graph["inputs"], graph["outputs"], domains={"fastvid": 1})
    with _open(tiny.bundle(tmp_path / "model", data, graphs={"run": graph})) as model:
        assert model.report().graphs[0].custom_ops
        found = model.graph("run").run(given)
    for i, array in enumerate(wanted):
        np.testing.assert_array_equal(found[f"out{i}"], array)


def test_closed_models_leave_no_weights_behind(tmp_path: Path) -> None:
    values = _normal(2048, 2048)
    weights = numpy_helper.from_array(values, "w")
    nodes = [
        helper.make_node("Linear", ["x", "w"], ["h"], domain="fastvid"),
        helper.make_node("MatMul", ["h", "w"], ["y"]),
    ]
    x, y = (tiny.tensor(name, "float32", "N", 2048) for name in "xy")
    graph = {"file": "run.onnx", "inputs": [x], "outputs": [y]}
    data = tiny.model(nodes, [x], [y], [weights], domains={"fastvid": 1})
    bundle = tiny.bundle(tmp_path / "model", data, graphs={"run": graph})
    sizes = []
    for _ in range(6):
        with _open(bundle) as model:
            model.graph("run").run({"x": np.ones((1, 2048), np.float32)})
        del model
        gc.collect()
        sizes.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096)
    assert sizes[-1] - sizes[1] < 2 * values.nbytes
