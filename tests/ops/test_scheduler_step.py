"""`scheduler_step`: a matrix times arrays, with guidance and noise, equal bits everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from fastvid import ops
from fastvid.errors import InputError, InputTypeError

SHAPES = [(1,), (3, 5), (31,), (33,), (2, 4, 4, 8), (1, 2, 3, 5, 9), (1, 3, 1, 257)]


def make(rng: np.random.Generator, shape: tuple[int, ...], count: int) -> list[Any]:
    return [rng.normal(size=shape).astype(np.float32) for _ in range(count)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6])
def test_outputs_are_the_matrix_times_the_inputs(
    rng: np.random.Generator, isa: str, shape: Any, rows: int, count: int
) -> None:
    matrix, inputs = rng.normal(size=(rows, count)), make(rng, shape, count)
    found = ops.scheduler_step(matrix, inputs)
    assert len(found) == rows
    expected = reference.scheduler_step(matrix, inputs)
    np.testing.assert_allclose(np.stack(found), expected, rtol=1e-5, atol=3e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_guidance_replaces_the_first_input(rng: np.random.Generator, isa: str, shape: Any) -> None:
    matrix, (uncond, *inputs) = rng.normal(size=(2, 3)), make(rng, shape, 4)
    found = ops.scheduler_step(matrix, inputs, uncond=uncond, guidance_scale=7.5)
    expected = reference.scheduler_step(matrix, inputs, uncond, 7.5)
    np.testing.assert_allclose(np.stack(found), expected, rtol=1e-5, atol=3e-5)


@pytest.mark.parametrize("offset", [0, 4, 13])
@pytest.mark.parametrize("shape", SHAPES)
def test_noise_is_that_of_randn(
    rng: np.random.Generator, isa: str, shape: Any, offset: int
) -> None:
    inputs = make(rng, shape, 2)
    noise = ops.randn(shape, seed=6, subsequence=2, offset=offset)
    fused = ops.scheduler_step(
        [[0.5, -1], [2, 1]], inputs, noise_scale=[0.25, -3], seed=6, subsequence=2, offset=offset
    )
    apart = ops.scheduler_step([[0.5, -1, 0.25], [2, 1, -3]], [*inputs, noise])
    np.testing.assert_array_equal(fused, apart)


DTYPES = [np.float32, np.float16, ml_dtypes.bfloat16]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("out_dtype", ["float32", "float16", "bfloat16"])
def test_arrays_of_16_bits_are_read_and_written_rounded_once(
    rng: np.random.Generator, isa: str, shape: Any, dtype: Any, out_dtype: str
) -> None:
    matrix, (uncond, latents, model) = rng.normal(size=(2, 2)), make(rng, shape, 3)
    uncond, model = uncond.astype(dtype), model.astype(dtype)
    options = {"guidance_scale": 3.0, "noise_scale": [0.5, 0], "seed": 4}
    found = ops.scheduler_step(
        matrix, [model, latents], uncond=uncond, out_dtype=out_dtype, **options
    )
    wide = ops.scheduler_step(
        matrix, [model.astype(np.float32), latents], uncond=uncond.astype(np.float32), **options
    )
    for narrow, exact in zip(found, wide, strict=True):
        assert narrow.dtype.name == out_dtype
        np.testing.assert_array_equal(narrow, exact.astype(narrow.dtype))


@pytest.mark.parametrize("dtype", DTYPES[1:])
def test_every_value_of_16_bits_and_its_neighbours_are_rounded_half_to_even(
    isa: str, dtype: Any
) -> None:
    exact = np.arange(2**16, dtype=np.uint16).view(dtype)
    (wide,) = ops.scheduler_step([[1]], [exact])
    # On aarch64 NumPy warns of signalling NaNs.
    with np.errstate(over="ignore", invalid="ignore"):
        np.testing.assert_array_equal(wide, exact.astype(np.float32))
        half_way = (wide + np.roll(wide, -1)) / 2
        values = np.concatenate([wide, half_way, np.nextafter(half_way, np.float32(np.inf))])
        out = np.empty(values.shape, dtype)
        ops.scheduler_step([[1]], [values], out=(out,))
        expected = values.astype(dtype).astype(np.float32)
        np.testing.assert_array_equal(out.astype(np.float32), expected)


@pytest.mark.parametrize("shape", [(2, 70_003), (1, 16, 21, 60, 104)])
def test_instruction_sets_and_threads_agree(
    rng: np.random.Generator,
    each_isa: Callable[[Callable[[], object]], dict[str, object]],
    shape: Any,
) -> None:
    matrix, (uncond, *inputs) = rng.normal(size=(3, 4)), make(rng, shape, 5)

    def run(threads: int) -> Any:
        return ops.scheduler_step(
            matrix,
            inputs,
            uncond=uncond,
            guidance_scale=5,
            noise_scale=[1, 0, 0.5],
            seed=1,
            threads=threads,
        )

    expected = run(1)
    for threads in (1, 2, 5):
        for found in each_isa(lambda n=threads: run(n)).values():
            np.testing.assert_array_equal(found, expected)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(0, 5), st.integers(1, 700), st.booleans())
def test_an_output_may_be_an_input(count: int, which: int, size: int, guided: bool) -> None:
    rng = np.random.default_rng(size)
    matrix, inputs = rng.normal(size=(1, count)), make(rng, (size,), count)
    options = {"uncond": make(rng, (size,), 1)[0], "guidance_scale": 2.0} if guided else {}
    expected = ops.scheduler_step(matrix, inputs, **options)[0]
    target = inputs[which % count]
    found = ops.scheduler_step(matrix, inputs, out=(target,), **options)[0]
    assert found is target
    np.testing.assert_array_equal(found, expected)


def test_outputs_may_take_the_place_of_inputs_that_others_read(rng: np.random.Generator) -> None:
    matrix, inputs = rng.normal(size=(3, 3)), make(rng, (1, 16, 200_000), 3)
    expected = ops.scheduler_step(matrix, inputs)
    found = ops.scheduler_step(matrix, inputs, out=(inputs[2], inputs[0], inputs[1]))
    np.testing.assert_array_equal(found, expected)


def test_large_results_in_unaligned_memory_are_the_same(rng: np.random.Generator) -> None:
    inputs = make(rng, (3_000_001,), 2)
    expected = ops.scheduler_step([[1, 2]], inputs)[0]
    out = np.empty(3_000_002, np.float32)[1:]
    np.testing.assert_array_equal(ops.scheduler_step([[1, 2]], inputs, out=(out,))[0], expected)


def test_a_nan_spreads_through_a_coefficient_of_zero(isa: str) -> None:
    inputs = [np.ones(40, np.float32), np.ones(40, np.float32)]
    inputs[1][17] = np.nan
    inputs[1][39] = np.inf
    out = ops.scheduler_step([[1, 0]], inputs)[0]
    assert list(np.flatnonzero(np.isnan(out))) == [17, 39]


def test_nothing_gives_nothing() -> None:
    (out,) = ops.scheduler_step([[1]], [np.zeros((0, 3), np.float32)], noise_scale=[1])
    assert out.shape == (0, 3)


X = np.zeros((2, 8), np.float32)
Y = np.zeros((2, 8), np.float32)
LONG = np.zeros(24, np.float32)


@pytest.mark.parametrize(
    ("matrix", "inputs", "options", "error", "message"),
    [
        ([[1, 1]], X, {}, InputTypeError, "inputs must be a list of arrays, got ndarray"),
        ([[1]], [], {}, InputError, "inputs must be 1 to 6 arrays, got 0"),
        ([[1] * 7], [X] * 7, {}, InputError, "inputs must be 1 to 6 arrays, got 7"),
        ([[1, 1]], [X], {}, InputError, r"matrix must be \(outputs, 1\), got shape \(1, 2\)"),
        ([1], [X], {}, InputError, r"matrix must be \(outputs, 1\)"),
        ([[1]] * 4, [X], {}, InputError, "matrix must have 1 to 3 rows, got 4"),
        ([["a"]], [X], {}, InputTypeError, "matrix must be numbers"),
        ([[np.nan]], [X], {}, InputError, "matrix must be finite"),
        ([[1e39]], [X], {}, InputError, "matrix must be finite in float32"),
        (
            [[1]],
            [None],
            {},
            InputTypeError,
            r"inputs\[0\] must be a NumPy .*, got NoneType",
        ),
        ([[1]], [X.astype(np.float64)], {}, InputTypeError, r"inputs\[0\] must be float32"),
        ([[1, 1]], [X, X[:1]], {}, InputError, r"inputs\[1\] must have shape \(2, 8\), got"),
        ([[1]], [X[:, ::2]], {}, InputError, r"inputs\[0\] must be C-contiguous"),
        ([[1]], [X], {"uncond": X[0]}, InputError, "uncond must have shape"),
        ([[1]], [X], {"guidance_scale": "7"}, InputTypeError, "guidance_scale must be a number"),
        ([[1]], [X], {"guidance_scale": np.inf}, InputError, "guidance_scale must be finite"),
        ([[1]], [X], {"noise_scale": [1, 2]}, InputError, "noise_scale must be 1 numbers"),
        ([[1]], [X], {"noise_scale": [1], "seed": -1}, InputError, "seed must be from 0"),
        ([[1]], [X], {"out": X}, InputTypeError, "out must be a tuple of 1 arrays"),
        ([[1]], [X], {"out": (X, Y)}, InputError, "out must be a tuple of 1 arrays, got 2"),
        ([[1]], [X], {"out": (X[:1],)}, InputError, r"out\[0\] must have shape"),
        ([[1], [1]], [X], {"out": (Y, Y)}, InputError, r"out\[1\] must not share memory"),
        ([[1]], [LONG[:16]], {"out": (LONG[8:],)}, InputError, r"out\[0\] must not share memory"),
        (
            [[1]],
            [X],
            {"uncond": LONG[:16].reshape(2, 8), "out": (LONG[8:].reshape(2, 8),)},
            InputError,
            "must not share memory with uncond",
        ),
        ([[1]], [X], {"out_dtype": "float64"}, InputError, "out_dtype must be one of float32"),
        ([[1]], [X.view(np.uint16)], {}, InputTypeError, "must be float32, float16 or bfloat16"),
        ([[1]], [LONG[:16]], {"out": (LONG[:8].view(np.float16),)}, InputError, "not share memory"),
        ([[1]], [X], {"threads": 257}, InputError, "threads must be from 1 to 256, got 257"),
    ],
)
def test_wrong_arguments_are_named(
    matrix: Any, inputs: Any, options: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        ops.scheduler_step(matrix, inputs, **options)
    assert str(caught.value).startswith("scheduler_step: ")


def test_onnxruntime_gives_the_same_bits(
    rng: np.random.Generator, run_node: Callable[..., Any]
) -> None:
    x = [rng.standard_normal((2, 4, 3, 5, 7), np.float32) for _ in range(4)]
    coefficients = np.array([0.25, -1.5, 3.0], np.float32)
    (expected,) = ops.scheduler_step([coefficients], x[:3], uncond=x[3], guidance_scale=5.0)
    found = run_node("SchedulerStep", x[0], coefficients, x[3], x[1], x[2], guidance=5.0)
    np.testing.assert_array_equal(found, expected)
    (expected,) = ops.scheduler_step([[2.0]], [x[0].astype(np.float16)], out_dtype="float16")
    found = run_node("SchedulerStep", x[0].astype(np.float16), np.float32([2.0]))
    np.testing.assert_array_equal(found, expected)


def test_onnxruntime_needs_a_coefficient_per_input(run_node: Callable[..., Any]) -> None:
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(Exception, match=r"coefficients must have shape \(2,\), got \(3,\)"):
        run_node("SchedulerStep", x, np.zeros(3, np.float32), None, x)
    with pytest.raises(Exception, match="the inputs before x2 must be given"):
        run_node("SchedulerStep", x, np.zeros(2, np.float32), None, None, x)
