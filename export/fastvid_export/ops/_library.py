"""How an op becomes an operator of PyTorch, and that operator a node of an ONNX graph.

An op is written down once: its definition, a formula in plain PyTorch whose signature is the
operator's. Its tensors are the inputs of the ONNX node, in order, its numbers and strings the
attributes, by name. The compiled op computes it, in the very memory of the tensors; the definition
computes what no kernel does: float64, for checks of gradients, and devices this build has no
kernels for. Both give the same up to rounding, and a test compares them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastvid import _core

NAMESPACE = "fastvid"
_KERNEL_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.uint8, torch.uint16)

Operator = torch.library.CustomOpDef
OPERATORS: dict[str, Operator] = {}
"""Every operator by the name of its op."""
DEFINITIONS: dict[str, Callable[..., Any]] = {}
"""Their formulas in plain PyTorch."""


def define(
    name: str,
    definition: Callable[..., Any],
    *,
    allocate: Callable[..., Any],
    compute: Callable[..., Any],
    views: bool = False,
) -> Operator:
    """Makes the operator `fastvid::name`.

    Args:
        name: The op's word in every layer.
        definition: The formula; annotated with Tensor, Tensor | None, int, bool, float and str.
        allocate: Takes the same arguments; returns empty contiguous results, and looks at shapes
            and dtypes only, so that it serves as the operator's fake.
        compute: Takes the results, then the arguments with their tensors detached and contiguous,
            then `stream`: writes the results with the compiled op.
        views: Whether the compiled op takes tensors of any strides with the last axis adjacent;
            these are then handed over as they are.
    """

    def kernel(*arguments: Any) -> Any:
        tensors = [a for a in arguments if isinstance(a, Tensor)]
        if not _has_kernel(tensors):
            results = definition(*arguments)
            if isinstance(results, Tensor):
                return results.contiguous()
            return tuple(result.contiguous() for result in results)
        results = allocate(*arguments)
        plain = [_plain(a, views) if isinstance(a, Tensor) else a for a in arguments]
        compute(results, *plain, stream=_stream(tensors[0].device))
        return results

    schema = torch.library.infer_schema(definition, mutates_args=())
    operator = torch.library.custom_op(
        f"{NAMESPACE}::{name}", kernel, mutates_args=(), schema=schema
    )
    operator.register_fake(allocate)
    OPERATORS[name], DEFINITIONS[name] = operator, definition
    return operator


def _plain(tensor: Tensor, views: bool) -> Tensor:
    if views and tensor.stride(-1) == 1:
        return tensor.detach()
    return tensor.detach().contiguous()


def _has_kernel(tensors: list[Tensor]) -> bool:
    device = tensors[0].device.type
    here = device == "cpu" or (device == "cuda" and _core.cuda_compiled())
    return here and all(tensor.dtype in _KERNEL_DTYPES for tensor in tensors)


def _stream(device: torch.device) -> int | None:
    if device.type != "cuda":
        return None
    return int(torch.cuda.current_stream(device).cuda_stream)


def node_name(name: str) -> str:
    """The ONNX operator of an op: `warp_blend` is `WarpBlend`."""
    return "".join(word.capitalize() for word in name.split("_"))


def onnx_translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """What to give `torch.onnx.export` as `custom_translation_table`.

    Every operator then becomes one node of the ONNX domain `fastvid`.
    """
    return {op._opoverload: _translation(name) for name, op in OPERATORS.items()}


@functools.cache
def _translation(name: str) -> Callable[..., Any]:
    from onnxscript import values

    arguments = OPERATORS[name]._opoverload._schema.arguments
    node = values.Op(values.Opset(NAMESPACE, 1), node_name(name), _node_schema(name))

    def translate(*given: Any, **named: Any) -> Any:
        bound = dict(zip([a.name for a in arguments], given, strict=False)) | named
        inputs, attributes = [], {}
        for argument in arguments:
            value = bound.get(argument.name, argument.default_value)
            if _is_tensor(argument):
                inputs.append(value)
            else:
                attributes[argument.name] = int(value) if isinstance(value, bool) else value
        return node(*inputs, **attributes)

    return translate


def _is_tensor(argument: Any) -> bool:
    return "Tensor" in str(argument.type)


def _node_schema(name: str) -> Any:
    """What the exporter must know of the node; every tensor has a type of its own."""
    from onnx import defs

    schema = OPERATORS[name]._opoverload._schema
    formal, option = defs.OpSchema.FormalParameter, defs.OpSchema.FormalParameterOption
    types = [f"tensor({dtype})" for dtype in ("float", "float16", "bfloat16", "uint8", "uint16")]
    kinds = {
        "int": defs.OpSchema.AttrType.INT,
        "bool": defs.OpSchema.AttrType.INT,
        "float": defs.OpSchema.AttrType.FLOAT,
        "str": defs.OpSchema.AttrType.STRING,
    }
    tensors = [argument for argument in schema.arguments if _is_tensor(argument)]
    outputs = [f"R{i}" for i in range(len(schema.returns))]
    return defs.OpSchema(
        node_name(name),
        NAMESPACE,
        1,
        type_constraints=[
            (kind, types, "") for kind in [*(f"T{i}" for i in range(len(tensors))), *outputs]
        ],
        inputs=[
            formal(
                argument.name,
                f"T{i}",
                param_option=option.Optional if "Optional" in str(argument.type) else option.Single,
            )
            for i, argument in enumerate(tensors)
        ],
        outputs=[formal(f"out{i}", kind) for i, kind in enumerate(outputs)],
        attributes=[
            defs.OpSchema.Attribute(argument.name, kinds[str(argument.type)], required=False)
            for argument in schema.arguments
            if not _is_tensor(argument)
        ],
    )
