"""Which nodes of a graph onnxruntime left on the CPU, and whether that is fine.

onnxruntime computes shapes on the CPU on purpose, because they are needed there. Anything else that
stays behind means copies to and fro, and a graph that does not run where it was asked to.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

REFUSED_FALLBACK = "fallback to CPU EP has been explicitly disabled"
"""What onnxruntime says where it is told to leave nothing on the CPU and would have to."""

# Operators of shape arithmetic. All have CUDA kernels, so only onnxruntime's preference for small
# integers puts them on the CPU.
_SHAPE_OPERATORS = {
    *("Shape", "Size", "Gather", "Slice", "Split", "Concat", "Reshape", "Squeeze", "Unsqueeze"),
    *("Add", "Sub", "Mul", "Div", "Mod", "Neg", "Floor", "Ceil", "Min", "Max", "ReduceProd"),
    *("Equal", "Where", "Cast", "Identity", "Constant", "ConstantOfShape", "Expand", "Range"),
}


def cpu_nodes(session: Any, provider: str) -> Counter[str]:
    """Operators of a session's graph that run on the CPU provider, with their number.

    Args:
        session: A session made with `session.record_ep_graph_assignment_info`.
        provider: Name of the CPU provider.
    """
    return Counter(
        f"{node.domain}::{node.op_type}" if node.domain else str(node.op_type)
        for subgraph in session.get_provider_graph_assignment_info()
        if subgraph.ep_name == provider
        for node in subgraph.get_nodes()
    )


def beyond_shapes(nodes: Counter[str]) -> list[str]:
    """The operators among `nodes` that do more than shape arithmetic, sorted."""
    return sorted(name for name in nodes if name not in _SHAPE_OPERATORS)
