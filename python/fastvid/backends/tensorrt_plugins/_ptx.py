"""PTX as text: the constants of a module that stand for a node's attributes."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping

from fastvid.errors import UnsupportedModelError


def with_constants(ptx: str, values: Mapping[str, int | float]) -> str:
    """Writes values into 32-bit constants of a module.

    Args:
        ptx: The text of the module.
        values: By the constant's name: an int or a float, as the constant is.

    Raises:
        UnsupportedModelError: The module has no such constant, or one of another type.
    """
    for name, value in values.items():
        match = re.search(rf"\.const \.align 4 \.(u32|s32|f32) {name}(?: = [^;]+)?;", ptx)
        if match is None or (match[1] == "f32") != isinstance(value, float):
            raise UnsupportedModelError(
                f"tensorrt: the kernel must have a constant {name} of type "
                f"{type(value).__name__}, got {match[0] if match else 'none'}"
            )
        literal = str(value)
        if isinstance(value, float):
            literal = "0f" + struct.pack(">f", value).hex().upper()
        line = f".const .align 4 .{match[1]} {name} = {literal};"
        ptx = ptx[: match.start()] + line + ptx[match.end() :]
    return ptx
