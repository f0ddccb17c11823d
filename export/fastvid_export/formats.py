"""What `fastvid export --format` can make: one table for the code, the help and the docs."""

from __future__ import annotations

from dataclasses import dataclass

from fastvid.errors import InputError

PRECISIONS = ("float32", "float16", "int8")


@dataclass(frozen=True)
class Format:
    """One row of the table."""

    name: str
    suffix: str
    """What the artefact's name gets."""
    artefact: str
    precision: str
    """What the graphs compute in; the default where `precision` is among the options."""
    runs_on: str
    options: tuple[str, ...]
    """Options of `export` that mean something for this format, besides those all have."""


FORMATS = (
    Format("onnx", "", "bundle", "float32", "CPU, CUDA", ("portable",)),
    Format("onnx-fp16", "-fp16", "bundle", "float16", "CUDA, CPU", ("portable",)),
    Format("onnx-int8", "-int8", "bundle", "int8", "CPU", ("portable",)),
    Format(
        "engine",
        "-engine",
        "bundle, and TensorRT engines in this user's cache",
        "float16",
        "the GPU it is built on",
        ("precision", "device", "size"),
    ),
    Format(
        "triton",
        "-triton",
        "model repository",
        "float32",
        "NVIDIA Triton, onnxruntime backend",
        ("precision",),
    ),
)
NAMES = tuple(row.name for row in FORMATS)
COLUMNS = ("Format", "Artefact", "Computes in", "Runs on", "Options")


def find(name: str) -> Format:
    """The format called `name`.

    Raises:
        InputError: There is none.
    """
    for row in FORMATS:
        if row.name == name:
            return row
    shown = name[:40] if isinstance(name, str) else type(name).__name__
    raise InputError(f"format: argument must be one of {', '.join(NAMES)}, got {shown!r}")


def cells(row: Format) -> tuple[str, ...]:
    """A row under `COLUMNS`."""
    options = ", ".join(f"--{name}" for name in row.options)
    computes = f"{row.precision} or --precision" if "precision" in row.options else row.precision
    return (row.name, row.artefact, computes, row.runs_on, options)


def to_text() -> str:
    """The table for a terminal."""
    rows = [COLUMNS, *map(cells, FORMATS)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    lines = ("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def to_markdown() -> str:
    """The table for the docs."""
    rows = [COLUMNS, ("---",) * len(COLUMNS)]
    rows += [(f"`{name}`", *rest) for name, *rest in map(cells, FORMATS)]
    rows = [tuple(f"`{c}`" if c.startswith("--") and c != "---" else c for c in r) for r in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
