"""How engines are built and run."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastvid._specs import SizeRule
from fastvid.backends.tensorrt._setup import ProgressCallback
from fastvid.backends.tensorrt._store import DEFAULT_LIMIT, folder_argument
from fastvid.errors import InputError, InputTypeError

BUILD_MODES = ("now", "background", "never")
COMPATIBILITY = ("none", "same_compute_capability")

NAMED_SIZES: Mapping[str, tuple[int, int]] = {
    "360p": (360, 640),
    "540p": (540, 960),
    "720p": (720, 1280),
    "1080p": (1080, 1920),
    "1440p": (1440, 2560),
    "2160p": (2160, 4096),
}
"""Greatest height and width of the frames of a named size."""
_DEFAULT_SIZES = ("720p", "1080p")
_EXACT = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", re.ASCII)
_MAX_BATCH = 64


@dataclass(frozen=True)
class EngineOptions:
    """What `backend=` takes in place of `"tensorrt"`, to say how engines are built and run.

    Raises:
        InputTypeError: A value has the wrong type.
        InputError: A value is not allowed.
    """

    sizes: tuple[str, ...] | None = None
    """Sizes of frames to have engines for: `"360p"`, `"540p"`, `"720p"`, `"1080p"`, `"1440p"` and
    `"2160p"` take all frames up to that size and are tuned for it, `"1920x800"` (width, height)
    takes just that one. None takes the engines that are cached, and without any `"720p"` and
    `"1080p"`, for a generator its own size."""
    batch: int = 1
    """Greatest number of frames in one run."""
    shapes: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    """Least, best and greatest value of other sizes that the bundle's graphs name."""
    build: str = "now"
    """What happens where an engine is missing: `"now"` builds it, which takes minutes,
    `"background"` lets onnxruntime serve on the same device meanwhile, `"never"` is an error."""
    workspace: int | None = None
    """Bytes that a layer may use for scratch; None is a quarter of the device, at most 8 GiB."""
    optimization_level: int = 3
    """0 to 5: how long TensorRT searches."""
    tf32: bool = False
    """Whether float32 products may be rounded to 10 bits of mantissa, which is faster."""
    compatibility: str = "none"
    """`"same_compute_capability"` makes engines that other GPU models of the same compute
    capability run too; needs TensorRT 10.11 or newer."""
    timing_cache: bool = True
    """Whether measurements of earlier builds are used again; they make builds faster."""
    cuda_graphs: bool = True
    """Whether runs that repeat are recorded once and launched as one."""
    cache: str | os.PathLike[str] | None = None
    """The cache's folder; None is `fastvid/engines` in `XDG_CACHE_HOME`, by default `~/.cache`."""
    cache_limit: int = DEFAULT_LIMIT
    """Bytes of all engines of the cache; those unused for longest are removed."""
    progress: ProgressCallback | None = field(default=None, compare=False, repr=False)
    """Told of builds (`Progress`), at most ten times a second and from any thread."""

    def __post_init__(self) -> None:
        if isinstance(self.sizes, str):
            raise InputTypeError(f"sizes: argument must be a tuple of sizes, got {self.sizes!r}")
        if self.sizes is not None:
            object.__setattr__(self, "sizes", tuple(self.sizes))
            for size in self.sizes or ():
                _parse(size)
            if not self.sizes:
                raise InputError("sizes: argument must name at least one size, got none")
        _choice("build", self.build, BUILD_MODES)
        _choice("compatibility", self.compatibility, COMPATIBILITY)
        _integer("batch", self.batch, 1, _MAX_BATCH)
        _integer("optimization_level", self.optimization_level, 0, 5)
        _integer("cache_limit", self.cache_limit, 0, 1 << 60)
        if self.workspace is not None:
            _integer("workspace", self.workspace, 1 << 20, 1 << 50)
        for name in ("tf32", "timing_cache", "cuda_graphs"):
            if not isinstance(getattr(self, name), bool):
                got = type(getattr(self, name)).__name__
                raise InputTypeError(f"{name}: argument must be bool, got {got}")
        for symbol, sizes in self.shapes.items():
            if len(sizes) != 3 or not 1 <= sizes[0] <= sizes[1] <= sizes[2]:
                raise InputError(
                    f"shapes: {symbol!r} must have a least, best and greatest size, got {sizes}"
                )
        folder_argument(self.cache)

    def builder(self, memory: int) -> dict[str, Any]:
        """The options that change what is built, as plain values.

        Args:
            memory: Bytes of the device.
        """
        return {
            "workspace": self.workspace or max(min(memory // 4, 8 << 30), 1 << 20),
            "optimization_level": self.optimization_level,
            "tf32": self.tf32,
            "compatibility": self.compatibility,
        }

    def replaced(self, **changes: Any) -> EngineOptions:
        """The same with some values changed."""
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True)
class FrameSize:
    """Heights and widths that one engine takes."""

    label: str
    low: tuple[int, int]
    """Least height and width."""
    best: tuple[int, int]
    """The size it is tuned for."""
    high: tuple[int, int]
    """Greatest height and width."""


def frame_sizes(sizes: tuple[str, ...] | None, rule: SizeRule) -> tuple[FrameSize, ...]:
    """The sizes that engines are built for, within what a bundle allows.

    Args:
        sizes: As in `EngineOptions`; None is what fits of the default ones.
        rule: Of the bundle.

    Raises:
        InputError: The bundle does not allow a size.
    """
    if sizes is None:
        fitting = [s for s in _DEFAULT_SIZES if max(NAMED_SIZES[s]) <= rule.maximum]
        sizes = tuple(fitting) or (f"{rule.maximum}x{rule.maximum}",)
    return tuple(_frame_size(size, rule) for size in dict.fromkeys(sizes))


def _frame_size(label: str, rule: SizeRule) -> FrameSize:
    wanted = _parse(label)
    if label not in NAMED_SIZES:
        exact = rule.padded(*wanted)
        return FrameSize(label, exact, exact, exact)
    step = 1 if rule.padding == "internal" else rule.multiple_of
    least = -(-rule.minimum // step) * step
    if rule.padding == "none":
        wanted = (wanted[0] // step * step, wanted[1] // step * step)
    high = rule.padded(*wanted)
    return FrameSize(label, (least, least), high, high)


def _parse(label: object) -> tuple[int, int]:
    """Height and width."""
    if not isinstance(label, str):
        raise InputTypeError(f"sizes: each must be a string, got {type(label).__name__}")
    if label in NAMED_SIZES:
        return NAMED_SIZES[label]
    if match := _EXACT.fullmatch(label):
        return int(match[2]), int(match[1])
    names = ", ".join(map(repr, NAMED_SIZES))
    raise InputError(f"sizes: each must be {names} or WIDTHxHEIGHT, got {label[:40]!a}")


def _choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        names = ", ".join(map(repr, allowed))
        raise InputError(f"{name}: argument must be one of {names}, got {value!r:.40}")


def _integer(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputTypeError(f"{name}: argument must be an integer, got {type(value).__name__}")
    if not low <= value <= high:
        raise InputError(f"{name}: argument must be from {low} to {high}, got {value}")
