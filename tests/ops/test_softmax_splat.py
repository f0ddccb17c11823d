"""`softmax_splat`: near float64 NumPy, equal bits everywhere, no write out of bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import reference
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastvid import _core, ops
from fastvid.errors import InputError, InputTypeError

# Around the segments of 64 columns and the bands of 8 to 48 rows, and below both.
SIZES = [(1, 1), (1, 9), (2, 2), (5, 7), (8, 64), (9, 65), (17, 31), (70, 130), (400, 63)]
MODES = ["softmax", "linear", "average", "sum"]
# Sums of a few values of at most 1; weights carry errors of 1e-7.
TOLERANCE = 5e-6


def make_image(rng: np.random.Generator, *shape: int) -> Any:
    return rng.random(shape, np.float32)


def make_flow(rng: np.random.Generator, n: int, height: int, width: int, std: float = 3) -> Any:
    """A smooth field with a step and single outliers: pixels meet, leave holes and the image."""
    y, x = np.mgrid[:height, :width]
    flow = rng.normal(0, std, (n, 2, 1, 1)) + 0.05 * (x - y) + 0.3 * np.sin(y / 3)
    flow = flow + rng.normal(0, 4 * std, (n, 2, 1, 1)) * (x > width // 2)
    flow += rng.normal(0, 10 * std, flow.shape) * (rng.random(flow.shape) < 0.02)
    return flow.astype(np.float32)


def make_metric(rng: np.random.Generator, mode: str, n: int, height: int, width: int) -> Any:
    if mode == "softmax":
        return rng.normal(0, 4, (n, 1, height, width)).astype(np.float32)
    if mode == "linear":
        return rng.uniform(0.1, 3, (n, 1, height, width)).astype(np.float32)
    return None


def make(
    rng: np.random.Generator, mode: str, size: tuple[int, int], n: int = 2, channels: int = 3
) -> tuple[Any, Any, Any]:
    return (
        make_image(rng, n, channels, *size),
        make_flow(rng, n, *size, std=min(3, min(size) / 8)),
        make_metric(rng, mode, n, *size),
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", MODES)
def test_agrees_with_float64(
    rng: np.random.Generator, isa: str, size: tuple[int, int], mode: str
) -> None:
    arrays = make(rng, mode, size)
    expected = reference.softmax_splat(*arrays, mode=mode)
    assert expected.any()
    np.testing.assert_allclose(ops.softmax_splat(*arrays, mode=mode), expected, atol=TOLERANCE)


@pytest.mark.parametrize("channels", [1, 2, 4, 5, 7, 8, 16])
@pytest.mark.parametrize("mode", ["softmax", "sum"])
def test_any_number_of_channels(
    rng: np.random.Generator, isa: str, channels: int, mode: str
) -> None:
    arrays = make(rng, mode, (21, 100), channels=channels)
    expected = reference.softmax_splat(*arrays, mode=mode)
    np.testing.assert_allclose(ops.softmax_splat(*arrays, mode=mode), expected, atol=TOLERANCE)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("size", [(5, 7), (21, 150)])
def test_sixteen_bits_are_the_float32_result_rounded(
    rng: np.random.Generator, isa: str, size: tuple[int, int], dtype: Any
) -> None:
    image, flow, metric = make(rng, "softmax", size, channels=5)
    narrow = image.astype(dtype)
    result = ops.softmax_splat(narrow, flow, metric)
    assert result.dtype == dtype
    expected = ops.softmax_splat(narrow.astype(np.float32), flow, metric).astype(dtype)
    np.testing.assert_array_equal(result.view(np.uint16), expected.view(np.uint16))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("size", [(5, 7), (40, 97), (64, 128)])
def test_every_instruction_set_gives_equal_bits(
    rng: np.random.Generator, each_isa: Any, size: tuple[int, int], dtype: Any, mode: str
) -> None:
    image, flow, metric = make(rng, mode, size, channels=6)
    image = (image - 0.5).astype(dtype)
    bits = np.uint32 if dtype == np.float32 else np.uint16
    results = each_isa(lambda: ops.softmax_splat(image, flow, metric, mode=mode))
    for name, result in results.items():
        np.testing.assert_array_equal(
            result.view(bits), results["baseline"].view(bits), err_msg=name
        )


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("deterministic", [False, True])
def test_threads_do_not_change_the_result(
    rng: np.random.Generator, threads: int, deterministic: bool
) -> None:
    arrays = make(rng, "softmax", (200, 90))
    result = ops.softmax_splat(*arrays, threads=threads, deterministic=deterministic)
    np.testing.assert_array_equal(result, ops.softmax_splat(*arrays))


def test_rows_that_all_land_in_one_band_are_all_added(rng: np.random.Generator, isa: str) -> None:
    image = make_image(rng, 1, 2, 150, 70)
    flow = np.zeros((1, 2, 150, 70), np.float32)
    flow[0, 1] = 75.25 - np.arange(150)[:, None]
    result = ops.softmax_splat(image, flow, mode="sum")
    column = image.sum(2, dtype=np.float64)
    np.testing.assert_allclose(result[:, :, 75], 0.75 * column, rtol=1e-5)
    np.testing.assert_allclose(result[:, :, 76], 0.25 * column, rtol=1e-5)
    assert not result[:, :, :75].any()
    assert not result[:, :, 77:].any()


@pytest.mark.parametrize("mode", ["average", "sum"])
def test_no_motion_changes_nothing(rng: np.random.Generator, isa: str, mode: str) -> None:
    image = make_image(rng, 1, 3, 37, 145)
    flow = np.zeros((1, 2, 37, 145), np.float32)
    np.testing.assert_array_equal(ops.softmax_splat(image, flow, mode=mode), image)


def test_whole_pixels_shift_exactly_and_leave_holes(rng: np.random.Generator, isa: str) -> None:
    image = make_image(rng, 1, 1, 40, 150)
    flow = np.empty((1, 2, 40, 150), np.float32)
    flow[:, 0], flow[:, 1] = 3, -2
    expected = np.zeros_like(image)
    expected[:, :, :38, 3:] = image[:, :, 2:, :-3]
    np.testing.assert_array_equal(ops.softmax_splat(image, flow, mode="average"), expected)


@pytest.mark.parametrize("mode", ["softmax", "linear"])
def test_the_larger_metric_covers_what_it_meets(isa: str, mode: str) -> None:
    image = np.array([[[[0.25, 0.75, 0.5]]]], np.float32)
    flow = np.zeros((1, 2, 1, 3), np.float32)
    flow[0, 0, 0, 0] = 1
    metric = np.array([[[[30, 0, 0]]]] if mode == "softmax" else [[[[1e9, 1, 1]]]], np.float32)
    result = ops.softmax_splat(image, flow, metric, mode=mode)
    np.testing.assert_allclose(result, [[[[0, 0.25, 0.5]]]], atol=1e-6)


def test_metrics_far_apart_neither_overflow_nor_leave_holes(
    rng: np.random.Generator, isa: str
) -> None:
    image = make_image(rng, 1, 3, 20, 80) + 1
    flow = rng.uniform(0, 0.999, (1, 2, 20, 80)).astype(np.float32)
    metric = rng.choice(np.array([-3e38, -1e4, 0, 1e4, 3e38], np.float32), (1, 1, 20, 80))
    reached = ops.softmax_splat(image, flow, mode="average") != 0
    result = ops.softmax_splat(image, flow, metric)
    assert np.isfinite(result).all()
    np.testing.assert_array_equal(result != 0, reached)
    np.testing.assert_allclose(
        result, reference.softmax_splat(image, flow, metric), atol=2 * TOLERANCE
    )


def test_only_differences_of_metrics_count(rng: np.random.Generator, isa: str) -> None:
    image, flow, metric = make(rng, "softmax", (30, 70))
    np.testing.assert_allclose(
        ops.softmax_splat(image, flow, metric + 200),
        ops.softmax_splat(image, flow, metric),
        atol=2e-4,  # the metric itself is rounded to 1.5e-5
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_gives_nothing(
    rng: np.random.Generator, isa: str, mode: str, value: float
) -> None:
    image, flow, metric = make(rng, mode, (33, 70))
    for field in (flow, metric):
        if field is not None:
            field[rng.random(field.shape) < 0.1] = value
    expected = reference.softmax_splat(image, flow, metric, mode)
    np.testing.assert_allclose(
        ops.softmax_splat(image, flow, metric, mode=mode), expected, atol=TOLERANCE
    )
    flow[:] = value
    assert not ops.softmax_splat(image, flow, metric, mode=mode).any()
    if metric is not None:
        metric[:] = value
        assert not ops.softmax_splat(image, 0 * make_flow(rng, 2, 33, 70), metric, mode=mode).any()


def test_weights_that_cancel_are_holes(isa: str) -> None:
    image = np.ones((1, 1, 1, 2), np.float32)
    flow = np.zeros((1, 2, 1, 2), np.float32)
    flow[0, 0, 0, 0] = 1
    metric = np.array([[[[2, -2]]]], np.float32)
    assert not ops.softmax_splat(image, flow, metric, mode="linear").any()


def test_values_that_are_not_finite_stay_where_they_land(isa: str) -> None:
    image = np.ones((1, 2, 4, 70), np.float32)
    image[0, 1, 1, 2] = np.nan
    result = ops.softmax_splat(image, np.full((1, 2, 4, 70), 0.5, np.float32), mode="average")
    found = np.argwhere(np.isnan(result)).tolist()
    assert found == [[0, 1, 1, 2], [0, 1, 1, 3], [0, 1, 2, 2], [0, 1, 2, 3]]


FLOATS = st.one_of(
    st.sampled_from([np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 2.0**31, -(2.0**31), 1e-45, -0.0]),
    st.floats(-200, 200, width=32),
)


@given(data=st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_flow_writes_out_of_bounds(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 70)), data.draw(st.integers(1, 140))
    mode = data.draw(st.sampled_from(MODES))
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    special = np.array(data.draw(st.lists(FLOATS, min_size=1, max_size=20)), np.float32)
    flow = generator.normal(0, data.draw(st.sampled_from([0.5, 5, 80])), (1, 2, height, width))
    flow = flow.astype(np.float32)
    metric = make_metric(generator, mode, 1, height, width)
    for field in (flow, metric):
        if field is not None:
            places = generator.integers(0, field.size, min(field.size, 2 * special.size))
            field.flat[places] = np.resize(
                abs(special) if mode == "linear" else special, len(places)
            )
    image = generator.random((1, 1, height, width), np.float32)
    guard = 1024
    results = []
    for name in _core.cpu_isas():
        memory = np.full(2 * guard + image.size, 7, np.float32)
        out = memory[guard:-guard].reshape(image.shape)
        _core._force_isa(name)
        try:
            ops.softmax_splat(image, flow, metric, mode=mode, out=out)
        finally:
            _core._force_isa(None)
        assert (memory[:guard] == 7).all()
        assert (memory[-guard:] == 7).all()
        results.append(out)
    for result in results:
        np.testing.assert_array_equal(result, results[0])
    if mode in ("softmax", "average"):
        assert ((results[0] >= 0) & (results[0] <= 1 + TOLERANCE)).all()
        expected = reference.softmax_splat(image, flow, metric, mode)
        np.testing.assert_allclose(results[0], expected, atol=TOLERANCE)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_onnxruntime_gives_the_same_bits(
    rng: np.random.Generator, run_node: Callable[..., Any], mode: str, dtype: Any
) -> None:
    image, flow, metric = make(rng, mode, (50, 70))
    image = image.astype(dtype)
    result = run_node("SoftmaxSplat", image, flow, metric, mode=mode, deterministic=1)
    assert result.dtype == dtype
    expected = ops.softmax_splat(image, flow, metric, mode=mode)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    ("metric", "mode", "message"),
    [
        (None, "softmax", "softmax_splat: metric must be given"),
        (None, "max", "softmax_splat: mode must be one of sum, average, linear, softmax, got"),
        ((1, 1, 5, 8), "linear", r"softmax_splat: metric must have shape \(1, 1, 6, 8\)"),
    ],
)
def test_onnxruntime_reports_errors(
    run_node: Callable[..., Any], metric: tuple[int, ...] | None, mode: str, message: str
) -> None:
    field = None if metric is None else np.zeros(metric, np.float32)
    with pytest.raises(Exception, match=message):
        run_node("SoftmaxSplat", IMAGE, FLOW, field, mode=mode)


@pytest.mark.cuda
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 3, 7])
def test_cuda_is_near_the_cpu(
    rng: np.random.Generator, mode: str, dtype: str, deterministic: bool, channels: int
) -> None:
    torch = pytest.importorskip("torch")
    image, flow, metric = make(rng, mode, (53, 150), channels=channels)
    narrow = torch.from_numpy(image).to(getattr(torch, dtype))
    here = (narrow, torch.from_numpy(flow), None if metric is None else torch.from_numpy(metric))
    expected = torch.empty_like(narrow)
    ops.softmax_splat(*here, mode=mode, out=expected)
    there = [None if a is None else a.cuda() for a in here]
    size = ops.softmax_splat_workspace(channels, 53, 150, mode=mode, deterministic=deterministic)
    workspaces = (None, torch.empty(size, dtype=torch.uint8, device="cuda"))
    results = []
    for workspace in workspaces:
        out = torch.full_like(there[0], torch.nan)
        ops.softmax_splat(
            *there, mode=mode, deterministic=deterministic, out=out, workspace=workspace
        )
        results.append(out.cpu())
    tolerance = {"float32": 2e-5, "float16": 2e-3, "bfloat16": 2e-2}[dtype]
    for result in results:
        torch.testing.assert_close(result, expected, atol=tolerance, rtol=tolerance)
    if deterministic:
        torch.testing.assert_close(results[0], results[1], atol=0, rtol=0)


@pytest.mark.cuda
def test_cuda_refuses_a_small_workspace() -> None:
    torch = pytest.importorskip("torch")
    image, flow = (torch.from_numpy(a).cuda() for a in (IMAGE, FLOW))
    workspace = torch.empty(100, dtype=torch.uint8, device="cuda")
    with pytest.raises(InputError, match=r"at least 784 bytes, aligned to 16, got 100"):
        ops.softmax_splat(
            image, flow, mode="average", out=torch.empty_like(image), workspace=workspace
        )


IMAGE = np.zeros((1, 3, 6, 8), np.float32)
FLOW = np.zeros((1, 2, 6, 8), np.float32)
METRIC = np.zeros((1, 1, 6, 8), np.float32)


def read_only(array: Any) -> Any:
    array = array.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"image": IMAGE.astype(np.float64)}, InputTypeError, "image must be .*, got float64"),
        ({"image": IMAGE.astype(np.uint8)}, InputTypeError, "image must be .*, got uint8"),
        ({"image": IMAGE.tolist()}, InputTypeError, "image must be .*, got list"),
        ({"flow": FLOW.astype(np.float16)}, InputTypeError, "flow must be float32, got float16"),
        ({"flow": None}, InputTypeError, "flow must be .*, got NoneType"),
        ({"metric": METRIC.astype(np.float16)}, InputTypeError, "metric must be float32, got"),
        ({"image": IMAGE[0]}, InputError, r"image must be \(N, C, H, W\), got shape \(3, 6, 8\)"),
        ({"flow": FLOW[0]}, InputError, r"flow must have shape \(1, 2, 6, 8\), got \(2, 6, 8\)"),
        ({"flow": FLOW[:, :, :3].copy()}, InputError, r"flow must have .*got \(1, 2, 3, 8\)"),
        ({"flow": FLOW.repeat(2, 0)}, InputError, "flow must have shape"),
        (
            {"metric": FLOW},
            InputError,
            r"metric must have shape \(1, 1, 6, 8\), got \(1, 2, 6, 8\)",
        ),
        ({"metric": None}, InputError, "metric must be given for modes linear and softmax"),
        ({"metric": None, "mode": "linear"}, InputError, "metric must be given for modes linear"),
        ({"mode": "average"}, InputError, "metric must be absent for modes sum and average"),
        ({"mode": "sum"}, InputError, "metric must be absent for modes sum and average"),
        ({"mode": "max"}, InputError, "mode must be one of softmax, .*, got 'max'"),
        ({"mode": 0}, InputTypeError, "mode must be a str, got int"),
        ({"image": IMAGE[..., ::-1]}, InputError, "image must be C-contiguous"),
        ({"flow": FLOW[:, ::-1]}, InputError, "flow must be C-contiguous"),
        ({"out": IMAGE[:, :2].copy()}, InputError, r"out must have shape \(1, 3, 6, 8\), got"),
        ({"out": IMAGE.astype(np.float16)}, InputTypeError, "out must be float32, got float16"),
        ({"out": read_only(IMAGE)}, InputError, "out must be writable"),
        (
            {"workspace": np.zeros(9999, np.uint8)},
            InputError,
            "workspace must be absent on the CPU",
        ),
        ({"workspace": np.zeros(9, np.float32)}, InputTypeError, "workspace must be uint8, got"),
        ({"threads": 257}, InputError, "threads must be from 1 to 256, got 257"),
    ],
)
def test_bad_arguments_are_named(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    out = np.full_like(IMAGE, 7)
    with pytest.raises(error, match=f"^softmax_splat: {message}"):
        ops.softmax_splat(
            **{"image": IMAGE, "flow": FLOW, "metric": METRIC, "out": out, **arguments}
        )
    assert (out == 7).all()


@pytest.mark.parametrize("name", ["image", "flow", "metric"])
def test_out_must_not_overlap_an_input(name: str) -> None:
    memory = np.zeros(2 * IMAGE.size, np.float32)
    out = memory[: IMAGE.size].reshape(IMAGE.shape)
    arguments = {"image": IMAGE, "flow": FLOW, "metric": METRIC}
    given, first = arguments[name], IMAGE.size - 1
    arguments[name] = memory[first : first + given.size].reshape(given.shape)
    with pytest.raises(InputError, match=f"out must not share memory with {name}"):
        ops.softmax_splat(**arguments, out=out)


@pytest.mark.parametrize("shape", [(0, 3, 5, 7), (1, 0, 5, 7), (1, 3, 0, 7), (1, 3, 5, 0)])
def test_nothing_gives_nothing(shape: tuple[int, int, int, int]) -> None:
    flow = np.zeros((shape[0], 2, *shape[2:]), np.float32)
    image = np.zeros(shape, np.float32)
    assert ops.softmax_splat(image, flow, mode="average").shape == shape


def test_the_workspace_is_what_the_contract_says() -> None:
    assert ops.softmax_splat_workspace(3, 6, 8) == 16 + 16 * 48
    assert ops.softmax_splat_workspace(4, 6, 8) == 16 + 16 * 48 * 2
    assert ops.softmax_splat_workspace(4, 6, 8, mode="sum") == 16 + 16 * 48
    assert ops.softmax_splat_workspace(3, 6, 8, deterministic=True) == 16 + 48 * (4 + 8 * 4)
    assert ops.softmax_splat_workspace(64, 2160, 3840, deterministic=True) > 2**32


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((3.0, 6, 8), InputTypeError, "channels must be an int, got float"),
        ((3, -1, 8), InputError, "height must be from 0 to 16777216, got -1"),
        ((3, 6, True), InputTypeError, "width must be an int, got bool"),
    ],
)
def test_bad_sizes_of_a_workspace_are_named(
    arguments: tuple[Any, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^softmax_splat_workspace: {message}"):
        ops.softmax_splat_workspace(*arguments)
