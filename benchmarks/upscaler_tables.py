"""The sections on the classes of upscalers, from their bundles and upscaler_classes.json."""

from __future__ import annotations

import json
from typing import Any

from tables import exists, load, source, table

from fastvid.bundle import Bundle, QualityFigure, shipped

_SHARES = 4
"""Parts of a training that the curve is shown at."""


def quality() -> str:
    """What each bundle says was measured of it when it was made."""
    bundles = _bundles()
    clean = [
        (name, *_beside_bicubic(bundle, "photo"), *_beside_bicubic(bundle, "clip"))
        for name, bundle in bundles.items()
        if "-real-" not in name and bundle.precision == "float32"
    ]
    harmed = [row for name, bundle in bundles.items() for row in _degraded(name, bundle)]
    head = (
        "Material that never trained, by the protocol of papers: reduced bicubically, luma PSNR "
        "of BT.601 in studio range without a border of the scale.\n"
    )
    between = (
        "Clips that never trained, harmed as named; resized is bicubic, at factor 1 the input "
        "itself. Flicker is the mean error of the differences between neighbouring frames, "
        "colour the mean error of the colour differences, both as a share of what resizing "
        "leaves.\n"
    )
    tables = (
        table(["model", "photos", "bicubic", "clips", "bicubic"], clean),
        table(["model", "harmed", "luma PSNR", "above resized", "flicker", "colour"], harmed),
    )
    return "\n".join([head, tables[0], between, tables[1]])


def training() -> str:
    """How long each model trained, and what its curve was; empty without logs."""
    rows = []
    for name, bundle in _bundles().items():
        if bundle.precision != "float32" or "training-upscaler.json" not in bundle.files:
            continue
        events = json.loads(bundle.read("training-upscaler.json"))
        values = [e for e in events if e["event"] == "validation"]
        if not values:
            continue
        options = bundle.provenance.settings
        shape = f"{options['channels']} x {options['depth']}, block {options.get('block', 2)}"
        last = values[-1]["step"]
        marks = [last * part / _SHARES for part in range(1, _SHARES + 1)]
        points = [min(values, key=lambda v, m=mark: abs(v["step"] - m)) for mark in marks]
        rows.append((name, shape, str(options["steps"]), *(_point(p) for p in points)))
    head = (
        "Channels and inner convolutions, steps, and held-back figures while they trained: photos "
        "/ clips in dB of luma, of `real` the mean gain over the harmed input. The rate falls in "
        "the last part, which brings most of the gain there.\n\n"
    )
    header = ["model", "network", "steps", "quarter", "half", "three quarters", "end"]
    return head + table(header, rows) if rows else ""


def time() -> str:
    """Time of each class and of peers, per size; empty without results."""
    if not exists("upscaler_classes"):
        return ""
    header = ["model", "runtime", "kMAC per pixel", "median ms", "min ms", "GFLOP/s", "luma PSNR"]
    head = (
        "Frame in to frame out through the SDK; peers are bundles made from their published "
        "weights by `fastvid export`. PSNR is that of the drawn scene that was timed; `real` gets "
        "it compressed.\n"
    )
    parts = [head]
    for case, result in load("upscaler_classes")["cases"].items():
        size, _, scale = case.partition("@")
        rows = [
            (
                row["model"],
                row["runtime"],
                f"{row['macs_per_pixel'] / 1e3:.1f}",
                f"{row['time']['median_ms']:.1f}",
                f"{row['time']['min_ms']:.1f}",
                f"{row['gflops']}",
                f"{row['psnr']:.2f} dB",
            )
            for row in sorted(result["rows"], key=lambda row: row["time"]["median_ms"])
        ]
        title = f"**{size} x{scale}**, {result['threads']} threads\n"
        parts.append("\n".join([title, table(header, rows), source(result)]))
    return "\n".join(parts)


def _bundles() -> dict[str, Bundle]:
    found = {name: Bundle.load(path) for name, path in shipped().items()}
    return {name: bundle for name, bundle in found.items() if bundle.task == "upscaler"}


def _figures(bundle: Bundle, word: str) -> dict[str, QualityFigure]:
    return {q.metric: q for q in bundle.quality if word in q.data}


def _beside_bicubic(bundle: Bundle, kind: str) -> tuple[str, str]:
    found = _figures(bundle, f"held-back {kind}s")
    ours, bicubic = (found.get(f"luma PSNR{end}") for end in ("", " of bicubic"))
    return tuple(f"{q.value:.2f} dB" if q else "" for q in (ours, bicubic))  # type: ignore[return-value]


def _degraded(name: str, bundle: Bundle) -> list[tuple[str, ...]]:
    kinds = [q.data.rpartition(", ")[2] for q in bundle.quality if q.metric == "luma PSNR"]
    if "-real-" not in name:
        return []
    rows = []
    for kind in kinds:
        found = {
            metric.partition(", as a share")[0].partition(" above")[0]
            + (" above" if " above" in metric else ""): q.value
            for metric, q in _figures(bundle, f", {kind}").items()
        }
        rows.append(
            (
                name,
                kind,
                f"{found['luma PSNR']:.2f} dB",
                f"{found['luma PSNR above']:+.2f} dB",
                f"{found['flicker']:.2f}",
                f"{found['error of colour']:.2f}" if "error of colour" in found else "",
            )
        )
    return rows


def _point(event: dict[str, Any]) -> str:
    if "photos_psnr" in event:
        return f"{event['photos_psnr']:.2f} / {event['clips_psnr']:.2f}"
    gains = [value for key, value in event.items() if key.endswith("_gain")]
    return f"{sum(gains) / len(gains):+.2f}"
