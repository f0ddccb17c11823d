"""The 8x8 patches of inverse search: cut out, compared and moved, all at once.

See `search` for the method. Patches that are done go on being computed and are not looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from onnx import TensorProto

from fastvid_export.convert.standard.builder import Builder

PATCH = 8
_AREA = PATCH * PATCH
_PADDING = 17
_DAMPING = 4.0
_SMALL_STEP = 0.03 * 0.03
_FAR = float(_AREA)
_STILL_SHARE, _STILL_RANGE = 0.6, 0.5
NO_COST = 3e38


@dataclass(frozen=True)
class Patches:
    """Values of all patches, one row each: (M,) or (M, 64)."""

    value: str
    dx: str
    dy: str
    """Gradients without their mean."""
    xx: str
    xy: str
    yy: str
    """The Hessian."""
    x: str
    y: str
    """Corners, float32."""
    first: str
    """int64: where the plane that is searched starts in the pixels of all planes."""

    def rows(self, b: Builder, index: str) -> Patches:
        """The patches of these rows."""
        names = [getattr(self, f.name) for f in fields(self)]
        return Patches(*(str(b.op("Gather", name, index, axis=0)) for name in names))


@dataclass(frozen=True)
class Target:
    """The planes that are searched, padded."""

    pixels: str
    """Of all planes, one after another."""
    pitch: str
    width: str
    height: str
    """float32 (1,), without padding."""


def target_of(b: Builder, planes: str) -> Target:
    """Planes (n, 1, H, W) as what is searched."""
    edge = _PADDING
    padded = b.op("Pad", planes, b.ints(0, 0, edge, edge, 0, 0, edge, edge), mode="edge")
    return Target(
        pixels=b.op("Reshape", padded, b.ints(-1)),
        pitch=b.size(padded, 3),
        width=b.cast(b.size(planes, 3)),
        height=b.cast(b.size(planes, 2)),
    )


def _offsets(b: Builder, side: int, pitch: str) -> str:
    """int64 (side * side,): the pixels of a square, from its corner."""
    rows, columns = np.divmod(np.arange(side * side), side)
    down = b.op("Mul", b.const(rows, np.int64), pitch)
    return str(b.op("Add", down, b.const(columns, np.int64)))


def patches_of(
    b: Builder, planes: str, x: str, y: str, item: str, target: Target
) -> tuple[Patches, str]:
    """The patches, and int64 (M, 64): where their pixels are in all planes."""
    width, height = b.size(planes, 3), b.size(planes, 2)
    row = b.op("Add", b.op("Mul", item, height), y)
    corner = b.op("Add", b.op("Mul", row, width), x)
    at = b.op("Add", b.op("Unsqueeze", corner, b.ints(1)), _offsets(b, PATCH, width))

    def pixels(of: str) -> str:
        return str(b.op("Gather", b.op("Reshape", of, b.ints(-1)), at, axis=0))

    padded = b.op("Pad", planes, b.ints(0, 0, 1, 1, 0, 0, 1, 1), mode="edge")
    gradients = []
    for axis, other in ((3, 2), (2, 3)):
        inner = b.part(padded, other, 1, -1)
        ahead, behind = b.part(inner, axis, 2, 1 << 40), b.part(inner, axis, 0, -2)
        slope = pixels(b.op("Mul", b.op("Sub", ahead, behind), b.const(0.5)))
        gradients.append(b.op("Sub", slope, b.reduce("ReduceMean", slope, [1])))
    dx, dy = gradients
    rows = b.op("Div", b.size(target.pixels, 0), b.size(planes, 0))
    return (
        Patches(
            value=pixels(planes),
            dx=dx,
            dy=dy,
            xx=_sum(b, b.op("Mul", dx, dx)),
            xy=_sum(b, b.op("Mul", dx, dy)),
            yy=_sum(b, b.op("Mul", dy, dy)),
            x=b.cast(x),
            y=b.cast(y),
            first=b.op("Mul", item, rows),
        ),
        at,
    )


def _sum(b: Builder, x: str) -> str:
    """Over the pixels of each patch."""
    return str(b.op("Squeeze", b.reduce("ReduceSum", x, [1]), b.ints(1)))


def sampled(b: Builder, patches: Patches, target: Target, dx: str, dy: str) -> str:
    """(M, 64): the pixels under each patch when it is moved."""
    x, y = b.op("Add", patches.x, dx), b.op("Add", patches.y, dy)
    column, row = b.op("Floor", x), b.op("Floor", y)
    right, down = (
        b.op("Unsqueeze", b.op("Sub", at, whole), b.ints(1, 2))
        for at, whole in ((x, column), (y, row))
    )
    padded = [b.op("Add", b.cast(at, TensorProto.INT64), b.ints(_PADDING)) for at in (column, row)]
    corner = b.op("Add", b.op("Mul", padded[1], target.pitch), padded[0])
    corner = b.op("Unsqueeze", b.op("Add", corner, patches.first), b.ints(1))
    at = b.op("Add", corner, _offsets(b, PATCH + 1, target.pitch))
    square = b.op("Reshape", b.op("Gather", target.pixels, at, axis=0), b.ints(-1, 9, 9))
    across = _mixed(b, square, right, 2)
    return str(b.op("Reshape", _mixed(b, across, down, 1), b.ints(-1, _AREA)))


def _mixed(b: Builder, x: str, share: str, axis: int) -> str:
    """Each value along an axis with the share of the next one."""
    near = b.op("Mul", b.part(x, axis, 0, PATCH), b.op("Sub", b.const(1), share))
    return str(b.op("Add", near, b.op("Mul", b.part(x, axis, 1, PATCH + 1), share)))


def _cost(b: Builder, total: str, square: str) -> str:
    """The sum of squares without the mean."""
    mean = b.op("Mul", b.op("Mul", total, total), b.const(1 / _AREA))
    return str(b.op("Max", b.op("Sub", square, mean), b.const(0)))


def compared(b: Builder, patches: Patches, target: Target, dx: str, dy: str) -> str:
    """The cost of each patch when it is moved."""
    difference = b.op("Sub", sampled(b, patches, target, dx, dy), patches.value)
    return _cost(b, _sum(b, difference), _sum(b, b.op("Mul", difference, difference)))


def kept_inside(b: Builder, flow: str, corner: str, size: str) -> str:
    """A patch stays within its own size of the plane."""
    low = b.op("Neg", b.op("Add", corner, b.const(PATCH)))
    return b.clip(flow, low, b.op("Sub", size, corner))


def length(b: Builder, dx: str, dy: str) -> str:
    """Squared."""
    return str(b.op("Add", b.op("Mul", dx, dx), b.op("Mul", dy, dy)))


Found = tuple[str, str, str]
"""Flow and cost of each patch."""


def descended(
    b: Builder, patches: Patches, target: Target, dx: str, dy: str, iterations: int
) -> Found:
    """Where each patch ends that starts at a flow."""
    a, c = (b.op("Add", value, b.const(_DAMPING)) for value in (patches.xx, patches.yy))
    determinant = b.op("Sub", b.op("Mul", a, c), b.op("Mul", patches.xy, patches.xy))
    safe = b.op("Max", determinant, b.const(1))
    known = b.op("Greater", determinant, b.const(1))
    scale = b.op("Where", known, b.op("Div", b.const(1), safe), b.const(0))
    inverse = (
        b.op("Mul", c, scale),
        b.op("Neg", b.op("Mul", patches.xy, scale)),
        b.op("Mul", a, scale),
    )
    dx = kept_inside(b, dx, patches.x, target.width)
    dy = kept_inside(b, dy, patches.y, target.height)
    none = b.op("Add", b.op("Mul", patches.x, b.const(0)), b.const(NO_COST))
    active = b.op("Equal", none, none)

    def step(c: Builder, _: str, *state: str) -> list[str]:
        return _step(c, patches, target, inverse, (dx, dy), state)

    turns = b.const(iterations, np.int64)
    state = b.loop(turns, [dx, dy, dx, dy, none, active], step, booleans=1)
    return _at_rest(b, patches, target, (state[2], state[3], state[4]))


def _step(
    b: Builder,
    patches: Patches,
    target: Target,
    inverse: tuple[str, str, str],
    start: tuple[str, str],
    state: Sequence[str],
) -> list[str]:
    """Measures, keeps the best place and moves on."""
    dx, dy, best_dx, best_dy, best_cost, active = state
    difference = b.op("Sub", sampled(b, patches, target, dx, dy), patches.value)
    cost = _cost(b, _sum(b, difference), _sum(b, b.op("Mul", difference, difference)))
    by_dx, by_dy = (_sum(b, b.op("Mul", difference, g)) for g in (patches.dx, patches.dy))
    xx, xy, yy = inverse
    step_x = b.op("Add", b.op("Mul", xx, by_dx), b.op("Mul", xy, by_dy))
    step_y = b.op("Add", b.op("Mul", xy, by_dx), b.op("Mul", yy, by_dy))
    new_dx = kept_inside(b, b.op("Sub", dx, step_x), patches.x, target.width)
    new_dy = kept_inside(b, b.op("Sub", dy, step_y), patches.y, target.height)
    gone = length(b, b.op("Sub", new_dx, start[0]), b.op("Sub", new_dy, start[1]))
    near = b.op("LessOrEqual", gone, b.const(_FAR))
    small = b.op("Less", length(b, step_x, step_y), b.const(_SMALL_STEP))
    better = b.op("And", active, b.op("Less", cost, best_cost))
    last = b.op("And", small, near)
    best = [
        b.op("Where", better, b.op("Where", last, new, old), kept)
        for new, old, kept in ((new_dx, dx, best_dx), (new_dy, dy, best_dy))
    ]
    go_on = b.op("And", b.op("And", better, near), b.op("Not", small))
    return [new_dx, new_dy, *best, b.op("Where", better, cost, best_cost), go_on]


def _at_rest(b: Builder, patches: Patches, target: Target, found: Found) -> Found:
    """Patches whose small motion is noise stand still."""
    dx, dy, cost = found
    slow = b.op(
        "And",
        *(b.op("Less", b.op("Abs", d), b.const(_STILL_RANGE)) for d in (dx, dy)),
    )
    zero = b.op("Mul", dx, b.const(0))
    still = compared(b, patches, target, zero, zero)
    mixed = b.op("Mul", b.op("Mul", b.op("Mul", dx, dy), patches.xy), b.const(2))
    explained = b.op(
        "Add",
        b.op(
            "Add",
            b.op("Mul", b.op("Mul", dx, dx), patches.xx),
            b.op("Mul", b.op("Mul", dy, dy), patches.yy),
        ),
        mixed,
    )
    noise = b.op("LessOrEqual", explained, b.op("Mul", still, b.const(_STILL_SHARE)))
    moved = b.op("Greater", length(b, dx, dy), b.const(0))
    rests = b.op("And", b.op("And", slow, moved), noise)
    return (
        b.op("Where", rests, b.const(0), dx),
        b.op("Where", rests, b.const(0), dy),
        b.op("Where", rests, still, cost),
    )
