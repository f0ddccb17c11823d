"""What TensorRT is told of one plugin."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastvid.errors import UnsupportedModelError

NAMESPACE = "fastvid"
FLOATS = ("f32", "f16", "bf16")
THREADS = 256
"""Threads of a block, unless the kernel says otherwise."""

Sizes = Any
"""A size of a tensor as TensorRT has it while it builds: a symbolic integer, or an int."""
Results = Callable[[Any, Any, Sequence[Any], Mapping[str, Any]], list[Any]]
"""From `tensorrt.plugin`, `tensorrt`, input descriptors and attributes to output descriptors."""


@dataclass(frozen=True)
class Kernel:
    """One launch: what a plugin runs for given inputs and attributes."""

    name: str
    """Of the entry in the PTX, without the dtype at its end."""
    blocks: Sizes
    arguments: tuple[Sizes, ...]
    """32-bit integers between the inputs and the outputs."""
    constants: Mapping[str, int | float]
    """Values of the module's constants."""
    threads: int = THREADS


@dataclass(frozen=True)
class Plugin:
    """One ONNX operator as TensorRT takes it."""

    name: str
    """The ONNX operator, with its optional inputs appended: TensorRT has none."""
    op: str
    """The op, in `fastvid.ops`."""
    op_file: str
    """Its PTX."""
    inputs: tuple[str, ...]
    results: Results
    kernel: Callable[[Any, Sequence[Any], Mapping[str, Any]], Kernel]
    attributes: Mapping[str, type]
    """Names and types; the node holds them as text."""
    outputs: int = 1
    dtypes: tuple[str, ...] = FLOATS
    """Of the first input."""
    levels_in: tuple[str, ...] = ()
    """Inputs that are uint8 for the op: floats holding its levels here."""
    levels_out: bool = False
    """Whether the output is uint8 for the op, likewise."""


def constant(op: str, name: str, size: Sizes) -> int:
    """A size that must be known when the engine is built."""
    if isinstance(size, int):
        return size
    if not size.is_constant:
        raise UnsupportedModelError(f"tensorrt: {name} of {op} must be fixed in the graph")
    return int(size.constant_value())
