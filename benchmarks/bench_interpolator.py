"""Time of one middle frame at 1280x720, frames in to frame out, beside OpenCV's DIS.

    python benchmarks/bench_interpolator.py [--size 1280x720] [--rounds 30]

The peer is two-sided warping by DIS flow (medium). The answer is checked first: on a drawn
scene with known truth, PSNR of both is measured and reported beside the time.
"""

from __future__ import annotations

import argparse

import cv2
import numpy as np
import timing
from quality.interpolator import Dis

from fastvid import Interpolator
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
    model, dis = Interpolator(threads=options.threads), Dis()

    scene = Scene(width, height, seed=7)
    frame0, truth, frame1 = (scene.draw(t / 60) for t in (10, 11, 12))
    average = (frame0.astype(np.float32) + frame1) / 2
    quality = {
        "fastvid": psnr(model.between(frame0, frame1), truth),
        "dis_medium": psnr(dis.between(frame0, frame1), truth),
        "average": psnr(average, truth.astype(np.float32)),
    }
    if quality["fastvid"] < quality["average"] + 1:
        raise SystemExit(f"the answer is wrong, so its time means nothing: {quality}")

    rows = timing.compare(
        {
            "fastvid": lambda: model.between(frame0, frame1),
            "dis_medium": lambda: dis.between(frame0, frame1),
        },
        rounds=options.rounds,
    )
    print(quality, rows)
    timing.write_results(
        timing.RESULTS / "interpolator.json",
        {"size": [width, height], "threads": options.threads, "psnr": quality, "time": rows},
    )


if __name__ == "__main__":
    main()
