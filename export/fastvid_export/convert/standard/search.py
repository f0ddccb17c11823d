"""Dense inverse search in standard operators: all patches of a level at once.

The method and its numbers are those of `ops/inverse_search.h` and `core/search.h`. A loop goes over
the levels of the pyramid, because their number follows from the size of the images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto

from fastvid_export.convert.standard.builder import Builder
from fastvid_export.convert.standard.patches import (
    NO_COST,
    PATCH,
    Found,
    Patches,
    Target,
    compared,
    descended,
    kept_inside,
    length,
    patches_of,
    sampled,
    target_of,
)

_COARSEST = 16
_MOST_LEVELS = 14
_NEIGHBOUR_SHARE, _ZERO_SHARE, _SLACK = 0.8, 0.33, 64.0


def inverse_search(b: Builder, inputs: Sequence[str], attributes: Mapping[str, Any]) -> list[str]:
    """Flows both ways, (N, 2, H, W) each, of two images (N, 1, H, W) in [0, 1]."""
    iterations, stride, finest = (
        int(attributes.get(name, default))
        for name, default in (("iterations", 8), ("stride", 4), ("finest", 0))
    )
    both = b.no_nan(b.op("Concat", *inputs, axis=0))
    base = b.op("Mul", b.clip(both, b.const(0), b.const(1)), b.const(255))
    least = b.op("Min", b.size(base, 2), b.size(base, 3))
    coarsest = b.op("Max", _levels(b, least, finest), b.ints(finest))
    turns = b.op("Add", b.op("Sub", coarsest, b.ints(finest)), b.ints(1))
    start = b.op("Expand", b.const(0), b.op("Concat", b.size(base, 0), b.ints(2, 1, 1), axis=0))

    def level(c: Builder, turn: str, flow: str) -> list[str]:
        halvings = c.op("Squeeze", c.op("Sub", coarsest, turn), c.ints(0))
        (plane,) = c.loop(halvings, [base], lambda d, _, x: [_halved(d, x)])
        return [_search(c, _at_least_a_patch(c, plane), flow, iterations, stride)]

    (flow,) = b.loop(b.op("Squeeze", turns, b.ints(0)), [start], level)
    for k in range(finest, -1, -1):
        # The sizes of level k: halved k times, rounded up.
        sizes = b.op("Shape", base, start=2, end=4)
        less = b.op("Div", b.op("Sub", sizes, b.ints(1)), b.ints(1 << k))
        flow = b.op("Slice", flow, b.ints(0, 0), b.op("Add", less, b.ints(1)), b.ints(2, 3))
        if k > 0:
            flow = b.op("Mul", _doubled(b, flow), b.const(2))
    smallest = b.op(
        "Add", b.op("Div", b.op("Sub", least, b.ints(1)), b.ints(1 << finest)), b.ints(1)
    )
    enough = b.cast(b.op("GreaterOrEqual", smallest, b.ints(PATCH)))
    flow = b.op("Mul", flow, enough)
    count = b.size(inputs[0], 0)
    return [
        b.op("Slice", flow, b.ints(0), count, b.ints(0)),
        b.op("Slice", flow, count, b.ints(1 << 40), b.ints(0)),
    ]


def _levels(b: Builder, least: str, finest: int) -> str:
    """int64 (1,): the coarsest level, from the shorter side of the images."""
    powers = range(1, _MOST_LEVELS + 1)
    less = b.op("Div", b.op("Sub", least, b.ints(1)), b.ints(*(1 << k for k in powers)))
    sides = b.op("Add", less, b.ints(1))
    needed = b.ints(*(PATCH if k <= finest else _COARSEST for k in powers))
    there = b.cast(b.op("GreaterOrEqual", sides, needed), TensorProto.INT64)
    return b.reduce("ReduceSum", there, [0])


def _halved(b: Builder, plane: str) -> str:
    """Means of 2x2 pixels; an odd side repeats its last."""
    padded = b.op("Pad", plane, b.ints(0, 0, 0, 0, 0, 0, 1, 1), mode="edge")
    return str(b.op("AveragePool", padded, kernel_shape=[2, 2], strides=[2, 2]))


def _at_least_a_patch(b: Builder, plane: str) -> str:
    missing = b.op("Sub", b.ints(PATCH, PATCH), b.op("Shape", plane, start=2, end=4))
    ends = b.op("Max", missing, b.ints(0, 0))
    pads = b.op("Concat", b.ints(0, 0, 0, 0, 0, 0), ends, axis=0)
    return str(b.op("Pad", plane, pads, mode="edge"))


def _doubled(b: Builder, flow: str) -> str:
    return str(
        b.op(
            "Resize",
            flow,
            "",
            b.const([1, 1, 2, 2]),
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        )
    )


# One level


def _search(b: Builder, planes: str, coarse: str, iterations: int, stride: int) -> str:
    """The dense flow of one level; `planes` (2N, 1, H, W) are the images, first all of one kind."""
    count = b.op("Div", b.size(planes, 0), b.ints(2))
    others = b.op(
        "Concat",
        b.op("Slice", planes, count, b.ints(1 << 40), b.ints(0)),
        b.op("Slice", planes, b.ints(0), count, b.ints(0)),
        axis=0,
    )
    columns, rows = (_corners(b, b.size(planes, axis), stride) for axis in (3, 2))
    # (planes, rows, columns): the order of all patches.
    shape = b.op("Concat", b.size(planes, 0), b.size(rows, 0), b.size(columns, 0), axis=0)
    target = target_of(b, others)
    x, y, item = _positions(b, planes, columns, rows, shape)
    patches, at = patches_of(b, planes, x, y, item, target)
    dx, dy = _coarse_flow(b, coarse, x, y, item)
    found = descended(b, patches, target, dx, dy, iterations)
    changed = b.op("Equal", x, x)
    for turn in range(2):
        found, changed = _propagated(b, patches, target, found, changed, shape, iterations, turn)
    return _dense(b, patches, target, found, at, planes)


def _corners(b: Builder, size: str, stride: int) -> str:
    """int64: places of the patches along one side; the last ends at the border."""
    last = b.op("Sub", size, b.ints(PATCH))
    count = b.op("Div", b.op("Add", last, b.ints(2 * stride - 1)), b.ints(stride))
    steps = b.op(
        "Range",
        b.const(0, np.int64),
        b.op("Squeeze", count, b.ints(0)),
        b.const(1, np.int64),
    )
    return str(b.op("Min", b.op("Mul", steps, b.ints(stride)), last))


def _positions(
    b: Builder, planes: str, columns: str, rows: str, shape: str
) -> tuple[str, str, str]:
    """int64 (M,): column and row of each patch's corner, and its plane."""
    flat = b.ints(-1)
    items = b.op("Range", b.const(0, np.int64), b.scalar_size(planes, 0), b.const(1, np.int64))
    spread = (
        columns,
        b.op("Unsqueeze", rows, b.ints(1)),
        b.op("Unsqueeze", items, b.ints(1, 2)),
    )
    x, y, item = (b.op("Reshape", b.op("Expand", value, shape), flat) for value in spread)
    return x, y, item


