"""The OpenVINO backend: the answers of onnxruntime, refusals, cancelling, and bfloat16."""

from __future__ import annotations

import gc
import itertools
import json
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import bundles
import numpy as np
import pytest
import tiny_models as tiny
from onnx import helper, numpy_helper

from fastvid import backends
from fastvid.bundle import Bundle
from fastvid.errors import (
    BackendUnavailableError,
    CancelledError,
    DeviceError,
    FastvidError,
    InputError,
    InputTypeError,
    IntegrityError,
    ManifestError,
    ModelError,
    UnsupportedModelError,
)

pytest.importorskip("openvino", reason="openvino is not installed")

RULE = {"minimum": 2, "multiple_of": 2, "padding": "edge", "maximum": 64}
X = np.arange(8, dtype=np.float32).reshape(2, 4)


def _open(bundle: Bundle, **options: Any) -> backends.LoadedModel:
    return backends.open(bundle, **{"device": "cpu", "backend": "openvino", **options})


# Answers


def test_graph_computes(doubler: Bundle) -> None:
    with _open(doubler) as model:
        session = model.graph("run")
        outputs = session.run({"x": X})
        assert list(session.inputs) == ["x"]
        assert session.outputs["y"].shape == ("N", 4)
        assert session.stream is None
    np.testing.assert_array_equal(outputs["y"], 2 * X)


def test_sizes_may_change_and_come_back(doubler: Bundle) -> None:
    with _open(doubler) as model:
        for rows in (1, 2, 3, 4, 5, 6, 1, 6):
            x = np.full((rows, 4), rows, np.float32)
            np.testing.assert_array_equal(model.graph("run").run({"x": x})["y"], 2 * x)


def test_outputs_are_the_callers_own(doubler: Bundle) -> None:
    with _open(doubler) as model:
        first = model.graph("run").run({"x": X})["y"]
        model.graph("run").run({"x": X + 1})
        np.testing.assert_array_equal(first, 2 * X)
        assert first.flags.owndata
        assert first.flags.writeable


def test_strided_and_read_only_inputs_compute(doubler: Bundle) -> None:
    wide = np.arange(16, dtype=np.float32).reshape(2, 8)[:, ::2]
    wide.flags.writeable = False
    kept = X.copy()
    kept.flags.writeable = False
    with _open(doubler) as model:
        np.testing.assert_array_equal(model.graph("run").run({"x": wide})["y"], 2 * wide)
        np.testing.assert_array_equal(model.graph("run").run({"x": kept})["y"], 2 * kept)


def test_threads_get_their_own_answers(doubler: Bundle) -> None:
    wrong: list[int] = []

    def work(seed: int) -> None:
        for i in range(50):
            x = np.full((1 + i % 3, 4), seed * 100 + i, np.float32)
            if not np.array_equal(session.run({"x": x})["y"], 2 * x):
                wrong.append(seed)

    with _open(doubler) as model:
        session = model.graph("run")
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        work(9)
        for thread in threads:
            thread.join()
    assert wrong == []


def test_upscaler_graph_computes(tmp_path: Path, rng: np.random.Generator) -> None:
    frames = rng.integers(0, 256, (2, 4, 6, 3), np.uint8)
    with _open(bundles.upscaler(tmp_path / "model", **RULE)) as model:
        upscaled = model.graph("upscale").run({"frames": frames})["upscaled"]
    np.testing.assert_array_equal(upscaled, frames.repeat(2, 1).repeat(2, 2))


def test_low_memory_computes_the_same(doubler: Bundle) -> None:
    with _open(doubler, low_memory=True) as model:
        for rows in (1, 2, 1):
            run = model.graph("run").run
            np.testing.assert_array_equal(run({"x": X[:rows]})["y"], 2 * X[:rows])


# The report


def test_report_names_runtime_threads_and_reason(doubler: Bundle) -> None:
    with _open(doubler, threads=1) as model:
        report = model.report()
    (graph,) = report.graphs
    assert (report.device, report.backend, report.precision) == ("cpu", "openvino", "float32")
    assert (graph.provider, graph.threads, graph.custom_ops) == ("CPU", 1, False)
    assert graph.sha256 == doubler.files["run.onnx"].sha256
    assert "backend='openvino' was asked for" in report.to_text()
    assert json.loads(report.to_json()) == json.loads(json.dumps(report.to_dict()))


