"""Runs a video through stages into a file: decode, every stage and encode overlap in threads."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from fastvid._conveyor import Conveyor
from fastvid.errors import CancelledError, InputError, InputTypeError
from fastvid.video.chain import chain_infos, check_stage
from fastvid.video.types import Frame, Stage, VideoInfo

if TYPE_CHECKING:
    from fastvid.video.clip import Video
    from fastvid.video.reader import Source
    from fastvid.video.target import Target
    from fastvid.video.writer import Writer

QUEUE_FRAMES = 3
"""Frames that may wait between two steps: enough to smooth uneven steps, few enough for 4K."""

_PROGRESS_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is."""

    frames: int
    """Frames written."""
    total: int | None
    """Frames expected, None where the source does not say; a forecast, exact at the end."""
    elapsed: float
    """Seconds since the start."""
    fps: float
    """Frames written per second so far."""
    eta: float | None
    """Seconds left, None while unknown."""
    busy: dict[str, float]
    """Seconds that each step has worked, without waiting for its neighbours."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run did."""

    path: str
    frames_in: int
    frames_out: int
    duration_in: Fraction
    """Sum of the durations of the frames read, in seconds."""
    duration: Fraction
    """Sum of the durations of the frames written, in seconds."""
    elapsed: float
    """Seconds of wall time."""
    busy: dict[str, float]
    """Seconds that each step worked: `decode`, the stages' names, `encode`."""
    audio_tracks: int
    """Audio tracks copied."""
    subtitle_tracks: int
    """Subtitle tracks copied."""
    truncated: bool
    """The source is cut; the output holds what could be read."""
    warnings: tuple[str, ...]

    @property
    def fps(self) -> float:
        """Frames written per second of wall time."""
        return self.frames_out / self.elapsed if self.elapsed > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON values; exact durations become floats."""
        values = asdict(self)
        values.update(
            duration_in=float(self.duration_in),
            duration=float(self.duration),
            warnings=list(self.warnings),
            fps=self.fps,
        )
        return values


class CancelSignal(Protocol):
    """What may ask a run to stop: a `threading.Event` fits."""

    def is_set(self) -> bool:
        """Whether to stop."""
        ...


@dataclass(slots=True)
class _Count:
    frames: int = 0
    duration: Fraction = field(default_factory=Fraction)

    def over(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        for frame in frames:
            self.frames += 1
            self.duration += frame.duration
            yield frame
            del frame


class Pipeline:
    """A chain of stages that a video passes on its way into a file.

    Decoding, every stage and encoding run in threads of their own with a few frames between
    them, so the slowest step sets the pace and memory does not grow with the video's length.

    Args:
        stages: Objects that follow `fastvid.video.Stage`, in order.
        queue_frames: Frames that may wait between two steps, at least 1.

    Raises:
        InputTypeError: A stage lacks `name`, `transform` or `process`.
        InputError: `queue_frames` is less than 1.
    """

    def __init__(self, stages: Sequence[Stage] = (), *, queue_frames: int = QUEUE_FRAMES) -> None:
        try:
            self.stages = tuple(stages)
        except TypeError:
            raise InputTypeError(
                f"stages: must be a sequence of stages, got {type(stages).__name__}"
            ) from None
        for number, stage in enumerate(self.stages):
            check_stage(stage, f"stages[{number}]")
        if isinstance(queue_frames, bool) or not isinstance(queue_frames, int) or queue_frames < 1:
            raise InputError(f"queue_frames: must be an int of at least 1, got {queue_frames!r}")
        self._queue_frames = queue_frames

    def run(
        self,
        source: Video | str | os.PathLike[str],
        path: str | os.PathLike[str],
        *,
        codec: str | None = None,
        quality: int = 75,
        effort: str = "fast",
        audio: str = "copy",
        subtitles: str = "copy",
        overwrite: bool = False,
        progress: Callable[[Progress], None] | None = None,
        cancel: CancelSignal | None = None,
    ) -> RunResult:
        """Process `source` into a new file at `path`.

        The file appears under its name only when it is complete. The call returns when all
        threads have ended, whatever happened. Ctrl-C is a cancel: the unfinished file is removed
        and `KeyboardInterrupt` goes on.

        Args:
            source: A video, whose own stages run first, or the path of one.
            path: .mp4, .m4v, .mov, .mkv, .webm, .ts, .y4m, or a name without a suffix for a
                folder of PNG files.
            codec: "h264", "hevc", "av1" or "lossless"; None is AV1 in .webm, else H.264.
            quality: 0 (smallest file) to 100 (best picture).
            effort: "fast", "medium" or "slow": encoding time spent for a smaller file.
            audio: "copy" the source file's audio tracks untouched, or "drop" them.
            subtitles: As `audio`.
            overwrite: Replace an existing file.
            progress: Called in the caller's thread about ten times a second and at the end.
            cancel: An object with `is_set()`, such as `threading.Event`, looked at every 0.05 s.

        Returns:
            Counts, durations, seconds per step and warnings.

        Raises:
            InputError: An argument or a stage does not fit the video.
            MediaError: The source cannot be read.
            OutputError: The output cannot be written; nothing stays under its name.
            CancelledError: `cancel` was set.
        """
        from fastvid.video.clip import Video
        from fastvid.video.target import Target
        from fastvid.video.writer import EncodeOptions, open_writer

        if progress is not None and not callable(progress):
            raise InputTypeError(f"progress: must be callable, got {type(progress).__name__}")
        if cancel is not None and not callable(getattr(cancel, "is_set", None)):
            raise InputTypeError(f"cancel: must have is_set(), got {type(cancel).__name__}")
        options = EncodeOptions(codec, quality, effort, audio, subtitles)
        video = source if isinstance(source, Video) else Video.open(source)
        stages = (*video.stages, *self.stages)
        infos = chain_infos(video.source_info, stages)
        target = Target(path, source=video.source_info.path, overwrite=overwrite)
        try:
            writer = open_writer(target, infos[-1], options)
            opened = video.open_source()
            try:
                monitor = _Monitor(infos[-1].expected_frames, progress, cancel)
                return self._run(opened, stages, infos, target, writer, monitor)
            finally:
                writer.abort()
                opened.close()
        finally:
            # After a commit there is nothing left to discard.
            target.discard()

    def _run(
        self,
        source: Source,
        stages: tuple[Stage, ...],
        infos: list[VideoInfo],
        target: Target,
        writer: Writer,
        monitor: _Monitor,
    ) -> RunResult:
        read, written = _Count(), monitor.written

        def encode(frames: Iterator[Frame]) -> None:
            for frame in frames:
                writer.write(frame)
                written.frames += 1
                written.duration += frame.duration
                del frame
            writer.finish()

        steps = [
            (stage.name, partial(_process, stage, info))
            for stage, info in zip(stages, infos, strict=False)
        ]
        conveyor = Conveyor(
            lambda: read.over(source.frames()),
            steps,
            encode,
            queue_frames=self._queue_frames,
            interrupt=partial(_cancel, stages),
        )
        monitor.conveyor = conveyor
        conveyor.run(monitor.poll)
        elapsed = time.perf_counter() - monitor.start
        target.commit()
        monitor.finish()
        return RunResult(
            path=target.path,
            frames_in=read.frames,
            frames_out=written.frames,
            duration_in=read.duration,
            duration=written.duration,
            elapsed=elapsed,
            busy=conveyor.busy(),
            audio_tracks=writer.copied["audio"],
            subtitle_tracks=writer.copied["subtitle"],
            truncated=source.truncated,
            warnings=(*source.warnings, *writer.warnings),
        )


def _process(stage: Stage, info: VideoInfo, frames: Iterator[Frame]) -> Iterator[Frame]:
    return stage.process(frames, info)


def _cancel(stages: Sequence[Stage]) -> None:
    for stage in stages:
        if callable(cancel := getattr(stage, "cancel", None)):
            cancel()


class _Monitor:
    """Looks at the cancel signal and reports progress, in the caller's thread."""

    def __init__(
        self,
        expected: int | None,
        progress: Callable[[Progress], None] | None,
        cancel: CancelSignal | None,
    ) -> None:
        self._expected = expected
        self._progress = progress
        self._cancel = cancel
        self._reported = 0.0
        self.start = time.perf_counter()
        self.written = _Count()
        self.conveyor: Conveyor | None = None

    def poll(self) -> None:
        if self._cancel is not None and self._cancel.is_set():
            raise CancelledError("run: was cancelled by its caller")
        now = time.perf_counter()
        if now - self._reported >= _PROGRESS_SECONDS:
            self._reported = now
            self._report(self._expected)

    def finish(self) -> None:
        self._report(self.written.frames)

    def _report(self, total: int | None) -> None:
        if self._progress is None or self.conveyor is None:
            return
        elapsed = time.perf_counter() - self.start
        frames = self.written.frames
        fps = frames / elapsed if elapsed > 0 else 0.0
        eta = max(0, total - frames) / fps if total is not None and fps > 0 else None
        self._progress(Progress(frames, total, elapsed, fps, eta, self.conveyor.busy()))
