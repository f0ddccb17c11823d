"""How far a converted graph is from its float32 original, and how far it may be."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastvid.bundle import FidelityFigure, GraphSpec, TensorSpec
from fastvid_export.errors import ExportError, FidelityError
from fastvid_export.running import Arrays, Runner


@dataclass(frozen=True)
class Gate:
    """What a converted graph must reach on every output."""

    pictures: float
    """PSNR in dB of uint8 outputs."""
    values: float
    """PSNR in dB of other outputs, against the span of their range."""
    cosine: float


GATES: Mapping[str, Gate] = {
    "float32": Gate(pictures=60.0, values=60.0, cosine=0.99999),
    "float16": Gate(pictures=50.0, values=50.0, cosine=0.9999),
    "bfloat16": Gate(pictures=40.0, values=40.0, cosine=0.999),
    "int8": Gate(pictures=40.0, values=30.0, cosine=0.99),
    "int4": Gate(pictures=30.0, values=25.0, cosine=0.97),
}
"""By what the graphs compute in; `float32` is for graphs that are only written differently."""


@dataclass
class _Sums:
    """Sums over all runs of one output."""

    square: float = 0.0
    """Of differences."""
    product: float = 0.0
    ours: float = 0.0
    theirs: float = 0.0
    count: int = 0
    largest: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    def add(self, ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> None:
        difference = ours - theirs
        self.square += float(np.vdot(difference, difference))
        self.product += float(np.vdot(ours, theirs))
        self.ours += float(np.vdot(ours, ours))
        self.theirs += float(np.vdot(theirs, theirs))
        self.count += ours.size
        self.largest = max(self.largest, float(np.abs(difference).max(initial=0.0)))
        self.low = min(self.low, float(theirs.min(initial=math.inf)))
        self.high = max(self.high, float(theirs.max(initial=-math.inf)))


def compare(
    graph: GraphSpec,
    original: Runner,
    converted: Runner,
    samples: Sequence[Arrays],
    data: str,
) -> list[FidelityFigure]:
    """Runs both graphs on the samples; one figure per output.

    Raises:
        ExportError: Shapes or dtypes differ, or a value is not finite.
    """
    if not samples:
        raise ExportError(
            f"fidelity: graph {graph.name!r} was given nothing on {data}, so nothing is known of it"
        )
    sums = {output.name: _Sums() for output in graph.outputs}
    for sample in samples:
        theirs, ours = original(sample), converted(sample)
        for name, entry in sums.items():
            a, b = ours[name], theirs[name]
            if a.shape != b.shape or a.dtype != b.dtype:
                raise ExportError(
                    f"fidelity: {name} of {graph.name} must be {b.dtype} {b.shape}, got {a.dtype} "
                    f"{a.shape}"
                )
            if not (np.isfinite(a).all() and np.isfinite(b).all()):
                raise FidelityError(f"fidelity: {name} of {graph.name} must be finite")
            entry.add(a.astype(np.float64), b.astype(np.float64))
    return [_figure(graph, output, sums[output.name], data) for output in graph.outputs]


def _figure(graph: GraphSpec, output: TensorSpec, sums: _Sums, data: str) -> FidelityFigure:
    span = _span(output, sums)
    mean = sums.square / max(1, sums.count)
    psnr = None if mean == 0 else round(10 * math.log10(span**2 / mean), 2)
    norm = math.sqrt(sums.ours * sums.theirs)
    cosine = sums.product / norm if norm else float(sums.ours == sums.theirs)
    levels = output.dtype == "uint8"
    return FidelityFigure(
        graph=graph.name,
        output=output.name,
        data=data,
        max_error=float(f"{sums.largest if levels else sums.largest / span:.3g}"),
        unit="levels" if levels else "of the range",
        cosine=round(min(1.0, cosine), 7),
        psnr=psnr,
    )


def _span(output: TensorSpec, sums: _Sums) -> float:
    if output.dtype == "uint8":
        return 255.0
    if output.range is not None:
        return output.range[1] - output.range[0]
    # Of a constant output any scale would do; 1 is that of images.
    return (sums.high - sums.low) or 1.0


def failure(figures: Sequence[FidelityFigure], gate: Gate, *, psnr: float | None = None) -> str:
    """What the first figure below the gate misses; empty where all reach it.

    Args:
        figures: Of one graph.
        gate: What they must reach.
        psnr: The caller's own limit in dB, instead of the gate's limits.
    """
    for f in figures:
        limit = gate.pictures if f.unit == "levels" else gate.values
        limit = limit if psnr is None else psnr
        where = f"{f.output} of {f.graph} on {f.data}"
        if f.psnr is not None and f.psnr < limit:
            return f"PSNR of {where} must be at least {limit:g} dB, got {f.psnr:g}"
        if psnr is None and f.cosine < gate.cosine:
            return f"cosine of {where} must be at least {gate.cosine:g}, got {f.cosine:g}"
    return ""


def lines(figures: Sequence[FidelityFigure]) -> Iterator[str]:
    """The figures of a graph for people: a line per output, and one for all that are equal."""
    equal = [figure.output for figure in figures if figure.psnr is None]
    if equal:
        names = ", ".join(equal[:4]) + (", ..." if len(equal) > 4 else "")
        yield f"{names} of {figures[0].graph}: equal"
    for f in figures:
        if f.psnr is not None:
            yield (
                f"{f.output} of {f.graph}: {f.psnr:.2f} dB, largest difference {f.max_error:g} "
                f"{f.unit}, cosine {f.cosine:g}"
            )
