"""Builds that are followed, cancelled or made in the background, and what `auto` takes."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastvid import backends
from fastvid.backends import onnxruntime, tensorrt
from fastvid.backends.tensorrt import EngineOptions
from fastvid.bundle import Bundle
from fastvid.devices import Device
from fastvid.errors import CancelledError

X = np.arange(12, dtype=np.float32).reshape(3, 4)
SMALL = EngineOptions(sizes=("64x48",))


def opened(bundle: Bundle, **options: Any) -> Any:
    return backends.open(bundle, backend=EngineOptions(**options))


def frame(height: int, width: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (1, height, width, 3), np.uint8)


def large(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return image.repeat(2, axis=1).repeat(2, axis=2)


# Progress, cancelling, background


def test_progress_is_told(newest: Any, doubler: Bundle) -> None:
    newest.fake_step_seconds = 0.12
    told: list[tensorrt.Progress] = []
    tensorrt.build(doubler, progress=told.append)
    assert {one.graph for one in told} == {"run"}
    assert any(one.phase == "Building Engine" and one.steps == 3 for one in told)
    assert [one.seconds for one in told] == sorted(one.seconds for one in told)


def test_error_of_the_callback_ends_the_build(newest: Any, doubler: Bundle) -> None:
    def fail(progress: tensorrt.Progress) -> None:
        if progress.phase == "Building Engine":
            raise ZeroDivisionError("mine")

    newest.fake_step_seconds = 0.12
    with pytest.raises(ZeroDivisionError, match="mine"):
        tensorrt.build(doubler, progress=fail)
    assert tensorrt.cached_engines() == ()


def test_build_is_cancelled_at_a_step(newest: Any, doubler: Bundle) -> None:
    newest.fake_steps, newest.fake_step_seconds = 1000, 0.01
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    start = time.monotonic()
    with pytest.raises(CancelledError):
        tensorrt.build(doubler, cancelled=stop.is_set)
    assert time.monotonic() - start < 5
    assert tensorrt.cached_engines() == ()


def background(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets onnxruntime serve from the CPU, because there is no other device here."""
    original = onnxruntime.load

    def load(bundle: Bundle, device: Device, options: Any, *, lane: Any = None) -> Any:
        return original(bundle, Device("cpu"), options)

    monkeypatch.setattr(onnxruntime, "load", load)


def test_onnxruntime_serves_until_engines_are_built(
    newest: Any, monkeypatch: pytest.MonkeyPatch, doubler: Bundle
) -> None:
    background(monkeypatch)
    newest.fake_step_seconds = 0.15
    with opened(doubler, build="background", batch=8) as model:
        session = model.graph("run")
        assert "onnxruntime serves while" in model.report().reason
        assert session.report().backend == "onnxruntime"
        np.testing.assert_array_equal(session.run({"x": X})["y"], 2 * X)
        assert model.wait(30)
        np.testing.assert_array_equal(session.run({"x": X})["y"], 2 * X)
        assert session.report().backend == "tensorrt"
        assert "TensorRT took over from onnxruntime after" in model.report().reason


def test_onnxruntime_goes_on_where_engines_cannot_be_built(
    newest: Any, monkeypatch: pytest.MonkeyPatch, doubler: Bundle
) -> None:
    background(monkeypatch)
    newest.fake_fail.add("build")
    with opened(doubler, build="background", batch=8) as model:
        assert not model.wait(30)
        assert "engines cannot be built: run: TensorRT cannot build" in model.report().reason
        np.testing.assert_array_equal(model.graph("run").run({"x": X})["y"], 2 * X)


def test_closing_stops_a_build(
    newest: Any, monkeypatch: pytest.MonkeyPatch, doubler: Bundle
) -> None:
    background(monkeypatch)
    newest.fake_steps, newest.fake_step_seconds = 1000, 0.01
    model = opened(doubler, build="background")
    time.sleep(0.2)
    start = time.monotonic()
    model.close()
    assert time.monotonic() - start < 5
    assert tensorrt.cached_engines() == ()


# auto


