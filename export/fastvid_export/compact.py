"""Weights of 8 or 16 bits on disk, computed with in float32 as before.

`round_weights` moves the weights of a network to 255 evenly spaced values per output channel, and
`compact` stores such weights of a graph as int8 with a scale; `halve_weights` rounds to float16,
which `compact` stores as such. The runtime widens them once, when it loads the graph, so the graph
computes exactly what the rounded network computes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from fastvid_export.convert.roles import captured

if TYPE_CHECKING:
    from torch import nn

_STEPS = 127
_SMALLEST = 2048
"""Elements of a weight that is worth it; smaller ones, such as norms, stay as they are."""


def round_weights(network: nn.Module) -> None:
    """Rounds every large weight to int8 times a scale of its output channel, in place.

    Weights are matrices and kernels; the channel is their first axis.
    """
    import torch

    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() < 2 or parameter.numel() < _SMALLEST:
                continue
            rows = parameter.flatten(1)
            scale = rows.abs().amax(1, keepdim=True).clamp(min=1e-12) / _STEPS
            parameter.copy_((torch.round(rows / scale) * scale).view_as(parameter))


def halve_weights(network: nn.Module) -> None:
    """Rounds every large weight to the nearest float16, in place."""
    import torch

    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() >= 2 and parameter.numel() >= _SMALLEST:
                parameter.copy_(parameter.half().float())


def on_grid(array: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """The same rounding for an array whose channels lie along `axis`."""
    others = tuple(i for i in range(array.ndim) if i != axis % array.ndim)
    scale = np.maximum(np.abs(array).max(others, keepdims=True), np.float32(1e-12))
    scale = (scale / np.float32(_STEPS)).astype(np.float32)
    return (np.rint(array / scale) * scale).astype(np.float32)


def compact(model: onnx.ModelProto) -> onnx.ModelProto:
    """Stores weights that lie on an 8-bit grid as int8, and those that are float16 values as such.

    Works in place and returns the model; other weights stay float32.
    """
    graph = model.graph
    nodes = []
    for weight in list(graph.initializer):
        array = numpy_helper.to_array(weight)
        if array.dtype != np.float32 or array.ndim < 2 or array.size < _SMALLEST:
            continue
        name, found = weight.name, _grid(array)
        if found is None:
            with np.errstate(over="ignore"):
                half = array.astype(np.float16)
            if np.array_equal(half.astype(np.float32), array):
                graph.initializer.remove(weight)
                graph.initializer.append(numpy_helper.from_array(half, f"{name}.float16"))
                nodes.append(
                    helper.make_node("Cast", [f"{name}.float16"], [name], to=TensorProto.FLOAT)
                )
            continue
        steps, scale = found
        graph.initializer.remove(weight)
        graph.initializer.append(numpy_helper.from_array(steps, f"{name}.int8"))
        graph.initializer.append(numpy_helper.from_array(scale, f"{name}.scale"))
        nodes += [
            helper.make_node("Cast", [f"{name}.int8"], [f"{name}.steps"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{name}.steps", f"{name}.scale"], [name]),
        ]
    others = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *others])
    return model


def _grid(array: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]] | None:
    """Steps and scale whose product is the array, bit for bit, along the first or another axis."""
    # Exporters transpose matrices, so the channel may have become another axis.
    for axis in range(array.ndim):
        others = tuple(i for i in range(array.ndim) if i != axis)
        scale = np.maximum(np.abs(array).max(others, keepdims=True), np.float32(1e-12))
        scale = (scale / np.float32(_STEPS)).astype(np.float32)
        steps = np.rint(array / scale)
        # The largest step times the scale may have been rounded: try the neighbours of the scale.
        for candidate in (scale, np.nextafter(scale, 0), np.nextafter(scale, np.inf)):
            if np.array_equal(steps.astype(np.float32) * candidate, array):
                return steps.astype(np.int8), candidate.astype(np.float32)
    return None


def expand(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with the weights that `compact` stored multiplied out, to be rounded anew."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    weights = {weight.name: weight for weight in graph.initializer}
    steps: dict[str, str] = {}
    kept = []
    for node in graph.node:
        inputs = list(node.input)
        stored = weights.get(inputs[0]) if node.op_type == "Cast" else None
        if stored is not None and stored.data_type == TensorProto.INT8:
            steps[node.output[0]] = inputs[0]
            continue
        if stored is not None and stored.data_type == TensorProto.FLOAT16:
            wide = numpy_helper.to_array(stored).astype(np.float32)
            graph.initializer.append(numpy_helper.from_array(wide, node.output[0]))
            continue
        if node.op_type == "Mul" and inputs[0] in steps and inputs[1] in weights:
            values, scale = (
                numpy_helper.to_array(weights[name]) for name in (steps[inputs[0]], inputs[1])
            )
            product = (values.astype(np.float32) * scale).astype(np.float32)
            graph.initializer.append(numpy_helper.from_array(product, node.output[0]))
            continue
        kept.append(onnx.NodeProto.FromString(node.SerializeToString()))
    used = {name for node in kept for name in node.input} | captured(graph)
    left = [weight for weight in graph.initializer if weight.name in used]
    copies = [TensorProto.FromString(weight.SerializeToString()) for weight in left]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(copies)
    return made
