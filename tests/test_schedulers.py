"""Schedulers: the trajectories of diffusers for every option, and what they promise beyond."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import scheduler_cases as cases
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastvid import ops, schedulers
from fastvid.errors import InputError, InputTypeError

RUNS: list[dict[str, Any]] = json.loads(cases.TRAJECTORIES.read_text())["runs"]
SHAPE = (2, 3, 5)
TOLERANCE = 1e-5

ONE_OF_EACH: list[tuple[str, dict[str, Any]]] = [
    (cases.FLOW, {"shift": 3.0}),
    (cases.EULER, {}),
    (cases.DDIM, {}),
    (cases.DDIM, {"clip_sample": False, "prediction_type": "sample"}),
    (cases.LCM, {}),
    (cases.DPM, {"solver_order": 3}),
    (cases.DPM, {**cases.WAN, "algorithm_type": "sde-dpmsolver++"}),
    (cases.UNIPC, {**cases.WAN, "solver_order": 3}),
    (cases.UNIPC, {"predict_x0": False, "final_sigmas_type": "sigma_min"}),
]


def make(name: str, config: dict[str, Any], steps: int = 5) -> Any:
    scheduler = getattr(schedulers, name)(**config)
    scheduler.set_timesteps(steps)
    return scheduler


def run(name: str, config: dict[str, Any], *, in_place: bool = False, fused: bool = False) -> Any:
    """A run with guidance whose arrays are spoilt as soon as a step is over."""
    scheduler = make(name, config)
    stochastic = name == cases.LCM or config.get("algorithm_type") == "sde-dpmsolver++"
    seed = {"seed": 3} if stochastic else {}
    sample = ops.randn(SHAPE, seed=1)
    for i, timestep in enumerate(scheduler.timesteps):
        cond, uncond = (ops.randn(SHAPE, seed=2, subsequence=2 * i + j) for j in (0, 1))
        if fused:
            options = {**seed, "uncond": uncond, "guidance_scale": 4.0}
        else:
            cond, options = uncond + np.float32(4) * (cond - uncond), seed
        given = sample.copy()
        out = {"out": given} if in_place else {}
        result = scheduler.step(cond, timestep, given, **options, **out)
        sample = result.prev_sample.copy()
        assert (result.prev_sample is given) == in_place
        for spoilt in (cond, given, result.prev_sample):
            spoilt.fill(np.nan)
    return sample


def test_the_table_holds_every_case() -> None:
    named = [{k: v for k, v in run.items() if k != "expected"} for run in RUNS]
    assert named == cases.CASES


@pytest.mark.parametrize("case", RUNS, ids=cases.case_name)
def test_trajectories_are_those_of_diffusers(case: dict[str, Any]) -> None:
    found = cases.own_trajectory(case)
    assert set(found) == set(case["expected"])
    for key, value in found.items():
        expected = np.array(case["expected"][key]).reshape(value.shape)
        assert cases.relative_error(value, expected) < TOLERANCE, key


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", cases.CASES, ids=cases.case_name)
def test_trajectories_are_those_of_the_installed_diffusers(case: dict[str, Any]) -> None:
    pytest.importorskip("diffusers")
    found = cases.own_trajectory(case)
    exact = cases.diffusers_trajectory(case)
    rounded = cases.diffusers_trajectory(case, double=False)["samples"]
    for key, value in found.items():
        assert cases.relative_error(value, exact[key]) < TOLERANCE, key
    # In float32 diffusers itself is off by this much.
    own_error = cases.relative_error(rounded, exact["samples"])
    assert cases.relative_error(found["samples"], rounded) < TOLERANCE + 2 * own_error


@pytest.mark.parametrize(("name", "config"), ONE_OF_EACH)
def test_guidance_inside_a_step_is_that_before_it(name: str, config: dict[str, Any]) -> None:
    apart = run(name, config)
    assert cases.relative_error(run(name, config, fused=True), apart) < TOLERANCE


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize(("name", "config"), ONE_OF_EACH)
def test_a_model_may_predict_in_16_bits(name: str, config: dict[str, Any], dtype: Any) -> None:
    options = {"seed": 1} if name == cases.LCM or "algorithm_type" in config else {}
    samples = []
    for read in (dtype, np.float32):
        scheduler = make(name, config, 4)
        sample = ops.randn(SHAPE, seed=1)
        for i, timestep in enumerate(scheduler.timesteps):
            cond, uncond = (
                ops.randn(SHAPE, seed=2, subsequence=2 * i + j).astype(dtype).astype(read)
                for j in (0, 1)
            )
            guided = {"uncond": uncond, "guidance_scale": 2.0}
            sample = scheduler.step(cond, timestep, sample, **guided, **options).prev_sample
        assert sample.dtype == np.float32
        samples.append(sample)
    np.testing.assert_array_equal(*samples)


@pytest.mark.parametrize(("name", "config"), ONE_OF_EACH)
def test_a_step_may_write_to_its_sample(name: str, config: dict[str, Any]) -> None:
    np.testing.assert_array_equal(run(name, config, in_place=True), run(name, config))


@pytest.mark.parametrize(("name", "config"), ONE_OF_EACH)
def test_a_scheduler_can_run_again(name: str, config: dict[str, Any]) -> None:
    scheduler = make(name, config)
    for _ in range(2):
        scheduler.set_timesteps(5)
        sample = ops.randn(SHAPE, seed=1)
        for timestep in scheduler.timesteps:
            options = {"seed": 1} if name == cases.LCM or "algorithm_type" in config else {}
            sample = scheduler.step(sample * np.float32(0.5), timestep, sample, **options)
            sample = sample.prev_sample
        if _ == 0:
            first = sample
    np.testing.assert_array_equal(sample, first)


@pytest.fixture(params=[cases.FLOW, cases.EULER, cases.DPM, cases.UNIPC])
def perfect(request: pytest.FixtureRequest) -> Any:
    """A scheduler whose model knows the clean sample."""
    kind = {"prediction_type": "sample"}
    return make(request.param, {} if request.param == cases.FLOW else kind, 8)


def test_a_model_that_knows_the_answer_reaches_it(perfect: Any) -> None:
    clean = ops.randn(SHAPE, seed=4)
    sample = ops.randn(SHAPE, seed=5) * np.float32(perfect.init_noise_sigma)
    for sigma, timestep in zip(perfect.sigmas, perfect.timesteps, strict=False):
        velocity = perfect.name == cases.FLOW
        output = (sample - clean) / sigma if velocity else clean.copy()
        sample = perfect.step(output, timestep, sample).prev_sample
    np.testing.assert_allclose(sample, clean, rtol=1e-5, atol=1e-5)


def test_noise_is_added_as_the_schedule_says() -> None:
    clean, noise = ops.randn((2, 3, 4), seed=1), ops.randn((2, 3, 4), seed=2)
    flow = make(cases.FLOW, {"shift": 3.0})
    sigma = flow.sigmas[2]
    found = flow.scale_noise(clean, flow.timesteps[2], noise)
    np.testing.assert_allclose(found, sigma * noise + (1 - sigma) * clean, rtol=1e-5, atol=1e-6)
    euler = make(cases.EULER, {})
    found = euler.add_noise(clean, noise, euler.timesteps[[1, 3]])
    for i, sigma in enumerate(euler.sigmas[[1, 3]]):
        np.testing.assert_allclose(found[i], clean[i] + sigma * noise[i], rtol=1e-5, atol=1e-6)
    for name in (cases.DDIM, cases.LCM):
        scheduler = make(name, {})
        alpha = scheduler.alphas_cumprod[300]
        expected = np.sqrt(alpha) * clean + np.sqrt(1 - alpha) * noise
        found = scheduler.add_noise(clean, noise, 300)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    for name in (cases.DPM, cases.UNIPC):
        scheduler = make(name, {})
        sigma = scheduler.sigmas[2]
        expected = (clean + sigma * noise) / np.sqrt(sigma**2 + 1)
        found = scheduler.add_noise(clean, noise, [scheduler.timesteps[2]])
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_model_of_euler_is_given_samples_of_unit_size() -> None:
    euler = make(cases.EULER, {})
    sample = ops.randn(SHAPE, seed=1) * np.float32(euler.init_noise_sigma)
    found = euler.scale_model_input(sample, euler.timesteps[0])
    np.testing.assert_allclose(found, sample / np.hypot(euler.sigmas[0], 1), rtol=1e-6)


def test_a_run_may_start_in_the_middle() -> None:
    whole, part = make(cases.FLOW, {}), make(cases.FLOW, {})
    sample, output = ops.randn(SHAPE, seed=1), ops.randn(SHAPE, seed=2)
    part.set_begin_index(2)
    whole.set_begin_index(0)
    whole.step(output, whole.timesteps[0], sample)
    whole.step(output, whole.timesteps[1], sample)
    expected = whole.step(output, whole.timesteps[2], sample).prev_sample
    found = part.step(output, part.timesteps[2], sample).prev_sample
    np.testing.assert_array_equal(found, expected)
    assert part.step_index == 3


def test_steps_that_share_a_timestep_are_all_made() -> None:
    config = {"use_karras_sigmas": True, "beta_schedule": "squaredcos_cap_v2"}
    scheduler = make(cases.DPM, config, 6)
    assert scheduler.timesteps[0] == scheduler.timesteps[1]
    sample = ops.randn(SHAPE, seed=1)
    for timestep in scheduler.timesteps:
        sample = scheduler.step(sample, timestep, sample).prev_sample
    assert scheduler.step_index == 6


def test_bh1_ends_at_a_sigma_of_zero() -> None:
    scheduler = make(cases.UNIPC, {**cases.WAN, "solver_type": "bh1"}, 3)
    sample = ops.randn(SHAPE, seed=1)
    for timestep in scheduler.timesteps:
        sample = scheduler.step(np.zeros(SHAPE, np.float32), timestep, sample).prev_sample
    assert np.isfinite(sample).all()


def test_a_config_file_is_read() -> None:
    config = {"_class_name": cases.UNIPC, "_diffusers_version": "0.35.0", **cases.WAN}
    scheduler = schedulers.UniPCMultistepScheduler.from_config(config)
    assert scheduler.config.flow_shift == 3.0
    with pytest.raises(InputError, match="got 'skip_prk_steps'"):
        schedulers.DDIMScheduler.from_config({"skip_prk_steps": True})


@pytest.mark.parametrize(
    ("name", "config", "error", "message"),
    [
        (cases.DDIM, {"thresholding": True}, InputError, "thresholding must be False, got True"),
        (cases.DDIM, {"clip": True}, InputError, "options must be among those of DDIM"),
        (cases.DDIM, {"clip_sample": 1}, InputTypeError, "clip_sample must be bool, got int"),
        (cases.DDIM, {"steps_offset": 1.5}, InputTypeError, "steps_offset must be int"),
        (cases.FLOW, {"shift": True}, InputTypeError, "shift must be float, got bool"),
        (cases.FLOW, {"shift": -1.0}, InputError, "shift must be from 0.001 to"),
        (cases.FLOW, {"shift": float("nan")}, InputError, "shift must be finite"),
        (cases.FLOW, {"time_shift_type": "log"}, InputError, "must be one of 'exponential', 'lin"),
        (cases.EULER, {"beta_schedule": "cosine"}, InputError, "beta_schedule must be one of"),
        (cases.EULER, {"trained_betas": [0.1]}, InputError, "trained_betas must be 1000 numbers"),
        (cases.EULER, {"beta_end": 2.0}, InputError, "beta_end must be from 0.0 to 1.0"),
        (
            cases.EULER,
            {"use_karras_sigmas": True, "use_beta_sigmas": True},
            InputError,
            "at most one of",
        ),
        (cases.DPM, {"algorithm_type": "dpmsolver"}, InputError, "algorithm_type must be one of"),
        (cases.DPM, {"solver_order": 4}, InputError, "solver_order must be from 1 to 3, got 4"),
        (
            cases.DPM,
            {"algorithm_type": "sde-dpmsolver++", "solver_order": 3},
            InputError,
            "solver_order must be 1 or 2",
        ),
        (cases.DPM, {"variance_type": "learned"}, InputError, "variance_type must be None"),
        (cases.UNIPC, {"solver_p": "x"}, InputError, "solver_p must be None"),
        (cases.UNIPC, {"shift_terminal": 0.1}, InputError, "shift_terminal must be None without"),
        (cases.UNIPC, {"disable_corrector": 1}, InputError, "must be a list of steps"),
        (cases.LCM, {"prediction_type": "flow"}, InputError, "prediction_type must be one of"),
    ],
)
def test_options_that_are_not_supported_are_refused(
    name: str, config: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        getattr(schedulers, name)(**config)
    assert str(caught.value).startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("name", "config", "setting", "message"),
    [
        (cases.FLOW, {}, {}, "must agree in length, got none of them"),
        (cases.FLOW, {}, {"num_inference_steps": 2, "sigmas": [1.0]}, "must agree in length"),
        (cases.FLOW, {}, {"num_inference_steps": 2, "mu": 1.0}, "mu must be given exactly with"),
        (cases.FLOW, {"use_dynamic_shifting": True}, {"num_inference_steps": 2}, "mu must be"),
        (cases.FLOW, {}, {"sigmas": [0.5, 2.0]}, r"sigmas must be in \(0, 1\]"),
        (cases.FLOW, {}, {"sigmas": ["a"]}, "sigmas must be numbers"),
        (cases.FLOW, {}, {"num_inference_steps": 0}, "num_inference_steps must be from 1"),
        (cases.EULER, {}, {"num_inference_steps": 2.0}, "num_inference_steps must be an int"),
        (cases.EULER, {}, {"num_inference_steps": 1001}, "must be from 1 to 1000, got 1001"),
        (cases.EULER, {}, {"timesteps": [3], "sigmas": [1.0, 0.0]}, "exactly one of"),
        (cases.EULER, {"use_karras_sigmas": True}, {"timesteps": [5]}, "timesteps must not be"),
        (cases.LCM, {}, {"num_inference_steps": 51}, "must be from 1 to 50, got 51"),
        (cases.LCM, {}, {"timesteps": [1, 2]}, "timesteps must fall"),
        (
            cases.LCM,
            {},
            {"num_inference_steps": 2, "strength": 2.0},
            "strength must be from 0 to 1",
        ),
        (cases.DPM, cases.WAN, {"timesteps": [5]}, "timesteps must be None with another spacing"),
        (cases.DPM, {}, {"num_inference_steps": 5, "mu": 1.0}, "mu must be None without"),
        (cases.UNIPC, {}, {"sigmas": [1.0, 0.5]}, "sigmas must be None, or with use_flow_sigmas"),
        (
            cases.DPM,
            {**cases.WAN, "use_karras_sigmas": True},
            {"num_inference_steps": 3},
            "sigmas must be at most 1 with use_flow_sigmas",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    name: str, config: dict[str, Any], setting: dict[str, Any], message: str
) -> None:
    scheduler = getattr(schedulers, name)(**config)
    with pytest.raises(InputError, match=message) as caught:
        scheduler.set_timesteps(**setting)
    assert str(caught.value).startswith(f"{name}: ")


JUNK = [None, -1, 0, 2, 1.5, "x", b"", float("nan"), float("inf"), -1e300, True, [], [1, 2]]
JUNK += [[0.9, 0.5], [[1.0]], [None], [1e300], [float("nan")], {}, object(), np.float32(0.5)]
JUNK += [np.int64(3), np.zeros(SHAPE), np.zeros(SHAPE, np.float32), np.ones(3, np.float32)]
SETTINGS = ["num_inference_steps", "sigmas", "timesteps", "mu", "strength"]
STEPS = ["timestep", "model_output", "sample", "seed", "variance_noise", "uncond"]
STEPS += ["guidance_scale", "out", "eta", "s_churn", "s_noise", "s_tmin"]


@pytest.mark.parametrize("timestep", [-1e300, 1e300, float("nan"), float("inf")])
def test_a_timestep_beyond_float32_is_refused(timestep: float) -> None:
    scheduler = schedulers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(4)
    x = np.zeros((1, 2), np.float32)
    with pytest.raises(InputError, match="timestep must be from"):
        scheduler.step(x, timestep, x)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data(), st.sampled_from([*ONE_OF_EACH, (cases.FLOW, {"use_dynamic_shifting": True})]))
def test_nothing_but_input_errors_leaves_a_scheduler(
    data: st.DataObject, kind: tuple[str, dict[str, Any]]
) -> None:
    junk = st.sampled_from(JUNK)
    name, config = kind
    cls = getattr(schedulers, name)

    def draw(function: Any, names: list[str]) -> dict[str, Any]:
        known = set(inspect.signature(function).parameters) & set(names)
        return data.draw(st.dictionaries(st.sampled_from(sorted(known)), junk, max_size=3))

    options = data.draw(st.sampled_from([f.name for f in dataclasses.fields(cls().config)]))
    with contextlib.suppress(InputError):
        cls(**{options: data.draw(junk)}).set_timesteps(3)
    scheduler = cls(**config)
    with contextlib.suppress(InputError):
        setting = {"num_inference_steps": 3, **draw(cls.set_timesteps, SETTINGS)}
        scheduler.set_timesteps(**setting)
    x = np.zeros(SHAPE, np.float32)
    arguments = {"model_output": x, "timestep": scheduler.timesteps[0], "sample": x}
    with contextlib.suppress(InputError):
        scheduler.step(**{**arguments, **draw(cls.step, STEPS)})
    noise = cls.scale_noise if name == cases.FLOW else cls.add_noise
    with contextlib.suppress(InputError):
        noise(scheduler, data.draw(junk), data.draw(junk), data.draw(junk))
    with contextlib.suppress(InputError):
        scheduler.set_begin_index(data.draw(junk))


def test_steps_must_be_made_in_order() -> None:
    scheduler, x = make(cases.FLOW, {}), np.zeros(SHAPE, np.float32)
    with pytest.raises(InputError, match=r"timestep must be one of scheduler\.timesteps, got 3"):
        scheduler.step(x, 3, x)
    scheduler.step(x, scheduler.timesteps[0], x)
    with pytest.raises(InputError, match="timestep of step 1 must be"):
        scheduler.step(x, scheduler.timesteps[2], x)
    for timestep in scheduler.timesteps[1:]:
        scheduler.step(x, timestep, x)
    with pytest.raises(InputError, match="step must be called 5 times, got one more"):
        scheduler.step(x, scheduler.timesteps[-1], x)
    with pytest.raises(InputError, match="set_timesteps must be called before step"):
        schedulers.EulerDiscreteScheduler().step(x, 999.0, x)


def test_arrays_that_do_not_fit_are_refused() -> None:
    scheduler, x = make(cases.UNIPC, {}), np.zeros(SHAPE, np.float32)
    timestep = scheduler.timesteps[0]
    with pytest.raises(
        InputTypeError, match="model_output must be float32 or float16 or bfloat16, got float64"
    ):
        scheduler.step(x.astype(np.float64), timestep, x)
    with pytest.raises(InputError, match="model_output must have the shape of sample"):
        scheduler.step(x[:1], timestep, x)
    with pytest.raises(InputTypeError, match="must be a NumPy array"):
        scheduler.step(x.tolist(), timestep, x)
    assert scheduler.step(x, timestep, x).prev_sample.shape == SHAPE


def test_a_step_that_adds_noise_says_what_it_needs() -> None:
    scheduler, x = make(cases.LCM, {}), np.zeros(SHAPE, np.float32)
    timestep = scheduler.timesteps[0]
    with pytest.raises(InputError, match="exactly one of seed and variance_noise"):
        scheduler.step(x, timestep, x)
    with pytest.raises(InputError, match="got both"):
        scheduler.step(x, timestep, x, seed=1, variance_noise=x)
    noise = ops.randn(SHAPE, seed=1, subsequence=1)
    given = make(cases.LCM, {}).step(x, timestep, x, variance_noise=noise).prev_sample
    np.testing.assert_array_equal(scheduler.step(x, timestep, x, seed=1).prev_sample, given)


def test_a_solver_that_cannot_reach_the_last_sigma_says_so() -> None:
    scheduler = make(cases.UNIPC, {"lower_order_final": False, "solver_order": 3}, 4)
    x = np.zeros(SHAPE, np.float32)
    for timestep in scheduler.timesteps[:-1]:
        scheduler.step(x, timestep, x)
    with pytest.raises(InputError, match="must have finite coefficients"):
        scheduler.step(x, scheduler.timesteps[-1], x)


def test_a_prediction_the_sample_says_nothing_of_is_refused() -> None:
    config = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    scheduler, x = make(cases.DDIM, config), np.zeros(SHAPE, np.float32)
    with pytest.raises(InputError, match="prediction_type must be another"):
        scheduler.step(x, scheduler.timesteps[0], x)
