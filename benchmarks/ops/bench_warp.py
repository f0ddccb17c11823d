"""`warp` beside torch and onnxruntime, and beside a copy of the same bytes.

    python benchmarks/ops/bench_warp.py [--size 1280x720] [--threads 2] [--rounds 9]

What cannot be saved is reading image and flow once and writing the result: for 3 channels of
float32, 4 * (2 * 3 + 2) = 32 bytes a pixel, 29.5 MB for 1280x720. The arithmetic is 24 operations
a pixel for where it reads and 9 a channel: 51, or 0.05 GFLOP for that picture, so that memory is
the limit and `copy` moves as many bytes on as many threads.

Peers are what users would write: torch's grid_sample with the grid it needs (for other dtypes than
float32 with casts there and back) and onnxruntime's GridSample (the grid ready). Every answer is
checked against torch in float64 first; all run on the same number of threads, waiting passively.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import timing
import torch
from onnx import helper
from torch import Tensor
from warp_scenes import TOLERANCE, Bound, Scene, measured, model, require, show

from fastvid import ops


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    bench = Bench(Scene(height, width), options.threads, options.rounds)
    cases = {
        "3 channels": bench.three_channels(),
        "3 channels, zeros": bench.dtype(torch.float32, "zeros"),
        "3 channels, float16": bench.dtype(torch.float16),
        "3 channels, bfloat16": bench.dtype(torch.bfloat16),
        "3 channels, uint8": bench.dtype(torch.uint8),
        "3 channels, uint8, NHWC": bench.dtype(torch.uint8, layout="NHWC"),
        "16 channels": bench.features("NCHW"),
        "16 channels, NHWC": bench.features("NHWC"),
        "3 and 16 channels by one flow": bench.shared_flow(),
    }
    for name, case in cases.items():
        show(name, case)
    timing.write_results(
        timing.RESULTS / "warp.json",
        {
            "size": [width, height],
            "threads": options.threads,
            "rounds": options.rounds,
            "cases": cases,
        },
    )


class Bench:
    """The cases of one scene."""

    def __init__(self, scene: Scene, threads: int, rounds: int) -> None:
        self.scene, self.threads, self.rounds = scene, threads, rounds
        self.flow = scene.flow[:, :2].contiguous()
        self.displacement = self.flow.numpy()

    def three_channels(self) -> dict[str, Any]:
        image, flow = self.scene.image0, self.displacement
        out = self.run([image])
        inputs = {"image": image.numpy(), "flow": flow}
        node = helper.make_node("Warp", list(inputs), ["out"], domain="fastvid")
        inside = Bound(model([node], inputs, out), inputs, out, self.threads)
        inputs = {
            "image": image.numpy(),
            "grid": np.ascontiguousarray(self.scene.grid(self.flow).numpy()),
        }
        node = helper.make_node(
            "GridSample",
            list(inputs),
            ["out"],
            mode="linear",
            padding_mode="border",
            align_corners=1,
        )
        peer = Bound(model([node], inputs, out), inputs, out, self.threads)
        truth = self.scene.warp(image.double(), self.flow.double()).numpy()
        answers = {
            "fastvid": out,
            "fastvid_in_onnxruntime": inside.result(),
            "torch": self.scene.warp(image, self.flow).numpy(),
            "onnxruntime": peer.result(),
        }
        error = {name: float(abs(answer - truth).max()) for name, answer in answers.items()}
        require(error["fastvid"] <= TOLERANCE, error)
        require(error["fastvid_in_onnxruntime"] == error["fastvid"], error)
        functions: dict[str, Callable[[], object]] = {
            "fastvid": lambda: ops.warp(image.numpy(), flow, out=out, threads=self.threads),
            "fastvid_in_onnxruntime": inside.run,
            "torch": lambda: self.scene.warp(image, self.flow),
            "onnxruntime": peer.run,
        }
        return {"error": error, **self.time(functions, [image])}

    def dtype(
        self, dtype: torch.dtype, padding: str = "border", layout: str = "NCHW"
    ) -> dict[str, Any]:
        whole = dtype == torch.uint8
        image = (self.scene.image0 * (255 if whole else 1)).to(dtype)

        def peer() -> Tensor:
            wide = image.to(torch.float32)
            result = self.scene.warp(wide, self.flow, padding)
            return (result.round() if whole else result).to(dtype)

        truth = self.scene.warp(image.double(), self.flow.double(), padding)
        if layout == "NHWC":
            image = image.to(memory_format=torch.channels_last)
        out = self.run([image], padding=padding, layout=layout)
        given = as_numpy(image, layout)
        error = {
            "fastvid": float((as_torch(out, layout) - truth).abs().max()),
            "torch": float((peer().double() - truth).abs().max()),
        }
        # Half a step of the dtype at 1, or half a level, and the rounding of coordinates.
        step = {torch.float32: 0.0, torch.float16: 2**-11, torch.bfloat16: 2**-8}.get(dtype, 0.5)
        require(error["fastvid"] <= step + (255 if whole else 1) * TOLERANCE, error)
        functions: dict[str, Callable[[], object]] = {
            "fastvid": lambda: ops.warp(
                given,
                self.displacement,
                padding=padding,
                layout=layout,
                out=out,
                threads=self.threads,
            ),
            "torch": peer,
        }
        return {"error": error, **self.time(functions, [image])}

    def features(self, layout: str) -> dict[str, Any]:
        image = self.features_of(16)
        truth = self.scene.warp(image.double(), self.flow.double())
        if layout == "NHWC":
            image = image.to(memory_format=torch.channels_last)
        out = self.run([image], layout=layout)
        given = as_numpy(image, layout)
        error = {
            "fastvid": float((as_torch(out, layout) - truth).abs().max()),
            "torch": float((self.scene.warp(image, self.flow) - truth).abs().max()),
        }
        require(error["fastvid"] <= 8 * TOLERANCE, error)
        functions: dict[str, Callable[[], object]] = {
            "fastvid": lambda: ops.warp(
                given, self.displacement, layout=layout, out=out, threads=self.threads
            ),
            "torch": lambda: self.scene.warp(image, self.flow),
        }
        return {"error": error, **self.time(functions, [image])}

    def shared_flow(self) -> dict[str, Any]:
        images = [self.scene.image0, self.features_of(16)]
        given = [image.numpy() for image in images]
        outs = ops.warp(given, self.displacement, threads=self.threads)
        error = {}
        for i, (image, out) in enumerate(zip(images, outs, strict=True)):
            truth = self.scene.warp(image.double(), self.flow.double()).numpy()
            error[f"fastvid[{i}]"] = float(abs(out - truth).max())
            require(error[f"fastvid[{i}]"] <= 8 * TOLERANCE, error)

        def apart() -> None:
            for image, out in zip(given, outs, strict=True):
                ops.warp(image, self.displacement, out=out, threads=self.threads)

        functions: dict[str, Callable[[], object]] = {
            "fastvid": lambda: ops.warp(given, self.displacement, out=outs, threads=self.threads),
            "fastvid_apart": apart,
            "torch": lambda: [self.scene.warp(image, self.flow) for image in images],
        }
        return {"error": error, **self.time(functions, images)}

    def features_of(self, channels: int) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        return torch.randn(1, channels, *self.scene.size, generator=generator)

    def run(self, images: list[Tensor], **options: Any) -> Any:
        layout = options.get("layout", "NCHW")
        given = as_numpy(images[0], layout)
        return ops.warp(given, self.displacement, threads=self.threads, **options)

    def time(
        self, functions: dict[str, Callable[[], object]], images: list[Tensor]
    ) -> dict[str, Any]:
        nbytes = self.displacement.nbytes + 2 * sum(image.nbytes for image in images)
        return measured(functions, 1e-6 * nbytes, self.threads, self.rounds)


def as_numpy(image: Tensor, layout: str) -> Any:
    """The memory of a tensor; NumPy has no bfloat16 of its own, so those stay torch's."""
    image = image.permute(0, 2, 3, 1) if layout == "NHWC" else image
    return image if image.dtype == torch.bfloat16 else image.numpy()


def as_torch(out: Any, layout: str) -> Tensor:
    if not isinstance(out, Tensor) and out.dtype.name == "bfloat16":
        out = out.astype(np.float32)
    image = torch.as_tensor(out).double()
    return image.permute(0, 3, 1, 2) if layout == "NHWC" else image


if __name__ == "__main__":
    main()
