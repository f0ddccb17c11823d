"""Colour, downscaling and warps in standard operators; the formulas are those of `ops/*.h`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto

from fastvid_export.convert.standard.builder import Builder

Attributes = Mapping[str, Any]
Inputs = Sequence[str]

_FIRST, _LAST = (0, 3, 1, 2), (0, 2, 3, 1)


def rgb_to_planar(b: Builder, inputs: Inputs, attributes: Attributes) -> list[str]:
    """`frames` uint8 (N, H, W, 3) to float32 (N, 3, H, W) in [0, 1]."""
    planes = b.cast(b.transpose(inputs[0], *_FIRST))
    return [b.op("Div", planes, b.const(255))]


def planar_to_rgb(b: Builder, inputs: Inputs, attributes: Attributes) -> list[str]:
    """The other way, clamped and rounded half to even."""
    levels = b.op("Mul", b.clip(b.no_nan(inputs[0]), b.const(0), b.const(1)), b.const(255))
    rounded = b.cast(b.op("Round", levels), TensorProto.UINT8)
    return [b.transpose(rounded, *_LAST)]


def rgb_to_luma(b: Builder, inputs: Inputs, attributes: Attributes) -> list[str]:
    """BT.601 luma (N, 1, H, W), and chroma (N, 2, H, W), blue first."""
    (planes,) = rgb_to_planar(b, inputs, attributes)
    red, green, blue = (b.part(planes, 1, i, i + 1) for i in range(3))
    luma = b.op(
        "Add",
        b.op("Add", b.op("Mul", red, b.const(0.299)), b.op("Mul", green, b.const(0.587))),
        b.op("Mul", blue, b.const(0.114)),
    )
    chroma = b.op(
        "Concat",
        b.op("Div", b.op("Sub", blue, luma), b.const(1.772)),
        b.op("Div", b.op("Sub", red, luma), b.const(1.402)),
        axis=1,
    )
    return [luma, chroma]


def luma_to_rgb(b: Builder, inputs: Inputs, attributes: Attributes) -> list[str]:
    """Frames of luma's size; chroma is resized bilinearly."""
    luma, chroma = inputs
    sizes = b.op(
        "Concat", b.op("Shape", chroma, start=0, end=2), b.op("Shape", luma, start=2, end=4), axis=0
    )
    large = _resize(b, chroma, sizes=sizes)
    blue = b.op("Mul", b.part(large, 1, 0, 1), b.const(1.772))
    red = b.op("Mul", b.part(large, 1, 1, 2), b.const(1.402))
    parts = b.op("Add", b.op("Mul", blue, b.const(0.114)), b.op("Mul", red, b.const(0.299)))
    green = b.op("Sub", luma, b.op("Div", parts, b.const(0.587)))
    planes = [b.op("Add", luma, red), green, b.op("Add", luma, blue)]
    return planar_to_rgb(b, [b.op("Concat", *planes, axis=1)], {})


def downscale(b: Builder, inputs: Inputs, attributes: Attributes) -> list[str]:
    """Means of square blocks."""
    factor = int(attributes.get("factor", 2))
    return [b.op("AveragePool", inputs[0], kernel_shape=[factor] * 2, strides=[factor] * 2)]


def _resize(b: Builder, x: str, *, scales: str = "", sizes: str = "") -> str:
    """Bilinear, pixel centres at halves."""
    return str(
        b.op(
            "Resize",
            *([x, "", scales] if scales else [x, "", "", sizes]),
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        )
    )


def _full_size(b: Builder, field: str, image: str) -> str:
    """A flow or mask at the size of its image, which is 1, 2, 4 or 8 times its own, rounded up."""
    ratios = [
        b.op("Div", b.cast(b.size(image, axis)), b.cast(b.size(field, axis))) for axis in (2, 3)
    ]
    ratio = b.op("Max", *ratios)
    factor = b.const([8])
    for smaller in (4, 2, 1):
        fits = b.op("Less", ratio, b.const([smaller + 0.001]))
        factor = b.op("Where", fits, b.const([smaller]), factor)
    ones = b.const(np.ones(2))
    large = _resize(b, field, scales=b.op("Concat", ones, factor, factor, axis=0))
    # A size that is no multiple leaves rows and columns over.
    ends = b.op("Shape", image, start=2, end=4)
    return str(b.op("Slice", large, b.ints(0, 0), ends, b.ints(2, 3)))


def positions(b: Builder, image: str) -> tuple[str, str]:
    """float32 (1, 1, W) and (1, H, 1): the column and row of each pixel."""
    found = []
    for axis, around in ((3, (0, 1)), (2, (0, 2))):
        count = b.scalar_size(image, axis)
        steps = b.op("Range", b.const(0, np.int64), count, b.const(1, np.int64))
        found.append(b.op("Unsqueeze", b.cast(steps), b.ints(*around)))
    return found[0], found[1]


def _warped(b: Builder, image: str, flow: str, zeros: bool) -> str:
    """`image` (N, C, H, W) read where `flow` (N, 2, H, W) points."""
    flow = b.no_nan(flow)
    columns, rows = positions(b, image)
    dx, dy = (b.op("Squeeze", b.part(flow, 1, i, i + 1), b.ints(1)) for i in range(2))
    return b.sample(image, b.op("Add", columns, dx), b.op("Add", rows, dy), zeros=zeros)


def warp(
    b: Builder, inputs: Inputs, attributes: Attributes, *, dtype: int = TensorProto.FLOAT
) -> list[str]:
    """Backward bilinear warp; see `ops/warp.h`."""
    image, flow = inputs
    last = bool(attributes.get("channels_last", 0))
    planes = b.transpose(image, *_FIRST) if last else image
    if dtype != TensorProto.FLOAT:
        planes = b.cast(planes)
    out = _warped(b, planes, _full_size(b, flow, planes), bool(attributes.get("zeros", 0)))
    if dtype != TensorProto.FLOAT:
        out = b.cast(b.op("Round", out) if dtype == TensorProto.UINT8 else out, dtype)
    return [b.transpose(out, *_LAST) if last else out]


def warp_blend(b: Builder, inputs: Inputs, attributes: Attributes) -> list[str]:
    """Two warps, blended by the sigmoid of a mask; see `ops/warp_blend.h`."""
    image0, image1, flow, mask, *rest = inputs
    share = b.op("Sigmoid", _full_size(b, mask, image0))
    flow = _full_size(b, flow, image0)
    first = _warped(b, image0, b.part(flow, 1, 0, 2), False)
    second = _warped(b, image1, b.part(flow, 1, 2, 4), False)
    blend = b.op("Add", second, b.op("Mul", share, b.op("Sub", first, second)))
    if rest and rest[0]:
        blend = b.op("Add", blend, rest[0])
    if attributes.get("output_uint8", 0):
        return planar_to_rgb(b, [blend], {})
    return [b.clip(blend, b.const(0), b.const(1))]
