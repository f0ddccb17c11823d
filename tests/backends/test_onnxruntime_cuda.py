"""CUDA through onnxruntime, on a fake device that does nothing before somebody waits for it."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import bundles
import fake_cuda
import fake_onnxruntime
import generators
import numpy as np
import pytest
import tiny_models as tiny
from onnx import helper
from threads import at_once

from fastvid import _core, backends, ops, schedulers
from fastvid.backends import DeviceArray, LoadedModel, _cuda
from fastvid.backends._transfer import CudaTransfers, HostTransfers, in_turn, transfers
from fastvid.bundle import Bundle, shipped
from fastvid.errors import DeviceError, InputError, InputTypeError, NumericError, OutOfMemoryError
from fastvid.generator import Generator
from fastvid.interpolator import Interpolator
from fastvid.upscaler import Upscaler
from fastvid.video import Video

X = np.arange(8, dtype=np.float32).reshape(2, 4)
needs_shipped = pytest.mark.skipif(len(shipped()) < 2, reason="the shipped models are not here")


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> fake_cuda.FakeCuda:
    return fake_cuda.install(monkeypatch)


@pytest.fixture
def ort(monkeypatch: pytest.MonkeyPatch, cuda: fake_cuda.FakeCuda) -> fake_onnxruntime.FakeOrt:
    return fake_onnxruntime.install(monkeypatch, cuda)


def _open(bundle: Bundle, **options: Any) -> LoadedModel:
    return backends.open(bundle, device="cuda", backend="onnxruntime", **options)


# One graph


def test_graph_computes(doubler: Bundle, ort: fake_onnxruntime.FakeOrt) -> None:
    with _open(doubler) as model:
        outputs = model.graph("run").run({"x": X})
        assert model.report().device == "cuda:0"
        assert model.graph("run").stream == ort.sessions[0].stream
    assert isinstance(outputs["y"], np.ndarray)
    np.testing.assert_array_equal(outputs["y"], 2 * X)


def test_kept_outputs_stay_on_the_device_and_nobody_waits(
    doubler: Bundle, ort: fake_onnxruntime.FakeOrt, cuda: fake_cuda.FakeCuda
) -> None:
    with _open(doubler) as model:
        session = model.graph("run")
        cuda.calls.clear()
        once = session.run({"x": X}, keep=("y",))["y"]
        assert isinstance(once, DeviceArray)
        assert once.stream == session.stream
        again = session.run({"x": once}, keep={"y"})["y"]
        assert cuda.pending
        assert not {"cudaEventQuery", "cudaEventSynchronize"} & set(cuda.calls)
        assert sum(call == "cudaMemcpyAsync" for call in cuda.calls) == 1
        np.testing.assert_array_equal(again.numpy(), 4 * X)
        np.testing.assert_array_equal(once.numpy(), 2 * X)


def test_arrays_of_another_model_are_waited_for(
    doubler: Bundle, ort: fake_onnxruntime.FakeOrt, cuda: fake_cuda.FakeCuda
) -> None:
    with _open(doubler) as first, _open(doubler) as second:
        assert first.graph("run").stream != second.graph("run").stream
        kept = first.graph("run").run({"x": X}, keep=("y",))["y"]
        result = second.graph("run").run({"x": kept}, keep=("y",))["y"]
        del kept
        # Its memory must not be written before the second model has read it.
        first.graph("run").run({"x": X + 100}, keep=("y",))
        np.testing.assert_array_equal(result.numpy(), 4 * X)


def test_memory_is_the_same_from_run_to_run(
    doubler: Bundle, ort: fake_onnxruntime.FakeOrt, cuda: fake_cuda.FakeCuda
) -> None:
    with _open(doubler) as model:
        session = model.graph("run")
        for number in range(20):
            result = session.run({"x": X + number}, keep=("y",))["y"]
            if number == 2:
                allocated = cuda.allocated
        assert cuda.allocated == allocated
        np.testing.assert_array_equal(result.numpy(), 2 * (X + 19))


def test_strided_inputs_and_inputs_changed_after_the_call(
    doubler: Bundle, ort: fake_onnxruntime.FakeOrt
) -> None:
    wide = np.arange(16, dtype=np.float32).reshape(2, 8)
    with _open(doubler) as model:
        kept = model.graph("run").run({"x": wide[:, ::2]}, keep=("y",))["y"]
        expected = 2 * wide[:, ::2]
        wide[:] = 0
        np.testing.assert_array_equal(kept.numpy(), expected)


def test_outputs_whose_shape_only_a_run_tells(
    tmp_path: Path, ort: fake_onnxruntime.FakeOrt, cuda: fake_cuda.FakeCuda
) -> None:
    node = helper.make_node("Concat", ["x", "x"], ["y"], axis=0)
    wide = tiny.tensor("y", "float32", "M", 4)
    data = tiny.model([node], [tiny.X], [wide])
    graph = {"file": "run.onnx", "inputs": [tiny.X], "outputs": [wide]}
    bundle = tiny.bundle(tmp_path / "m", data, graphs={"run": graph})
    with _open(bundle) as model:
        session = model.graph("run")
        for rows in (2, 2, 1, 2):
            result = session.run({"x": X[:rows]}, keep=("y",))["y"]
            assert result.shape == (2 * rows, 4)
            np.testing.assert_array_equal(result.numpy(), np.concatenate([X[:rows]] * 2))


def test_inputs_are_checked_as_on_the_cpu(
    doubler: Bundle, ort: fake_onnxruntime.FakeOrt, cuda: fake_cuda.FakeCuda
) -> None:
    with _open(doubler) as model:
        session = model.graph("run")
        kept = session.run({"x": X}, keep=("y",))["y"]
        with pytest.raises(InputError, match="shape"):
            session.run({"x": kept.reshape(4, 2)})
        with pytest.raises(InputTypeError, match="float32"):
            session.run({"x": X.astype(np.float64)})
        with pytest.raises(InputError, match="keep must be among"):
            session.run({"x": X}, keep=("z",))
        with pytest.raises(InputTypeError, match="set of names"):
            session.run({"x": X}, keep="y")
    with (
        backends.open(doubler, device="cpu") as model,
        pytest.raises(InputError, match="must be on cpu"),
    ):
        model.graph("run").run({"x": kept})


def test_full_device_gives_up_idle_memory_and_runs_again(
    doubler: Bundle, ort: fake_onnxruntime.FakeOrt
) -> None:
    with _open(doubler) as model:
        session = model.graph("run")
        session.run({"x": X})
        ort.refuse_runs = ["BFCArena: Failed to allocate memory for requested buffer of size 9"]
        np.testing.assert_array_equal(session.run({"x": X})["y"], 2 * X)
        ort.refuse_runs = ["Failed to allocate memory"] * 2
        with pytest.raises(OutOfMemoryError, match="run: running on cuda:0") as caught:
            session.run({"x": X})
        assert "tiles" in caught.value.hint
        np.testing.assert_array_equal(session.run({"x": X})["y"], 2 * X)


def test_failures_are_of_our_types(doubler: Bundle, ort: fake_onnxruntime.FakeOrt) -> None:
    with _open(doubler, check_finite=True) as model:
        session = model.graph("run")
        ort.refuse_runs = ["CUDA failure 700: an illegal memory access"]
        with pytest.raises(DeviceError, match="illegal memory access"):
            session.run({"x": X})
        with pytest.raises(DeviceError, match="must be finite"):
            session.run({"x": X * np.nan}, keep=("y",))
    with pytest.raises(DeviceError, match="closed"):
        session.run({"x": X})


def test_closing_gives_all_memory_back_once_the_arrays_are_gone(
    doubler: Bundle, ort: fake_onnxruntime.FakeOrt, cuda: fake_cuda.FakeCuda
) -> None:
    model = _open(doubler)
    kept = model.graph("run").run({"x": X}, keep=("y",))["y"]
    model.graph("run").run({"x": X})
    model.close()
    assert cuda.allocated
    del kept
    gc.collect()
    assert cuda.allocated == 0
    assert not cuda._host
    assert cuda.streams == 0


def test_threads_may_run_at_the_same_time(doubler: Bundle, ort: fake_onnxruntime.FakeOrt) -> None:
    wrong: list[int] = []
    with _open(doubler) as model:

        def work(number: int) -> None:
            for _ in range(20):
                result = model.graph("run").run({"x": X + number})["y"]
                if not np.array_equal(result, 2 * (X + number)):
                    wrong.append(number)

        at_once(work)
    assert not wrong


def test_provider_options(doubler: Bundle, ort: fake_onnxruntime.FakeOrt) -> None:
    with _open(doubler, low_memory=True, cuda_graphs=True) as model:
        values = ort.sessions[0].values
        assert values["device_id"] == 0
        assert values["use_tf32"] == 0
        assert values["cudnn_conv_use_max_workspace"] == 0
        assert values["enable_cuda_graph"] == 1
        assert model.report().graphs[0].cuda_graphs
    with _open(doubler):
        assert "enable_cuda_graph" not in ort.sessions[1].values


# CUDA graphs


def test_recordings_are_repeated_for_the_same_addresses_only(
    doubler: Bundle, ort: fake_onnxruntime.FakeOrt
) -> None:
    with _open(doubler, cuda_graphs=True) as model:
        session = model.graph("run")
        for number in range(6):
            np.testing.assert_array_equal(session.run({"x": X + number})["y"], 2 * (X + number))
        fake = ort.sessions[0]
        # Input and output are of one size here, and take turns with their memory.
        assert fake.graph_ids == ["1", "2"] * 3
        session.run({"x": X[:1]})
        assert fake.graph_ids[-1] == "3"
        held = [session.run({"x": X}, keep=("y",))["y"] for _ in range(20)]
        assert len(fake.released) == len(set(fake.graph_ids)) - 16
        for array in held:
            np.testing.assert_array_equal(array.numpy(), 2 * X)


# Frames to and from the device


def test_frames_go_up_and_come_down_beside_the_work(cuda: fake_cuda.FakeCuda) -> None:
    compute = _cuda.Stream(0)
    memory = _cuda.Memory(compute)
    moves = CudaTransfers(0, compute.handle)
    frames = [np.full((4, 6, 3), n, np.uint8) for n in range(12)]

    def started() -> Any:
        for frame in frames:
            up = moves.upload(frame)
            result = up.like()
            worked = memory.empty(up.shape, up.dtype)
            memory.copy(up, worked)
            del result, up
            yield moves.download(worked)
            frame[:] = 255

    for number, pending in enumerate(in_turn(started(), moves.ahead)):
        # Never more than two frames are under way, so the memory of three is enough.
        assert cuda.allocated <= 6 * 512
        np.testing.assert_array_equal(pending.result(), np.full((4, 6, 3), number, np.uint8))
    moves.close()


def test_results_are_waited_for_once_and_live_on(cuda: fake_cuda.FakeCuda) -> None:
    compute = _cuda.Stream(0)
    moves = CudaTransfers(0, compute.handle)
    array = _cuda.Memory(compute).put(X)
    pending = moves.download(array)
    first = pending.result()
    moves.close()
    assert pending.result() is first
    np.testing.assert_array_equal(first, X)


def test_nothing_moves_on_the_cpu(doubler: Bundle) -> None:
    with backends.open(doubler, device="cpu") as model:
        moves = transfers(model.graph("run"))
        assert isinstance(moves, HostTransfers)
        assert moves.upload(X) is X
        assert moves.download(X).result() is X
        assert moves.ahead == 0


def test_things_are_given_when_as_many_more_have_been_started() -> None:
    started: list[int] = []

    def numbers() -> Any:
        for number in range(5):
            started.append(number)
            yield number

    seen = [(number, len(started)) for number in in_turn(numbers(), 2)]
    assert seen == [(0, 3), (1, 4), (2, 5), (3, 5), (4, 5)]
    assert list(in_turn(iter([]), 1)) == []


# The models' classes


def picture(rng: np.random.Generator, *size: int) -> np.ndarray:
    return rng.integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(16, 24), (9, 7)])
def test_interpolator_gives_the_pictures_of_the_cpu(
    tmp_path: Path,
    rng: np.random.Generator,
    ort: fake_onnxruntime.FakeOrt,
    cuda: fake_cuda.FakeCuda,
    size: tuple[int, int],
) -> None:
    bundles.interpolator(tmp_path / "m", padding="edge", multiple_of=8, minimum=8)
    first, second = picture(rng, *size), picture(rng, *size)
    times = [0, 0.25, 0.5, 0.75, 1]
    with Interpolator(tmp_path / "m", device="cpu") as model:
        expected = model.between(first, second, times)
    with Interpolator(tmp_path / "m", device="cuda", backend="onnxruntime") as model:
        cuda.calls.clear()
        np.testing.assert_array_equal(model.between(first, second, times), expected)
        # Two frames and three times go up, three pictures come down.
        assert cuda.calls.count("cudaMemcpyAsync") == 8
        assert model.between(first, second).shape == first.shape


def test_video_is_interpolated_with_each_frame_going_up_once(
    tmp_path: Path,
    rng: np.random.Generator,
    ort: fake_onnxruntime.FakeOrt,
    cuda: fake_cuda.FakeCuda,
) -> None:
    bundles.interpolator(tmp_path / "m")
    # A slow drift, in which no scene ends.
    base = picture(rng, 20, 24) // 2
    frames = np.stack([base + n for n in range(10)]).astype(np.uint8)
    with Interpolator(tmp_path / "m", device="cpu") as model:
        expected = model.interpolate(Video.from_frames(frames, 10), factor=3).frames()
    with Interpolator(tmp_path / "m", device="cuda", backend="onnxruntime") as model:
        cuda.calls.clear()
        result = model.interpolate(Video.from_frames(frames, 10), factor=3).frames()
        np.testing.assert_array_equal(result, expected)
        pairs = len(frames) - 1
        assert cuda.calls.count("cudaMemcpyAsync") == len(frames) + 2 * 2 * pairs


@pytest.mark.parametrize("tile", ["auto", 7])
def test_upscaler_gives_the_pictures_of_the_cpu(
    tmp_path: Path, rng: np.random.Generator, ort: fake_onnxruntime.FakeOrt, tile: Any
) -> None:
    bundles.upscaler(tmp_path / "m-x2")
    frames = np.stack([picture(rng, 18, 30) for _ in range(7)])
    options = {"device": "cuda", "backend": "onnxruntime", "tile": tile}
    with Upscaler(tmp_path / "m-x2", **options) as model:
        result = model.upscale(Video.from_frames(frames, 10)).frames()
        np.testing.assert_array_equal(result, frames.repeat(2, 1).repeat(2, 2))


@needs_shipped
def test_shipped_models_give_the_pictures_of_the_cpu(
    ort: fake_onnxruntime.FakeOrt, rng: np.random.Generator
) -> None:
    first, second = picture(rng, 64, 96), picture(rng, 64, 96)
    on_cuda: dict[str, Any] = {"device": "cuda", "backend": "onnxruntime"}
    results = []
    for device in ({"device": "cpu"}, on_cuda):
        with Interpolator(**device) as between, Upscaler(**device) as upscaler:
            results.append((between.between(first, second, 0.3), upscaler.upscale_frame(first)))
    for expected, result in zip(*results, strict=True):
        assert np.abs(expected.astype(int) - result).max() <= 1


# Generation


@pytest.fixture
def device_ops(monkeypatch: pytest.MonkeyPatch, cuda: fake_cuda.FakeCuda) -> list[str]:
    """The ops of generation on the fake device, queued as kernels are; lists what was called."""
    called: list[str] = []

    def view(array: Any) -> Any:
        if not isinstance(array, DeviceArray):
            return array
        kind = np.ctypeslib.as_ctypes_type(array.dtype) * array.size
        return np.ctypeslib.as_array(kind.from_address(array.pointer)).reshape(array.shape)

    def randn(shape: Any, *, out: Any = None, stream: Any = None, **options: Any) -> Any:
        if out is None:
            return real_randn(shape, **options)
        called.append("randn")
        cuda.queue(stream, lambda: real_randn(shape, out=view(out), **options) is None)
        return out

    def scheduler_step(
        matrix: Any,
        inputs: Any,
        *,
        uncond: Any = None,
        out: Any = None,
        stream: Any = None,
        **o: Any,
    ) -> Any:
        if not any(isinstance(array, DeviceArray) for array in inputs):
            return real_step(matrix, inputs, uncond=uncond, out=out, **o)
        called.append("scheduler_step")
        assert all(isinstance(array, DeviceArray) for array in (*inputs, *out))
        # Views do not keep the arrays alive: the order of the stream must.
        given, other, results = [*map(view, inputs)], view(uncond), tuple(map(view, out))
        cuda.queue(stream, lambda: real_step(matrix, given, uncond=other, out=results, **o) is None)
        return out

    real_randn, real_step = ops.randn, ops.scheduler_step
    monkeypatch.setattr(ops, "randn", randn)
    monkeypatch.setattr(ops, "scheduler_step", scheduler_step)
    monkeypatch.setattr(_core, "cuda_compiled", lambda: True)
    return called


GREY = np.full((16, 24, 3), 90, np.uint8)


def drawn(model: Generator, **arguments: Any) -> np.ndarray:
    return model.generate("a red circle moves right", seed=5, **arguments).frames()


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"guidance_scale": 1.0},
        {"image": GREY},
        {"image": GREY, "last_image": GREY // 9},
        {"video": np.stack([GREY] * 9), "strength": 0.6},
        {"scheduler": "UniPCMultistepScheduler"},
        {"callback_on_step_end": lambda g, n, t, values: {"latents": values["latents"] * 0.5}},
    ],
    ids=["plain", "unguided", "image", "images", "redrawn", "unipc", "callback"],
)
def test_generator_gives_the_pictures_of_the_cpu(
    tmp_path: Path, ort: fake_onnxruntime.FakeOrt, device_ops: list[str], arguments: dict[str, Any]
) -> None:
    generators.bundle(tmp_path / "g")
    with Generator(tmp_path / "g", device="cpu") as model:
        expected = drawn(model, **arguments)
    with Generator(tmp_path / "g", device="cuda", backend="onnxruntime") as model:
        np.testing.assert_array_equal(drawn(model, **arguments), expected)
    assert device_ops.count("randn") == 1
    assert device_ops.count("scheduler_step") >= 2


def test_only_conditions_timesteps_and_frames_cross_while_a_clip_is_drawn(
    tmp_path: Path,
    ort: fake_onnxruntime.FakeOrt,
    cuda: fake_cuda.FakeCuda,
    device_ops: list[str],
) -> None:
    generators.bundle(tmp_path / "g", generators.graphs(conditioned=False))
    with Generator(tmp_path / "g", device="cuda", backend="onnxruntime") as model:
        drawn(model)
        cuda.copies.clear()
        drawn(model, num_inference_steps=6)
    gc.collect()
    assert cuda.allocated == 0
    assert cuda.streams == 0
    up = [size for kind, size in cuda.copies if kind == "cudaMemcpyHostToDevice"]
    down = [size for kind, size in cuda.copies if kind == "cudaMemcpyDeviceToHost"]
    # The prompts are known; embeddings and masks of both, and two timesteps in each step.
    assert sorted(up) == sorted([2 * 8 * 6 * 4, 2 * 8 * 8] + [2 * 4] * 6)
    # The frames of three latents, and the last latents, which are looked at for NaN.
    frame, latents = 16 * 24 * 3, 4 * 3 * 2 * 3 * 4
    assert sorted(down) == sorted([frame, 4 * frame, 4 * frame, latents])


def test_spoilt_latents_are_found_on_the_device(
    tmp_path: Path, ort: fake_onnxruntime.FakeOrt, device_ops: list[str]
) -> None:
    generators.bundle(tmp_path / "g", generators.graphs(spoil=np.nan))
    with (
        Generator(tmp_path / "g", device="cuda", backend="onnxruntime") as model,
        pytest.raises(NumericError, match="NaN or infinity"),
    ):
        drawn(model)


def test_steps_that_are_not_ops_stay_on_the_host(
    tmp_path: Path, ort: fake_onnxruntime.FakeOrt, device_ops: list[str]
) -> None:
    generators.bundle(tmp_path / "g")
    scheduler = schedulers.DDIMScheduler(clip_sample=True)
    with Generator(tmp_path / "g", device="cpu") as model:
        expected = drawn(model, scheduler=scheduler)
    with Generator(tmp_path / "g", device="cuda", backend="onnxruntime") as model:
        np.testing.assert_array_equal(drawn(model, scheduler=scheduler), expected)
    assert not device_ops
