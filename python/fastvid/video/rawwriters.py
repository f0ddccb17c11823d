"""Output without a codec library: y4m files and folders of PNG files."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from fractions import Fraction
from typing import IO, TYPE_CHECKING

from fastvid.errors import InputError, OutputError
from fastvid.video import colour as colours
from fastvid.video.target import Target, output_errors
from fastvid.video.types import Colour, Frame, VideoInfo

_JITTER = Fraction(1, 1000)
"""Seconds that a constant rate may seem to vary by: what Matroska rounds time stamps to."""

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext


def check_image(frame: Frame, info: VideoInfo) -> None:
    """Raises `InputError` for a picture of another size or depth than `info` states."""
    expected = (info.height, info.width, 3)
    if frame.image.shape != expected:
        raise InputError(f"frame: shape must be {expected}, got {frame.image.shape}")
    dtype = "uint16" if info.bit_depth > 8 else "uint8"
    if frame.image.dtype != dtype:
        raise InputError(
            f"frame: dtype must be {dtype} for {info.bit_depth} bits, got {frame.image.dtype}"
        )


def _refuse_hdr(target: Target, info: VideoInfo, what: str) -> None:
    kind = colours.HDR.get(info.colour.transfer)
    if kind is not None:
        raise OutputError(
            f"{target.path}: {what} must be standard dynamic range, got {kind}, which it has no "
            "tag for",
            hint="write .mp4 or .mkv",
        )


class Y4mWriter:
    """8-bit 4:2:0 in a y4m file; odd sizes round the chroma planes up.

    Args:
        target: Where to write.
        info: Size, rate and colour.
    """

    def __init__(self, target: Target, info: VideoInfo) -> None:
        self.warnings: list[str] = []
        self.copied = {"audio": 0, "subtitle": 0}
        _refuse_hdr(target, info, "a .y4m file")
        if info.bit_depth > 8:
            raise OutputError(
                f"{target.path}: a .y4m file must have 8 bits a sample, got {info.bit_depth}",
                hint="write .mp4 or .mkv; or read with bit_depth=8 (--to-8bit)",
            )
        self._target = target
        self._info = info
        # The format has no tag for the matrix, so the one that readers assume is used.
        matrix = Colour.default_matrix(info.width, info.height)
        self._colour = replace(info.colour.encoded(), matrix=matrix)
        self._first: Fraction | None = None
        self._count = 0
        self._file: IO[bytes] | None = None

    def _open(self) -> IO[bytes]:
        info, rate, aspect = self._info, self._info.fps, self._info.pixel_aspect
        colour_range = "FULL" if self._colour.full_range else "LIMITED"
        header = (
            f"YUV4MPEG2 W{info.width} H{info.height} F{rate.numerator}:{rate.denominator} Ip "
            f"A{aspect.numerator}:{aspect.denominator} C420mpeg2 XYSCSS=420MPEG2 "
            f"XCOLORRANGE={colour_range}\n"
        )
        file = open(self._target.part, "wb")  # noqa: SIM115
        file.write(header.encode())
        return file

    def write(self, frame: Frame) -> None:
        """Adds a frame.

        Raises:
            OutputError: The rate varies, or the file cannot be written.
        """
        check_image(frame, self._info)
        if self._first is None:
            self._first = frame.time
        expected = self._first + self._count / self._info.fps
        if abs(frame.time - expected) > _JITTER:
            raise OutputError(
                f"{self._target.path}: a .y4m file must have a constant frame rate, got frame "
                f"{self._count} at {float(frame.time):.4f} s, not {float(expected):.4f} s",
                hint="write .mp4, or give the video a constant rate first",
            )
        self._count += 1
        with output_errors(self._target.path):
            if self._file is None:
                self._file = self._open()
            self._file.write(b"FRAME\n")
            for plane in colours.to_yuv(frame.image, self._colour, "420"):
                self._file.write(plane.tobytes())

    def finish(self) -> None:
        """Closes the file; raises `OutputError` where there were no frames."""
        if self._file is None:
            raise OutputError(f"{self._target.path}: video must have frames, got none")
        with output_errors(self._target.path):
            self._file.close()

    def abort(self) -> None:
        """Closes the file."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()


class PngFolderWriter:
    """One numbered RGB PNG file per frame, of 8 or 16 bits: 000000.png and on.

    Args:
        target: The folder to create.
        info: Size and rate.
    """

    def __init__(self, target: Target, info: VideoInfo) -> None:
        self.warnings: list[str] = []
        self.copied = {"audio": 0, "subtitle": 0}
        _refuse_hdr(target, info, "a folder of PNG files")
        self._target = target
        self._info = info
        self._count = 0
        self._durations: set[Fraction] = set()

    def _encoder(self) -> VideoCodecContext:
        from av import CodecContext

        context: VideoCodecContext = CodecContext.create("png", "w")
        context.width, context.height = self._info.width, self._info.height
        context.pix_fmt = "rgb48be" if self._info.bit_depth > 8 else "rgb24"
        context.time_base = Fraction(1, 25)
        context.options = {"compression_level": "3"}
        return context

    def write(self, frame: Frame) -> None:
        """Writes the next file."""
        from av import VideoFrame

        check_image(frame, self._info)
        with output_errors(self._target.path):
            encoder = self._encoder()
            name = "rgb48be" if frame.image.dtype == "uint16" else "rgb24"
            packets = encoder.encode(VideoFrame.from_ndarray(frame.image, format=name))
            packets += encoder.encode(None)
            with open(os.path.join(self._target.part, f"{self._count:06d}.png"), "wb") as file:
                for packet in packets:
                    file.write(bytes(packet))
        self._count += 1
        if len(self._durations) < 2:
            self._durations.add(frame.duration)

    def finish(self) -> None:
        """Raises `OutputError` where there were no frames."""
        if not self._count:
            raise OutputError(f"{self._target.path}: video must have frames, got none")
        if len(self._durations) > 1:
            self.warnings.append("a folder of images does not keep the varying frame rate")

    def abort(self) -> None:
        """Nothing is open between frames."""
