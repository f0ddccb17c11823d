"""Frames on their way to a session's device and back, beside the work there.

On the CPU an array is where it belongs already. On CUDA frames pass through page-locked memory on
two streams of their own: one frame goes up and another comes down while a third is computed. Code
that works with either is written once: it asks for a result when it must have it, and queues the
next frame's work before.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastvid.backends._cuda import DeviceArray, Event, Memory, PinnedMemory, Stream
from fastvid.devices import parse_device
from fastvid.errors import DeviceError

if TYPE_CHECKING:
    from fastvid.backends import Session

T = TypeVar("T")

# More page-locked memory than this slows the machine down; results beyond are copied out of it.
_PINNED_BYTES = 256 << 20


class Pending(Protocol):
    """An array that may still be on its way to the host."""

    def result(self) -> NDArray[Any]:
        """The array; waits for it."""


class Transfers(Protocol):
    """The way of arrays to and from a device."""

    ahead: int
    """How many results may be on their way while further work is queued."""

    def upload(self, host: NDArray[Any]) -> Any:
        """The array as a session takes it, in the order of the session's stream."""

    def download(self, array: Any) -> Pending:
        """Starts to copy a session's output to the host."""

    def close(self) -> None:
        """Gives back what transfers need."""


class Here:
    """A result that is on the host already."""

    __slots__ = ("_array",)

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array

    def result(self) -> NDArray[Any]:
        """The array."""
        return self._array


class HostTransfers:
    """Nothing moves."""

    ahead = 0

    def upload(self, host: NDArray[Any]) -> NDArray[Any]:
        """The array itself."""
        return host

    def download(self, array: NDArray[Any]) -> Pending:
        """The array itself."""
        return Here(array)

    def close(self) -> None:
        """There is nothing to give back."""


class _Download:
    """A copy to page-locked memory that is under way."""

    def __init__(self, source: DeviceArray, host: NDArray[Any], done: Event, copy: bool) -> None:
        self._source: DeviceArray | None = source
        self._host = host
        self._done = done
        self._copy = copy

    def result(self) -> NDArray[Any]:
        if self._source is not None:
            self._done.wait()
            # Only now may its memory be written again.
            self._source = None
            if self._copy:
                self._host = self._host.copy()
        return self._host


class CudaTransfers:
    """Copies on streams of their own.

    Args:
        device: Number of the device.
        stream: Address of the stream that the sessions' runs are queued on.
    """

    ahead = 1

    def __init__(self, device: int, stream: int) -> None:
        self._device = device
        self._stream = stream
        self._up, self._down = Stream(device), Stream(device)
        self._memory = Memory(self._up)
        self._pinned = PinnedMemory(device)
        self._lock = threading.Lock()
        # Page-locked frames that the device may not have read yet.
        self._leaving: deque[tuple[Event, NDArray[Any]]] = deque()

    def upload(self, host: NDArray[Any]) -> DeviceArray:
        """A copy on the device; later work of the sessions waits for it, the caller does not."""
        staged = self._pinned.empty(host.shape, host.dtype)
        np.copyto(staged, host)
        with self._lock:
            while self._leaving and self._leaving[0][0].done():
                self._leaving.popleft()
            array = self._memory.empty(staged.shape, staged.dtype)
            self._memory.write(array, staged)
            self._leaving.append((self._up.mark(), staged))
            array.use_on(self._stream)
        return array

    def download(self, array: DeviceArray) -> Pending:
        """Starts the copy behind the work that is queued for the array."""
        host = self._pinned.empty(array.shape, array.dtype)
        ready = Event(self._device).record(self._stream)
        with self._lock:
            self._down.after(ready)
            array.copy_to(host, self._down)
            done = self._down.mark()
        return _Download(array, host, done, self._pinned.used_bytes > _PINNED_BYTES)

    def close(self) -> None:
        """Waits for what is under way and gives memory and streams back."""
        # A device that has failed cannot be waited for.
        with contextlib.suppress(DeviceError):
            self._up.wait()
            self._down.wait()
        self._leaving.clear()
        self._memory.close()
        self._pinned.close()
        self._up.close()
        self._down.close()


def transfers(session: Session) -> Transfers:
    """The way to and from the device of a session, and of all others of its model."""
    stream = session.stream
    if stream is None:
        return HostTransfers()
    return CudaTransfers(parse_device(session.report().device).index, stream)


def in_turn(started: Iterator[T], ahead: int) -> Iterator[T]:
    """The same things, each only once `ahead` more have been started."""
    waiting: deque[T] = deque()
    for thing in started:
        waiting.append(thing)
        del thing
        if len(waiting) > ahead:
            yield waiting.popleft()
    yield from waiting
