"""Plans of models that are loaded in parts: from the shapes of weights, without loading them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models as tiny
from onnx import TensorProto, helper, numpy_helper

from fastvid._generation import staged_memory
from fastvid._generation.staged_memory import StagedMeter
from fastvid.backends._onnx_file import external_files, weight_shapes
from fastvid.bundle import Bundle, FileSpec, write_bundle

GIGA = 1 << 30
SIZES = {"N": 1, "T": 2, "h": 60, "w": 104, "L": 512, "H": 480, "W": 832}


def external(name: str, *shape: int) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "w.data", "offset": "0", "length": "4"}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def network() -> bytes:
    weights = [
        external("up", 400, 100),
        external("down", 100, 400),
        external("out", 100, 100),
        external("patch", 100, 16, 1, 2, 2),
        external("words", 70_000, 100),
        numpy_helper.from_array(np.zeros(3, np.float32), "inside"),
    ]
    node = helper.make_node("Add", ["x", "x"], ["y"])
    return tiny.model([node], [tiny.X], [tiny.Y], weights)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A text encoder of 5 GB and a transformer of 3, as far as the manifest knows."""
    one = tiny.manifest()["graphs"]["run"]
    graphs = {
        name: one | {"file": f"{name}.onnx", "external_data": [f"{name}.data"]}
        for name in ("text_encoder", "transformer")
    }
    files = {f"{name}.onnx": network() for name in graphs}
    files |= {f"{name}.data": b"0000" for name in graphs}
    made = write_bundle(tmp_path / "model", tiny.manifest(graphs=graphs), files)
    sizes = {"text_encoder.data": 5 * GIGA, "transformer.data": 3 * GIGA}
    listed = {n: FileSpec(f.sha256, sizes.get(n, f.size)) for n, f in made.files.items()}
    return dataclasses.replace(made, files=listed)


def meter(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> StagedMeter:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("nothing may be run to ask")

    monkeypatch.setattr(staged_memory.Meter, "at", never)
    return StagedMeter(bundle, {"device": "cpu"}, (SIZES, SIZES), lambda *_: 1)


def test_arrays_follow_from_the_shapes_of_weights(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = meter(bundle, monkeypatch).at(SIZES)
    per_token = 4 * (8 * 400 + 20 * 100)
    assert found == {"text_encoder": 512 * per_token, "transformer": 2 * 30 * 52 * per_token}
    twice = meter(bundle, monkeypatch).at(SIZES | {"N": 2})
    # Of prompts there is never more than one.
    assert twice == found | {"transformer": 2 * found["transformer"]}


@pytest.mark.parametrize(("block", "values"), [(16, 32), (128, 128)])
def test_blocks_of_few_bits_count_as_their_layers_and_with_what_packing_adds(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, block: int, values: int
) -> None:
    layers = [external("up", 400, 8, block), external("down", 8 * values, 4, block)]
    node = helper.make_node("Add", ["x", "x"], ["y"])
    data = tiny.model([node], [tiny.X], [tiny.Y], layers)
    monkeypatch.setattr(Bundle, "read", lambda *_: data)
    per_token = 4 * (8 * max(400, 8 * values) + 20 * 8 * values)
    sums = 2 * 4 * (400 * 8 + 8 * values * 4)
    assert meter(bundle, monkeypatch).worked_out("text_encoder", SIZES) == sums + 512 * per_token


def test_the_part_that_takes_most_counts(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    staged = meter(bundle, monkeypatch)
    encoder = staged.weights["text_encoder"]
    assert encoder > 5 * GIGA
    assert staged.total({"text_encoder": 10, "transformer": 20}) == encoder + 10
    most = 4 * GIGA
    expected = staged.weights["transformer"] + most
    assert staged.total({"text_encoder": 0, "transformer": most}) == expected


def test_graphs_name_the_shapes_and_files_of_their_weights() -> None:
    data = network()
    assert weight_shapes(data)[:2] == [(400, 100), (100, 400)]
    assert weight_shapes(data)[-1] == (3,)
    assert external_files(data) == {"w.data"}
    assert external_files(tiny.double()) == set()


def test_files_of_weights_in_bodies_are_found() -> None:
    inner = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["out"])],
        "body",
        [],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [external("w", 1)],
    )
    node = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
    assert external_files(tiny.model([node], [tiny.X], [tiny.Y])) == {"w.data"}
    constant = helper.make_node("Constant", [], ["y"], value=external("w", 1))
    assert external_files(tiny.model([constant], [tiny.X], [tiny.Y])) == {"w.data"}
