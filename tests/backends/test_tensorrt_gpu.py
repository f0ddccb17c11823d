"""The TensorRT backend on a GPU with TensorRT's builder: nothing here is a double."""

from __future__ import annotations

import importlib
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import bundles
import numpy as np
import pytest
import tiny_models as tiny
from threads import at_once

from fastvid import Interpolator, Upscaler, backends
from fastvid.backends import DeviceArray, tensorrt
from fastvid.backends.tensorrt import EngineOptions, _setup, _store
from fastvid.backends.tensorrt_plugins import kernels_folder
from fastvid.bundle import Bundle
from fastvid.devices import cuda_driver
from fastvid.errors import CancelledError, FastvidError, InputError

pytestmark = [pytest.mark.cuda, pytest.mark.timeout(1800)]

X = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.fixture(autouse=True)
def builder() -> Any:
    """Skips where no engine can be built."""
    if cuda_driver().problem:
        pytest.skip("there is no CUDA device")
    try:
        return _setup.runtime()
    except FastvidError as error:
        pytest.skip(f"engines cannot be built here: {error.message}")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


@pytest.fixture
def plugins(builder: Any) -> None:
    """Skips where graphs with our operators cannot be built."""
    if _setup.version_of(builder) < _setup.PLUGINS_SINCE:
        pytest.skip(f"TensorRT {builder.__version__} is older than plugins need")
    if not kernels_folder().is_dir():
        pytest.skip("this build holds no kernels for plugins")


def frames(height: int, width: int) -> np.ndarray[Any, Any]:
    y, x = np.mgrid[0:height, 0:width]
    planes = (127 + 120 * np.sin(x / 7), 127 + 120 * np.cos(y / 5), (x + y) % 256)
    return np.stack(planes, -1).astype(np.uint8)


def psnr(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    error = np.mean((a.astype(np.float64) - b) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def test_standard_graph_is_exact(tmp_path: Path) -> None:
    bundle = bundles.upscaler(tmp_path / "upscaler-tiny")
    image = frames(48, 64)
    with Upscaler(bundle.path, backend=EngineOptions(sizes=("360p",))) as model:
        made = model.upscale_frame(image)
        assert model.report().backend == "tensorrt"
    np.testing.assert_array_equal(made, image.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize("size", [(64, 48), (641, 359), (1280, 720)])
def test_shipped_upscaler_agrees_with_the_cpu(plugins: None, size: tuple[int, int]) -> None:
    image = frames(size[1], size[0])
    with Upscaler(device="cpu") as model:
        wanted = model.upscale_frame(image)
    with Upscaler(backend=EngineOptions(sizes=("720p",))) as model:
        made = [model.upscale_frame(image) for _ in range(4)]
        assert all(g.backend == "tensorrt" for g in model.report().graphs)
    for one in made:
        assert psnr(one, wanted) > 50
        np.testing.assert_array_equal(one, made[0])


def test_shipped_interpolator_agrees_with_the_cpu(plugins: None) -> None:
    first, second = frames(360, 640), np.roll(frames(360, 640), 5, axis=1)
    with Interpolator(device="cpu") as model:
        wanted = model.between(first, second)
    with Interpolator(backend=EngineOptions(sizes=("360p",))) as model:
        made = model.between(first, second)
        assert "tensorrt" in {g.backend for g in model.report().graphs}
        assert {g.device for g in model.report().graphs} == {"cuda:0"}
    assert psnr(made, wanted) > 45


def test_engine_is_kept_and_its_results_are_checked(tmp_path: Path) -> None:
    bundle = tiny.bundle(tmp_path / "doubler", tiny.double())
    (path,) = tensorrt.build(bundle, options=EngineOptions(batch=8))
    assert path.stat().st_size > 1000
    start = time.monotonic()
    with backends.open(bundle, backend="tensorrt") as model:
        np.testing.assert_array_equal(model.graph("run").run({"x": X})["y"], 2 * X)
        assert "from the cache" in model.report().graphs[0].note
    assert time.monotonic() - start < 60
    path.write_bytes(path.read_bytes()[:-1])
    with backends.open(bundle, backend=EngineOptions(batch=8)) as model:
        assert "built in" in model.report().graphs[0].note


def test_auto_takes_the_engine(tmp_path: Path) -> None:
    bundle = tiny.bundle(tmp_path / "doubler", tiny.double())
    tensorrt.build(bundle)
    with backends.open(bundle) as model:
        assert model.report().backend == "tensorrt"


def test_runs_chain_on_the_device_and_repeat(tmp_path: Path) -> None:
    bundle = tiny.bundle(tmp_path / "doubler", tiny.double())
    with backends.open(bundle, backend=EngineOptions(batch=64)) as model:
        session = model.graph("run")
        for i in range(50):
            x = np.full((1 + i % 7, 4), i, np.float32)
            kept = session.run({"x": x}, keep=["y"])["y"]
            assert isinstance(kept, DeviceArray)
            np.testing.assert_array_equal(session.run({"x": kept})["y"], 4 * x)
        with pytest.raises(InputError, match="must fit one of the engines"):
            session.run({"x": np.zeros((65, 4), np.float32)})


def test_threads_share_a_session(tmp_path: Path) -> None:
    bundle = tiny.bundle(tmp_path / "doubler", tiny.double())
    wrong = []
    with backends.open(bundle, backend=EngineOptions(batch=8)) as model:
        session = model.graph("run")

        def work(seed: int) -> None:
            for i in range(200):
                x = np.full((1 + seed % 3, 4), 1000 * seed + i, np.float32)
                if not np.array_equal(session.run({"x": x})["y"], 2 * x):
                    wrong.append(seed)

        at_once(work)
    assert not wrong


def test_build_is_cancelled(plugins: None) -> None:
    stop = threading.Event()

    def tell(progress: tensorrt.Progress) -> None:
        if progress.phase not in ("golden results", "building"):
            stop.set()

    start = time.monotonic()
    with pytest.raises(CancelledError):
        tensorrt.build(
            Bundle.find("fast", "upscaler", 2),
            options=EngineOptions(optimization_level=5),
            progress=tell,
            cancelled=stop.is_set,
        )
    assert time.monotonic() - start < 120
    assert tensorrt.cached_engines() == ()


def test_onnxruntime_serves_until_the_engine_is_built(tmp_path: Path) -> None:
    ort = importlib.import_module("onnxruntime")
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        pytest.skip("onnxruntime is built without CUDA")
    bundle = bundles.upscaler(tmp_path / "upscaler-tiny")
    image = frames(48, 64)
    options = EngineOptions(sizes=("360p",), build="background")
    with Upscaler(bundle.path, backend=options) as model:
        wanted = model.upscale_frame(image)
        assert model._model.wait(600)  # type: ignore[attr-defined]
        np.testing.assert_array_equal(model.upscale_frame(image), wanted)
        assert model.report().backend == "tensorrt"


def test_processes_build_one_engine(tmp_path: Path) -> None:
    bundle = bundles.upscaler(tmp_path / "upscaler-tiny")
    code = (
        "import sys\nfrom fastvid.backends import tensorrt\nfrom fastvid.bundle import Bundle\n"
        "options = tensorrt.EngineOptions(sizes=('360p',))\n"
        "print(*tensorrt.build(Bundle.load(sys.argv[1]), options=options))"
    )
    command = [sys.executable, "-c", code, str(bundle.path)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert len({process.communicate()[0] for process in started}) == 1
    assert [process.returncode for process in started] == [0, 0]
    assert len(_store.Store().entries()) == 1
