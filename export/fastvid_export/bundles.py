"""From a checkpoint to a bundle: export, check, measure, write."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastvid import __version__
from fastvid.bundle import Bundle, QualityFigure, write_bundle
from fastvid.scene import Scene
from fastvid_export import onnx, registry
from fastvid_export.training import checkpoint as ckpt
from fastvid_export.training import material


def build(
    model: str,
    checkpoint_path: Path,
    out: Path,
    *,
    parts: Mapping[str, Path] | None = None,
    data: Path | None = None,
    cache: Path | None = None,
    overwrite: bool = True,
    say: Callable[[str], None] = print,
) -> Bundle:
    """Writes the bundle of a trained model, or refuses.

    Args:
        model: Family, see `registry.NAMES`.
        checkpoint_path: File that a training wrote.
        out: Folder of the bundle.
        parts: Checkpoints of networks that were trained apart, by the name of their family, and
            of one that taught this one. Logs that lie beside checkpoints go into the bundle.
        data: Folder of material: real frames for the checks come from its held-back clips, and
            quality is measured on what is held back. Without it frames are drawn, and quality is
            what the training measured last.
        cache: Folder for prepared material; beside the checkpoint by default.
        overwrite: Whether a bundle that is already there may be replaced.
        say: Called with lines about the progress.

    Raises:
        ExportError: A graph differs from PyTorch.
        CheckpointError: The checkpoint does not fit.
    """
    family = registry.family(model)
    checkpoint = ckpt.load(checkpoint_path, task=family.name)
    others = {name: ckpt.load(path, task=name) for name, path in (parts or {}).items()}
    plan = family.plan(checkpoint, _real_frames(data), others)
    shipped = {graph.name: onnx.export(graph) for graph in plan.graphs}
    checked = [*shipped.values(), *(onnx.export(graph) for graph in plan.float_checks)]
    figures = [figure for graph in checked for figure in _differences(graph)]
    for figure in figures:
        say(f"{figure.metric} on {figure.data}: {figure.value:.3g} {figure.unit}")
    if data is not None:
        runners = {name: onnx.Runner(graph.data) for name, graph in shipped.items()}
        quality = family.measure(
            checkpoint,
            lambda name, inputs: runners[name](inputs),
            data,
            cache or checkpoint_path.parent / "cache",
        )
    else:
        quality = [
            QualityFigure(
                name, f"held-back material, while {trained.task} trained", round(value, 3)
            )
            for trained in (checkpoint, *others.values())
            for name, value in trained.metrics.items()
        ]
    for figure in quality:
        say(f"{figure.metric} on {figure.data}: {figure.value:g} {figure.unit}")
    manifest = _manifest(plan, shipped, checkpoint, figures + quality)
    files = {f"{name}.onnx": graph.data for name, graph in shipped.items()} | plan.files
    for name, path in ((family.name, checkpoint_path), *(parts or {}).items()):
        if (log := path.parent / "log.jsonl").is_file():
            files[f"training-{name}.json"] = _log(log)
    return write_bundle(out, manifest, files, overwrite=overwrite)


def _log(path: Path) -> bytes:
    """What a run's log says of its settings and validations, as a JSON array."""
    events = [json.loads(line) for line in path.read_text().splitlines()]
    kept = [e for e in events if e["event"] in ("init", "start", "validation", "stop")]
    return json.dumps(kept, indent=1).encode()


def _real_frames(data: Path | None) -> list[np.ndarray]:
    if data is None:
        scene = Scene(320, 180, seed=3)
        return [scene.draw(t / 30) for t in range(9)]
    clip = material.clips(data, held_back=True)[0]
    return list(material.read_frames(clip, start=10, count=9))


def _differences(graph: onnx.ExportedGraph) -> list[QualityFigure]:
    """The largest difference of each kind of output on each kind of inputs."""
    worst: dict[tuple[str, str], onnx.Difference] = {}
    for d in graph.differences:
        key = (d.samples, d.unit)
        if key not in worst or d.value > worst[key].value:
            worst[key] = d
    return [
        QualityFigure(
            metric="largest difference from PyTorch",
            data=f"{d.output} of {graph.plan.name}, {d.samples} inputs",
            value=float(f"{d.value:.3g}"),
            unit=d.unit,
        )
        for d in worst.values()
    ]


def _manifest(
    plan: registry.BundlePlan,
    graphs: dict[str, onnx.ExportedGraph],
    checkpoint: ckpt.Checkpoint,
    quality: list[QualityFigure],
) -> dict[str, Any]:
    settings: dict[str, Any] = {"steps": checkpoint.step, "seed": checkpoint.seed}
    return {
        "name": plan.name,
        **plan.manifest,
        "requires_fastvid": __version__,
        "provenance": {
            "weights": plan.weights,
            "training_data": list(plan.training_data),
            "exporter": f"fastvid_export {__version__}, torch {torch.__version__.split('+')[0]}",
            "command": f"python -m fastvid_export bundle {checkpoint.task} --checkpoint FILE",
            "created": time.strftime("%Y-%m-%d", time.gmtime()),
            "settings": settings | checkpoint.options,
        },
        "graphs": {name: graph.manifest() for name, graph in graphs.items()},
        "credits": list(plan.credits),
        # A figure without a unit leaves the key out.
        "quality": [{k: v for k, v in asdict(q).items() if v != ""} for q in quality],
    }
