"""What a bundle's graphs compute on the CPU: the golden results that engines are held against.

The inputs are smooth patterns made from the name, dtype and range of each tensor, so that only the
results have to be kept: a few thousand values of each output; NaN is looked for in all of them.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from fastvid._specs import GraphSpec, SizeRule, TensorSpec
from fastvid.backends._checks import dimension
from fastvid.backends.tensorrt._shapes import Relation, shapes_at, symbols
from fastvid.bundle import Bundle
from fastvid.devices import Device, available_cpus
from fastvid.errors import EngineBuildError, EngineLoadError

Array = np.ndarray[Any, Any]
Shapes = Mapping[str, tuple[int, ...]]

TOLERANCE = {"float32": 1e-2, "float16": 3e-2, "bfloat16": 6e-2, "int8": 1.5e-1}
"""By what a graph computes in: the greatest root mean square of the difference, as a part of that
of the golden values. The results of another graph or of a wrong kernel differ by about 1."""

_SAMPLES = 8192
_STRIDE = 2654435761  # 2^32 over the golden ratio: spreads places, Knuth, TAOCP volume 3, 6.4
_PROBES = ((1, 3), (2, 5), (4, 6))


def pattern(spec: TensorSpec, shape: tuple[int, ...]) -> Array:
    """The input of a golden run: waves along each axis, the same ones for the same tensor.

    Args:
        spec: What the tensor is.
        shape: Its sizes.
    """
    seed = zlib.crc32(spec.name.encode())
    dtype = np.dtype(spec.dtype)
    if dtype.kind in "iub" and dtype != np.uint8:
        # Masks, and numbers of entries of tables: 0 and 1 are allowed in each.
        places = np.arange(int(np.prod(shape)), dtype=np.int64) + seed % 2
        return (places % 2).astype(dtype).reshape(shape)
    waves = np.zeros(shape, np.float32)
    for axis, size in enumerate(shape):
        along = np.arange(size) * (0.11 + 0.07 * axis) + (seed >> 3 * axis) % 7
        form = [1] * len(shape)
        form[axis] = size
        waves += np.sin(along).astype(np.float32).reshape(form)
    waves /= max(len(shape), 1)
    low, high = spec.range or ((0, 255) if dtype == np.uint8 else (-1.5, 1.5))
    values = low + (waves + 1) * np.float32((high - low) / 2)
    if dtype == np.uint8:
        values = np.rint(values)
    result: Array = np.clip(values, low, high).astype(dtype)
    return result


def golden(outputs: Mapping[str, Array], precision: str) -> dict[str, Any]:
    """The results of a golden run as JSON holds them."""
    kept = {}
    for name, array in outputs.items():
        sample = _sample(array)
        kept[name] = {
            "dtype": array.dtype.name,
            "shape": list(array.shape),
            "values": base64.b64encode(sample.tobytes()).decode(),
        }
    return {"outputs": kept, "tolerance": TOLERANCE[precision]}


def compare(expected: Mapping[str, Any], outputs: Mapping[str, Array], what: str) -> float:
    """The greatest difference between outputs and golden results, as a part of their size.

    Args:
        expected: Of `golden`.
        outputs: Of the engine.
        what: The engine, for messages.

    Raises:
        EngineLoadError: An output has another form, is not finite, or differs by more than allowed.
    """
    worst = 0.0
    for name, kept in expected["outputs"].items():
        array = outputs[name]
        form = [array.dtype.name, list(array.shape)]
        if form != [kept["dtype"], kept["shape"]]:
            raise EngineLoadError(
                f"{what}: output {name!r} must be {kept['dtype']} {kept['shape']}, got "
                f"{form[0]} {form[1]}"
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise EngineLoadError(f"{what}: output {name!r} must be finite, got NaN or infinity")
        wanted = np.frombuffer(base64.b64decode(kept["values"]), kept["dtype"])
        difference = _relative(_sample(array), wanted)
        if not difference <= expected["tolerance"]:
            raise EngineLoadError(
                f"{what}: output {name!r} must be within {expected['tolerance']:g} of the golden "
                f"results, got {difference:.3g}"
            )
        worst = max(worst, difference)
    return worst


def _sample(array: Array) -> Array:
    flat = array.reshape(-1)
    if flat.size <= _SAMPLES:
        return flat.copy()
    places = np.arange(_SAMPLES, dtype=np.uint64) * np.uint64(_STRIDE) % np.uint64(flat.size)
    return np.asarray(flat[places])


def _relative(got: Array, wanted: Array) -> float:
    a, b = got.astype(np.float64), wanted.astype(np.float64)
    size = max(float(np.sqrt(np.mean(b * b))), 1e-6)
    return float(np.sqrt(np.mean((a - b) ** 2))) / size


class Reference:
    """The graphs of a bundle in onnxruntime on the CPU; opened when first needed.

    Raises, in each method:
        BackendUnavailableError: onnxruntime is not installed.
        ModelError: A graph is damaged or cannot be run.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._model: Any = None

    def close(self) -> None:
        """Frees the graphs."""
        if self._model is not None:
            self._model.close()
            self._model = None

    def run(self, graph: GraphSpec, shapes: Shapes) -> dict[str, Array]:
        """Runs a graph on the patterns of its inputs."""
        if self._model is None:
            from fastvid.backends import onnxruntime

            options = onnxruntime.Options(available_cpus())
            self._model = onnxruntime.load(self._bundle, Device("cpu"), options)
        inputs = {spec.name: pattern(spec, shapes[spec.name]) for spec in graph.inputs}
        outputs: dict[str, Array] = self._model.graph(graph.name).run(inputs)
        return outputs

    def relations(self, graph: GraphSpec, known: Mapping[str, int]) -> dict[str, Relation]:
        """How sizes of a graph's inputs follow from height and width of frames.

        A manifest names sizes and does not say that `h` is half of `H`. So the graphs that make
        these inputs run at three small sizes, and what is proportional is found.

        Args:
            graph: The graph.
            known: A value for each size that does not follow from another one.

        Raises:
            EngineBuildError: A size follows from none.
        """
        unknown = [name for name in symbols(graph.inputs) if name not in known]
        if not unknown:
            return {}
        seen: list[dict[str, int]] = []
        for height, width in self._probe_sizes():
            values = {**known, "H": height, "W": width, "N": 1}
            seen.append(self._sizes_at(graph, values))
        return {name: self._relation(graph, name, seen) for name in unknown}

    def _probe_sizes(self) -> list[tuple[int, int]]:
        rule: SizeRule = self._bundle.size_rule
        step = rule.multiple_of
        if self._bundle.generation is not None:
            step = int(np.lcm(step, self._bundle.generation.spatial_compression))
        start = -(-rule.minimum // step)
        return [
            (min((start + a) * step, rule.maximum), min((start + b) * step, rule.maximum))
            for a, b in _PROBES
        ]

    def _sizes_at(self, graph: GraphSpec, known: Mapping[str, int]) -> dict[str, int]:
        """Every size of a graph's inputs, at one size of frames."""
        shapes: dict[str, tuple[int, ...]] = {}
        waiting = [one for one in self._bundle.graphs.values() if one.name != graph.name]
        while True:
            sizes = _bound(graph, shapes, known)
            if all(name in sizes for name in symbols(graph.inputs)):
                return sizes
            ready = [one for one in waiting if self._makes(one, graph, shapes, known)]
            if not ready:
                return sizes
            for one in ready:
                waiting.remove(one)
                ranges = _bound(one, shapes, known)
                for name, array in self.run(one, shapes_at(one.inputs, ranges)).items():
                    shapes.setdefault(name, array.shape)

    @staticmethod
    def _makes(one: GraphSpec, graph: GraphSpec, shapes: Shapes, known: Mapping[str, int]) -> bool:
        """Whether a graph can run already and makes an input of another."""
        wanted = {spec.name for spec in graph.inputs} - set(shapes)
        sizes = _bound(one, shapes, known)
        return any(spec.name in wanted for spec in one.outputs) and all(
            name in sizes for name in symbols(one.inputs)
        )

    @staticmethod
    def _relation(graph: GraphSpec, name: str, seen: list[dict[str, int]]) -> Relation:
        if all(name in sizes for sizes in seen):
            first = seen[0]
            for base in ("H", "W"):
                factor = Fraction(first[name], first[base])
                if all(sizes[base] * factor == sizes[name] for sizes in seen):
                    return Relation(base, factor)
            if len({sizes[name] for sizes in seen}) == 1:
                return Relation("", Fraction(first[name]))
        raise EngineBuildError(
            f"{graph.name}: size {name!r} must follow from the height or width of frames to build "
            "an engine",
            hint=f"EngineOptions(shapes={{{name!r}: (least, best, greatest)}})",
        )


def _bound(graph: GraphSpec, shapes: Shapes, known: Mapping[str, int]) -> dict[str, int]:
    """The sizes of a graph that are known, and those that inputs made by others have."""
    sizes = dict(known)
    for spec in graph.inputs:
        for size, actual in zip(spec.shape, shapes.get(spec.name, ()), strict=False):
            factor, name = dimension(size)
            if name:
                sizes.setdefault(name, actual // factor)
    return sizes
