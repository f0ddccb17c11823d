"""Files at 4K and 8K, and of 10 bits, from decoding to encoding, with the memory they take.

    python benchmarks/pipelines/large_frames.py [--row NAME ...] [--again] [--missing]

Each job runs twice in processes of their own, on a drawn clip and on one twice as long: memory may
grow with length until the encoder has seen as far ahead as it looks, and no further. A frame of
7680x4320 has 100 MB as RGB bytes, 199 MB in 16 bits. The answer is checked: size, number of frames
and pixel format of the file, and PSNR of frames against what they should have become, where it can
be known: of those that pass through, and of what is enlarged, reduced again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "quality"))

import av
import cv2
import numpy as np
from rank_store import Rows

from fastvid.bundle import Bundle, shipped
from fastvid.metrics import psnr
from fastvid.scene import Scene

RATE = 30
_JOB = """
import json, sys
from fastvid import Interpolator, Upscaler, Video
from fastvid.bench import probes
source, target, task, codec, threads = json.loads(sys.argv[1])
video = Video.open(source)
if task == "upscale":
    model = Upscaler("fast", scale=2, device="cpu", threads=threads)
    video = model.upscale(video)
else:
    model = Interpolator("fast", device="cpu", threads=threads)
    video = model.interpolate(video, factor=2)
video.save(target, codec=codec, audio="drop")
print(probes.peak_rss())
"""


@dataclass(frozen=True)
class Job:
    """One row."""

    size: tuple[int, int]
    task: str
    """`upscale` or `interpolate`, by 2."""
    codec: str
    pixels: str
    """Pixel format of the input."""
    frames: int
    """Of the short clip."""


JOBS = {
    "4K to 8K": Job((3840, 2160), "upscale", "h264", "yuv420p", 10),
    "4K30 to 4K60": Job((3840, 2160), "interpolate", "h264", "yuv420p", 12),
    "8K30 to 8K60": Job((7680, 4320), "interpolate", "h264", "yuv420p", 6),
    "1080p to 4K, 10 bit": Job((1920, 1080), "upscale", "hevc", "yuv420p10le", 12),
    "4K30 to 4K60, 10 bit": Job((3840, 2160), "interpolate", "hevc", "yuv420p10le", 12),
}


def main() -> None:
    """Runs the rows that are missing."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--row", nargs="*", choices=JOBS)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--missing", action="store_true", help="list what is to do, and stop")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    rows = Rows("pipeline_large")
    rows.keep(JOBS)
    for name, job in JOBS.items():
        mark = f"{job.frames} frames, {_mark(job)}"
        if (options.row and name not in options.row) or (
            rows.has(name, "time", mark) and not options.again
        ):
            continue
        print(name, flush=True)
        if not options.missing:
            with tempfile.TemporaryDirectory() as folder:
                found = measured(job, Path(folder), options.threads)
            print(found, flush=True)
            rows.put(name, "time", mark, found)


def _mark(job: Job) -> str:
    from between import digest

    name = "upscaler-fast-x2" if job.task == "upscale" else "interpolator-fast"
    return digest(Bundle.load(shipped()[name]))


def measured(job: Job, folder: Path, threads: int) -> dict[str, Any]:
    """Time and memory for the clip and for one twice as long."""
    peaks, seconds = {}, 0.0
    for count in (job.frames, 2 * job.frames):
        clip, target = folder / f"in-{count}.mkv", folder / f"out-{count}.mkv"
        draw(job, count, clip)
        request = json.dumps([str(clip), str(target), job.task, job.codec, threads])
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", _JOB, request], capture_output=True, text=True)
        seconds = time.perf_counter() - start
        if done.returncode:
            raise SystemExit(done.stderr[-2000:])
        peaks[str(count)] = round(int(done.stdout.split()[-1]) / 2**20, 1)
    made, worst = checked(job, clip, target)
    return {
        "size": job.size,
        "format_out": made,
        "frames_in": 2 * job.frames,
        "frames_out": 2 * job.frames * (2 if job.task == "interpolate" else 1),
        "seconds_per_frame": round(
            seconds / (2 * job.frames * (2 if job.task == "interpolate" else 1)), 3
        ),
        "peak_mib": peaks,
        "checked": f"{worst:.1f} dB, the worst frame",
        "threads": threads,
    }


def draw(job: Job, count: int, path: Path) -> None:
    """A clip of a drawn scene; 8K is one of 4K, resized."""
    scene = Scene(min(job.size[0], 3840), min(job.size[1], 2160), seed=5)
    codec = "libx265" if job.codec == "hevc" else "libx264"
    options = {"preset": "ultrafast", "crf": "12"}
    if codec == "libx265":
        options["x265-params"] = "log-level=none"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=RATE, options=options)
        stream.width, stream.height = job.size
        stream.pix_fmt = job.pixels
        for n in range(count):
            image = scene.draw(n / RATE)
            if image.shape[1] != job.size[0]:
                image = cv2.resize(image, job.size, interpolation=cv2.INTER_CUBIC)  # type: ignore[assignment]
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = n, Fraction(1, RATE)
            container.mux(stream.encode(frame.reformat(format=job.pixels)))
        container.mux(stream.encode(None))


def checked(job: Job, clip: Path, target: Path) -> tuple[str, float]:
    """What was written, and the PSNR of its worst frame against the input's where that is known.

    Raises:
        SystemExit: The file is not what it must be.
    """
    values, count, kind = [], 0, ""
    step = 2 if job.task == "interpolate" else 1
    sources = planes(clip)
    for n, (frame, plane) in enumerate(planes(target)):
        kind = f"{frame.width}x{frame.height} {frame.format.name}"
        count += 1
        if n % step == 0:
            _, wanted = next(sources)
            if job.task == "upscale":
                size = (plane.shape[1] // 2, plane.shape[0] // 2)
                plane = cv2.resize(plane, size, interpolation=cv2.INTER_AREA)
            values.append(psnr(plane, wanted))
    scale = 2 if job.task == "upscale" else 1
    expected = f"{scale * job.size[0]}x{scale * job.size[1]} {job.pixels}"
    if kind != expected or count != 2 * job.frames * step:
        raise SystemExit(f"{expected} must come out {2 * job.frames * step} times, got {kind}")
    if min(values) < 30:
        raise SystemExit(f"frames differ from what they should be: {values}")
    return kind, min(values)


def planes(path: Path) -> Iterator[tuple[av.VideoFrame, Any]]:
    """Frames, and their luma in 0..255."""
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for frame in container.decode(video=0):
            deep = "10" in frame.format.name
            grey = frame.reformat(format="gray10le" if deep else "gray").to_ndarray()
            yield frame, grey.astype(np.float32) / (4 if deep else 1)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    main()
