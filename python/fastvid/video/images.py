"""Folders of images: read in natural order, written as numbered PNG files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

from fastvid.errors import MediaError, UnreadableMediaError
from fastvid.video import colour as colours
from fastvid.video.reader import LimitGuard
from fastvid.video.source import IMAGE_FORMATS, media_errors, open_container
from fastvid.video.types import Frame, ReadOptions, RgbImage, VideoInfo

SUFFIXES = (".png", ".jpg", ".jpeg")
DEFAULT_FPS = Fraction(25)


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sorts `frame2.png` before `frame10.png`."""
    parts = re.findall(r"\d+|\D+", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part.lower()) for part in parts]


class ImageFolderReader:
    """The PNG and JPEG files of a folder as a video of a constant rate.

    Args:
        path: A folder; its files with other suffixes are ignored.
        options: The arguments of `Video.open`; `fps` is 25 where it is not given.

    Raises:
        UnreadableMediaError: The folder holds no images.
    """

    def __init__(self, path: str, options: ReadOptions) -> None:
        self.path = path
        self.warnings: list[str] = []
        self.truncated = False
        self._options = options
        self._guard = LimitGuard(options.limits, path)
        try:
            names = [name for name in os.listdir(path) if name.lower().endswith(SUFFIXES)]
        except OSError as error:
            raise UnreadableMediaError(f"{path}: {error.strerror}") from error
        if not names:
            raise UnreadableMediaError(
                f"{path}: folder must hold PNG or JPEG images, got none",
                hint="name a video file, or a folder with .png, .jpg or .jpeg files",
            )
        self._files = [os.path.join(path, name) for name in sorted(names, key=natural_key)]
        fps = options.fps or DEFAULT_FPS
        self._guard.check_length(len(names), len(names) / fps)
        self._first, info = self._read(self._files[0])
        self.info = replace(
            info,
            fps=fps,
            num_frames=len(names),
            duration=len(names) / fps,
            time_base=1 / fps,
        )

    def close(self) -> None:
        """Nothing stays open between frames."""

    def _read(self, file: str) -> tuple[RgbImage, VideoInfo]:
        if not os.path.isfile(file):
            raise UnreadableMediaError(f"{file}: must be a regular file")
        with open_container(file, IMAGE_FORMATS) as container, media_errors(file):
            if not container.streams.video:
                raise UnreadableMediaError(f"{file}: must be a PNG or JPEG image")
            context = container.streams.video[0].codec_context
            self._guard.check_size(context.width, context.height)
            frame = next(container.decode(video=0), None)
            if frame is None:
                raise UnreadableMediaError(f"{file}: must hold an image, got none")
            options = self._options
            colour = colours.colour_of(frame, file)
            colours.check_pixels(frame, file, bit_depth=options.bit_depth, alpha=options.alpha)
            location = "center" if context.name == "mjpeg" else "left"
            image = colours.to_rgb(frame, colour, location)
            image = colours.turn(image, *colours.orientation(frame, file))
        height, width = image.shape[:2]
        # An image carries no video matrix worth keeping: it is RGB from here on.
        return image, VideoInfo(width=width, height=height, fps=DEFAULT_FPS)

    def frames(self) -> Iterator[Frame]:
        """Yields the images in natural order of their names.

        Raises:
            MediaError: An image has another size than the first one, or cannot be read.
        """
        step = 1 / self.info.fps
        for number, file in enumerate(self._files):
            image, info = (self._first, self.info) if number == 0 else self._read(file)
            if info.size != self.info.size:
                old, new = "{}x{}".format(*self.info.size), "{}x{}".format(*info.size)
                raise MediaError(f"{file}: image size must be {old} as the first, got {new}")
            yield Frame(image, number * step, step)
