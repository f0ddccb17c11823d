"""The onnxruntime backend: right answers, refusals before and after loading, and cancelling."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import bundles
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
    UnsupportedModelError,
)

pytest.importorskip("onnxruntime")

RULE = {"minimum": 2, "multiple_of": 2, "padding": "edge", "maximum": 64}
X = np.arange(8, dtype=np.float32).reshape(2, 4)


def _open(bundle: Bundle, **options: Any) -> backends.LoadedModel:
    return backends.open(bundle, **{"device": "cpu", **options})


# Answers


def test_graph_computes(doubler: Bundle) -> None:
    with _open(doubler) as model:
        session = model.graph("run")
        outputs = session.run({"x": X})
        assert list(session.inputs) == ["x"]
        assert session.outputs["y"].shape == ("N", 4)
    np.testing.assert_array_equal(outputs["y"], 2 * X)


def test_strided_and_read_only_inputs_compute(doubler: Bundle) -> None:
    wide = np.arange(16, dtype=np.float32).reshape(2, 8)[:, ::2]
    wide.flags.writeable = False
    with _open(doubler) as model:
        np.testing.assert_array_equal(model.graph("run").run({"x": wide})["y"], 2 * wide)


def test_threads_get_their_own_answers(doubler: Bundle) -> None:
    wrong: list[int] = []

    def work(seed: int) -> None:
        for i in range(50):
            x = np.full((1, 4), seed * 100 + i, np.float32)
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


def test_model_opened_on_another_thread_runs_here(doubler: Bundle) -> None:
    opened: list[backends.LoadedModel] = []
    thread = threading.Thread(target=lambda: opened.append(_open(doubler)))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(opened[0].graph("run").run({"x": X})["y"], 2 * X)


def test_external_weights_come_from_the_bundle_and_stay_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, weights = tiny.external("w.data")
    graph = tiny.manifest()["graphs"]["run"] | {"external_data": ["w.data"]}
    files = {"run.onnx": data, "w.data": weights}
    bundle = write_bundle(tmp_path / "model", tiny.manifest(graphs={"run": graph}), files)
    monkeypatch.chdir(tmp_path)
    Path("w.data").write_bytes(bytes(len(weights)))
    with _open(bundle) as model:
        gc.collect()
        clutter = [bytes(1600) for _ in range(100)]
        y = model.graph("run").run({"x": np.zeros((100, 4), np.float32)})["y"]
        del clutter
    np.testing.assert_array_equal(y.reshape(-1), np.arange(1, 401))


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
    doubler: Bundle, inputs: Any, error: type[FastvidError], message: str
) -> None:
    with _open(doubler) as model, pytest.raises(error, match=f"run: .*{message}"):
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
    tmp_path: Path, shape: tuple[int, ...], message: str
) -> None:
    with (
        _open(bundles.upscaler(tmp_path / "model", **RULE)) as model,
        pytest.raises(InputError, match=message),
    ):
        model.graph("upscale").run({"frames": np.zeros(shape, np.uint8)})


def test_upscaler_graph_computes(tmp_path: Path, rng: np.random.Generator) -> None:
    frames = rng.integers(0, 256, (2, 4, 6, 3), np.uint8)
    with _open(bundles.upscaler(tmp_path / "model", **RULE)) as model:
        upscaled = model.graph("upscale").run({"frames": frames})["upscaled"]
    np.testing.assert_array_equal(upscaled, frames.repeat(2, 1).repeat(2, 2))


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


def test_sizes_that_share_a_name_must_agree(tmp_path: Path) -> None:
    ones = np.ones((2, 6), np.float32)
    with _open(_two_inputs(tmp_path)) as model:
        run = model.graph("run").run
        assert run({"a": ones, "t": ones[:, :3]})["y"].shape == (2, 6)
        with pytest.raises(InputError, match=r"'t' must have K=3 as in 'a', got shape \(2, 2\)"):
            run({"a": ones, "t": ones[:, :2]})
        with pytest.raises(InputError, match="'t' must have N=2 as in 'a'"):
            run({"a": ones, "t": ones[:1, :3]})
        with pytest.raises(InputError, match=r"shape \(N, 2\*K\)"):
            run({"a": ones[:, :5], "t": ones[:, :2]})


@pytest.mark.parametrize("value", [-0.1, 1.1, np.nan, np.inf, -np.inf])
def test_small_inputs_must_keep_their_range(tmp_path: Path, value: float) -> None:
    ones = np.ones((1, 2), np.float32)
    with (
        _open(_two_inputs(tmp_path)) as model,
        pytest.raises(InputError, match="'t' must be from 0 to 1, got"),
    ):
        model.graph("run").run({"a": ones, "t": np.full((1, 1), value, np.float32)})


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


def _huge_initializer() -> bytes:
    huge = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1 << 40])
    huge.raw_data = b"\0" * 16
    return tiny.model([helper.make_node("Add", ["x", "w"], ["y"])], [tiny.X], [tiny.Y], [huge])


def _unknown_node(name: str, domain: str = "", opset: int = 18) -> bytes:
    node = helper.make_node(name, ["x"], ["y"], domain=domain)
    domains = {domain: 1} if domain else {}
    return tiny.model([node], [tiny.X], [tiny.Y], opset=opset, domains=domains)


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
        _unknown_node("Relu", opset=99),
        _huge_initializer(),
    ],
    ids=[
        *("empty", "text", "lfs-pointer", "html", "random", "cut", "cut-early", "scrambled"),
        *("broken-utf8", "unknown-operator", "unknown-domain", "opset-99", "4-terabytes"),
    ],
)
def test_damaged_graph_is_a_model_error(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ModelError, match=r"run\.onnx"):
        _open(tiny.bundle(tmp_path / "model", data))


def test_mutated_graphs_raise_only_fastvid_errors(tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    good = tiny.double()
    for i in range(60):
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
    ("side", "spec", "message"),
    [
        ("inputs", tiny.tensor("z", "float32", "N", 4), r"must be \['x'\]"),
        ("inputs", tiny.tensor("x", "uint8", "N", 4), "dtype float32"),
        ("inputs", tiny.tensor("x", "float32", "N", 4, 1), "shape"),
        ("inputs", tiny.tensor("x", "float32", "N", 5), "shape"),
        ("outputs", tiny.tensor("y", "int64", "N", 4), "dtype float32"),
    ],
)
def test_manifest_that_contradicts_the_graph_is_refused(
    tmp_path: Path, side: str, spec: dict[str, Any], message: str
) -> None:
    graph = tiny.manifest()["graphs"]["run"] | {side: [spec]}
    bundle = tiny.bundle(tmp_path / "model", tiny.double(), graphs={"run": graph})
    with pytest.raises(ManifestError, match=rf"\$\.graphs\.run\.{side}.*{message}"):
        _open(bundle)


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
