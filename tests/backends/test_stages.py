"""Large models in parts: loaded when used, let go when another part is, verified once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models as tiny

from fastvid import backends
from fastvid.backends import _stages, onnxruntime
from fastvid.bundle import Bundle, write_bundle
from fastvid.errors import DeviceError, InputError, IntegrityError

X = np.arange(12, dtype=np.float32).reshape(3, 4)
GRAPHS = ("text_encoder", "transformer", "decoder_first", "decoder_next")


@pytest.fixture
def opened_graphs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the graphs that are loaded, in order; bundles of any size are staged."""
    monkeypatch.setattr(_stages, "STAGED_BYTES", 0)
    found: list[str] = []
    load = onnxruntime._Loader._open_graph

    def noted(self: Any, graph: Any, *arguments: Any) -> Any:
        found.append(graph.name)
        return load(self, graph, *arguments)

    monkeypatch.setattr(onnxruntime._Loader, "_open_graph", noted)
    return found


@pytest.fixture
def model(tmp_path: Path, opened_graphs: list[str]) -> Any:
    with backends.open(bundle_of(tmp_path), device="cpu", backend="onnxruntime") as model:
        yield model


def bundle_of(folder: Path) -> Bundle:
    data = tiny.double()
    one = tiny.manifest()["graphs"]["run"]
    graphs = {name: one | {"file": f"{name}.onnx"} for name in GRAPHS}
    files = {f"{name}.onnx": data for name in GRAPHS}
    return write_bundle(folder / "model", tiny.manifest(graphs=graphs), files)


def is_loaded(model: Any) -> list[str]:
    return [name for name in GRAPHS if model.graph(name)._loaded is not None]


def test_nothing_is_loaded_before_it_is_used(model: Any, opened_graphs: list[str]) -> None:
    assert opened_graphs == []
    report = model.report()
    assert [graph.graph for graph in report.graphs] == list(GRAPHS)
    assert "loaded when it is used" in report.to_text()
    assert list(model.graph("transformer").inputs) == ["x"]
    assert list(model.graph("transformer").outputs) == ["y"]
    assert opened_graphs == []


def test_a_part_lets_go_of_the_others(model: Any, opened_graphs: list[str]) -> None:
    for name in ("text_encoder", "transformer", "transformer", "decoder_first", "decoder_next"):
        np.testing.assert_array_equal(model.graph(name).run({"x": X})["y"], 2 * X)
    assert opened_graphs == ["text_encoder", "transformer", "decoder_first", "decoder_next"]
    assert is_loaded(model) == ["decoder_first", "decoder_next"]
    model.graph("transformer").run({"x": X})
    assert is_loaded(model) == ["transformer"]


def test_inputs_are_checked_before_anything_is_loaded(model: Any, opened_graphs: list[str]) -> None:
    with pytest.raises(InputError, match="transformer: inputs must be"):
        model.graph("transformer").run({})
    assert opened_graphs == []


def test_a_closed_model_loads_nothing(model: Any, opened_graphs: list[str]) -> None:
    model.graph("transformer").run({"x": X})
    model.close()
    with pytest.raises(DeviceError, match="closed"):
        model.graph("decoder_first").run({"x": X})
    assert opened_graphs == ["transformer"]


def test_small_models_are_loaded_at_once(tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path)
    assert not _stages.is_staged(bundle)
    with backends.open(bundle, device="cpu", backend="onnxruntime") as model:
        assert not isinstance(model.graph("transformer"), _stages.StagedSession)


def test_parts_of_a_model_and_their_bytes(tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path)
    size = bundle.files["transformer.onnx"].size
    expected = {"text_encoder": size, "transformer": size, "decoder": 2 * size}
    assert _stages.parts(bundle) == expected


def test_mapped_weights_are_verified_once_and_then_recognised(
    tmp_path: Path, opened_graphs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastvid.backends import _onnx_external

    monkeypatch.setattr(_onnx_external, "MAPPED_BYTES", 0)
    data, weights = tiny.external("w.data")
    one = tiny.manifest()["graphs"]["run"] | {"external_data": ["w.data"]}
    graphs = dict.fromkeys(("text_encoder", "transformer"), one)
    files = {"run.onnx": data, "w.data": weights}
    bundle = write_bundle(tmp_path / "model", tiny.manifest(graphs=graphs), files)
    checked: list[str] = []
    check = Bundle.check
    monkeypatch.setattr(Bundle, "check", lambda self, f: checked.append(f) or check(self, f))
    zeros = {"x": np.zeros((100, 4), np.float32)}
    with backends.open(bundle, device="cpu", backend="onnxruntime") as model:
        for name in ("text_encoder", "transformer", "text_encoder"):
            y = model.graph(name).run(zeros)["y"]
            np.testing.assert_array_equal(y.reshape(-1), np.arange(1, 401))
        assert checked == ["w.data"]
        (bundle.path / "w.data").write_bytes(weights)
        with pytest.raises(IntegrityError, match="must not be changed"):
            model.graph("transformer").run(zeros)
