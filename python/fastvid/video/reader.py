"""Reads a media file frame by frame, with exact rational time stamps."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from fastvid.errors import (
    InputError,
    MediaError,
    MediaLimitError,
    TruncatedMediaError,
    UnreadableMediaError,
    UnsupportedMediaError,
)
from fastvid.video import colour as colours
from fastvid.video import light, sniff
from fastvid.video.source import media_errors, open_container
from fastvid.video.types import Frame, Limits, ReadOptions, VideoInfo

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.stream import Stream
    from av.video.stream import VideoStream

_MAX_DECODER_THREADS = 8
_MAX_PLAUSIBLE_FPS = 1000
_CENTRE_SITED = ("mjpeg", "mpeg1video")


def _unit(timed: VideoFrame | Stream) -> Fraction:
    """The seconds that one step of a time stamp stands for."""
    return Fraction(timed.time_base or 1)


class Source(Protocol):
    """An open source of frames."""

    info: VideoInfo
    warnings: list[str]
    truncated: bool

    def frames(self) -> Iterator[Frame]:
        """The frames, once."""
        ...

    def close(self) -> None:
        """Frees what the source holds."""
        ...


class LimitGuard:
    """Counts what was read and stops at the limits."""

    def __init__(self, limits: Limits, path: str) -> None:
        self._limits = limits
        self._path = path

    def check_size(self, width: int, height: int) -> None:
        """Raises `MediaLimitError` for a frame of more pixels than allowed."""
        limit = self._limits.max_pixels
        if limit is not None and width * height > limit:
            raise MediaLimitError(
                f"{self._path}: frame must have at most {limit} pixels, got {width}x{height}",
                hint="raise Limits.max_pixels to allow it",
            )

    def check_length(self, frames: int, seconds: Fraction | None) -> None:
        """Raises `MediaLimitError` for more frames or seconds than allowed."""
        most, longest = self._limits.max_frames, self._limits.max_duration
        if most is not None and frames > most:
            raise MediaLimitError(
                f"{self._path}: video must have at most {most} frames, got {frames} or more",
                hint="raise Limits.max_frames to allow it",
            )
        if longest is not None and seconds is not None and seconds > longest:
            raise MediaLimitError(
                f"{self._path}: video must last at most {longest:g} s, got {float(seconds):g} s",
                hint="raise Limits.max_duration to allow it",
            )


class Reader:
    """An open media file: `info`, then `frames()` once.

    Args:
        path: A regular file.
        options: The arguments of `Video.open`.

    Raises:
        MediaError: The file is no video that fastvid processes; the message says why.
        InputError: `options.stream` or `options.fps` does not fit the file.
    """

    def __init__(self, path: str, options: ReadOptions) -> None:
        self.path = path
        self.warnings: list[str] = []
        self._options = options
        self._guard = LimitGuard(options.limits, path)
        self._outline = sniff.structure(path)
        self.truncated = self._outline.cut
        self._corrupt = 0
        self._count = 0
        self._container: InputContainer = open_container(path)
        try:
            with media_errors(path):
                self._probe()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; `frames()` ends."""
        with contextlib.suppress(Exception):
            self._container.close()

    def _probe(self) -> None:
        self._stream = self._pick_stream()
        context = self._stream.codec_context
        self._guard.check_size(context.width, context.height)
        # FFmpeg's frame threads for HEVC can wait for each other for ever on damaged headers.
        context.thread_type = "SLICE" if context.name == "hevc" else "AUTO"
        context.thread_count = min(_MAX_DECODER_THREADS, context.thread_count or 0)
        self._decoded = self._decode()
        first = next(self._decoded, None)
        if first is None:
            if self.truncated:
                raise TruncatedMediaError(f"{self.path}: file ends before its first frame")
            raise UnreadableMediaError(f"{self.path}: video must have frames, got none")
        self._peeked = [first]
        self._shape = (first.width, first.height)
        self._guard.check_size(first.width, first.height)
        options = self._options
        if options.alpha == "refuse" and self._tag("ALPHA_MODE") == "1":
            # WebM keeps transparency in a second stream that decoders leave out.
            raise UnsupportedMediaError(
                f"{self.path}: video must be opaque, got a transparency channel",
                hint='pass alpha="drop" to ignore transparency',
            )
        self._colour = colours.colour_of(first, self.path)
        colours.check_pixels(first, self.path, bit_depth=options.bit_depth, alpha=options.alpha)
        self._bits = 8 if options.bit_depth == 8 else colours.bits_of(first)
        self._turns, self._mirror = colours.orientation(first, self.path)
        self._chroma = self._chroma_location()
        self.info = self._describe(first)
        self._guard.check_length(self.info.num_frames or 0, self.info.duration)

    def _pick_stream(self) -> VideoStream:
        # The largest picture wins, as in the ffmpeg program; cover art does not count.
        from av.stream import Disposition

        wanted = self._options.stream
        if wanted is not None:
            for stream in self._container.streams.video:
                if stream.index == wanted:
                    return stream
            indices = [stream.index for stream in self._container.streams.video]
            raise InputError(f"stream: must be one of {indices}, got {wanted}")
        videos = [
            stream
            for stream in self._container.streams.video
            if not stream.disposition & Disposition.attached_pic
        ]
        if not videos:
            kinds = sorted({stream.type for stream in self._container.streams})
            cover = " with cover art" if self._container.streams.video else ""
            raise UnsupportedMediaError(
                f"{self.path}: file must have a video stream, got only "
                f"{', '.join(kind for kind in kinds if kind != 'video') or 'a picture'}{cover}"
            )
        videos = [stream for stream in videos if stream.codec_context is not None]
        if not videos:
            raise UnsupportedMediaError(f"{self.path}: no decoder for the codec of its video")
        return max(videos, key=lambda s: s.codec_context.width * s.codec_context.height)

    def _chroma_location(self) -> str:
        if self._stream.codec_context.name in _CENTRE_SITED:
            return "center"
        if self._container.format.name == "yuv4mpegpipe":
            with open(self.path, "rb") as file:
                words = file.readline(256).split()
            if any(word in (b"C420", b"C420jpeg") for word in words):
                return "center"
        return "left"

    def _describe(self, first: VideoFrame) -> VideoInfo:
        stream, time_base = self._stream, _unit(first)
        self._stamped = first.pts is not None
        self._base = self._start(first) if self._stamped else Fraction(0)
        fps = self._rate(first)
        self._nominal = 1 / fps
        duration = stream.duration * _unit(stream) if stream.duration else None
        if duration is None:
            duration = self._tagged_duration() or self._container_duration()
        width, height = self._shape
        aspect = Fraction(stream.codec_context.sample_aspect_ratio or 1)
        if self._turns % 2:
            width, height, aspect = height, width, 1 / aspect
        return VideoInfo(
            width=width,
            height=height,
            fps=fps,
            num_frames=stream.frames or None,
            duration=duration,
            path=self.path,
            colour=self._colour,
            time_base=time_base if self._stamped else self._nominal,
            pixel_aspect=aspect,
            start=self._base,
            bit_depth=self._bits,
            light=light.light_of(colours.side_data(first)) if self._bits > 8 else None,
        )

    def _start(self, first: VideoFrame) -> Fraction:
        starts = [first.pts * _unit(first)] if first.pts is not None else []
        starts += [
            track.start_time * _unit(track)
            for track in self._container.streams.audio
            if track.start_time is not None
        ]
        return min(starts)

    def _rate(self, first: VideoFrame) -> Fraction:
        """The nominal rate where the average is close to it, else the average."""
        wanted = self._options.fps
        if not self._stamped:
            if wanted is not None:
                return wanted
            if first.duration:
                return 1 / (first.duration * _unit(first))
        elif wanted is not None:
            raise InputError(
                f"fps: must be left out for a file with its own time stamps, got {wanted}"
            )
        average, nominal = self._stream.average_rate, self._stream.guessed_rate
        if average and nominal and abs(nominal / average - 1) < Fraction(1, 100):
            return Fraction(nominal)
        fps = Fraction(average or nominal or 0)
        return fps if 0 < fps <= _MAX_PLAUSIBLE_FPS else self._rate_of_first_frames(first)

    def _rate_of_first_frames(self, first: VideoFrame) -> Fraction:
        # MPEG-TS with a varying rate states its clock of 90 kHz as the rate.
        second = next(self._decoded, None)
        if second is None:
            return Fraction(25)
        self._peeked.append(second)
        ticks = (second.pts or 0) - (first.pts or 0)
        return 1 / (ticks * _unit(first)) if ticks > 0 else Fraction(25)

    def _tag(self, name: str) -> str:
        # Old files have the names of tags in small letters.
        tags = {key.upper(): value for key, value in self._stream.metadata.items()}
        return tags.get(name, "")

    def _tagged_duration(self) -> Fraction | None:
        """The duration that Matroska writers keep in the tag DURATION, hh:mm:ss.fraction."""
        text = self._tag("DURATION")
        try:
            hours, minutes, seconds = text.split(":")
            return 3600 * int(hours) + 60 * int(minutes) + Fraction(seconds) or None
        except ValueError:
            return None

    def _container_duration(self) -> Fraction | None:
        if not self._container.duration or not self._stamped:
            return None
        return Fraction(self._container.duration, 1_000_000)

    def _decode(self) -> Iterator[VideoFrame]:
        import av

        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError:
                # The rest of a cut or damaged file cannot be parsed: what came so far counts.
                self.truncated = True
                packet = None
            try:
                frames = self._stream.decode(packet) if packet is None else packet.decode()
            except (av.error.InvalidDataError, av.error.EOFError, av.error.UnknownError):
                self._corrupt += packet is not None
                frames = []
            if packet is not None and packet.is_corrupt:
                self._corrupt += 1
            yield from frames
            if packet is None:
                return

    def frames(self) -> Iterator[Frame]:
        """Yields every frame upright, as uint8 RGB, or uint16 for more than 8 bits.

        A frame lasts until the next one is shown. Frames that repeat a time stamp are left out
        with a warning.

        Raises:
            MediaError: The size changes or time runs backwards.
            MediaLimitError: A limit is exceeded.
            TruncatedMediaError: With `strict`, the file is cut or a part of it is damaged.
        """
        held: Frame | None = None
        repeated = 0
        with media_errors(self.path):
            for raw in self._all():
                time = self._time(raw, held)
                if held is not None and time <= held.time:
                    if time == held.time:
                        repeated += 1
                        continue
                    raise MediaError(
                        f"{self.path}: time stamps must increase, got {float(time):.6f} s after "
                        f"{float(held.time):.6f} s at frame {self._count}",
                        hint="remux the file, for example with ffmpeg -fflags +genpts -c copy",
                    )
                self._check(raw, time)
                image = colours.to_rgb(raw, self._colour, self._chroma, wide=self._bits > 8)
                image = colours.turn(image, self._turns, self._mirror)
                nominal = raw.duration * _unit(raw)
                if held is not None:
                    yield Frame(held.image, held.time, time - held.time)
                held = Frame(image, time, nominal if nominal > 0 else self._nominal)
                self._count += 1
            self._finish(repeated)
        if held is not None:
            yield Frame(held.image, held.time, self._last_duration(held))

    def _all(self) -> Iterator[VideoFrame]:
        if not self._peeked:
            raise MediaError(f"{self.path}: frames of one reader can be read once")
        peeked, self._peeked = self._peeked, []
        yield from peeked
        yield from self._decoded

    def _time(self, raw: VideoFrame, held: Frame | None) -> Fraction:
        if raw.pts is not None and self._stamped:
            return raw.pts * _unit(raw) - self._base
        if held is None:
            return Fraction(0)
        return held.time + (self._nominal if not self._stamped else held.duration)

    def _check(self, raw: VideoFrame, time: Fraction) -> None:
        if (raw.width, raw.height) != self._shape:
            old, new = "{}x{}".format(*self._shape), f"{raw.width}x{raw.height}"
            raise MediaError(
                f"{self.path}: frame size must stay {old}, got {new} at frame {self._count}",
                hint="split the file where the size changes",
            )
        if raw.is_corrupt:
            self._corrupt += 1
        self._guard.check_length(self._count + 1, time)
        options = self._options
        colours.check_pixels(raw, self.path, bit_depth=options.bit_depth, alpha=options.alpha)

    def _finish(self, repeated: int) -> None:
        if repeated:
            self.warnings.append(f"{repeated} frames with a repeated time stamp were left out")
        if self._corrupt:
            self.warnings.append(f"{self._corrupt} damaged packets or frames in {self.path}")
        if self.truncated:
            of = f" of about {self.info.expected_frames}" if self.info.expected_frames else ""
            self.warnings.append(f"{self.path} is cut: {self._count}{of} frames were read")
        if self._options.strict and (self.truncated or self._corrupt):
            raise TruncatedMediaError(f"{self.path}: file is damaged: {self.warnings[-1]}")

    def _last_duration(self, last: Frame) -> Fraction:
        """What the container says is left for the last frame, else its own duration."""
        complete = not self.truncated and self._stamped
        if complete and self._outline.kind == "mp4" and self._stream.duration:
            end = (self._stream.start_time or 0) + self._stream.duration
            left = end * _unit(self._stream) - self._base - last.time
            if left > 0 and self._count == self._stream.frames:
                return left
        tagged = self._tagged_duration()
        if complete and self._outline.kind == "matroska" and tagged is not None:
            left = tagged - self._base - last.time
            if left > 0:
                return left
        return last.duration
