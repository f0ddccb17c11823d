"""Model repositories for Triton: the layout, the configurations, and graphs that stand alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import bundles
import numpy as np
import pytest

from fastvid import Interpolator, Upscaler
from fastvid.bundle import Bundle
from fastvid.errors import OutputError
from fastvid_export import export, samples, triton
from fastvid_export.running import Runner


@pytest.fixture(scope="module", autouse=True)
def small_pictures() -> Any:
    """Scenes of 80x64, so that the tests are quick."""
    patch = pytest.MonkeyPatch()
    patch.setattr(samples, "SIDES", (64, 80))
    yield
    patch.undo()


def parsed(text: str) -> dict[str, list[Any]]:
    """Protobuf's text form: the values of each field, in order; a message is such a dict."""
    tokens = re.findall(r'"[^"]*"|[\w.-]+|[{}\[\]:,]', text)

    def value() -> Any:
        token = tokens.pop(0)
        if token == "{":
            return fields()
        if token == "[":
            items = []
            while tokens[0] != "]":
                items.append(value())
                if tokens[0] == ",":
                    tokens.pop(0)
            tokens.pop(0)
            return items
        if token[0] == '"':
            return token.strip('"')
        return int(token) if token.lstrip("-").isdigit() else token

    def fields() -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        while tokens and tokens[0] != "}":
            name = tokens.pop(0)
            if tokens[0] == ":":
                tokens.pop(0)
            item = value()
            found.setdefault(name, []).extend(item if isinstance(item, list) else [item])
        if tokens:
            tokens.pop(0)
        return found

    return fields()


def config(repository: Path, model: str) -> dict[str, list[Any]]:
    return parsed((repository / model / "config.pbtxt").read_text())


def test_an_upscaler_is_one_model_that_needs_no_library(tmp_path: Path) -> None:
    made = bundles.conv_upscaler(tmp_path / "up")
    path = export(made.path, "triton")
    assert path == tmp_path / "up-triton"
    assert sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()) == [
        "bundle.json",
        "up/1/model.onnx",
        "up/config.pbtxt",
    ]
    found = config(path, "up")
    assert (found["name"], found["backend"], found["max_batch_size"]) == (
        ["up"],
        ["onnxruntime"],
        [8],
    )
    assert found["input"] == [
        {"name": ["frames"], "data_type": ["TYPE_UINT8"], "dims": [-1, -1, 3]}
    ]
    assert found["dynamic_batching"] == [{}]
    frame = np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8)
    runner = Runner((path / "up/1/model.onnx").read_bytes(), operators=False)
    with Upscaler(made.path, device="cpu") as model:
        expected = model.upscale_frame(frame)
    large = runner({"frames": frame[None]})["upscaled"][0]
    assert np.abs(large.astype(int) - expected).max() <= 1


def test_precision_is_that_of_the_repository(tmp_path: Path) -> None:
    made = bundles.conv_upscaler(tmp_path / "up")
    sizes = {}
    for precision in ("float32", "float16"):
        path = export(made.path, "triton", precision=precision, output=tmp_path / precision)
        sizes[precision] = (path / "up/1/model.onnx").stat().st_size
    assert sizes["float16"] < 0.8 * sizes["float32"]


def test_an_interpolator_is_an_ensemble(tmp_path: Path) -> None:
    made = bundles.interpolator(tmp_path / "ip")
    path = export(made.path, "triton")
    found = config(path, "ip")
    assert found["platform"] == ["ensemble"]
    assert [entry["name"] for entry in found["input"]] == [["frame0"], ["frame1"], ["timestep"]]
    assert [entry["name"] for entry in found["output"]] == [["frame"]]
    steps = found["ensemble_scheduling"][0]["step"]
    assert [step["model_name"] for step in steps] == [["ip-motion"], ["ip-between"]]
    assert (path / "ip/1").is_dir()
    # What one step gives is what the next one takes, or comes from the request.
    known = {entry["name"][0] for entry in found["input"]}
    for step, graph in zip(steps, ("ip-motion", "ip-between"), strict=True):
        own = config(path, graph)
        taken = {entry["key"][0]: entry["value"][0] for entry in step["input_map"]}
        assert set(taken) == {entry["name"][0] for entry in own["input"]}
        assert set(taken.values()) <= known
        known |= {entry["value"][0] for entry in step["output_map"]}
    assert "frame" in known


def test_the_ensemble_computes_what_the_sdk_does(tmp_path: Path) -> None:
    made = bundles.interpolator(tmp_path / "ip")
    path = export(made.path, "triton")
    frames = np.random.default_rng(0).integers(0, 256, (2, 64, 80, 3), np.uint8)
    values = {"frame0": frames[:1], "frame1": frames[1:], "timestep": np.array([0.25], np.float32)}
    for step in config(path, "ip")["ensemble_scheduling"][0]["step"]:
        runner = Runner((path / step["model_name"][0] / "1/model.onnx").read_bytes())
        outputs = runner({e["key"][0]: values[e["value"][0]] for e in step["input_map"]})
        values |= {e["value"][0]: outputs[e["key"][0]] for e in step["output_map"]}
    with Interpolator(made.path, device="cpu") as model:
        expected = model.between(frames[0], frames[1], 0.25)
    np.testing.assert_array_equal(values["frame"][0], expected)


def test_one_number_per_request_is_a_vector_for_triton(tmp_path: Path) -> None:
    spec = bundles.interpolator(tmp_path / "ip").graph("between")
    batched = tuple(
        type(t)(t.name, t.dtype, ("N", *t.shape[1:]), t.range)
        for t in (*spec.inputs, *spec.outputs)
    )
    graph = type(spec)(spec.name, spec.file, batched[:-1], batched[-1:])
    found = parsed(triton.graph_config(graph, "m"))
    (timestep,) = (entry for entry in found["input"] if entry["name"] == ["timestep"])
    assert timestep["dims"] == [1]
    assert timestep["reshape"] == [{"shape": []}]


def test_an_export_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    made = bundles.conv_upscaler(tmp_path / "up")
    path = export(made.path, "triton")
    with pytest.raises(OutputError, match="must not exist"):
        export(made.path, "triton")
    export(made.path, "triton", overwrite=True)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
    assert Bundle.load(made.path).name == "up"
    assert path.is_dir()
