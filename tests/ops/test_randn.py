"""`randn`: Philox noise, the same bits on every instruction set and thread count, any slice."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from fastvid import ops
from fastvid.errors import InputError, InputTypeError

SIZES = [1, 2, 3, 4, 5, 15, 16, 17, 255, 256, 257, 511, 1000, 70_001]


# Known answers of Random123.
@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        (
            "00000000 00000000 00000000 00000000",
            "00000000 00000000",
            "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
        ),
        (
            "ffffffff ffffffff ffffffff ffffffff",
            "ffffffff ffffffff",
            "408f276d 41c83b0e a20bc7c6 6d5451fd",
        ),
        (
            "243f6a88 85a308d3 13198a2e 03707344",
            "a4093822 299f31d0",
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_the_reference_is_philox(counter: str, key: str, words: str) -> None:
    counters = np.array([[int(word, 16) for word in counter.split()]], np.uint64)
    low, high = (int(word, 16) for word in key.split())
    found = reference.philox(counters, (high << 32) | low)[0]
    assert " ".join(f"{word:08x}" for word in found) == words


@pytest.mark.parametrize("count", SIZES)
def test_noise_is_box_and_muller_of_philox(isa: str, count: int) -> None:
    noise = ops.randn((count,), seed=0x123456789ABCDEF, subsequence=7)
    assert noise.dtype == np.float32
    expected = reference.randn(count, 0x123456789ABCDEF, 7)
    np.testing.assert_allclose(noise, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("offset", [1, 2, 3, 4, 255, 2**32 - 1, 2**34 - 3, 2**61 + 5])
def test_blocks_are_counted_in_64_bits(isa: str, offset: int) -> None:
    noise = ops.randn(40, seed=2**64 - 1, subsequence=2**32 - 1, offset=offset)
    expected = reference.randn(40, 2**64 - 1, 2**32 - 1, offset)
    np.testing.assert_allclose(noise, expected, rtol=0, atol=2e-6)


def test_instruction_sets_and_threads_agree(
    each_isa: Callable[[Callable[[], object]], dict[str, object]],
) -> None:
    shape = (3, 5, 70, 131)
    expected = ops.randn(shape, seed=5, threads=1)
    for threads in (1, 2, 5):
        for noise in each_isa(lambda n=threads: ops.randn(shape, seed=5, threads=n)).values():
            np.testing.assert_array_equal(noise, expected)


def test_noise_never_changes_between_releases() -> None:
    noise = ops.randn(100_000, seed=2024, subsequence=3, offset=17)
    assert hashlib.sha256(noise.tobytes()).hexdigest() == DIGEST


DIGEST = "f974d436fcf10120228c3d5a90add67a86eb2eea83f463cb5ab0e54ee3218926"


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 3000), st.integers(0, 3000), st.integers(0, 2**64 - 1))
def test_any_slice_can_be_made_alone(start: int, count: int, seed: int) -> None:
    whole = ops.randn(6000, seed=seed)
    part = ops.randn(count, seed=seed, offset=start)
    np.testing.assert_array_equal(part, whole[start : start + count])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("count", [0, 1, 15, 16, 255, 256, 257, 70_003])
def test_a_16_bit_noise_is_the_rounded_one(isa: str, dtype: str, count: int) -> None:
    whole = ops.randn(count, seed=3, offset=5)
    found = ops.randn(count, seed=3, offset=5, dtype=dtype)
    assert found.dtype.name == dtype
    np.testing.assert_array_equal(found, whole.astype(found.dtype))


def test_the_order_is_that_of_c() -> None:
    np.testing.assert_array_equal(ops.randn((4, 3, 10), seed=1).ravel(), ops.randn(120, seed=1))


def test_values_are_standard_normal() -> None:
    noise = np.sort(ops.randn(1_000_000, seed=11).astype(np.float64))
    n = len(noise)
    assert abs(noise.mean()) < 4 / math.sqrt(n)
    assert abs(noise.var() - 1) < 4 * math.sqrt(2 / n)
    assert abs((noise**3).mean()) < 4 * math.sqrt(15 / n)
    assert abs((noise**4).mean() - 3) < 4 * math.sqrt(96 / n)
    # Kolmogorov and Smirnov at one in ten thousand.
    points = np.linspace(-4, 4, 801)
    below = np.searchsorted(noise, points) / n
    exact = np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in points])
    assert np.abs(below - exact).max() < 2.23 / math.sqrt(n)
    assert noise[0] < -4.5
    assert noise[-1] > 4.5


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 64, 256])
def test_neighbours_are_uncorrelated(lag: int) -> None:
    noise = ops.randn(500_000, seed=3).astype(np.float64)
    assert abs((noise[lag:] * noise[:-lag]).mean()) < 4.5 / math.sqrt(len(noise))


@pytest.mark.parametrize("other", [{"seed": 9}, {"seed": 8 + 2**32}, {"subsequence": 1}])
def test_seeds_and_subsequences_are_uncorrelated(other: dict[str, int]) -> None:
    a = ops.randn(500_000, seed=8).astype(np.float64)
    b = ops.randn(500_000, **{"seed": 8, **other}).astype(np.float64)
    assert abs((a * b).mean()) < 4.5 / math.sqrt(len(a))


def test_out_is_filled_and_returned() -> None:
    out = np.full((3, 7), 99, np.float32)
    assert ops.randn((3, 7), seed=4, out=out) is out
    np.testing.assert_array_equal(out, ops.randn((3, 7), seed=4))


def test_nothing_gives_nothing() -> None:
    assert ops.randn((0, 3), seed=0).shape == (0, 3)
    assert ops.randn((), seed=0).shape == ()


@pytest.mark.parametrize(
    ("shape", "options", "error", "message"),
    [
        ("4", {}, InputTypeError, "shape must be a tuple of ints, got str"),
        ((2, 3.0), {}, InputTypeError, r"shape\[1\] must be an int, got float"),
        ((2, -3), {}, InputError, r"shape\[1\] must be from 0"),
        ((1,) * 7, {}, InputError, "shape must have at most 6 axes, got 7"),
        ((2**31, 2**32), {}, InputError, r"at most 2\*\*62 elements"),
        (3, {"seed": -1}, InputError, "seed must be from 0 to 18446744073709551615, got -1"),
        (3, {"seed": 2**64}, InputError, "seed must be"),
        (3, {"seed": 1.5}, InputTypeError, "seed must be an int, got float"),
        (3, {"subsequence": 2**32}, InputError, "subsequence must be from 0 to 4294967295"),
        (3, {"offset": -4}, InputError, "offset must be"),
        (3, {"threads": 0}, InputError, "threads must be from 1 to 256, got 0"),
        (3, {"out": np.zeros(4, np.float32)}, InputError, r"out must have shape \(3,\)"),
        (3, {"out": np.zeros(3)}, InputTypeError, "out must be float32"),
        (3, {"out": np.zeros(6, np.float32)[::2]}, InputError, "out must be C-contiguous"),
        (
            3,
            {"out": [0, 0, 0]},
            InputTypeError,
            "out must be a NumPy .*, got list",
        ),
    ],
)
def test_wrong_arguments_are_named(
    shape: Any, options: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        ops.randn(shape, **{"seed": 0, **options})
    assert str(caught.value).startswith("randn: ")


def test_a_read_only_out_is_refused() -> None:
    out = np.zeros(3, np.float32)
    out.flags.writeable = False
    with pytest.raises(InputError, match="out must be writable"):
        ops.randn(3, seed=0, out=out)
