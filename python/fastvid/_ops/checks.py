"""What the public ops check of arguments that are not arrays."""

from __future__ import annotations

import math
from typing import Any

from fastvid.errors import InputError, InputTypeError

MAX_THREADS = 256


def threads_of(op: str, threads: int | None) -> int:
    """The number of threads as the compiled ops take it: 0 is the default."""
    if threads is None:
        return 0
    if isinstance(threads, bool) or not isinstance(threads, int):
        raise InputTypeError(f"{op}: threads must be an int or None, got {type(threads).__name__}")
    if not 1 <= threads <= MAX_THREADS:
        raise InputError(f"{op}: threads must be from 1 to {MAX_THREADS}, got {threads}")
    return threads


def choice(op: str, name: str, value: str, allowed: tuple[str, ...]) -> str:
    """Checks that a str is one of those allowed, and returns it."""
    if not isinstance(value, str):
        raise InputTypeError(f"{op}: {name} must be a str, got {type(value).__name__}")
    if value not in allowed:
        raise InputError(f"{op}: {name} must be one of {', '.join(allowed)}, got {value!r}")
    return value


def is_wide(op: str, dtype: str) -> bool:
    """Whether frames have 16 bits a sample."""
    return choice(op, "dtype", dtype, ("uint8", "uint16")) == "uint16"


def integer(op: str, name: str, value: int, low: int, high: int) -> None:
    """Checks that an int is in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputTypeError(f"{op}: {name} must be an int, got {type(value).__name__}")
    if not low <= value <= high:
        raise InputError(f"{op}: {name} must be from {low} to {high}, got {value}")


def number(op: str, name: str, value: float) -> float:
    """Checks that a number is real and finite, and returns it as a float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputTypeError(f"{op}: {name} must be a number, got {type(value).__name__}")
    if not math.isfinite(value):
        raise InputError(f"{op}: {name} must be finite, got {value}")
    return float(value)


def outputs(op: str, out: Any, count: int) -> tuple[Any, ...]:
    """The arrays to write to, each None where they are to be allocated."""
    if out is None:
        return (None,) * count
    if not isinstance(out, tuple):
        raise InputTypeError(
            f"{op}: out must be a tuple of {count} arrays or None, got {type(out).__name__}"
        )
    if len(out) != count:
        raise InputError(f"{op}: out must be a tuple of {count} arrays, got {len(out)}")
    return out
