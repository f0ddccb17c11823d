"""`Video`: a lazy stream of frames with exact time stamps, and the stages it passes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from itertools import chain as concatenate
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from fastvid._frames import check_frame
from fastvid._rates import frame_rate
from fastvid.errors import InputError, InputTypeError
from fastvid.video import arrays
from fastvid.video.chain import chain_infos, check_stage
from fastvid.video.source import check_source, file_path
from fastvid.video.types import Frame, Limits, ReadOptions, RgbImage, Stage, VideoInfo

if TYPE_CHECKING:
    from fastvid.pipeline import CancelSignal, Progress, RunResult
    from fastvid.video.reader import Source


class Video:
    """A stream of frames from a file or from memory, processed lazily by stages.

    Iterating yields `Frame`s; each iteration reads the source anew. Nothing is decoded before
    frames are asked for, and only a few frames are in memory at a time.

    Make one with `Video.open` or `Video.from_frames`.
    """

    def __init__(
        self,
        open_source: Callable[[], Source],
        info: VideoInfo,
        stages: tuple[Stage, ...] = (),
        *,
        repeatable: bool = True,
    ) -> None:
        self._open_source = open_source
        self._source_info = info
        self._repeatable = repeatable
        self.stages = stages
        """The stages between the source and the frames of this video."""
        self._infos = chain_infos(info, stages)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        fps: object = None,
        bit_depth: int | None = None,
        alpha: str = "refuse",
        strict: bool = False,
        stream: int | None = None,
        limits: Limits | None = None,
    ) -> Self:
        """A video file, or a folder of PNG or JPEG images in natural order of their names.

        Rotation is applied: frames are upright. A path is never a URL or a playlist.

        Args:
            path: mp4, mov, mkv, webm, avi, ts, mpg, flv, gif, y4m, ivf, raw H.264 or HEVC; or a
                folder.
            fps: Frame rate of a source without time stamps of its own: raw H.264 and HEVC (25
                where the stream does not say) and folders (25).
            bit_depth: None keeps what the file has: frames of more than 8 bits are uint16, with
                65535 for white, and HDR10 and HLG keep their tags. 8 rounds SDR video to 8 bits.
            alpha: "refuse" transparent pixels, or "drop" the transparency.
            strict: Cut or damaged files are errors, not warnings.
            stream: Index of the video stream; None takes the one with the largest pictures.
            limits: What a file may ask for; None is `Limits()`.

        Raises:
            MediaError: The file is missing, no video, cut, too large, interlaced, ...; the
                subclass and the message say which.
            InputError: An argument does not fit.
        """
        name = file_path(path)
        options = ReadOptions(
            fps=None if fps is None else frame_rate("fps", fps),
            bit_depth=bit_depth,
            alpha=alpha,
            strict=strict,
            stream=stream,
            limits=Limits() if limits is None else limits,
        )

        def open_source() -> Source:
            from fastvid.video.images import ImageFolderReader
            from fastvid.video.reader import Reader

            return (ImageFolderReader if check_source(name) else Reader)(name, options)

        source = open_source()
        try:
            return cls(open_source, source.info)
        finally:
            source.close()

    @classmethod
    def from_frames(cls, frames: Iterable[Any], fps: object) -> Self:
        """Pictures in memory as a video of a constant rate.

        Args:
            frames: uint8 RGB array (T, H, W, 3), or any iterable of (H, W, 3) pictures; or uint16
                with 65535 for white. A generator can be read once only.
            fps: int, float, `Fraction`, or text such as "30000/1001".

        Raises:
            InputTypeError: `frames` is not iterable or a picture is no uint8 or uint16 array.
            InputError: There are no pictures, or one has a wrong shape.
        """
        exact = frame_rate("fps", fps)
        if isinstance(frames, np.ndarray) and frames.ndim != 4:
            raise InputError(f"frames: shape must be (T, H, W, 3), got {frames.shape}")
        try:
            iterator = iter(frames)
        except TypeError:
            raise InputTypeError(
                f"frames: must be an array or an iterable of pictures, got {type(frames).__name__}"
            ) from None
        first = next(iterator, None)
        if first is None:
            raise InputError("frames: must hold at least one picture, got none")
        size = getattr(frames, "__len__", None)
        info = arrays.info_of(check_frame("frames[0]", first), exact, size() if size else None)
        if iterator is not frames:
            return cls(lambda: arrays.ArraySource(frames, info), info)
        left = [concatenate([first], iterator)]

        def once() -> Source:
            if not left:
                raise InputError(
                    "frames: a generator can be read once, and it was",
                    hint="pass a list or an array to read the video again",
                )
            return arrays.ArraySource(left.pop(), info)

        return cls(once, info, repeatable=False)

    @property
    def info(self) -> VideoInfo:
        """What is known about the frames after all stages."""
        return self._infos[-1]

    @property
    def source_info(self) -> VideoInfo:
        """What is known about the frames before the first stage."""
        return self._source_info

    @property
    def fps(self) -> Fraction:
        """Frames per second."""
        return self.info.fps

    @property
    def width(self) -> int:
        """Pixels per row."""
        return self.info.width

    @property
    def height(self) -> int:
        """Rows."""
        return self.info.height

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.info.size

    @property
    def num_frames(self) -> int | None:
        """Number of frames as far as it is known without reading them."""
        return self.info.num_frames

    @property
    def duration(self) -> Fraction | None:
        """Seconds as far as they are known without reading the frames."""
        return self.info.duration

    def open_source(self) -> Source:
        """Opens the source before all stages; the caller closes it."""
        return self._open_source()

    def __iter__(self) -> Iterator[Frame]:
        source = self._open_source()
        try:
            frames = source.frames()
            for stage, info in zip(self.stages, self._infos, strict=False):
                frames = stage.process(frames, info)
            yield from frames
        finally:
            source.close()

    def frames(self) -> RgbImage:
        """All frames as RGB, (T, H, W, 3): the whole video in memory.

        They are uint8, or uint16 with 65535 for white where the video has more than 8 bits.
        """
        pictures = [frame.image for frame in self]
        if not pictures:
            dtype = np.uint16 if self.info.bit_depth > 8 else np.uint8
            return np.empty((0, self.height, self.width, 3), dtype)
        return np.stack(pictures)

    def through(self, stage: Stage) -> Video:
        """This video processed by one more stage, lazily.

        Raises:
            InputTypeError: `stage` lacks `name`, `transform` or `process`.
            InputError: The stage cannot process this video.
        """
        check_stage(stage, "stage")
        return Video(
            self._open_source,
            self._source_info,
            (*self.stages, stage),
            repeatable=self._repeatable,
        )

    def save(
        self,
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
        """Write the video to a file; arguments, result and errors as in `Pipeline.run`."""
        from fastvid.pipeline import Pipeline

        return Pipeline().run(
            self,
            path,
            codec=codec,
            quality=quality,
            effort=effort,
            audio=audio,
            subtitles=subtitles,
            overwrite=overwrite,
            progress=progress,
            cancel=cancel,
        )

    def __repr__(self) -> str:
        rate = float(self.fps)
        length = "" if self.duration is None else f", {float(self.duration):.2f} s"
        steps = "".join(f" -> {stage.name}" for stage in self.stages)
        return f"<Video {self.width}x{self.height}, {rate:.5g} fps{length}{steps}>"

    def _repr_html_(self) -> str:
        """The video, or its first seconds, as an inline player for notebooks."""
        from fastvid.video.preview import html

        return html(self, readable=self._repeatable)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": self._repr_html_()}
