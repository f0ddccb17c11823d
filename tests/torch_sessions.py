"""Bundles of which PyTorch's modules are the graphs: how a generator runs, without any export."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fastvid import backends
from fastvid.backends import Report
from fastvid.backends._checks import InputCheck
from fastvid.bundle import Bundle, GraphSpec, SizeRule, TensorSpec, write_bundle
from fastvid_export.onnx import GraphPlan


class TorchSession:
    """One module as a session, which checks what it is given as others do."""

    def __init__(self, spec: GraphSpec, rule: SizeRule, module: nn.Module) -> None:
        self._check, self._module = InputCheck(spec, rule), module
        self.inputs: dict[str, TensorSpec] = {port.name: port for port in spec.inputs}
        self.outputs: dict[str, TensorSpec] = {port.name: port for port in spec.outputs}
        self.stream = None

    def run(self, inputs: Mapping[str, Any], *, keep: Collection[str] = ()) -> dict[str, Any]:
        self._check(inputs, keep)
        with torch.inference_mode():
            found = self._module(*(torch.from_numpy(inputs[name]) for name in self.inputs))
        values = [found] if isinstance(found, torch.Tensor) else found
        return {
            name: value.contiguous().numpy()
            for name, value in zip(self.outputs, values, strict=True)
        }

    def cancel(self) -> None:
        """Runs are short."""

    def close(self) -> None:
        """Nothing is open."""


class TorchModel:
    """All modules of a bundle."""

    def __init__(self, bundle: Bundle, modules: Mapping[str, nn.Module]) -> None:
        self.bundle = bundle
        self._sessions = {
            name: TorchSession(spec, bundle.size_rule, modules[name])
            for name, spec in bundle.graphs.items()
        }

    def graph(self, name: str) -> TorchSession:
        return self._sessions[name]

    def report(self) -> Report:
        return Report(self.bundle.name, self.bundle.task, "cpu", "torch", "float32", "a test", ())

    def cancel(self) -> None:
        """Runs are short."""

    def close(self) -> None:
        """Nothing is open."""


def bundle(
    folder: Path,
    manifest: Mapping[str, Any],
    plans: Sequence[GraphPlan],
    tokenizer: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> Bundle:
    """A bundle whose graphs are files of nothing, and which opens as its modules.

    Args:
        folder: Where it goes.
        manifest: Without `graphs`.
        plans: The graphs; their modules have their weights.
        tokenizer: `tokenizer.json`.
        monkeypatch: Puts the modules in place of a runtime.
    """
    graphs = {
        plan.name: {
            "file": f"{plan.name}.onnx",
            "inputs": [port.manifest() for port in plan.inputs],
            "outputs": [port.manifest() for port in plan.outputs],
        }
        for plan in plans
    }
    files = {f"{plan.name}.onnx": b"nothing" for plan in plans} | {"tokenizer.json": tokenizer}
    written = write_bundle(folder, {**manifest, "graphs": graphs}, files)
    modules = {plan.name: plan.module.eval() for plan in plans}
    before: Callable[..., Any] = backends.open

    def opened(wanted: Bundle, **options: Any) -> Any:
        ours = wanted.path == written.path
        return TorchModel(wanted, modules) if ours else before(wanted, **options)

    monkeypatch.setattr(backends, "open", opened)
    return written
