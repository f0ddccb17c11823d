"""Graphs of 8 bits: activations and weights where a convolution allows it, weights alone elsewhere.

- `static`: convolutions that are narrow by the rule of `roles`, read what products made and lead to
  another product read and write 8 bits: quantise and dequantise nodes around them, a scale per
  output channel of the weight, ranges from real inputs. onnxruntime's quantiser writes the nodes.
- `dynamic`: matrix products with narrow weights round what they read as they read it, with a scale
  of its own each time, so that they need no ranges. TensorRT has no such nodes.
- `weights_only`: weights lie on disk as int8 with a scale per channel, and the graph computes in
  float32. It is what remains for heads and for the convolution before an output: their results are
  coordinates and pictures.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fastvid_export.compact import compact, on_grid
from fastvid_export.convert import roles as rules
from fastvid_export.convert.roles import CARRIERS, LARGE, PRODUCTS, Roles, kind
from fastvid_export.running import Arrays, Runner

_CONVOLUTIONS = ("Conv",)
_PASSED = ("Relu", "LeakyRelu", "Add")
"""What may stay in int8 between two convolutions."""


def weights_only(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose large weights are int8 with a scale per channel; it computes in float32."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    rules.constants_to_weights(made)
    axes = _channel_axes(made.graph)
    for weight in made.graph.initializer:
        array = numpy_helper.to_array(weight)
        if weight.name in axes and array.dtype == np.float32 and array.size >= LARGE:
            rounded = on_grid(array, axes[weight.name])
            weight.CopyFrom(numpy_helper.from_array(rounded, weight.name))
    return compact(_in_order(made))


def _in_order(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with every node behind what it reads, as ONNX wants it.

    onnxruntime's quantiser appends its nodes, and runs them in any order; others need not.
    """
    from onnxruntime.quantization.onnx_model import ONNXModel

    wrapped = ONNXModel(model)
    wrapped.topological_sort()
    made: onnx.ModelProto = wrapped.model
    return made


def static(
    model: onnx.ModelProto, samples: Sequence[Arrays], *, symmetric: bool = False
) -> onnx.ModelProto | None:
    """A copy whose inner convolutions compute in int8; None where it has none.

    Args:
        model: A float32 graph.
        samples: Real inputs, not those that the result is judged with.
        symmetric: Whether what is read is int8 around 0, as TensorRT wants it, and not uint8, which
            has a bit more for what is never negative.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    rules.constants_to_weights(made)
    for i, node in enumerate(made.graph.node):
        node.name = node.name or f"{node.op_type}_{i}"
    chosen = _quantisable(made, rules.analyse(made))
    if not chosen:
        return None
    ranges = calibrate(made, _values(made, chosen), samples)
    quantised = _quantise(made, chosen, ranges, symmetric)
    return weights_only(quantised)


def dynamic(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """A copy whose matrix products with weights compute in int8; None where it has none."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    rules.constants_to_weights(made)
    narrow = rules.analyse(made).narrow
    weights = {w.name: w for w in made.graph.initializer if w.data_type == TensorProto.FLOAT}
    chosen = []
    for i, node in enumerate(made.graph.node):
        weight = weights.get(node.input[1]) if node.op_type == "MatMul" and i in narrow else None
        if weight is not None and int(np.prod(weight.dims)) >= LARGE:
            node.name = node.name or f"{node.op_type}_{i}"
            chosen.append(node.name)
    return weights_only(_quantise_dynamically(made, chosen)) if chosen else None


def _channel_axes(graph: onnx.GraphProto) -> dict[str, int]:
    """Output axis of each weight of a product."""
    axes = {}
    for node in graph.node:
        if kind(node) in ("Conv", "Gemm", "ConvTranspose", "MatMul") and len(node.input) > 1:
            transposed = kind(node) == "Gemm" and any(
                a.name == "transB" and a.i for a in node.attribute
            )
            first = kind(node) == "Conv" or transposed
            axes[node.input[1]] = 0 if first else 1 if kind(node) == "ConvTranspose" else -1
    return axes


