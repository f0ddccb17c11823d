"""Checks, padding and cropping of single frames, shared by the models' classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastvid.bundle import SizeRule
from fastvid.errors import InputError, InputTypeError

if TYPE_CHECKING:
    from fastvid.backends._transfer import Pending

FrameArray = NDArray[Any]
"""uint8 RGB, or uint16 with 65535 for white, (H, W, 3), C-contiguous."""


def check_frame(what: str, frame: object) -> FrameArray:
    """A frame as C-contiguous RGB (H, W, 3), copied only where it is not contiguous.

    Raises:
        InputTypeError: Not a NumPy array, or neither uint8 nor uint16.
        InputError: Not (H, W, 3) with H and W at least 1.
    """
    if not isinstance(frame, np.ndarray):
        raise InputTypeError(
            f"{what}: argument must be a numpy array, got {type(frame).__name__}",
            hint="torch tensors: frame.cpu().numpy(); PIL images: numpy.asarray(image)",
        )
    if frame.dtype not in (np.uint8, np.uint16):
        raise InputTypeError(
            f"{what}: argument must be uint8 with values 0 to 255, or uint16, got {frame.dtype}"
            f"{_oddities(frame)}",
            hint="floats in [0, 1]: numpy.rint(numpy.clip(frame, 0, 1) * 255).astype(numpy.uint8)",
        )
    if frame.ndim != 3 or frame.shape[2] != 3 or min(frame.shape[:2]) < 1:
        raise InputError(
            f"{what}: argument must have shape (H, W, 3), got {frame.shape}",
            hint=_layout_hint(frame.shape),
        )
    return np.ascontiguousarray(frame)


def pad(frame: FrameArray, rule: SizeRule) -> FrameArray:
    """A frame with the size a graph takes: the bottom and right are extended as `rule` says.

    Raises:
        InputError: The rule does not allow the size.
    """
    return pad_to(frame, rule.padded(*frame.shape[:2]), rule)


def pad_to(frame: FrameArray, size: tuple[int, int], rule: SizeRule) -> FrameArray:
    """A frame of `size`, height and width, extended at the bottom and right as `rule` says."""
    (height, width), (rows, columns) = frame.shape[:2], size
    if (rows, columns) == (height, width):
        return frame
    # NumPy's "reflect" repeats as often as needed where the frame is smaller than the padding.
    mode: Any = "reflect" if rule.padding == "reflect" else "edge"
    return np.pad(frame, ((0, rows - height), (0, columns - width), (0, 0)), mode=mode)


def crop(frame: FrameArray, height: int, width: int) -> FrameArray:
    """The top left `height` x `width` pixels, C-contiguous."""
    return np.ascontiguousarray(frame[:height, :width])


class Cropped:
    """A frame that may still be on its way to the host, without its padding."""

    __slots__ = ("_height", "_pending", "_width")

    def __init__(self, pending: Pending, height: int, width: int) -> None:
        self._pending = pending
        self._height, self._width = height, width

    def result(self) -> FrameArray:
        """The frame; waits for it."""
        return crop(self._pending.result()[0], self._height, self._width)


def _oddities(frame: NDArray[Any]) -> str:
    if frame.dtype.kind == "f" and not np.isfinite(frame).all():
        return " with NaN or infinite values"
    return ""


def _layout_hint(shape: tuple[int, ...]) -> str:
    if len(shape) == 2:
        return "grey: numpy.repeat(frame[..., None], 3, axis=2)"
    if len(shape) == 3 and shape[0] == 3:
        return "channels come last: numpy.moveaxis(frame, 0, 2)"
    if len(shape) == 3 and shape[2] == 4:
        return "alpha is not processed: frame[..., :3]"
    if len(shape) == 4:
        return "one frame at a time; for several use Video.from_frames(frames, fps)"
    return ""
