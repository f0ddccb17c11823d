"""Matrix products with the weights of a checkpoint in standard operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onnx import TensorProto

from fastvid_export.convert.standard.builder import Builder


def linear(b: Builder, inputs: Sequence[str], attributes: Mapping[str, Any]) -> list[str]:
    """X (..., K) times the transpose of weight (N, K), and bias (N)."""
    x, weight, bias = [*inputs, ""][:3]
    if attributes.get("bfloat16", 0):
        x, weight = (b.op("Cast", value, to=TensorProto.BFLOAT16) for value in (x, weight))
        x = b.op("Cast", x, to=TensorProto.FLOAT)
    wide = b.op("Cast", weight, to=TensorProto.FLOAT)
    product = b.op("MatMul", x, b.transpose(wide, 1, 0))
    return [b.op("Add", product, bias) if bias else product]