def _coarse_flow(b: Builder, coarse: str, x: str, y: str, item: str) -> tuple[str, str]:
    """Twice the mean of the four coarse pixels at the middle of each patch."""
    width, height = b.size(coarse, 3), b.size(coarse, 2)
    ends = [b.op("Sub", size, b.ints(1)) for size in (width, height)]
    near = [
        b.op("Min", b.op("Div", b.op("Add", at, b.ints(3)), b.ints(2)), end)
        for at, end in zip((x, y), ends, strict=True)
    ]
    far = [b.op("Min", b.op("Add", at, b.ints(1)), end) for at, end in zip(near, ends, strict=True)]
    pixels = b.op("Reshape", coarse, b.ints(-1))
    flows = []
    for part in range(2):
        plane = b.op("Add", b.op("Mul", item, b.ints(2)), b.ints(part))
        total = ""
        for row in (near[1], far[1]):
            start = b.op("Mul", b.op("Add", b.op("Mul", plane, height), row), width)
            for column in (near[0], far[0]):
                value = b.op("Gather", pixels, b.op("Add", start, column), axis=0)
                total = b.op("Add", total, value) if total else value
        flows.append(b.op("Mul", total, b.const(0.5)))
    return flows[0], flows[1]


# What neighbours found


def _rows_where(b: Builder, flags: str) -> str:
    """int64 (K,): rows that are set, and row 0, so that there is one."""
    rows = b.op("Squeeze", b.op("NonZero", flags), b.ints(0))
    return str(b.op("Concat", b.ints(0), rows, axis=0))


def _neighbours(b: Builder, values: str, shape: str) -> list[str]:
    """Those left, right, above and below, in this order; at the border a patch's own."""
    grid = b.op("Reshape", values, shape)
    padded = b.op("Pad", grid, b.ints(0, 1, 1, 0, 1, 1), mode="edge")
    rows, columns = b.part(padded, 1, 1, -1), b.part(padded, 2, 1, -1)
    cuts = (
        b.part(rows, 2, 0, -2),
        b.part(rows, 2, 2, 1 << 40),
        b.part(columns, 1, 0, -2),
        b.part(columns, 1, 2, 1 << 40),
    )
    return [str(b.op("Reshape", cut, b.ints(-1))) for cut in cuts]


