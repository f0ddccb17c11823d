"""Runs of every scheduler option, and the trajectories diffusers makes of them.

    python tests/scheduler_cases.py

writes tests/data/scheduler_trajectories.json. It needs torch and diffusers, which the tests do not.
"""

from __future__ import annotations

import importlib
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvid import ops, schedulers

TRAJECTORIES = Path(__file__).parent / "data" / "scheduler_trajectories.json"
SHAPE = (1, 1, 2, 3)
SEED = 5

FLOW, EULER = "FlowMatchEulerDiscreteScheduler", "EulerDiscreteScheduler"
DDIM, LCM = "DDIMScheduler", "LCMScheduler"
DPM, UNIPC = "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"
MODULES = {
    FLOW: "flow_match_euler_discrete",
    EULER: "euler_discrete",
    DDIM: "ddim",
    LCM: "lcm",
    DPM: "dpmsolver_multistep",
    UNIPC: "unipc_multistep",
}
STABLE_DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
WAN = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
SPACINGS = [{"timestep_spacing": name} for name in ("linspace", "leading", "trailing")]
KINDS = [{f"use_{name}_sigmas": True} for name in ("karras", "exponential", "beta")]
PREDICTIONS = [{"prediction_type": name} for name in ("sample", "v_prediction")]
BETAS = [
    {},
    STABLE_DIFFUSION,
    {"beta_schedule": "squaredcos_cap_v2"},
    {"trained_betas": [0.001 + 0.0001 * i for i in range(100)], "num_train_timesteps": 100},
]


def _case(
    scheduler: str,
    config: dict[str, Any],
    setting: dict[str, Any] | None = None,
    step: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "scheduler": scheduler,
        "config": config,
        "set": setting or {"num_inference_steps": 6},
        "step": step or {},
    }


def _flow_cases() -> list[dict[str, Any]]:
    options: list[dict[str, Any]] = [{}, {"shift": 3.0}, {"shift": 7.0, "num_train_timesteps": 500}]
    options += [{"shift": 3.0, **kind} for kind in KINDS]
    options += [{"shift": 2.0, "shift_terminal": 0.1}, {"stochastic_sampling": True}]
    options += [{"invert_sigmas": True}]
    dynamic: list[dict[str, Any]] = [{}, {"time_shift_type": "linear"}, {"shift_terminal": 0.02}]
    cases = [_case(FLOW, option) for option in options]
    cases += [
        _case(
            FLOW,
            {"use_dynamic_shifting": True, **option},
            {"num_inference_steps": 5, "mu": 0.9},
        )
        for option in dynamic
    ]
    rows = {"sigmas": [1.0, 0.7, 0.4, 0.1]}
    cases += [_case(FLOW, {"shift": 3.0}, rows), _case(FLOW, {}, {"num_inference_steps": 1})]
    cases += [_case(FLOW, {}, {"timesteps": [900.0, 500.0, 100.0], "sigmas": [0.9, 0.5, 0.1]})]
    cases += [_case(FLOW, {"shift": 2.0}, {"timesteps": [900.0, 500.0, 100.0]})]
    return cases


def _euler_cases() -> list[dict[str, Any]]:
    options: list[dict[str, Any]] = [*BETAS, *SPACINGS, *KINDS, *PREDICTIONS]
    options += [{"interpolation_type": "log_linear"}, {"final_sigmas_type": "sigma_min"}]
    options += [{"timestep_spacing": "leading", "steps_offset": 1}]
    options += [{"use_karras_sigmas": True, "sigma_min": 0.05, "sigma_max": 20.0}]
    svd = {"timestep_type": "continuous", "prediction_type": "v_prediction"}
    options += [{**svd, "use_karras_sigmas": True, "sigma_min": 0.002, "sigma_max": 700.0}]
    zero = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    options += [{**zero, "prediction_type": "v_prediction", **STABLE_DIFFUSION}]
    cases = [_case(EULER, option) for option in options]
    cases += [_case(EULER, {}, {"timesteps": [999, 700, 333, 2]})]
    cases += [_case(EULER, STABLE_DIFFUSION, {"sigmas": [10.0, 5.0, 1.0, 0.2, 0.0]})]
    churn = {"s_churn": 2.0, "s_tmin": 0.1, "s_tmax": 50.0, "s_noise": 1.01}
    return [*cases, _case(EULER, {}, None, churn)]


