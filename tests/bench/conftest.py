"""Small models, and rows that nobody measured."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import bundles
import generators
import pytest
import tiny_models

from fastvid.bench import Results, Row
from fastvid.bundle import write_bundle


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`up` and `ip` work; `off` is `up` with other pixels and less precision; `bad` cannot load."""
    folder = tmp_path_factory.mktemp("models")
    bundles.upscaler(folder / "up")
    bundles.interpolator(folder / "ip")
    bundles.upscaler(folder / "even", multiple_of=2, padding="none")
    generators.bundle(folder / "gen")
    frames = tiny_models.tensor("frames", "uint8", "N", "H", "W", 3)
    upscaled = tiny_models.tensor("upscaled", "uint8", "N", "2*H", "2*W", 3)
    manifest = tiny_models.manifest(
        task="upscaler",
        scale=2,
        graphs={"upscale": {"file": "run.onnx", "inputs": [frames], "outputs": [upscaled]}},
    )
    write_bundle(folder / "bad", manifest | {"name": "bad"}, {"run.onnx": b"no graph"})
    write_bundle(
        folder / "off", manifest | {"name": "up-fp16", "precision": "float16"}, {"run.onnx": _off()}
    )
    return folder


def _off() -> bytes:
    """Twice the size, by the upscaler of the tests, and every sample one step darker."""
    from onnx import TensorProto, helper

    frames = tiny_models.tensor("frames", "uint8", "N", "H", "W", 3)
    inside = tiny_models.tensor("upscaled", "uint8", "N", "sH", "sW", 3)
    scales = helper.make_tensor("scales", TensorProto.FLOAT, [4], [1, 2, 2, 1])
    numbers = [
        helper.make_tensor(n, TensorProto.FLOAT, [], [v]) for n, v in (("one", 1), ("zero", 0))
    ]
    nodes = [
        helper.make_node("Cast", ["frames"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node(
            "Resize", ["floats", "", "scales"], ["large"], mode="nearest",
            coordinate_transformation_mode="asymmetric", nearest_mode="floor",
        ),
        helper.make_node("Sub", ["large", "one"], ["darker"]),
        helper.make_node("Max", ["darker", "zero"], ["legal"]),
        helper.make_node("Cast", ["legal"], ["upscaled"], to=TensorProto.UINT8),
    ]  # fmt: skip
    return tiny_models.model(nodes, [frames], [inside], [scales, *numbers])


@pytest.fixture(scope="session")
def schema() -> dict[str, Any]:
    """The schema that ships with the package."""
    text = resources.files("fastvid.bench").joinpath("results.schema.json").read_text()
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.fixture
def make_row() -> Any:
    """A row of 120 samples from 10.0 to 21.9 ms, in 6 bursts; arguments replace fields."""

    def make(**changes: Any) -> Row:
        samples = [10 + k / 10 for k in range(120)]
        values: dict[str, Any] = {
            "model": "up", "task": "upscaler", "format": "onnx-cpu", "size": (64, 48),
            "status": "ok", "device": "cpu", "backend": "onnxruntime", "precision": "float32",
            "start": {"load_ms": 20.0, "cold_first_frame_ms": 300.0, "warm_first_frame_ms": 9.0,
                      "cold_samples_ms": [290.0, 300.0, 310.0], "load_samples_ms": [19.0, 21.0]},
            "frame": {"p50_ms": 16.0, "p90_ms": 20.7, "p99_ms": 21.8, "fps": 62.5, "samples": 120,
                      "process_of_burst": [0, 0, 0, 1, 1, 1], "others_busy": 0.0, "drift": 0.0},
            "stages": {"decode_ms": 1.0, "pre_ms": 0.1, "infer_ms": 15.0, "post_ms": 0.1,
                       "encode_ms": 2.0},
            "file": {"fps": 50.0},
            "memory": {"peak_rss_mb": 90.0},
            "quality": {"reference": "other", "identical": False, "psnr": 41.5, "ssim": 0.99},
            "artefact_mb": 1.5,
            "samples_ms": tuple(tuple(samples[k::6]) for k in range(6)),
        }  # fmt: skip
        return Row(**values | changes)

    return make


@pytest.fixture
def results_of() -> Any:
    """Results of rows, on a machine of one's choice."""

    def make(*rows: Row, **environment: Any) -> Results:
        facts = {"cpu": "one", "versions": {"numpy": "2.0"}, "gpus": [], "load_before": 1.0}
        return Results(rows=rows, environment=facts | environment)

    return make
