"""Runs native calls on a thread of their own, so that signals reach the main thread meanwhile.

Python delivers signals between bytecodes of the main thread only: while that thread is inside an
inference runtime, Ctrl-C and SIGTERM wait. The main thread therefore hands such calls to a worker
and waits on a lock, which signals interrupt. Other threads call directly, and so do calls that are
known to be short: the hand-over costs more than they do.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from fastvid.errors import CancelledError, DeviceError

T = TypeVar("T")

# A thread that comes back from native code while the interpreter shuts down aborts the process.
_EXIT_WAIT_SECONDS = 1.0


class Call(Generic[T]):
    """One native call: what it runs, and how it is told to stop."""

    __slots__ = ("__weakref__", "_done", "_error", "_function", "_result", "cancelled", "on_cancel")

    def __init__(self, function: Callable[[Call[T]], T]) -> None:
        self._function = function
        self._result: T | None = None
        self._error: BaseException | None = None
        self._done = _thread.allocate_lock()
        self._done.acquire()
        self.cancelled = False
        self.on_cancel: Callable[[], None] | None = None
        """What stops the native code; set by the function before it enters it."""

    def cancel(self) -> None:
        """Asks the call to stop; it does so at the next point where the runtime looks."""
        self.cancelled = True
        if self.on_cancel is not None:
            self.on_cancel()

    def execute(self) -> None:
        """Runs the call in this thread and keeps what it returned or raised."""
        _active.add(self)
        try:
            if self.cancelled:
                raise CancelledError("run: was cancelled")
            self._result = self._function(self)
        except BaseException as error:
            self._error = error
        finally:
            _active.discard(self)
            self._done.release()

    def wait(self) -> T:
        """Waits for the end, interruptibly; an interruption cancels the call and is raised."""
        try:
            self._done.acquire()
        except BaseException:
            self.cancel()
            raise
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]


_active: set[Call[Any]] = set()


class Worker:
    """A daemon thread that executes calls one after the other; starts with its first call."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: queue.SimpleQueue[Call[Any] | None] = queue.SimpleQueue()
        self._start = threading.Lock()
        self._started = False
        self._process = os.getpid()
        self._finalizer = weakref.finalize(self, self._queue.put, None)
        self._finalizer.atexit = False

    def run(self, function: Callable[[Call[T]], T], *, direct: bool = False) -> T:
        """Executes `function`: here if this is not the main thread, else on the worker.

        Args:
            function: Takes the `Call`, whose `on_cancel` it should set.
            direct: Execute it here in any thread; signals wait for its end.

        Returns:
            What `function` returns.

        Raises:
            DeviceError: The worker is closed, or the process was forked after it was made.
            CancelledError: The call was cancelled before it began.
        """
        if os.getpid() != self._process:
            raise DeviceError(
                "run: a session must be used in the process that opened it, this one was forked",
                hint="open the model in the child process, or start it with 'spawn'",
            )
        if not self._finalizer.alive:
            raise DeviceError("run: session is closed")
        call = Call(function)
        if direct or threading.get_ident() != threading.main_thread().ident:
            call.execute()
        else:
            if not self._started:
                self._start_thread()
            self._queue.put(call)
        return call.wait()

    def _start_thread(self) -> None:
        with self._start:
            if not self._started:
                target, args = _serve, (self._queue,)
                threading.Thread(target=target, args=args, name=self._name, daemon=True).start()
                self._started = True

    def close(self) -> None:
        """Ends the thread after the calls that wait."""
        self._finalizer()


def _serve(calls: queue.SimpleQueue[Call[Any] | None]) -> None:
    while (call := calls.get()) is not None:
        call.execute()
        # The next get() would otherwise keep the last inputs and outputs alive.
        del call


@atexit.register
def _stop_all() -> None:
    end = time.monotonic() + _EXIT_WAIT_SECONDS
    while _active and time.monotonic() < end:
        for call in tuple(_active):
            with contextlib.suppress(Exception):
                call.cancel()
        time.sleep(0.002)
