"""A video as HTML for notebooks: an inline MP4 of at most 8 MB."""

from __future__ import annotations

import base64
import html as escaping
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from fastvid.video.types import Frame, VideoInfo, eight_bits

if TYPE_CHECKING:
    from fastvid.video.clip import Video

MAX_BYTES = 8_000_000
MAX_SECONDS = Fraction(10)
MAX_WIDTH = 960
_QUALITIES = (70, 50, 30)


class _Excerpt:
    """The first seconds, small enough for a page and with an even size for browsers."""

    name = "preview"

    def transform(self, info: VideoInfo) -> VideoInfo:
        step = -(-info.width // MAX_WIDTH)
        # Browsers play 4:2:0 only, which needs an even size.
        width, height = (max(2, -(-side // step) // 2 * 2) for side in info.size)
        duration = None if info.duration is None else min(info.duration, MAX_SECONDS)
        return replace(
            info, width=width, height=height, duration=duration, num_frames=None, bit_depth=8
        )

    def process(self, frames: Iterator[Frame], info: VideoInfo) -> Iterator[Frame]:
        step = -(-info.width // MAX_WIDTH)
        width, height = self.transform(info).size
        for frame in frames:
            if frame.time >= MAX_SECONDS:
                return
            image = eight_bits(frame.image[::step, ::step][:height, :width])
            edge = ((0, height - image.shape[0]), (0, width - image.shape[1]), (0, 0))
            yield replace(frame, image=np.ascontiguousarray(np.pad(image, edge, mode="edge")))


def html(video: Video, *, readable: bool = True) -> str:
    """An HTML figure that plays the first ten seconds of `video`.

    Args:
        video: Any video.
        readable: False for frames that can be read once only: they are described, not shown.
    """
    caption = escaping.escape(repr(video))
    if not readable:
        return f"<p>{caption}: frames that can be read once are not shown</p>"
    data = _encoded(video)
    if data is None:
        return f"<p>{caption}: too large to show here, save it to see it</p>"
    source = "data:video/mp4;base64," + base64.b64encode(data).decode("ascii")
    longer = video.duration is None or video.duration > MAX_SECONDS
    note = f" (at most the first {MAX_SECONDS} s are shown)" if longer else ""
    return (
        f'<figure><video controls loop muted style="max-width:100%" src="{source}"></video>'
        f"<figcaption>{caption}{note}</figcaption></figure>"
    )


def _encoded(video: Video) -> bytes | None:
    with tempfile.TemporaryDirectory(prefix="fastvid-") as folder:
        path = os.path.join(folder, "preview.mp4")
        for quality in _QUALITIES:
            video.through(_Excerpt()).save(
                path, quality=quality, overwrite=True, audio="drop", subtitles="drop"
            )
            if os.path.getsize(path) <= MAX_BYTES:
                with open(path, "rb") as file:
                    return file.read()
    return None
