"""`scheduler_step`, through the schedulers that use it, beside diffusers and NumPy.

    python benchmarks/ops/bench_scheduler_step.py [--shape 1,16,21,60,104] [--threads 2]

Each function makes a whole run with classifier-free guidance, `set_timesteps` included, on
predictions that are there already; times are per run of `--steps` steps (10). fastvid works in one
buffer, as its generator does; diffusers allocates, as it always does. What a run ends with is
checked against diffusers first. Bytes per element and step that cannot be saved: Euler reads 3
arrays and writes 1; DPM++ 2M reads 4 and writes 2; UniPC reads 6 and writes 3.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import diffusers
import numpy as np
import timing
import torch

from fastvid import ops, schedulers

SCALE = 5.0
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "flow_match_euler": ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
    "euler": ("EulerDiscreteScheduler", {}),
    "ddim": ("DDIMScheduler", {"clip_sample": False}),
    "dpmsolver_2m_flow": ("DPMSolverMultistepScheduler", FLOW),
    "unipc_2_flow": ("UniPCMultistepScheduler", FLOW),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shape", default="1,16,21,60,104")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    diffusers.logging.set_verbosity_error()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    shape = tuple(map(int, options.shape.split(",")))
    arrays = Arrays(shape)
    results: dict[str, Any] = {
        "shape": shape,
        "threads": options.threads,
        "steps": options.steps,
        "rounds": options.rounds,
        "diffusers": diffusers.__version__,
        "runs": {},
    }
    for name, (cls, config) in SCHEDULERS.items():
        results["runs"][name] = bench(name, cls, config, arrays, options)
    small = ops.randn((8,), seed=1)
    call = timing.compare({"call": lambda: ops.scheduler_step([[1, 2]], [small] * 2, out=(small,))})
    results["microseconds_of_a_call"] = round(1e3 * call["call"]["median_ms"], 2)
    print("  one call", results["microseconds_of_a_call"], "us")
    timing.write_results(timing.RESULTS / "scheduler_step.json", results)


class Arrays:
    """Noise to start from and predictions, for NumPy and torch over the same memory."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.sample, self.cond, self.uncond = (ops.randn(shape, seed=i) for i in range(3))
        self.buffer = np.empty_like(self.sample)
        self.tensors = [torch.from_numpy(a) for a in (self.sample, self.cond, self.uncond)]


def bench(
    name: str, cls: str, config: dict[str, Any], arrays: Arrays, options: argparse.Namespace
) -> dict[str, Any]:
    own = getattr(schedulers, cls)(**config)
    peer = getattr(diffusers, cls)(**config)
    threads = options.threads

    def run_own() -> Any:
        own.set_timesteps(options.steps)
        sample = arrays.sample
        for timestep in own.timesteps:
            sample = own.step(
                arrays.cond,
                timestep,
                sample,
                uncond=arrays.uncond,
                guidance_scale=SCALE,
                out=arrays.buffer,
            ).prev_sample
        return sample

    def run_peer() -> Any:
        peer.set_timesteps(options.steps)
        sample, cond, uncond = arrays.tensors
        for timestep in peer.timesteps:
            guided = uncond + SCALE * (cond - uncond)
            sample = peer.step(guided, timestep, sample, return_dict=False)[0]
        return sample

    def run_numpy() -> Any:
        own.set_timesteps(options.steps)
        sample = arrays.sample
        for step in np.diff(own.sigmas):
            guided = arrays.uncond + np.float32(SCALE) * (arrays.cond - arrays.uncond)
            sample = sample + step * guided
        return sample

    functions: dict[str, Callable[[], Any]] = {"fastvid": run_own, "diffusers": run_peer}
    if name == "flow_match_euler":
        functions["numpy"] = run_numpy
    truth = run_peer().numpy()
    error = {
        key: float(abs(np.asarray(function()) - truth).max() / abs(truth).max())
        for key, function in functions.items()
    }
    if max(error.values()) > 1e-5:
        raise SystemExit(f"{name}: a run must end as that of diffusers, got {error}")
    functions["copies"] = lambda: [
        np.copyto(arrays.buffer, arrays.sample) for _ in range(options.steps)
    ]
    time = timing.compare(functions, rounds=options.rounds)
    ratios = {key: timing.ratio(time, key, "fastvid") for key in time if key != "fastvid"}
    print(f"{name} ({threads} threads), relative error {error['fastvid']:.1e}")
    for key, entry in time.items():
        print(f"  {key:12s} {entry['median_ms']:9.3f} ms  (min {entry['min_ms']:.3f})")
    print("  ratios", ratios)
    return {"relative_error": error, "time": time, "ratio": ratios}


if __name__ == "__main__":
    main()
