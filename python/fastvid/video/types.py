"""The words video code shares: a frame, what is known about a video, a stage, limits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from numbers import Real
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from fastvid.errors import InputError, InputTypeError

RgbImage = npt.NDArray[Any]
"""uint8 RGB, or uint16 with 65535 for white, (H, W, 3), C-contiguous."""


def eight_bits(image: RgbImage) -> npt.NDArray[np.uint8]:
    """A picture with 8 bits a sample, rounded down."""
    return (image >> 8).astype(np.uint8) if image.dtype == np.uint16 else image


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of a video and when it is shown."""

    image: RgbImage
    """RGB, (H, W, 3), C-contiguous: uint8, or uint16 where the video has more than 8 bits."""
    time: Fraction
    """Seconds from the start of the file's earliest track."""
    duration: Fraction
    """Seconds until the next frame, greater than zero."""


@dataclass(frozen=True, slots=True)
class Colour:
    """How the numbers of a video become colours, in FFmpeg's names.

    `matrix` and `full_range` are always known: where the file does not say, pictures of up to
    576 lines and less than 1280 columns count as `smpte170m` (BT.601), larger ones as `bt709`,
    and as limited range. Pictures that are stored as RGB have the matrix `rgb` and are written
    as limited-range BT.709.
    """

    matrix: str = "rgb"
    """`rgb`, `bt709`, `smpte170m` or `bt470bg` (both BT.601), `bt2020nc`."""
    primaries: str = "bt709"
    transfer: str = "iec61966-2-1"
    full_range: bool = True

    @staticmethod
    def default_matrix(width: int, height: int) -> str:
        """The matrix of YUV pictures whose file names none."""
        return "bt709" if width >= 1280 or height > 576 else "smpte170m"

    @property
    def conversion(self) -> str:
        """The matrix as `fastvid.ops` names it: `bt601`, `bt709` or `bt2020`."""
        names = {"smpte170m": "bt601", "bt470bg": "bt601", "bt2020nc": "bt2020"}
        return names.get(self.matrix, "bt709")

    def encoded(self) -> Colour:
        """The tags an encoder of YUV writes for a video with these tags."""
        if self.matrix == "rgb":
            return Colour("bt709", self.primaries, self.transfer, False)
        return self


@dataclass(frozen=True, slots=True)
class Light:
    """Static metadata of HDR video, as SMPTE ST 2086 and CTA-861.3 have it."""

    red: tuple[Fraction, Fraction] | None = None
    """CIE 1931 x and y of the mastering display's red; None for all five where there is none."""
    green: tuple[Fraction, Fraction] | None = None
    blue: tuple[Fraction, Fraction] | None = None
    white: tuple[Fraction, Fraction] | None = None
    luminance: tuple[Fraction, Fraction] | None = None
    """Least and greatest of the mastering display, in candela per square metre."""
    content: tuple[int, int] | None = None
    """Greatest of a pixel and of a frame's mean in the content, likewise; None where not known."""


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What is known about a video before its frames are read."""

    width: int
    height: int
    fps: Fraction
    """Frames per second: the nominal rate, or the average where the rate varies."""
    num_frames: int | None = None
    """Number of frames as the container states it; None where it does not."""
    duration: Fraction | None = None
    """Seconds as the container states them; None where it does not."""
    path: str | None = None
    """The file whose audio and subtitle tracks belong to this video."""
    colour: Colour = field(default_factory=Colour)
    time_base: Fraction | None = None
    """The unit that all time stamps and durations are multiples of, where there is one."""
    pixel_aspect: Fraction = Fraction(1)
    """Width of a pixel divided by its height."""
    start: Fraction = Fraction(0)
    """The time in the file at `path`, in seconds, that is time 0 of this video."""
    bit_depth: int = 8
    """Bits of a sample in the source. With more than 8, frames are uint16 with 65535 for white."""
    light: Light | None = None
    """How bright the pictures of HDR video are."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.width, self.height

    @property
    def expected_frames(self) -> int | None:
        """`num_frames`, or what duration and rate let expect."""
        if self.num_frames is not None or self.duration is None:
            return self.num_frames
        return round(self.duration * self.fps)


@runtime_checkable
class Stage(Protocol):
    """A step that turns a stream of frames into another stream of frames.

    A stage may have a method `cancel()` too. When a run stops early it is called, maybe several
    times, in another thread than `process`, which should then raise soon.
    """

    @property
    def name(self) -> str:
        """One word for progress displays and reports."""
        ...

    def transform(self, info: VideoInfo) -> VideoInfo:
        """What the video becomes; raises `InputError` where it cannot be processed."""
        ...

    def process(self, frames: Iterator[Frame], info: VideoInfo) -> Iterator[Frame]:
        """The new frames, made one by one; `info` is what `transform` was given."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What a file may ask for before reading stops with `MediaLimitError`; None is no limit."""

    max_pixels: int | None = 8192 * 8192
    """Pixels of one frame."""
    max_frames: int | None = 5_000_000
    max_duration: float | None = 24 * 3600.0
    """Seconds."""

    def __post_init__(self) -> None:
        for name in ("max_pixels", "max_frames", "max_duration"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, Real)):
                raise InputTypeError(
                    f"{name}: must be a number or None, got {type(value).__name__}"
                )


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How a file is read; the arguments of `Video.open`."""

    fps: Fraction | None = None
    bit_depth: int | None = None
    alpha: str = "refuse"
    strict: bool = False
    stream: int | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.bit_depth not in (None, 8):
            raise InputError(f"bit_depth: must be None or 8, got {self.bit_depth!r}")
        if self.alpha not in ("refuse", "drop"):
            raise InputError(f"alpha: must be 'refuse' or 'drop', got {self.alpha!r}")
        if not isinstance(self.strict, bool):
            raise InputTypeError(f"strict: must be bool, got {type(self.strict).__name__}")
        if isinstance(self.stream, bool) or not isinstance(self.stream, int | None):
            raise InputTypeError(f"stream: must be int or None, got {type(self.stream).__name__}")
        if not isinstance(self.limits, Limits):
            raise InputTypeError(f"limits: must be Limits, got {type(self.limits).__name__}")
