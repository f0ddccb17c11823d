"""What running steps at the same time is worth, and whether memory grows with length.

    python benchmarks/bench_pipeline.py [--part overlap|memory] [--minutes 10]

Overlap: a clip is decoded, passes one stage and is encoded. Every step is timed alone and all
together, interleaved; `kept` is the pipeline's rate divided by that of the slowest step alone. The
stage waits, as one does whose model runs on another device, or computes on one core.
`cores_allow_fps` is what the cores could do at best, from the processor time of the steps alone.
Memory: the peak of a process that turns a clip of 10 seconds into a file, and of one for a clip of
`--minutes`. Clips are drawn; the answer is checked first: every frame arrives, in order, and alike.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from statistics import median

import av
import numpy as np
import timing

from fastvid.metrics import psnr
from fastvid.pipeline import Pipeline
from fastvid.scene import Scene
from fastvid.video import Frame, Video, VideoInfo
from fastvid.video.target import Target
from fastvid.video.writer import EncodeOptions, open_writer

RATE = 25


class Waiting:
    """A stage that takes time but no core."""

    name = "stage"

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def transform(self, info: VideoInfo) -> VideoInfo:
        return info

    def process(self, frames: Iterator[Frame], info: VideoInfo) -> Iterator[Frame]:
        for frame in frames:
            end = time.perf_counter() + self._seconds
            self._work(end)
            yield frame

    def _work(self, end: float) -> None:
        time.sleep(max(0.0, end - time.perf_counter()))


class Computing(Waiting):
    """A stage that keeps one core busy outside the interpreter."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self._data = np.random.default_rng(0).random(1 << 16, np.float32)
        rounds = 200
        start = time.perf_counter()
        for _ in range(rounds):
            np.sqrt(self._data, out=self._data)
        # A fixed amount of work, not a fixed time: a busy machine must not hide contention.
        self._rounds = max(1, round(seconds * rounds / (time.perf_counter() - start)))

    def _work(self, end: float) -> None:
        for _ in range(self._rounds):
            np.sqrt(self._data, out=self._data)


