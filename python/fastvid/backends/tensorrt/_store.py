"""The engine cache: sealed files in one folder, written aside and renamed, removed by last use.

`FOLDER/NAME.engine` are engines and `FOLDER/NAME.timing` what TensorRT measured when it built them;
`FOLDER/locks` holds the locks and `FOLDER/quarantine` the last files that were refused.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from fastvid.backends.tensorrt import _seal
from fastvid.backends.tensorrt._locks import exclusive
from fastvid.errors import DiskFullError, InputError, InputTypeError, OutputError

ENGINE, TIMING = "engine", "timing"
DEFAULT_LIMIT = 16 << 30

_NAME = re.compile(r"[0-9a-z-]{1,120}")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_STALE_SECONDS = 3600.0
_QUARANTINED = 4


def default_folder() -> Path:
    """The cache's folder: `fastvid/engines` in `XDG_CACHE_HOME`, by default `~/.cache`."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(cache) if os.path.isabs(cache) else Path.home() / ".cache"
    return root / "fastvid" / "engines"


@dataclass(frozen=True)
class StoredEngine:
    """One engine of the cache."""

    path: Path
    size: int
    """Bytes of the file."""
    used: float
    """When it was last loaded or made, in seconds since 1970."""
    header: Mapping[str, Any]
    """What it was made of and for; empty for a file that is not sealed with the user's key."""

    def to_text(self) -> str:
        """One line for people."""
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.used))
        size = f"{self.size / 1e6:.1f} MB"
        if not self.header:
            return f"{self.path.name}: {size}, not of this user, will not be used"
        key = self.header["key"]
        device = key["gpu"] or "compute capability {}.{}".format(*key["capability"])
        return (
            f"{key['model']}, {key['graph']} for {self.header['size']}: {size}, {device}, "
            f"TensorRT {key['tensorrt']}, last used {used}"
        )

    def to_dict(self) -> dict[str, Any]:
        """The entry as plain objects, without what checks its results."""
        entry = dataclasses.asdict(self) | {"path": str(self.path)}
        entry["header"] = {k: v for k, v in self.header.items() if k != "golden"}
        return entry


