"""`attention` beside onnxruntime's MultiHeadAttention and torch, and beside the limit of its unit.

    python benchmarks/ops/bench_attention.py [--threads 2]

Self-attention over (1, N, H, D). The work is 4 * N^2 * H * D operations in the two products, 3.7 to
8.6 * 10^9 here, and N^2 * H exponentials; reading q, k and v and writing the result is nothing
beside it. `peak` is what the processor does with fused multiply-adds of float32 in registers,
`peak_bfloat16` with pairs of bfloat16, for as many operations. Results are checked against float64
first.
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
from onnx import TensorProto, helper

from fastvid import _core, ops

# Tokens, heads, dim: one frame of 480 x 832 in Wan's latents, and longer ones of fewer heads.
CASES = {
    "1560x12x64": (1560, 12, 64),
    "1560x12x128": (1560, 12, 128),
    "4096x2x64": (4096, 2, 64),
    "4096x1x128": (4096, 1, 128),
}
TOLERANCE = {"fastvid": 2e-6, "fastvid_bfloat16": 2**-7}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    results: dict[str, Any] = {"threads": options.threads, "rounds": options.rounds, "cases": {}}
    for name, case in CASES.items():
        results["cases"][name] = bench(name, *case, options.threads, options.rounds)
    timing.write_results(timing.RESULTS / "attention.json", results)


class MultiHeadAttention:
    """A session of onnxruntime's own operator, inputs and output bound."""

    def __init__(self, q: Any, k: Any, v: Any, threads: int) -> None:
        tokens, heads = q.shape[1:3]
        shape = [1, tokens, q.shape[2] * q.shape[3]]
        node = helper.make_node(
            "MultiHeadAttention", ["q", "k", "v"], ["out"], domain="com.microsoft", num_heads=heads
        )
        values = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name in ("q", "k", "v", "out")
        ]
        graph = helper.make_graph([node], "one", values[:3], values[3:])
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._binding = self._session.io_binding()
        self._held = [ort.OrtValue.ortvalue_from_numpy(x.reshape(shape)) for x in (q, k, v)]
        for name, value in zip("qkv", self._held, strict=True):
            self._binding.bind_ortvalue_input(name, value)
        self._out = ort.OrtValue.ortvalue_from_numpy(np.empty(shape, np.float32))
        self._binding.bind_ortvalue_output("out", self._out)
        self._like = q.shape

    def run(self) -> None:
        self._session.run_with_iobinding(self._binding)

    def result(self) -> Any:
        self.run()
        return self._out.numpy().reshape(self._like)


def bench(
    name: str, tokens: int, heads: int, dim: int, threads: int, rounds: int
) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(7)
    q, k, v = (torch.randn(1, tokens, heads, dim, generator=generator) for _ in range(3))
    narrow = [x.bfloat16() for x in (q, k, v)]
    out, narrow_out = torch.empty_like(q), torch.empty_like(narrow[0])
    peer = MultiHeadAttention(q.numpy(), k.numpy(), v.numpy(), threads)

    def sdpa(*inputs: torch.Tensor) -> torch.Tensor:
        views = [x.transpose(1, 2) for x in inputs]
        return F.scaled_dot_product_attention(*views).transpose(1, 2)

    truth = sdpa(q.double(), k.double(), v.double())
    answers = {
        "fastvid": ops.attention(q, k, v, out=out, threads=threads),
        "fastvid_bfloat16": ops.attention(*narrow, out=narrow_out, threads=threads),
        "onnxruntime": torch.from_numpy(peer.result()),
        "torch": sdpa(q, k, v),
        "torch_bfloat16": sdpa(*narrow),
    }
    largest = float(v.abs().max())
    error = {key: float((a.double() - truth).abs().max()) / largest for key, a in answers.items()}
    if any(error[key] > TOLERANCE[key] for key in TOLERANCE):
        raise SystemExit(f"the answer is wrong, so its time means nothing: {error}")
    flops = 4.0 * tokens**2 * heads * dim
    functions: dict[str, Callable[[], object]] = {
        "fastvid": lambda: ops.attention(q, k, v, out=out, threads=threads),
        "fastvid_bfloat16": lambda: ops.attention(*narrow, out=narrow_out, threads=threads),
        "onnxruntime": peer.run,
        "torch": lambda: sdpa(q, k, v),
        "torch_bfloat16": lambda: sdpa(*narrow),
        "peak": limits.multiply(flops, threads),
    }
    if _core.cpu_isa() == "avx512_bf16":
        functions["peak_bfloat16"] = limits.multiply(flops, threads, dtype="bfloat16")
    time = timing.compare(functions, rounds=rounds)
    gigaflops = {key: round(flops / 1e6 / entry["median_ms"], 1) for key, entry in time.items()}
    ratios = {
        key: timing.ratio(time, "onnxruntime", key) for key in ("fastvid", "fastvid_bfloat16")
    }
    print(f"{name}: {flops / 1e9:.1f} * 10^9 operations, {threads} threads")
    for key, entry in time.items():
        print(f"  {key:18s} {entry['median_ms']:8.2f} ms  {gigaflops[key]:7.1f} GFLOP/s")
    print("  of onnxruntime's time", ratios)
    return {
        "relative_error": error,
        "flops": flops,
        "time": time,
        "gigaflops": gigaflops,
        "ratio": ratios,
    }


if __name__ == "__main__":
    main()
