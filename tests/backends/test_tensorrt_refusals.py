"""What the TensorRT backend refuses, and what it says when TensorRT fails."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import fake_machine
import numpy as np
import pytest
import tiny_models as tiny
from onnx import TensorProto, helper

from fastvid import backends
from fastvid.backends import onnxruntime, tensorrt
from fastvid.backends.tensorrt import EngineOptions, _setup
from fastvid.bundle import Bundle
from fastvid.devices import Device
from fastvid.errors import (
    BackendUnavailableError,
    DeviceError,
    EngineBuildError,
    EngineError,
    FastvidError,
    InputError,
    NoDeviceError,
    OutOfMemoryError,
    UnsupportedModelError,
)

X = np.arange(12, dtype=np.float32).reshape(3, 4)


def opened(bundle: Bundle, **options: Any) -> Any:
    return backends.open(bundle, backend=EngineOptions(**options))


# Bad machines and bad graphs


def test_cpu_is_refused(newest: Any, upscaler: Bundle) -> None:
    with pytest.raises(InputError, match="for TensorRT, got 'cpu'"):
        backends.open(upscaler, device="cpu", backend="tensorrt")


def test_device_that_is_not_there(newest: Any, upscaler: Bundle) -> None:
    with pytest.raises(NoDeviceError, match="got 'cuda:3': the driver lists cuda:0 NVIDIA H200"):
        backends.open(upscaler, device="cuda:3", backend="tensorrt")


@pytest.mark.parametrize("version", ["8.6.1", "10.2.0", "12.0.0", "unknown"])
def test_other_versions_are_refused(
    newest: Any, monkeypatch: pytest.MonkeyPatch, upscaler: Bundle, version: str
) -> None:
    monkeypatch.setattr(newest, "__version__", version)
    with pytest.raises(BackendUnavailableError, match=f"must be 10.3 to 11.x, got {version}"):
        backends.open(upscaler, backend="tensorrt")


def test_missing_tensorrt_names_the_way(
    newest: Any, monkeypatch: pytest.MonkeyPatch, upscaler: Bundle
) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError("no", name=name)

    monkeypatch.setattr(_setup.importlib, "import_module", missing)
    with pytest.raises(BackendUnavailableError, match="tensorrt is not installed") as caught:
        backends.open(upscaler, backend="tensorrt")
    assert "fastvid-sdk[tensorrt]" in caught.value.hint


def test_plugins_need_a_newer_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_machine.install(monkeypatch, "10.3.0")
    with pytest.raises(UnsupportedModelError, match=r"need TensorRT 10\.16 or newer") as caught:
        opened(Bundle.find("fast", "upscaler", 2), sizes=("64x48",))
    assert "--portable" in caught.value.hint


def test_operators_without_a_plugin_run_in_onnxruntime(
    newest: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the same device, and the report says so."""
    original = onnxruntime.load

    def load(bundle: Bundle, device: Device, options: Any, *, lane: Any = None) -> Any:
        served.append((str(device), tuple(bundle.graphs), lane))
        return original(bundle, Device("cpu"), options)

    served: list[Any] = []
    monkeypatch.setattr(onnxruntime, "load", load)
    with opened(Bundle.find("fast", "interpolator"), sizes=("64x48",)) as model:
        report = model.report()
        assert [g.backend for g in report.graphs] == ["onnxruntime", "tensorrt"]
        assert "onnxruntime runs motion on the same device: motion: cannot run" in report.reason
        assert "InverseSearch" in report.reason
    on_gpu = [one for one in served if one[0] == "cuda:0"]
    assert [names for _, names, _ in on_gpu] == [("motion",)]
    assert on_gpu[0][2] is not None, "both must share a stream"


def test_bundle_without_any_engine_is_refused(newest: Any) -> None:
    bundle = Bundle.find("fast", "interpolator")
    only = dataclasses.replace(bundle, graphs={"motion": bundle.graph("motion")})
    with pytest.raises(UnsupportedModelError, match="no plugin is for InverseSearch"):
        opened(only, sizes=("64x48",))


@pytest.mark.parametrize(
    ("failing", "kind", "said"),
    [
        ("parse", EngineBuildError, "cannot read the graph: In node 3"),
        ("profile", EngineBuildError, "refuses the sizes"),
        ("build", EngineBuildError, "no tactic was found"),
        ("memory", OutOfMemoryError, "took more memory than there is"),
        ("deserialize", EngineBuildError, "right after it was built"),
        ("context", EngineBuildError, "no context could be made"),
        ("run", EngineBuildError, "a kernel failed"),
    ],
)
def test_failures_of_a_build_are_told_and_keep_the_cache_clean(
    newest: Any, doubler: Bundle, failing: str, kind: type[FastvidError], said: str
) -> None:
    newest.fake_fail.add(failing)
    with pytest.raises(kind, match=said):
        opened(doubler)
    assert tensorrt.cached_engines() == ()
    newest.fake_fail.clear()
    with opened(doubler) as model:
        np.testing.assert_array_equal(model.graph("run").run({"x": X[:1]})["y"], 2 * X[:1])


def test_failures_of_a_run_are_told(newest: Any, doubler: Bundle) -> None:
    with opened(doubler, batch=8) as model:
        newest.fake_fail.add("run")
        with pytest.raises(DeviceError, match="running failed: a kernel failed"):
            model.graph("run").run({"x": X})
        newest.fake_fail.clear()
        np.testing.assert_array_equal(model.graph("run").run({"x": X})["y"], 2 * X)
    with pytest.raises(DeviceError, match="session is closed"):
        model.graph("run").run({"x": X})


def test_unsupported_dtype_is_refused(newest: Any, tmp_path: Path) -> None:
    x, y = tiny.tensor("x", "int64", "N"), tiny.tensor("y", "float64", "N")
    graph = helper.make_graph(
        [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.DOUBLE)],
        "cast",
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["N"])],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, ["N"])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    graphs = {"run": {"file": "run.onnx", "inputs": [x], "outputs": [y]}}
    bundle = tiny.bundle(tmp_path / "wide", made.SerializeToString(), graphs=graphs)
    with pytest.raises(UnsupportedModelError, match="cannot take 'y' of dtype float64"):
        opened(bundle)


def test_object_that_cannot_be_made_is_told(
    newest: Any, monkeypatch: pytest.MonkeyPatch, doubler: Bundle
) -> None:
    """The bindings answer a null pointer with a TypeError."""

    def null(*arguments: Any) -> Any:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    for kind in ("Builder", "OnnxParser", "Runtime"):
        with monkeypatch.context() as patch:
            patch.setattr(newest, kind, null)
            with pytest.raises(EngineError, match="factory function returned nullptr"):
                opened(doubler)


def test_compatibility_needs_a_newer_tensorrt(
    monkeypatch: pytest.MonkeyPatch, doubler: Bundle
) -> None:
    fake_machine.install(monkeypatch, "10.3.0")
    with pytest.raises(InputError, match=r"needs TensorRT 10\.11 or newer, got 10\.3\.0"):
        opened(doubler, compatibility="same_compute_capability")
    fake_machine.install(monkeypatch)
    opened(doubler, compatibility="same_compute_capability", tf32=True, workspace=1 << 30).close()