def seconds_of(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of wall time and of processor time."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def encode(frames: list[Frame], info: VideoInfo, path: Path) -> None:
    target = Target(path, overwrite=True)
    writer = open_writer(target, info, EncodeOptions())
    for frame in frames:
        writer.write(frame)
    writer.finish()
    target.commit()


def check(source: Video, stage: Waiting, path: Path) -> float:
    result = Pipeline([stage]).run(source, path, overwrite=True)
    before, after = source.frames(), Video.open(path).frames()
    alike = min(psnr(a, b) for a, b in zip(before, after, strict=True))
    if result.duration != result.duration_in or alike < 28:
        raise SystemExit(f"the answer is wrong, so its time means nothing: {result}, {alike} dB")
    return alike


def overlap(folder: Path, size: tuple[int, int], count: int, rounds: int) -> dict[str, object]:
    scene = Scene(*size, seed=3)
    drawn = [scene.draw(n / RATE) for n in range(24)]
    # Back and forth, so that there is no cut.
    order = [n % 46 if n % 46 < 24 else 46 - n % 46 for n in range(count)]
    clip, output = folder / "clip.mp4", folder / "out.mp4"
    Video.from_frames([drawn[n] for n in order], RATE).save(clip)
    source = Video.open(clip)
    frames = list(source)

    def decode() -> None:
        for _ in source:
            pass

    steps = {"decode": decode, "encode": lambda: encode(frames, source.info, output)}
    alone = max(min(seconds_of(step)[0] for _ in range(2)) for step in steps.values()) / count
    report: dict[str, object] = {}
    cores = len(os.sched_getaffinity(0))
    for kind, stage in (("waiting", Waiting(1.3 * alone)), ("computing", Computing(2 * alone))):
        fidelity = check(source, stage, output)

        def pipeline(stage: Waiting = stage) -> None:
            Pipeline([stage]).run(source, output, overwrite=True)

        def only_stage(stage: Waiting = stage) -> None:
            for _ in stage.process(iter(frames), source.info):
                pass

        measured: dict[str, list[float]] = {}
        processor: dict[str, list[float]] = {}
        for _ in range(rounds):
            for name, step in {**steps, "stage": only_stage, "pipeline": pipeline}.items():
                wall, worked = seconds_of(step)
                measured.setdefault(name, []).append(count / wall)
                processor.setdefault(name, []).append(worked / count)
        fps = {name: round(median(values), 1) for name, values in measured.items()}
        slowest = min(fps[name] for name in ("decode", "stage", "encode"))
        kept = median(
            whole / min(parts)
            for whole, *parts in zip(
                measured["pipeline"],
                measured["decode"],
                measured["stage"],
                measured["encode"],
                strict=True,
            )
        )
        del processor["pipeline"]
        one_by_one = 1 / sum(1 / fps[name] for name in ("decode", "stage", "encode"))
        report[kind] = {
            "fps": fps,
            "slowest_alone_fps": slowest,
            "cores_allow_fps": round(cores / sum(map(median, processor.values())), 1),
            "kept": round(kept, 3),
            "against_one_by_one": round(fps["pipeline"] / one_by_one, 3),
            "psnr_of_worst_frame": round(fidelity, 2),
        }
    return report


_CHILD = """
import re, sys
from fastvid.video import Video
result = Video.open(sys.argv[1]).save(sys.argv[2], overwrite=True)
# Not ru_maxrss: a process inherits that from the one that started it.
peak = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())
print(int(peak[1]) / 1024, result.frames_out)
"""


def make_long_clip(path: Path, size: tuple[int, int], seconds: int) -> None:
    scene = Scene(*size, seed=4)
    drawn = [scene.draw(n / RATE) for n in range(24)]
    with av.open(str(path), "w") as container:
        options = {"preset": "ultrafast", "crf": "28"}
        video = container.add_stream("libx264", rate=RATE, options=options)
        video.width, video.height = size
        audio = container.add_stream("aac", rate=48000)
        samples = np.sin(np.arange(1024) / 7).astype(np.float32)[None] / 2
        pictures = [av.VideoFrame.from_ndarray(image, format="rgb24") for image in drawn]
        for second in range(seconds):
            for number in range(RATE):
                step = (second * RATE + number) % 46
                picture = pictures[step if step < 24 else 46 - step].reformat(format="yuv420p")
                picture.pts, picture.time_base = second * RATE + number, Fraction(1, RATE)
                container.mux(video.encode(picture))
            for _ in range(46 + (second % 8 == 7) * 7):
                frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
                frame.sample_rate = 48000
                container.mux(audio.encode(frame))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


def memory(folder: Path, size: tuple[int, int], minutes: float) -> dict[str, object]:
    peaks = {}
    for seconds in (10, round(60 * minutes)):
        clip = folder / f"{seconds}.mp4"
        make_long_clip(clip, size, seconds)
        run = subprocess.run(
            [sys.executable, "-c", _CHILD, str(clip), str(folder / "out.mp4")],
            capture_output=True,
            text=True,
            check=True,
        )
        peak, frames = run.stdout.split()
        if int(frames) != seconds * RATE:
            raise SystemExit(f"{clip}: {frames} frames of {seconds * RATE} were written")
        peaks[seconds] = float(peak)
    short, long = peaks.values()
    return {
        "size": list(size),
        "seconds": list(peaks),
        "peak_mib": {str(seconds): round(peak, 1) for seconds, peak in peaks.items()},
        "long_over_short": round(long / short, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--part", choices=("both", "overlap", "memory"), default="both")
    parser.add_argument("--size", default="960x540")
    parser.add_argument("--frames", type=int, default=480)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--memory-size", default="640x360")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    small = tuple(map(int, options.memory_size.split("x")))
    parts = ("overlap", "memory") if options.part == "both" else (options.part,)
    for part in parts:
        with tempfile.TemporaryDirectory() as name:
            if part == "overlap":
                measured = overlap(Path(name), (width, height), options.frames, options.rounds)
                results = {"size": [width, height], "frames": options.frames, **measured}
            else:
                results = memory(Path(name), (small[0], small[1]), options.minutes)
        print(json.dumps(results, indent=1))
        timing.write_results(timing.RESULTS / f"pipeline_{part}.json", results)


if __name__ == "__main__":
    main()
