"""What the machine can do at most, to run in turn with the ops: copying and multiplying."""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

_FLAGS = ["-std=c++20", "-O3", "-march=native", "-ffp-contract=fast"]
# Else the plain copy becomes memcpy, which may stream.
_FLAGS += ["-fno-tree-loop-distribute-patterns"]
_FLAGS += ["-shared", "-fPIC", "-pthread"]


def copy(nbytes: int, threads: int, *, streaming: bool = False) -> Callable[[], None]:
    """A function that copies memory, as fast as `threads` can.

    Args:
        nbytes: Bytes it moves in all, half of them read and half written: what the op it is
            compared with reads and writes at least.
        threads: Threads, the caller's included.
        streaming: Whether to store past the caches, and not plainly.

    Returns:
        The function, whose own buffers are as warm as those of any other in a comparison.
    """
    library, pool = _library(), _pool(threads)
    source, target = np.ones(nbytes // 2, np.uint8), np.zeros(nbytes // 2, np.uint8)

    def run() -> None:
        library.limits_copy(pool, source.ctypes, target.ctypes, source.size, streaming)

    run()
    if not np.array_equal(source, target):
        raise AssertionError("limits: the copy is not one")
    return run


def multiply(flops: float, threads: int, *, dtype: str = "float32") -> Callable[[], None]:
    """A function that does `flops` operations on registers, a multiply-add being two.

    Args:
        flops: Operations: what the op it is compared with does.
        threads: Threads, the caller's included.
        dtype: "float32", or "bfloat16" for products of pairs added to float32.

    Raises:
        OSError: The machine has no bfloat16 unit.
    """
    library, pool = _library(), _pool(threads)
    bfloat16 = dtype == "bfloat16"
    if not library.limits_multiply(pool, 0.0, bfloat16):
        raise OSError("limits: this machine has no bfloat16 unit")
    return lambda: library.limits_multiply(pool, flops, bfloat16)


@functools.cache
def _library() -> ctypes.CDLL:
    source = Path(__file__).with_suffix(".cc")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "limits.so"
        compiler = os.environ.get("CXX", "c++")
        subprocess.run([compiler, *_FLAGS, str(source), "-o", str(path)], check=True)
        library = ctypes.CDLL(str(path))
    pointer = ctypes.c_void_p
    library.limits_pool.argtypes, library.limits_pool.restype = [ctypes.c_int], pointer
    library.limits_copy.argtypes = [pointer, pointer, pointer, ctypes.c_size_t, ctypes.c_int]
    library.limits_copy.restype = None
    library.limits_multiply.argtypes = [pointer, ctypes.c_double, ctypes.c_int]
    library.limits_multiply.restype = ctypes.c_bool
    return library


@functools.cache
def _pool(threads: int) -> int:
    return int(_library().limits_pool(threads))
