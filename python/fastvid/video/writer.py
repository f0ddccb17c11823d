"""Encodes frames into a video file with exact time stamps, colour tags and copied tracks."""

from __future__ import annotations

import contextlib
import math
import os
from collections import deque
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Protocol

from fastvid.errors import InputError, OutputError
from fastvid.video import colour as colours
from fastvid.video.light import encoder_options
from fastvid.video.rawwriters import PngFolderWriter, Y4mWriter, check_image
from fastvid.video.target import Target, output_errors
from fastvid.video.tracks import TrackCopier, left_behind
from fastvid.video.types import Frame, VideoInfo

if TYPE_CHECKING:
    from av import Packet
    from av.container import OutputContainer
    from av.video.stream import VideoStream

CODECS = ("h264", "hevc", "av1", "lossless")
EFFORTS = ("fast", "medium", "slow")
FORMATS = {
    ".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm",
    ".ts": "mpegts",
}  # fmt: skip

_MAX_TIMESCALE = 2**31 - 1
_LOOKAHEAD = 2
_SMALLEST_HEVC = 64
_ENCODERS = {"h264": "libx264", "hevc": "libx265", "av1": "libsvtav1"}
_PRESETS = {
    "h264": ("veryfast", "medium", "slow"),
    "hevc": ("superfast", "fast", "medium"),
    "av1": ("11", "9", "6"),
}


@dataclass(frozen=True, slots=True)
class EncodeOptions:
    """How a video is written; the arguments of `Video.save`."""

    codec: str | None = None
    """One of `CODECS`; None is AV1 for .webm, HEVC for more than 8 bits and H.264 otherwise."""
    quality: int = 75
    """0 (smallest file) to 100 (best picture); 75 looks like the source. No meaning for lossless.

    It sets the constant rate factor: H.264 51 - 0.44 q, HEVC 51 - 0.42 q, AV1 63 - 0.46 q.
    """
    effort: str = "fast"
    """One of `EFFORTS`: encoding time spent for a smaller file."""
    audio: str = "copy"
    """"copy" or "drop"."""
    subtitles: str = "copy"
    """"copy" or "drop"."""

    def __post_init__(self) -> None:
        if self.codec is not None and self.codec not in CODECS:
            raise InputError(f"codec: must be one of {', '.join(CODECS)}, got {self.codec!r}")
        if isinstance(self.quality, bool) or not isinstance(self.quality, int):
            raise InputError(f"quality: must be an int from 0 to 100, got {self.quality!r}")
        if not 0 <= self.quality <= 100:
            raise InputError(f"quality: must be from 0 to 100, got {self.quality}")
        if self.effort not in EFFORTS:
            raise InputError(f"effort: must be one of {', '.join(EFFORTS)}, got {self.effort!r}")
        for name in ("audio", "subtitles"):
            if getattr(self, name) not in ("copy", "drop"):
                raise InputError(f"{name}: must be 'copy' or 'drop', got {getattr(self, name)!r}")

    def rate_factor(self, codec: str) -> int:
        """The constant rate factor of `codec` for this quality."""
        top, slope = {"h264": (51, 0.44), "hevc": (51, 0.42), "av1": (63, 0.46)}[codec]
        return round(top - slope * self.quality)


class Writer(Protocol):
    """Takes frames one by one; nothing is complete before `finish`."""

    warnings: list[str]
    copied: dict[str, int]

    def write(self, frame: Frame) -> None:
        """Adds a frame."""
        ...

    def finish(self) -> None:
        """Completes the output."""
        ...

    def abort(self) -> None:
        """Stops without completing; never raises."""
        ...


def open_writer(target: Target, info: VideoInfo, options: EncodeOptions) -> Writer:
    """The writer for the suffix of `target`.

    Raises:
        OutputError: The suffix is unknown or cannot hold the codec.
    """
    suffix = os.path.splitext(target.path)[1].lower()
    if target.is_folder or suffix == ".y4m":
        writer = (PngFolderWriter if target.is_folder else Y4mWriter)(target, info)
        writer.warnings += left_behind(info.path, audio=options.audio, subtitles=options.subtitles)
        return writer
    if suffix not in FORMATS:
        known = ", ".join([*FORMATS, ".y4m"])
        raise OutputError(
            f"{target.path}: suffix must be one of {known}, got {suffix!r}",
            hint="a name without a suffix is a folder of PNG files",
        )
    return FileWriter(target, info, options, FORMATS[suffix])


