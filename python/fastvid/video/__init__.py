"""Reading and writing video: streaming, exact time stamps, colour tags, copied tracks."""

from __future__ import annotations

from fastvid.video.clip import Video
from fastvid.video.types import Colour, Frame, Limits, Stage, VideoInfo

__all__ = ["Colour", "Frame", "Limits", "Stage", "Video", "VideoInfo"]
