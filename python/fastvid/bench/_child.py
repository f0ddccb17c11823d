"""The handle of a process that measures one row: questions, answers, and how it can end."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any

_UNAVAILABLE = ("NoDeviceError", "BackendUnavailableError")
_END_SECONDS = 10
_CHUNK = 1 << 16


class RowError(Exception):
    """A row that cannot be measured; never leaves this package.

    Args:
        status: `failed` or `unavailable`.
        reason: Why, in a line.
        error: `type`, `message`, `hint` and `exit_code`, where the process still told them.
    """

    def __init__(self, status: str, reason: str, error: Mapping[str, Any] | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.error = dict(error or {})


class Child:
    """One process of `fastvid.bench._worker`.

    Args:
        spec: What it measures; `spawned` is added.
        timeout: Seconds that an answer may take.
    """

    def __init__(self, spec: Mapping[str, Any], timeout: float) -> None:
        self._timeout = timeout
        self._left = b""
        # A file, because nobody reads a pipe while the process works.
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        spawned = time.perf_counter()
        # -P: modules that lie in the folder of the caller are not those that are measured.
        # A session of its own, so that Ctrl-C reaches the parent alone, which then ends this.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "fastvid.bench._worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            start_new_session=True,
        )
        self._send({**spec, "spawned": spawned})

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Gives a command and waits for its answer.

        Raises:
            RowError: The command failed, the process died, or the answer did not come in time.
        """
        self._send({"do": do, **arguments})
        answer: dict[str, Any] = json.loads(self._line(do))
        if error := answer.get("error"):
            status = "unavailable" if error["type"] in _UNAVAILABLE else "failed"
            raise RowError(status, error["message"], error)
        return answer

    def end(self) -> None:
        """Lets the process end by itself; kills it where it does not."""
        with contextlib.suppress(OSError, ValueError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)
        self.kill()

    def kill(self) -> None:
        """Ends the process at once."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            with contextlib.suppress(OSError, ValueError):
                if stream is not None:
                    stream.close()

    def _send(self, value: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        # A process that has died is noticed when its answer is read.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(value).encode() + b"\n")
            self._process.stdin.flush()

    def _line(self, do: str) -> bytes:
        assert self._process.stdout is not None
        deadline = time.monotonic() + self._timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._left:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    self._process.kill()
                    raise RowError("failed", f"no answer to {do!r} within {self._timeout:g} s")
                data = os.read(self._process.stdout.fileno(), _CHUNK)
                if not data:
                    raise RowError("failed", self._death(do))
                self._left += data
        line, _, self._left = self._left.partition(b"\n")
        return line

    def _death(self, do: str) -> str:
        code = self._process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read().decode("utf-8", "replace").strip().splitlines()
        last = f": {lines[-1][:200]}" if lines else ""
        if code >= 0:
            return f"the process ended with code {code} in {do!r}{last}"
        name = signal.Signals(-code).name
        why = ", as the system does where memory runs out" if name == "SIGKILL" else ""
        return f"the process was killed by {name} in {do!r}{why}{last}"
