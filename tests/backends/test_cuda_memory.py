"""Memory, streams and arrays of a CUDA device, on a fake one that does nothing before it must."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from typing import Any

import fake_cuda
import numpy as np
import pytest

from fastvid import _core, ops
from fastvid.backends import DeviceArray, _cuda, _cuda_runtime
from fastvid.devices import cuda_driver
from fastvid.errors import (
    BackendUnavailableError,
    DeviceError,
    DeviceLostError,
    InputError,
    InputTypeError,
    NoDeviceError,
    OutOfMemoryError,
)

X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> fake_cuda.FakeCuda:
    return fake_cuda.install(monkeypatch)


@pytest.fixture
def memory(cuda: fake_cuda.FakeCuda) -> _cuda.Memory:
    return _cuda.Memory(_cuda.Stream(0))


# Arrays


def test_array_comes_back_as_it_went(memory: _cuda.Memory) -> None:
    array = memory.put(X)
    assert isinstance(array, DeviceArray)
    assert (array.shape, array.dtype, array.nbytes) == (X.shape, X.dtype, X.nbytes)
    assert (array.device, array.stream) == ("cuda:0", memory.stream.handle)
    assert (array.size, array.ndim, len(array)) == (24, 3, 2)
    np.testing.assert_array_equal(array.numpy(), X)


def test_host_array_may_change_after_put(memory: _cuda.Memory) -> None:
    host = X.copy()
    array = memory.put(host)
    host[:] = 0
    np.testing.assert_array_equal(array.numpy(), X)


def test_nothing_is_waited_for_before_the_values_are_wanted(
    cuda: fake_cuda.FakeCuda, memory: _cuda.Memory
) -> None:
    array = memory.put(X)
    other = memory.empty(X.shape, X.dtype)
    memory.copy(array, other)
    assert cuda.pending == 2
    np.testing.assert_array_equal(other.numpy(), X)
    assert cuda.pending == 0


@pytest.mark.parametrize("index", [0, 1, -1, slice(None), slice(1, 2), slice(0, 0), slice(5, 9)])
def test_parts_lie_on_the_same_memory(memory: _cuda.Memory, index: Any) -> None:
    np.testing.assert_array_equal(memory.put(X)[index].numpy(), X[index])


def test_part_keeps_the_whole_alive(memory: _cuda.Memory) -> None:
    part = memory.put(X)[1]
    for _ in range(3):
        memory.put(X + 100)
    np.testing.assert_array_equal(part.numpy(), X[1])


def test_reshape_and_its_refusals(memory: _cuda.Memory) -> None:
    array = memory.put(X)
    np.testing.assert_array_equal(array.reshape(6, 4).numpy(), X.reshape(6, 4))
    with pytest.raises(InputError, match="24 elements"):
        array.reshape(5, 5)
    with pytest.raises(InputError, match="step of 1"):
        array[::2]
    with pytest.raises(IndexError):
        array[2]


def test_copies_are_checked(memory: _cuda.Memory) -> None:
    array = memory.empty((4,), np.float32)
    with pytest.raises(InputError, match="16 bytes, got 8"):
        memory.write(array, np.zeros(2, np.float32))
    with pytest.raises(InputError, match="C-contiguous"):
        array.copy_to(np.zeros((4, 2), np.float32)[:, 0], memory.stream)
    with pytest.raises(InputTypeError, match="list"):
        memory.write(array, [1, 2, 3, 4])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="16 bytes, got 4"):
        memory.copy(array, memory.empty((1,), np.float32))


def test_rows_a_pitch_apart_are_copied(memory: _cuda.Memory) -> None:
    source, target = memory.put(X), memory.put(np.zeros((6, 2), np.float32))
    memory.copy_rows(source.pointer + 4, 16, target.pointer, 8, 8, 6)
    np.testing.assert_array_equal(target.numpy(), X.reshape(6, 4)[:, 1:3])


# Memory that is used again


def test_memory_of_equal_size_is_used_again_without_waiting(
    cuda: fake_cuda.FakeCuda, memory: _cuda.Memory
) -> None:
    first = memory.put(X)
    pointer = first.pointer
    del first
    assert memory.idle_bytes == 512
    second = memory.put(X + 1)
    assert second.pointer == pointer
    assert "cudaStreamSynchronize" not in cuda.calls
    np.testing.assert_array_equal(second.numpy(), X + 1)


def test_idle_memory_is_freed_when_the_sizes_change(
    cuda: fake_cuda.FakeCuda, memory: _cuda.Memory
) -> None:
    frames = [memory.empty((1 << 20,), np.uint8) for _ in range(8)]
    del frames
    gc.collect()
    assert memory.idle_bytes == 8 << 20
    small = memory.empty((1 << 10,), np.uint8)
    assert (memory.idle_bytes, memory.used_bytes) == (0, 1 << 10)
    assert cuda.allocated == small.nbytes


def test_full_device_gives_up_its_idle_memory_first(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = fake_cuda.install(monkeypatch, capacity=100 << 20)
    memory = _cuda.Memory(_cuda.Stream(0))
    kept = memory.empty((50 << 20,), np.uint8)
    idle = memory.empty((40 << 20,), np.uint8)
    del idle
    other = memory.empty((45 << 20,), np.uint8)
    assert cuda.allocated == kept.nbytes + other.nbytes
    with pytest.raises(OutOfMemoryError, match=r"20 MiB do not .* 5 of 100 MiB free"):
        memory.empty((20 << 20,), np.uint8)


def test_closed_memory_keeps_nothing(cuda: fake_cuda.FakeCuda, memory: _cuda.Memory) -> None:
    array, idle = memory.put(X), memory.put(X)
    del idle
    memory.close()
    np.testing.assert_array_equal(array.numpy(), X)
    del array
    assert cuda.allocated == 0


def test_pinned_memory_comes_back_when_the_last_view_is_gone(cuda: fake_cuda.FakeCuda) -> None:
    pinned = _cuda.PinnedMemory(0)
    frame = pinned.empty((4, 6), np.float32)
    address = frame.ctypes.data
    frame[:] = 3
    part = frame[1:]
    del frame
    assert pinned.empty((4, 6), np.float32).ctypes.data != address
    np.testing.assert_array_equal(part, np.full((3, 6), 3, np.float32))
    del part
    gc.collect()
    assert pinned.empty((4, 6), np.float32).ctypes.data == address
    assert pinned.empty((0, 4), np.uint8).shape == (0, 4)
    pinned.close()
    gc.collect()
    assert not cuda._host


# Streams, events, graphs


def test_stream_waits_for_an_event_of_another(cuda: fake_cuda.FakeCuda) -> None:
    first, second = _cuda.Stream(0), _cuda.Stream(0)
    done: list[str] = []
    cuda.queue(first.handle, lambda: done.append("first"))
    second.after(first.mark())
    cuda.queue(second.handle, lambda: done.append("second"))
    second.wait()
    assert done == ["first", "second"]


def test_signals_reach_the_main_thread_while_it_waits(
    cuda: fake_cuda.FakeCuda, memory: _cuda.Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    array = memory.put(X)
    cuda.fail["cudaEventQuery"] = 600  # cudaErrorNotReady
    monkeypatch.setattr(_cuda_runtime.time, "sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        array.numpy()
    assert "cudaEventSynchronize" not in cuda.calls


def test_other_threads_wait_in_the_driver(cuda: fake_cuda.FakeCuda, memory: _cuda.Memory) -> None:
    array = memory.put(X)
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.append(array.numpy()))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(seen[0], X)
    assert "cudaEventSynchronize" in cuda.calls
    assert "cudaEventQuery" not in cuda.calls


def test_graph_repeats_what_it_recorded(cuda: fake_cuda.FakeCuda, memory: _cuda.Memory) -> None:
    source, target = memory.put(X), memory.put(np.zeros_like(X))
    graph = _cuda.Graph(memory.stream, lambda: memory.copy(source, target))
    np.testing.assert_array_equal(target.numpy(), 0)
    graph.launch(memory.stream)
    np.testing.assert_array_equal(target.numpy(), X)
    graph.close()
    assert cuda.calls.count("cudaGraphExecDestroy") == 1


def test_failed_recording_ends_the_capture(cuda: fake_cuda.FakeCuda) -> None:
    def work() -> None:
        raise DeviceError("work")

    with pytest.raises(DeviceError, match="work"):
        _cuda.Graph(_cuda.Stream(0), work)
    assert "cudaStreamEndCapture" in cuda.calls


# DLPack


def test_capsule_lends_memory_and_keeps_its_owner() -> None:
    class Lender:
        def __dlpack_device__(self) -> tuple[int, int]:
            return 1, 0

        def __dlpack__(self, **options: Any) -> object:
            versioned = options.get("max_version") is not None
            return _core._dlpack_capsule(X.ctypes.data, X.shape, 2, 32, 1, 0, self, versioned)

    lender = Lender()
    before = sys.getrefcount(lender)
    taken = np.from_dlpack(lender)
    assert sys.getrefcount(lender) == before + 1
    np.testing.assert_array_equal(taken, X)
    del taken
    assert sys.getrefcount(lender) == before
    for versioned in (True, False):
        _core._dlpack_capsule(X.ctypes.data, X.shape, 2, 32, 1, 0, lender, versioned)
    assert sys.getrefcount(lender) == before


def test_other_streams_wait_for_the_array(cuda: fake_cuda.FakeCuda, memory: _cuda.Memory) -> None:
    other = _cuda.Stream(0)
    array = memory.put(X)
    seen: list[float] = []
    assert array.__dlpack_device__() == (2, 0)
    array.__dlpack__(stream=other.handle)
    view = np.ctypeslib.as_array((np.ctypeslib.ctypes.c_float * 24).from_address(array.pointer))
    cuda.queue(other.handle, lambda: seen.append(float(view[23])))
    other.wait()
    assert seen == [23.0]


def test_memory_is_not_used_again_before_other_streams_are_done(
    cuda: fake_cuda.FakeCuda, memory: _cuda.Memory
) -> None:
    other = _cuda.Stream(0)
    array = memory.put(X)
    view = np.ctypeslib.as_array((np.ctypeslib.ctypes.c_float * 24).from_address(array.pointer))
    seen: list[float] = []
    array.__dlpack__(stream=other.handle)
    cuda.queue(other.handle, lambda: seen.append(float(view[23])))
    del array
    assert memory.put(X + 100).numpy()[1, 2, 3] == 123
    other.wait()
    assert seen == [23.0]


@pytest.mark.parametrize("stream", ["own", -1])
def test_same_stream_needs_no_order(
    cuda: fake_cuda.FakeCuda, memory: _cuda.Memory, stream: Any
) -> None:
    memory.put(X).__dlpack__(stream=memory.stream.handle if stream == "own" else stream)
    assert "cudaStreamWaitEvent" not in cuda.calls


def test_array_is_not_lent_elsewhere(memory: _cuda.Memory) -> None:
    with pytest.raises(BufferError):
        memory.put(X).__dlpack__(dl_device=(1, 0))
    with pytest.raises(BufferError):
        memory.put(X).__dlpack__(copy=True)
    with pytest.raises(BufferError):
        memory.empty((2,), np.complex64).__dlpack__()


@pytest.mark.skipif(not cuda_driver().problem, reason="the machine has a CUDA device")
def test_ops_say_that_there_is_no_device(memory: _cuda.Memory) -> None:
    frames = memory.put(np.zeros((1, 4, 4, 3), np.uint8))
    out = memory.empty((1, 3, 4, 4), np.float32)
    with pytest.raises(NoDeviceError):
        ops.rgb_to_planar(frames, out=out, stream=memory.stream.handle)


# Failures


@pytest.mark.parametrize(
    ("status", "kind"), [(2, OutOfMemoryError), (700, DeviceLostError), (1, DeviceError)]
)
def test_failures_have_types(
    cuda: fake_cuda.FakeCuda, memory: _cuda.Memory, status: int, kind: type[DeviceError]
) -> None:
    cuda.fail["cudaEventQuery"] = status
    with pytest.raises(kind) as failure:
        memory.put(X).numpy()
    assert type(failure.value) is kind
    assert "cudaEventQuery" in failure.value.message


def test_missing_bindings_name_the_command() -> None:
    code = (
        "import sys; sys.modules['cuda'] = None\n"
        "from fastvid.backends import _cuda\n"
        "from fastvid.errors import BackendUnavailableError\n"
        "try: _cuda.Stream(0)\n"
        "except BackendUnavailableError as e: print(e)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "cuda-bindings is not installed" in result.stdout, result.stderr
    assert "pip install" in result.stdout
    assert issubclass(BackendUnavailableError, DeviceError)


def test_backends_load_no_cuda() -> None:
    code = "import sys, fastvid, fastvid.backends; print('cuda' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
