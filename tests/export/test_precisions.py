"""Bundles are measured in other backends and precisions, and say what was kept."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("openvino", reason="openvino is not installed")

from fastvid import Upscaler
from fastvid.backends import _choice, _openvino_setup
from fastvid.bundle import Bundle, PrecisionFigure, shipped
from fastvid.errors import InputError
from fastvid_export import export, precisions
from fastvid_export.__main__ import main
from fastvid_export.precisions import LOSSES, Measured


@pytest.fixture
def upscaler(tmp_path: Path) -> Bundle:
    shutil.copytree(shipped()["upscaler-fast-x2"], tmp_path / "upscaler")
    return Bundle.load(tmp_path / "upscaler")


def test_every_way_of_the_machine_is_measured(upscaler: Bundle) -> None:
    found = precisions.measure(upscaler, rounds=1, size=(64, 96))
    ways = {(m.figure.backend, m.figure.precision): m.figure for m in found}
    assert set(ways) == {("openvino", name) for name in _openvino_setup.precisions()}
    whole = ways["openvino", "float32"]
    assert abs(whole.loss) < 0.001
    assert whole.psnr is None or whole.psnr > 80
    assert (whole.processor, whole.version[:3]) == (_choice.processor(), "202")
    if ("openvino", "bfloat16") in ways:
        narrow = ways["openvino", "bfloat16"]
        assert narrow.loss <= LOSSES["bfloat16"]
        assert narrow.psnr is not None
        assert 50 < narrow.psnr < 90


def test_what_is_kept_is_offered(upscaler: Bundle) -> None:
    figure = PrecisionFigure("bfloat16", "openvino", 0.01, 1.5, _choice.processor(), "noise")
    worse = dataclasses.replace(figure, precision="float32", speed=0.5)
    made = precisions.update(upscaler, [Measured(figure, ""), Measured(worse, "it is slower")])
    assert made.precisions == (figure,)
    assert set(made.files) == set(upscaler.files)
    if "bfloat16" in _openvino_setup.precisions():
        with Upscaler(made.path, device="cpu", precision="bfloat16") as model:
            assert model.report().precision == "bfloat16"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"scores": [39.9], "seconds": [1.0]}, "0.05 dB may be lost"),
        ({"scores": [40.0], "seconds": [1.95]}, "at least 1.1 times as fast"),
        ({"scores": [39.96], "seconds": [1.5]}, ""),
    ],
)
def test_loss_and_speed_are_gates(
    upscaler: Bundle, changes: dict[str, list[float]], problem: str
) -> None:
    import numpy as np

    first, row = (precisions._Row(upscaler, "onnxruntime", "float32") for _ in range(2))
    first.scores, first.seconds = [40.0], [2.0]
    row.precision = "bfloat16"
    row.scores, row.seconds = changes["scores"], changes["seconds"]
    first.pictures = row.pictures = [np.zeros((2, 2, 3), np.uint8)]
    assert problem in precisions._judged(row, first, "noise").problem
    assert bool(problem) == bool(precisions._judged(row, first, "noise").problem)


def test_bundle_of_less_precision_needs_its_original(upscaler: Bundle, tmp_path: Path) -> None:
    narrow = Bundle.load(export(upscaler.path, "onnx-int8", output=tmp_path / "narrow"))
    with pytest.raises(InputError, match="in float32"):
        precisions.measure(narrow)
    found = precisions.measure(narrow, reference=upscaler, rounds=1, size=(64, 96))
    ways = [(m.figure.backend, m.figure.precision) for m in found]
    assert ways == [("onnxruntime", "int8"), ("openvino", "int8")]
    assert all(m.figure.psnr is not None and m.figure.psnr > 40 for m in found)


def test_generators_are_refused() -> None:
    with pytest.raises(InputError, match="'generator-tiny' is a generator"):
        precisions.measure(Bundle.load(shipped()["generator-tiny"]))


def test_command_writes_unless_told_not_to(
    upscaler: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (upscaler.path / "bundle.json").read_bytes()
    arguments = ["precisions", str(upscaler.path), "--rounds", "1", "--dry-run"]
    assert main(arguments) == 0
    assert "in openvino" in capsys.readouterr().out
    assert (upscaler.path / "bundle.json").read_bytes() == before
