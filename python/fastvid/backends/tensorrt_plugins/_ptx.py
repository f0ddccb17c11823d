"""PTX as text: one kernel of a module, and the constants that stand for a node's attributes."""

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


def with_entry(ptx: str, entry: str) -> str:
    """A module with one kernel of those it has, so that TensorRT compiles no other.

    Raises:
        UnsupportedModelError: The module has no such kernel.
    """
    head, *entries = re.split(r"^(?=\.visible \.entry )", ptx, flags=re.MULTILINE)
    kept = [head]
    found = False
    for text in entries:
        # What follows a kernel's end belongs to the module: variables of the next one.
        body, end, rest = text.partition("\n}\n")
        if re.match(rf"\.visible \.entry {entry}\(", body):
            kept.append(body + end)
            found = True
        kept.append(rest)
    if not found:
        raise UnsupportedModelError(f"tensorrt: the kernel {entry} must be in the module")
    return "".join(kept)
