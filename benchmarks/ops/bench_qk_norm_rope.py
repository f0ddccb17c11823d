"""`qk_norm_rope` beside torch eager, written as diffusers' Wan does, and beside a copy.

    python benchmarks/ops/bench_qk_norm_rope.py [--threads 2]

Root mean square norm over all heads and interleaved rotation of q and k, (1, N, H, D). What cannot
be saved is reading and writing both once: 4 * N * H * D elements, 201 MB for 8192 tokens of 12
heads of 128 in float32, and 9 operations an element. Results are checked against float64 first.
`copy` reads and writes as many bytes with plain stores, `copy_streaming` past the caches. torch's
time is mostly that of fresh pages for its temporaries, and moves with whether the system has huge
ones: 30 to 175 ms were seen for 8192 tokens.
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
import torch.nn.functional as F

from fastvid import ops

CASES = {
    "wan_1.3b_3120": (3120, 12, 128, torch.float32),
    "wan_1.3b_8192": (8192, 12, 128, torch.float32),
    "24_heads_4096": (4096, 24, 128, torch.float32),
    "wan_1.3b_8192_bfloat16": (8192, 12, 128, torch.bfloat16),
}
# Of the largest value: rounding of sums in float32, of results in bfloat16.
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 5e-3}


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
    timing.write_results(timing.RESULTS / "qk_norm_rope.json", results)


class Wan:
    """What diffusers' WanAttnProcessor does between its projections and attention."""

    def __init__(self, tokens: int, heads: int, dim: int, dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(3)
        shape = (1, tokens, heads, dim)
        self.q, self.k = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
        self.weights = [1 + 0.1 * torch.randn(heads * dim, generator=generator) for _ in range(2)]
        tables = ops.rope_table_3d(tokens // 16, 4, 4, dim)
        self.cos, self.sin = (torch.from_numpy(table) for table in tables)
        # diffusers has every angle twice.
        self.doubled = [t.repeat_interleave(2, -1)[None, :, None] for t in (self.cos, self.sin)]

    def one(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        flat = F.rms_norm(x.flatten(2), weight.shape, weight.to(x.dtype), 1e-6)
        x1, x2 = flat.unflatten(2, x.shape[2:]).unflatten(-1, (-1, 2)).unbind(-1)
        cos, sin = self.doubled[0][..., 0::2], self.doubled[1][..., 1::2]
        out = torch.empty_like(x)
        out[..., 0::2] = x1 * cos - x2 * sin
        out[..., 1::2] = x1 * sin + x2 * cos
        return out

    def both(self) -> list[torch.Tensor]:
        return [self.one(x, w) for x, w in zip((self.q, self.k), self.weights, strict=True)]

    def truth(self) -> list[torch.Tensor]:
        wide = Wan.__new__(Wan)
        wide.q, wide.k = self.q.double(), self.k.double()
        wide.weights = [w.double() for w in self.weights]
        wide.doubled = [t.double() for t in self.doubled]
        return wide.both()


def bench(
    name: str, tokens: int, heads: int, dim: int, dtype: torch.dtype, threads: int, rounds: int
) -> dict[str, Any]:
    wan = Wan(tokens, heads, dim, dtype)
    tables = {"q_weight": wan.weights[0], "k_weight": wan.weights[1]}
    tables |= {"cos": wan.cos, "sin": wan.sin}
    out = (torch.empty_like(wan.q), torch.empty_like(wan.k))
    in_place = (wan.q.clone(), wan.k.clone())
    packed = torch.stack([wan.q, wan.k, wan.k], 2)
    error: dict[str, float] = {}
    truth = wan.truth()
    answers = {"fastvid": in_place, "fastvid_packed": (packed[:, :, 0], packed[:, :, 1])}
    for pair in answers.values():
        ops.qk_norm_rope(*pair, **tables, threads=threads)
    ops.qk_norm_rope(wan.q, wan.k, **tables, out=out, threads=threads)
    answers |= {"fastvid_to_out": out, "torch": wan.both()}
    for key, pair in answers.items():
        error[key] = max(
            float((a.double() - b).abs().max() / b.abs().max())
            for a, b in zip(pair, truth, strict=True)
        )
        if key != "torch" and error[key] > TOLERANCE[dtype]:
            raise SystemExit(f"the answer is wrong, so its time means nothing: {error}")

    moved = 4 * wan.q.numel() * wan.q.element_size()
    views = (packed[:, :, 0], packed[:, :, 1])
    functions: dict[str, Callable[[], object]] = {
        "fastvid": lambda: ops.qk_norm_rope(*in_place, **tables, threads=threads),
        "fastvid_packed": lambda: ops.qk_norm_rope(*views, **tables, threads=threads),
        "fastvid_to_out": lambda: ops.qk_norm_rope(
            wan.q, wan.k, **tables, out=out, threads=threads
        ),
        "torch": wan.both,
        "copy": limits.copy(moved, threads),
        "copy_streaming": limits.copy(moved, threads, streaming=True),
    }
    time = timing.compare(functions, rounds=rounds)
    ratios = {key: timing.ratio(time, key, "fastvid") for key in ("torch", "copy")}
    print(f"{name}: {moved / 1e6:.0f} MB, relative error {error['fastvid']:.1e}")
    for key, entry in time.items():
        print(f"  {key:16s} {entry['median_ms']:8.3f} ms  (min {entry['min_ms']:.3f})")
    print("  ratios", ratios)
    return {"relative_error": error, "megabytes": moved / 1e6, "time": time, "ratio": ratios}


if __name__ == "__main__":
    main()
