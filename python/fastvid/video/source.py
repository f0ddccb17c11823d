"""Opening media files safely: one regular file, known formats, no network, errors named."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from fastvid.errors import (
    FastvidError,
    InputTypeError,
    MediaError,
    TruncatedMediaError,
    UnreadableMediaError,
    UnsupportedMediaError,
)
from fastvid.video import sniff

if TYPE_CHECKING:
    from av.container import InputContainer

_VIDEO_FORMATS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,yuv4mpegpipe,h264,hevc,obu,ivf,gif,flv"
"""FFmpeg demuxers that may open a file: none of them opens further files."""
_IMAGE_FORMATS = {b"\x89PNG": "png_pipe", b"\xff\xd8\xff": "jpeg_pipe"}

_NOT_A_FILE = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def file_path(
    path: object, what: str = "path", unusable: type[FastvidError] = UnreadableMediaError
) -> str:
    """`path` as text.

    Args:
        path: What the caller gave.
        what: What messages start with.
        unusable: The error for a path that names nothing.

    Raises:
        InputTypeError: It is neither text nor an `os.PathLike`.
        FastvidError: `unusable`: it is empty or contains a NUL character.
    """
    if isinstance(path, (bytes, bytearray)) or not isinstance(path, (str, os.PathLike)):
        raise InputTypeError(f"{what}: must be str or os.PathLike, got {type(path).__name__}")
    text = os.fspath(path)
    if not isinstance(text, str):
        raise InputTypeError(f"{what}: must be str or os.PathLike, got one of bytes")
    if not text or "\0" in text:
        raise unusable(f"{what}: must name a file, got {text!r}")
    return text


def check_source(path: str) -> bool:
    """Checks that `path` is something to read from.

    Returns:
        True for a folder, False for a regular file.

    Raises:
        UnreadableMediaError: It is missing, unreadable, or neither.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        hint = "a path is a file or a folder of images; URLs are not opened" if ":" in path else ""
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UnreadableMediaError(f"{path}: {reason}", hint=hint) from error
    if stat.S_ISDIR(mode):
        return True
    if not stat.S_ISREG(mode):
        kind = next((name for test, name in _NOT_A_FILE if test(mode)), "a special file")
        raise UnreadableMediaError(f"{path}: must be a regular file, got {kind}")
    return False


def not_a_video(path: str) -> MediaError:
    """The error that says best why `path` cannot be opened as a video."""
    try:
        with open(path, "rb") as file:
            head = file.read(512)
        outline = sniff.structure(path)
    except OSError as error:
        return UnreadableMediaError(f"{path}: {error.strerror}")
    looks = sniff.describe(head)
    if not head:
        return UnreadableMediaError(f"{path}: must be a video, got an empty file")
    if outline.kind == "mp4" and outline.missing_index:
        return TruncatedMediaError(
            f"{path}: file ends before its index (no moov box)",
            hint="the recording or the download was cut; fetch the file again",
        )
    if outline.cut:
        return TruncatedMediaError(f"{path}: file ends before its first frame")
    if looks:
        return UnreadableMediaError(f"{path}: must be a video, got {looks}")
    return UnreadableMediaError(
        f"{path}: must be a video in a known format, got something else",
        hint="known: mp4, mov, mkv, webm, avi, ts, mpg, flv, gif, y4m, ivf, raw H.264 and HEVC, "
        "or a folder of PNG or JPEG images",
    )


def bad_image(path: str) -> MediaError:
    """The error for a PNG or JPEG file that cannot be decoded."""
    return TruncatedMediaError(f"{path}: image is cut or damaged")


@contextlib.contextmanager
def media_errors(path: str, invalid: Callable[[str], MediaError] = not_a_video) -> Iterator[None]:
    """Turns whatever PyAV raises while reading `path` into errors of `fastvid.errors`.

    Args:
        path: The file, for messages.
        invalid: Makes the error for data that cannot be parsed.
    """
    import av

    try:
        yield
    except FastvidError:
        raise
    except (av.error.InvalidDataError, av.error.EOFError, av.error.ArgumentError) as error:
        # A format that is not on the list counts as an invalid argument.
        raise invalid(path) from error
    except (av.error.DecoderNotFoundError, av.error.PatchWelcomeError) as error:
        raise UnsupportedMediaError(f"{path}: no decoder for its video ({error})") from error
    except (av.error.MemoryError, MemoryError) as error:
        raise UnreadableMediaError(
            f"{path}: asks for more memory than there is", hint="the file may be damaged"
        ) from error
    except (av.error.FFmpegError, OSError) as error:
        reason = error.strerror or str(error)
        raise UnreadableMediaError(f"{path}: cannot be read: {reason}") from error
    except (ValueError, LookupError, RuntimeError) as error:
        raise UnreadableMediaError(f"{path}: cannot be read: {error}") from error


def open_image(path: str) -> InputContainer:
    """Opens a PNG or JPEG file.

    Raises:
        UnreadableMediaError: It is neither.
        TruncatedMediaError: It is cut or damaged.
    """
    check_source(path)
    try:
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError as error:
        raise UnreadableMediaError(f"{path}: {error.strerror}") from error
    for magic, name in _IMAGE_FORMATS.items():
        if head.startswith(magic):
            # Chosen here: by the name alone FFmpeg would take a demuxer that expands patterns.
            with media_errors(path, bad_image):
                return _open(path, name)
    looks = sniff.describe(head) or "something else"
    raise UnreadableMediaError(f"{path}: must be a PNG or JPEG image, got {looks}")


def open_container(path: str) -> InputContainer:
    """Opens a regular file as one of the known formats, with no other protocol than `file`.

    Raises:
        MediaError: It cannot be opened; the message says why.
    """
    with media_errors(path):
        return _open(path, None)


def _open(path: str, name: str | None) -> InputContainer:
    import av

    # A bare name such as "concat:x" would choose a protocol, "file:" keeps it a name.
    options = {"format_whitelist": name or _VIDEO_FORMATS, "protocol_whitelist": "file"}
    return av.open(
        "file:" + path, "r", format=name, container_options=options, metadata_errors="replace"
    )
