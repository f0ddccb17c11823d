"""What a video becomes on its way through stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fastvid.errors import InputTypeError
from fastvid.video.types import Stage, VideoInfo


def check_stage(stage: object, what: str) -> None:
    """Raises `InputTypeError` for an object that does not follow `Stage`."""
    if isinstance(stage, type) or not isinstance(stage, Stage):
        kind = f"the class {stage.__name__}" if isinstance(stage, type) else type(stage).__name__
        raise InputTypeError(
            f"{what}: must be a stage with name, transform and process, got {kind}"
        )


def transform(stage: Stage, info: VideoInfo) -> VideoInfo:
    """`stage.transform`, with a time base as fine as the new rate needs.

    A stage that raises the rate by p/q and leaves the time base alone places frames at p-ths of
    it.
    """
    new = stage.transform(info)
    if not isinstance(new, VideoInfo):
        raise InputTypeError(
            f"{stage.name}: transform must return a VideoInfo, got {type(new).__name__}"
        )
    ratio = new.fps / info.fps
    if info.time_base is not None and new.time_base == info.time_base and ratio != 1:
        new = replace(new, time_base=info.time_base / ratio.numerator)
    return new


def chain_infos(info: VideoInfo, stages: Sequence[Stage]) -> list[VideoInfo]:
    """What the video is before the first stage and after each one."""
    infos = [info]
    for stage in stages:
        infos.append(transform(stage, infos[-1]))
    return infos
