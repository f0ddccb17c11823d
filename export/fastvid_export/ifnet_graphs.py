"""The graphs of an IFNet: what `models.ifnet.IFNet` computes, in fewer passes over memory.

They are written node by node, which takes no tracing and joins weights on the way:

- A convolution scaled by `beta` and added to what it read is one convolution: `beta` scales its
  weights, and the identity is added to their centre.
- A transposed convolution, and the pixel shuffle after it, is a convolution and one larger shuffle.
- Both frames move in one node: they lie one behind the other, each with its features, so that
  flows to the one and to the other are a batch of two.
- A block's first convolution is linear in its input. Where that has 16 channels or more, it is
  several convolutions that are added: of what was warped, of flow and time, of what the block
  before gave. Nothing is joined at full size, and each reads less than 16 channels where it can,
  which onnxruntime takes as they lie.
- Pixels between samples are not made to be thrown away: a field at 1/8 that is wanted at 1/4 is
  enlarged by 2, which gives what enlarging by 8 and shrinking by 4 gives. (Shrinking bilinearly by
  an even number is the mean of two neighbours in each direction, which lie between the same two
  samples of the field.)
- Flow is kept in pixels of the frame; what a block divides or multiplies is in its weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import nn

from fastvid_export.convert.standard.builder import Builder
from fastvid_export.models.ifnet import SLOPE, IFBlock, IFNet, IFNetOptions, ResidualConv
from fastvid_export.onnx import OPSET, Port

Array = NDArray[np.float32]

DIRECT = 16
"""Fewer channels than this onnxruntime reads as planes; more should be a multiple of 4."""
_FRAME = ("N", "H", "W", 3)
_IMAGE = ("N", 3, "H", "W")
_IR_VERSION = 10
_ELEMENTS = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8}

FRAMES = (Port("frame0", "uint8", _FRAME), Port("frame1", "uint8", _FRAME))
"""Inputs of `motion`."""
RESULT = Port("frame", "uint8", _FRAME)
"""Output of `between`."""


def source_channels(options: IFNetOptions) -> int:
    """Channels of a frame with its features and, where that helps, channels of zeros."""
    channels = 3 + (options.encoder.features if options.encoder else 0)
    return channels if 2 * channels < DIRECT else channels + channels % 2


def features(options: IFNetOptions) -> tuple[Port, ...]:
    """What `motion` gives and `between` takes.

    image0, image1: the frames. pair: of each frame the image, its features and zeros. coarse:
    `pair` at the scale of the first block.
    """
    channels = 2 * source_channels(options)
    return (
        Port("image0", "float32", _IMAGE, (0.0, 1.0)),
        Port("image1", "float32", _IMAGE, (0.0, 1.0)),
        Port("pair", "float32", ("N", channels, "H", "W")),
        Port("coarse", "float32", ("N", channels, "h", "w")),
    )


def between_inputs(options: IFNetOptions) -> tuple[Port, ...]:
    """Those features and the time."""
    return (*features(options), Port("timestep", "float32", ("N",), (0.0, 1.0)))


def motion(net: IFNet) -> onnx.ModelProto:
    """What two frames share over all times between them."""
    b = _Graph("motion")
    images = [b.ours("RgbToPlanar", port.name) for port in FRAMES]
    sources: list[str] = []
    for image in images:
        sources.append(image)
        if net.options.encoder is not None:
            sources.append(_encoded(b, net, image))
    pair = b.op("Concat", *sources, axis=1)
    coarse = b.smaller(pair, net.options.scales[0])
    return b.model(FRAMES, features(net.options), [*images, pair, coarse])


def _encoded(b: _Graph, net: IFNet, image: str) -> str:
    """The features of an image, with channels of zeros as `source_channels` says."""
    layers = [m for m in net.encode.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert net.options.encoder is not None
    active = net.options.encoder.style != "pair"
    x = image
    for layer in layers[:-1]:
        weight, bias = _values(layer)
        x = b.conv(x, weight, bias, stride=layer.stride[0], active=active)
    weight, bias = upsampling(layers[-1], shuffle=1)
    zeros = 4 * (source_channels(net.options) - 3) - len(bias)
    weight, bias = np.pad(weight, ((0, zeros), (0, 0), (0, 0), (0, 0))), np.pad(bias, (0, zeros))
    return b.shuffled(b.conv(x, weight, bias), 2, len(bias) // 4)


def between(net: IFNet) -> onnx.ModelProto:
    """The frame at one time."""
    b = _Graph("between")
    o, blocks = net.options, net.blocks()
    channels = source_channels(o)
    sources = b.op("Reshape", "pair", b.ints(-1, channels, 0, 0))
    time = b.op("Unsqueeze", "timestep", b.ints(1, 2, 3))
    flows: list[tuple[str, int]] = []
    others: list[tuple[str, int]] = []
    flow = ""
    for index, block in enumerate(blocks):
        scale = block.scale
        if index == 0:
            parts = [b.op("Concat", "coarse", b.plane(time, "coarse"), axis=1)]
        else:
            fields = b.op("Reshape", flow, b.ints(-1, 2, 0, 0))
            warped = b.ours("Warp", sources, fields)
            warped = b.op("Reshape", warped, b.ints(-1, 2 * channels, 0, 0))
            seen = flow if scale == 1 else b.total(flows, scale)
            warped, plane = b.smaller(warped, scale), b.plane(time, seen)
            if o.adds_masks:
                parts = [b.op("Concat", warped, seen, b.total(others, scale), plane, axis=1)]
            else:
                parts = [warped, b.op("Concat", seen, plane, axis=1), b.at(others[-1], scale)]
        change, other = _block(b, o, block, index, parts)
        flows.append((change, block.stretch))
        others.append((other, block.stretch))
        change = b.larger(change, block.stretch)
        flow = change if index == 0 else b.op("Add", flow, change)
    mask = b.total(others, 1) if o.adds_masks else b.at(others[-1], 1)
    frame = b.ours("WarpBlend", "image0", "image1", flow, mask, output_uint8=1)
    return b.model(between_inputs(o), (RESULT,), [frame])


def _block(
    b: _Graph, o: IFNetOptions, block: IFBlock, index: int, parts: Sequence[str]
) -> tuple[str, str]:
    """What a block gives: the change of the flow in pixels of the frame; mask and features."""
    first, second = block.conv0[0][0], block.conv0[1][0]
    flow = range(first.in_channels - 4, first.in_channels)
    x = ""
    for number, (part, channels) in enumerate(zip(parts, part_channels(o, index), strict=True)):
        weight, bias = _values(first)
        weight = np.stack(
            [np.zeros_like(weight[:, 0]) if c is None else weight[:, c] for c in channels], 1
        )
        if index > 0:
            weight[:, [c in flow for c in channels]] /= block.scale
        read = b.conv(part, weight, bias if number == 0 else None, stride=2)
        x = b.op("Add", x, read) if x else read
    x = b.conv(b.active(x), *_values(second), stride=2, active=True)
    for layer in block.convblock:
        x = b.conv(x, *folded(layer), active=True, groups=o.groups)
    shuffle = 2 if o.shuffle else 1
    last = block.lastconv[0] if o.shuffle else block.lastconv
    weight, bias = upsampling(last, shuffle)
    factor, others = 2 * shuffle, 1 + (0 if index == len(o.widths) - 1 else o.carried)
    moved, kept = 4 * factor**2, (4 + others) * factor**2
    change = b.conv(x, weight[:moved] * block.stretch, bias[:moved] * block.stretch)
    other = b.conv(x, weight[moved:kept], bias[moved:kept])
    return b.shuffled(change, factor, 4), b.shuffled(other, factor, others)


def part_channels(o: IFNetOptions, index: int) -> list[list[int | None]]:
    """Which channels of an `IFBlock`'s input each part has; None is a channel of zeros.

    The block reads images, features, time, mask, what the block before handed on, and flow.
    """
    encoded = o.encoder.features if o.encoder else 0
    time = 6 + 2 * encoded
    sources: list[int | None] = []
    for frame in range(2):
        start = 6 + frame * encoded
        of_frame = [*range(3 * frame, 3 * frame + 3), *range(start, start + encoded)]
        sources += [*of_frame, *([None] * (source_channels(o) - len(of_frame)))]
    if index == 0:
        return [[*sources, time]]
    mask, end = time + 1, time + 2 + o.carried
    flow: list[int | None] = list(range(end, end + 4))
    if o.adds_masks:
        return [[*sources, *flow, mask, time]]
    return [sources, [*flow, time], list(range(mask, end))]


def folded(layer: nn.Module) -> tuple[Array, Array]:
    """Weight and bias of a convolution of a body, to be followed by the activation."""
    if not isinstance(layer, ResidualConv):
        return _values(layer[0])
    weight, bias = _values(layer.conv)
    beta = layer.beta.detach().numpy().reshape(-1)
    weight, bias = weight * beta[:, None, None, None], bias * beta
    channels = np.arange(len(bias))
    weight[channels, channels % weight.shape[1], 1, 1] += 1
    return weight, bias


def upsampling(up: nn.Module, shuffle: int) -> tuple[Array, Array]:
    """A transposed convolution and a pixel shuffle as a convolution (3, padding 1) and a shuffle.

    Row 2 y + a of the transposed convolution reads rows y - 1 and y (a = 0) or y and y + 1 (a = 1).

    Args:
        up: The transposed convolution (4, stride 2, padding 1).
        shuffle: Factor of the pixel shuffle after it; 1 is none.

    Returns:
        Weight and bias of the convolution; the shuffle is twice as large.
    """
    weight, bias = _values(up)
    inputs, r = weight.shape[0], shuffle
    outputs = weight.shape[1] // r**2
    # Result channel, row and column in the shuffle, input channel, kernel.
    weight = weight.reshape(inputs, outputs, r, r, 4, 4).transpose(1, 2, 3, 0, 4, 5)
    made = np.zeros((outputs, 2, r, 2, r, inputs, 3, 3), np.float32)
    taps = (((0, 3), (1, 1)), ((1, 2), (2, 0)))
    for a in range(2):
        for b in range(2):
            for y, from_y in taps[a]:
                for x, from_x in taps[b]:
                    made[:, a, :, b, :, :, y, x] = weight[..., from_y, from_x]
    biases = np.broadcast_to(bias.reshape(outputs, 1, r, 1, r), (outputs, 2, r, 2, r))
    return made.reshape(-1, inputs, 3, 3), biases.reshape(-1)


def _values(layer: Any) -> tuple[Array, Array]:
    return layer.weight.detach().numpy().copy(), layer.bias.detach().numpy().copy()


class _Graph(Builder):
    """A graph in the making, with the steps that these networks have."""

    def __init__(self, name: str) -> None:
        super().__init__(name, OPSET)
        self._name = name

    def ours(self, kind: str, *inputs: str, **attributes: int) -> str:
        """A node of fastvid's own."""
        return str(self.op(kind, *inputs, domain="fastvid", **attributes))

    def conv(
        self, x: str, weight: Array, bias: Array | None, *, stride: int = 1, active: bool = False,
        groups: int = 1,
    ) -> str:  # fmt: skip
        """A 3x3 convolution with padding 1, and the activation if it is wanted."""
        biases = () if bias is None else (self.const(bias),)
        made = self.op(
            "Conv", x, self.const(weight), *biases,
            kernel_shape=[3, 3], strides=[stride, stride], pads=[1, 1, 1, 1], group=groups,
        )  # fmt: skip
        return self.active(made) if active else str(made)

    def active(self, x: str) -> str:
        """LeakyReLU."""
        return str(self.op("LeakyRelu", x, alpha=SLOPE))

    def shuffled(self, x: str, factor: int, channels: int) -> str:
        """PyTorch's pixel shuffle to `channels`.

        By 2, pixels of a row are interleaved, then rows: onnxruntime does either on whole vectors,
        in two thirds of the time of DepthToSpace. By 4 that is no slower.
        """
        if factor > 2:
            return str(self.op("DepthToSpace", x, blocksize=factor, mode="CRD"))
        rows = self.size(x, 2)
        pixels = self.op("Reshape", x, self.ints(0, factor * channels, factor, -1))
        wide = self.op("Concat", self.ints(0, channels, factor), rows, self.ints(-1), axis=0)
        interleaved = self.op("Reshape", self.transpose(pixels, 0, 1, 3, 2), wide)
        tall = self.op("Mul", rows, self.ints(factor))
        shape = self.op("Concat", self.ints(0, channels), tall, self.ints(-1), axis=0)
        return str(self.op("Reshape", self.transpose(interleaved, 0, 1, 3, 2, 4), shape))

    def plane(self, value: str, like: str) -> str:
        """A plane (N, 1, h, w) of a value (N, 1, 1, 1)."""
        sides = self.op("Shape", like, start=2)
        return str(self.op("Expand", value, self.op("Concat", self.ints(1, 1), sides, axis=0)))

    def larger(self, x: str, factor: int) -> str:
        """Bilinear, pixel centres at halves."""
        return self._resized(x, float(factor)) if factor > 1 else x

    def smaller(self, x: str, factor: int) -> str:
        """The same, which is the mean of the four pixels in the middle of each block."""
        if factor == 2:
            return self.ours("Downscale", x, factor=2)
        return self._resized(x, 1 / factor) if factor > 1 else x

    def _resized(self, x: str, factor: float) -> str:
        scales = self.const([1, 1, factor, factor])
        return str(
            self.op(
                "Resize", x, "", scales, mode="linear", coordinate_transformation_mode="half_pixel"
            )
        )

    def at(self, field: tuple[str, int], scale: int) -> str:
        """A field that is stored at 1/n of the frame, at 1/scale."""
        return self.larger(field[0], field[1] // scale)

    def total(self, fields: Sequence[tuple[str, int]], scale: int) -> str:
        """The sum of fields at 1/scale."""
        first, *others = (self.at(field, scale) for field in fields)
        for other in others:
            first = str(self.op("Add", first, other))
        return first

    def model(
        self, inputs: Sequence[Port], outputs: Sequence[Port], results: Sequence[str]
    ) -> onnx.ModelProto:
        """The finished graph; `results` are the values that become the outputs."""
        for port, value in zip(outputs, results, strict=True):
            self.name_result(value, port.name)
        infos = [
            [
                helper.make_tensor_value_info(port.name, _ELEMENTS[port.dtype], port.shape)
                for port in ports
            ]
            for ports in (inputs, outputs)
        ]
        graph = helper.make_graph(self.nodes, self._name, *infos, self.weights)
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("fastvid", 1)]
        return helper.make_model(
            graph, opset_imports=opsets, producer_name="fastvid_export", ir_version=_IR_VERSION
        )
