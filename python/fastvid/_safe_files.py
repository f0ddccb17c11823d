"""Reading the files of an untrusted folder without ever leaving it.

Every file is opened relative to a descriptor of its folder, one component at a time, with
O_NOFOLLOW, and must be a regular file. Hard links are allowed, because package installers make
them; what is read is verified by its sha256 before use instead.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import re
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fastvid.errors import IntegrityError, OutOfMemoryError, UnsafePathError

ALLOWED_SUFFIXES = (".json", ".onnx", ".data", ".txt", ".md")
"""Kinds of file a bundle may hold: none of them is code."""

NATIVE_SUFFIXES = (".engine", ".plan", ".trt", ".so", ".dll", ".dylib")
PICKLE_SUFFIXES = (".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".bin", ".npy", ".npz", ".joblib")

_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
_PATH = re.compile(rf"{_NAME}(/{_NAME}){{0,3}}")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)", re.IGNORECASE)
_MAX_ENTRIES = 1024
_PIECE = 4 << 20

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: opening a fifo must not wait for a writer.
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def check_path(path: str, what: str) -> None:
    """Refuses a file name that leaves its folder or names a kind of file that is never opened.

    Args:
        path: Name inside the folder, with `/` between at most four components.
        what: What the message starts with.

    Raises:
        UnsafePathError: The name is not allowed.
    """
    if problem := _path_problem(path):
        shown = ascii(path) if len(path) <= 60 else ascii(path[:57] + "...")
        raise UnsafePathError(f"{what} {problem}, got {shown}")


def _path_problem(path: str) -> str:
    suffix = os.path.splitext(path)[1].lower()
    if suffix in PICKLE_SUFFIXES:
        return "must not be a pickle or array file, which can run code or hide objects"
    if suffix in NATIVE_SUFFIXES:
        return "must not be an engine or library, which is native code"
    if path.startswith("/") or "\\" in path or ":" in path:
        return "must be a relative path with '/' between its parts"
    parts = path.split("/")
    if ".." in parts:
        return "must stay inside the folder, without '..'"
    if _PATH.fullmatch(path) is None:
        return "must be up to 4 plain names of letters, digits, '_', '-' and '.'"
    if any(_RESERVED.match(part) for part in parts):
        return "must not be a reserved device name"
    if not path.endswith(ALLOWED_SUFFIXES):
        return f"must end in one of {', '.join(ALLOWED_SUFFIXES)}"
    return ""


@contextlib.contextmanager
def open_folder(folder: Path) -> Iterator[int]:
    """Descriptor of `folder`, which may itself be reached through links: the caller chose it.

    Raises:
        OSError: It is missing, not a folder, or may not be read.
    """
    descriptor = os.open(folder, _FOLDER_FLAGS)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read(folder: int, path: str, *, limit: int) -> bytes:
    """Reads a whole file below a folder.

    Args:
        folder: Descriptor of the folder.
        path: Name that `check_path` accepts.
        limit: Largest size in bytes.

    Returns:
        The bytes of the file.

    Raises:
        UnsafePathError: A component is a link, or the file is not a regular file.
        IntegrityError: The file is missing, larger than `limit` or cannot be read.
        OutOfMemoryError: It does not fit into memory.
    """
    with _opened(folder, path, limit) as file:
        return file.read(limit + 1)


@dataclass(frozen=True)
class Identity:
    """Which file it is, and when it was last written or renamed."""

    device: int
    inode: int
    size: int
    written: int
    changed: int


def digest(folder: int, path: str, *, limit: int) -> tuple[str, Identity]:
    """The sha256 of a file below a folder, a piece at a time, and which file that was.

    Raises:
        FastvidError: As `read`.
    """
    total = hashlib.sha256()
    with _opened(folder, path, limit) as file:
        found = _identity(os.fstat(file.fileno()))
        buffer = memoryview(bytearray(_PIECE))
        while count := file.readinto(buffer):
            total.update(buffer[:count])
    return total.hexdigest(), found


def identity(folder: int, path: str) -> Identity:
    """Which file a name below a folder means now.

    Raises:
        FastvidError: As `read`.
    """
    with _opened(folder, path, sys.maxsize) as file:
        return _identity(os.fstat(file.fileno()))


def _identity(status: os.stat_result) -> Identity:
    return Identity(
        status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    )


@contextlib.contextmanager
def _opened(folder: int, path: str, limit: int) -> Iterator[io.BufferedReader]:
    """A file below a folder, opened for reading, with the errors of `read`."""
    try:
        with contextlib.ExitStack() as stack:
            parent = folder
            *folders, name = path.split("/")
            for part in folders:
                parent = os.open(part, _FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=parent)
                stack.callback(os.close, parent)
            _require_regular(os.stat(name, dir_fd=parent, follow_symlinks=False), path)
            descriptor = os.open(name, _FILE_FLAGS, dir_fd=parent)
            with os.fdopen(descriptor, "rb") as file:
                status = os.fstat(descriptor)
                _require_regular(status, path)
                if status.st_size > limit:
                    raise IntegrityError(
                        f"{path}: size must be at most {limit} bytes, got {status.st_size}"
                    )
                yield file
    except FileNotFoundError:
        raise IntegrityError(f"{path}: file is missing from the bundle") from None
    except MemoryError:
        raise OutOfMemoryError(f"{path}: file does not fit into memory") from None
    except OSError as error:
        if error.errno in _LINK_ERRORS:
            raise UnsafePathError(f"{path}: must not be a link or lie behind one") from None
        raise IntegrityError(f"{path}: file cannot be read: {error.strerror}") from None


# O_NOFOLLOW reports a link as ELOOP, and together with O_DIRECTORY as ENOTDIR.
_LINK_ERRORS = (errno.ELOOP, errno.ENOTDIR)


def _require_regular(status: os.stat_result, path: str) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise UnsafePathError(f"{path}: must not be a link")
    if not stat.S_ISREG(status.st_mode):
        raise UnsafePathError(f"{path}: must be a regular file")


def list_files(folder: int) -> set[str]:
    """Names of all files below a folder, leaving out those that start with a dot.

    Raises:
        UnsafePathError: The folder holds a link, a device, a kind of file that is never opened, or
            more than 1024 entries.
        IntegrityError: It cannot be listed.
    """
    found: set[str] = set()
    try:
        for parent, folders, files, descriptor in os.fwalk(
            ".", dir_fd=folder, follow_symlinks=False, onerror=_reraise
        ):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in [*folders, *files]:
                if name.startswith("."):
                    continue
                path = os.path.normpath(os.path.join(parent, name))
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    continue
                _require_regular(status, path)
                check_path(path, "bundle: file name")
                found.add(path)
                if len(found) > _MAX_ENTRIES:
                    raise UnsafePathError(f"bundle: folder must hold at most {_MAX_ENTRIES} files")
    except OSError as error:
        raise IntegrityError(f"bundle: folder cannot be listed: {error.strerror}") from None
    return found


def _reraise(error: OSError) -> None:
    raise error
