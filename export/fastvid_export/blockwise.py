"""Weights in blocks of few bits, as onnxruntime's `MatMulNBits` reads them.

A row of a linear layer's weight is cut into blocks; each has a scale, by which its largest value is
the lowest integer: `w = (q - 2 ** (bits - 1)) * scale`. onnxruntime rounds what the layer reads to
int8 as well, block by block, and multiplies integers (`accuracy_level` 4).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor

from fastvid_export.weight_files import Weights
from fastvid_export.weight_store import Place, WeightStore

DOMAIN = "com.microsoft"
BITS: Mapping[str, int] = {"int8": 8, "int4": 4}
BLOCK: Mapping[int, int] = {8: 128, 4: 32}
"""Weights of a block by their bits: few bits need a scale of their own for fewer values."""
_ACCURACY = 4
_ROWS = 1024


@dataclass(frozen=True)
class Blocks:
    """A weight in blocks."""

    rows: int
    depth: int
    bits: int
    values: Place
    scales: Place

    @property
    def places(self) -> list[Place]:
        """Where its parts lie."""
        return [self.values, self.scales]

    def tensors(self, name: str) -> list[onnx.TensorProto]:
        """Its parts as weights of a graph."""
        block = BLOCK[self.bits]
        count = -(-self.depth // block)
        shape = [self.rows, count, block * self.bits // 8]
        return [
            _external(f"{name}.blocks", TensorProto.UINT8, shape, self.values),
            _external(f"{name}.scales", TensorProto.FLOAT, [self.rows, count], self.scales),
        ]

    def node(self, linear: onnx.NodeProto) -> onnx.NodeProto:
        """What takes the place of a `Linear` node."""
        x, name, *bias = linear.input
        return helper.make_node(
            "MatMulNBits",
            [x, f"{name}.blocks", f"{name}.scales", "", "", *bias],
            list(linear.output),
            name=linear.name,
            domain=DOMAIN,
            K=self.depth,
            N=self.rows,
            bits=self.bits,
            block_size=BLOCK[self.bits],
            accuracy_level=_ACCURACY,
        )


def block_bytes(rows: int, depth: int, bits: int) -> int:
    """Bytes of a weight in blocks."""
    count = -(-depth // BLOCK[bits])
    return rows * count * (BLOCK[bits] * bits // 8 + 4)


def write_blocks(store: WeightStore, graph: str, weights: Weights, name: str, bits: int) -> Blocks:
    """Writes one weight in blocks, some rows at a time.

    Args:
        store: Takes it.
        graph: Whose file it goes to.
        weights: Holds the weight, (rows, depth).
        name: Of the weight.
        bits: 4 or 8.
    """
    weight = weights.read(name)
    rows, depth = weight.shape
    scales: list[Tensor] = []

    def values() -> Iterator[memoryview]:
        for first in range(0, rows, _ROWS):
            packed, scale = quantise(weight[first : first + _ROWS].float(), bits)
            scales.append(scale)
            yield memoryview(packed.flatten().numpy())

    nbytes = block_bytes(rows, depth, bits)
    count = rows * (-(-depth // BLOCK[bits]))
    placed = store.append(graph, values(), nbytes - 4 * count)
    return Blocks(rows, depth, bits, placed, store.write(graph, torch.cat(scales)))


def quantise(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Integers and scales of some rows.

    Args:
        weight: float32 (rows, depth).
        bits: 4 or 8.

    Returns:
        uint8 (rows, blocks, block * bits / 8), of 4 bits the first value in the lower half; and
        float32 (rows, blocks).
    """
    block, half = BLOCK[bits], 1 << (bits - 1)
    rows, depth = weight.shape
    padded = torch.nn.functional.pad(weight, (0, -depth % block)).reshape(rows, -1, block)
    at = padded.abs().argmax(2, keepdim=True)
    scale = padded.gather(2, at) / -half
    safe = torch.where(scale == 0, 1, scale)
    numbers = (padded / safe).round().add(half).clamp(0, 2 * half - 1).to(torch.uint8)
    if bits == 4:
        numbers = numbers[..., 0::2] | (numbers[..., 1::2] << 4)
    return numbers.contiguous(), scale.squeeze(2)


def _external(name: str, kind: int, shape: list[int], place: Place) -> onnx.TensorProto:
    tensor = onnx.TensorProto(name=name, data_type=kind, dims=shape)
    point(tensor, place)
    return tensor


def point(tensor: onnx.TensorProto, place: Place) -> None:
    """Makes a tensor one that lies in a file."""
    tensor.ClearField("raw_data")
    for values in (tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.external_data):
        del values[:]
    tensor.data_location = TensorProto.EXTERNAL
    named = {"location": place.location, "offset": place.offset, "length": place.length}
    for key, value in named.items():
        tensor.external_data.add(key=key, value=str(value))
