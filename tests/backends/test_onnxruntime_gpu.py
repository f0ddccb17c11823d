"""CUDA through onnxruntime on a real device: equal pictures, no copies but frames, CUDA graphs."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import generators
import numpy as np
import pytest
from threads import at_once

from fastvid import _core, backends
from fastvid.backends import DeviceArray, _cuda
from fastvid.backends._onnxruntime_setup import cuda_problem
from fastvid.bundle import Bundle, shipped
from fastvid.devices import cuda_driver
from fastvid.generator import Generator
from fastvid.interpolator import Interpolator
from fastvid.scene import Scene
from fastvid.upscaler import Upscaler
from fastvid.video import Video

pytest.importorskip("onnxruntime")
pytest.importorskip("cuda.bindings.runtime")
# Asking onnxruntime loads CUDA, which may crash where no driver is.
_problem = cuda_driver().problem or cuda_problem(0)
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(bool(_problem), reason=f"CUDAExecutionProvider: {_problem}"),
]
needs_shipped = pytest.mark.skipif(len(shipped()) < 2, reason="the shipped models are not here")
needs_kernels = pytest.mark.skipif(
    not _core.cuda_compiled(), reason="fastvid is built without CUDA kernels"
)

CUDA: dict[str, Any] = {"device": "cuda", "backend": "onnxruntime"}
X = np.arange(8, dtype=np.float32).reshape(2, 4)


@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_graph_computes_and_chains_on_the_device(doubler: Bundle, cuda_graphs: bool) -> None:
    with backends.open(doubler, **CUDA, cuda_graphs=cuda_graphs) as model:
        session = model.graph("run")
        for number in range(5):
            kept = session.run({"x": X + number}, keep=("y",))["y"]
            assert isinstance(kept, DeviceArray)
            assert kept.stream == session.stream
            np.testing.assert_array_equal(session.run({"x": kept})["y"], 4 * (X + number))


def test_memory_comes_back(doubler: Bundle) -> None:
    with backends.open(doubler, **CUDA) as model:
        model.graph("run").run({"x": X})
    gc.collect()
    before = _cuda.free_memory(0)[0]
    for _ in range(5):
        with backends.open(doubler, **CUDA) as model:
            wide = np.zeros((1 << 20, 4), np.float32)
            for _ in range(3):
                model.graph("run").run({"x": wide})
    gc.collect()
    assert before - _cuda.free_memory(0)[0] < 64 << 20


def test_torch_shares_memory() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch is built without CUDA")
    memory = _cuda.Memory(_cuda.Stream(0))
    array = memory.put(X)
    tensor = torch.from_dlpack(array)
    tensor += 1
    torch.cuda.synchronize()
    np.testing.assert_array_equal(array.numpy(), X + 1)


def test_recorded_copies_are_repeated() -> None:
    stream = _cuda.Stream(0)
    memory = _cuda.Memory(stream)
    source, target = memory.put(X), memory.put(np.zeros_like(X))
    graph = _cuda.Graph(stream, lambda: memory.copy(source, target))
    graph.launch(stream)
    np.testing.assert_array_equal(target.numpy(), X)


def test_threads_compute_at_the_same_time(doubler: Bundle) -> None:
    wrong: list[int] = []
    with backends.open(doubler, **CUDA) as model:

        def work(number: int) -> None:
            for _ in range(50):
                result = model.graph("run").run({"x": X + number})["y"]
                if not np.array_equal(result, 2 * (X + number)):
                    wrong.append(number)

        at_once(work)
    assert not wrong


@needs_shipped
@needs_kernels
@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_interpolated_video_is_that_of_the_cpu(cuda_graphs: bool) -> None:
    scene = Scene(320, 192, seed=3)
    clip = Video.from_frames(np.stack([scene.draw(t / 10) for t in range(8)]), 10)
    with Interpolator(device="cpu") as model:
        expected = model.interpolate(clip, factor=2).frames()
    with Interpolator(**CUDA, cuda_graphs=cuda_graphs) as model:
        result = model.interpolate(clip, factor=2).frames()
    error = np.abs(expected.astype(int) - result)
    assert error.mean() < 0.1
    assert np.quantile(error, 0.999) <= 2


@needs_shipped
@needs_kernels
@pytest.mark.parametrize("tile", [None, 128])
def test_upscaled_video_is_that_of_the_cpu(tile: int | None) -> None:
    scene = Scene(320, 192, seed=3)
    clip = Video.from_frames(np.stack([scene.draw(t / 10) for t in range(5)]), 10)
    with Upscaler(device="cpu") as model:
        expected = model.upscale(clip).frames()
    with Upscaler(**CUDA, tile=tile) as model:
        result = model.upscale(clip).frames()
    assert np.abs(expected.astype(int) - result).max() <= 1


@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_generated_video_is_that_of_the_cpu(tmp_path: Path, cuda_graphs: bool) -> None:
    generators.bundle(tmp_path / "g")
    arguments = {"seed": 5, "image": np.full((16, 24, 3), 90, np.uint8)}
    with Generator(tmp_path / "g", device="cpu") as model:
        expected = model.generate("a red circle", **arguments).frames()
    with Generator(tmp_path / "g", **CUDA, cuda_graphs=cuda_graphs) as model:
        result = model.generate("a red circle", **arguments).frames()
    assert np.abs(expected.astype(int) - result).max() <= 1


@needs_shipped
@needs_kernels
def test_plan_is_near_what_the_device_has_less() -> None:
    frame = Scene(1280, 720, seed=1).draw(0.0)
    with Upscaler(**CUDA) as model:
        planned = sum(model.plan(720, 1280).graphs.values())
        before = _cuda.free_memory(0)[0]
        for _ in range(3):
            model.upscale_frame(frame)
        taken = before - _cuda.free_memory(0)[0]
    assert 0.5 < planned / taken < 2
