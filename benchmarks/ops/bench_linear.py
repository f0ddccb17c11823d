"""`linear` beside torch's linear layer and onnxruntime's Gemm, and the limit of the unit.

    python benchmarks/ops/bench_linear.py [--threads 2]

The layers are those of a video transformer of 1.3 billion parameters: tokens x inputs x outputs.
The work is 2 * tokens * inputs * outputs operations, 15 to 86 * 10^9 here; weights are 5 to 28 MB
in bfloat16, read once, and x and out 38 to 131 MB: at 20 GB/s 2 to 7 ms beside 15 to 180 ms of
arithmetic. `peak` is what the processor does with fused multiply-adds of float32 in registers,
`peak_bfloat16` with pairs of bfloat16. Results are checked against float64 first.
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
import onnxruntime as ort
import timing
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper

from fastvid import ops

# Tokens, inputs, outputs.
CASES = {
    "3120x1536x1536": (3120, 1536, 1536),
    "3120x1536x8960": (3120, 1536, 8960),
    "3120x8960x1536": (3120, 8960, 1536),
}
TOLERANCE = {"fastvid": 1e-6, "fastvid_narrow_weights": 1e-6, "fastvid_bfloat16": 1e-6}
"""Of the sum of what is added, without signs, of the values that are multiplied."""


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
    timing.write_results(timing.RESULTS / "linear.json", results)


class Gemm:
    """A session of onnxruntime's own operator, its weight packed when it is loaded."""

    def __init__(self, x: Any, weight: Any, bias: Any, threads: int) -> None:
        tensors = [
            helper.make_tensor(n, TensorProto.FLOAT, t.shape, t.numpy().tobytes(), raw=True)
            for n, t in (("weight", weight), ("bias", bias))
        ]
        node = helper.make_node("Gemm", ["x", "weight", "bias"], ["out"], transB=1)
        values = [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape),
            helper.make_tensor_value_info("out", TensorProto.FLOAT, (len(x), len(weight))),
        ]
        graph = helper.make_graph([node], "one", values[:1], values[1:], tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._binding = self._session.io_binding()
        self._held = ort.OrtValue.ortvalue_from_numpy(x.numpy())
        self._binding.bind_ortvalue_input("x", self._held)
        self._out = torch.empty(len(x), len(weight))
        self._value = ort.OrtValue.ortvalue_from_numpy(self._out.numpy())
        self._binding.bind_ortvalue_output("out", self._value)

    def run(self) -> None:
        self._session.run_with_iobinding(self._binding)

    def result(self) -> Any:
        self.run()
        return torch.from_numpy(self._value.numpy())


def bench(
    name: str, tokens: int, inputs: int, outputs: int, threads: int, rounds: int
) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(tokens, inputs, generator=generator)
    narrow = (torch.randn(outputs, inputs, generator=generator) / inputs**0.5).bfloat16()
    wide, bias = narrow.float(), torch.randn(outputs, generator=generator)
    narrow_x, narrow_bias = x.bfloat16(), bias.bfloat16()
    out = torch.empty(tokens, outputs)
    peer = Gemm(x, wide, bias, threads)
    functions: dict[str, Callable[[], Any]] = {
        "fastvid": lambda: ops.linear(x, wide, bias, out=out, threads=threads),
        "fastvid_narrow_weights": lambda: ops.linear(x, narrow, bias, out=out, threads=threads),
        "fastvid_bfloat16": lambda: ops.linear(
            x, narrow, bias, precision="bfloat16", out=out, threads=threads
        ),
    }
    some = slice(0, tokens, 97)
    error = {}
    for key, function in functions.items():
        given = narrow_x if key == "fastvid_bfloat16" else x
        rows, weight = given[some].double(), narrow.double()
        size = F.linear(rows.abs(), weight.abs(), bias.double().abs())
        difference = function()[some].double() - F.linear(rows, weight, bias.double())
        error[key] = float((difference.abs() / size).max())
    if any(error[key] > TOLERANCE[key] for key in TOLERANCE):
        raise SystemExit(f"the answer is wrong, so its time means nothing: {error}")
    flops = 2.0 * tokens * inputs * outputs
    functions |= {
        "onnxruntime": peer.run,
        "torch": lambda: F.linear(x, wide, bias),
        "torch_bfloat16": lambda: F.linear(narrow_x, narrow, narrow_bias),
        "peak": limits.multiply(flops, threads),
        "peak_bfloat16": limits.multiply(flops, threads, dtype="bfloat16"),
    }
    time = timing.compare(functions, rounds=rounds)
    gigaflops = {key: round(flops / 1e6 / entry["median_ms"], 1) for key, entry in time.items()}
    ratios = {
        "fastvid": timing.ratio(time, "torch", "fastvid"),
        "fastvid_bfloat16": timing.ratio(time, "torch_bfloat16", "fastvid_bfloat16"),
    }
    print(f"{name}: {flops / 1e9:.1f} * 10^9 operations, {threads} threads")
    for key, entry in time.items():
        print(f"  {key:22s} {entry['median_ms']:8.2f} ms  {gigaflops[key]:7.1f} GFLOP/s")
    print("  times as fast as torch", ratios)
    return {
        "relative_error": error,
        "flops": flops,
        "time": time,
        "gigaflops": gigaflops,
        "ratio": ratios,
    }


if __name__ == "__main__":
    main()
