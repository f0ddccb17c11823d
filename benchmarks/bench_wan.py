"""A tiny Wan from process start to frames, beside diffusers on the same folder and noise.

    python benchmarks/bench_wan.py [--rounds 3] [--folder FOLDER --bundle BUNDLE]

Each time is that of a whole process: start, imports, loading, prompt, steps, decoding. The folder
is written by diffusers' own classes with random weights (28 thousand parameters in the transformer)
and exported once, which is not timed. Frames of both are compared first. A run of the small case
multiplies 0.04 GFLOP and reads 0.3 MB of weights a step: what is timed is everything else.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import timing

from fastvid.metrics import psnr

CASES = {
    "16x16, 9 frames, 2 steps": {"height": 16, "width": 16, "num_frames": 9, "steps": 2},
    "96x96, 17 frames, 10 steps": {"height": 96, "width": 96, "num_frames": 17, "steps": 10},
}
PROMPT, GUIDANCE, SEED = "a red cat in snow", 6.0, 3
OURS = """
import sys, numpy as np
from fastvid import Generator
model, out, height, width, frames, steps, threads = sys.argv[1:8]
with Generator(model, device="cpu", threads=int(threads)) as generator:
    video = generator.generate({prompt!r}, height=int(height), width=int(width),
        num_frames=int(frames), num_inference_steps=int(steps), guidance_scale={guidance},
        seed={seed}, noise="torch-cpu")
    np.save(out, video.frames())
"""
THEIRS = """
import sys, numpy as np, torch
from diffusers import WanPipeline
model, out, height, width, frames, steps, threads = sys.argv[1:8]
torch.set_num_threads(int(threads))
pipeline = WanPipeline.from_pretrained(model)
pipeline.set_progress_bar_config(disable=True)
video = pipeline({prompt!r}, height=int(height), width=int(width), num_frames=int(frames),
    num_inference_steps=int(steps), guidance_scale={guidance},
    generator=torch.Generator("cpu").manual_seed({seed})).frames[0]
np.save(out, np.rint(video * 255).astype(np.uint8))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="of an earlier run; with --bundle")
    parser.add_argument("--bundle", type=Path, help="made of that folder")
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        folder, bundle = options.folder, options.bundle
        if folder is None or bundle is None:
            folder, bundle = work / "tiny-wan", work / "wan"
            prepare(folder, bundle)
        cases = {}
        for name, case in CASES.items():
            arguments = [str(value) for value in case.values()] + [str(options.threads)]
            ours = process(OURS, bundle, work / "ours.npy", arguments)
            theirs = process(THEIRS, folder, work / "theirs.npy", arguments)
            ours()
            theirs()
            value = psnr(np.load(work / "ours.npy"), np.load(work / "theirs.npy"))
            if value < 50:
                raise SystemExit(f"{name}: frames must have 50 dB against diffusers, got {value}")
            times = timing.compare({"fastvid": ours, "diffusers": theirs}, rounds=options.rounds)
            faster = timing.ratio(times, "diffusers", "fastvid")
            cases[name] = {"psnr": round(float(value), 2), "times": times, "faster": faster}
            print(name, cases[name], flush=True)
    timing.write_results(timing.RESULTS / "wan.json", {"threads": options.threads, "cases": cases})


def prepare(folder: Path, bundle: Path) -> None:
    """The folder, and the bundle that the command makes of it."""
    sys.path.insert(0, str(timing.ROOT / "tests"))
    import diffusers_folders

    from fastvid.cli import main as fastvid

    diffusers_folders.wan(folder)
    if fastvid(["export", str(folder), "--out", str(bundle), "--quiet"]) != 0:
        raise SystemExit("the export failed")


def process(program: str, model: Path, out: Path, arguments: list[str]) -> Callable[[], object]:
    text = program.format(prompt=PROMPT, guidance=GUIDANCE, seed=SEED)
    command = [sys.executable, "-W", "ignore", "-c", text, str(model), str(out), *arguments]

    def run() -> object:
        return subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True
        )

    return run


if __name__ == "__main__":
    main()
