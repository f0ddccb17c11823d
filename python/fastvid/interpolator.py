"""Frame interpolation: pictures between two frames, and videos at a higher frame rate."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from fastvid._frames import Cropped, FrameArray, check_frame, pad
from fastvid._memory import MemoryPlan, waiting_frames
from fastvid._model import Model
from fastvid._rates import frame_rate
from fastvid._retiming import ConstantRate, Division, Retiming, Timing
from fastvid.backends._transfer import Here, in_turn
from fastvid.bundle import Bundle, SizeRule
from fastvid.errors import InputError, InputTypeError
from fastvid.video.types import Stage, VideoInfo

if TYPE_CHECKING:
    from fastvid.backends import Session
    from fastvid.backends._transfer import Pending, Transfers
    from fastvid.backends.tensorrt import EngineOptions
    from fastvid.video import Video

MAX_FACTOR = 64
DUPLICATES = ("keep", "merge")


class Interpolator(Model):
    """Draws what was between two frames with a trained network.

    Args:
        model: `"fast"`, `"quality"`, the full name of a shipped model, or a folder that holds a
            bundle.
        device: `"auto"`, `"cpu"`, `"cuda"` or `"cuda:N"`; only `"auto"` may fall back to the CPU.
        backend: `"auto"`, `"onnxruntime"`, `"tensorrt"`, or `EngineOptions` of
            `fastvid.backends.tensorrt`.
        precision: `"auto"`, or one that the backend offers.
        threads: CPU threads of the network; None takes what the machine has.
        low_memory: Whether memory goes back to the system after each frame, which takes time.
        cuda_graphs: Whether work on CUDA is recorded once per size and repeated.

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
        low_memory: bool = False,
        cuda_graphs: bool = False,
    ) -> None:
        super().__init__(
            Bundle.find(model, "interpolator"),
            device=device,
            backend=backend,
            precision=precision,
            threads=threads,
            low_memory=low_memory,
            cuda_graphs=cuda_graphs,
        )
        # Sizes that are known to fit.
        self._sizes: set[tuple[int, int]] = set()

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
            frame0: uint8 RGB (H, W, 3), the picture at time 0; or uint16 with 65535 for white.
            frame1: The same size and dtype, the picture at time 1.
            timestep: From 0 to 1; 0 and 1 give copies of the frames themselves.

        Returns:
            RGB of that dtype, (H, W, 3) for a number, (n, H, W, 3) for a sequence of n numbers.

        Raises:
            InputTypeError: A frame is not such an array, or `timestep` is not a number.
            UnsupportedModelError: The model or backend takes uint8 alone.
            InputError: The sizes differ or are not allowed by the bundle, or a time is outside.
            OutOfMemoryError: The frames cannot fit into memory; the hint names a size that does.
        """
        first, second = check_frame("frame0", frame0), check_frame("frame1", frame1)
        if first.shape != second.shape:
            raise InputError(
                f"frame1: argument must have the shape of frame0, {first.shape}, got {second.shape}"
            )
        if first.dtype != second.dtype:
            raise InputTypeError(
                f"frame1: argument must have the dtype of frame0, {first.dtype}, got {second.dtype}"
            )
        times = _timesteps(timestep)
        self._require(*first.shape[:2])
        pair = self._pairs()(first, second)
        if times.ndim == 0:
            picture = pair.start(float(times)).result()
            return picture.copy() if picture is first or picture is second else picture
        result = np.empty((len(times), *first.shape), first.dtype)
        started = (pair.start(float(time)) for time in times)
        for index, drawn in enumerate(in_turn(started, self._transfers.ahead)):
            result[index] = drawn.result()
        return result

    def interpolate(
        self,
        video: Video,
        *,
        factor: int | None = None,
        fps: int | float | str | Fraction | None = None,
        scene_cuts: bool = True,
        duplicates: str = "keep",
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
            duplicates: `"keep"`, or `"merge"` for sources in which two to four frames in a row
                show one picture, such as telecined film, animation on twos and recordings of a
                screen: such frames are drawn anew between the pictures that differ, which makes
                motion even. A picture that stays longer is a still scene and is kept.

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
        return video.through(
            self.stage(factor=factor, fps=fps, scene_cuts=scene_cuts, duplicates=duplicates)
        )

    def stage(
        self,
        *,
        factor: int | None = None,
        fps: int | float | str | Fraction | None = None,
        scene_cuts: bool = True,
        duplicates: str = "keep",
    ) -> Stage:
        """The step that `interpolate` adds to a video, for a `Pipeline`; same arguments."""
        if factor is not None and fps is not None:
            raise InputError("interpolate: give factor or fps, not both")
        if not isinstance(scene_cuts, bool):
            raise InputTypeError(
                f"scene_cuts: argument must be bool, got {type(scene_cuts).__name__}"
            )
        if not isinstance(duplicates, str):
            raise InputTypeError(
                f"duplicates: argument must be str, got {type(duplicates).__name__}"
            )
        if duplicates not in DUPLICATES:
            raise InputError(
                f"duplicates: argument must be one of {', '.join(DUPLICATES)}, got {duplicates!r}"
            )
        if fps is not None:
            rule: Timing = ConstantRate(frame_rate("fps", fps))
        else:
            rule = Division(_factor(factor))
        return Retiming(
            rule,
            self._pairs,
            self._check,
            self.cancel,
            ahead=self._transfers.ahead,
            scene_cuts=scene_cuts,
            merge_repeats=duplicates == "merge",
        )

    def plan(self, height: int, width: int) -> MemoryPlan:
        """What frames of a size need in memory.

        The first call measures the model on small frames, which takes a second or two.

        Args:
            height: Of a frame, in pixels.
            width: The same.

        Raises:
            InputError: The bundle does not allow the size.
            DeviceError: The memory cannot be measured.
        """
        self._bundle.size_rule.padded(height, width)
        note = "frames pass whole: motion is looked for across all of them"
        waiting = waiting_frames(height, width)
        return self._memory.plan(self._bundle.name, (height, width), None, waiting, (note,))

    def _check(self, info: VideoInfo) -> None:
        """Refuses a video that the model does not take."""
        self._require(info.height, info.width)
        self._require_depth(info)

    def _require(self, height: int, width: int) -> None:
        """Refuses frames that the bundle does not allow or memory does not hold."""
        self._bundle.size_rule.padded(height, width)
        if (height, width) not in self._sizes:
            self._memory.require("interpolate", height, width)
            self._sizes.add((height, width))

    def _pairs(self) -> Callable[[FrameArray, FrameArray], _Pair]:
        """Prepares one pair of a video after the other."""
        uploads = _Uploads(self._transfers, self._bundle.size_rule)
        return partial(_Pair, self._graph, self._transfers, uploads)


class _Uploads:
    """Frames where the network takes them; the second of a pair is the first of the next."""

    def __init__(self, transfers: Transfers, rule: SizeRule) -> None:
        self._transfers, self._rule = transfers, rule
        self._known: list[tuple[FrameArray, Any]] = []

    def of(self, frame: FrameArray) -> Any:
        """The frame as a graph's input (1, H, W, 3), padded."""
        for known, array in self._known:
            if known is frame:
                return array
        array = self._transfers.upload(pad(frame, self._rule)[None])
        self._known = [*self._known[-1:], (frame, array)]
        return array


class _Pair:
    """Two frames of one size; the motion between them is computed once, when first needed."""

    def __init__(
        self,
        graph: Callable[[str, object], Session],
        transfers: Transfers,
        uploads: _Uploads,
        frame0: FrameArray,
        frame1: FrameArray,
    ) -> None:
        self._motion, self._between = (graph(n, frame0.dtype) for n in ("motion", "between"))
        self._transfers, self._uploads = transfers, uploads
        self._frames = frame0, frame1
        self._features: dict[str, Any] | None = None

    def start(self, timestep: float) -> Pending:
        """Begins with the picture at a time from 0 to 1; at both ends it is the frame itself."""
        if timestep in (0, 1):
            return Here(self._frames[int(timestep)])
        if self._features is None:
            first, second = (self._uploads.of(frame) for frame in self._frames)
            inputs = {"frame0": first, "frame1": second}
            self._features = inputs | self._motion.run(inputs, keep=self._motion.outputs)
        known = self._features | {"timestep": np.array([timestep], np.float32)}
        inputs = {name: known[name] for name in self._between.inputs}
        frame = self._between.run(inputs, keep=("frame",))["frame"]
        return Cropped(self._transfers.download(frame), *self._frames[0].shape[:2])


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
