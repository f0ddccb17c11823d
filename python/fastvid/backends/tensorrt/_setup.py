"""TensorRT's Python module: which versions, what it says, and how a build is followed.

`tensorrt.Runtime` and `tensorrt.Builder` on a machine without an NVIDIA driver are objects around a
null pointer; touching one ends the process. So `runtime` asks the driver before it imports.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastvid.devices import require_cuda
from fastvid.errors import BackendUnavailableError, EngineError

OLDEST, NEWEST_MAJOR = (10, 3), 11
INSTALL = "pip install 'fastvid-sdk[tensorrt]', or on a Jetson the TensorRT of its JetPack"
PLUGINS_SINCE = (10, 16)
SAME_CAPABILITY_SINCE = (10, 11)

_KEPT_MESSAGES = 60
_PROGRESS_SECONDS = 0.1


def runtime(index: int = 0) -> Any:
    """The module `tensorrt`, on a machine where it can be used.

    Args:
        index: Number of the CUDA device.

    Raises:
        NoDeviceError: The driver is missing or lists no such device.
        BackendUnavailableError: TensorRT is not installed, or of a version that is not supported.
    """
    require_cuda(index)
    try:
        trt = importlib.import_module("tensorrt")
        version = version_of(trt)
        trt.Builder  # noqa: B018
    except ModuleNotFoundError as error:
        if error.name != "tensorrt":
            raise _broken(error) from error
        raise BackendUnavailableError("backend: tensorrt is not installed", hint=INSTALL) from None
    except Exception as error:  # its bindings raise many types where a library is missing
        raise _broken(error) from error
    if version < OLDEST or version[0] > NEWEST_MAJOR:
        raise BackendUnavailableError(
            f"backend: tensorrt must be {OLDEST[0]}.{OLDEST[1]} to {NEWEST_MAJOR}.x, got "
            f"{trt.__version__}",
            hint=INSTALL,
        )
    return trt


def _broken(error: Exception) -> BackendUnavailableError:
    text = " ".join(str(error).split())
    return BackendUnavailableError(
        f"backend: tensorrt cannot be imported: {type(error).__name__}: {text}", hint=INSTALL
    )


def version_of(trt: Any) -> tuple[int, int]:
    """Major and minor version."""
    match = re.match(r"(\d+)\.(\d+)", str(trt.__version__))
    return (int(match[1]), int(match[2])) if match else (0, 0)


def is_installed() -> bool:
    """Whether there is a package `tensorrt`; it is not loaded."""
    try:
        return importlib.util.find_spec("tensorrt") is not None
    except ValueError:
        return "tensorrt" in sys.modules


class Messages:
    """What TensorRT logged and recorded, from all of its threads; keeps the last ones."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: deque[str] = deque(maxlen=_KEPT_MESSAGES)
        self.errors: list[tuple[Any, str]] = []
        """Code and text of each recorded error."""

    def add(self, line: str) -> None:
        """Keeps a logged line."""
        with self._lock:
            self._lines.append(" ".join(line.split()))

    def record(self, code: Any, text: str) -> None:
        """Keeps an error."""
        with self._lock:
            self.errors.append((code, " ".join(text.split())))
            del self.errors[:-_KEPT_MESSAGES]

    def clear(self) -> None:
        """Forgets everything."""
        with self._lock:
            self._lines.clear()
            self.errors.clear()

    def drain(self) -> str:
        """What was said since the last time, the errors first, in one line of 600 characters."""
        with self._lock:
            parts = [*dict.fromkeys(text for _, text in self.errors), *self._lines]
            self._lines.clear()
            self.errors.clear()
        text = "; ".join(dict.fromkeys(parts)) or "TensorRT gave no reason"
        return text if len(text) <= 600 else text[:597] + "..."

    def out_of_memory(self) -> bool:
        """Whether an allocation failed."""
        with self._lock:
            texts = [f"{code} {text}" for code, text in self.errors] + list(self._lines)
        marks = ("FAILED_ALLOCATION", "OutOfMemory", "out of memory")
        return any(mark in text for text in texts for mark in marks)


