"""What a model that is loaded in parts needs in memory, without loading it to find out.

Weights are the bytes of the files of a part: they are mapped, and a step touches all of them.
Weights of few bits are packed as they are loaded, scales too, with sums of their blocks. What a
network of products computes on is worked out from the sizes of its weights, which the graph names
without holding them: per token `_WIDEST` arrays of the widest layer and `_WIDTH` of the width that
most layers read, in float32, whatever the products are computed in. onnxruntime's arena keeps what
it once took, so that is more than what is alive together, and grows with the number of layers; the
two factors are those of a step of thirty (benchmarks/bench_large_memory.py says how near plans
come). Parts below `_SMALL` bytes, among them autoencoders, are measured on small frames as those of
other models are.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from fastvid._memory import Meter, Need, Sizes, available
from fastvid.backends._onnx_file import weight_shapes
from fastvid.backends._stages import part_of, parts
from fastvid.bundle import Bundle

_SMALL = 1 << 30
_WIDEST, _WIDTH = 8, 20
_FLOAT = 4
_BLOCK_VALUES = {16: 32, 128: 128}


class StagedMeter:
    """As `Meter`, for a model whose parts are loaded one after another.

    Args:
        bundle: The model.
        options: As `backends.open` takes them, the device named.
        small: Two sizes that small parts are measured at, the first the smaller.
        pixels: Counts what a graph's memory grows with, from its sizes.
    """

    def __init__(
        self,
        bundle: Bundle,
        options: Mapping[str, Any],
        small: tuple[Sizes, Sizes],
        pixels: Callable[[str, Sizes], int],
    ) -> None:
        self._bundle = bundle
        self.device: str = options["device"]
        self.weights = parts(bundle)
        """Bytes of the weights of each part."""
        self._large = {g for g in bundle.graphs if self.weights[part_of(g)] >= _SMALL}
        measured = tuple(name for name in bundle.graphs if name not in self._large)
        self._meter = Meter(str(bundle.path), options, small, pixels, graphs=measured)
        self._measures = bool(measured)

    def at(self, sizes: Sizes) -> dict[str, int]:
        """Bytes of each graph at sizes of the symbols, without its weights."""
        found = self._meter.at(sizes) if self._measures else {}
        for name in self._large:
            found[name] = self.worked_out(name, sizes)
        return {name: found[name] for name in self._bundle.graphs}

    def total(self, graphs: Mapping[str, int]) -> int:
        """Bytes at the peak: of the part that takes most, with its weights."""
        sums = dict(self.weights)
        for name, size in graphs.items():
            sums[part_of(name)] += size
        return max(sums.values())

    def available(self) -> int:
        """Bytes that are free on the device now."""
        return available(self.device)

    def worked_out(self, name: str, sizes: Sizes) -> int:
        """Bytes of a graph of products, from the shapes of its weights."""
        graph = self._bundle.graph(name)
        model = self._bundle.read(graph.file)
        packed, per_token, patch = _shape_of_network(model)
        # Prompts are read one after another.
        tokens = sizes["L"]
        if part_of(name).startswith("transformer"):
            tokens = sizes["N"] * max(1, sizes["T"] * sizes["h"] * sizes["w"] // patch)
        return Need(packed, per_token).at(tokens)


def _shape_of_network(model: bytes) -> tuple[int, int, int]:
    """Bytes that packing adds, that a token takes, and latents that are one token."""
    shapes = weight_shapes(model)
    products = [shape for shape in shapes if len(shape) == 2]
    # (rows, blocks, bytes): 16 bytes are 32 values of 4 bits, 128 bytes as many of 8.
    blocks = [s for s in shapes if len(s) == 3 and s[2] in _BLOCK_VALUES]
    products += [(s[0], s[1] * _BLOCK_VALUES[s[2]]) for s in blocks]
    kernels = [shape for shape in shapes if len(shape) == 5]
    # Tables of words are no layers; a kernel over time and space makes tokens of latents.
    layers = [shape for shape in products if max(shape) < 1 << 16]
    read = Counter(shape[1] for shape in layers)
    width = read.most_common(1)[0][0] if read else 0
    widest = max((max(shape) for shape in layers), default=0)
    patch = min((math.prod(shape[2:]) for shape in kernels), default=1)
    # A sum and a scale of each block.
    packed = sum(2 * _FLOAT * shape[0] * shape[1] for shape in blocks)
    return packed, _FLOAT * (_WIDEST * widest + _WIDTH * width), patch
