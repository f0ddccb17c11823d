"""Pieces of a frame that overlap, so that together they give what the whole would."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from fastvid.errors import InputError


@dataclass(frozen=True)
class Span:
    """A piece along one side of a frame, in pixels."""

    first: int
    """Where what the network sees begins."""
    last: int
    """Where it ends."""
    begin: int
    """Where what is taken of the result begins."""
    end: int
    """Where it ends."""


def spans(length: int, size: int, reach: int, unit: int) -> list[Span]:
    """Pieces of one length that cover a side, as short as their number allows.

    Args:
        length: Pixels of the side, a multiple of `unit`.
        size: Most pixels that a piece sees.
        reach: How far a pixel of the result looks, in pixels.
        unit: Pieces begin and end at multiples of it, so that the network's own blocks stay.

    Raises:
        InputError: A piece would see nothing but its overlap.
    """
    size = size // unit * unit
    if size >= length:
        return [Span(0, length, 0, length)]
    margin = math.ceil(reach / unit) * unit
    if size < 2 * margin + unit:
        raise InputError(
            f"tile: argument must be at least {2 * margin + unit} for this model, which looks "
            f"{reach} pixels far, got {size}"
        )
    count = math.ceil((length - 2 * margin) / (size - 2 * margin))
    size = math.ceil((length + 2 * margin * (count - 1)) / count / unit) * unit
    result = []
    begin = first = 0
    while first + size < length:
        end = first + size - margin
        result.append(Span(first, first + size, begin, end))
        begin, first = end, end - margin
    result.append(Span(length - size, length, begin, length))
    return result


def equal_spans(length: int, size: int, reach: int, unit: int) -> list[Span]:
    """Pieces that all see `size` pixels, spread evenly, each taken up to the middle of overlaps.

    Args:
        length: Pixels of the side, at least `size`; both are multiples of `unit`.
        size: Pixels that each piece sees, more than `reach` to both sides of a unit.
        reach: How far a pixel of the result looks, in pixels.
        unit: Pieces begin at multiples of it.
    """
    step = size - 2 * math.ceil(reach / unit) * unit
    count = math.ceil((length - size) / step)
    firsts = [(length - size) * i // max(count, 1) // unit * unit for i in range(count + 1)]
    cuts = [b + (a + size - b) // 2 for a, b in itertools.pairwise(firsts)]
    ends = zip([0, *cuts], [*cuts, length], strict=True)
    return [Span(a, a + size, *end) for a, end in zip(firsts, ends, strict=True)]


def fitting(height: int, width: int, pixels: int, reach: int, unit: int) -> tuple[int, int] | None:
    """Height and width of pieces of at most `pixels` that waste little on overlap.

    Rows as wide as the frame where they are high enough, else squares.

    Returns:
        None if no piece fits.
    """
    least = 2 * math.ceil(reach / unit) * unit + unit
    rows = pixels // width // unit * unit
    if rows >= min(2 * least, height):
        return min(rows, height), width
    side = math.isqrt(pixels) // unit * unit
    if side < least:
        return None
    columns = min(side, width)
    return min(pixels // columns // unit * unit, height), columns
