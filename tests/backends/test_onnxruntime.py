"""The onnxruntime backend: weights beside the graph, the report, arguments, memory, threads."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models as tiny
from onnx import TensorProto, helper

from fastvid import backends
from fastvid.backends import _onnx_external
from fastvid.bundle import Bundle, write_bundle
from fastvid.devices import available_cpus, cuda_driver
from fastvid.errors import (
    DeviceError,
    FastvidError,
    InputError,
    InputTypeError,
    IntegrityError,
    ManifestError,
    ModelError,
    NoDeviceError,
)

pytest.importorskip("onnxruntime")

X = np.arange(8, dtype=np.float32).reshape(2, 4)


def _open(bundle: Bundle, **options: Any) -> backends.LoadedModel:
    return backends.open(bundle, **{"device": "cpu", **options})


# Answers


def test_external_weights_outside_the_manifest_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, weights = tiny.external("w.data")
    bundle = tiny.bundle(tmp_path / "model", data)
    monkeypatch.chdir(tmp_path)
    Path("w.data").write_bytes(weights)
    with pytest.raises(ModelError, match=r"run\.onnx"):
        _open(bundle)


@pytest.fixture
def mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of any size are mapped."""
    monkeypatch.setattr(_onnx_external, "MAPPED_BYTES", 0)


def _with_weights(folder: Path, *listed: str) -> Bundle:
    data, weights = tiny.external("w.data")
    graph = tiny.manifest()["graphs"]["run"] | {"external_data": list(listed)}
    files = {"run.onnx": data, "w.data": weights, "other.data": weights}
    return write_bundle(folder, tiny.manifest(graphs={"run": graph}), files)


@pytest.mark.usefixtures("mapped")
def test_large_weights_are_mapped_from_the_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = _with_weights(tmp_path / "model", "w.data")
    monkeypatch.chdir(tmp_path)
    Path("w.data").write_bytes(bytes(1600))
    with _open(bundle) as model:
        y = model.graph("run").run({"x": np.zeros((100, 4), np.float32)})["y"]
    np.testing.assert_array_equal(y.reshape(-1), np.arange(1, 401))


@pytest.mark.usefixtures("mapped")
def test_mapped_weights_are_verified_and_listed(tmp_path: Path) -> None:
    bundle = _with_weights(tmp_path / "unlisted", "other.data")
    with pytest.raises(ManifestError, match=r"external_data must list 'w\.data'"):
        _open(bundle)
    bundle = _with_weights(tmp_path / "changed", "w.data")
    (bundle.path / "w.data").write_bytes(bytes(1600))
    with pytest.raises(IntegrityError, match=r"sha256 of w\.data"):
        _open(bundle)


@pytest.mark.usefixtures("mapped")
def test_weights_that_change_while_they_are_mapped_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = _with_weights(tmp_path / "model", "w.data")
    check = Bundle.check

    def checked(self: Bundle, file: str) -> Any:
        found = check(self, file)
        data = (self.path / file).read_bytes()
        (self.path / "new").write_bytes(bytes(len(data)))
        (self.path / "new").rename(self.path / file)
        return found

    monkeypatch.setattr(Bundle, "check", checked)
    with pytest.raises(IntegrityError, match=r"w\.data must not be changed while it is loaded"):
        _open(bundle)


@pytest.mark.parametrize(
    "location", ["../w.data", "/dev/zero", "/etc/passwd", "sub/../../w.data", "*/_ORT_MEM_ADDR_/*"]
)
def test_external_weights_outside_the_folder_are_not_read(tmp_path: Path, location: str) -> None:
    data, weights = tiny.external(location)
    (tmp_path / "w.data").write_bytes(weights)
    with pytest.raises(ModelError, match=r"run\.onnx"):
        _open(tiny.bundle(tmp_path / "model", data))


def test_fastvid_operators_run_inside_a_graph(tmp_path: Path, rng: np.random.Generator) -> None:
    nodes = [
        helper.make_node("RgbToPlanar", ["frames"], ["planar"], domain="fastvid"),
        helper.make_node("PlanarToRgb", ["planar"], ["same"], domain="fastvid"),
    ]
    specs = [tiny.tensor(name, "uint8", "N", "H", "W", 3) for name in ("frames", "same")]
    data = tiny.model(nodes, specs[:1], specs[1:], domains={"fastvid": 1})
    graph = {"file": "run.onnx", "inputs": specs[:1], "outputs": specs[1:]}
    frames = rng.integers(0, 256, (2, 5, 7, 3), np.uint8)
    with _open(tiny.bundle(tmp_path / "model", data, graphs={"run": graph})) as model:
        assert model.report().graphs[0].custom_ops
        np.testing.assert_array_equal(model.graph("run").run({"frames": frames})["same"], frames)


# The report


def test_report_names_provider_threads_and_reason(doubler: Bundle) -> None:
    with _open(doubler, threads=1) as model:
        report = model.report()
    (graph,) = report.graphs
    assert (report.device, report.backend, report.precision) == ("cpu", "onnxruntime", "float32")
    assert (graph.provider, graph.threads, graph.custom_ops) == ("CPUExecutionProvider", 1, False)
    assert graph.sha256 == doubler.files["run.onnx"].sha256
    assert "device='cpu' was asked for" in report.to_text()
    assert json.loads(report.to_json()) == json.loads(json.dumps(report.to_dict()))


def test_default_threads_are_the_cpus_of_this_process(doubler: Bundle) -> None:
    with _open(doubler) as model:
        assert model.report().graphs[0].threads == available_cpus()


@pytest.mark.skipif(not cuda_driver().problem, reason="a CUDA device is here")
def test_auto_takes_the_cpu_and_says_why(doubler: Bundle) -> None:
    with backends.open(doubler) as model:
        assert model.report().device == "cpu"
        assert "NVIDIA driver" in model.report().reason