def _alpha_cases() -> list[dict[str, Any]]:
    plain = {"clip_sample": False}
    options: list[dict[str, Any]] = [*BETAS, *SPACINGS, *PREDICTIONS]
    options = [{**plain, **option} for option in options]
    options += [{}, {"clip_sample_range": 0.5}, {**plain, "set_alpha_to_one": False}]
    options += [{"prediction_type": name} for name in ("sample", "v_prediction")]
    options += [{**plain, "steps_offset": 1, **STABLE_DIFFUSION}]
    zero = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", **plain}
    options += [{**zero, "prediction_type": "v_prediction"}]
    cases = [_case(DDIM, option) for option in options]
    cases += [_case(DDIM, option, None, {"eta": 0.7}) for option in ({}, plain)]
    cases += [_case(DDIM, {}, None, {"use_clipped_model_output": True})]
    options = [{}, *PREDICTIONS, {"clip_sample": True}, {"timestep_scaling": 5.0}]
    options += [{"original_inference_steps": 40}, {"beta_schedule": "squaredcos_cap_v2"}]
    options += [{"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}]
    cases += [_case(LCM, option, {"num_inference_steps": 4}) for option in options]
    cases += [_case(LCM, {}, {"num_inference_steps": 4, "strength": 0.6})]
    cases += [_case(LCM, {}, {"num_inference_steps": 4, "original_inference_steps": 100})]
    return [*cases, _case(LCM, {}, {"timesteps": [999, 499, 99]})]


def _dpm_cases() -> list[dict[str, Any]]:
    options: list[dict[str, Any]] = [*BETAS, *SPACINGS, *KINDS, *PREDICTIONS]
    options += [{"use_lu_lambdas": True}, {"final_sigmas_type": "sigma_min"}]
    options += [{"timestep_spacing": "leading", "steps_offset": 1, **STABLE_DIFFUSION}]
    options += [{"lambda_min_clipped": -5.1, "beta_schedule": "squaredcos_cap_v2"}]
    zero = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    options += [{**zero, "prediction_type": "v_prediction"}]
    options += [WAN, {"euler_at_final": True}, {"lower_order_final": False}]
    for algorithm in ("dpmsolver++", "sde-dpmsolver++"):
        for order in (1, 2, 3) if algorithm == "dpmsolver++" else (1, 2):
            for solver in ("midpoint", "heun"):
                options += [
                    {"algorithm_type": algorithm, "solver_order": order, "solver_type": solver}
                ]
    options += [{**WAN, "solver_order": 3}, {**WAN, "algorithm_type": "sde-dpmsolver++"}]
    cases = [_case(DPM, option) for option in options]
    cases += [_case(DPM, {"solver_order": 3}, {"num_inference_steps": 16})]
    cases += [_case(DPM, {}, {"num_inference_steps": 1})]
    cases += [_case(DPM, {}, {"timesteps": [999, 600, 300, 100]})]
    dynamic = {**WAN, "use_dynamic_shifting": True}
    return [*cases, _case(DPM, dynamic, {"num_inference_steps": 5, "mu": 1.2})]


def _unipc_cases() -> list[dict[str, Any]]:
    options: list[dict[str, Any]] = [*BETAS, *SPACINGS, *KINDS, *PREDICTIONS]
    options += [{"final_sigmas_type": "sigma_min"}, {"disable_corrector": [0, 2]}]
    options += [{"timestep_spacing": "leading", "steps_offset": 1, **STABLE_DIFFUSION}]
    options += [{"use_karras_sigmas": True, "sigma_min": 0.05, "sigma_max": 20.0}]
    zero = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    options += [{**zero, "prediction_type": "v_prediction"}]
    for order in (1, 2, 3):
        # diffusers' bh1 gives NaN at a final sigma of 0.
        for solver, final in (("bh1", "sigma_min"), ("bh2", "zero")):
            solving = {"solver_order": order, "solver_type": solver, "final_sigmas_type": final}
            options += [solving, {**WAN, **solving}]
    noise = {"predict_x0": False, "final_sigmas_type": "sigma_min"}
    options += [noise, *({**noise, **prediction} for prediction in PREDICTIONS)]
    options += [{**noise, "solver_order": 3, "lower_order_final": False}]
    options += [{**WAN, "flow_shift": 5.0}, {**WAN, "shift_terminal": 0.1}]
    options += [{**WAN, "final_sigmas_type": "sigma_min"}, {**WAN, "use_karras_sigmas": True}]
    cases = [_case(UNIPC, option) for option in options]
    cases += [_case(UNIPC, {**WAN, "solver_order": 3}, {"num_inference_steps": 16})]
    cases += [_case(UNIPC, WAN, {"num_inference_steps": 1})]
    cases += [_case(UNIPC, WAN, {"sigmas": [1.0, 0.8, 0.5, 0.2]})]
    dynamic = {**WAN, "use_dynamic_shifting": True}
    return [*cases, _case(UNIPC, dynamic, {"num_inference_steps": 5, "mu": 1.2})]


CASES = [*_flow_cases(), *_euler_cases(), *_alpha_cases(), *_dpm_cases(), *_unipc_cases()]


def case_name(case: dict[str, Any]) -> str:
    """A short name for test output."""
    parts = {**case["config"], **case["set"], **case["step"]}
    text = ",".join(f"{k}={'...' if isinstance(v, list) else v}" for k, v in parts.items())
    return f"{case['scheduler']}({text})"


def model(inputs: NDArray[np.float32], index: int) -> NDArray[np.float32]:
    """Something smooth that depends on the sample, as a model does."""
    fixed = ops.randn(SHAPE, seed=SEED, subsequence=1000 + index)
    return (np.float32(0.5) * fixed + np.float32(0.3) * np.tanh(inputs)).astype(np.float32)


def noise_of(case: dict[str, Any], index: int, timestep: float) -> NDArray[np.float32]:
    """The noise that a step draws from the seed."""
    subsequence = int(timestep) + 1 if case["scheduler"] == DDIM else index + 1
    return ops.randn(SHAPE, seed=SEED, subsequence=subsequence)


def is_stochastic(case: dict[str, Any]) -> bool:
    config, step = case["config"], case["step"]
    return (
        case["scheduler"] == LCM
        or "s_churn" in step
        or "eta" in step
        or config.get("stochastic_sampling", False)
        or config.get("algorithm_type") == "sde-dpmsolver++"
    )


def own_trajectory(case: dict[str, Any]) -> dict[str, Any]:
    """Timesteps, sigmas and the sample after each step, by fastvid."""
    scheduler = getattr(schedulers, case["scheduler"])(**case["config"])
    scheduler.set_timesteps(**case["set"])
    options = dict(case["step"], seed=SEED) if is_stochastic(case) else case["step"]
    sample = ops.randn(SHAPE, seed=SEED) * np.float32(scheduler.init_noise_sigma)
    samples = []
    for index, timestep in enumerate(scheduler.timesteps):
        output = model(scheduler.scale_model_input(sample, timestep), index)
        sample = scheduler.step(output, timestep, sample, **options).prev_sample
        samples.append(sample)
    found = {"timesteps": scheduler.timesteps, "samples": np.stack(samples)}
    if case["scheduler"] not in (DDIM, LCM):
        found["sigmas"] = scheduler.sigmas
    return found


def diffusers_trajectory(case: dict[str, Any], *, double: bool = True) -> dict[str, Any]:
    """The same by diffusers: its float32 schedule, its steps in float64 or in float32."""
    import torch

    name = case["scheduler"]
    module = importlib.import_module(f"diffusers.schedulers.scheduling_{MODULES[name]}")
    dtype = torch.float64 if double else torch.float32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = getattr(module, name)(**case["config"])
        setting = dict(case["set"])
        if name == UNIPC and "sigmas" in setting:
            setting["sigmas"] = np.array(setting["sigmas"])
        scheduler.set_timesteps(**setting)
    # diffusers' flow matching has neither of these two.
    start = ops.randn(SHAPE, seed=SEED) * np.float32(getattr(scheduler, "init_noise_sigma", 1))
    scale = getattr(scheduler, "scale_model_input", lambda sample, _: sample)
    sigmas, timesteps = getattr(scheduler, "sigmas", None), scheduler.timesteps
    if double:
        _to_double(scheduler)
    sample = torch.from_numpy(start).to(dtype)
    samples = []
    original = getattr(module, "randn_tensor", None)
    try:
        for index, timestep in enumerate(timesteps):
            noise = torch.from_numpy(noise_of(case, index, float(timestep))).to(dtype)
            module.randn_tensor = lambda *_, noise=noise, **__: noise  # type: ignore[attr-defined]
            inputs = scale(sample, timestep)
            output = torch.from_numpy(model(inputs.float().numpy(), index)).to(dtype)
            sample = scheduler.step(output, timestep, sample, **case["step"]).prev_sample
            samples.append(sample.numpy())
    finally:
        module.randn_tensor = original  # type: ignore[attr-defined]
    found = {"timesteps": timesteps.numpy(), "samples": np.stack(samples)}
    if name not in (DDIM, LCM):
        found["sigmas"] = sigmas.numpy()
    return found


def _to_double(scheduler: Any) -> None:
    """Makes diffusers compute in float64 from the schedule it has in float32."""
    for name in ("sigmas", "alphas_cumprod", "final_alpha_cumprod"):
        if hasattr(scheduler, name):
            setattr(scheduler, name, getattr(scheduler, name).double())


def relative_error(found: Any, expected: Any) -> float:
    """The largest error, each row of the arrays relative to its largest value."""
    a, b = (np.asarray(x, np.float64) for x in (found, expected))
    if a.shape != b.shape:
        return float("inf")
    if b.ndim > 1:
        a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
        return float((abs(a - b).max(1) / abs(b).max(1)).max())
    return float(abs(a - b).max() / abs(b).max())


def main() -> None:
    import diffusers
    import torch

    runs = []
    for case in CASES:
        found = diffusers_trajectory(case)
        rounded = {
            key: [float(f"{x:.9g}") for x in np.asarray(value, np.float64).ravel()]
            for key, value in found.items()
        }
        runs.append({**case, "expected": rounded})
    text = json.dumps(
        {
            "command": "python tests/scheduler_cases.py",
            "versions": {"diffusers": diffusers.__version__, "torch": torch.__version__},
            "runs": [],
        },
        indent=1,
    )
    lines = ",\n".join("  " + json.dumps(run) for run in runs)
    TRAJECTORIES.write_text(text.replace('"runs": []', f'"runs": [\n{lines}\n ]') + "\n")
    print(f"{len(runs)} runs")


if __name__ == "__main__":
    main()
