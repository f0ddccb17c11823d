"""Arrays that are not NumPy's, for tests of what the ops take."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


class Exchanged:
    """A NumPy array that can only be had by DLPack; `legacy` exchanges it as before DLPack 1."""

    def __init__(self, array: np.ndarray[Any, Any], *, legacy: bool = False) -> None:
        self.array = array
        self._legacy = legacy

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()

    def __dlpack__(self, *, stream: int | None = None, **options: Any) -> Any:
        if self._legacy and options:
            raise TypeError("unexpected keyword arguments")
        return self.array.__dlpack__(stream=stream, **options)


class OnDevice:
    """An array that says it is on a CUDA device; where there is none, nobody may ask for more."""

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)

    def __dlpack__(self, **options: Any) -> Any:
        raise AssertionError("memory of a device that is not there was asked for")
