"""`temporal_attention` beside torch and onnxruntime, and beside a copy.

    python benchmarks/ops/bench_temporal_attention.py [--threads 2]

Attention along T frames of (1, T, S, H, D). What cannot be saved is reading q, k and v and writing
the result once, 4 * T * S * H * D elements: 307 MB for 16 frames of 1560 places, 12 heads of 64 in
float32. The two products are 4 * T^2 * S * H * D operations, T operations for each element moved:
at 8 to 32 frames a little memory and a little arithmetic, and neither may wait for the other.

Peers do the same from the same arrays to the same array. `torch_usual` is what models write
(einops: places before frames and heads, three contiguous copies, scaled_dot_product_attention, a
copy back); `torch_views` leaves the copies to the attention; `torch_products` is matmul, softmax,
matmul on the views; `torch_ready` is the attention alone, on tensors that already lie (S, H, T, D):
what no re-arranging at all could cost. onnxruntime transposes thrice, runs its MultiHeadAttention
and transposes back. Every answer is checked against float64 first.
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
import numpy as np
import onnxruntime as ort
import timing
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper

from fastvid import _core, ops

# Frames, places, heads, dim.
CASES = {
    "8x8160x8x64": (8, 8160, 8, 64),
    "16x1560x12x64": (16, 1560, 12, 64),
    "16x4080x8x64": (16, 4080, 8, 64),
    "21x1560x12x64": (21, 1560, 12, 64),
    "32x1560x12x64": (32, 1560, 12, 64),
    "16x1560x12x128": (16, 1560, 12, 128),
}
TORCH = ("torch_views", "torch_products", "torch_ready")
# Of normal values: the rounding of scores and sums; half a unit of bfloat16's last place.
TOLERANCE, TOLERANCE_BFLOAT16 = 1e-5, 1.6e-2
CHECKED = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    results: dict[str, Any] = {"threads": options.threads, "rounds": options.rounds, "cases": {}}
    for name, case in CASES.items():
        results["cases"][name] = bench(name, *case, options.threads, options.rounds)
    timing.write_results(timing.RESULTS / "temporal_attention.json", results)


def places_first(x: torch.Tensor) -> torch.Tensor:
    """(1, T, S, H, D) as (S, H, T, D)."""
    return x[0].permute(1, 2, 0, 3)


def frames_first(x: torch.Tensor) -> torch.Tensor:
    """The way back, to memory of its own."""
    return x.permute(2, 0, 1, 3).contiguous()[None]


class Torch:
    """What torch offers for q, k and v, by the names of the results."""

    def __init__(self, qkv: list[torch.Tensor]) -> None:
        self.views = [places_first(x) for x in qkv]
        self.ready = [x.contiguous() for x in self.views]

    def usual(self) -> torch.Tensor:
        return frames_first(F.scaled_dot_product_attention(*(x.contiguous() for x in self.views)))

    def strided(self) -> torch.Tensor:
        return frames_first(F.scaled_dot_product_attention(*self.views))

    def products(self) -> torch.Tensor:
        q, k, v = self.views
        weights = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, -1)
        return frames_first(weights @ v)

    def alone(self) -> torch.Tensor:
        return F.scaled_dot_product_attention(*self.ready)


class OnnxGraph:
    """onnxruntime's MultiHeadAttention between transposes; inputs and output are bound."""

    def __init__(self, qkv: list[torch.Tensor], threads: int) -> None:
        _, frames, places, heads, dim = qkv[0].shape
        shape = [1, frames, places, heads * dim]
        nodes = []
        for x in "qkv":
            nodes.append(helper.make_node("Transpose", [x], [x + "t"], perm=[0, 2, 1, 3]))
            nodes.append(helper.make_node("Reshape", [x + "t", "batched"], [x + "r"]))
        nodes += [
            helper.make_node(
                "MultiHeadAttention", ["qr", "kr", "vr"], ["m"], domain="com.microsoft",
                num_heads=heads,
            ),
            helper.make_node("Reshape", ["m", "places"], ["mr"]),
            helper.make_node("Transpose", ["mr"], ["out"], perm=[0, 2, 1, 3]),
        ]  # fmt: skip
        sizes = {
            "batched": [places, frames, heads * dim],
            "places": [1, places, frames, heads * dim],
        }
        values = [
            helper.make_tensor_value_info(x, TensorProto.FLOAT, shape) for x in (*"qkv", "out")
        ]
        constants = [numpy_helper.from_array(np.array(v), k) for k, v in sizes.items()]
        graph = helper.make_graph(nodes, "temporal", values[:3], values[3:], constants)
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._binding = self._session.io_binding()
        self.out = np.zeros(shape, np.float32)
        arrays = [*(x.reshape(shape).numpy() for x in qkv), self.out]
        self._held = [ort.OrtValue.ortvalue_from_numpy(x) for x in arrays]
        for name, value in zip("qkv", self._held[:3], strict=True):
            self._binding.bind_ortvalue_input(name, value)
        self._binding.bind_ortvalue_output("out", self._held[3])

    def run(self) -> np.ndarray[Any, Any]:
        self._session.run_with_iobinding(self._binding)
        return self.out


