"""Triplets for interpolation, real ones cut from clips and drawn ones, as memory-mapped arrays.

A sample holds the frames at 0, t and 1, the flows a network starts from (`inverse_search` on the
luma of the whole frame, so that a crop knows what entered it), and a label: the flow from the true
middle frame to either neighbour, which only training can know.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from PIL import Image

from fastvid import ops
from fastvid_export.models.interpolator_quality import LOOSE
from fastvid_export.training import material
from fastvid_export.training.motion_scenes import draw_triplet

# The last part of every clip is kept aside for validation.
TRAIN_PART = 0.85
CROP = 288


FIELDS = 3
"""Searches of a sample."""


def luma(frame: np.ndarray) -> np.ndarray:
    """BT.601 luma float32 (1, 1, H, W) in [0, 1] of a uint8 (H, W, 3) frame; sides made even."""
    h, w = frame.shape[0] // 2 * 2, frame.shape[1] // 2 * 2
    r, g, b = ops.rgb_to_planar(np.ascontiguousarray(frame[None, :h, :w]))[0]
    grey = np.float32(0.299) * r + np.float32(0.587) * g + np.float32(0.114) * b
    return grey[None, None]


def luma_half(frame: np.ndarray) -> np.ndarray:
    """The luma the motion search reads: BT.601 weights on 2x2 means of a uint8 (H, W, 3) frame.

    Returns:
        float32 (1, 1, H // 2, W // 2) in [0, 1].
    """
    return ops.downscale(luma(frame), 2)


def searched(frame0: np.ndarray, frame1: np.ndarray) -> np.ndarray:
    """Flow 0 to 1, then 1 to 0, of three searches, in pixels of the half-size frame.

    Returns:
        float32 (12, H // 2, W // 2): of the half-size frames, of the full ones, and of the
        half-size ones with patches far apart.
    """
    whole = [luma(f) for f in (frame0, frame1)]
    half0, half1 = (ops.downscale(x, 2) for x in whole)
    near = ops.inverse_search(half0, half1)
    full = [0.5 * ops.downscale(f, 2) for f in ops.inverse_search(*whole)]
    loose = ops.inverse_search(half0, half1, **LOOSE)
    return np.concatenate([f[0] for f in (*near, *full, *loose)])


def decode(path: Path, longest: int = 1280) -> np.ndarray:
    """All frames as uint8 (T, H, W, 3), halved while the longer side exceeds `longest`."""
    frames = []
    for frame in material.read_frames(path):
        while max(frame.shape) > longest:
            frame = np.asarray(Image.fromarray(frame).reduce(2))
        frames.append(frame)
    return np.stack(frames)


def load_photos(data: Path, longest: Sequence[int]) -> list[Image.Image]:
    """RGB photos that may train, each reduced to every size in `longest`."""
    photos = []
    for path in material.all_photos(data):
        full = material.load_photo(path)
        for side in longest:
            scale = side / max(full.size)
            size = (round(full.width * scale), round(full.height * scale))
            photos.append(full.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0))
    return photos


@dataclass(frozen=True)
class Sample:
    """One training sample; flows are in pixels of the half-resolution frame."""

    frames: np.ndarray
    """uint8 (3, H, W, 3): times 0, t, 1."""
    flow: np.ndarray
    """float32 (12, H/2, W/2): what `searched` finds."""
    label: np.ndarray
    """float32 (4, H/2, W/2): flow from the true middle frame to 0, then to 1."""
    timestep: float


def make_sample(frames: np.ndarray, timestep: float) -> Sample:
    """Searches the flows of a triplet uint8 (3, H, W, 3)."""
    half = [luma_half(f) for f in frames]
    label = [ops.inverse_search(half[1], half[k], bidirectional=False)[0][0] for k in (0, 2)]
    return Sample(frames, searched(frames[0], frames[2]), np.concatenate(label), timestep)


def crop(sample: Sample, y: int, x: int, size: int) -> Sample:
    """Cuts a square at an even position."""
    h, ys, xs = size // 2, y // 2, x // 2
    cut = (slice(None), slice(ys, ys + h), slice(xs, xs + h))
    frames = sample.frames[:, y : y + size, x : x + size]
    return Sample(frames, sample.flow[cut], sample.label[cut], sample.timestep)


def _busy_crop(rng: np.random.Generator, sample: Sample, size: int) -> Sample:
    """A crop chosen among several by how much moves in it; now and then any crop."""
    _, height, width, _ = sample.frames.shape
    tries = 1 if rng.random() < 0.2 else 5
    best, best_change = (0, 0), -1.0
    for _ in range(tries):
        y = int(rng.integers(0, (height - size) // 2 + 1)) * 2
        x = int(rng.integers(0, (width - size) // 2 + 1)) * 2
        a, b = (
            sample.frames[k, y : y + size : 4, x : x + size : 4].astype(np.int16) for k in (0, 2)
        )
        change = float(np.abs(a - b).mean())
        if change > best_change:
            best, best_change = (y, x), change
    return crop(sample, *best, size)


def real_samples(
    rng: np.random.Generator, clip: np.ndarray, first: int, last: int, count: int
) -> Iterator[Sample]:
    """Samples of frames [first, last): spans 2 to 6, full and half size, forth and back."""
    for _ in range(count):
        span = int(rng.choice([2, 2, 2, 3, 4, 4, 6]))
        start = int(rng.integers(first, last - span))
        middle = int(rng.integers(1, span))
        # The middle is what most callers ask for.
        if span == 2 or rng.random() < 0.5:
            middle = span // 2
        picks = [start, start + middle, start + span]
        timestep = middle / span
        if rng.random() < 0.5:
            picks, timestep = picks[::-1], 1 - timestep
        frames = clip[picks]
        if min(frames.shape[1:3]) >= 2 * CROP and rng.random() < 0.3:
            frames = np.stack([np.asarray(Image.fromarray(f).reduce(2)) for f in frames])
        yield _busy_crop(rng, make_sample(frames, timestep), CROP)


def coded_samples(
    rng: np.random.Generator, clip: np.ndarray, first: int, last: int, count: int
) -> Iterator[Sample]:
    """Samples of frames [first, last) made small and coded at a low rate, as old clips are."""
    made = 0
    while made < count:
        stride = int(rng.choice([1, 1, 2]))
        length = min(7, (last - first - 1) // stride)
        start = int(rng.integers(first, last - (length - 1) * stride))
        frames = clip[start : start + length * stride : stride]
        height = int(rng.integers(CROP + 8, 440)) // 16 * 16
        width = max(CROP + 8, round(height * frames.shape[2] / frames.shape[1])) // 16 * 16
        small = [np.asarray(Image.fromarray(f).resize((width, height))) for f in frames]
        small = recoded(small, quantiser=float(rng.uniform(3, 14)))
        if len(small) < 3:
            continue
        at = int(rng.integers(0, len(small) - 2))
        picks = [at, at + 1, at + 2] if rng.random() < 0.5 else [at + 2, at + 1, at]
        yield _busy_crop(rng, make_sample(np.stack([small[k] for k in picks]), 0.5), CROP)
        made += 1


def recoded(frames: Sequence[np.ndarray], quantiser: float) -> list[np.ndarray]:
    """Frames through MPEG-4 part 2 and back; a larger `quantiser`, from 1 to 31, loses more."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.options = {"qmin": str(round(quantiser)), "qmax": str(round(quantiser))}
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    file.seek(0)
    with av.open(file) as container:
        return [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]


def drawn_samples(
    rng: np.random.Generator, photos: Sequence[Image.Image], count: int
) -> Iterator[Sample]:
    """Samples of drawn scenes, with displacements up to a quarter of the frame."""
    size = CROP + 128
    for _ in range(count):
        reach = float(rng.choice([8, 24, 48, 96]))
        timestep = 0.5 if rng.random() < 0.5 else float(rng.uniform(0.1, 0.9))
        sample = make_sample(draw_triplet(rng, photos, size, reach, timestep), timestep)
        yield crop(sample, 64, 64, CROP)


class TripletSet:
    """Samples on disk: `frames`, `flow`, `label` and `timestep` as .npy files, memory-mapped."""

    def __init__(self, folder: Path) -> None:
        self.frames = np.load(folder / "frames.npy", mmap_mode="r")
        self.flow = np.load(folder / "flow.npy", mmap_mode="r")
        self.label = np.load(folder / "label.npy", mmap_mode="r")
        self.timestep = np.load(folder / "timestep.npy")

    def __len__(self) -> int:
        return len(self.timestep)

    @property
    def fields(self) -> int:
        """Searches of a sample."""
        return int(self.flow.shape[1]) // 4

    def sound(self, limit: float = 0.06) -> np.ndarray:
        """Indices of the samples whose truth both neighbours explain, which a scene cut forbids.

        Args:
            limit: Largest mean difference, in [0, 1], after warping a neighbour by its label.
        """
        return np.array([i for i in range(len(self)) if self._unexplained(i) <= limit])

    def _unexplained(self, i: int) -> float:
        # Every fourth pixel of the half-size frames is enough to tell a cut.
        frames, label = self.frames[i], self.label[i, :, ::4, ::4].astype(np.float32)
        size = frames.shape[1]
        y, x = np.mgrid[:size:8, :size:8]
        worst = 0.0
        for neighbour, (dx, dy) in ((0, label[:2]), (2, label[2:])):
            xs = np.clip(np.rint(x + 2 * dx), 0, size - 1).astype(int)
            ys = np.clip(np.rint(y + 2 * dy), 0, size - 1).astype(int)
            error = np.abs(frames[neighbour, ys, xs].astype(np.int16) - frames[1, y, x]).mean()
            worst = max(worst, float(error) / 255)
        return worst

    def start_error(self, i: int) -> float:
        """Mean squared error of the mean of both half-size frames, warped by the first search."""
        small = ops.downscale(np.stack([ops.rgb_to_planar(f[None])[0] for f in self.frames[i]]), 2)
        forth, back = self.flow[i, None, :2], self.flow[i, None, 2:4]
        # Half of what both searches say, seen from either side.
        speed = 0.5 * (forth.astype(np.float32) - back)
        t = self.timestep[i]
        sides = [ops.warp(small[k : k + 1], s * speed) for k, s in ((0, -t), (2, 1 - t))]
        return float(np.square(0.5 * (sides[0] + sides[1]) - small[1]).mean())

    @staticmethod
    def write(folder: Path, samples: Iterator[Sample], count: int) -> None:
        """Writes exactly `count` samples; `done.json` comes last and tells a whole set."""
        folder.mkdir(parents=True, exist_ok=True)

        def array(name: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
            return np.lib.format.open_memmap(
                folder / name, "w+", dtype=dtype, shape=(count, *shape)
            )

        frames = array("frames.npy", (3, CROP, CROP, 3), "uint8")
        flow = array("flow.npy", (4 * FIELDS, CROP // 2, CROP // 2), "float16")
        label = array("label.npy", (4, CROP // 2, CROP // 2), "float16")
        timestep = np.zeros(count, np.float32)
        for i, sample in zip(range(count), samples, strict=False):
            frames[i], flow[i], label[i] = sample.frames, sample.flow, sample.label
            timestep[i] = sample.timestep
        for a in (frames, flow, label):
            a.flush()
        np.save(folder / "timestep.npy", timestep)
        (folder / "done.json").write_text(json.dumps({"samples": count}))


def prepare(
    data: Path, out: Path, *, seed: int, real: int, coded: int, drawn: int, valid: int
) -> None:
    """Builds `train-real`, `train-coded`, `train-drawn` and `valid` under `out`.

    Args:
        data: Folder that holds `clips` and `photos`, which all are made from.
        out: Where the sets go; a set already whole is kept.
        seed: Seed of every choice.
        real: Real training samples over all clips.
        coded: The same, of small frames coded at a low rate.
        drawn: Drawn training samples.
        valid: Real validation samples, from the last part of each clip.
    """

    def missing(name: str) -> bool:
        return not (out / name / "done.json").exists()

    if missing("train-drawn"):
        rng = np.random.default_rng([seed, 1])
        photos = load_photos(data, (1000, 2000))
        TripletSet.write(out / "train-drawn", drawn_samples(rng, photos, drawn), drawn)
    rounds = (
        ("train-real", real, 0, 2, real_samples),
        ("valid", valid, 1, 3, real_samples),
        ("train-coded", coded, 0, 4, coded_samples),
    )
    for name, count, part, salt, cut in rounds:
        if missing(name):
            rng = np.random.default_rng([seed, salt])
            TripletSet.write(out / name, _over_clips(rng, data, count, part, cut), count)


Cut = Callable[[np.random.Generator, np.ndarray, int, int, int], Iterator[Sample]]


def _over_clips(
    rng: np.random.Generator, data: Path, count: int, part: int, cut: Cut
) -> Iterator[Sample]:
    clips = material.all_clips(data)
    for path, share in zip(clips, clip_parts(count, len(clips)), strict=True):
        clip = decode(path)
        split = int(len(clip) * TRAIN_PART)
        first, last = (0, split) if part == 0 else (split, len(clip))
        yield from cut(rng, clip, first, last, len(share))


def clip_parts(count: int, clips: int) -> list[range]:
    """Which of `count` samples come from each clip."""
    return [range(count * i // clips, count * (i + 1) // clips) for i in range(clips)]
