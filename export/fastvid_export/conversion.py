"""Every graph of a bundle in another form, each compared with its float32 original."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx

from fastvid.bundle import Bundle, FidelityFigure
from fastvid_export import fidelity, onnx_files
from fastvid_export.compact import expand
from fastvid_export.convert import half, int8
from fastvid_export.convert.standard import to_standard
from fastvid_export.errors import FidelityError
from fastvid_export.running import Arrays, Runner
from fastvid_export.samples import Material, Recorded, record

Say = Callable[[str], None]


@dataclass(frozen=True)
class Converted:
    """A graph that passed its gate."""

    model: onnx.ModelProto
    figures: tuple[FidelityFigure, ...]
    how: str
    """What was done to it, in a few words; empty for nothing."""


@dataclass(frozen=True)
class _Attempt:
    how: str
    make: Callable[[], onnx.ModelProto | None]


def convert(
    bundle: Bundle,
    material: Material,
    recorded: Recorded,
    *,
    precision: str,
    portable: bool,
    engine: bool,
    min_psnr: float | None,
    say: Say,
) -> dict[str, Converted]:
    """The graphs of a float32 bundle by name.

    Args:
        bundle: In float32.
        material: Calibrates int8.
        recorded: What the graphs were given on the pictures to check with.
        precision: `float32`, `float16` or `int8`.
        portable: Whether only standard operators may remain.
        engine: Whether int8 is for TensorRT, which knows fixed ranges around 0 only.
        min_psnr: Limit in dB instead of the gate's.
        say: Called with a line per output.

    Raises:
        ExportError: A graph cannot be converted.
        FidelityError: One is below its gate.
    """
    calibration: list[Recorded] = []

    def calibrated(graph: str) -> Sequence[Arrays]:
        if not calibration:
            calibration.append(record(bundle, material.calibration))
        return calibration[0].inputs[graph]

    made = {}
    for name in bundle.graphs:
        original = onnx_files.load(bundle, name)
        base = to_standard(original) if portable else original
        attempts = _attempts(base, precision, functools.partial(calibrated, name), engine=engine)
        samples = recorded.inputs.get(name, [])
        job = _Job(bundle, name, original, samples, material.name, portable)
        made[name] = _first_that_passes(job, attempts, precision, min_psnr, say)
    return made


@dataclass(frozen=True)
class _Job:
    bundle: Bundle
    graph: str
    original: onnx.ModelProto
    samples: Sequence[Arrays]
    data: str
    portable: bool

    def figures(self, model: onnx.ModelProto) -> list[FidelityFigure]:
        """How far the model is from the original, on the same inputs."""
        data = f"{len(self.samples)} runs on {self.data}"
        original = Runner(onnx_files.to_bytes(self.original))
        converted = Runner(onnx_files.to_bytes(model), operators=not self.portable)
        graph = self.bundle.graph(self.graph)
        return fidelity.compare(graph, original, converted, self.samples, data)


def _attempts(
    base: onnx.ModelProto,
    precision: str,
    calibration: Callable[[], Sequence[Arrays]],
    *,
    engine: bool,
) -> list[_Attempt]:
    """Ways to get there, the best first."""
    if precision == "float16":
        return [_Attempt("float16", lambda: half.to_float16(base))]
    if precision == "int8":

        def convolutions() -> onnx.ModelProto | None:
            return int8.static(expand(base), calibration(), symmetric=engine)

        def both() -> onnx.ModelProto | None:
            """None where there are no products, or their nodes are none of TensorRT's."""
            return None if engine else int8.dynamic(convolutions() or expand(base))

        return [
            _Attempt("int8 convolutions and products", both),
            _Attempt("int8 convolutions", convolutions),
            _Attempt("int8 weights", lambda: int8.weights_only(expand(base))),
        ]
    return [_Attempt("", lambda: base)]


def _first_that_passes(
    job: _Job, attempts: Sequence[_Attempt], precision: str, min_psnr: float | None, say: Say
) -> Converted:
    problem = ""
    for attempt in attempts:
        model = attempt.make()
        if model is None:
            continue
        figures = job.figures(model)
        problem = fidelity.failure(figures, fidelity.GATES[precision], psnr=min_psnr)
        if not problem:
            for line in fidelity.lines(figures):
                say(line)
            return Converted(model, tuple(figures), attempt.how)
        say(f"{attempt.how or 'as it is'} misses the gate: {problem}")
    raise FidelityError(
        f"fidelity: {problem}",
        hint="--format onnx-fp16 or onnx loses less, --min-psnr lowers the gate, --data gives "
        "pictures like yours",
    )
