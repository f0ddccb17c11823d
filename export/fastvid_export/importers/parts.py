"""The graphs of a pipeline from the weights of its components, in the precision asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from fastvid_export import large_graphs, lora
from fastvid_export.importers import ImportOptions, Say
from fastvid_export.large_graphs import LargeGraph
from fastvid_export.onnx import GraphPlan
from fastvid_export.weight_files import Weights
from fastvid_export.weight_store import WeightStore

NARROW = ("text_encoder", "transformer", "transformer_2")
"""Graphs that are computed in the precision asked for; all others are in float32, as they are small
and what they make is seen."""


class Part(Protocol):
    """A graph to be, and the weights of its module."""

    @property
    def plan(self) -> GraphPlan:
        """The graph; its module lies on the meta device."""

    @property
    def weights(self) -> Weights:
        """The checkpoint of the component."""

    @property
    def names(self) -> Mapping[str, str]:
        """Names in the checkpoint by the module's keys."""


def export(
    parts: Sequence[Part], store: WeightStore, options: ImportOptions, say: Say
) -> dict[str, LargeGraph]:
    """Exports and checks the graphs of a pipeline, LoRA files merged into their weights.

    Args:
        parts: In any order.
        store: Takes the weights.
        options: Precision and LoRA files.
        say: Called with lines about the progress.

    Raises:
        CheckpointError: A LoRA file fits no layer.
        ExportError: As `large_graphs.export`.
    """
    components = {p.plan.name: p.weights for p in parts if p.plan.name in NARROW}
    merged = lora.merge(components, options.loras) if options.loras else components
    graphs = {}
    for part in parts:
        name = part.plan.name
        precision = options.precision if name in NARROW else "float32"
        say(f"exporting {name} in {precision}")
        weights = merged.get(name, part.weights)
        graphs[name] = large_graphs.export(
            part.plan, weights, part.names, store, precision=precision, say=say
        )
    return graphs


def fidelity(graphs: Iterable[object]) -> list[dict[str, Any]]:
    """`fidelity` in `bundle.json`: the figures of those graphs that were held against a gate."""
    return [
        {key: value for key, value in asdict(figure).items() if value is not None}
        for graph in graphs
        if isinstance(graph, LargeGraph)
        for figure in graph.figures
    ]
