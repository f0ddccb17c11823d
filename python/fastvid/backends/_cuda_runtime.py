"""Streams, events and graphs of CUDA through `cuda-bindings`, so that no torch is needed.

Nothing here loads CUDA before a device is used, and nobody may use one before
`fastvid.devices.cuda_driver` has found it: CUDA libraries may crash where no driver is.
"""

from __future__ import annotations

import functools
import importlib
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from fastvid.errors import (
    BackendUnavailableError,
    DeviceError,
    DeviceLostError,
    OutOfMemoryError,
)

INSTALL = "pip install 'fastvid-sdk[gpu]'"

_SUCCESS, _NO_MEMORY, _NOT_READY = 0, 2, 600  # cudaError_t
# Errors after which every call of the process on the device fails too.
_LOST = {46, 214, 700, 710, 714, 715, 716, 717, 718, 719, 721}

# The main thread asks whether work is done, so that signals reach it: at first without a pause,
# because a frame takes a millisecond and the shortest sleep takes a tenth of that.
_EAGER_QUERIES = 200
_PAUSE_SECONDS = 5e-5


@functools.cache
def runtime() -> Any:
    """The module `cuda.bindings.runtime`.

    Raises:
        BackendUnavailableError: It is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except ImportError as error:
        found = "is not installed"
        if not isinstance(error, ModuleNotFoundError):
            found = f"cannot be imported: {error}"
        raise BackendUnavailableError(f"device: cuda-bindings {found}", hint=INSTALL) from None


def call(name: str, *arguments: Any) -> Any:
    """Calls a function of the CUDA runtime.

    Args:
        name: Its name, for example `cudaMalloc`.
        *arguments: As the function takes them.

    Returns:
        What it returns beside its status: nothing, a value, or a tuple of them.

    Raises:
        OutOfMemoryError: The device, or the memory that can be locked, is full.
        DeviceLostError: The device failed for good in this process.
        DeviceError: Any other failure.
    """
    status, *values = getattr(runtime(), name)(*arguments)
    if int(status) != _SUCCESS:
        raise error_of(name, int(status))
    return values[0] if len(values) == 1 else tuple(values) or None


def error_of(name: str, status: int) -> DeviceError:
    module = runtime()
    code = module.cudaError_t(status)
    texts = [getattr(module, f)(code)[1] for f in ("cudaGetErrorName", "cudaGetErrorString")]
    word, text = (t.decode("utf-8", "replace") if isinstance(t, bytes) else str(t) for t in texts)
    message = f"{name}: failed on the CUDA device: {word}, {text}"
    if status == _NO_MEMORY:
        return OutOfMemoryError(message, hint="use smaller frames or tiles")
    if status in _LOST:
        return DeviceLostError(message, hint="start the process again; nvidia-smi shows the device")
    return DeviceError(message)


class Relaxed:
    """Lets calls that wait or allocate through while another thread captures a graph."""

    def __enter__(self) -> None:
        mode = runtime().cudaStreamCaptureMode.cudaStreamCaptureModeRelaxed
        self._mode = call("cudaThreadExchangeStreamCaptureMode", mode)

    def __exit__(self, *exception: object) -> None:
        call("cudaThreadExchangeStreamCaptureMode", self._mode)


def use_device(index: int) -> None:
    """Makes a device the current one of this thread."""
    call("cudaSetDevice", index)


def free_memory(index: int) -> tuple[int, int]:
    """Free and total bytes of a device, all processes counted."""
    use_device(index)
    with Relaxed():
        free, total = call("cudaMemGetInfo")
    return int(free), int(total)


class Event:
    """A point in the work of a stream."""

    def __init__(self, device: int) -> None:
        self._device = device
        use_device(device)
        handle = call("cudaEventCreateWithFlags", runtime().cudaEventDisableTiming)
        self.handle = int(handle)
        self._end = weakref.finalize(self, quietly, "cudaEventDestroy", self.handle)
        self._end.atexit = False

    def record(self, stream: int) -> Event:
        """Places the event behind the work that is queued on `stream` now."""
        call("cudaEventRecord", self.handle, stream)
        return self

    def done(self) -> bool:
        """Whether the work before the event is done."""
        use_device(self._device)
        with Relaxed():
            status = int(runtime().cudaEventQuery(self.handle)[0])
        if status not in (_SUCCESS, _NOT_READY):
            raise error_of("cudaEventQuery", status)
        return status == _SUCCESS

    def wait(self) -> None:
        """Waits until the work before the event is done; signals interrupt the main thread."""
        if threading.get_ident() == threading.main_thread().ident:
            queries = 0
            while not self.done():
                queries += 1
                if queries > _EAGER_QUERIES:
                    time.sleep(_PAUSE_SECONDS)
            return
        use_device(self._device)
        with Relaxed():
            call("cudaEventSynchronize", self.handle)


class Stream:
    """A queue of work on a device, beside those of other streams.

    Args:
        device: Number of the device.
        handle: Address of a stream that somebody else owns; None makes one.
    """

    def __init__(self, device: int, handle: int | None = None) -> None:
        self.device = device
        use_device(device)
        owned = handle is None
        if handle is None:
            handle = int(call("cudaStreamCreateWithFlags", runtime().cudaStreamNonBlocking))
        self.handle = handle
        """Address of the stream, as every library takes it."""
        self._end = weakref.finalize(self, quietly, "cudaStreamDestroy", handle)
        self._end.atexit = False
        if not owned:
            self._end.detach()

    def mark(self) -> Event:
        """An event behind the work that is queued now."""
        return Event(self.device).record(self.handle)

    def after(self, event: Event) -> None:
        """Lets work that is queued from now on wait for `event`, without waiting here."""
        call("cudaStreamWaitEvent", self.handle, event.handle, 0)

    def wait(self) -> None:
        """Waits for all work that is queued."""
        use_device(self.device)
        with Relaxed():
            call("cudaStreamSynchronize", self.handle)

    def close(self) -> None:
        """Ends the stream when its work is done; calling it again does nothing."""
        self._end()


def quietly(name: str, *arguments: Any) -> None:
    """Gives something back; there is nobody left to tell of a failure."""
    try:
        getattr(runtime(), name)(*arguments)
    except Exception:
        return


class Graph:
    """Work that was recorded from a stream and is launched as one."""

    def __init__(self, stream: Stream, work: Callable[[], None]) -> None:
        """Records what `work` queues on `stream`; nothing of it runs.

        Raises:
            DeviceError: `work` did what cannot be recorded, such as waiting.
        """
        use_device(stream.device)
        mode = runtime().cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        call("cudaStreamBeginCapture", stream.handle, mode)
        try:
            work()
        except BaseException:
            quietly("cudaStreamEndCapture", stream.handle)
            raise
        graph = call("cudaStreamEndCapture", stream.handle)
        try:
            self._handle = call("cudaGraphInstantiate", graph, 0)
        finally:
            quietly("cudaGraphDestroy", graph)
        self._end = weakref.finalize(self, quietly, "cudaGraphExecDestroy", self._handle)
        self._end.atexit = False

    def launch(self, stream: Stream) -> None:
        """Queues the recorded work."""
        call("cudaGraphLaunch", self._handle, stream.handle)

    def close(self) -> None:
        """Frees the recording; calling it again does nothing."""
        self._end()


def copy(stream: Stream, target: int, source: int, size: int, kind: str) -> None:
    """Queues a copy between two addresses, of a kind that `cudaMemcpyKind` has."""
    use_device(stream.device)
    way = getattr(runtime().cudaMemcpyKind, kind)
    call("cudaMemcpyAsync", target, source, size, way, stream.handle)