@pytest.mark.skipif(not cuda_driver().problem, reason="a CUDA device is here")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_cuda_without_driver_says_what_was_found_and_what_to_install(
    doubler: Bundle, device: str
) -> None:
    with pytest.raises(NoDeviceError, match="NVIDIA driver") as caught:
        backends.open(doubler, device=device)
    assert "found no device, and onnxruntime" in caught.value.message
    assert "CPUExecutionProvider" in caught.value.message
    assert "pip install 'fastvid-sdk[gpu]'" in caught.value.hint


# Arguments


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"device": "gpu"}, InputError, "'auto', 'cpu', 'cuda' or 'cuda:N', got 'gpu'"),
        ({"device": "cuda:-1"}, InputError, "cuda:N"),
        ({"device": "cuda:\u0661"}, InputError, "cuda:N"),
        ({"device": "x" * 10_000}, InputError, r"xxx\.\.\."),
        ({"device": 0}, InputTypeError, "got int"),
        ({"backend": "torch"}, InputError, "'onnxruntime'"),
        ({"backend": None}, InputTypeError, "got NoneType"),
        ({"backend": "tensorrt"}, InputError, "for TensorRT, got 'cpu'"),
        ({"precision": "float16"}, InputError, r"'auto' or 'float32'.*--format onnx-fp16"),
        ({"precision": "bfloat16"}, InputError, "'auto' or 'float32'"),
        ({"precision": "double"}, InputError, "one of"),
        ({"threads": 0}, InputError, "from 1 to 1024, got 0"),
        ({"threads": 1 << 40}, InputError, "from 1 to 1024"),
        ({"threads": True}, InputTypeError, "got bool"),
        ({"threads": 2.0}, InputTypeError, "got float"),
    ],
)
def test_bad_arguments_are_refused(
    doubler: Bundle, options: dict[str, Any], error: type[FastvidError], message: str
) -> None:
    with pytest.raises(error, match=message):
        _open(doubler, **options)


def test_open_takes_only_bundles(doubler: Bundle) -> None:
    with pytest.raises(InputTypeError, match="got PosixPath"):
        backends.open(doubler.path)  # type: ignore[arg-type]


def test_unknown_graph_lists_the_graphs(doubler: Bundle) -> None:
    with _open(doubler) as model, pytest.raises(InputError, match="'run', got 'walk'"):
        model.graph("walk")


# Damaged and hostile graphs


def test_newer_operator_sets_are_refused(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    data = tiny.model([node], [tiny.X], [tiny.Y], opset=99)
    with pytest.raises(ModelError, match=r"run\.onnx"):
        _open(tiny.bundle(tmp_path / "model", data))


def test_failure_while_running_is_a_device_error(tmp_path: Path) -> None:
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [3, 5])
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    data = tiny.model([node], [tiny.X], [tiny.tensor("y", "float32", "A", "B")], [shape])
    graph = tiny.manifest()["graphs"]["run"] | {"outputs": [tiny.tensor("y", "float32", 3, 5)]}
    with (
        _open(tiny.bundle(tmp_path / "model", data, graphs={"run": graph})) as model,
        pytest.raises(DeviceError, match="run: failed on cpu"),
    ):
        model.graph("run").run({"x": X})


_STARVED = """
import resource, sys
import numpy as np
from fastvid import backends
from fastvid.bundle import Bundle
from fastvid.errors import OutOfMemoryError
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
session = backends.open(Bundle.load(sys.argv[1]), device="cpu").graph("run")
size = np.array([1 << 20, 1 << 20])
try:
    session.run({"x": np.ones((1, 1), np.float32), "size": size})
except OutOfMemoryError as error:
    print(error)
print(session.run({"x": np.ones((1, 1), np.float32), "size": np.array([2, 3])})["y"])
"""


def test_too_little_memory_is_named_and_the_session_stays_usable(tmp_path: Path) -> None:
    specs = [tiny.tensor("x", "float32", 1, 1), tiny.tensor("size", "int64", 2)]
    out = tiny.tensor("y", "float32")
    nodes = [
        helper.make_node("Expand", ["x", "size"], ["large"]),
        helper.make_node("ReduceSum", ["large"], ["y"], keepdims=0),
    ]
    graph = {"file": "run.onnx", "inputs": specs, "outputs": [out]}
    bundle = tiny.bundle(tmp_path / "model", tiny.model(nodes, specs, [out]), graphs={"run": graph})
    command = [sys.executable, "-c", _STARVED, str(bundle.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    refusal, answer = done.stdout.splitlines()
    assert refusal.startswith("run: running on cpu: not enough memory: Non-zero status code")
    assert "4398046511104" in refusal
    assert answer == "6.0"


# Which thread runs


def test_runs_known_to_be_short_stay_in_the_main_thread(
    doubler: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where: list[bool] = []
    with _open(doubler) as model:
        session = model.graph("run")
        guarded = session._guarded

        def watched(*arguments: Any) -> Any:
            where.append(threading.current_thread() is threading.main_thread())
            return guarded(*arguments)

        monkeypatch.setattr(session, "_guarded", watched)
        for rows in (2, 2, 2, 1, 1):
            session.run({"x": X[:rows]})
        # The first of a size is handed over: nobody knows how long it takes.
        assert where == [False, True, True, False, True]
        session._last = (X.nbytes, 1.0)
        session.run({"x": X})
        assert where[-1] is False


def test_runs_that_may_loop_are_never_taken_for_short(tmp_path: Path) -> None:
    with _open(tiny.bundle(tmp_path / "m", tiny.endless())) as model:
        assert model.graph("run")._loops