class Store:
    """One cache folder.

    Args:
        folder: None is `default_folder()`. It is made when something is first written.
        limit: Bytes that all engines together may take; the ones unused for longest are removed.
        key: Of the user; None reads it.
    """

    def __init__(
        self, folder: Path | None = None, *, limit: int = DEFAULT_LIMIT, key: bytes | None = None
    ) -> None:
        self.folder = default_folder() if folder is None else folder
        self._limit = limit
        self._known_key = key

    @property
    def _key(self) -> bytes:
        if self._known_key is None:
            self._known_key = _seal.user_key()
        return self._known_key

    def open(self) -> None:
        """Makes sure that engines can be written, before minutes are spent on one.

        Raises:
            OutputError: The folder or the user's key cannot be made, or are not the user's own.
            DiskFullError: No space is left.
        """
        try:
            for folder in (self.folder, self.folder / "locks"):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._require_own(folder)
            self._key  # noqa: B018
            probe = self.folder / f".probe.{os.urandom(6).hex()}.part"
            try:
                _write(probe, [bytes(4096)])
            finally:
                probe.unlink(missing_ok=True)
        except OSError as error:
            self._raise(error)

    def _require_own(self, folder: Path) -> None:
        status = folder.stat()
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise OutputError(
                f"engine cache: folder {str(folder)!r} must be yours and writable by nobody else, "
                f"got owner {status.st_uid}, mode {stat.S_IMODE(status.st_mode):04o}",
                hint=f"chmod go-w {folder}, or another cache folder",
            )

    def _raise(self, error: OSError) -> NoReturn:
        kind = DiskFullError if error.errno in _FULL else OutputError
        raise kind(
            f"engine cache: {str(self.folder)!r} cannot be written: "
            f"{error.strerror or type(error).__name__}",
            hint="free space, or choose another folder with EngineOptions(cache=...)",
        ) from None

    def path(self, name: str, kind: str = ENGINE) -> Path:
        """The file of an entry.

        Args:
            name: Up to 120 characters of `a-z`, `0-9` and `-`.
            kind: `engine` or `timing`.
        """
        if _NAME.fullmatch(name) is None:
            raise InputError(f"engine: name must be of a-z, 0-9 and '-', got {name[:40]!a}")
        return self.folder / f"{name}.{kind}"

    @contextlib.contextmanager
    def lock(
        self,
        name: str,
        *,
        waiting: Callable[[], None] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[None]:
        """Holds an entry: of several processes that build it one does, and the others wait.

        Raises:
            CancelledError: `cancelled` became true while another held it.
            OutputError: The file system has no locks.
        """
        path = self.path(name, "lock")
        with contextlib.ExitStack() as stack:
            try:
                held = exclusive(
                    self.folder / "locks" / path.name, waiting=waiting, cancelled=cancelled
                )
                stack.enter_context(held)
            except OSError as error:
                self._raise(error)
            yield

    def read(self, name: str, kind: str = ENGINE) -> tuple[dict[str, Any], memoryview] | None:
        """Header and payload of an entry; None if there is none that can be trusted.

        A file that is damaged, foreign, a link or open to others goes into quarantine.

        Raises:
            OutputError: The user's key cannot be read.
        """
        path = self.path(name, kind)
        if not path.is_symlink() and not path.exists():
            return None
        try:
            header, payload = _seal.unseal(kind, _read_own(path), self._key)
            if header.get("name") != name:
                raise _seal.SealError(f"it was made for {header.get('name')!r}")
        except (OSError, _seal.SealError):
            self.quarantine(path)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return header, payload

    def write(
        self, name: str, header: Mapping[str, Any], payload: bytes, kind: str = ENGINE
    ) -> Path:
        """Writes an entry, whole or not at all, and keeps the cache below its limit.

        Raises:
            OutputError: It cannot be written.
            DiskFullError: No space is left; nothing of it stays.
        """
        path = self.path(name, kind)
        part = path.with_name(f".{path.name}.{os.urandom(6).hex()}.part")
        try:
            _write(part, _seal.seal(kind, {**header, "name": name}, payload, self._key))
            part.replace(path)
            _sync_folder(self.folder)
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            self._raise(error)
        self._trim(keep=path)
        return path

    def names(self, prefix: str = "") -> list[str]:
        """Names of the engines that start with `prefix`, the one last used first."""
        return [path.stem for _, path, _ in self._files() if path.stem.startswith(prefix)]

    def entries(self) -> list[StoredEngine]:
        """Every engine, the one last used first; reading them does not count as use."""
        found = []
        for used, path, size in self._files():
            header: dict[str, Any] = {}
            with contextlib.suppress(OSError, _seal.SealError):
                header, _ = _seal.unseal(ENGINE, _read_own(path), self._key)
            found.append(StoredEngine(path, size, used, header))
        return found

    def clear(self) -> int:
        """Removes all engines, timings and refused files; gives how many bytes."""
        freed = 0
        for folder in (self.folder, self.folder / "quarantine"):
            for path in _listed(folder):
                if path.suffix in (f".{ENGINE}", f".{TIMING}", ".part"):
                    freed += _remove(path)
        return freed

    def quarantine(self, path: Path) -> None:
        """Takes a file out of the cache, and keeps the last few for a look.

        Raises:
            OutputError: It can be neither moved nor removed.
        """
        folder = self.folder / "quarantine"
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            path.replace(folder / f"{time.time_ns()}-{path.name}")
        except OSError:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                self._raise(error)
            return
        for old in sorted(_listed(folder))[:-_QUARANTINED]:
            _remove(old)

    def _files(self) -> list[tuple[float, Path, int]]:
        """Time of last use, path and size of every engine, the one last used first."""
        found = []
        for path in _listed(self.folder):
            if path.suffix == f".{ENGINE}" and _NAME.fullmatch(path.stem):
                with contextlib.suppress(OSError):
                    status = path.lstat()
                    found.append((status.st_mtime, path, status.st_size))
        return sorted(found, reverse=True)

    def _trim(self, keep: Path) -> None:
        files = self._files()
        total = sum(size for _, _, size in files)
        for _, path, size in reversed(files):
            if total <= self._limit:
                break
            if path != keep and _remove(path):
                total -= size
        for path in _listed(self.folder):
            # Whoever was killed while writing left these.
            with contextlib.suppress(OSError):
                age = time.time() - path.lstat().st_mtime
                if path.suffix == ".part" and age > _STALE_SECONDS:
                    _remove(path)


def folder_argument(cache: object) -> Path | None:
    """The folder that `cache=` names.

    Raises:
        InputTypeError: It is not a path.
    """
    if cache is None:
        return None
    if not isinstance(cache, str | os.PathLike):
        raise InputTypeError(f"cache: argument must be a folder, got {type(cache).__name__}")
    return Path(os.path.expanduser(cache)).absolute()


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _remove(path: Path) -> int:
    """Removes a file; gives its size, or 0 if it could not be removed."""
    try:
        size = path.lstat().st_size
        path.unlink()
    except OSError:
        return 0
    return size


def _read_own(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _seal.SealError("it is not a regular file")
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise _seal.SealError("others could have written it")
        return file.read()


def _write(path: Path, parts: list[bytes]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
