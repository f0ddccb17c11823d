"""Super-resolution: frames and videos at a multiple of their size."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fastvid._frames import Cropped, FrameArray, check_frame, pad_to
from fastvid._memory import MemoryPlan, waiting_frames
from fastvid._model import Model
from fastvid._tiles import Span, equal_spans, fitting, spans
from fastvid.backends._onnx_reach import reach
from fastvid.backends._transfer import Here, in_turn
from fastvid.bundle import Bundle, shipped
from fastvid.errors import InputError, InputTypeError, ManifestError, OutOfMemoryError
from fastvid.video.types import Frame, VideoInfo

if TYPE_CHECKING:
    from fastvid.backends._transfer import Pending
    from fastvid.backends.tensorrt import EngineOptions
    from fastvid.video import Video

WHOLE_PIXELS = 4096 * 2304
"""Frames with more pixels pass through the network in pieces, which bounds its memory."""
MAX_SCALE = 16
"""Largest factor that a model may reach by running more than once."""
_UNKNOWN_REACH = 64


class Upscaler(Model):
    """Makes frames larger, or restores them, with a trained network.

    A frame can pass in pieces that overlap by as much as the network looks, which takes less
    memory and gives the pixels of the whole. How far that is comes from the bundle or the graph;
    where neither says, 64 pixels are taken. A network that looks at all of a frame gives nearly the
    pixels of the whole; `plan` says so.

    Some networks take pictures of one size alone, which the shapes in their bundle say: all pieces
    then have that size, and smaller frames are extended to it.

    Args:
        model: The class of a shipped model, its full name, or a folder that holds a bundle.
            `"fast"` keeps up with video and `"quality"` takes its time, both for clean pictures;
            `"real"` is for compressed and noisy video.
        scale: Factor of both sides: one that the class has, or a power of it up to 16, for which
            the network runs more than once. 1, of `"real"`, restores: the size stays.
        device: `"auto"`, `"cpu"`, `"cuda"` or `"cuda:N"`; only `"auto"` may fall back to the CPU.
        backend: `"auto"`, `"onnxruntime"`, `"tensorrt"`, or `EngineOptions` of
            `fastvid.backends.tensorrt`.
        precision: `"auto"`, or one that the backend offers.
        threads: CPU threads of the network; None takes what the machine has.
        tile: Side of the square pieces that the network sees, in pixels of the frame, their
            overlap included; None is the whole frame. `"auto"` is the whole up to 4096x2304
            pixels, as far as memory reaches, and else the largest pieces that do; if the device is
            full all the same, it tries once more with a quarter of that. A network of one size
            takes `"auto"` alone.
        low_memory: Whether memory goes back to the system after each frame, which takes time.
        cuda_graphs: Whether work on CUDA is recorded once per size and repeated.

    Raises:
        InputError: No such model, or it does not offer the scale, or `tile` is too small.
        ModelError: The bundle cannot be used.
        DeviceError: Device or backend are not there.
    """

    name = "upscale"
    """The stage's word in reports and progress displays; `restore` at scale 1."""

    def __init__(
        self,
        model: str | os.PathLike[str] = "fast",
        *,
        scale: int = 2,
        device: str = "auto",
        backend: str | EngineOptions = "auto",
        precision: str = "auto",
        threads: int | None = None,
        tile: int | str | None = "auto",
        low_memory: bool = False,
        cuda_graphs: bool = False,
    ) -> None:
        bundle, self._passes = _find(model, scale)
        self._reach = _reach_of(bundle)
        self._fixed = _fixed_size(bundle, self._reach)
        _check_tile(tile, bundle, self._reach, self._fixed)
        super().__init__(
            bundle,
            device=device,
            backend=backend,
            precision=precision,
            threads=threads,
            low_memory=low_memory,
            cuda_graphs=cuda_graphs,
        )
        assert bundle.scale is not None
        self._step: int = bundle.scale
        self._scale: int = self._step**self._passes
        self.name = "restore" if self._scale == 1 else "upscale"
        self._tile = tile
        # Pieces of at most so many pixels, by the size of the frame, that "auto" has found.
        self._limits: dict[tuple[int, int], int] = {}

    @property
    def scale(self) -> int:
        """Factor between the sides of the input and of the output."""
        return self._scale

    def upscale_frame(self, frame: FrameArray) -> FrameArray:
        """Upscale one picture.

        Where the bundle's size rule asks for it the frame is extended at the bottom and right by
        repeating its edge, and the result is cropped: the size is always exactly `scale` times.

        Args:
            frame: uint8 RGB (H, W, 3), any size the bundle allows; or uint16 with 65535 for white.

        Returns:
            RGB (scale*H, scale*W, 3) of the same dtype, C-contiguous.

        Raises:
            InputTypeError: `frame` is not such an array.
            UnsupportedModelError: The model or backend takes uint8 alone.
            InputError: `frame` has another shape or a size that the bundle does not allow.
        """
        return self._start(check_frame("frame", frame)).result()

    def upscale(self, video: Video) -> Video:
        """A video with every frame upscaled, lazily; time stamps stay as they are.

        Raises:
            InputTypeError: `video` is not a `Video`.
            InputError: The bundle does not allow the frame size.
        """
        from fastvid.video import Video

        if not isinstance(video, Video):
            raise InputTypeError(
                f"video: argument must be a Video, got {type(video).__name__}",
                hint="Video.open(path) or Video.from_frames(frames, fps)",
            )
        return video.through(self)

    def transform(self, info: VideoInfo) -> VideoInfo:
        """What the video becomes: `scale` times the size."""
        self._require_depth(info)
        for done in range(self._passes):
            scale = self._step**done
            self._padded(info.height * scale, info.width * scale)
        return replace(info, width=info.width * self._scale, height=info.height * self._scale)

    def process(self, frames: Iterator[Frame], info: VideoInfo) -> Iterator[Frame]:
        """The upscaled frames, one by one."""
        ahead = self._transfers.ahead
        started = ((frame, self._start(frame.image)) for frame in frames)
        for frame, pending in in_turn(started, ahead):
            yield replace(frame, image=pending.result())

    def plan(self, height: int, width: int) -> MemoryPlan:
        """What frames of a size need in memory, and in what pieces they pass.

        The first call measures the model on small frames, which takes a second or two.

        Args:
            height: Of a frame, in pixels.
            width: The same.

        Raises:
            InputError: The bundle does not allow the size.
            DeviceError: The memory cannot be measured.
        """
        self._padded(height, width)
        # The last pass sees the largest frames.
        grown = self._step ** (self._passes - 1)
        padded = self._padded(grown * height, grown * width)
        piece = self._piece(*padded)
        notes: tuple[str, ...] = ()
        if grown > 1:
            notes = (f"the last of {self._passes} passes sees {padded[1]}x{padded[0]}",)
        tiling = self._bundle.tiling
        if piece != padded and tiling is not None and not tiling.exact:
            notes += ("pieces differ a little from the whole, which the network looks at all of",)
        return self._memory.plan(
            self._bundle.name,
            (height, width),
            piece if piece != padded else None,
            waiting_frames(height, width, self._scale),
            notes,
            passes=grown,
        )

    def _padded(self, height: int, width: int) -> tuple[int, int]:
        """The size that a frame is padded to; raises InputError where it must not be."""
        rule = self._bundle.size_rule
        padded = rule.padded(height, width)
        if self._fixed is None:
            return padded
        larger = (max(padded[0], self._fixed[0]), max(padded[1], self._fixed[1]))
        if rule.padding == "none" and larger != (height, width):
            raise InputError(
                f"frame: height and width must be at least {self._fixed[0]}x{self._fixed[1]} for "
                f"{self._bundle.name!r}, got {height}x{width}"
            )
        return larger

    def _seen(self, height: int, width: int) -> tuple[int, int]:
        return self._fixed or super()._seen(height, width)

    def _start(self, frame: FrameArray) -> Pending:
        """Begins with a frame; all passes but the last are finished here."""
        for _ in range(self._passes - 1):
            frame = self._enlarge(frame).result()
        return self._enlarge(frame)

    def _enlarge(self, frame: FrameArray) -> Pending:
        """Begins with a pass; in pieces it is finished here."""
        height, width = frame.shape[:2]
        padded = pad_to(frame, self._padded(height, width), self._bundle.size_rule)
        size = self._piece(*padded.shape[:2])
        try:
            large = self._started(padded, size)
        except OutOfMemoryError as error:
            size = self._smaller(padded, size, error)
            try:
                large = self._started(padded, size)
            except OutOfMemoryError as again:
                raise self._too_large(padded, size, again) from None
        return Cropped(large, height * self._step, width * self._step)

    def _piece(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the pieces that a padded frame passes in."""
        if self._fixed is not None:
            return self._fixed
        if self._tile is None:
            return height, width
        if isinstance(self._tile, int):
            return min(self._tile, height), min(self._tile, width)
        limit = self._limits.get((height, width))
        if limit is None:
            limit = min(WHOLE_PIXELS, self._memory.most_pixels(height, width))
            self._limits[height, width] = limit
        if height * width <= limit:
            return height, width
        found = fitting(height, width, limit, *self._reach)
        if found is None:
            raise OutOfMemoryError(
                f"upscale: {width}x{height} must fit into memory in pieces, only {limit} pixels do",
                hint="free memory, or tile= sets the size whatever is free",
            )
        return found

    def _smaller(
        self, frame: FrameArray, size: tuple[int, int], error: OutOfMemoryError
    ) -> tuple[int, int]:
        """Pieces of a quarter of the pixels, after the device was full."""
        height, width = frame.shape[:2]
        limit = size[0] * size[1] // 4
        fixed = self._tile != "auto" or self._fixed is not None
        if fixed or (found := fitting(height, width, limit, *self._reach)) is None:
            raise self._too_large(frame, size, error) from None
        self._limits[height, width] = limit
        return found

    def _too_large(
        self, frame: FrameArray, size: tuple[int, int], error: OutOfMemoryError
    ) -> OutOfMemoryError:
        height, width = frame.shape[:2]
        return OutOfMemoryError(
            f"upscale: {width}x{height} in pieces of {size[1]}x{size[0]}: {error.message}",
            hint="a smaller tile=, smaller frames or low_memory=True",
        )

    def _started(self, frame: FrameArray, size: tuple[int, int]) -> Pending:
        if size == frame.shape[:2]:
            return self._run(frame)
        return Here(self._in_pieces(frame, size)[None])

    def _run(self, frame: FrameArray) -> Pending:
        frames = self._transfers.upload(frame[None])
        session = self._graph("upscale", frame.dtype)
        result = session.run({"frames": frames}, keep=("upscaled",))
        return self._transfers.download(result["upscaled"])

    def _in_pieces(self, frame: FrameArray, size: tuple[int, int]) -> FrameArray:
        height, width = frame.shape[:2]
        scale, cut = self._step, spans if self._fixed is None else equal_spans
        areas = [
            (rows, columns)
            for rows in cut(height, size[0], *self._reach)
            for columns in cut(width, size[1], *self._reach)
        ]

        def started() -> Iterator[tuple[Span, Span, Pending]]:
            for rows, columns in areas:
                seen = frame[rows.first : rows.last, columns.first : columns.last]
                yield rows, columns, self._run(np.ascontiguousarray(seen))

        result = np.empty((height * scale, width * scale, 3), frame.dtype)
        for rows, columns, pending in in_turn(started(), self._transfers.ahead):
            piece = pending.result()[0]
            target = result[rows.begin * scale : rows.end * scale]
            target[:, columns.begin * scale : columns.end * scale] = piece[
                (rows.begin - rows.first) * scale : (rows.end - rows.first) * scale,
                (columns.begin - columns.first) * scale : (columns.end - columns.first) * scale,
            ]
        return result


def _reach_of(bundle: Bundle) -> tuple[int, int]:
    """How many pixels far the network looks, and the multiple that pieces are of."""
    if bundle.tiling is not None:
        step = math.lcm(bundle.tiling.multiple_of, bundle.size_rule.multiple_of)
        return bundle.tiling.reach, step
    found = None
    # What is wrong with the graph is said when it is loaded.
    with contextlib.suppress(KeyError, ValueError):
        found = reach(bundle.read(bundle.graphs["upscale"].file))
    far, block = found or (_UNKNOWN_REACH, _UNKNOWN_REACH)
    return far, math.lcm(block, bundle.size_rule.multiple_of)


def _fixed_size(bundle: Bundle, far: tuple[int, int]) -> tuple[int, int] | None:
    """Height and width that the graph takes; None where they vary.

    Raises:
        ManifestError: Pieces of that size cannot be cut as the bundle says.
    """
    shape = bundle.graphs["upscale"].inputs[0].shape
    height, width = shape[1:3] if len(shape) == 4 else (0, 0)
    if isinstance(height, str) or isinstance(width, str):
        return None
    if height % far[1] or width % far[1] or min(height, width) < _least(far):
        raise ManifestError(
            f"bundle.json: $.graphs.upscale.inputs[0].shape must have height and width of at least "
            f"{_least(far)} and multiples of {far[1]}, by $.tiling or what the graph looks at, got "
            f"{height}x{width}"
        )
    return height, width


def _least(far: tuple[int, int]) -> int:
    """The smallest piece that gives anything."""
    return 2 * -(-far[0] // far[1]) * far[1] + far[1]


def _check_tile(
    tile: object, bundle: Bundle, far: tuple[int, int], fixed: tuple[int, int] | None
) -> None:
    auto = isinstance(tile, str) and tile == "auto"
    if fixed is not None and not auto and tile not in (fixed[0], fixed[1]):
        raise InputError(
            f"tile: argument must be 'auto' for {bundle.name!r}, whose network takes "
            f"{fixed[1]}x{fixed[0]} alone, got {tile!r}"[:400]
        )
    if tile is None or auto:
        return
    if isinstance(tile, bool) or not isinstance(tile, int):
        got = f"{tile[:40]!r}" if isinstance(tile, str) else type(tile).__name__
        raise InputTypeError(f"tile: argument must be an int, 'auto' or None, got {got}")
    least = max(_least(far), bundle.size_rule.minimum)
    if tile < least:
        raise InputError(
            f"tile: argument must be at least {least} for {bundle.name!r}, which looks {far[0]} "
            f"pixels far, got {tile}"
        )


def _find(model: str | os.PathLike[str], scale: int) -> tuple[Bundle, int]:
    """The bundle, and how often it runs."""
    if isinstance(scale, bool) or not isinstance(scale, int | np.integer):
        raise InputTypeError(f"scale: argument must be an int, got {type(scale).__name__}")
    scale = int(scale)
    steps = []
    if isinstance(model, str):
        pattern = re.compile(rf"upscaler-{re.escape(model)}-x(\d+)")
        steps = sorted(int(m[1]) for m in map(pattern.fullmatch, shipped()) if m)
    if steps:
        offered = {step**passes: (step, passes) for step in steps for passes in _passes_of(step)}
        if scale not in offered:
            listed = ", ".join(map(str, sorted(offered)))
            hint = "video is only made larger; ffmpeg -vf scale=W:H makes it smaller"
            raise InputError(
                f"scale: argument must be one of {listed} for model {model!r}, got {scale}",
                hint=hint if scale < 1 else "",
            )
        step, passes = offered[scale]
        return Bundle.find(model, "upscaler", step), passes
    bundle = Bundle.find(model, "upscaler")
    step = bundle.scale or 0
    for passes in _passes_of(step):
        if step**passes == scale:
            return bundle, passes
    return Bundle.find(model, "upscaler", scale), 1


def _passes_of(step: int) -> range:
    """How often a model can run: more than once as long as the whole factor is at most 16."""
    most = 1
    while step > 1 and step ** (most + 1) <= MAX_SCALE:
        most += 1
    return range(1, most + 1)
