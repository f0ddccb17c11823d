"""Steps that work at the same time, each in a thread, with bounded queues between them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from fastvid.video.types import Frame

Step = Callable[[Iterator[Frame]], Iterator[Frame]]

_POLL_SECONDS = 0.05


class _Stopped(BaseException):
    """Ends a worker whose neighbours no longer need it; never leaves this module."""


class _Channel:
    """A bounded queue of frames between two threads."""

    def __init__(self, size: int) -> None:
        self._frames: deque[Frame] = deque()
        self._size = size
        self._condition = threading.Condition()
        self._ended = False
        self._stopped = False
        self.put_wait = 0.0
        """Seconds that the producer waited."""
        self.get_wait = 0.0
        """Seconds that the consumer waited."""

    def put(self, frame: Frame) -> None:
        start = time.perf_counter()
        with self._condition:
            while len(self._frames) >= self._size and not self._stopped:
                self._condition.wait()
            self.put_wait += time.perf_counter() - start
            if self._stopped:
                raise _Stopped
            self._frames.append(frame)
            self._condition.notify_all()

    def end(self) -> None:
        """No more frames come."""
        with self._condition:
            self._ended = True
            self._condition.notify_all()

    def stop(self) -> None:
        """No more frames are wanted: whoever waits or comes here ends."""
        with self._condition:
            self._stopped = True
            self._frames.clear()
            self._condition.notify_all()

    def __iter__(self) -> Iterator[Frame]:
        while True:
            start = time.perf_counter()
            with self._condition:
                while not (self._frames or self._ended or self._stopped):
                    self._condition.wait()
                self.get_wait += time.perf_counter() - start
                if self._stopped:
                    raise _Stopped
                if not self._frames:
                    return
                frame = self._frames.popleft()
                self._condition.notify_all()
            yield frame
            # Not kept alive while the next one is awaited.
            del frame


class _Worker:
    """A thread for one step, how long it worked, and its two queues."""

    def __init__(self, name: str, source: _Channel | None, sink: _Channel | None) -> None:
        self.name = name
        self.source = source
        self.sink = sink
        self.thread: threading.Thread | None = None
        self.begin: float | None = None
        self.end: float | None = None

    def busy(self) -> float:
        if self.begin is None:
            return 0.0
        waited = self.source.get_wait if self.source is not None else 0.0
        waited += self.sink.put_wait if self.sink is not None else 0.0
        return max(0.0, (self.end or time.perf_counter()) - self.begin - waited)


class Conveyor:
    """Moves frames from a source through steps into a sink, all at the same time.

    Args:
        source: Makes the frames; called in the first thread.
        steps: Names and generators that turn frames into frames.
        sink: Takes the frames and returns when all is done; called in the last thread.
        names: Words for source and sink.
        queue_frames: Frames that may wait between two steps.
        interrupt: Called, maybe several times, when the run stops early: it should make steps
            return that are busy with a frame.
    """

    def __init__(
        self,
        source: Callable[[], Iterator[Frame]],
        steps: Sequence[tuple[str, Step]],
        sink: Callable[[Iterator[Frame]], None],
        *,
        names: tuple[str, str] = ("decode", "encode"),
        queue_frames: int,
        interrupt: Callable[[], None] = lambda: None,
    ) -> None:
        self._interrupt = interrupt
        self._source = source
        self._steps = [step for _, step in steps]
        self._sink = sink
        self._channels = [_Channel(queue_frames) for _ in range(len(steps) + 1)]
        ends = [None, *self._channels, None]
        words = _distinct([names[0], *(name for name, _ in steps), names[1]])
        self._workers = [
            _Worker(word, ends[number], ends[number + 1]) for number, word in enumerate(words)
        ]
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._error: BaseException | None = None

    def busy(self) -> dict[str, float]:
        """Seconds that each step has worked, without waiting for its neighbours."""
        return {worker.name: worker.busy() for worker in self._workers}

    def run(self, poll: Callable[[], None]) -> None:
        """Runs to the end; returns when all threads have ended, whatever happened.

        Args:
            poll: Called in this thread every 0.05 s; what it raises stops the run.

        Raises:
            BaseException: The first error of any step or of `poll`.
        """
        # Daemons, so that a step that never returns cannot keep the process alive.
        for number, worker in enumerate(self._workers):
            worker.thread = threading.Thread(
                target=self._main, args=(number,), name=f"fastvid-{worker.name}", daemon=True
            )
        try:
            for worker in self._workers:
                if worker.thread is not None:
                    worker.thread.start()
            while self._alive() and self._error is None:
                # A wait with a timeout lets signals through.
                self._wake.wait(_POLL_SECONDS)
                if self._alive():
                    self._wake.clear()
                poll()
        except BaseException as error:
            self._fail(error)
        self._join()
        if self._error is not None:
            raise self._error

    def _alive(self) -> bool:
        threads = [worker.thread for worker in self._workers]
        return any(thread is not None and thread.is_alive() for thread in threads)

    def _join(self) -> None:
        # An interrupt here must not leave threads behind that write to what the caller frees.
        while self._alive():
            try:
                if self._error is not None:
                    with contextlib.suppress(Exception):
                        self._interrupt()
                time.sleep(0.005)
            except KeyboardInterrupt as error:
                self._fail(error)

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            if self._error is None:
                self._error = error
        for channel in self._channels:
            channel.stop()

    def _main(self, number: int) -> None:
        worker = self._workers[number]
        worker.begin = time.perf_counter()
        try:
            self._work(number, worker)
        except _Stopped:
            pass
        except BaseException as error:
            self._fail(error)
        finally:
            worker.end = time.perf_counter()
            if worker.source is not None:
                worker.source.stop()
            self._wake.set()

    def _work(self, number: int, worker: _Worker) -> None:
        if worker.sink is None:
            self._sink(iter(self._channels[-1]))
            return
        if worker.source is None:
            frames = self._source()
        else:
            frames = self._steps[number - 1](iter(worker.source))
        for frame in frames:
            worker.sink.put(frame)
            del frame
        worker.sink.end()


def _distinct(names: Sequence[str]) -> list[str]:
    """The names with -2, -3, ... behind those that were there before."""
    result: list[str] = []
    for name in names:
        word, count = name, 1
        while word in result:
            count += 1
            word = f"{name}-{count}"
        result.append(word)
    return result
