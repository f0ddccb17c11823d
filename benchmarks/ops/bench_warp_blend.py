"""`warp_blend` beside torch and onnxruntime, and beside a copy of the same bytes.

    python benchmarks/ops/bench_warp_blend.py [--size 1280x720] [--threads 2] [--rounds 9]

What cannot be saved is reading two images, four channels of flow and the mask once, and writing the
frame: for float32 to uint8 4 * 11 + 3 = 47 bytes a pixel, 43.3 MB for 1280x720. The arithmetic is
48 operations a pixel for where it reads, 54 for the samples, 20 for the sigmoid and 21 for the
blend: 143, or 0.13 GFLOP for that picture. `copy` moves as many bytes on as many threads.

Peers are what users would write: torch's grid_sample with the grids it needs and the blend from
its parts, and the same graph in onnxruntime (two GridSample, the grids ready, and the blend).
Every answer is checked against torch in float64 first; all run on the same number of threads,
waiting passively.
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
    scene = Scene(height, width)
    settings = (options.threads, options.rounds)
    cases = {
        "to uint8": bench(scene, "uint8", 1, *settings),
        "to float32": bench(scene, "float32", 1, *settings),
        "to uint8, flow at 1/4": bench(scene, "uint8", 4, *settings),
        "float16 to uint8": bench_halves(scene, *settings),
    }
    for name, case in cases.items():
        show(name, case)
    timing.write_results(
        timing.RESULTS / "warp_blend.json",
        {
            "size": [width, height],
            "threads": options.threads,
            "rounds": options.rounds,
            "cases": cases,
        },
    )


def blend(scene: Scene, flow: Tensor, mask: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The chain in torch, in the dtype given."""
    flow, share = flow.to(dtype), torch.sigmoid(mask.to(dtype))
    first = scene.warp(scene.image0.to(dtype), flow[:, :2])
    second = scene.warp(scene.image1.to(dtype), flow[:, 2:])
    return torch.clamp(first * share + second * (1 - share), 0, 1)


def to_frames(planes: Tensor) -> Tensor:
    return (planes * 255).round().byte().permute(0, 2, 3, 1).contiguous()


def enlarged(field: Tensor, k: int, size: tuple[int, int]) -> Tensor:
    if k == 1:
        return field
    large = torch.nn.functional.interpolate(field, scale_factor=float(k), mode="bilinear")
    return large[:, :, : size[0], : size[1]].contiguous()


def bench(scene: Scene, out_dtype: str, k: int, threads: int, rounds: int) -> dict[str, Any]:
    flow, mask = (field[:, :, ::k, ::k].contiguous() for field in (scene.flow, scene.mask))
    arrays = [t.numpy() for t in (scene.image0, scene.image1, flow, mask)]
    whole = out_dtype == "uint8"
    out = ops.warp_blend(*arrays, out_dtype=out_dtype, threads=threads)

    def torch_chain() -> Tensor:
        large = [enlarged(field, k, scene.size) for field in (flow, mask)]
        planes = blend(scene, large[0], large[1])
        return to_frames(planes) if whole else planes

    large = [enlarged(field.double(), k, scene.size) for field in (flow, mask)]
    truth = blend(scene, large[0], large[1], torch.float64)
    if whole:
        truth = (truth * 255).permute(0, 2, 3, 1)
    error = {
        "fastvid": float((torch.as_tensor(out).double() - truth).abs().max()),
        "torch": float((torch_chain().double() - truth).abs().max()),
    }
    limit = 0.5 + 255 * 2 * TOLERANCE if whole else 2 * TOLERANCE
    functions: dict[str, Callable[[], object]] = {
        "fastvid": lambda: ops.warp_blend(*arrays, out=out, out_dtype=out_dtype, threads=threads),
        "torch": torch_chain,
    }
    if k == 1:
        graph = onnxruntime_chain(scene, whole, out, threads)
        answer = torch.as_tensor(graph.result()).double()
        error["onnxruntime"] = float((answer - truth).abs().max())
        functions["onnxruntime"] = graph.run
    require(error["fastvid"] <= limit, error)
    nbytes = sum(array.nbytes for array in arrays) + out.nbytes
    return {"error": error, **measured(functions, 1e-6 * nbytes, threads, rounds)}


def bench_halves(scene: Scene, threads: int, rounds: int) -> dict[str, Any]:
    images = [image.to(torch.float16) for image in (scene.image0, scene.image1)]
    arrays = [t.numpy() for t in (*images, scene.flow, scene.mask)]
    out = ops.warp_blend(*arrays, out_dtype="uint8", threads=threads)
    truth = (255 * blend(scene, scene.flow, scene.mask, torch.float64)).permute(0, 2, 3, 1)
    error = {"fastvid": float((torch.as_tensor(out).double() - truth).abs().max())}
    require(error["fastvid"] <= 0.5 + 255 * (2**-11 + 2 * TOLERANCE), error)
    functions: dict[str, Callable[[], object]] = {
        "fastvid": lambda: ops.warp_blend(*arrays, out=out, out_dtype="uint8", threads=threads),
        "torch_float32": lambda: to_frames(blend(scene, scene.flow, scene.mask)),
    }
    nbytes = sum(array.nbytes for array in arrays) + out.nbytes
    return {"error": error, **measured(functions, 1e-6 * nbytes, threads, rounds)}


def onnxruntime_chain(scene: Scene, whole: bool, out: Any, threads: int) -> Bound:
    grids = [scene.grid(scene.flow[:, i : i + 2]).contiguous().numpy() for i in (0, 2)]
    inputs = {
        "image0": scene.image0.numpy(),
        "image1": scene.image1.numpy(),
        "grid0": np.ascontiguousarray(grids[0]),
        "grid1": np.ascontiguousarray(grids[1]),
        "mask": scene.mask.numpy(),
    }
    nodes = [
        helper.make_node(
            "GridSample",
            [f"image{i}", f"grid{i}"],
            [f"warped{i}"],
            mode="linear",
            padding_mode="border",
            align_corners=1,
        )
        for i in (0, 1)
    ]
    nodes += [
        helper.make_node("Sigmoid", ["mask"], ["share"]),
        helper.make_node("Sub", ["warped0", "warped1"], ["difference"]),
        helper.make_node("Mul", ["difference", "share"], ["part"]),
        helper.make_node("Add", ["warped1", "part"], ["blended"]),
        helper.make_node("Clip", ["blended", "zero", "one"], ["planes" if whole else "out"]),
    ]
    if whole:
        nodes += [
            helper.make_node("Mul", ["planes", "levels"], ["scaled"]),
            helper.make_node("Round", ["scaled"], ["rounded"]),
            helper.make_node("Transpose", ["rounded"], ["pixels"], perm=[0, 2, 3, 1]),
            helper.make_node("Cast", ["pixels"], ["out"], to=2),
        ]
    constants = {"zero": np.float32(0), "one": np.float32(1)}
    if whole:
        constants["levels"] = np.float32(255)
    return Bound(model(nodes, inputs, out, constants), inputs, out, threads)


if __name__ == "__main__":
    main()
