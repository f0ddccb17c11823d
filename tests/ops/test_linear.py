"""`linear`: near float64 NumPy, equal bits where the contract has them, weights where they lie."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import reference

from fastvid import _core, ops
from fastvid.errors import InputError, InputTypeError

DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
# Rows, depth, columns: below and around 6 rows, 64 columns in vectors of 16, pieces of 128 values
# or pairs, and blocks of 768 rows.
SIZES = [
    (1, 1, 1),
    (5, 2, 3),
    (6, 16, 64),
    (7, 33, 65),
    (13, 129, 80),
    (12, 255, 128),
    (1, 513, 200),
    (50, 256, 47),
    (775, 37, 130),
]


@pytest.fixture(params=["baseline", "avx2", "avx512", "avx512_bf16"])
def any_isa(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param not in _core.cpu_isas():
        pytest.skip(f"this machine does not run {request.param}")
    _core._force_isa(request.param)
    yield request.param
    _core._force_isa(None)


def make(rng: np.random.Generator, dtype: str, rows: int, depth: int, columns: int) -> list[Any]:
    return [
        rng.normal(size=(rows, depth)).astype(np.float32),
        rng.normal(size=(columns, depth)).astype(DTYPES[dtype]),
        rng.normal(size=columns).astype(np.float32),
    ]


def rounded(x: Any) -> Any:
    return x.astype(ml_dtypes.bfloat16).astype(np.float32)


def scale_of(x: Any, weight: Any, bias: Any) -> Any:
    """The sum of what is added, without signs."""
    return reference.linear(np.abs(x), np.abs(weight.astype(np.float64)), np.abs(bias))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_agrees_with_float64(
    rng: np.random.Generator, any_isa: str, size: tuple[int, int, int], dtype: str
) -> None:
    x, weight, bias = make(rng, dtype, *size)
    result = ops.linear(x, weight, bias)
    assert result.dtype == np.float32
    error = np.abs(result - reference.linear(x, weight, bias))
    assert (error <= size[1] * 2.0**-23 * scale_of(x, weight, bias)).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_products_of_bfloat16_are_those_of_rounded_values(
    rng: np.random.Generator, any_isa: str, size: tuple[int, int, int], dtype: str
) -> None:
    x, weight, bias = make(rng, dtype, *size)
    result = ops.linear(x, weight, bias, precision="bfloat16")
    x, weight = rounded(x), rounded(weight)
    error = np.abs(result - reference.linear(x, weight, bias))
    assert (error <= size[1] * 2.0**-23 * scale_of(x, weight, bias) + 1e-30).all()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(7, 33, 65), (13, 129, 80), (50, 256, 47)])
def test_every_instruction_set_gives_equal_bits(
    rng: np.random.Generator,
    each_isa: Callable[..., dict[str, Any]],
    size: tuple[int, int, int],
    dtype: str,
    precision: str,
) -> None:
    x, weight, bias = make(rng, dtype, *size)
    x[0, 0], weight[1, 1], x[2, 3] = np.nan, np.inf, 1e-40
    results = each_isa(lambda: ops.linear(x, weight, bias, precision=precision))
    for name, result in results.items():
        np.testing.assert_array_equal(result, results["baseline"], err_msg=name)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_do_not_change_the_result(
    rng: np.random.Generator, precision: str, threads: int
) -> None:
    x, weight, bias = make(rng, "bfloat16", 900, 70, 200)
    once = ops.linear(x, weight, bias, precision=precision)
    again = ops.linear(x, weight, bias, precision=precision, threads=threads)
    np.testing.assert_array_equal(again, once)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_row_is_computed_alone(rng: np.random.Generator, precision: str) -> None:
    x, weight, bias = make(rng, "bfloat16", 20, 300, 70)
    whole = ops.linear(x, weight, bias, precision=precision)
    rows = [ops.linear(x[i : i + 1], weight, bias, precision=precision) for i in range(len(x))]
    np.testing.assert_array_equal(np.concatenate(rows), whole)


def test_leading_sizes_are_kept(rng: np.random.Generator) -> None:
    x, weight, _ = make(rng, "float32", 24, 9, 5)
    flat = ops.linear(x, weight)
    for shape in ((2, 12), (2, 3, 4), (1, 2, 3, 4), (2, 2, 2, 3, 1)):
        result = ops.linear(x.reshape(*shape, 9), weight)
        np.testing.assert_array_equal(result, flat.reshape(*shape, 5))
    assert ops.linear(x[:0], weight).shape == (0, 5)


@pytest.mark.parametrize("isa", ["avx512_bf16"])
def test_neighbours_in_other_rows_do_not_leak(rng: np.random.Generator, isa: str) -> None:
    """An odd depth ends within a pair, whose other half is the next row's first value."""
    x, weight, bias = make(rng, "bfloat16", 9, 33, 17)
    x[1:], weight[1:] = np.nan, np.nan
    for precision in ("float32", "bfloat16"):
        assert np.isfinite(ops.linear(x, weight, bias, precision=precision)[0, 0])


def test_weights_in_a_file_are_read_where_they_lie(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    x, weight, bias = make(rng, "bfloat16", 4, 64, 32)
    path = tmp_path / "weights"
    path.write_bytes(b"\0" * 6 + weight.tobytes())
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        there = np.frombuffer(mapped, ml_dtypes.bfloat16, offset=6).reshape(weight.shape)
        np.testing.assert_array_equal(ops.linear(x, there, bias), ops.linear(x, weight, bias))


@pytest.mark.parametrize("narrow", [0, 1])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_node_equals_the_call(
    rng: np.random.Generator, run_node: Callable[..., Any], dtype: str, narrow: int
) -> None:
    x, weight, bias = make(rng, dtype, 6, 40, 30)
    x = x.reshape(2, 3, 40)
    precision = "bfloat16" if narrow else "float32"
    result = run_node("Linear", x, weight, bias, bfloat16=narrow)
    np.testing.assert_array_equal(result, ops.linear(x, weight, bias, precision=precision))
    np.testing.assert_array_equal(run_node("Linear", x, weight), ops.linear(x, weight))


X, WEIGHT = np.zeros((2, 3), np.float32), np.zeros((4, 3), np.float32)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((X.astype(np.float16), WEIGHT), InputTypeError, "x must be float32"),
        ((X[0], WEIGHT), InputError, r"x must have 2 to 6 sizes, got shape \(3,\)"),
        ((X, WEIGHT.astype(np.uint8)), InputTypeError, "weight must be float32, float16 or bf"),
        ((X, WEIGHT[0]), InputError, r"weight must be \(N, K\), got shape"),
        ((X, WEIGHT[:0]), InputError, "weight must"),
        ((X, WEIGHT[:, :2].copy()), InputError, r"weight must have shape \(N, 3\) for x"),
        ((X, WEIGHT, np.zeros(3, np.float32)), InputError, r"bias must have shape \(4,\)"),
        ((X, WEIGHT, np.zeros(4, np.float16)), InputTypeError, "bias must be float32"),
    ],
)
def test_wrong_arrays_are_named(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^linear: {message}"):
        ops.linear(*arguments)


def test_wrong_options_are_named() -> None:
    with pytest.raises(InputError, match=r"^linear: precision must be one of float32, bfloat16"):
        ops.linear(X, WEIGHT, precision="float16")
    with pytest.raises(InputTypeError, match=r"^linear: precision must be a str"):
        ops.linear(X, WEIGHT, precision=1)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"^linear: out must not share memory"):
        ops.linear(X, np.zeros((3, 3), np.float32), out=X)