def test_auto_never_builds(newest: Any, monkeypatch: pytest.MonkeyPatch, upscaler: Bundle) -> None:
    with backends.open(upscaler) as model:
        assert model.report().backend == "onnxruntime"
        assert "no engines of upscaler-tiny are cached; `fastvid export" in model.report().reason
    assert "build" not in newest.fake_log


def test_auto_takes_cached_engines_and_serves_other_sizes(
    newest: Any, monkeypatch: pytest.MonkeyPatch, upscaler: Bundle
) -> None:
    tensorrt.build(upscaler, options=SMALL)
    background(monkeypatch)
    with backends.open(upscaler) as model:
        report = model.report()
        assert report.backend == "tensorrt"
        assert "engines that are cached" in report.reason
        session = model.graph("upscale")
        for size in ((48, 64), (20, 20)):
            image = frame(*size)
            np.testing.assert_array_equal(session.run({"frames": image})["upscaled"], large(image))
    assert newest.fake_log.count("build") == 1


def test_auto_on_a_cpu_leaves_tensorrt_alone(newest: Any, upscaler: Bundle) -> None:
    tensorrt.build(upscaler, options=SMALL)
    with backends.open(upscaler, device="cpu") as model:
        assert model.report().backend == "onnxruntime"
        assert "TensorRT" not in model.report().reason


def test_export_builds_engines_and_tells_each_phase_once(newest: Any, upscaler: Bundle) -> None:
    engines = pytest.importorskip("fastvid_export.engines")
    said: list[str] = []
    newest.fake_step_seconds = 0.11
    (path,) = engines.build(upscaler, "cuda", ("64x48",), said.append)
    assert Path(path).is_file()
    assert len(said) == len({line.partition(",")[0] for line in said})
    assert any(line.startswith("upscale for 64x48: Building Engine") for line in said)


def test_arrays_stay_good_when_backends_change_over(
    newest: Any, monkeypatch: pytest.MonkeyPatch, doubler: Bundle
) -> None:
    background(monkeypatch)
    with opened(doubler, build="background", batch=8) as model:
        assert model.wait(30)
        kept = model.graph("run").run({"x": X}, keep=["y"])["y"]
        assert kept.stream == model._lane.stream.handle == model.graph("run").stream


def test_command_builds_for_the_sizes_it_is_given(
    newest: Any, upscaler: Bundle, make_clip: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from fastvid.cli import main

    clip = make_clip("clip.mp4", frames=3, size=(64, 48))
    command = ["upscale", str(clip), "--model", str(upscaler.path), "--overwrite"]
    assert main([*command, "--backend", "tensorrt", "--engine-size", "64x48"]) == 0
    captured = capsys.readouterr()
    assert "TensorRT: upscale for 64x48: building" in captured.err
    assert "tensorrt on cuda:0" in captured.out
    assert main([*command, "--backend", "onnxruntime", "--engine-size", "64x48"]) == 2
    assert "needs --backend tensorrt" in capsys.readouterr().err
    assert main([*command, "--backend", "tensorrt", "--engine-size", "32x32"]) == 2
    error = capsys.readouterr().err
    assert "inputs must fit one of the engines, for 32x32" in error
    assert "name the sizes to build engines for: --engine-size" in error


def test_run_under_way_can_be_cancelled(
    newest: Any, monkeypatch: pytest.MonkeyPatch, doubler: Bundle
) -> None:
    with opened(doubler, batch=8) as model:
        session = model.graph("run")
        wait = type(session._lane.stream.mark()).wait

        def slow(event: Any) -> None:
            model.cancel()
            wait(event)

        with monkeypatch.context() as patch:
            patch.setattr(type(session._lane.stream.mark()), "wait", slow)
            with pytest.raises(CancelledError, match="run: was cancelled"):
                session.run({"x": X})
        np.testing.assert_array_equal(session.run({"x": X})["y"], 2 * X)


def test_auto_goes_on_whatever_tensorrt_does(
    newest: Any, monkeypatch: pytest.MonkeyPatch, upscaler: Bundle
) -> None:
    tensorrt.build(upscaler, options=SMALL)
    monkeypatch.setattr(newest, "Runtime", lambda logger: 1 / 0)
    with backends.open(upscaler) as model:
        assert model.report().backend == "onnxruntime"
        assert "TensorRT is not used: ZeroDivisionError" in model.report().reason