def forced(name: str, function: Callable[[], object]) -> Callable[[], object]:
    """The same op where a machine has less to offer."""

    def run() -> object:
        _core._force_isa(name)
        try:
            return function()
        finally:
            _core._force_isa(None)

    return run


def check(qkv: list[torch.Tensor], answers: dict[str, torch.Tensor]) -> dict[str, float]:
    """The largest errors of the first places, refusing wrong answers of our own."""
    q, k, v = (places_first(x[:, :, :CHECKED]).double() for x in qkv)
    weights = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, -1)
    truth = frames_first(weights @ v)
    error = {
        name: float((x[:, :, :CHECKED].double() - truth).abs().max()) for name, x in answers.items()
    }
    for name, value in error.items():
        limit = TOLERANCE_BFLOAT16 if name.endswith("bfloat16") else TOLERANCE
        if name.startswith("fastvid") and value > limit:
            raise SystemExit(f"the answer is wrong, so its time means nothing: {error}")
    return error


def bench(
    name: str, frames: int, places: int, heads: int, dim: int, threads: int, rounds: int
) -> dict[str, Any]:
    shape = (1, frames, places, heads, dim)
    generator = torch.Generator().manual_seed(5)
    qkv = [torch.randn(shape, generator=generator) for _ in range(3)]
    narrow = [x.bfloat16() for x in qkv]
    packed = torch.stack(qkv, 3)
    views = [packed[:, :, :, i] for i in range(3)]
    out, narrow_out = torch.empty(shape), torch.empty(shape, dtype=torch.bfloat16)
    usual, graph = Torch(qkv), OnnxGraph(qkv, threads)
    attend = ops.temporal_attention

    def own() -> object:
        return attend(*qkv, out=out, threads=threads)

    functions: dict[str, Callable[[], object]] = {
        "fastvid": own,
        "fastvid_packed": lambda: attend(*views, out=out, threads=threads),
        "fastvid_bfloat16": lambda: attend(*narrow, out=narrow_out, threads=threads),
        "fastvid_avx2": forced("avx2", own),
        "torch_usual": usual.usual,
        "torch_views": usual.strided,
        "torch_products": usual.products,
        "torch_ready": usual.alone,
        "torch_views_bfloat16": Torch(narrow).strided,
        "onnxruntime": graph.run,
    }
    if "avx2" not in _core.cpu_isas():
        del functions["fastvid_avx2"]
    answers = {}
    for key, function in functions.items():
        result = function()
        if key == "torch_ready":
            continue
        array = torch.from_numpy(result) if isinstance(result, np.ndarray) else result
        answers[key] = torch.clone(array.reshape(shape)[:, :, :CHECKED])  # type: ignore[attr-defined]
    error = check(qkv, answers)
    moved = 4 * qkv[0].numel() * 4
    functions["copy"] = limits.copy(moved, threads)
    functions["copy_streaming"] = limits.copy(moved, threads, streaming=True)
    functions["multiply"] = limits.multiply(4 * frames * qkv[0].numel(), threads)
    time = timing.compare(functions, rounds=rounds)
    best = min(TORCH, key=lambda key: time[key]["median_ms"])
    ratios = {
        "torch_usual": timing.ratio(time, "torch_usual", "fastvid"),
        "torch_best": timing.ratio(time, best, "fastvid"),
        "onnxruntime": timing.ratio(time, "onnxruntime", "fastvid"),
        "torch_bfloat16": timing.ratio(time, "torch_views_bfloat16", "fastvid_bfloat16"),
    }
    percent = {of: timing.percent(time, "fastvid", of=of) for of in ("copy", "multiply")}
    print(f"{name}: {moved / 1e6:.0f} MB, error {error['fastvid']:.1e}, best torch {best}")
    for key, entry in time.items():
        print(f"  {key:22s} {entry['median_ms']:8.2f} ms  (min {entry['min_ms']:.2f})")
    print("  ratios", ratios, "percent", percent, flush=True)
    return {
        "error": error,
        "megabytes": moved / 1e6,
        "gigaflop": 4 * frames * qkv[0].numel() / 1e9,
        "best_torch": best,
        "time": time,
        "ratio": ratios,
        "percent": percent,
    }


if __name__ == "__main__":
    main()
