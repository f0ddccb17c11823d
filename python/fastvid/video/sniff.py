"""What a file is, from its bytes: why it is no video, and whether its end is missing."""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

_EBML_SEGMENT = 0x18538067
_TS_PACKET = 188


def describe(head: bytes) -> str:
    """Names what a file that is no video looks like.

    Args:
        head: The first bytes of the file.

    Returns:
        A phrase such as "an HTML page", or "" where nothing is recognised.
    """
    if not head:
        return "empty"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file it stands for"
    if start.startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    if start.startswith((b"#extm3u", b"ffconcat")):
        return "a playlist"
    if start.startswith((b"<?xml", b"<mpd")):
        return "an XML file"
    if start.startswith(b"{") and b'"' in start[:64]:
        return "a JSON file"
    for magic, name in (
        (b"\x89PNG", "an image; name its folder"),
        (b"\xff\xd8\xff", "an image; name its folder"),
        (b"ID3", "an audio file"),
        (b"fLaC", "an audio file"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"\x1f\x8b", "a gzip archive"),
        (b"%PDF", "a PDF file"),
        (b"\x7fELF", "a program"),
    ):
        if head.startswith(magic):
            return name
    if head.startswith(b"RIFF") and head[8:12] == b"WAVE":
        return "an audio file"
    if not head.strip(b"\0"):
        return "filled with zeros"
    printable = sum(32 <= byte < 127 or byte in b"\t\r\n" for byte in head)
    return "a text file" if printable > 0.95 * len(head) else ""


class Structure:
    """What the outline of a container says, read without decoding anything."""

    def __init__(self, kind: str, *, missing_index: bool = False, cut: bool = False) -> None:
        self.kind = kind
        """`mp4`, `matroska`, `avi`, `mpegts` or ""."""
        self.missing_index = missing_index
        """An MP4 file without `moov`: its frames cannot be found."""
        self.cut = cut
        """The file is shorter than its outline says."""


def structure(path: str) -> Structure:
    """Reads the outline of the container at `path`, a regular file."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        head = file.read(16)
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            return _mp4(file, size)
        if head.startswith(b"\x1a\x45\xdf\xa3"):
            return _matroska(file, size)
        if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
            return Structure("avi", cut=struct.unpack_from("<I", head, 4)[0] + 8 > size)
        if head.startswith(b"G"):
            file.seek(_TS_PACKET)
            if file.read(1) == b"G":
                return Structure("mpegts", cut=size % _TS_PACKET != 0)
    return Structure("")


def _mp4(file: BinaryIO, size: int) -> Structure:
    position, index, cut = 0, False, False
    while position + 8 <= size:
        file.seek(position)
        header = file.read(16)
        length, kind = struct.unpack_from(">I4s", header)
        if length == 1 and len(header) == 16:
            length = struct.unpack_from(">Q", header, 8)[0]
        elif length == 0:
            length = size - position
        if length < 8:
            break
        complete = position + length <= size
        index = index or (kind in (b"moov", b"moof") and complete)
        cut = cut or not complete
        position += length
    return Structure("mp4", missing_index=not index, cut=cut)


def _vint(file: BinaryIO, *, keep_marker: bool) -> tuple[int, bool] | None:
    """An EBML number and whether it is the one that means "unknown"."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    length = 9 - first[0].bit_length()
    rest = file.read(length - 1)
    if len(rest) != length - 1:
        return None
    value = int.from_bytes(first + rest, "big")
    mask = (1 << (7 * length)) - 1
    unknown = value & mask == mask
    return (value if keep_marker else value & mask), unknown


def _matroska(file: BinaryIO, size: int) -> Structure:
    file.seek(0)
    while True:
        element = _vint(file, keep_marker=True)
        length = _vint(file, keep_marker=False)
        if element is None or length is None:
            return Structure("matroska", cut=True)
        end = file.tell() + length[0]
        if element[0] == _EBML_SEGMENT:
            return Structure("matroska", cut=not length[1] and end > size)
        if length[1] or end > size:
            return Structure("matroska", cut=True)
        file.seek(end)
