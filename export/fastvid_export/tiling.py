"""How an upscaler's frames may be cut: measured on its graph, and stored in the bundle.

The windows of convolutions add up to a reach, which the graph tells. Where it does not (attention
in windows, resizes to sizes that are computed), half of a picture is changed and what changes with
it is measured. Either way the claim is then tried: corners of a picture must give what the whole
gives there. Of a network with means over the frame it is not made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from fastvid._specs import TilingSpec
from fastvid.backends._onnx_reach import reach
from fastvid.metrics import psnr
from fastvid.scene import Scene

Frames = NDArray[np.uint8]
Run = Callable[[Frames], Frames]
"""Runs a graph: uint8 (1, H, W, 3) to uint8 (1, sH, sW, 3)."""

_SIDE = 192
"""Of the picture that the reach is measured on."""
_FAR = 72
"""Pixels up to which a reach is taken; beyond, the network counts as looking at all of a frame."""
_OVERLAP = 64
"""Pixels that pieces overlap by where none give the pixels of the whole."""
_OVERLAP_FIXED = 32
"""The same for a graph of one size, whose pieces cannot be larger to make up for it."""
_WINDOW = 16
"""Pixels at multiples of which pieces of it lie, where the size allows it."""
_BLOCKS = (1, 8, 16, 32, 64)
"""What grids and windows of networks are multiples of, in pixels."""
_LEVELS = 1
_STRIP = 48
"""Pixels, about, that a piece to try lacks at its side."""


@dataclass(frozen=True)
class Tiling:
    """What was found."""

    spec: TilingSpec
    levels: int
    """Largest difference between pieces and the whole."""
    psnr: float
    """dB between them; infinite where they are equal."""

    def manifest(self) -> dict[str, Any]:
        """The entry in `bundle.json`."""
        return asdict(self.spec)


def measure(graph: bytes, run: Run, scale: int, multiple_of: int, minimum: int) -> Tiling:
    """How frames may be cut.

    Args:
        graph: The ONNX file.
        run: Runs it.
        scale: Output side divided by input side.
        multiple_of: What heights and widths must be multiples of.
        minimum: Least height and width.
    """
    if _means_over_frames(graph):
        tried = _tried(run, scale, _OVERLAP, multiple_of, minimum)
        return Tiling(TilingSpec(_OVERLAP, multiple_of, exact=False), *tried)
    found = reach(graph)
    told = found is not None and found[0] <= _FAR and found[1] <= _FAR
    side = -(-_SIDE // multiple_of) * multiple_of
    far, block = found if told and found is not None else (None, 1)
    if not told:
        far = _measured(run, scale, (side, side), multiple_of, _FAR)
    if far is not None:
        blocks = (block,) if told else _BLOCKS
        for unit in sorted({math.lcm(one, multiple_of) for one in blocks}):
            tried = _tried(run, scale, far, unit, minimum)
            if tried[0] <= _LEVELS:
                return Tiling(TilingSpec(far, unit, exact=True), *tried)
    tried = _tried(run, scale, _OVERLAP, multiple_of, minimum)
    return Tiling(TilingSpec(_OVERLAP, multiple_of, exact=False), *tried)


def measure_fixed(run: Run, scale: int, sides: tuple[int, int], multiple_of: int = 1) -> Tiling:
    """How pieces of the one size that a graph takes are laid.

    There is no whole to hold them against: two pieces of a picture that overlap must give the same
    where they do, less what each may see of its edge.

    Args:
        run: Runs the graph.
        scale: Output side divided by input side.
        sides: Height and width that it takes.
        multiple_of: What the network's own grid, of windows or blocks, is a multiple of.
    """
    units = [math.lcm(one, multiple_of) for one in _BLOCKS]
    units = [one for one in sorted(set(units)) if not any(side % one for side in sides)] or [1]
    most = min(sides) // 4
    far = _measured(run, scale, sides, 1, min(most, _FAR))
    if far is not None:
        for unit in units:
            margin = -(-far // unit) * unit
            if margin > most or 2 * (margin + unit) > min(sides):
                break
            tried = _tried_fixed(run, scale, sides, far, unit)
            if tried[0] <= _LEVELS:
                return Tiling(TilingSpec(far, unit, exact=True), *tried)
    unit = max(one for one in units if one <= max(units[0], _WINDOW))
    far = max(unit, min(_OVERLAP_FIXED, most) // unit * unit)
    if 2 * (far + unit) > min(sides):  # a grid as coarse as the picture
        far, unit = most, 1
    return Tiling(TilingSpec(far, unit, exact=False), *_tried_fixed(run, scale, sides, far, unit))


def _means_over_frames(graph: bytes) -> bool:
    """Whether a node reduces heights and widths to nothing, planar or channels last.

    One picture may hide what such a node does to another.
    """
    model = onnx.load_from_string(graph)
    values = {weight.name: weight for weight in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            values[node.output[0]] = node.attribute[0].t
    for node in model.graph.node:
        if node.op_type in ("GlobalAveragePool", "GlobalMaxPool", "InstanceNormalization"):
            return True
        if node.op_type not in ("ReduceMean", "ReduceMax", "ReduceSum", "ReduceL2"):
            continue
        axes = next((list(a.ints) for a in node.attribute if a.name == "axes"), None)
        if axes is None and len(node.input) > 1 and node.input[1] in values:
            axes = numpy_helper.to_array(values[node.input[1]]).ravel().tolist()
        if axes is None or set(axes) >= {-2, -1} or set(axes) >= {2, 3} or set(axes) >= {1, 2}:
            return True
    return False


def _measured(
    run: Run, scale: int, sides: tuple[int, int], multiple_of: int, most: int
) -> int | None:
    """How far what changes in one half of a picture is seen in the other; None beyond `most`."""
    rng = np.random.default_rng(5)
    first, second = (rng.integers(0, 256, (1, *sides, 3), np.uint8) for _ in range(2))
    before = run(first)
    far = 0
    for axis, side in zip((1, 2), sides, strict=True):
        middle = side // 2 // multiple_of * multiple_of
        for low, high in ((0, middle), (middle, side)):
            changed = first.copy()
            half: list[Any] = [slice(None)] * 4
            half[axis] = slice(low, high)
            changed[tuple(half)] = second[tuple(half)]
            others = tuple(i for i in range(4) if i != axis)
            at = np.nonzero((run(changed) != before).any(others))[0] // scale
            beyond = at[at >= high] - high + 1 if low == 0 else low - at[at < low]
            far = max(far, int(beyond.max(initial=0)))
            if far > most:
                return None
    return far


def _tried(run: Run, scale: int, far: int, unit: int, minimum: int) -> tuple[int, float]:
    """Largest difference of two corners of a picture from the whole, their overlap left out; dB."""
    margin = -(-far // unit) * unit
    inside = -(-max(minimum, 32) // unit) * unit
    # An odd number of units, so that no larger grid stays in its place.
    strip = unit * (2 * math.ceil(_STRIP / unit / 2) - 1)
    side = -(-max(margin + inside + strip, 64) // unit) * unit
    picture = _shaded(side, side)
    whole = run(picture)
    worst, psnrs = 0, []
    for piece, place in _corners(picture, strip, margin, scale):
        made, wanted = run(piece)[place[0]], whole[place[1]]
        difference = np.abs(made.astype(np.int16) - wanted.astype(np.int16))
        worst = max(worst, int(difference.max(initial=0)))
        psnrs.append(psnr(made, wanted))
    return worst, min(psnrs)


def _tried_fixed(
    run: Run, scale: int, sides: tuple[int, int], far: int, unit: int
) -> tuple[int, float]:
    """Largest difference of pieces beside each other where they overlap, without `far`; dB."""
    margin = -(-far // unit) * unit
    # An odd number of units, and some of the overlap left to compare.
    free = (min(sides) - 2 * margin) // 2 // unit
    strip = unit * max(1, min(free, _STRIP // unit) - 1 | 1)
    height, width = sides
    picture = _shaded(height + strip, width + strip)

    def made(top: int, left: int) -> NDArray[np.int16]:
        piece = picture[:, top : top + height, left : left + width]
        return run(np.ascontiguousarray(piece)).astype(np.int16)

    first, worst, psnrs = made(0, 0), 0, []
    for axis, other in ((1, made(strip, 0)), (2, made(0, strip))):
        begin, end = (strip + margin) * scale, (sides[axis - 1] - margin) * scale
        here = np.take(first, range(begin, end), axis)
        there = np.take(other, range(begin - strip * scale, end - strip * scale), axis)
        worst = max(worst, int(np.abs(here - there).max(initial=0)))
        psnrs.append(psnr(here.astype(np.uint8), there.astype(np.uint8)))
    return worst, min(psnrs)


def _shaded(height: int, width: int) -> Frames:
    """A drawn picture with noise and of uneven brightness, (1, H, W, 3)."""
    scene = Scene(max(width, 64), max(height, 64), seed=6).draw(0.5)
    picture = scene[None, :height, :width]
    noise = np.random.default_rng(7).integers(-24, 25, picture.shape)
    # Corners of different brightness, which a network that looks at all of a frame would see.
    ramp = np.linspace(0.2, 1, height)[:, None] * np.linspace(0.2, 1, width)[None]
    return np.clip((picture + noise) * ramp[None, ..., None], 0, 255).astype(np.uint8)


def _corners(
    picture: Frames, strip: int, margin: int, scale: int
) -> Iterator[tuple[Frames, tuple[Any, Any]]]:
    """Two pieces that lack a strip at two sides, and where both agree with the whole if they do."""
    height, width = picture.shape[1:3]
    every = slice(None)
    # Without the first strip: what lies beyond the margin behind it.
    low = np.ascontiguousarray(picture[:, strip:, strip:])
    inner = (every, slice(margin * scale, None), slice(margin * scale, None))
    outer = (every, *(slice((margin + strip) * scale, None) for _ in range(2)))
    yield low, (inner, outer)
    # Without the last one: what lies before the margin in front of it.
    high = np.ascontiguousarray(picture[:, : height - strip, : width - strip])
    kept = tuple(slice(0, (length - strip - margin) * scale) for length in (height, width))
    yield high, ((every, *kept), (every, *kept))