# Arguments and inputs


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"device": "cuda"}, InputError, "'auto' or 'cpu' for OpenVINO, got 'cuda:0'"),
        ({"precision": "bfloat16"}, InputError, r"'auto' or 'float32'.*has not been measured"),
        ({"precision": "int8"}, InputError, r"'auto' or 'float32'.*--format onnx-int8"),
        ({"precision": "double"}, InputError, "one of"),
        ({"threads": 0}, InputError, "from 1 to 1024, got 0"),
    ],
)
def test_bad_arguments_are_refused(
    doubler: Bundle, options: dict[str, Any], error: type[FastvidError], message: str
) -> None:
    with pytest.raises(error, match=message):
        _open(doubler, **options)


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ({}, InputError, r"inputs must be \['x'\], got \[\]"),
        ({"x": X, "z": X}, InputError, "inputs must be"),
        ({"x": X.tolist()}, InputTypeError, "must be a NumPy array, got list"),
        ({"x": X.astype(np.float64)}, InputTypeError, "have dtype float32, got float64"),
        ({"x": X.T}, InputError, r"got \(4, 2\)"),
        ({"x": X[:0]}, InputError, r"at least 1, got \(0, 4\)"),
    ],
)
def test_bad_inputs_are_refused_before_the_runtime_sees_them(
    doubler: Bundle, inputs: Any, error: type[FastvidError], message: str
) -> None:
    with _open(doubler) as model, pytest.raises(error, match=f"run: .*{message}"):
        model.graph("run").run(inputs)


def test_not_finite_outputs_are_refused_on_request(doubler: Bundle) -> None:
    bad = np.array([[1, 2, np.nan, 4]], np.float32)
    with _open(doubler) as model:
        assert np.isnan(model.graph("run").run({"x": bad})["y"][0, 2])
    with (
        _open(doubler, check_finite=True) as model,
        pytest.raises(DeviceError, match="'y' must be finite"),
    ):
        model.graph("run").run({"x": bad})


# Damaged and hostile graphs


def _node(name: str, domain: str = "", opset: int = 18) -> bytes:
    node = helper.make_node(name, ["x"], ["y"], domain=domain)
    domains = {domain: 1} if domain else {}
    return tiny.model([node], [tiny.X], [tiny.Y], opset=opset, domains=domains)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a model",
        np.random.default_rng(7).bytes(4096),
        tiny.double()[:-20],
        tiny.double().replace(b"x", b"\xff"),
        _node("NoSuchOperator"),
        _node("Thing", "com.example"),
        _node("Thing", "fastvid"),
    ],
    ids=["empty", "text", "random", "cut", "utf8", "operator", "domain", "fastvid-operator"],
)
def test_damaged_graph_is_a_model_error(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ModelError, match=r"run\.onnx"):
        _open(tiny.bundle(tmp_path / "model", data))


def test_mutated_graphs_raise_only_fastvid_errors(tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    good = tiny.double()
    for i in range(40):
        data = bytearray(good)
        for at in rng.integers(0, len(data), 1 + i % 3):
            data[at] = rng.integers(256)
        bundle = tiny.bundle(tmp_path / f"m{i}", bytes(data))
        try:
            with _open(bundle, threads=1) as model:
                model.graph("run").run({"x": X})
        except FastvidError:
            pass


def test_tampered_file_never_reaches_the_runtime(doubler: Bundle) -> None:
    path = doubler.path / "run.onnx"
    path.write_bytes(path.read_bytes().replace(b"Add", b"Mul"))
    with pytest.raises(IntegrityError, match=r"sha256 of run\.onnx"):
        _open(doubler)


def test_newer_fastvid_operators_are_refused(tmp_path: Path) -> None:
    node = helper.make_node("Warp", ["x", "x"], ["y"], domain="fastvid")
    data = tiny.model([node], [tiny.X], [tiny.Y], domains={"fastvid": 2})
    with pytest.raises(UnsupportedModelError, match="version 1, got 2"):
        _open(tiny.bundle(tmp_path / "model", data))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": [tiny.tensor("z", "float32", "N", 4)]}, r"inputs must be \['x'\]"),
        ({"inputs": [tiny.tensor("x", "uint8", "N", 4)]}, "'x' must have dtype float32"),
        ({"outputs": [tiny.tensor("y", "float32", "N", 5)]}, r"'y' must have shape \['\?', 4\]"),
        ({"outputs": [tiny.tensor("y", "float32", "N")]}, "'y' must have shape"),
    ],
)
def test_manifest_that_contradicts_the_graph_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    graph = tiny.manifest()["graphs"]["run"] | change
    bundle = tiny.bundle(tmp_path / "model", tiny.double(), graphs={"run": graph})
    with pytest.raises(ManifestError, match=message):
        _open(bundle)


