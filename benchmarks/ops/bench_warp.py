"""`warp` and `warp_blend` beside torch and onnxruntime.

    python benchmarks/ops/bench_warp.py [--size 1280x720] [--threads 2] [--rounds 15]

The flow is what a camera gives: a pan, 2 % zoom, a slow field, moving rectangles and a little
noise. Peers are what users would write: torch's grid_sample with the grid it needs, onnxruntime's
GridSample (the grid ready), and the same blend from their parts. Every answer is checked against
torch in float64 first; all run on the same number of threads, waiting passively.
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
import onnxruntime as ort
import timing
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper

from fastvid import _core, ops

# Rounding of float32 coordinates near 1280 on white noise; torch's normalised grid is worse.
_WARP_TOLERANCE = 2e-4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    scene = Scene(height, width)
    results = {
        "size": [width, height],
        "threads": options.threads,
        "rounds": options.rounds,
        "warp": bench_warp(scene, options.threads, options.rounds),
        "warp_blend": bench_blend(scene, options.threads, options.rounds),
    }
    for op in ("warp", "warp_blend"):
        print(op, results[op]["error"])
        for name, row in results[op]["time"].items():
            print(f"  {name:28s} {row['median_ms']:9.3f} ms  (min {row['min_ms']:.3f})")
        print("  ratios", results[op]["ratio"])
    timing.write_results(timing.RESULTS / "warp.json", results)


class Scene:
    """Two noise images, flows between them, and torch's warp of them."""

    def __init__(self, height: int, width: int) -> None:
        self.size = (height, width)
        generator = torch.Generator().manual_seed(0)
        self.image0 = torch.rand(1, 3, height, width, generator=generator)
        self.image1 = torch.rand(1, 3, height, width, generator=generator)
        forward = camera_flow(height, width, generator)
        self.flow = torch.cat([forward, -0.9 * camera_flow(height, width, generator)], 1)
        self.mask = torch.randn(1, 1, height, width, generator=generator)
        self.base = torch.stack(
            torch.meshgrid(
                torch.linspace(-1, 1, width), torch.linspace(-1, 1, height), indexing="xy"
            )
        )[None].contiguous()

    def grid(self, flow: torch.Tensor) -> torch.Tensor:
        height, width = self.size
        base = self.base.to(flow.dtype)
        scaled = torch.cat([flow[:, :1] / ((width - 1) / 2), flow[:, 1:] / ((height - 1) / 2)], 1)
        return (base + scaled).permute(0, 2, 3, 1)

    def warp(self, image: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
        return F.grid_sample(
            image, self.grid(flow), mode="bilinear", padding_mode="border", align_corners=True
        )

    def blend(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        flow, mask = self.flow.to(dtype), torch.sigmoid(self.mask.to(dtype))
        first = self.warp(self.image0.to(dtype), flow[:, :2])
        second = self.warp(self.image1.to(dtype), flow[:, 2:])
        return torch.clamp(first * mask + second * (1 - mask), 0, 1)

    def blend_uint8(self) -> torch.Tensor:
        return (self.blend() * 255).round().byte().permute(0, 2, 3, 1).contiguous()


def camera_flow(height: int, width: int, generator: torch.Generator) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    flow = torch.stack([7.3 + 0.02 * (x - width / 2), -4.2 + 0.02 * (y - height / 2)])[None]
    cells = (max(2, height // 64), max(2, width // 64))
    slow = 2 * torch.randn(1, 2, *cells, generator=generator)
    flow = flow + F.interpolate(slow, size=(height, width), mode="bicubic")
    for _ in range(12):
        top, left, tall, wide = (
            int(torch.randint(low, high, (1,), generator=generator))
            for low, high in ((0, height - 100), (0, width - 100), (40, 100), (40, 100))
        )
        moved = 10 * torch.randn(2, 1, 1, generator=generator)
        flow[0, :, top : top + tall, left : left + wide] += moved
    return (flow + 0.03 * torch.randn(flow.shape, generator=generator)).contiguous()


def bench_warp(scene: Scene, threads: int, rounds: int) -> dict[str, Any]:
    flow = scene.flow[:, :2].contiguous()
    image, displacement = scene.image0.numpy(), flow.numpy()
    truth = scene.warp(scene.image0.double(), flow.double()).numpy()
    out = ops.warp(image, displacement, threads=threads)
    inside = OnnxNode("Warp", {"image": image, "flow": displacement}, out, threads, fastvid=True)
    grid = np.ascontiguousarray(scene.grid(flow).numpy())
    peer = OnnxNode(
        "GridSample",
        {"image": image, "grid": grid},
        out,
        threads,
        mode="linear",
        padding_mode="border",
        align_corners=1,
    )
    answers = {
        "fastvid": ops.warp(image, displacement, out=out, threads=threads),
        "fastvid_in_onnxruntime": inside.result(),
        "torch": scene.warp(scene.image0, flow).numpy(),
        "onnxruntime_grid_sample": peer.result(),
    }
    error = {name: float(abs(answer - truth).max()) for name, answer in answers.items()}
    require(error["fastvid"] <= _WARP_TOLERANCE, error)
    require(error["fastvid_in_onnxruntime"] == error["fastvid"], error)
    functions: dict[str, Callable[[], object]] = {
        "fastvid": lambda: ops.warp(image, displacement, out=out, threads=threads),
        "fastvid_in_onnxruntime": inside.run,
        "torch": lambda: scene.warp(scene.image0, flow),
        "onnxruntime_grid_sample": peer.run,
    }
    time = timing.compare(functions, rounds=rounds)
    time |= other_instruction_sets(functions["fastvid"], rounds)
    ratios = {name: timing.ratio(time, name, "fastvid") for name in time if name != "fastvid"}
    return {"error": error, "time": time, "ratio": ratios}


def bench_blend(scene: Scene, threads: int, rounds: int) -> dict[str, Any]:
    image0, image1 = scene.image0.numpy(), scene.image1.numpy()
    flow, mask = scene.flow.numpy(), scene.mask.numpy()
    truth = scene.blend(torch.float64).numpy()
    planes = ops.warp_blend(image0, image1, flow, mask, threads=threads)
    frames = ops.warp_blend(image0, image1, flow, mask, out_dtype="uint8", threads=threads)
    quarter = [np.ascontiguousarray(a[:, :, ::4, ::4]) for a in (flow, mask)]
    levels = abs(frames.astype(int) - scene.blend_uint8().numpy().astype(int)).max()
    error = {
        "fastvid": float(abs(planes - truth).max()),
        "torch": float(abs(scene.blend().numpy() - truth).max()),
        "uint8_levels_from_torch": int(levels),
    }
    require(error["fastvid"] <= 2 * _WARP_TOLERANCE and levels <= 1, error)

    def run(flow: Any, mask: Any, out: Any, out_dtype: str) -> Callable[[], object]:
        return lambda: ops.warp_blend(
            image0, image1, flow, mask, out=out, out_dtype=out_dtype, threads=threads
        )

    functions = {
        "fastvid_uint8": run(flow, mask, frames, "uint8"),
        "fastvid_float32": run(flow, mask, planes, "float32"),
        "fastvid_uint8_quarter_flow": run(*quarter, frames.copy(), "uint8"),
        "torch_uint8": scene.blend_uint8,
        "torch_float32": scene.blend,
    }
    time = timing.compare(functions, rounds=rounds)
    time |= other_instruction_sets(functions["fastvid_uint8"], rounds)
    ratios = {
        "torch_uint8": timing.ratio(time, "torch_uint8", "fastvid_uint8"),
        "torch_float32": timing.ratio(time, "torch_float32", "fastvid_float32"),
    }
    return {"error": error, "time": time, "ratio": ratios}


def other_instruction_sets(function: Callable[[], object], rounds: int) -> timing.Times:
    """The same op where a machine has less to offer."""

    def forced(name: str) -> Callable[[], object]:
        def run() -> object:
            _core._force_isa(name)
            try:
                return function()
            finally:
                _core._force_isa(None)

        return run

    names = [name for name in _core.cpu_isas() if name != _core.cpu_isa()]
    return timing.compare({f"fastvid_{name}": forced(name) for name in names}, rounds=rounds)


class OnnxNode:
    """A session of one node whose inputs and output are bound, so that a run copies nothing."""

    def __init__(
        self,
        op_type: str,
        inputs: dict[str, Any],
        like: Any,
        threads: int,
        *,
        fastvid: bool = False,
        **attributes: Any,
    ) -> None:
        domain = "fastvid" if fastvid else ""
        node = helper.make_node(op_type, list(inputs), ["out"], domain=domain, **attributes)
        values = {
            name: helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape)
            for name, array in {**inputs, "out": like}.items()
        }
        graph = helper.make_graph([node], "one", [values[name] for name in inputs], [values["out"]])
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid("fastvid", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.register_custom_ops_library(_core.__file__)
        self._session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._binding = self._session.io_binding()
        self._held = {name: ort.OrtValue.ortvalue_from_numpy(a) for name, a in inputs.items()}
        for name, value in self._held.items():
            self._binding.bind_ortvalue_input(name, value)
        self._out = ort.OrtValue.ortvalue_from_numpy(np.empty_like(like))
        self._binding.bind_ortvalue_output("out", self._out)

    def run(self) -> None:
        self._session.run_with_iobinding(self._binding)

    def result(self) -> Any:
        self.run()
        return self._out.numpy().copy()


def require(right: bool, error: dict[str, float]) -> None:
    if not right:
        raise SystemExit(f"the answer is wrong, so its time means nothing: {error}")


if __name__ == "__main__":
    main()
