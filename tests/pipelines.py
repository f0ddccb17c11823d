"""Exports of whole pipelines that cost little: each network is traced once, and some not at all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
import torch_sessions
from torch import nn

from fastvid import backends
from fastvid.bundle import Bundle
from fastvid_export import large_graphs, weight_writer
from fastvid_export.importers import parts
from fastvid_export.large_graphs import LargeGraph
from fastvid_export.onnx import GraphPlan


class TracedOnce:
    """`large_graphs.traced`, whose answer for a network is kept for others of its shape."""

    def __init__(self) -> None:
        self._trace = large_graphs.traced
        self._kept: dict[Any, bytes] = {}

    def __call__(self, plan: GraphPlan, table: Any, absent: Any) -> onnx.ModelProto:
        name = plan.name.removesuffix("_2")
        key = name, plan.inputs, plan.outputs, tuple(sorted(absent))
        if key not in self._kept:
            self._kept[key] = self._trace(plan, table, absent).SerializeToString()
        return onnx.load_model_from_string(self._kept[key])


class Modules:
    """Networks that are float32 in every precision, run by PyTorch in place of their graphs."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._modules: dict[str, nn.Module] = {}
        self._export: Callable[..., LargeGraph] = large_graphs.export
        self._open = backends.open
        patch.setattr(large_graphs, "export", self.export)
        patch.setattr(backends, "open", self.open)

    def export(
        self, plan: GraphPlan, weights: Any, names: Any, store: Any, **options: Any
    ) -> LargeGraph:
        """Exports what takes a precision, and keeps the rest."""
        if plan.name in parts.NARROW:
            return self._export(plan, weights, names, store, **options)
        state = {key: weights.read(name).float() for key, name in names.items()}
        plan.module.load_state_dict(state, assign=True)
        self._modules[plan.name] = plan.module.eval()
        return LargeGraph(plan, b"nothing", (), ())

    def open(self, bundle: Bundle, **options: Any) -> Any:
        """A model of graphs and modules."""
        real = {n: spec for n, spec in bundle.graphs.items() if n not in self._modules}
        model = self._open(dataclasses.replace(bundle, graphs=real), **options)
        rest = {n: spec for n, spec in bundle.graphs.items() if n in self._modules}
        modules = torch_sessions.TorchModel(dataclasses.replace(bundle, graphs=rest), self._modules)
        return _Both(model, modules, real)


class _Both:
    def __init__(self, model: Any, modules: Any, real: Any) -> None:
        self._model, self._modules, self._real = model, modules, real
        self.bundle = model.bundle

    def graph(self, name: str) -> Any:
        return (self._model if name in self._real else self._modules).graph(name)

    def report(self) -> Any:
        return self._model.report()

    def cancel(self) -> None:
        self._model.cancel()

    def close(self) -> None:
        self._model.close()


STYLES = ("diffusers", "kohya", "published")
"""How the keys of a LoRA file may be written."""


def lora(path: Path, network: nn.Module, layers: dict[str, str], style: str, scale: float) -> None:
    """Writes a LoRA file and merges it into a network.

    Args:
        path: The file.
        network: A transformer of diffusers.
        layers: Names of its layers, and what the published code calls them.
        style: One of `STYLES`.
        scale: That it will be merged with.
    """
    tensors: dict[str, Any] = {}
    generator = torch.Generator().manual_seed(5)
    for layer, published in layers.items():
        weight = network.get_submodule(layer).weight
        down = torch.randn(2, weight.shape[1], generator=generator) / weight.shape[1] ** 0.5
        up = 3 * torch.randn(weight.shape[0], 2, generator=generator)
        if style == "kohya":
            key = f"lora_unet_{published.replace('.', '_')}"
            tensors |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
            tensors[f"{key}.alpha"] = torch.tensor(1.0)
        else:
            names = {
                "diffusers": f"transformer.{layer}",
                "published": f"diffusion_model.{published}",
            }
            tensors |= {f"{names[style]}.lora_A.weight": down, f"{names[style]}.lora_B.weight": up}
        with torch.no_grad():
            weight += scale * (0.5 if style == "kohya" else 1) * (up @ down)
    shapes = {name: (value.dtype, tuple(value.shape)) for name, value in tensors.items()}
    weight_writer.write(path, shapes, tensors.__getitem__)
