"""RIFE's networks: a middle frame, frames in to frame out, beside PyTorch and onnxruntime.

    python benchmarks/bench_ifnet.py [--version 4.6] [--rounds 5] [--threads 2]

What cannot be saved is the arithmetic of the convolutions. IFNet 4.6 multiplies 39.5 billion times
for 1280x736, 79 GFLOP: at the 500 GFLOP/s that two AVX-512 cores reach, 158 ms. IFNet 4.26 needs 22
billion for 1280x768, 88 ms; there memory counts as much: a block at full size reads 28 channels,
110 MB, which are made from 14 that are warped, 55 MB read and 55 written, in PyTorch several times
over. `multiply` is the time of as many operations in matrix products on as many threads.

Peers compute the same weights (random: time does not depend on them) on the same threads: PyTorch
with grid_sample, as RIFE's own scripts run, and onnxruntime on what PyTorch exports, with
GridSample. Every answer is checked against PyTorch's first. `another time` is a further frame
between the same two, which shares `motion`: of 4.6 that is planes alone, of 4.26 the encoder.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import timing
import torch
from ifnet_peer import TorchIFNet, random_weights, version_of

from fastvid import Interpolator
from fastvid.metrics import psnr
from fastvid.scene import Scene
from fastvid_export.importers import ImportOptions, rife

ANOTHER = "fastvid, another time"
SIZES = {"4.6": ((480, 864), (736, 1280)), "4.26": ((512, 896), (768, 1280))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--version", choices=SIZES, help="this one alone; the other's times stay")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    path = timing.RESULTS / "ifnet.json"
    cases = json.loads(path.read_text())["cases"] if options.version else {}
    for version, sizes in SIZES.items():
        if options.version not in (None, version):
            continue
        with tempfile.TemporaryDirectory() as folder:
            state = random_weights(version_of(version))
            torch.save(state, Path(folder) / "flownet.pkl")
            rife.build(
                Path(folder) / "flownet.pkl", Path(folder) / "made", ImportOptions("rife"), print
            )
            peer = TorchIFNet(version, threads=options.threads, state=state)
            for height, width in sizes:
                name = f"IFNet {version}, {width}x{height}"
                cases[name] = case(Path(folder), version, peer, (height, width), options)
                print(name, cases[name])
    timing.write_results(path, {"threads": options.threads, "cases": cases})


def case(
    folder: Path,
    version: str,
    peer: TorchIFNet,
    size: tuple[int, int],
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Times of one version and size."""
    height, width = size
    scene = Scene(width, height, seed=7)
    frames = scene.draw(1.0), scene.draw(1.05)
    peer.onnx(folder / "exported.onnx", height, width)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    session = onnxruntime.InferenceSession(
        folder / "exported.onnx", settings, providers=["CPUExecutionProvider"]
    )
    given = {"frame0": frames[0][None], "frame1": frames[1][None]}
    given["timestep"] = np.array([0.5], np.float32)
    with Interpolator(folder / "made", device="cpu", threads=options.threads) as model:
        pair = model._pairs()(*frames)
        functions = {
            "fastvid": lambda: model.between(*frames),
            "torch": lambda: peer.between(*frames),
            "onnxruntime, GridSample": lambda: session.run(None, given)[0][0],
        }
        if version_of(version).options.encoder is not None:
            functions[ANOTHER] = lambda: pair.start(0.5).result()
        wanted = functions["torch"]()
        found = {name: psnr(np.asarray(make()), wanted) for name, make in functions.items()}
        if min(found.values()) < 45:
            raise SystemExit(f"an answer is wrong, so its time means nothing: {found}")
        products = peer.products(height, width)
        functions["multiply"] = timing.multiply(2 * products, options.threads)
        times = timing.compare(functions, rounds=options.rounds)
    return {
        "gflop": round(2e-9 * products, 1),
        "times": times,
        "torch": timing.ratio(times, "torch", "fastvid"),
        "onnxruntime": timing.ratio(times, "onnxruntime, GridSample", "fastvid"),
        "percent_of_products": timing.percent(times, "fastvid", of="multiply"),
    }


if __name__ == "__main__":
    main()
