"""Noise schedules and solvers of diffusion and flow models, with diffusers' names and arguments.

A scheduler is made from diffusers' options, `set_timesteps(n)` fixes the timesteps and sigmas of a
run, and `step(model_output, timestep, sample).prev_sample` goes from one to the next. Arrays are
float32 NumPy arrays, a prediction may be float16 or bfloat16, and each step is one pass over them
(`fastvid.ops.scheduler_step`).

What differs from diffusers, on purpose: coefficients are computed in float64; an option or value
that is not supported is an InputError and never ignored; steps must be made in the order of
`timesteps`; noise comes from a `seed` (Philox, the same on every machine) or from the caller, not
from a generator; `step` also takes `uncond` and `guidance_scale`, which put classifier-free
guidance into the same pass, and `out` to write the result to, which may be `sample` itself.
"""

from __future__ import annotations

from fastvid.schedulers._base import SchedulerOutput
from fastvid.schedulers.ddim import DDIMScheduler
from fastvid.schedulers.dpmsolver import DPMSolverMultistepScheduler
from fastvid.schedulers.euler import EulerDiscreteScheduler
from fastvid.schedulers.flow_match_euler import FlowMatchEulerDiscreteScheduler
from fastvid.schedulers.lcm import LCMScheduler
from fastvid.schedulers.unipc import UniPCMultistepScheduler

__all__ = [
    "DDIMScheduler",
    "DPMSolverMultistepScheduler",
    "EulerDiscreteScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "LCMScheduler",
    "SchedulerOutput",
    "UniPCMultistepScheduler",
]
