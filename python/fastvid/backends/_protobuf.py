"""Protobuf as it lies on the wire, so that a message can be changed without knowing all of it.

ONNX files are protobuf; the runtime depends on neither `onnx` nor `protobuf`. The encoding:
https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types."""


class Field(NamedTuple):
    """One field of a message."""

    number: int
    wire: int
    value: int | memoryview
    """Content of the field without its length, or the number of a varint."""
    raw: memoryview
    """The field as it stands in the message, key included."""


def fields(data: bytes | memoryview) -> Iterator[Field]:
    """The fields of a message, in their order; nothing is copied.

    Raises:
        ValueError: The bytes are not a message.
    """
    view = memoryview(data)
    at = 0
    while at < len(view):
        start = at
        key, at = read_varint(view, at)
        value: int | memoryview
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            value, at = read_varint(view, at)
        else:
            if wire == BYTES:
                size, at = read_varint(view, at)
            elif wire in (FIXED32, FIXED64):
                size = 4 if wire == FIXED32 else 8
            else:
                raise ValueError(f"wire type {wire} is not known")
            if at + size > len(view):
                raise ValueError("field reaches beyond the end")
            value = view[at : at + size]
            at += size
        yield Field(number, wire, value, view[start:at])


def read_varint(view: memoryview, at: int) -> tuple[int, int]:
    """The number that begins at `at`, and where it ends.

    Raises:
        ValueError: It does not end.
    """
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(view):
            break
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("number does not end")


def varint(value: int) -> bytes:
    """A number on the wire; negative ones as the 64-bit two's complement."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field: int, value: int) -> bytes:
    """A field that holds an integer."""
    return varint(field << 3 | VARINT) + varint(value)


def chunk(field: int, content: bytes | memoryview) -> bytes:
    """A field that holds bytes, text or another message."""
    return b"".join((varint(field << 3 | BYTES), varint(len(content)), content))


def text(field: int, content: str) -> bytes:
    """A field that holds text."""
    return chunk(field, content.encode())
