"""Folders of images: read in natural order, written as numbered PNG files."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

from fastvid.errors import MediaError, UnreadableMediaError
from fastvid.video import colour as colours
from fastvid.video.reader import LimitGuard
from fastvid.video.source import bad_image, media_errors, open_image
from fastvid.video.types import Frame, ReadOptions, RgbImage, VideoInfo

SUFFIXES = (".png", ".jpg", ".jpeg")
_EXIF_ORIENTATION = 0x0112
_EXIF_TURNS = {
    2: (0, True), 3: (2, False), 4: (2, True), 5: (1, True),
    6: (3, False), 7: (3, True), 8: (1, False),
}  # fmt: skip
DEFAULT_FPS = Fraction(25)


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sorts `frame2.png` before `frame10.png`."""
    parts = re.findall(r"\d+|\D+", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part.lower()) for part in parts]


def _ends(file: str) -> bool:
    """Whether a JPEG file has its end marker, with at most a little after it."""
    with open(file, "rb") as data:
        data.seek(max(0, os.path.getsize(file) - 4096))
        return b"\xff\xd9" in data.read()


def exif_orientation(file: str) -> tuple[int, bool]:
    """How a PNG or JPEG image must be turned, as `colour.orientation` says it."""
    with open(file, "rb") as data:
        head = data.read(1 << 17)
    mark = b"Exif\0\0" if b"Exif\0\0" in head else b"eXIf"
    start = head.find(mark) + len(mark)
    order = {b"II": "<", b"MM": ">"}.get(head[start : start + 2])
    if mark not in head or order is None or len(head) < start + 8:
        return 0, False
    first = start + int(struct.unpack_from(order + "I", head, start + 4)[0]) + 2
    if first > len(head):
        return 0, False
    count = int(struct.unpack_from(order + "H", head, first - 2)[0])
    for entry in range(first, min(first + 12 * count, len(head) - 12), 12):
        tag, _, _, value = struct.unpack_from(order + "HHIH", head, entry)
        if tag == _EXIF_ORIENTATION:
            return _EXIF_TURNS.get(value, (0, False))
    return 0, False


class _ImageReader:
    """Reads single images; `warnings` and `truncated` say what was wrong with them."""

    def __init__(self, options: ReadOptions, what: str) -> None:
        self.warnings: list[str] = []
        self.truncated = False
        self.guard = LimitGuard(options.limits, what)
        self._options = options

    def read(self, file: str) -> tuple[RgbImage, VideoInfo]:
        with open_image(file) as container, media_errors(file, bad_image):
            context = container.streams.video[0].codec_context
            self.guard.check_size(context.width, context.height)
            frame = next(container.decode(video=0), None)
            if frame is None:
                raise bad_image(file)
            options = self._options
            colour = colours.colour_of(frame, file)
            colours.check_pixels(frame, file, bit_depth=options.bit_depth, alpha=options.alpha)
            location = "center" if context.name == "mjpeg" else "left"
            bits = 8 if options.bit_depth == 8 else colours.bits_of(frame)
            image = colours.to_rgb(frame, colour, location, wide=bits > 8)
            image = colours.turn(image, *exif_orientation(file))
            if context.name == "mjpeg" and not _ends(file):
                self._cut(file)
        height, width = image.shape[:2]
        # An image carries no video matrix worth keeping: it is RGB from here on.
        info = VideoInfo(width=width, height=height, fps=DEFAULT_FPS, bit_depth=bits)
        return image, info

    def _cut(self, file: str) -> None:
        # The decoder fills what is missing with grey and says nothing.
        if self._options.strict:
            raise bad_image(file)
        self.truncated = True
        self.warnings.append(f"{file} is cut: the rest of the picture is grey")


def read_image(path: str | os.PathLike[str]) -> RgbImage:
    """One PNG or JPEG file as uint8 RGB (H, W, 3), upright.

    Raises:
        MediaError: The file is missing, not an image, cut, or has transparent pixels.
    """
    file = os.fspath(path)
    if not os.path.isfile(file):
        raise UnreadableMediaError(f"{file}: image file must exist, it does not")
    return _ImageReader(ReadOptions(bit_depth=8, strict=True), file).read(file)[0]


class ImageFolderReader(_ImageReader):
    """The PNG and JPEG files of a folder as a video of a constant rate.

    Args:
        path: A folder; its files with other suffixes are ignored.
        options: The arguments of `Video.open`; `fps` is 25 where it is not given.

    Raises:
        UnreadableMediaError: The folder holds no images.
    """

    def __init__(self, path: str, options: ReadOptions) -> None:
        self.path = path
        super().__init__(options, path)
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
        self.guard.check_length(len(names), len(names) / fps)
        self._first, info = self.read(self._files[0])
        self.info = replace(
            info,
            fps=fps,
            num_frames=len(names),
            duration=len(names) / fps,
            time_base=1 / fps,
        )

    def close(self) -> None:
        """Nothing stays open between frames."""

    def frames(self) -> Iterator[Frame]:
        """Yields the images in natural order of their names.

        Raises:
            MediaError: An image has another size than the first one, or cannot be read.
        """
        step = 1 / self.info.fps
        for number, file in enumerate(self._files):
            image, info = (self._first, self.info) if number == 0 else self.read(file)
            if info.size != self.info.size:
                old, new = "{}x{}".format(*self.info.size), "{}x{}".format(*info.size)
                raise MediaError(f"{file}: image size must be {old} as the first, got {new}")
            yield Frame(image, number * step, step)
