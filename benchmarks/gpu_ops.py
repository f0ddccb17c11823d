"""One op on one size, beside torch eager, torch.compile and a copy of as many bytes."""

from __future__ import annotations

from typing import Any

import timing
import torch
from gpu_clock import Functions, Machine, call_us, compiled, device_times
from gpu_peers import comparison


def measure(m: Machine, spec: dict[str, Any], rounds: int) -> dict[str, Any]:
    """The row: error, times with a cold and a warm cache, what a call costs the processor."""
    torch.manual_seed(0)
    case = comparison(m, spec)
    right = case.on_cpu or case.torch
    assert right is not None, spec
    error = float((case.fastvid().cpu().float() - right().cpu().float()).abs().max())
    source = torch.empty(case.nbytes // 2, dtype=torch.uint8, device=m.device)
    target = torch.empty_like(source)
    functions: Functions = {"fastvid": case.fastvid, "copy": lambda: target.copy_(source)}
    result: dict[str, Any] = {
        "bytes": case.nbytes,
        "error": error,
        "right": error <= case.tolerance,
    }
    if case.torch is not None:
        functions["torch"] = case.torch
        try:
            faster = compiled(m, case.torch)
            faster()
            functions["torch_compile"] = faster
        except Exception as problem:  # of any kind: it depends on compilers of the machine
            result["torch_compile"] = f"{type(problem).__name__}: {problem}"[:200]
    for state in ("cold", "warm"):
        times = device_times(m, functions, rounds, cold=state == "cold")
        result[state] = {
            "time": times,
            "ratio": {
                peer: timing.ratio(times, peer, "fastvid")
                for peer in ("torch", "torch_compile")
                if peer in times
            },
            "percent_of_copy": timing.percent(times, "fastvid", of="copy"),
        }
    result["call_us"] = {name: call_us(m, function) for name, function in functions.items()}
    return result