def _propagated(
    b: Builder,
    patches: Patches,
    target: Target,
    found: Found,
    changed: str,
    shape: str,
    iterations: int,
    turn: int,
) -> tuple[Found, str]:
    """Each patch descends from the best of its neighbours' flows, if one is better than its own.

    Args:
        b: The builder.
        patches: All patches.
        target: What is searched.
        found: What they have found so far.
        changed: Which of them the last turn changed.
        shape: (planes, rows, columns) of the patches.
        iterations: Steps of a descent.
        turn: 0 or 1; in the first a patch tries to stand still too.

    Returns:
        What is found now, and which patches changed.
    """
    dx, dy, cost = found
    limit = b.op("Sub", b.op("Mul", cost, b.const(_NEIGHBOUR_SHARE)), b.const(_SLACK))
    zero_limit = b.op("Sub", b.op("Mul", cost, b.const(_ZERO_SHARE)), b.const(_SLACK))
    tries, wanted = _tries(b, dx, dy, changed, shape, turn)
    worth = b.op("Greater", limit, b.const(0))
    wanted = [b.op("And", worth, flag) for flag in wanted]
    costs = _costs_of(b, patches, target, tries, wanted)
    taken = b.op("And", worth, b.op("Not", worth))
    best_dx, best_dy = dx, dy
    for (try_dx, try_dy), flag, price in zip(tries, wanted, costs, strict=True):
        still = b.op("Equal", length(b, try_dx, try_dy), b.const(0))
        too_dear = b.op("And", still, b.op("GreaterOrEqual", price, zero_limit))
        better = b.op("And", b.op("And", flag, b.op("Less", price, limit)), b.op("Not", too_dear))
        limit = b.op("Where", better, price, limit)
        best_dx = b.op("Where", better, try_dx, best_dx)
        best_dy = b.op("Where", better, try_dy, best_dy)
        taken = b.op("Or", taken, better)
    rows = _rows_where(b, taken)
    starts = [b.op("Gather", value, rows, axis=0) for value in (best_dx, best_dy)]
    made = descended(b, patches.rows(b, rows), target, starts[0], starts[1], iterations)
    new = [
        b.op("Where", taken, b.op("ScatterElements", old, rows, value, axis=0), old)
        for old, value in zip(found, made, strict=True)
    ]
    return (new[0], new[1], new[2]), taken


def _tries(
    b: Builder, dx: str, dy: str, changed: str, shape: str, turn: int
) -> tuple[list[tuple[str, str]], list[str]]:
    """Flows to try, and for which patches."""

    def apart(first: tuple[str, str], second: tuple[str, str]) -> str:
        gaps = [b.op("Sub", p, q) for p, q in zip(first, second, strict=True)]
        return str(b.op("GreaterOrEqual", length(b, gaps[0], gaps[1]), b.const(1)))

    own = (dx, dy)
    around = list(zip(*(_neighbours(b, value, shape) for value in own), strict=True))
    as_number = b.cast(changed)
    news = _neighbours(b, as_number, shape)
    tries, wanted = [], []
    for k, (flow, new) in enumerate(zip(around, news, strict=True)):
        flag = b.op("Greater", b.op("Add", new, as_number), b.const(0))
        for other in (own, *around[:k]):
            flag = b.op("And", flag, apart(flow, other))
        tries.append(flow)
        wanted.append(flag)
    if turn == 0:
        zero = b.op("Mul", dx, b.const(0))
        tries.insert(0, (zero, zero))
        wanted.insert(0, apart(own, (zero, zero)))
    return tries, wanted


def _costs_of(
    b: Builder,
    patches: Patches,
    target: Target,
    tries: Sequence[tuple[str, str]],
    wanted: Sequence[str],
) -> list[str]:
    """The cost of each try; only those that are wanted are computed."""
    flags = b.op("Concat", *wanted, axis=0)
    which = _rows_where(b, flags)
    count = b.size(patches.x, 0)
    some = patches.rows(b, b.op("Mod", which, count))
    moved = []
    for i, (corner, size) in enumerate(((some.x, target.width), (some.y, target.height))):
        flow = b.op("Gather", b.op("Concat", *(t[i] for t in tries), axis=0), which, axis=0)
        moved.append(kept_inside(b, flow, corner, size))
    found = compared(b, some, target, moved[0], moved[1])
    nothing = b.op("Expand", b.const(NO_COST), b.op("Shape", flags))
    all_costs = b.op("ScatterElements", nothing, which, found, axis=0)
    by_try = b.op("Reshape", all_costs, b.ints(len(tries), -1))
    return [str(b.op("Squeeze", b.part(by_try, 0, i, i + 1), b.ints(0))) for i in range(len(tries))]


def _dense(b: Builder, patches: Patches, target: Target, found: Found, at: str, planes: str) -> str:
    """The mean of the patches over each pixel, weighted by how well each explains it."""
    dx, dy, _ = found
    error = b.op("Sub", sampled(b, patches, target, dx, dy), patches.value)
    weight = b.op("Div", b.const(1), b.op("Max", b.op("Abs", error), b.const(1)))
    flat = b.ints(-1)
    index = b.op("Reshape", at, flat)
    size = b.op("Shape", b.op("Reshape", planes, flat))
    nothing = b.op("Expand", b.const(0), size)
    sums = []
    for value in (dx, dy, ""):
        part = b.op("Mul", weight, b.op("Unsqueeze", value, b.ints(1))) if value else weight
        parts = b.op("Reshape", part, flat)
        sums.append(b.op("ScatterElements", nothing, index, parts, axis=0, reduction="add"))
    flows = [
        b.op("Reshape", b.op("Div", total, sums[2]), b.op("Shape", planes)) for total in sums[:2]
    ]
    return str(b.op("Concat", *flows, axis=1))
