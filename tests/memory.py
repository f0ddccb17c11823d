"""Memory of which no byte before or after an array can be touched, and huge arrays at no cost."""

from __future__ import annotations

import ctypes
import math
import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
_PAGE = mmap.PAGESIZE
_NO_RESERVE = 0x4000
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def guarded(shape: Sequence[int], dtype: np.dtype[Any], *, at_end: bool = True) -> Array:
    """An array of zeros that ends (or starts) where the memory that may be touched does.

    A touch beyond kills the process, which no test survives unnoticed; where it starts, so does
    one before it.
    """
    size = math.prod(shape) * dtype.itemsize
    pages = max(1, -(-size // _PAGE))
    memory = mmap.mmap(-1, (pages + 2) * _PAGE)
    whole = np.frombuffer(memory, np.uint8)
    for guard in (0, pages + 1):
        if _libc.mprotect(whole.ctypes.data + guard * _PAGE, _PAGE, 0) != 0:
            raise OSError(ctypes.get_errno(), "mprotect failed")
    first = _PAGE + (pages * _PAGE - size if at_end else 0)
    return whole[first : first + size].view(dtype).reshape(tuple(shape))


def guarded_copy(array: Array, *, at_end: bool = True) -> Array:
    """A C-contiguous copy of an array in guarded memory."""
    copy = guarded(array.shape, array.dtype, at_end=at_end)
    copy[...] = array
    return copy


def huge(shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
    """A C-contiguous array of zeros of any size: pages take memory once they are written."""
    size = math.prod(shape) * dtype.itemsize
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE
    memory = mmap.mmap(-1, max(1, size), flags=flags)
    return np.frombuffer(memory, np.uint8, size).view(dtype).reshape(tuple(shape))
