"""Rows of `fastvid models`: a shipped bundle as JSON, and as lines of text."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from fastvid.bundle import Bundle
from fastvid.errors import ModelError


def row(name: str, path: os.PathLike[str], verify: bool) -> dict[str, Any]:
    """What `--json` says of an installed model.

    Args:
        name: Name of its folder.
        path: The folder.
        verify: Whether every file's sha256 is checked.

    Raises:
        ModelError: The bundle cannot be used, or has another name than its folder.
    """
    bundle = Bundle.load(path)
    if bundle.name != name:
        raise ModelError(f"models: folder {name!r} must hold its own bundle, got {bundle.name!r}")
    if verify:
        bundle.verify()
    return {
        "name": name,
        "task": bundle.task,
        "scale": bundle.scale,
        "precision": bundle.precision,
        "description": bundle.description,
        "licence": bundle.licence,
        "bytes": sum(file.size for file in bundle.files.values()),
        "path": str(path),
        "verified": verify,
        "quality": [
            {"metric": q.metric, "data": q.data, "value": q.value, "unit": q.unit}
            for q in bundle.quality
        ],
        "fidelity": [asdict(figure) for figure in bundle.fidelity],
        "precisions": [asdict(figure) for figure in bundle.precisions],
    }


def lines(row: dict[str, Any]) -> Iterator[str]:
    """A row as text, its name first."""
    size = f"{row['bytes'] / 1e6:.2f} MB"
    yield f"{row['name']}  {size}  {row['precision']}  {row['licence']}"
    yield row["description"]
    yield from _quality_lines(row["quality"])
    yield from _fidelity_lines(row["fidelity"])
    yield from _precision_lines(row["precisions"])


def _quality_lines(figures: Sequence[dict[str, Any]]) -> Iterator[str]:
    """A line per figure, and one for all of a metric that was measured more than twice."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for figure in figures:
        groups.setdefault((figure["metric"], figure["unit"]), []).append(figure)
    for (metric, unit), group in groups.items():
        values = [figure["value"] for figure in group]
        if len(group) > 2:
            span = f"{min(values):g} to {max(values):g}"
            yield f"{metric} {span} {unit} in {len(group)} measurements"
        else:
            yield from (f"{metric} {f['value']:g} {unit} on {f['data']}" for f in group)


def _fidelity_lines(figures: Sequence[dict[str, Any]]) -> Iterator[str]:
    for f in figures:
        psnr = "equal" if f["psnr"] is None else f"PSNR {f['psnr']:g} dB"
        yield (
            f"{f['output']} of {f['graph']} against float32: {psnr}, largest difference "
            f"{f['max_error']:g} {f['unit']}, cosine {f['cosine']:g} on {f['data']}"
        )


def _precision_lines(figures: Sequence[dict[str, Any]]) -> Iterator[str]:
    for f in figures:
        yield (
            f"{f['precision']} in {f['backend']}: {f['speed']:g} times as fast as float32 in "
            f"onnxruntime, {max(0.0, f['loss']):.3f} dB lost, on {f['processor']}, {f['data']}"
        )
