"""What a model is run in and by: what bundles say was measured, and what the machine offers."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastvid import Interpolator, Upscaler, Video, backends
from fastvid.backends import _choice, _openvino_setup
from fastvid.bundle import Bundle, shipped
from fastvid.devices import cuda_driver
from fastvid.errors import BackendUnavailableError, InputError
from fastvid.metrics import psnr
from fastvid.scene import Scene

pytest.importorskip("openvino", reason="openvino is not installed")

CLIPS = Path(__file__).parents[3] / "shared" / "data" / "clips"
BFLOAT16 = "bfloat16" in _openvino_setup.precisions()
needs_bfloat16 = pytest.mark.skipif(not BFLOAT16, reason="the processor has no bfloat16")
no_gpu = pytest.mark.skipif(not cuda_driver().problem, reason="a CUDA device is here")


def figure(precision: str = "bfloat16", **changes: Any) -> dict[str, Any]:
    return {
        "precision": precision,
        "backend": "openvino",
        "loss": 0.01,
        "speed": 1.5,
        "processor": _choice.processor(),
        "data": "drawn scenes",
        **changes,
    }


def measured(folder: Path, name: str, *figures: dict[str, Any]) -> Bundle:
    """A shipped bundle that says something else of what was measured."""
    target = folder / name
    shutil.copytree(shipped()[name], target)
    manifest = json.loads((target / "bundle.json").read_text())
    (target / "bundle.json").write_text(json.dumps(manifest | {"precisions": list(figures)}))
    return Bundle.load(target)


@pytest.fixture
def upscaler(tmp_path: Path) -> Bundle:
    return measured(tmp_path, "upscaler-fast-x2", figure())


def frames(count: int, height: int = 96, width: int = 160) -> list[np.ndarray[Any, Any]]:
    scene = Scene(width, height, seed=4)
    return [scene.draw(0.4 + t / 30) for t in range(count)]


# bfloat16


@needs_bfloat16
@pytest.mark.parametrize("backend", ["auto", "openvino"])
def test_bfloat16_is_near_float32_and_not_the_same(upscaler: Bundle, backend: str) -> None:
    (frame,) = frames(1)
    theirs = Upscaler(upscaler.path, device="cpu", backend="onnxruntime").upscale_frame(frame)
    with Upscaler(upscaler.path, device="cpu", backend=backend, precision="bfloat16") as model:
        ours = model.upscale_frame(frame)
        report = model.report()
    assert (report.backend, report.precision) == ("openvino", "bfloat16")
    assert "precision='bfloat16' was asked for" in report.reason
    assert "1.5 times as fast" in report.reason
    assert 48 < psnr(ours, theirs) < 90


@needs_bfloat16
def test_flow_stays_float32(tmp_path: Path) -> None:
    bundle = measured(tmp_path, "interpolator-fast", figure())
    first, _, last = frames(3)
    theirs = Interpolator(bundle.path, device="cpu", backend="onnxruntime").between(first, last)
    ours = Interpolator(bundle.path, device="cpu", precision="bfloat16").between(first, last)
    assert psnr(ours, theirs) > 55


@needs_bfloat16
def test_runs_of_one_size_give_equal_bits(upscaler: Bundle) -> None:
    (frame,) = frames(1)
    with Upscaler(upscaler.path, device="cpu", precision="bfloat16") as model:
        first = model.upscale_frame(frame)
        model.upscale_frame(frame[:64, :64].copy())
        np.testing.assert_array_equal(model.upscale_frame(frame), first)


@needs_bfloat16
def test_pieces_give_nearly_the_whole(upscaler: Bundle) -> None:
    (frame,) = frames(1, 192, 256)
    options: dict[str, Any] = {"device": "cpu", "precision": "bfloat16"}
    whole = Upscaler(upscaler.path, tile=None, **options).upscale_frame(frame)
    pieces = Upscaler(upscaler.path, tile=96, **options).upscale_frame(frame)
    assert np.abs(whole.astype(np.int16) - pieces).max() <= 1


@needs_bfloat16
@pytest.mark.skipif(not CLIPS.is_dir(), reason="no clips in ../shared/data")
def test_real_clip_passes_through_both_models(tmp_path: Path) -> None:
    source = next(iter(sorted((CLIPS / "intel_samples").glob("*.mp4"))))
    some = itertools.islice(Video.open(source), 6)
    clip = Video.from_frames(np.stack([frame.image[::2, ::2] for frame in some]), 25)
    options: dict[str, Any] = {"device": "cpu", "precision": "bfloat16"}
    between = Interpolator(measured(tmp_path, "interpolator-fast", figure()).path, **options)
    larger = Upscaler(measured(tmp_path, "upscaler-fast-x2", figure()).path, **options)
    larger.upscale(between.interpolate(clip, factor=2)).save(tmp_path / "out.mp4")
    out = Video.open(tmp_path / "out.mp4")
    assert out.frames().shape == (12, *(2 * side for side in clip.frames().shape[1:3]), 3)


# What is offered


def test_bundle_without_figures_offers_its_own_precision_only(tmp_path: Path) -> None:
    bundle = measured(tmp_path, "upscaler-fast-x2")
    assert _choice.offered(bundle) == ("float32",)
    with pytest.raises(InputError, match=r"'auto' or 'float32'.*got 'bfloat16'.*measures it"):
        backends.open(bundle, device="cpu", precision="bfloat16")


@pytest.mark.parametrize(
    "options", [{"backend": "onnxruntime"}, {"device": "cuda"}], ids=["backend", "device"]
)
def test_precision_names_what_computes_in_it(upscaler: Bundle, options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"got 'bfloat16'.*backend='openvino' on the CPU"):
        backends.open(upscaler, precision="bfloat16", **options)


def test_processor_without_bfloat16_lists_what_there_is(
    upscaler: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_openvino_setup, "precisions", lambda: ("float32",))
    with pytest.raises(InputError, match=r"'auto' or 'float32'.*on this machine.*no instructions"):
        backends.open(upscaler, device="cpu", precision="bfloat16")


def test_missing_openvino_names_the_pip_command(
    upscaler: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BackendUnavailableError, match=r"pip install 'fastvid-sdk\[openvino\]'"):
        backends.open(upscaler, device="cpu", precision="bfloat16")


# What auto takes


def _opened(bundle: Bundle, **options: Any) -> tuple[str, str]:
    with backends.open(bundle, **{"device": "cpu", **options}) as model:
        return model.report().backend, model.report().reason


def test_auto_takes_what_was_measured_to_be_faster(tmp_path: Path) -> None:
    bundle = measured(tmp_path, "upscaler-fast-x2", figure("float32", speed=1.3))
    backend, reason = _opened(bundle)
    assert backend == "openvino"
    assert "1.3 times as fast" in reason
    with backends.open(bundle, device="cpu") as model:
        assert model.report().precision == "float32"


@pytest.mark.parametrize(
    "changes", [{"speed": 1.01}, {"processor": "sse9"}, {"precision": "bfloat16"}], ids=str
)
def test_auto_stays_with_onnxruntime_elsewhere(tmp_path: Path, changes: dict[str, Any]) -> None:
    entry = figure("float32", speed=1.3) | changes
    backend, reason = _opened(measured(tmp_path, "upscaler-fast-x2", entry))
    assert backend == "onnxruntime"
    assert reason == "device='cpu' was asked for"


def test_auto_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = measured(tmp_path, "upscaler-fast-x2", figure("float32", speed=1.3))
    monkeypatch.setitem(sys.modules, "openvino", None)
    backend, reason = _opened(bundle)
    assert backend == "onnxruntime"
    assert "openvino is 1.3 times as fast here, and is not installed" in reason


def test_auto_takes_openvino_where_onnxruntime_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    bundle = measured(tmp_path, "upscaler-fast-x2")
    backend, reason = _opened(bundle)
    assert backend == "openvino"
    assert "onnxruntime is not installed" in reason


@no_gpu
def test_auto_device_says_why_the_cpu(tmp_path: Path) -> None:
    bundle = measured(tmp_path, "upscaler-fast-x2", figure("float32", speed=1.3))
    backend, reason = _opened(bundle, device="auto")
    assert backend == "openvino"
    assert "NVIDIA driver" in reason


def test_named_onnxruntime_is_taken(tmp_path: Path) -> None:
    bundle = measured(tmp_path, "upscaler-fast-x2", figure("float32", speed=1.3))
    assert _opened(bundle, backend="onnxruntime")[0] == "onnxruntime"


# Bundles in less precision beside the original


def _narrow(tmp_path: Path, **settings: str) -> Bundle:
    """A bundle, and one beside it that says that it is its int8 form."""
    bundle = measured(tmp_path, "upscaler-fast-x2")
    folder = tmp_path / "upscaler-fast-x2-int8"
    shutil.copytree(bundle.path, folder)
    manifest = json.loads((folder / "bundle.json").read_text())
    digest = bundle.files["upscale.onnx"].sha256
    manifest["provenance"]["settings"] = {"sha256.upscale": digest, **settings}
    manifest |= {"name": "upscaler-fast-x2-int8", "precision": "int8"}
    (folder / "bundle.json").write_text(json.dumps(manifest))
    return bundle


def test_precision_takes_the_bundle_that_was_made_of_this_one(tmp_path: Path) -> None:
    bundle = _narrow(tmp_path)
    assert _choice.offered(bundle) == ("float32", "int8")
    with Upscaler(bundle.path, device="cpu", precision="int8") as model:
        report = model.report()
        assert model.upscale_frame(frames(1)[0]).shape == (192, 320, 3)
    assert (report.model, report.precision) == ("upscaler-fast-x2-int8", "int8")
    with Upscaler(bundle.path, device="cpu") as model:
        assert model.report().precision == "float32"


def test_bundle_made_of_other_graphs_is_refused(tmp_path: Path) -> None:
    bundle = _narrow(tmp_path, **{"sha256.upscale": "0" * 64})
    with pytest.raises(InputError, match=r"'int8' of .* must be made from its graphs.*--overwrite"):
        backends.open(bundle, device="cpu", precision="int8")


def test_shipped_narrow_bundles_are_of_the_models_that_ship() -> None:
    for name, path in shipped().items():
        for precision, suffix in (("int8", "-int8"), ("float16", "-fp16")):
            if name.removesuffix(suffix) in shipped() and name.endswith(suffix):
                original = Bundle.load(shipped()[name.removesuffix(suffix)])
                assert _choice.narrow_form(original, precision) == Bundle.load(path)
