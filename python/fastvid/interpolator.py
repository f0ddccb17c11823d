"""Frame interpolation: pictures between two frames, and videos at a higher frame rate."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from fastvid._frames import FrameArray, check_frame, crop, pad
from fastvid._model import Model
from fastvid._rates import frame_rate
from fastvid._retiming import ConstantRate, Division, Retiming, Timing
from fastvid.bundle import Bundle, SizeRule
from fastvid.errors import InputError, InputTypeError
from fastvid.video.types import Stage

if TYPE_CHECKING:
    from fastvid.backends import Session
    from fastvid.backends.tensorrt import EngineOptions
    from fastvid.video import Video

MAX_FACTOR = 64


class Interpolator(Model):
    """Draws what was between two frames with a trained network.

    Args:
        model: `"fast"`, the full name of a shipped model, or a folder that holds a bundle.
        device: `"auto"`, `"cpu"`, `"cuda"` or `"cuda:N"`; only `"auto"` may fall back to the CPU.
        backend: `"auto"`, `"onnxruntime"`, `"tensorrt"`, or `EngineOptions` of
            `fastvid.backends.tensorrt`.
        precision: `"auto"`, or one that the backend offers.
        threads: CPU threads of the network; None takes what the machine has.

    Raises:
        InputError: No such model.
        ModelError: The bundle cannot be used.
        DeviceError: Device or backend are not there.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = "fast",
        *,
        device: str = "auto",
        backend: str | EngineOptions = "auto",
        precision: str = "auto",
        threads: int | None = None,
    ) -> None:
        super().__init__(
            Bundle.find(model, "interpolator"),
            device=device,
            backend=backend,
            precision=precision,
            threads=threads,
        )
        self._motion = self._graph("motion")
        self._between = self._graph("between")

    @overload
    def between(
        self, frame0: FrameArray, frame1: FrameArray, timestep: float = 0.5
    ) -> FrameArray: ...

    @overload
    def between(
        self, frame0: FrameArray, frame1: FrameArray, timestep: Sequence[float] | NDArray[Any]
    ) -> FrameArray: ...

    def between(
        self,
        frame0: FrameArray,
        frame1: FrameArray,
        timestep: float | Sequence[float] | NDArray[Any] = 0.5,
    ) -> FrameArray:
        """Draw the picture at one or several times between two frames.

        The motion is computed once for all times. Scene cuts are not looked for.

        Args:
            frame0: uint8 RGB (H, W, 3), the picture at time 0.
            frame1: uint8 RGB, the same size, the picture at time 1.
            timestep: From 0 to 1; 0 and 1 give copies of the frames themselves.

        Returns:
            uint8 RGB (H, W, 3) for a number, (n, H, W, 3) for a sequence of n numbers.

        Raises:
            InputTypeError: A frame is not a uint8 array, or `timestep` is not a number.
            InputError: The sizes differ or are not allowed by the bundle, or a time is outside.
        """
        first, second = check_frame("frame0", frame0), check_frame("frame1", frame1)
        if first.shape != second.shape:
            raise InputError(
                f"frame1: argument must have the shape of frame0, {first.shape}, got {second.shape}"
            )
        times = _timesteps(timestep)
        self._bundle.size_rule.padded(*first.shape[:2])
        pair = self._pair(first, second)
        if times.ndim == 0:
            return pair.at(float(times)).copy()
        result = np.empty((len(times), *first.shape), np.uint8)
        for index, time in enumerate(times):
            result[index] = pair.at(float(time))
        return result

    def interpolate(
        self,
        video: Video,
        *,
        factor: int | None = None,
        fps: int | float | str | Fraction | None = None,
        scene_cuts: bool = True,
    ) -> Video:
        """A video with frames drawn between the frames of another, lazily.

        The duration stays exactly what it was, and frames of the source pass through untouched
        where a new time stamp falls on theirs. What follows the last frame repeats it. Where a
        scene ends the frame that is nearest in time is repeated instead of blended.

        Args:
            video: At least two frames.
            factor: 2 to 64: each frame's duration is divided into as many equal parts, also where
                the frame rate varies. Without `factor` and `fps`, 2.
            fps: Frames per second of the result at constant rate, above 0 to 1000: int, float,
                `Fraction` or text such as `"60000/1001"`. 29.97, 59.94 and the like stand for the
                exact broadcast rates. The last frame's duration is cut to end with the source.
            scene_cuts: Whether to look for scene cuts.

        Raises:
            InputTypeError: An argument has the wrong type.
            InputError: `factor` and `fps` are both given or out of range, the bundle does not
                allow the frame size or, when frames are read, there are less than two.
        """
        from fastvid.video import Video

        if not isinstance(video, Video):
            raise InputTypeError(
                f"video: argument must be a Video, got {type(video).__name__}",
                hint="Video.open(path) or Video.from_frames(frames, fps)",
            )
        return video.through(self.stage(factor=factor, fps=fps, scene_cuts=scene_cuts))

    def stage(
        self,
        *,
        factor: int | None = None,
        fps: int | float | str | Fraction | None = None,
        scene_cuts: bool = True,
    ) -> Stage:
        """The step that `interpolate` adds to a video, for a `Pipeline`; same arguments."""
        if factor is not None and fps is not None:
            raise InputError("interpolate: give factor or fps, not both")
        if not isinstance(scene_cuts, bool):
            raise InputTypeError(
                f"scene_cuts: argument must be bool, got {type(scene_cuts).__name__}"
            )
        if fps is not None:
            rule: Timing = ConstantRate(frame_rate("fps", fps))
        else:
            rule = Division(_factor(factor))
        return Retiming(
            rule, self._pair, self._bundle.size_rule, self.cancel, scene_cuts=scene_cuts
        )

    def _pair(self, frame0: FrameArray, frame1: FrameArray) -> _Pair:
        return _Pair(self._motion, self._between, self._bundle.size_rule, frame0, frame1)


