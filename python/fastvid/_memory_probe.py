"""Runs a bundle's graphs once and says on standard output what memory each took; see `_memory`."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastvid import backends
from fastvid._memory import available
from fastvid.backends._checks import dimension
from fastvid.bench import probes
from fastvid.bundle import Bundle

if TYPE_CHECKING:
    from fastvid._specs import TensorSpec

_RUNS = 3

# Graphs whose inputs come from another one.
_FED_BY = {
    "between": "motion",
    "decoder_next": "decoder_first",
    "encoder_next": "encoder_first",
}

Arrays = dict[str, np.ndarray[Any, Any]]
Sizes = Mapping[str, int]


def measure(
    bundle: Bundle,
    options: Mapping[str, Any],
    sizes: Sizes,
    graphs: Collection[str] | None = None,
) -> dict[str, int]:
    """Bytes that each graph of a bundle takes.

    Args:
        bundle: The model.
        options: As `backends.open` takes them, the device named.
        sizes: Of the symbols in the shapes; others are 1.
        graphs: Which to run; None is all.
    """
    peaks = {}
    given: dict[str, Arrays] = {}
    with backends.open(bundle, **options) as model:
        for name in bundle.graphs if graphs is None else graphs:
            known = given.get(_FED_BY.get(name, ""), {})
            session = model.graph(name)
            gauge = _Gauge(options["device"])
            inputs = {
                name: known[name] if _fits(spec, known.get(name)) else _filled(spec, sizes)
                for name, spec in session.inputs.items()
            }
            outputs: Arrays = {}
            for _ in range(_RUNS):
                # Not held during the next run, as nobody does.
                outputs = {}
                outputs = session.run(inputs)
            peaks[name] = gauge.read()
            given[name] = inputs | outputs
    return peaks


def _fits(spec: TensorSpec, array: np.ndarray[Any, Any] | None) -> bool:
    if array is None or len(spec.shape) != array.ndim:
        return False
    pairs = zip(spec.shape, array.shape, strict=True)
    return all(isinstance(wanted, str) or wanted == size for wanted, size in pairs)


class _Gauge:
    """Counts the memory that is taken from here on."""

    def __init__(self, device: str) -> None:
        self._device = device
        if device == "cpu":
            reset_peak()
        self._start = self._level()

    def _level(self) -> int:
        if self._device == "cpu":
            return probes.peak_rss() or 0
        return -available(self._device)

    def read(self) -> int:
        """Bytes at the peak, on CUDA those that arenas hold."""
        return max(0, self._level() - self._start)


def _filled(spec: TensorSpec, sizes: Sizes) -> np.ndarray[Any, Any]:
    """An array of one allowed value, all of it in memory."""
    parts = map(dimension, spec.shape)
    shape = [factor * (sizes.get(symbol, 1) if symbol else 1) for factor, symbol in parts]
    return np.full(shape, 0 if spec.range is None else sum(spec.range) / 2, spec.dtype)


def reset_peak() -> bool:
    """Lets the process's peak count from what it holds now; False where that is not allowed."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def main() -> None:
    """Answers one request from standard input."""
    request = json.load(sys.stdin)
    try:
        bundle = Bundle.load(sys.argv[1])
        answer: dict[str, Any] = measure(
            bundle, request["options"], request["sizes"], request.get("graphs")
        )
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
