"""`downscale`: means of blocks, the same bits on every instruction set and thread count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import reference

from fastvid import _core, ops
from fastvid.errors import InputError, InputTypeError

SHAPES = [(1, 1, 1, 1), (1, 3, 2, 5), (2, 4, 3, 17), (1, 2, 33, 32), (3, 1, 5, 67), (1, 3, 2, 300)]


def make(rng: np.random.Generator, shape: tuple[int, ...], factor: int) -> Any:
    n, c, height, width = shape
    return rng.normal(size=(n, c, height * factor, width * factor)).astype(np.float32)


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("shape", SHAPES)
def test_blocks_are_averaged(rng: np.random.Generator, isa: str, shape: Any, factor: int) -> None:
    x = make(rng, shape, factor)
    out = ops.downscale(x, factor=factor)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, reference.downscale(x, factor), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_instruction_sets_and_threads_agree(rng: np.random.Generator, factor: int) -> None:
    x = make(rng, (2, 3, 70, 131), factor)
    expected = ops.downscale(x, factor, threads=1)
    for name in _core.cpu_isas():
        try:
            _core._force_isa(name)
            for threads in (1, 2, 5):
                np.testing.assert_array_equal(ops.downscale(x, factor, threads=threads), expected)
        finally:
            _core._force_isa(None)


def test_a_constant_stays(isa: str) -> None:
    x = np.full((1, 2, 16, 24), 0.3, np.float32)
    np.testing.assert_allclose(ops.downscale(x, 8), 0.3, rtol=1e-6)


def test_only_the_block_of_a_nan_is_lost(isa: str) -> None:
    x = np.ones((1, 1, 8, 8), np.float32)
    x[0, 0, 3, 5] = np.nan
    x[0, 0, 6, 0] = np.inf
    expected = np.ones((1, 1, 4, 4), np.float32)
    expected[0, 0, 1, 2] = np.nan
    expected[0, 0, 3, 0] = np.inf
    np.testing.assert_array_equal(ops.downscale(x, 2), expected)


def test_out_is_filled_and_returned(rng: np.random.Generator) -> None:
    x = make(rng, (1, 3, 4, 5), 2)
    out = np.full((1, 3, 4, 5), 9, np.float32)
    assert ops.downscale(x, 2, out=out) is out
    np.testing.assert_array_equal(out, ops.downscale(x, 2))


def test_nothing_gives_nothing() -> None:
    assert ops.downscale(np.zeros((0, 3, 4, 8), np.float32), 4).shape == (0, 3, 1, 2)
    assert ops.downscale(np.zeros((1, 3, 0, 8), np.float32), 2).shape == (1, 3, 0, 4)
    assert ops.downscale(np.zeros((1, 3, 8, 0), np.float32), 2).shape == (1, 3, 4, 0)


def test_onnxruntime_computes_the_same(
    rng: np.random.Generator, run_node: Callable[..., Any]
) -> None:
    x = make(rng, (1, 3, 9, 11), 4)
    np.testing.assert_array_equal(run_node("Downscale", x, factor=4), ops.downscale(x, 4))


X = np.zeros((1, 3, 8, 16), np.float32)


@pytest.mark.parametrize(
    ("x", "factor", "options", "error", "message"),
    [
        (None, 2, {}, InputTypeError, "x must be a NumPy .*, got NoneType"),
        (X.astype(np.uint8), 2, {}, InputTypeError, "x must be float32, got uint8"),
        (X[0], 2, {}, InputError, r"x must be \(N, C, H, W\), got shape"),
        (X[..., ::2], 2, {}, InputError, "x must be C-contiguous"),
        (X[:, :, :7].copy(), 2, {}, InputError, "height and a width that are multiples of 2"),
        (X[..., :12].copy(), 8, {}, InputError, "multiples of 8"),
        (X, 3, {}, InputError, "factor must be 2, 4 or 8, got 3"),
        (X, 16, {}, InputError, "factor must be"),
        (X, 2.0, {}, InputTypeError, "factor must be"),
        (X, 2, {"out": X}, InputError, "out must have shape"),
        (X, 2, {"threads": 0}, InputError, "threads must be from 1 to 256, got 0"),
    ],
)
def test_wrong_arguments_are_named(
    x: Any, factor: Any, options: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        ops.downscale(x, factor, **options)
    assert str(caught.value).startswith("downscale: ")