def _quantisable(model: onnx.ModelProto, roles: Roles) -> list[onnx.NodeProto]:
    """Narrow convolutions that lead to another product, and what lies between them."""
    nodes = model.graph.node
    readers: dict[str, list[int]] = {}
    for i, node in enumerate(nodes):
        for name in node.input:
            readers.setdefault(name, []).append(i)
    leads = _lead_to_products(model.graph, readers)
    read_products = _made_by_products(model.graph)
    chosen = []
    for i, node in enumerate(nodes):
        if i not in roles.narrow or i not in leads:
            continue
        # What no product has made yet is a picture: 8 bits of it are all there is to see.
        if node.op_type in _CONVOLUTIONS and node.input[0] not in read_products:
            continue
        if node.op_type in _CONVOLUTIONS or node.op_type in _PASSED:
            chosen.append(node)
    return chosen if any(node.op_type in _CONVOLUTIONS for node in chosen) else []


def _made_by_products(graph: onnx.GraphProto) -> set[str]:
    """Values that a product made, itself or through other nodes."""
    found: set[str] = set()
    for node in graph.node:
        if kind(node) in PRODUCTS or any(name in found for name in node.input):
            found.update(node.output)
    return found


def _lead_to_products(graph: onnx.GraphProto, readers: Mapping[str, list[int]]) -> set[int]:
    """Nodes with a result that a product reads, itself or after carriers."""
    leads: set[int] = set()
    for i in reversed(range(len(graph.node))):
        for j in (j for name in graph.node[i].output for j in readers.get(name, ())):
            reader = kind(graph.node[j])
            if reader in PRODUCTS or (reader in CARRIERS and j in leads):
                leads.add(i)
    return leads


def _values(model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto]) -> list[str]:
    weights = {weight.name for weight in model.graph.initializer}
    names = {name for node in nodes for name in [*node.input, *node.output]}
    return sorted(names - weights - {""})


def calibrate(
    model: onnx.ModelProto, names: Sequence[str], samples: Sequence[Arrays]
) -> dict[str, tuple[float, float]]:
    """Least and greatest of each value over the samples."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    known = {value.name for value in [*shown.graph.input, *shown.graph.output]}
    for name in names:
        if name not in known:
            shown.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    runner = Runner(shown.SerializeToString())
    given = {value.name for value in shown.graph.input}
    ranges: dict[str, tuple[float, float]] = {}
    for sample in samples:
        found = runner(sample, [name for name in names if name not in given])
        for name, array in (found | {n: sample[n] for n in names if n in given}).items():
            low, high = ranges.get(name, (0.0, 0.0))
            ranges[name] = (min(low, float(array.min())), max(high, float(array.max())))
    return ranges


def _quantise(
    model: onnx.ModelProto,
    nodes: Sequence[onnx.NodeProto],
    ranges: Mapping[str, tuple[float, float]],
    symmetric: bool,
) -> onnx.ModelProto:
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    limits = {
        name: (np.array(low, np.float32), np.array(high, np.float32))
        for name, (low, high) in ranges.items()
    }
    marked = _marked(model)
    marked.graph.value_info.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in limits
    )
    with contextlib.redirect_stdout(io.StringIO()):
        quantizer = QDQQuantizer(
            marked,
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QInt8 if symmetric else QuantType.QUInt8,
            tensors_range=TensorsData(CalibrationMethod.MinMax, limits),
            nodes_to_quantize=[node.name for node in nodes],
            nodes_to_exclude=[],
            op_types_to_quantize=sorted({node.op_type for node in nodes}),
            extra_options={"ActivationSymmetric": symmetric, "WeightSymmetric": True},
        )
        quantizer.quantize_model()
    made: onnx.ModelProto = quantizer.model.model
    del made.metadata_props[:]
    return made


def _quantise_dynamically(model: onnx.ModelProto, nodes: Sequence[str]) -> onnx.ModelProto:
    from onnxruntime.quantization import QuantizationMode, QuantType
    from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer

    with contextlib.redirect_stdout(io.StringIO()):
        quantizer = ONNXQuantizer(
            _marked(model),
            per_channel=True,
            reduce_range=False,
            mode=QuantizationMode.IntegerOps,
            static=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=None,
            nodes_to_quantize=list(nodes),
            nodes_to_exclude=[],
            op_types_to_quantize=["MatMul"],
            extra_options={"MatMulConstBOnly": True, "DefaultTensorType": TensorProto.FLOAT},
        )
        quantizer.quantize_model()
    made: onnx.ModelProto = quantizer.model.model
    del made.metadata_props[:]
    return made


def _marked(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy as onnxruntime's quantisers take it."""
    # Without the mark they infer shapes through a file, and refuse nodes they do not know.
    marked = onnx.ModelProto()
    marked.CopyFrom(model)
    del marked.graph.value_info[:]
    helper.set_model_props(marked, {"onnx.infer": "onnxruntime.quant"})
    return marked