@dataclass(frozen=True)
class Progress:
    """How far the build of one engine is."""

    graph: str
    size: str
    phase: str
    """TensorRT's name of what it does now, or `waiting` for another process that builds it."""
    step: int
    steps: int
    """Of the phase; 0 if not known."""
    seconds: float
    """Since the build began."""

    def to_text(self) -> str:
        """One line for people."""
        part = f" {self.step}/{self.steps}" if self.steps else ""
        return f"{self.graph} for {self.size}: {self.phase}{part}, {self.seconds:.0f} s"


ProgressCallback = Callable[[Progress], None]


class Watch:
    """Follows one build: tells of its progress and stops it.

    Args:
        graph: Name of the graph.
        size: Label of the size.
        callback: Told of progress, at most ten times a second, from any thread.
        cancelled: Asked at each step.
    """

    def __init__(
        self,
        graph: str,
        size: str,
        callback: ProgressCallback | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self._graph, self._size = graph, size
        self._callback = callback
        self._cancelled = cancelled
        self._start = time.monotonic()
        self._told = -1.0
        self._lock = threading.Lock()
        self._stopped = False
        self.error: BaseException | None = None
        """What the callback raised; it stops the build and is raised when TensorRT returns."""

    @property
    def cancelled(self) -> bool:
        """Whether the build must stop."""
        return self._stopped or self.error is not None or self._cancelled()

    def stop(self) -> None:
        """Stops the build at its next step."""
        self._stopped = True

    def tell(self, phase: str, step: int = 0, steps: int = 0, *, always: bool = False) -> None:
        """Tells of progress; nothing is raised, because TensorRT's threads call this."""
        now = time.monotonic()
        with self._lock:
            if self._callback is None or not (always or now - self._told >= _PROGRESS_SECONDS):
                return
            self._told = now
        report = Progress(self._graph, self._size, phase, step, steps, now - self._start)
        try:
            self._callback(report)
        except BaseException as error:
            self.error = error


@functools.lru_cache(maxsize=4)
def _classes(trt: Any) -> tuple[type[Any], type[Any], type[Any]]:
    """Logger, recorder and monitor; they derive from TensorRT's classes."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self, messages: Messages) -> None:
            trt.ILogger.__init__(self)
            self._messages = messages
            self._kept = (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR, trt.ILogger.WARNING)

        def log(self, severity: Any, msg: str) -> None:
            if severity in self._kept:
                self._messages.add(msg)

    class Recorder(trt.IErrorRecorder):  # type: ignore[misc]
        def __init__(self, messages: Messages) -> None:
            trt.IErrorRecorder.__init__(self)
            self._messages = messages

        def num_errors(self) -> int:
            return len(self._messages.errors)

        def get_error_code(self, arg0: int) -> Any:
            return self._messages.errors[arg0][0]

        def get_error_desc(self, arg0: int) -> str:
            return self._messages.errors[arg0][1]

        def has_overflowed(self) -> bool:
            return False

        def clear(self) -> None:
            self._messages.clear()

        def report_error(self, arg0: Any, arg1: str) -> bool:
            self._messages.record(arg0, arg1)
            return True

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self, watch: Watch) -> None:
            trt.IProgressMonitor.__init__(self)
            self._watch = watch
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:
            self._steps[phase_name] = num_steps
            self._watch.tell(phase_name, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._watch.tell(phase_name, step + 1, self._steps.get(phase_name, 0))
            return not self._watch.cancelled

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

    return Logger, Recorder, Monitor


def created(kind: Any, messages: Messages, *arguments: Any) -> Any:
    """An object of TensorRT.

    Raises:
        EngineError: TensorRT gave none, which its bindings tell by exceptions of Python.
    """
    try:
        return kind(*arguments)
    except (TypeError, RuntimeError) as error:
        name = getattr(kind, "__name__", str(kind))
        raise EngineError(
            f"tensorrt: no {name} could be made: {error}; {messages.drain()}"
        ) from None


def logger_and_recorder(trt: Any) -> tuple[Messages, Any, Any]:
    """Where TensorRT's messages go, and the objects that it is given; keep all three."""
    messages = Messages()
    logger, recorder, _ = _classes(trt)
    return messages, logger(messages), recorder(messages)


def monitor_of(trt: Any, watch: Watch) -> Any:
    """The object by which TensorRT tells of a build."""
    return _classes(trt)[2](watch)