class FileWriter:
    """Writes a container file.

    4:2:0 is used for even sizes and 4:4:4 for odd ones (H.264, HEVC), with a warning. `lossless`
    is bit-exact RGB: FFV1 in .mkv, H.264 with quantiser 0 in .mp4 and .mov. Video of more than 8
    bits is written with 10, or losslessly with 16 in .mkv; HDR keeps its tags and what it says of
    light.

    Args:
        target: Where to write.
        info: Size, rate, colour, time base and the source of tracks.
        options: Codec and quality.
        container: FFmpeg's name of the format.

    Raises:
        OutputError: The format or the codec cannot hold this video.
    """

    def __init__(
        self, target: Target, info: VideoInfo, options: EncodeOptions, container: str
    ) -> None:
        self.warnings: list[str] = []
        self.copied = {"audio": 0, "subtitle": 0}
        self._target = target
        self._info = info
        self._options = options
        self._format = container
        self._wide = info.bit_depth > 8
        self._codec = options.codec or self._default_codec()
        self._encoder, self._pixel_format = self._choose()
        self._colour = info.colour.encoded()
        if colours.is_rgb(self._pixel_format):
            self._colour = replace(info.colour, matrix="rgb", full_range=True)
        self._waiting: deque[Frame] = deque()
        self._output: OutputContainer | None = None
        self._tracks: TrackCopier | None = None
        self._durations: dict[int, int] = {}
        self._last_packet: Packet[VideoStream] | None = None
        self._first_pts: int | None = None
        self._first_dts: int | None = None
        self._rounded = 0
        self._shown = Fraction(0)
        self._end = Fraction(0)

    def _default_codec(self) -> str:
        if self._format == "webm":
            return "av1"
        # Few players take H.264 of 10 bits, most take HEVC.
        large = min(self._info.size) >= _SMALLEST_HEVC
        return "hevc" if self._wide and large else "h264"

    def _choose(self) -> tuple[str, str]:
        """FFmpeg's encoder and its pixel format."""
        path, codec, odd = self._target.path, self._codec, self._info.width % 2
        odd = odd or self._info.height % 2
        if self._format == "webm" and codec != "av1":
            raise OutputError(f"{path}: a .webm file must hold av1, got {codec}")
        if self._format == "mpegts" and codec not in ("h264", "hevc"):
            raise OutputError(f"{path}: a .ts file must hold h264 or hevc, got {codec}")
        small = min(self._info.width, self._info.height) < _SMALLEST_HEVC
        if codec == "hevc" and small:
            # x265 overruns its own buffers for some smaller sizes and aborts the process.
            raise OutputError(
                f"{path}: hevc must have at least {_SMALLEST_HEVC} pixels on both sides, got "
                f"{self._info.width}x{self._info.height}",
                hint="use codec h264 or lossless",
            )
        if codec == "lossless" and self._wide:
            if self._format != "matroska":
                raise OutputError(
                    f"{path}: lossless video of more than 8 bits must be a .mkv file, got "
                    f".{path.rpartition('.')[2]}",
                    hint="write .mkv, or codec hevc",
                )
            return "ffv1", "rgb48le"
        if codec == "lossless":
            return ("ffv1", "bgr0") if self._format == "matroska" else ("libx264rgb", "rgb24")
        depth = "10le" if self._wide else ""
        if not odd:
            return _ENCODERS[codec], "yuv420p" + depth
        size = f"{self._info.width}x{self._info.height}"
        if codec == "av1":
            raise OutputError(
                f"{path}: av1 must have an even width and height, got {size}",
                hint="use codec h264, hevc or lossless, or crop the video",
            )
        self.warnings.append(f"the odd size {size} is written as 4:4:4, which some players refuse")
        return _ENCODERS[codec], "yuv444p" + depth

    def write(self, frame: Frame) -> None:
        """Adds a frame of the size that `info` states.

        Raises:
            InputError: The frame has another size or does not come after the last one.
            OutputError: It cannot be written.
        """
        self._check(frame)
        if self._output is None:
            self._waiting.append(frame)
            if len(self._waiting) < _LOOKAHEAD:
                return
            self._open()
        else:
            self._encode(frame)

    def _check(self, frame: Frame) -> None:
        check_image(frame, self._info)
        if frame.duration <= 0 or (self._end and frame.time < self._end):
            raise InputError(
                f"frame: time and duration must move forward, got {frame.time} s for "
                f"{frame.duration} s after {self._end} s"
            )
        merged = self._end and round(1000 * frame.time) <= round(1000 * self._shown)
        if merged and self._format in ("matroska", "webm"):
            raise OutputError(
                f"{self._target.path}: {self._format} must have frames at least 1 ms apart, "
                f"got {float(frame.time - self._shown):g} s",
                hint="write .mp4",
            )
        self._shown = frame.time
        self._end = frame.time + frame.duration

    def _open(self) -> None:
        self._unit = self._time_unit()
        with output_errors(self._target.path):
            self._output = self._open_container()
            self._stream = self._add_video(self._output)
            info = self._info
            if info.path is not None and os.path.isfile(info.path):
                options = self._options
                self._tracks = TrackCopier(
                    info.path,
                    info.start,
                    self._output,
                    audio=options.audio,
                    subtitles=options.subtitles,
                )
                self.copied = self._tracks.copied
            try:
                self._output.start_encoding()
            except Exception as error:
                if isinstance(error, OSError):
                    raise
                raise OutputError(
                    f"{self._target.path}: {self._encoder} in {self._format} cannot hold this "
                    f"video of {info.width}x{info.height} ({error})"
                ) from error
        while self._waiting:
            self._encode(self._waiting.popleft())

    def _time_unit(self) -> Fraction:
        """A unit that every expected time stamp is a multiple of, if the format has one."""
        wanted = [self._info.time_base or Fraction(1)]
        for frame in self._waiting:
            wanted += [frame.time, frame.duration]
        wanted.append(1 / self._info.fps)
        unit = 1
        for value in wanted:
            finer = math.lcm(unit, value.denominator)
            if finer <= _MAX_TIMESCALE:
                unit = finer
        # Coarse units leave no room for stamps that a stage puts between the known ones.
        while unit < 10000:
            unit *= 2
        return Fraction(1, unit)

    def _open_container(self) -> OutputContainer:
        import av

        options = {}
        if self._format in ("mp4", "mov"):
            # The edit list is in the movie's unit: the default of 1 ms would shift the start.
            options = {
                "movflags": "+faststart",
                "movie_timescale": str(self._unit.denominator),
                "video_track_timescale": str(self._unit.denominator),
            }
        return av.open(
            "file:" + self._target.part, "w", format=self._format, container_options=options
        )

    def _encoder_options(self) -> dict[str, str]:
        if self._codec == "lossless":
            return {} if self._encoder == "ffv1" else {"qp": "0", "preset": "veryfast"}
        preset = _PRESETS[self._codec][EFFORTS.index(self._options.effort)]
        options = {"crf": str(self._options.rate_factor(self._codec)), "preset": preset}
        if self._codec == "hevc":
            options["x265-params"] = "log-level=none"
        light = self._info.light
        if light is not None:
            for name, value in encoder_options(light, self._encoder).items():
                options[name] = f"{options[name]}:{value}" if name in options else value
        return options

    def _add_video(self, output: OutputContainer) -> VideoStream:
        if self._codec == "av1":
            # SVT-AV1 prints its settings to stderr and takes its log level from here only.
            os.environ.setdefault("SVT_LOG", "1")
        info = self._info
        fps = info.fps.limit_denominator(1_000_000)
        stream: Any = output.add_stream(self._encoder, rate=fps, options=self._encoder_options())
        stream.width, stream.height = info.width, info.height
        stream.pix_fmt = self._pixel_format
        stream.time_base = self._unit
        context = stream.codec_context
        context.time_base = self._unit
        if info.pixel_aspect != 1:
            context.sample_aspect_ratio = info.pixel_aspect
        for name, value in colours.codes(self._colour).items():
            setattr(context, name, value)
        if self._codec == "hevc" and self._format in ("mp4", "mov"):
            context.codec_tag = "hvc1"
        video: VideoStream = stream
        return video

    def _ticks(self, value: Fraction) -> int:
        ticks = value / self._unit
        if ticks.denominator != 1:
            self._rounded += 1
        return round(ticks)

    def _encode(self, frame: Frame) -> None:
        from av import VideoFrame

        picture = VideoFrame(self._info.width, self._info.height, self._pixel_format)
        colours.fill(picture, frame.image, self._colour)
        picture.pts = self._ticks(frame.time)
        picture.time_base = self._unit
        picture.duration = max(1, self._ticks(frame.time + frame.duration) - picture.pts)
        for name, value in colours.codes(self._colour).items():
            setattr(picture, name, value)
        self._durations[picture.pts] = picture.duration
        if self._first_pts is None:
            self._first_pts = picture.pts
        with output_errors(self._target.path):
            self._mux(self._stream.encode(picture))

    def _mux(self, packets: list[Packet[VideoStream]]) -> None:
        for packet in packets:
            if packet.pts is not None:
                packet.duration = self._durations.pop(packet.pts, packet.duration or 1)
            if self._first_dts is None:
                self._first_dts = packet.dts
            previous, self._last_packet = self._last_packet, packet
            if previous is not None:
                self._mux_one(previous)

    def _mux_one(self, packet: Packet[VideoStream]) -> None:
        if self._output is None:
            return
        if self._tracks is not None:
            stamp = packet.dts if packet.dts is not None else packet.pts
            self._tracks.advance((stamp or 0) * Fraction(packet.time_base))
        self._output.mux(packet)

    def finish(self) -> None:
        """Flushes the encoder, copies what is left of the tracks and closes the file.

        Raises:
            OutputError: There were no frames, or the file cannot be completed.
        """
        if self._output is None:
            if not self._waiting:
                raise OutputError(f"{self._target.path}: video must have frames, got none")
            self._open()
        with output_errors(self._target.path):
            rest = self._stream.encode(None)
            if self._first_dts is None and self._codec == "hevc":
                _order(rest)
            self._mux(rest)
            self._finish_last()
            if self._tracks is not None:
                self._tracks.finish()
                self.warnings += self._tracks.warnings
            if self._output is not None:
                self._output.close()
        if self._rounded:
            self.warnings.append(f"{self._rounded} time stamps were rounded to {self._unit} s")
        if self._format in ("matroska", "webm") and (1000 * self._end).denominator != 1:
            self.warnings.append("Matroska rounds time stamps to 1 ms")

    def _finish_last(self) -> None:
        packet, self._last_packet = self._last_packet, None
        if packet is None:
            return
        if self._format in ("mp4", "mov") and packet.dts is not None:
            # MP4 stores decode times: the track lasts as long as the video only if the packet
            # decoded last makes up for the reordering, which matters where the rate varies.
            shown = round(self._end / self._unit) - (self._first_pts or 0)
            packet.duration = max(1, shown - (packet.dts - (self._first_dts or 0)))
        self._mux_one(packet)

    def abort(self) -> None:
        """Closes everything; the target is left to be discarded."""
        if self._tracks is not None:
            self._tracks.close()
        if self._output is not None:
            with contextlib.suppress(Exception):
                self._output.close()
            self._output = None


def _order(packets: list[Packet[VideoStream]]) -> None:
    """Sets the decode times of all packets of a video.

    x265 leaves them undefined for videos that are shorter than its reordering.
    """
    shown = [packet.pts or 0 for packet in packets]
    delay = max((late - stamp for late, stamp in zip(sorted(shown), shown, strict=True)), default=0)
    for packet, stamp in zip(packets, sorted(shown), strict=True):
        packet.dts = stamp - delay
