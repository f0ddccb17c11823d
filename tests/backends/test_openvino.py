"""The OpenVINO backend: what it does beyond what all backends on the CPU do, and cancelling."""

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

import numpy as np
import pytest
import tiny_models as tiny
from onnx import helper, numpy_helper

from fastvid import Interpolator, backends
from fastvid.bundle import Bundle, shipped
from fastvid.errors import (
    BackendUnavailableError,
    CancelledError,
    FastvidError,
    InputError,
    ModelError,
    UnsupportedModelError,
)

pytest.importorskip("openvino", reason="openvino is not installed")

X = np.arange(8, dtype=np.float32).reshape(2, 4)


def _open(bundle: Bundle, **options: Any) -> backends.LoadedModel:
    return backends.open(bundle, **{"device": "cpu", "backend": "openvino", **options})


def test_low_memory_computes_the_same(doubler: Bundle) -> None:
    with _open(doubler, low_memory=True) as model:
        for rows in (1, 2, 1):
            run = model.graph("run").run
            np.testing.assert_array_equal(run({"x": X[:rows]})["y"], 2 * X[:rows])


@pytest.mark.parametrize("model", ["fast", "quality"])
def test_shipped_interpolators_draw_what_they_do_elsewhere(
    rng: np.random.Generator, model: str
) -> None:
    if f"interpolator-{model}" not in shipped():
        pytest.skip("the trained interpolator is not installed")
    first = np.kron(rng.integers(0, 256, (6, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    second = np.roll(first, 3, axis=1)
    drawn = []
    for backend in ("onnxruntime", "openvino"):
        with Interpolator(model, device="cpu", backend=backend, threads=1) as opened:
            drawn.append(opened.between(first, second).astype(int))
    assert np.abs(drawn[0] - drawn[1]).max() <= 1


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


# Weights beside the graph


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
