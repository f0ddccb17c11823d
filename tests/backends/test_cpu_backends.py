"""What every backend on the CPU does alike: right answers, refusals before and after loading."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bundles
import numpy as np
import pytest
import tiny_models as tiny
from onnx import TensorProto, helper

from fastvid import backends
from fastvid.bundle import Bundle, write_bundle
from fastvid.errors import (
    DeviceError,
    FastvidError,
    InputError,
    InputTypeError,
    IntegrityError,
    ManifestError,
    ModelError,
    UnsupportedModelError,
)

RULE = {"minimum": 2, "multiple_of": 2, "padding": "edge", "maximum": 64}
X = np.arange(8, dtype=np.float32).reshape(2, 4)
Open = Callable[..., backends.LoadedModel]


@pytest.fixture(params=["onnxruntime", "openvino"])
def load(request: pytest.FixtureRequest) -> Open:
    """Opens a bundle in one of the backends."""
    pytest.importorskip(request.param, reason=f"{request.param} is not installed")

    def load(bundle: Bundle, **options: Any) -> backends.LoadedModel:
        return backends.open(bundle, **{"device": "cpu", "backend": request.param, **options})

    return load


# Answers


def test_graph_computes(load: Open, doubler: Bundle) -> None:
    with load(doubler) as model:
        session = model.graph("run")
        outputs = session.run({"x": X})
        assert list(session.inputs) == ["x"]
        assert session.outputs["y"].shape == ("N", 4)
    np.testing.assert_array_equal(outputs["y"], 2 * X)


def test_sizes_may_change_and_come_back(load: Open, doubler: Bundle) -> None:
    with load(doubler) as model:
        for rows in (1, 2, 3, 4, 5, 6, 1, 6):
            x = np.full((rows, 4), rows, np.float32)
            np.testing.assert_array_equal(model.graph("run").run({"x": x})["y"], 2 * x)


def test_outputs_are_the_callers_own(load: Open, doubler: Bundle) -> None:
    with load(doubler) as model:
        first = model.graph("run").run({"x": X})["y"]
        model.graph("run").run({"x": X + 1})
        np.testing.assert_array_equal(first, 2 * X)
        assert first.flags.writeable


def test_strided_and_read_only_inputs_compute(load: Open, doubler: Bundle) -> None:
    wide = np.arange(16, dtype=np.float32).reshape(2, 8)[:, ::2]
    wide.flags.writeable = False
    kept = X.copy()
    kept.flags.writeable = False
    with load(doubler) as model:
        np.testing.assert_array_equal(model.graph("run").run({"x": wide})["y"], 2 * wide)
        np.testing.assert_array_equal(model.graph("run").run({"x": kept})["y"], 2 * kept)


def test_threads_get_their_own_answers(load: Open, doubler: Bundle) -> None:
    wrong: list[int] = []

    def work(seed: int) -> None:
        for i in range(50):
            x = np.full((1, 4), seed * 100 + i, np.float32)
            if not np.array_equal(session.run({"x": x})["y"], 2 * x):
                wrong.append(seed)

    with load(doubler) as model:
        session = model.graph("run")
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        work(9)
        for thread in threads:
            thread.join()
    assert wrong == []


def test_model_opened_on_another_thread_runs_here(load: Open, doubler: Bundle) -> None:
    opened: list[backends.LoadedModel] = []
    thread = threading.Thread(target=lambda: opened.append(load(doubler)))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(opened[0].graph("run").run({"x": X})["y"], 2 * X)


def test_external_weights_come_from_the_bundle_and_stay_alive(
    load: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, weights = tiny.external("w.data")
    graph = tiny.manifest()["graphs"]["run"] | {"external_data": ["w.data"]}
    files = {"run.onnx": data, "w.data": weights}
    bundle = write_bundle(tmp_path / "model", tiny.manifest(graphs={"run": graph}), files)
    monkeypatch.chdir(tmp_path)
    Path("w.data").write_bytes(bytes(len(weights)))
    with load(bundle) as model:
        gc.collect()
        clutter = [bytes(1600) for _ in range(100)]
        y = model.graph("run").run({"x": np.zeros((100, 4), np.float32)})["y"]
        del clutter
    np.testing.assert_array_equal(y.reshape(-1), np.arange(1, 401))


def test_upscaler_graph_computes(load: Open, tmp_path: Path, rng: np.random.Generator) -> None:
    frames = rng.integers(0, 256, (2, 4, 6, 3), np.uint8)
    with load(bundles.upscaler(tmp_path / "model", **RULE)) as model:
        upscaled = model.graph("upscale").run({"frames": frames})["upscaled"]
    np.testing.assert_array_equal(upscaled, frames.repeat(2, 1).repeat(2, 2))


def test_closed_session_refuses(load: Open, doubler: Bundle) -> None:
    model = load(doubler)
    session = model.graph("run")
    model.close()
    model.close()
    with pytest.raises(DeviceError, match="closed"):
        session.run({"x": X})


# Inputs


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ({}, InputError, r"inputs must be \['x'\], got \[\]"),
        ({"z": X}, InputError, "inputs must be"),
        ({"x": X, "z": X}, InputError, "inputs must be"),
        ([X], InputTypeError, "must be a dict"),
        ({"x": X.tolist()}, InputTypeError, "must be a NumPy array, got list"),
        ({"x": None}, InputTypeError, "must be a NumPy array, got NoneType"),
        ({"x": X.astype(np.float64)}, InputTypeError, "have dtype float32, got float64"),
        ({"x": X.astype(">f4")}, InputTypeError, "have dtype float32, got >f4"),
        ({"x": X.astype(object)}, InputTypeError, "got object"),
        ({"x": X[0]}, InputError, r"shape \(N, 4\) .*got \(4,\)"),
        ({"x": X.T}, InputError, r"got \(4, 2\)"),
        ({"x": X[:0]}, InputError, r"at least 1, got \(0, 4\)"),
    ],
)
def test_bad_inputs_are_refused_before_the_runtime_sees_them(
    load: Open, doubler: Bundle, inputs: Any, error: type[FastvidError], message: str
) -> None:
    with load(doubler) as model, pytest.raises(error, match=f"run: .*{message}"):
        model.graph("run").run(inputs)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 4, 4), "got \\(1, 4, 4\\)"),
        ((1, 3, 4, 4), "got \\(1, 3, 4, 4\\)"),
        ((1, 5, 4, 3), "multiples of 2, got 5x4"),
        ((1, 66, 4, 3), "from 1 to 64, got 66x4"),
    ],
)
def test_frames_that_break_the_size_rule_are_refused(
    load: Open, tmp_path: Path, shape: tuple[int, ...], message: str
) -> None:
    with (
        load(bundles.upscaler(tmp_path / "model", **RULE)) as model,
        pytest.raises(InputError, match=message),
    ):
        model.graph("upscale").run({"frames": np.zeros(shape, np.uint8)})


def _two_inputs(tmp_path: Path) -> Bundle:
    a, t = tiny.tensor("a", "float32", "N", "2*K"), tiny.tensor("t", "float32", "N", "K")
    out = tiny.tensor("y", "float32", "N", "2*K")
    nodes = [
        helper.make_node("Concat", ["t", "t"], ["tt"], axis=1),
        helper.make_node("Mul", ["a", "tt"], ["y"]),
    ]
    plain = [tiny.tensor("a", "float32", "N", "M"), tiny.tensor("t", "float32", "N", "K")]
    data = tiny.model(nodes, plain, [tiny.tensor("y", "float32", "N", "M")])
    graph = {"file": "run.onnx", "inputs": [a, t | {"range": [0, 1]}], "outputs": [out]}
    return tiny.bundle(tmp_path / "model", data, graphs={"run": graph})


def test_sizes_that_share_a_name_must_agree(load: Open, tmp_path: Path) -> None:
    ones = np.ones((2, 6), np.float32)
    with load(_two_inputs(tmp_path)) as model:
        run = model.graph("run").run
        assert run({"a": ones, "t": ones[:, :3]})["y"].shape == (2, 6)
        with pytest.raises(InputError, match=r"'t' must have K=3 as in 'a', got shape \(2, 2\)"):
            run({"a": ones, "t": ones[:, :2]})
        with pytest.raises(InputError, match="'t' must have N=2 as in 'a'"):
            run({"a": ones, "t": ones[:1, :3]})
        with pytest.raises(InputError, match=r"shape \(N, 2\*K\)"):
            run({"a": ones[:, :5], "t": ones[:, :2]})


@pytest.mark.parametrize("value", [-0.1, 1.1, np.nan, np.inf, -np.inf])
def test_small_inputs_must_keep_their_range(load: Open, tmp_path: Path, value: float) -> None:
    ones = np.ones((1, 2), np.float32)
    with (
        load(_two_inputs(tmp_path)) as model,
        pytest.raises(InputError, match="'t' must be from 0 to 1, got"),
    ):
        model.graph("run").run({"a": ones, "t": np.full((1, 1), value, np.float32)})


def test_not_finite_outputs_are_refused_on_request(load: Open, doubler: Bundle) -> None:
    bad = np.array([[1, 2, np.nan, 4]], np.float32)
    with load(doubler) as model:
        assert np.isnan(model.graph("run").run({"x": bad})["y"][0, 2])
    with (
        load(doubler, check_finite=True) as model,
        pytest.raises(DeviceError, match="'y' must be finite"),
    ):
        model.graph("run").run({"x": bad})


# Damaged and hostile graphs


def _huge_initializer() -> bytes:
    huge = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1 << 40])
    huge.raw_data = b"\0" * 16
    return tiny.model([helper.make_node("Add", ["x", "w"], ["y"])], [tiny.X], [tiny.Y], [huge])


def _unknown_node(name: str, domain: str = "") -> bytes:
    node = helper.make_node(name, ["x"], ["y"], domain=domain)
    domains = {domain: 1} if domain else {}
    return tiny.model([node], [tiny.X], [tiny.Y], domains=domains)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a model",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
        b"<!DOCTYPE html><html></html>",
        np.random.default_rng(7).bytes(4096),
        tiny.double()[:-20],
        tiny.double()[:10],
        tiny.double()[:40] + b"\xff" * 8 + tiny.double()[48:],
        tiny.double().replace(b"x", b"\xff"),
        _unknown_node("NoSuchOperator"),
        _unknown_node("Thing", "com.example"),
        _huge_initializer(),
    ],
    ids=[
        *("empty", "text", "lfs-pointer", "html", "random", "cut", "cut-early", "scrambled"),
        *("broken-utf8", "unknown-operator", "unknown-domain", "4-terabytes"),
    ],
)
def test_damaged_graph_is_a_model_error(load: Open, tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ModelError, match=r"run\.onnx"):
        load(tiny.bundle(tmp_path / "model", data))


def test_mutated_graphs_raise_only_fastvid_errors(load: Open, tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    good = tiny.double()
    for i in range(60):
        data = bytearray(good)
        for at in rng.integers(0, len(data), 1 + i % 3):
            data[at] = rng.integers(256)
        bundle = tiny.bundle(tmp_path / f"m{i}", bytes(data))
        try:
            with load(bundle, threads=1) as model:
                model.graph("run").run({"x": X})
        except FastvidError:
            pass


def test_tampered_file_never_reaches_the_runtime(load: Open, doubler: Bundle) -> None:
    path = doubler.path / "run.onnx"
    path.write_bytes(path.read_bytes().replace(b"Add", b"Mul"))
    with pytest.raises(IntegrityError, match=r"sha256 of run\.onnx"):
        load(doubler)


def test_newer_fastvid_operators_are_refused(load: Open, tmp_path: Path) -> None:
    node = helper.make_node("Warp", ["x", "x"], ["y"], domain="fastvid")
    data = tiny.model([node], [tiny.X], [tiny.Y], domains={"fastvid": 2})
    with pytest.raises(UnsupportedModelError, match="version 1, got 2"):
        load(tiny.bundle(tmp_path / "model", data))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": [tiny.tensor("z", "float32", "N", 4)]}, r"inputs must be \['x'\]"),
        ({"inputs": [tiny.tensor("x", "uint8", "N", 4)]}, "'x' must have dtype float32"),
        (
            {"outputs": [tiny.tensor("y", "float32", "N", 5)]},
            r"'y' must have shape \['(N|\?)', 4\]",
        ),
        ({"outputs": [tiny.tensor("y", "float32", "N")]}, "'y' must have shape"),
    ],
)
def test_manifest_that_contradicts_the_graph_is_refused(
    load: Open, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    graph = tiny.manifest()["graphs"]["run"] | change
    bundle = tiny.bundle(tmp_path / "model", tiny.double(), graphs={"run": graph})
    with pytest.raises(ManifestError, match=message):
        load(bundle)
