"""Copies audio and subtitle packets from the source file into the output, untouched."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from fastvid.errors import OutputError
from fastvid.video.source import media_errors, open_container

if TYPE_CHECKING:
    from av import Packet
    from av.container import InputContainer, OutputContainer
    from av.stream import Stream

_KEPT_TAGS = ("language", "title", "handler_name")


def _left(container: InputContainer, kinds: tuple[str, ...]) -> list[str]:
    """Warnings for the tracks of `kinds` and the video tracks beyond the one that is read."""
    counts: Counter[str] = Counter(stream.type for stream in container.streams)
    counts["video"] -= 1
    return [
        f"{counts[kind]} {kind} track{'s' if counts[kind] > 1 else ''} of the source not copied"
        for kind in (*kinds, "video")
        if counts[kind] > 0
    ]


def left_behind(path: str | None, *, audio: str, subtitles: str) -> list[str]:
    """Warnings for an output that holds one video track and nothing else.

    Args:
        path: The source, or None for frames from memory.
        audio: "drop" where the caller asked for it, which needs no warning.
        subtitles: As `audio`.
    """
    if path is None or not os.path.isfile(path):
        return []
    kinds = {"audio": audio, "subtitle": subtitles, "data": "copy", "attachment": "copy"}
    with open_container(path) as container:
        return _left(container, tuple(kind for kind, mode in kinds.items() if mode == "copy"))


class TrackCopier:
    """Feeds the tracks of one file into an output, in step with its video.

    Args:
        path: The file that holds the tracks.
        start: The time in that file, in seconds, that becomes time 0.
        output: The open output; tracks are added to it at once.
        audio, subtitles: "copy" or "drop".

    Raises:
        OutputError: The output's format cannot hold a track.
    """

    def __init__(
        self,
        path: str,
        start: Fraction,
        output: OutputContainer,
        *,
        audio: str = "copy",
        subtitles: str = "copy",
    ) -> None:
        self._path = path
        self._start = start
        self._output = output
        self.copied = {"audio": 0, "subtitle": 0}
        self.warnings: list[str] = []
        self._refused: Counter[int] = Counter()
        self._streams: dict[int, Stream] = {}
        self._container: InputContainer = open_container(path)
        try:
            self._add({"audio": audio, "subtitle": subtitles})
        except BaseException:
            self.close()
            raise
        self._packets = self._timed()
        self._held = next(self._packets, None)

    def _add(self, modes: dict[str, str]) -> None:
        for stream in self._container.streams:
            if modes.get(stream.type) == "copy":
                self._streams[stream.index] = self._add_stream(stream)
                self.copied[stream.type] += 1
        self.warnings += _left(self._container, ("data", "attachment"))
        self._output.metadata.update(
            {
                key: value
                for key, value in self._container.metadata.items()
                if key in ("title", "artist", "comment", "date", "copyright", "creation_time")
            }
        )
        with contextlib.suppress(Exception):
            self._output.set_chapters(self._container.chapters())

    def _add_stream(self, stream: Stream) -> Stream:
        context: Any = stream.codec_context
        argument = "audio" if stream.type == "audio" else "subtitles"
        if stream.type == "audio" and context is not None and not context.sample_rate:
            raise OutputError(
                f"audio track {stream.index}: its sample rate is unknown, it may be damaged",
                hint='pass audio="drop" to leave it out',
            )
        name = context.name if context is not None else "unknown"
        try:
            copy = self._output.add_stream_from_template(stream)
        except Exception as error:
            raise OutputError(
                f"{stream.type} track {stream.index}: a {self._output.format.name} file cannot "
                f"hold {name}",
                hint=f'write .mkv, or pass {argument}="drop" to leave it out',
            ) from error
        kept = {key: stream.metadata[key] for key in _KEPT_TAGS if key in stream.metadata}
        copy.metadata.update(kept)
        copy.disposition = stream.disposition
        return copy

    def _timed(self) -> Iterator[tuple[Fraction, Packet[Stream]]]:
        if not self._streams:
            return
        sources = [self._container.streams[index] for index in self._streams]
        last = Fraction(0)
        with media_errors(self._path):
            for packet in self._container.demux(sources):
                stamp = packet.dts if packet.dts is not None else packet.pts
                if packet.size == 0 and stamp is None:
                    continue
                if stamp is not None:
                    last = stamp * Fraction(packet.time_base) - self._start
                yield last, packet

    def advance(self, time: Fraction | None) -> None:
        """Writes all packets due up to `time` in seconds; None is the rest."""
        while self._held is not None and (time is None or self._held[0] <= time):
            packet = self._held[1]
            shift = round(self._start / Fraction(packet.time_base))
            if packet.pts is not None:
                packet.pts -= shift
            if packet.dts is not None:
                packet.dts -= shift
            self._mux(packet)
            self._held = next(self._packets, None)

    def _mux(self, packet: Packet[Stream]) -> None:
        import av

        index = packet.stream_index
        packet.stream = self._streams[index]
        try:
            self._output.mux(packet)
        except (av.error.InvalidDataError, av.error.ArgumentError, av.error.PatchWelcomeError):
            # The format refuses this one packet: its data or its time stamp is damaged.
            self._refused[index] += 1

    def finish(self) -> None:
        """Writes what is left and closes the source."""
        self.advance(None)
        self.close()
        for index, count in self._refused.items():
            self.warnings.append(f"{count} damaged packets of track {index} were left out")

    def close(self) -> None:
        """Closes the source."""
        with contextlib.suppress(Exception):
            self._container.close()
