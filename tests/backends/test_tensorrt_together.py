"""TensorRT beside onnxruntime on one device, through the public classes; both are doubles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bundles
import fake_onnxruntime
import generators
import numpy as np
import pytest

from fastvid import Generator, Interpolator, Upscaler, Video, _core
from fastvid.backends import DeviceArray, tensorrt
from fastvid.backends.tensorrt import EngineOptions


@pytest.fixture
def ort(newest: Any, monkeypatch: pytest.MonkeyPatch) -> fake_onnxruntime.FakeOrt:
    """onnxruntime on the device that TensorRT runs on."""
    return fake_onnxruntime.install(monkeypatch, newest.fake_cuda)


def drift(count: int, height: int, width: int) -> np.ndarray[Any, Any]:
    """A slow drift, in which no scene ends."""
    base = np.random.default_rng(3).integers(0, 120, (height, width, 3), np.uint8)
    return np.stack([base + n for n in range(count)]).astype(np.uint8)


def test_shipped_interpolator_runs_in_both(newest: Any, ort: fake_onnxruntime.FakeOrt) -> None:
    """`motion` has an op without a plugin; its outputs go to the engine without leaving."""
    first, second = drift(2, 48, 64)
    with Interpolator(device="cpu") as model:
        wanted = model.between(first, second, [0.25, 0.5])
    with Interpolator(backend=EngineOptions(sizes=("64x48",))) as model:
        assert [g.backend for g in model.report().graphs] == ["onnxruntime", "tensorrt"]
        assert {g.device for g in model.report().graphs} == {"cuda:0"}
        model.between(first, second)
        newest.fake_cuda.calls.clear()
        made = model.between(first, second, [0.25, 0.5])
        # Two frames and two times go up, two pictures come down.
        assert newest.fake_cuda.calls.count("cudaMemcpyAsync") == 6
        motion, between = (model._graph(name) for name in ("motion", "between"))
        kept = motion.run({"frame0": first[None], "frame1": second[None]}, keep=motion.outputs)
        assert all(isinstance(array, DeviceArray) for array in kept.values())
        assert {array.stream for array in kept.values()} == {motion.stream, between.stream}
    assert np.abs(made.astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("build", ["now", "background"])
def test_video_is_the_same_while_backends_change_over(
    newest: Any, ort: fake_onnxruntime.FakeOrt, tmp_path: Path, build: str
) -> None:
    bundles.interpolator(tmp_path / "m")
    frames = drift(40, 24, 32)
    with Interpolator(tmp_path / "m", device="cpu") as model:
        wanted = model.interpolate(Video.from_frames(frames, 10), factor=2).frames()
    newest.fake_step_seconds = 0.02
    options = EngineOptions(sizes=("32x24",), build=build)
    with Interpolator(tmp_path / "m", backend=options) as model:
        ran = [model.report().backend]
        pictures = []
        video = model.interpolate(Video.from_frames(frames, 10), factor=2)
        for number, picture in enumerate(video):
            if build == "background" and number == 30:
                assert model._model.wait(60)  # type: ignore[attr-defined]
            pictures.append(getattr(picture, "image", picture))
        ran.append(model.report().backend)
    np.testing.assert_array_equal(np.stack(pictures), wanted)
    assert ran == ["tensorrt" if build == "now" else "onnxruntime", "tensorrt"]


def test_videos_are_upscaled_in_an_engine(
    newest: Any, ort: fake_onnxruntime.FakeOrt, tmp_path: Path
) -> None:
    bundles.upscaler(tmp_path / "m-x2")
    frames = drift(9, 18, 30)
    with Upscaler(tmp_path / "m-x2", backend=EngineOptions(sizes=("360p",))) as model:
        made = model.upscale(Video.from_frames(frames, 10)).frames()
        assert model.report().backend == "tensorrt"
    np.testing.assert_array_equal(made, frames.repeat(2, 1).repeat(2, 2))
    assert ort.sessions == [], "onnxruntime is needed for golden results only"
    assert newest.fake_cuda.calls.count("cudaGraphLaunch") > 0


def test_auto_runs_other_sizes_beside_the_engines(
    newest: Any, ort: fake_onnxruntime.FakeOrt, tmp_path: Path
) -> None:
    bundle = bundles.upscaler(tmp_path / "m-x2")
    tensorrt.build(bundle, options=EngineOptions(sizes=("30x18",)))
    with Upscaler(tmp_path / "m-x2") as model:
        assert model.report().backend == "tensorrt"
        for size in ((18, 30), (20, 22), (18, 30)):
            frames = drift(3, *size)
            made = model.upscale(Video.from_frames(frames, 10)).frames()
            np.testing.assert_array_equal(made, frames.repeat(2, 1).repeat(2, 2))
    assert len(ort.sessions) == 1, "opened once, when a frame first needed it"
    assert newest.fake_cuda.allocated == 0


def test_generator_draws_the_same_in_engines(
    newest: Any,
    ort: fake_onnxruntime.FakeOrt,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(_core, "cuda_compiled", lambda: False)
    bundle = generators.bundle(tmp_path / "generator-tiny")
    clips = []
    for options in ({"device": "cpu"}, {"backend": EngineOptions()}):
        with Generator(bundle.path, **options) as model:
            video = model.generate("a red circle moves left", seed=3, num_frames=9)
            clips.append(video.frames())
            backend = model.report().backend
    assert backend == "tensorrt"
    assert len(clips[0]) == 9
    assert np.abs(clips[0].astype(int) - clips[1]).max() <= 1