class _Pair:
    """Two frames of one size; the motion between them is computed once, when first needed."""

    def __init__(
        self,
        motion: Session,
        between: Session,
        rule: SizeRule,
        frame0: FrameArray,
        frame1: FrameArray,
    ) -> None:
        self._motion, self._between, self._rule = motion, between, rule
        self._frames = frame0, frame1
        self._features: dict[str, NDArray[Any]] | None = None

    def at(self, timestep: float) -> FrameArray:
        """The picture at a time from 0 to 1; at both ends the frame itself, not a copy."""
        if timestep in (0, 1):
            return self._frames[int(timestep)]
        if self._features is None:
            inputs = {
                name: pad(frame, self._rule)[None]
                for name, frame in zip(("frame0", "frame1"), self._frames, strict=True)
            }
            self._features = inputs | self._motion.run(inputs)
        known = self._features | {"timestep": np.array([timestep], np.float32)}
        result = self._between.run({name: known[name] for name in self._between.inputs})
        return crop(result["frame"][0], *self._frames[0].shape[:2])


def _timesteps(timestep: object) -> NDArray[np.float64]:
    """One or several times as float64, of shape () or (n,)."""
    try:
        times = np.asarray(timestep)
    except ValueError:
        # Nested sequences of unequal length.
        times = np.array(None)
    if times.dtype.kind not in "iuf" and times.size:
        raise InputTypeError(
            f"timestep: argument must be a number or a sequence of numbers, got {timestep!r:.60}"
        )
    if times.ndim > 1:
        raise InputError(f"timestep: argument must be a number or 1-D, got shape {times.shape}")
    times = times.astype(np.float64)
    # The comparison is false for NaN too.
    wrong = times[~((times >= 0) & (times <= 1))]
    if wrong.size:
        raise InputError(f"timestep: argument must be from 0 to 1, got {wrong.ravel()[0]}")
    return times


def _factor(factor: object) -> int:
    if factor is None:
        return 2
    if isinstance(factor, bool) or not isinstance(factor, int | np.integer):
        raise InputTypeError(
            f"factor: argument must be an int, got {type(factor).__name__}",
            hint="for other rates use fps=, for example fps=Fraction(60000, 1001)",
        )
    if not 2 <= factor <= MAX_FACTOR:
        raise InputError(f"factor: argument must be from 2 to {MAX_FACTOR}, got {factor}")
    return int(factor)
