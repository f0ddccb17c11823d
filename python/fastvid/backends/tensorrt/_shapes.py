"""Least, best and greatest shape of each input of a graph: an optimization profile."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

from fastvid._specs import GraphSpec, TensorSpec
from fastvid.backends._checks import dimension
from fastvid.backends.tensorrt._options import EngineOptions, FrameSize
from fastvid.bundle import Bundle
from fastvid.errors import EngineBuildError

_FREE_OF_FRAMES = ("N", "L", "T")
_GOLDEN_SIDES = {"H": 96, "W": 128}


class Range(NamedTuple):
    """Sizes of one dimension."""

    low: int
    best: int
    high: int

    @classmethod
    def fixed(cls, size: int) -> Range:
        """One size only."""
        return cls(size, size, size)

    def times(self, factor: Fraction | int) -> Range:
        """The sizes of a dimension that is `factor` of this one."""
        low, best, high = (side * Fraction(factor) for side in self)
        return Range(max(1, int(low)), max(1, round(best)), max(1, -int(-high // 1)))


Ranges = Mapping[str, Range]
"""By the name of a size."""
Profile = Mapping[str, tuple[Range, ...]]
"""Per input: its dimensions."""


class Relation(NamedTuple):
    """A size that follows from another one."""

    base: str
    factor: Fraction


def symbols(tensors: Iterable[TensorSpec]) -> tuple[str, ...]:
    """Names of the sizes that vary, each once."""
    names = (dimension(size)[1] for spec in tensors for size in spec.shape)
    return tuple(dict.fromkeys(name for name in names if name))


def depends_on_frames(graph: GraphSpec) -> bool:
    """Whether a graph's shapes change with the size of frames."""
    return any(name not in _FREE_OF_FRAMES for name in symbols(graph.inputs))


def known_ranges(bundle: Bundle, options: EngineOptions, size: FrameSize) -> dict[str, Range]:
    """The sizes that are known without running a graph.

    These are H, W and N of frames, for a generator also T, L, h and w, and what
    `EngineOptions.shapes` says.
    """
    (low_h, low_w), (best_h, best_w), (high_h, high_w) = size.low, size.best, size.high
    ranges = {
        "N": Range(1, options.batch, options.batch),
        "H": Range(low_h, best_h, high_h),
        "W": Range(low_w, best_w, high_w),
    }
    if (spec := bundle.generation) is not None:
        latents = [
            (n - 1) // spec.temporal_compression + 1 for n in (spec.num_frames, spec.max_num_frames)
        ]
        pixel = Fraction(1, spec.spatial_compression)
        ranges |= {
            # The second of a batch is what guidance leads away from.
            "N": Range(1, 2, 2),
            "T": Range(1, *latents),
            "L": Range(1, spec.max_prompt_tokens, spec.max_prompt_tokens),
            "h": ranges["H"].times(pixel),
            "w": ranges["W"].times(pixel),
        }
    return ranges | {name: Range(*sizes) for name, sizes in options.shapes.items()}


def profile_of(graph: GraphSpec, ranges: Ranges) -> dict[str, tuple[Range, ...]]:
    """The profile of a graph's inputs.

    Raises:
        EngineBuildError: A size is in none of the ranges.
    """
    profile = {}
    for spec in graph.inputs:
        sizes = []
        for size in spec.shape:
            factor, name = dimension(size)
            if not name:
                sizes.append(Range.fixed(factor))
            elif name in ranges:
                sizes.append(ranges[name].times(factor))
            else:
                raise EngineBuildError(
                    f"{graph.name}: size {name!r} of input {spec.name!r} must be known to build "
                    "an engine, and does not follow from the size of frames",
                    hint=f"EngineOptions(shapes={{{name!r}: (least, best, greatest)}})",
                )
        profile[spec.name] = tuple(sizes)
    return profile


def related(ranges: Ranges, relations: Mapping[str, Relation]) -> dict[str, Range]:
    """The ranges with those that follow from them."""
    found = dict(ranges)
    for name, (base, factor) in relations.items():
        found.setdefault(name, found[base].times(factor) if base else Range.fixed(int(factor)))
    return found


def sample_sizes(
    ranges: Ranges, relations: Mapping[str, Relation], multiple: int
) -> dict[str, int]:
    """One value of each size within the ranges: frames of about 128x96 if they may be so small.

    Args:
        ranges: As for the profile.
        relations: Of sizes that follow from others.
        multiple: Of which height and width are multiples.
    """
    sizes = {}
    for name, (low, _, high) in ranges.items():
        if name in relations:
            continue
        side = _GOLDEN_SIDES.get(name)
        small = -(-side // multiple) * multiple if side else low + 1
        sizes[name] = min(high, max(low, small))
    for name, (base, factor) in relations.items():
        sizes[name] = max(1, int(sizes[base] * factor)) if base else int(factor)
    return sizes


def shapes_at(
    tensors: Iterable[TensorSpec], sizes: Mapping[str, int]
) -> dict[str, tuple[int, ...]]:
    """Shapes of tensors where every size is known."""
    shapes: dict[str, tuple[int, ...]] = {}
    for spec in tensors:
        parts = [dimension(size) for size in spec.shape]
        shapes[spec.name] = tuple(f * sizes[name] if name else f for f, name in parts)
    return shapes


def plain(profile: Profile) -> dict[str, Any]:
    """A profile as JSON holds it."""
    return {name: [list(size) for size in sizes] for name, sizes in profile.items()}


def unplain(profile: Mapping[str, Any]) -> dict[str, tuple[Range, ...]]:
    """The other way."""
    return {name: tuple(Range(*size) for size in sizes) for name, sizes in profile.items()}


def covers(profile: Profile, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether an engine with this profile takes inputs of these shapes."""
    return all(
        len(shape) == len(profile[name])
        and all(r.low <= n <= r.high for n, r in zip(shape, profile[name], strict=True))
        for name, shape in shapes.items()
    )
