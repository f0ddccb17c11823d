"""`softmax_splat` beside torch, written with index_add and scatter_add, and beside a copy.

    python benchmarks/ops/bench_softmax_splat.py [--threads 2] [--rounds 9]

What cannot be saved is reading image, flow and metric once and writing the result: 4 * (2 * C + 3)
bytes a pixel, 33 MB for 1280x720 with 3 channels. The arithmetic is about 45 operations a pixel
(of which an exponential 20) and 16 for every four channels or weights: 61 for 3 channels, 0.06
GFLOP for that picture, so that memory is the limit. `copy` moves as many bytes, on as many threads.

The flow is that of `warp_scenes`, a camera and moving things; `wild`
has independent displacements of 50 pixels. torch is what a user would write: exp, the four corners
in turn, division by the weights; once more compiled by inductor. Every answer is checked against
float64 first.
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

import limits
import timing
import torch
from torch import Tensor
from warp_scenes import camera_flow, other_instruction_sets

from fastvid import ops

CASES = {
    "832x480": (3, 480, 832),
    "1280x720": (3, 720, 1280),
    "1280x720_wild": (3, 720, 1280),
    "640x360_16_channels": (16, 360, 640),
    "320x180_64_channels": (64, 180, 320),
}
# Rounding of sums of a few values of at most 1.
TOLERANCE = 1e-5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    results: dict[str, Any] = {"threads": options.threads, "rounds": options.rounds, "cases": {}}
    for name, case in CASES.items():
        results["cases"][name] = bench(name, *case, options.threads, options.rounds)
    timing.write_results(timing.RESULTS / "softmax_splat.json", results)


def splat(image: Tensor, flow: Tensor, metric: Tensor, *, index_add: bool) -> Tensor:
    """Softmax splatting of one image, in the dtype of `metric`; coordinates in that of `flow`."""
    n, c, height, width = image.shape
    weight = torch.exp(metric - metric.max())
    values = torch.cat([image * weight, weight], 1).view(c + 1, -1)
    xs = torch.arange(width, dtype=flow.dtype)
    ys = torch.arange(height, dtype=flow.dtype)[:, None]
    x, y = (xs + flow[:, 0]).to(metric.dtype), (ys + flow[:, 1]).to(metric.dtype)
    x0, y0 = x.floor(), y.floor()
    sums = torch.zeros_like(values)
    for column, across in ((x0, 1 - (x - x0)), (x0 + 1, x - x0)):
        for row, along in ((y0, 1 - (y - y0)), (y0 + 1, y - y0)):
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            index = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long().view(-1)
            given = values * (across * along * inside).view(1, -1)
            if index_add:
                sums.index_add_(1, index, given)
            else:
                sums.scatter_add_(1, index.expand(c + 1, -1), given)
    total, weights = sums.view(n, c + 1, height, width).split([c, 1], 1)
    return torch.where(weights > 0, total / weights, 0)


def bench(
    name: str, channels: int, height: int, width: int, threads: int, rounds: int
) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, channels, height, width, generator=generator)
    metric = torch.randn(1, 1, height, width, generator=generator)
    flow = camera_flow(height, width, generator)
    if name.endswith("wild"):
        flow = 50 * torch.randn(1, 2, height, width, generator=generator)
    arrays = (image.numpy(), flow.numpy(), metric.numpy())
    out = ops.softmax_splat(*arrays, threads=threads)
    narrow = image.to(torch.float16).numpy()
    narrow_out = ops.softmax_splat(narrow, *arrays[1:], threads=threads)
    compiled = torch.compile(lambda *given: splat(*given, index_add=False))
    megabytes = 4e-6 * height * width * (2 * channels + 3)
    functions: dict[str, Callable[[], object]] = {
        "fastvid": lambda: ops.softmax_splat(*arrays, out=out, threads=threads),
        "fastvid_float16": lambda: ops.softmax_splat(
            narrow, *arrays[1:], out=narrow_out, threads=threads
        ),
        "torch_index_add": lambda: splat(image, flow, metric, index_add=True),
        "torch_scatter_add": lambda: splat(image, flow, metric, index_add=False),
        "torch_compiled_scatter_add": lambda: compiled(image, flow, metric),
        "copy": limits.copy(int(1e6 * megabytes), threads),
    }
    truth = splat(image.double(), flow, metric.double(), index_add=True)
    error = {
        other: float((torch.as_tensor(functions[other]()) - truth).abs().max())
        for other in functions
        if other not in ("copy", "fastvid_float16")
    }
    if error["fastvid"] > TOLERANCE:
        raise SystemExit(f"{name}: the answer is wrong, so its time means nothing: {error}")
    time = timing.compare(functions, rounds=rounds)
    time |= other_instruction_sets(functions["fastvid"], rounds)
    ratio = {other: timing.ratio(time, other, "fastvid") for other in time if other != "fastvid"}
    print(name, error)
    for row, entry in time.items():
        print(f"  {row:28s} {entry['median_ms']:8.3f} ms  {ratio.get(row, 1):6.2f}x")
    return {"error": error, "megabytes": megabytes, "time": time, "ratio": ratio}


if __name__ == "__main__":
    main()
