"""Where output goes: checked before work starts, written aside, renamed when complete."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
from collections.abc import Iterator

from fastvid.errors import DiskFullError, FastvidError, OutputError
from fastvid.video.source import file_path

_ACTIVE: set[str] = set()
"""Part files that this process is writing now."""

_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
_NUMBERED = re.compile(r"\d{6,}\.png")


@contextlib.contextmanager
def output_errors(path: str) -> Iterator[None]:
    """Turns whatever fails while `path` is written into `OutputError` or `DiskFullError`."""
    try:
        yield
    except FastvidError:
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFullError(
                f"{path}: no space left to write it", hint="free some space or write elsewhere"
            ) from error
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
    except (ValueError, LookupError, RuntimeError, MemoryError) as error:
        raise OutputError(f"{path}: cannot be written: {error}") from error
    except Exception as error:
        # PyAV's own errors share no base with the built-in ones.
        if type(error).__module__.startswith("av."):
            raise OutputError(f"{path}: cannot be written: {error}") from error
        raise


class Target:
    """A file or folder that appears under its name only when it is complete.

    Args:
        path: The final name; a trailing separator or a missing suffix means a folder.
        source: The file or folder that is read, which must not be overwritten.
        overwrite: Whether an existing file, or a folder of numbered PNG files, is replaced.

    Raises:
        OutputError: The output cannot go there; nothing was created.
    """

    def __init__(self, path: object, *, source: str | None = None, overwrite: bool = False) -> None:
        text = file_path(path, "output path", OutputError)
        self.is_folder = text.endswith(("/", os.sep)) or not os.path.splitext(text)[1]
        self.path = text.rstrip("/" + os.sep) or text
        self._overwrite = overwrite
        folder, name = os.path.split(os.path.abspath(self.path))
        if not name:
            raise OutputError(f"{text}: output must name a file")
        self._check(folder, source)
        self.part = os.path.join(folder, f".{name}.{os.getpid()}.part")
        if self.part in _ACTIVE:
            raise OutputError(f"{self.path}: output is being written by this process already")
        with output_errors(self.path):
            # One that lies there was left by a killed process of the same number.
            self._discard_part()
            if self.is_folder:
                os.mkdir(self.part)
            else:
                os.close(os.open(self.part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        _ACTIVE.add(self.part)

    def _check(self, folder: str, source: str | None) -> None:
        if not os.path.isdir(folder):
            raise OutputError(
                f"{self.path}: its folder must exist, got {folder}", hint="create the folder first"
            )
        if not os.path.lexists(self.path):
            return
        with output_errors(self.path):
            there = source is not None and os.path.exists(self.path)
            if there and os.path.samefile(str(source), self.path):
                raise OutputError(
                    f"{self.path}: output must differ from the input, got the same file"
                )
            mode = os.stat(self.path, follow_symlinks=os.path.exists(self.path)).st_mode
        kind = stat.S_ISDIR if self.is_folder else stat.S_ISREG
        if not kind(mode) and not stat.S_ISLNK(mode):
            wanted = "a folder" if self.is_folder else "a regular file"
            raise OutputError(f"{self.path}: output must be {wanted}, got something else there")
        if not self._overwrite:
            raise OutputError(
                f"{self.path}: output exists", hint="pass overwrite=True to replace it"
            )
        if self.is_folder:
            foreign = [name for name in os.listdir(self.path) if not _NUMBERED.fullmatch(name)]
            if foreign:
                raise OutputError(
                    f"{self.path}: folder must hold nothing but numbered PNG files to be "
                    f"replaced, got {foreign[0]!r}"
                )

    def commit(self) -> None:
        """Gives the complete output its final name."""
        with output_errors(self.path):
            self._sync()
            if os.path.lexists(self.path) and not self._overwrite:
                raise OutputError(f"{self.path}: output appeared while it was written")
            if self.is_folder and os.path.isdir(self.path):
                shutil.rmtree(self.path)
            os.replace(self.part, self.path)
        _ACTIVE.discard(self.part)

    def _sync(self) -> None:
        if self.is_folder:
            return
        handle = os.open(self.part, os.O_RDWR)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def discard(self) -> None:
        """Removes what was written so far; the final name stays untouched."""
        _ACTIVE.discard(self.part)
        with contextlib.suppress(OSError):
            self._discard_part()

    def _discard_part(self) -> None:
        if os.path.isdir(self.part):
            shutil.rmtree(self.part)
        elif os.path.lexists(self.part):
            os.unlink(self.part)
