"""Files that only this user's fastvid can have written: a header, a payload and a seal over both.

A TensorRT plan is native code, and TensorRT does not notice one that was tampered with. So nothing
is given to it that does not carry an HMAC-SHA256 (RFC 2104) made with a key that only this user can
read. The key is kept apart from the cache: a cache that was copied from elsewhere is foreign here.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastvid.errors import OutputError

_MAGIC = b"fastvid sealed 1\n"
_KEY_BYTES, _SEAL_BYTES, _LENGTH_BYTES = 32, 32, 8
_MAX_HEADER = 16 << 20


class SealError(Exception):
    """The bytes were not sealed with this key, or were changed since."""


def key_path() -> Path:
    """Where the user's key lies."""
    data = os.environ.get("XDG_DATA_HOME", "")
    root = Path(data) if os.path.isabs(data) else Path.home() / ".local" / "share"
    return root / "fastvid" / "engine.key"


def user_key(path: Path | None = None) -> bytes:
    """The user's key; it is made when it is first asked for.

    Args:
        path: Where it lies; None is `key_path()`.

    Raises:
        OutputError: It cannot be made, or others could have read or replaced it.
    """
    path = key_path() if path is None else path
    try:
        if not path.is_symlink() and not path.exists():
            _make_key(path)
        return _read_key(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"engine key: {str(path)!r} cannot be read or made: {reason}") from None


def _make_key(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.urandom(6).hex()}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(os.urandom(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        # A link is refused where the name is taken: of two processes the first one's key stays.
        with contextlib.suppress(FileExistsError):
            os.link(part, path)
    finally:
        part.unlink(missing_ok=True)


def _read_key(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        problem = ""
        if not stat.S_ISREG(status.st_mode):
            problem = "a regular file"
        elif status.st_uid != os.geteuid() or status.st_mode & 0o077:
            problem = "yours, and readable by nobody else (mode 0600)"
        elif status.st_size != _KEY_BYTES:
            problem = f"{_KEY_BYTES} bytes"
        if problem:
            raise OutputError(
                f"engine key: {str(path)!r} must be {problem}, got mode "
                f"{stat.S_IMODE(status.st_mode):04o}, owner {status.st_uid}, "
                f"{status.st_size} bytes",
                hint="delete it; engines are then built again",
            )
        return file.read(_KEY_BYTES)


def seal(kind: str, header: Mapping[str, Any], payload: bytes, key: bytes) -> list[bytes]:
    """The parts of a sealed file.

    Args:
        kind: What the payload is; a file of one kind is not taken for another.
        header: Plain values that JSON holds.
        payload: Any bytes.
        key: Of `user_key`.
    """
    text = json.dumps({**header, "kind": kind}, sort_keys=True, allow_nan=False).encode()
    head = _MAGIC + len(text).to_bytes(_LENGTH_BYTES, "little") + text
    return [head, payload, _digest(key, head, payload)]


def unseal(kind: str, data: bytes, key: bytes) -> tuple[dict[str, Any], memoryview]:
    """Header and payload of a sealed file; nothing in it is looked at before its seal is right.

    Raises:
        SealError: It was not sealed with this key, was changed or cut, or is of another kind.
    """
    view = memoryview(data)
    body, given = view[:-_SEAL_BYTES], view[-_SEAL_BYTES:]
    if len(given) != _SEAL_BYTES or not hmac.compare_digest(_digest(key, body), given):
        raise SealError("its seal is not this user's, or it was changed or cut")
    start = len(_MAGIC) + _LENGTH_BYTES
    if body[: len(_MAGIC)] != _MAGIC:
        raise SealError("it is of another version")
    size = int.from_bytes(body[len(_MAGIC) : start], "little")
    if size > min(_MAX_HEADER, len(body) - start):
        raise SealError("its header does not fit")
    header = json.loads(bytes(body[start : start + size]))
    if header.pop("kind") != kind:
        raise SealError(f"it is not of kind {kind!r}")
    return header, body[start + size :]


def _digest(key: bytes, *parts: bytes | memoryview) -> bytes:
    made = hmac.new(key, digestmod=hashlib.sha256)
    for part in parts:
        made.update(part)
    return made.digest()
