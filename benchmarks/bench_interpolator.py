"""Time of one middle frame at 1280x720, frames in to frame out, beside OpenCV's DIS and IFNet.

    python benchmarks/bench_interpolator.py [--size 1280x720] [--rounds 30]

Every class that ships runs, and in int8 where it ships so. One peer is two-sided warping by DIS
flow (medium), the other IFNet 4.6 in PyTorch, whose time does not depend on its weights; it takes
sides that are multiples of 32 and gets the frame padded. Frames of 1280x720 are 2.8 MB each; the
products of `fast` are 1.6 GFLOP at 1/4 and below, those of `quality` 22, of IFNet 79. The answer is
checked first: on a drawn scene with known truth, PSNR is measured and reported beside the time.
"""

from __future__ import annotations

import argparse

import cv2
import numpy as np
import timing
from ifnet_peer import TorchIFNet
from quality.interpolator import Dis

from fastvid import Interpolator
from fastvid.bundle import shipped
from fastvid.metrics import psnr
from fastvid.scene import Scene


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    cv2.setNumThreads(options.threads)
    methods = {name: model.between for name, model in _classes(options.threads).items()}
    methods["dis_medium"] = Dis().between

    scene = Scene(width, height, seed=7)
    frame0, truth, frame1 = (scene.draw(t / 60) for t in (10, 11, 12))
    average = (frame0.astype(np.float32) + frame1) / 2
    quality = {name: psnr(between(frame0, frame1), truth) for name, between in methods.items()}
    quality["average"] = psnr(average, truth.astype(np.float32))
    if min(v for k, v in quality.items() if k != "average") < quality["average"] + 1:
        raise SystemExit(f"the answer is wrong, so its time means nothing: {quality}")

    peer = TorchIFNet("4.6", threads=options.threads)
    sides = [(0, -side % peer.multiple_of) for side in (height, width)]
    padded = [np.pad(f, (*sides, (0, 0)), mode="edge") for f in (frame0, frame1)]
    functions = {
        name: lambda between=between: between(frame0, frame1) for name, between in methods.items()
    }
    functions["torch, IFNet 4.6"] = lambda: peer.between(*padded)
    rows = timing.compare(functions, rounds=options.rounds)
    print(quality, rows)
    timing.write_results(
        timing.RESULTS / "interpolator.json",
        {"size": [width, height], "threads": options.threads, "psnr": quality, "time": rows},
    )


def _classes(threads: int) -> dict[str, Interpolator]:
    """The classes that ship, by the name of their row."""
    models = {}
    for name, row in (("fast", "fastvid"), ("quality", "fastvid quality")):
        if f"interpolator-{name}" in shipped():
            models[row] = Interpolator(name, device="cpu", threads=threads)
        if f"interpolator-{name}-int8" in shipped():
            models[f"{row} int8"] = Interpolator(
                name, device="cpu", threads=threads, precision="int8"
            )
    return models


if __name__ == "__main__":
    main()
