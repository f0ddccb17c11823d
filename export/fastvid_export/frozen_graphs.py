"""TensorFlow's frozen graphs (`.pb`), as far as networks of plain convolutions need them.

A GraphDef is a list of nodes; weights are `Const` nodes that hold a TensorProto. The file is read
with fastvid's own protobuf reader; nothing in it is run. Field numbers: tensorflow/core/framework,
graph.proto, node_def.proto, attr_value.proto, tensor.proto.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvid.backends._protobuf import fields
from fastvid_export.errors import CheckpointError

_FLOAT = 1
_LIMIT = 256 << 20


@dataclass
class FrozenGraph:
    """What a frozen graph holds."""

    operators: tuple[str, ...] = ()
    """Of its nodes in order, constants and transpositions left out."""
    constants: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    """Float constants with at least one axis, by name."""
    scalars: Mapping[str, float] = field(default_factory=dict)


def read(path: Path) -> FrozenGraph:
    """The operators and the float constants of a frozen graph.

    Raises:
        CheckpointError: The file is none, or is damaged.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"checkpoint: {path} cannot be read: {error.strerror}") from None
    if len(data) > _LIMIT:
        raise CheckpointError(
            f"checkpoint: {path} must have at most {_LIMIT} bytes, got {len(data)}"
        )
    operators: list[str] = []
    constants: dict[str, NDArray[np.float32]] = {}
    scalars: dict[str, float] = {}
    try:
        for name, operator, tensor in _nodes(data):
            if operator != "Const":
                operators.append(operator)
            elif (value := _tensor(tensor)) is not None:
                if value.ndim:
                    constants[name] = value
                else:
                    scalars[name] = float(value)
    except (ValueError, IndexError, TypeError) as error:
        raise CheckpointError(f"checkpoint: {path} must be a frozen graph: {error}") from None
    if not operators or not constants:
        raise CheckpointError(f"checkpoint: {path} must be a frozen graph with weights inside")
    kept = tuple(op for op in operators if op not in ("Placeholder", "Transpose", "Identity"))
    return FrozenGraph(kept, constants, scalars)


def _nodes(data: bytes) -> Iterator[tuple[str, str, Any]]:
    """Name, operator and value of each node."""
    for number, _, node, _ in fields(memoryview(data)):
        if number != 1 or not isinstance(node, memoryview):
            continue
        name = operator = ""
        tensor = None
        for part, _, value, _ in fields(node):
            if part == 1 and isinstance(value, memoryview):
                name = str(value, "utf-8")
            elif part == 2 and isinstance(value, memoryview):
                operator = str(value, "utf-8")
            elif part == 5 and isinstance(value, memoryview):
                entry = {key: item for key, _, item, _ in fields(value)}
                if isinstance(entry.get(1), memoryview) and bytes(entry[1]) == b"value":
                    tensor = _field(entry[2], 8)
        yield name, operator, tensor


def _field(message: Any, number: int) -> Any:
    return next((value for key, _, value, _ in fields(message) if key == number), None)


def _tensor(message: Any) -> NDArray[np.float32] | None:
    """A float tensor; None for other types."""
    if message is None or _field(message, 1) != _FLOAT:
        return None
    described = _field(message, 2)
    dims = [] if described is None else [v for k, _, v, _ in fields(described) if k == 2]
    shape = [int(_field(dim, 1) or 0) for dim in dims]
    # Content as bytes, or numbers, or one number for all of the tensor, which is left out if 0.
    raw = next((r for r in (_field(message, 4), _field(message, 5)) if r is not None), bytes(4))
    value = np.frombuffer(raw, "<f4")
    if value.size == 1:
        return np.full(shape, value[0], np.float32)
    if value.size != math.prod(shape):
        raise ValueError(f"a tensor of shape {shape} must have as many values, got {value.size}")
    return value.reshape(shape).astype(np.float32)
