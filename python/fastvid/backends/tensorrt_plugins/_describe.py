"""What TensorRT is told of one plugin."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
    """One ONNX operator, with some of its optional inputs, as TensorRT takes it."""

    name: str
    """TensorRT's: that of the node with its optional inputs appended."""
    node: str
    """The ONNX operator."""
    op: str
    """The op, in `fastvid.ops`."""
    kernels: str
    """The file of its PTX."""
    inputs: tuple[str, ...]
    results: Results
    kernel: Callable[[Any, Sequence[Any], Mapping[str, Any]], Kernel]
    attributes: Mapping[str, int | float | str] = field(default_factory=dict)
    """Values where a node has none; plugins hold them as text."""
    all_inputs: tuple[str, ...] = ()
    """Those of the ONNX operator where they are more."""
    only: Mapping[str, int] = field(default_factory=dict)
    """Attributes of the node that this plugin is for."""
    outputs: int = 1
    dtypes: tuple[str, ...] = FLOATS
    """Of the first input."""
    levels_in: tuple[str, ...] = ()
    """Inputs that are uint8 for the op: floats that hold its levels here."""
    levels_out: bool = False
    """Whether the output is uint8 for the op, likewise."""

    def matches(self, node: str, present: Sequence[bool], attributes: Mapping[str, Any]) -> bool:
        """Whether this is the plugin of a node with these inputs and attributes."""
        names = self.all_inputs or self.inputs
        given = tuple(n for n, here in zip(names, present, strict=False) if here)
        return (
            node == self.node
            and given == self.inputs
            and all(attributes.get(name, 0) == value for name, value in self.only.items())
        )


def constant(op: str, name: str, size: Sizes) -> int:
    """A size that must be known when the engine is built."""
    if isinstance(size, int):
        return size
    if not size.is_constant:
        raise UnsupportedModelError(f"tensorrt: {name} of {op} must be fixed in the graph")
    return int(size.constant_value())
