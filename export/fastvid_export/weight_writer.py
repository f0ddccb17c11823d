"""Writing safetensors files one tensor at a time, so that a large one needs little memory."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from fastvid.bundle import output_error
from fastvid_export.weight_files import DTYPES

_NAMES = {dtype: name for name, dtype in DTYPES.items()}

Shapes = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]


def write(path: str | os.PathLike[str], tensors: Shapes, make: Callable[[str], Tensor]) -> None:
    """Writes a safetensors file.

    Args:
        path: The file; it appears when it is whole.
        tensors: Dtype and shape of each tensor by its name.
        make: Gives the tensor of a name; called once for each.

    Raises:
        OutputError: The file cannot be written.
    """
    header, end = {}, 0
    # Large elements first keeps every tensor aligned to its own.
    order = sorted(tensors, key=lambda name: (-tensors[name][0].itemsize, name))
    for name in order:
        dtype, shape = tensors[name]
        begin, end = end, end + math.prod(shape) * dtype.itemsize
        entry = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
        header[name] = entry
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.urandom(6).hex()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for name in order:
                file.write(_bytes(make(name), *tensors[name]))
        temporary.rename(target)
    except OSError as error:
        raise output_error(f"weights: {str(target)!r}", error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _bytes(tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> memoryview:
    flat = tensor.to(dtype).reshape(shape).contiguous().flatten()
    return memoryview(flat.view(torch.uint8).numpy())