# Weights beside the graph


def test_external_weights_come_from_the_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastvid.bundle import write_bundle

    data, weights = tiny.external("w.data")
    graph = tiny.manifest()["graphs"]["run"] | {"external_data": ["w.data"]}
    files = {"run.onnx": data, "w.data": weights}
    bundle = write_bundle(tmp_path / "model", tiny.manifest(graphs={"run": graph}), files)
    monkeypatch.chdir(tmp_path)
    Path("w.data").write_bytes(bytes(len(weights)))
    with _open(bundle) as model:
        y = model.graph("run").run({"x": np.zeros((100, 4), np.float32)})["y"]
    np.testing.assert_array_equal(y.reshape(-1), np.arange(1, 401))


@pytest.mark.parametrize("location", ["w.data", "../w.data", "/dev/zero", "/etc/passwd"])
def test_weights_that_the_manifest_does_not_name_are_not_read(
    tmp_path: Path, location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, weights = tiny.external(location)
    (tmp_path / "w.data").write_bytes(weights)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"run\.onnx.*names weights in"):
        _open(tiny.bundle(tmp_path / "model", data))


# Cancelling, signals, closing


@pytest.fixture
def slow(tmp_path: Path) -> Bundle:
    """Many large matrix products, one after the other."""
    names = ["x", *(f"x{i}" for i in range(100)), "y"]
    weights = numpy_helper.from_array(np.eye(1024, dtype=np.float32), "w")
    nodes = [helper.make_node("MatMul", [a, "w"], [b]) for a, b in itertools.pairwise(names)]
    x, y = (tiny.tensor(name, "float32", "N", 1024) for name in "xy")
    graph = {"file": "run.onnx", "inputs": [x], "outputs": [y]}
    data = tiny.model(nodes, [x], [y], [weights])
    return tiny.bundle(tmp_path / "model", data, graphs={"run": graph})


ROWS = np.ones((8192, 1024), np.float32)


@pytest.mark.parametrize("threads", [1, 2])
def test_cancel_stops_a_run(slow: Bundle, threads: int) -> None:
    with _open(slow, threads=threads) as model:
        run = model.graph("run").run
        run({"x": ROWS[:1]})
        timer = threading.Timer(1.5, model.cancel)
        timer.start()
        begun = time.monotonic()
        with pytest.raises(CancelledError):
            run({"x": ROWS})
        assert time.monotonic() - begun < 4
        timer.join()
        np.testing.assert_array_equal(run({"x": ROWS[:1]})["y"], ROWS[:1])


def test_interrupted_run_raises_at_once_and_the_session_stays_usable(slow: Bundle) -> None:
    class InterruptedByTestError(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise InterruptedByTestError

    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        with _open(slow) as model:
            run = model.graph("run").run
            signal.setitimer(signal.ITIMER_REAL, 1.5)
            begun = time.monotonic()
            with pytest.raises(InterruptedByTestError):
                run({"x": ROWS})
            assert time.monotonic() - begun < 3
            np.testing.assert_array_equal(run({"x": ROWS[:1]})["y"], ROWS[:1])
    finally:
        signal.signal(signal.SIGALRM, previous)


def test_loops_that_need_not_end_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="Loop without a limit"):
        _open(tiny.bundle(tmp_path / "model", tiny.endless()))


def test_closed_session_refuses(doubler: Bundle) -> None:
    model = _open(doubler)
    session = model.graph("run")
    model.close()
    model.close()
    with pytest.raises(DeviceError, match="closed"):
        session.run({"x": X})


def test_dropping_the_model_ends_the_thread(doubler: Bundle) -> None:
    model = _open(doubler)
    named = [t for t in threading.enumerate() if t.name == "fastvid-tiny"]
    assert len(named) == 1
    del model
    gc.collect()
    named[0].join(2)
    assert not named[0].is_alive()


def test_missing_runtime_names_the_pip_command(
    doubler: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BackendUnavailableError, match=r"pip install 'fastvid-sdk\[openvino\]'"):
        _open(doubler)
