"""Locks between processes that the system releases when a process ends, however it ends."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from fastvid.errors import CancelledError

_POLL_SECONDS = 0.05


@contextlib.contextmanager
def exclusive(
    path: Path,
    *,
    waiting: Callable[[], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[None]:
    """Holds the lock `path`; of several processes and threads one at a time.

    Args:
        path: The lock's file, which is made and stays.
        waiting: Called once, when another holds it.
        cancelled: Asked while waiting.

    Raises:
        CancelledError: `cancelled` became true.
        OSError: The file cannot be made, or its file system has no locks.
    """
    # The file is never removed, or two processes could hold locks of one name at the same time.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        told = False
        while not _try(descriptor):
            if waiting is not None and not told:
                waiting()
                told = True
            if cancelled():
                raise CancelledError("engine: waiting for another process was cancelled")
            time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True
