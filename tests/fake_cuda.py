"""A CUDA device on the host, as lazy as a real one may be, behind `cuda.bindings.runtime`.

Its memory is host memory, and what is queued on a stream is done only when somebody waits for it:
code that forgets to wait, or frees what is still in use, gets wrong numbers here. Every call is
held against the installed bindings: the name, the number of arguments, and, by making the real
call, which fails for lack of a driver only after it has taken its arguments, their types.
"""

# ruff: noqa: N802, the methods carry the names of CUDA

from __future__ import annotations

import ctypes
import inspect
import threading
from collections.abc import Callable
from typing import Any

import pytest

from fastvid.backends import _cuda, _cuda_runtime
from fastvid.devices import cuda_driver

POISON = 0xA5
_NO_DRIVER = (35, 100)  # cudaErrorInsufficientDriver, cudaErrorNoDevice
_NO_MEMORY, _NOT_READY = 2, 600
# They take a pointer apart before they look for a driver.
_NOT_CALLED = ("cudaMemcpyAsync", "cudaMemcpy2DAsync")


class _Stream:
    def __init__(self) -> None:
        self.queue: list[Callable[[], None]] = []
        self.done = 0
        self.capturing = False


class FakeCuda:
    """Stands in for the module; `calls` lists the names of what was called."""

    _next = 1 << 20

    def __init__(self, real: Any, *, capacity: int = 1 << 30) -> None:
        self._real = real
        self._capacity = capacity
        # What one thread waits for, another may be doing just now.
        self._lock = threading.RLock()
        self._streams: dict[int, _Stream] = {1: _Stream(), 2: _Stream()}
        self._events: dict[int, tuple[_Stream, int] | None] = {}
        self._device: dict[int, Any] = {}
        self._host: dict[int, Any] = {}
        self._asked: set[int] = set()
        self.arena: set[int] = set()
        """Device memory that belongs to another library."""
        self.calls: list[str] = []
        self.copies: list[tuple[str, int]] = []
        """Kind and bytes of each copy that was queued."""
        self.fail: dict[str, int] = {}
        """Status that a function gives instead of working, by its name."""

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._real, name)
        if not callable(real) or inspect.isclass(real):
            return real
        work = getattr(type(self), f"_{name}", None)

        def function(*arguments: Any) -> tuple[Any, ...]:
            with self._lock:
                return call(*arguments)

        def call(*arguments: Any) -> tuple[Any, ...]:
            self._check(name, real, arguments)
            if name.startswith("cudaGetError"):
                return real(*arguments)
            self.calls.append(name)
            status = self.fail.get(name, 0)
            if status:
                return self._real.cudaError_t(status), None
            assert work is not None, f"the fake has no {name}"
            values = work(self, *arguments)
            if isinstance(values, int) and values < 0:
                return self._real.cudaError_t(-values), None
            if not isinstance(values, tuple):
                values = () if values is None else (values,)
            return (self._real.cudaError_t(0), *values)

        return function

    @staticmethod
    def _check(name: str, real: Any, arguments: tuple[Any, ...]) -> None:
        head = (real.__doc__ or "").splitlines()[0]
        inside = head[head.index("(") + 1 : head.rindex(")")]
        wanted = [part for part in inside.split(",") if part.strip()]
        assert len(arguments) == len(wanted), f"{head} got {arguments}"
        if name in _NOT_CALLED:
            assert all(isinstance(a, int) or hasattr(a, "name") for a in arguments)
        elif cuda_driver().problem and not name.startswith("cudaGetError"):
            assert int(real(*arguments)[0]) in (0, *_NO_DRIVER), name

    # Streams and events

    def queue(self, stream: int, work: Callable[[], None]) -> None:
        """Queues work on a stream, as a kernel would be."""
        with self._lock:
            assert not self._stream(stream).capturing
            self._stream(stream).queue.append(work)

    def _stream(self, handle: Any) -> _Stream:
        return self._streams[int(handle)]

    @staticmethod
    def _run(stream: _Stream, until: int) -> None:
        while stream.done < until:
            work = stream.queue[stream.done]
            stream.done += 1
            work()

    def finish(self) -> None:
        """Does all that is queued anywhere."""
        with self._lock:
            for stream in self._streams.values():
                self._run(stream, len(stream.queue))

    @property
    def pending(self) -> int:
        """Pieces of work that nobody has waited for."""
        return sum(len(stream.queue) - stream.done for stream in self._streams.values())

    @property
    def streams(self) -> int:
        """Streams that were made and not destroyed."""
        return len(self._streams) - 2

    def _number(self) -> int:
        # No handle means two things in one process: old objects may end while a later fake is in.
        FakeCuda._next += 16
        return FakeCuda._next

    def _cudaSetDevice(self, device: int) -> None:
        assert device == 0

    def _cudaStreamCreateWithFlags(self, flags: int) -> Any:
        assert flags == self._real.cudaStreamNonBlocking
        number = self._number()
        self._streams[number] = _Stream()
        return self._real.cudaStream_t(number)

    def _cudaStreamDestroy(self, stream: Any) -> None:
        gone = self._streams.pop(int(stream))
        self._run(gone, len(gone.queue))

    def _cudaStreamSynchronize(self, stream: Any) -> None:
        self._run(self._stream(stream), len(self._stream(stream).queue))

    def _cudaStreamWaitEvent(self, stream: Any, event: Any, flags: int) -> None:
        assert flags == 0
        point = self._events[int(event)]
        if point is not None:
            self._stream(stream).queue.append(lambda: self._run(*point))

    def _cudaEventCreateWithFlags(self, flags: int) -> Any:
        assert flags == self._real.cudaEventDisableTiming
        number = self._number()
        self._events[number] = None
        return self._real.cudaEvent_t(number)

    def _cudaEventDestroy(self, event: Any) -> None:
        del self._events[int(event)]

    def _cudaEventRecord(self, event: Any, stream: Any) -> None:
        queue = self._stream(stream)
        self._events[int(event)] = queue, len(queue.queue)

    def _cudaEventSynchronize(self, event: Any) -> None:
        point = self._events[int(event)]
        if point is not None:
            self._run(*point)

    def _cudaEventQuery(self, event: Any) -> Any:
        """Not done when asked first, however little there is to do."""
        point = self._events[int(event)]
        if point is None or point[0].done >= point[1]:
            return None
        if int(event) not in self._asked:
            self._asked.add(int(event))
            return -_NOT_READY
        self._run(*point)
        return None

    def _cudaThreadExchangeStreamCaptureMode(self, mode: Any) -> Any:
        return mode

    # Graphs: what a stream took while it was captured

    def _cudaStreamBeginCapture(self, stream: Any, mode: Any) -> None:
        self._stream(stream).capturing = True
        self._captured_from = len(self._stream(stream).queue)

    def _cudaStreamEndCapture(self, stream: Any) -> Any:
        taken = self._stream(stream)
        taken.capturing = False
        self._recorded = taken.queue[self._captured_from :]
        del taken.queue[self._captured_from :]
        return self._real.cudaGraph_t(self._number())

    def _cudaGraphInstantiate(self, graph: Any, flags: int) -> Any:
        return self._real.cudaGraphExec_t(self._number())

    def _cudaGraphLaunch(self, graph: Any, stream: Any) -> None:
        self._stream(stream).queue.extend(self._recorded)

    def _cudaGraphDestroy(self, graph: Any) -> None:
        pass

    def _cudaGraphExecDestroy(self, graph: Any) -> None:
        pass

    # Memory

    @property
    def allocated(self) -> int:
        """Bytes of device memory that are not freed."""
        return sum(len(m) for p, m in self._device.items() if p not in self.arena)

    def _cudaMalloc(self, size: int) -> int:
        if self.allocated + size > self._capacity:
            return -_NO_MEMORY
        memory = (ctypes.c_uint8 * size)()
        ctypes.memset(memory, POISON, size)
        self._device[ctypes.addressof(memory)] = memory
        return ctypes.addressof(memory)

    def _cudaFree(self, pointer: int) -> None:
        self.finish()
        memory = self._device.pop(pointer)
        ctypes.memset(memory, POISON, len(memory))

    def _cudaMemGetInfo(self) -> tuple[int, int]:
        return self._capacity - self.allocated, self._capacity

    def _cudaHostAlloc(self, size: int, flags: int) -> int:
        memory = (ctypes.c_uint8 * size)()
        self._host[ctypes.addressof(memory)] = memory
        return ctypes.addressof(memory)

    def _cudaFreeHost(self, pointer: int) -> None:
        del self._host[pointer]

    @staticmethod
    def _inside(areas: dict[int, Any], pointer: int, size: int) -> bool:
        return any(p <= pointer and pointer + size <= p + len(m) for p, m in areas.items())

    def _cudaMemcpyAsync(self, target: int, source: int, size: int, kind: Any, stream: Any) -> None:
        self.copies.append((kind.name, size))
        to_device = kind.name in ("cudaMemcpyHostToDevice", "cudaMemcpyDeviceToDevice")
        from_device = kind.name in ("cudaMemcpyDeviceToHost", "cudaMemcpyDeviceToDevice")
        assert self._inside(self._device, target, size) == to_device
        assert self._inside(self._device, source, size) == from_device
        data = None
        if not from_device and not self._inside(self._host, source, size):
            # The driver takes a copy of memory that is not locked before it returns.
            data = ctypes.string_at(source, size)
        self._stream(stream).queue.append(
            lambda: ctypes.memmove(target, source if data is None else data, size) and None
        )

    def _cudaMemcpy2DAsync(
        self,
        target: int,
        target_pitch: int,
        source: int,
        source_pitch: int,
        width: int,
        rows: int,
        kind: Any,
        stream: Any,
    ) -> None:
        assert kind.name == "cudaMemcpyDeviceToDevice"
        assert self._inside(self._device, target, (rows - 1) * target_pitch + width)
        assert self._inside(self._device, source, (rows - 1) * source_pitch + width)
        assert width <= min(target_pitch, source_pitch)

        def work() -> None:
            for row in range(rows):
                ctypes.memmove(target + row * target_pitch, source + row * source_pitch, width)

        self._stream(stream).queue.append(work)


def install(monkeypatch: pytest.MonkeyPatch, *, capacity: int = 1 << 30) -> FakeCuda:
    """Puts a fake device under `fastvid.backends._cuda`; skips without the bindings."""
    real = pytest.importorskip("cuda.bindings.runtime")
    fake = FakeCuda(real, capacity=capacity)
    for module in (_cuda, _cuda_runtime):
        monkeypatch.setattr(module, "runtime", lambda: fake)
    return fake
