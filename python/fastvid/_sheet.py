"""Labelled pictures side by side, and a PNG writer for them."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence

import numpy as np

from fastvid._font import text_mask
from fastvid._frames import FrameArray
from fastvid.video.target import Target, output_errors

_MARGIN = 6
_LINE = 2
_GREY = 128


def sheet(pictures: Sequence[FrameArray], labels: Sequence[str]) -> FrameArray:
    """Four pictures of one size two by two, each with its label in the top left corner.

    Args:
        pictures: Four uint8 RGB pictures (H, W, 3).
        labels: Their labels, in the letters that `text_mask` knows.

    Returns:
        uint8 RGB (2H, 2W, 3).
    """
    panels = [_labelled(p, label) for p, label in zip(pictures, labels, strict=True)]
    rows = [np.concatenate(panels[first : first + 2], axis=1) for first in (0, 2)]
    return np.ascontiguousarray(np.concatenate(rows, axis=0))


def contact_sheet(pictures: Sequence[FrameArray], columns: int) -> FrameArray:
    """Pictures of one size in rows, with a thin grey line between them.

    Args:
        pictures: At least one uint8 RGB picture (H, W, 3).
        columns: Pictures per row; the last row is filled with grey.

    Returns:
        uint8 RGB (rows * (H + 2) + 2, columns * (W + 2) + 2, 3).
    """
    height, width = (side + _LINE for side in pictures[0].shape[:2])
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    result = np.full((rows * height + _LINE, columns * width + _LINE, 3), _GREY, np.uint8)
    for number, picture in enumerate(pictures):
        top, left = number // columns * height + _LINE, number % columns * width + _LINE
        result[top : top + height - _LINE, left : left + width - _LINE] = picture
    return result


def _labelled(picture: FrameArray, label: str) -> FrameArray:
    result = picture.copy()
    ink = np.pad(text_mask(label, 2 if picture.shape[1] >= 400 else 1), _MARGIN)
    part = result[: ink.shape[0], : ink.shape[1]]
    ink = ink[: part.shape[0], : part.shape[1]]
    part[...] = np.where(ink[..., None], np.uint8(255), part // 4)
    return result


def write_png(path: str | os.PathLike[str], picture: FrameArray, *, overwrite: bool) -> None:
    """Write an 8-bit RGB PNG file.

    Raises:
        OutputError: The file exists and `overwrite` is false, or it cannot be written.
    """
    height, width = picture.shape[:2]
    rows = picture.reshape(height, 3 * width)
    # Each row starts with its filter: 0 is none, 2 the difference from the row above.
    differences = np.diff(rows, axis=0, prepend=np.zeros_like(rows[:1]))
    filtered = (np.insert(rows, 0, 0, axis=1), np.insert(differences, 0, 2, axis=1))
    data = min((zlib.compress(choice.tobytes(), 9) for choice in filtered), key=len)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", data),
        (b"IEND", b""),
    ]
    target = Target(path, overwrite=overwrite)
    try:
        with output_errors(target.path), open(target.part, "wb") as file:
            file.write(b"\x89PNG\r\n\x1a\n")
            for kind, data in chunks:
                check = struct.pack(">I", zlib.crc32(kind + data))
                file.write(struct.pack(">I", len(data)) + kind + data + check)
        target.commit()
    finally:
        target.discard()
