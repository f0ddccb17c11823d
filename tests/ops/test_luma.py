"""`rgb_to_luma` and `luma_to_rgb`: against float64 NumPy, exact in the round trip."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import reference

from fastvid import ops
from fastvid.errors import InputError, InputTypeError

SIZES = [(1, 1), (1, 2), (3, 5), (5, 17), (2, 63), (3, 131), (2, 513)]
SCALES = [1, 2, 3, 4]


def make_luma(
    rng: np.random.Generator, n: int, size: tuple[int, int], scale: int
) -> tuple[Any, Any]:
    luma = rng.uniform(-0.1, 1.1, (n, 1, scale * size[0], scale * size[1])).astype(np.float32)
    chroma = rng.uniform(-0.5, 0.5, (n, 2, *size)).astype(np.float32)
    return luma, chroma


@pytest.mark.parametrize("size", SIZES)
def test_luma_and_chroma_are_the_exact_ones(
    rng: np.random.Generator, isa: str, size: tuple[int, int]
) -> None:
    frames = rng.integers(0, 256, (2, *size, 3), np.uint8)
    found = ops.rgb_to_luma(frames)
    for array, exact in zip(found, reference.rgb_to_luma(frames), strict=True):
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, exact, rtol=0, atol=2e-7)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("size", SIZES)
def test_frames_are_the_exact_ones_rounded_once(
    rng: np.random.Generator, isa: str, size: tuple[int, int], scale: int
) -> None:
    luma, chroma = make_luma(rng, 2, size, scale)
    found = ops.luma_to_rgb(luma, chroma)
    assert found.dtype == np.uint8
    exact = reference.luma_to_rgb(luma, chroma)
    assert found.shape == exact.shape
    assert np.abs(found - exact).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("size", SIZES)
def test_wide_frames_are_split_and_joined(
    rng: np.random.Generator, isa: str, size: tuple[int, int]
) -> None:
    frames = rng.integers(0, 65536, (2, *size, 3), np.uint16)
    found = ops.rgb_to_luma(frames)
    for array, exact in zip(found, reference.rgb_to_luma(frames / 257), strict=True):
        np.testing.assert_allclose(array, exact, rtol=0, atol=2e-7)
    again = ops.luma_to_rgb(*found, dtype="uint16")
    assert again.dtype == np.uint16
    assert np.abs(again.astype(int) - frames).max() <= 1


@pytest.mark.parametrize("scale", SCALES)
def test_wide_frames_are_the_exact_ones_rounded_once(
    rng: np.random.Generator, each_isa: Callable[..., Any], scale: int
) -> None:
    luma, chroma = make_luma(rng, 2, (3, 131), scale)
    exact = reference.luma_to_rgb(luma, chroma) * 257
    results = each_isa(lambda: ops.luma_to_rgb(luma, chroma, dtype="uint16"))
    for found in (*results.values(), ops.luma_to_rgb(luma, chroma, dtype="uint16", threads=3)):
        assert np.abs(found - exact).max() <= 0.5 + 0.05
        np.testing.assert_array_equal(found, next(iter(results.values())))


def test_nodes_take_and_give_wide_frames(
    rng: np.random.Generator, run_node: Callable[..., Any]
) -> None:
    frames = rng.integers(0, 65536, (1, 7, 33, 3), np.uint16)
    luma, chroma = ops.rgb_to_luma(frames)
    result = run_node("LumaToRgb", luma, chroma, output_uint16=1)
    np.testing.assert_array_equal(result, ops.luma_to_rgb(luma, chroma, dtype="uint16"))
    planes = run_node("RgbToPlanar", frames)
    np.testing.assert_array_equal(planes, ops.rgb_to_planar(frames))
    result = run_node("PlanarToRgb", planes, output_uint16=1)
    np.testing.assert_array_equal(result, frames)


def test_every_colour_survives_the_round_trip(isa: str) -> None:
    # All values of two channels and every fifth of the third, among them both ends.
    b, g, r = np.meshgrid(np.arange(256), np.arange(256), np.arange(0, 256, 5), indexing="ij")
    frames = np.stack([r, g, b], 3).astype(np.uint8)
    np.testing.assert_array_equal(ops.luma_to_rgb(*ops.rgb_to_luma(frames)), frames)


def test_grey_has_no_chroma_and_the_full_range(isa: str) -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(1, 4, 64, 1).repeat(3, 3)
    luma, chroma = ops.rgb_to_luma(grey)
    assert not chroma.any()
    assert (luma.min(), luma.max()) == (0, 1)


@pytest.mark.parametrize("scale", SCALES)
def test_instruction_sets_and_threads_give_the_same_bits(
    rng: np.random.Generator, each_isa: Callable[..., Any], scale: int
) -> None:
    frames = rng.integers(0, 256, (2, 75, 541, 3), np.uint8)
    luma, chroma = make_luma(rng, 2, (75, 541), scale)
    luma.flat[::97] = np.nan
    chroma.flat[::89] = np.inf

    def both(**options: Any) -> list[Any]:
        return [*ops.rgb_to_luma(frames, **options), ops.luma_to_rgb(luma, chroma, **options)]

    expected = both(threads=1)
    for result in [*each_isa(both).values(), both(threads=2), both(threads=5)]:
        for found, wanted in zip(result, expected, strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_values_that_are_no_colours_are_clamped(isa: str) -> None:
    luma = np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, 0.5], np.float32).reshape(1, 1, 1, 6)
    found = ops.luma_to_rgb(luma, np.zeros((1, 2, 1, 6), np.float32))
    np.testing.assert_array_equal(found[0, 0], np.array([[0, 255, 0, 255, 0, 128]] * 3).T)
    wild = np.full((1, 2, 1, 6), np.nan, np.float32)
    assert not ops.luma_to_rgb(np.ones_like(luma), wild).any()


@pytest.mark.parametrize("scale", SCALES)
def test_a_chroma_ramp_is_enlarged_without_a_shift(scale: int) -> None:
    ramp = np.linspace(-0.2, 0.2, 40, dtype=np.float32)
    chroma = np.broadcast_to(ramp, (1, 2, 3, 40)).copy()
    luma = np.full((1, 1, 3 * scale, 40 * scale), 0.5, np.float32)
    red = ops.luma_to_rgb(luma, chroma)[0, 0, scale:-scale, 0].astype(float)
    at = (np.arange(40 * scale) + 0.5) / scale - 0.5
    exact = 255 * (0.5 + 1.402 * (-0.2 + at * 0.4 / 39))
    assert np.abs(red - exact[scale:-scale]).max() <= 0.5 + 1e-3


def test_out_is_filled_and_returned(rng: np.random.Generator) -> None:
    frames = rng.integers(0, 256, (1, 5, 7, 3), np.uint8)
    out = (np.zeros((1, 1, 5, 7), np.float32), np.zeros((1, 2, 5, 7), np.float32))
    found = ops.rgb_to_luma(frames, out=out)
    assert all(a is b for a, b in zip(found, out, strict=True))
    again = np.zeros_like(frames)
    assert ops.luma_to_rgb(*found, out=again) is again
    np.testing.assert_array_equal(again, frames)


def test_no_frames_give_no_luma() -> None:
    luma, chroma = ops.rgb_to_luma(np.zeros((0, 4, 5, 3), np.uint8))
    assert (luma.shape, chroma.shape) == ((0, 1, 4, 5), (0, 2, 4, 5))
    assert ops.luma_to_rgb(luma, chroma).shape == (0, 4, 5, 3)


@pytest.mark.parametrize("scale", SCALES)
def test_onnxruntime_computes_the_same(
    rng: np.random.Generator, run_node: Callable[..., Any], scale: int
) -> None:
    frames = rng.integers(0, 256, (2, 37, 41, 3), np.uint8)
    found = run_node("RgbToLuma", frames, outputs=2)
    for array, expected in zip(found, ops.rgb_to_luma(frames), strict=True):
        np.testing.assert_array_equal(array, expected)
    luma, chroma = make_luma(rng, 2, (37, 41), scale)
    np.testing.assert_array_equal(
        run_node("LumaToRgb", luma, chroma), ops.luma_to_rgb(luma, chroma)
    )


def test_onnxruntime_reports_a_wrong_shape(run_node: Callable[..., Any]) -> None:
    luma, chroma = np.zeros((1, 1, 5, 8), np.float32), np.zeros((1, 2, 4, 4), np.float32)
    with pytest.raises(Exception, match="luma must be 1, 2, 3 or 4 times as high and wide"):
        run_node("LumaToRgb", luma, chroma)


FRAMES = np.zeros((1, 4, 6, 3), np.uint8)
LUMA, CHROMA = np.zeros((1, 1, 4, 6), np.float32), np.zeros((1, 2, 4, 6), np.float32)


@pytest.mark.parametrize(
    ("frames", "options", "error", "message"),
    [
        (FRAMES.astype(np.float32), {}, InputTypeError, "frames must be uint8 or uint16"),
        (FRAMES[0], {}, InputError, r"frames must be \(N, H, W, 3\), got shape \(4, 6, 3\)"),
        (FRAMES[..., :2].copy(), {}, InputError, r"frames must have shape \(1, 4, 6, 3\)"),
        (FRAMES[:, ::2], {}, InputError, "frames must be C-contiguous"),
        (None, {}, InputTypeError, "frames must be a NumPy .*, got NoneType"),
        (FRAMES, {"out": LUMA}, InputTypeError, "out must be a tuple of 2 arrays or None, got"),
        (FRAMES, {"out": (LUMA,)}, InputError, "out must be a tuple of 2 arrays, got 1"),
        (FRAMES, {"out": (LUMA, LUMA)}, InputError, "out chroma must have shape"),
        (FRAMES, {"out": (LUMA, CHROMA.astype(np.uint8))}, InputTypeError, "out chroma must be"),
        (FRAMES, {"threads": 1.5}, InputTypeError, "threads must be an int or None, got float"),
    ],
)
def test_bad_frames_are_named(
    frames: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^rgb_to_luma: {message}"):
        ops.rgb_to_luma(frames, **options)


@pytest.mark.parametrize(
    ("luma", "chroma", "options", "error", "message"),
    [
        (LUMA.astype(np.float64), CHROMA, {}, InputTypeError, "luma must be .*, got float64"),
        (LUMA, CHROMA.astype(np.uint8), {}, InputTypeError, "chroma must be float32, got uint8"),
        (LUMA[0], CHROMA, {}, InputError, r"luma must be \(N, 1, sH, sW\), got shape"),
        (CHROMA, CHROMA, {}, InputError, r"luma must have shape \(1, 1, 4, 6\)"),
        (LUMA, LUMA, {}, InputError, r"chroma must have shape \(1, 2, 4, 6\)"),
        (LUMA, CHROMA.repeat(2, 0), {}, InputError, r"chroma must have shape \(1, 2, 4, 6\)"),
        (LUMA, CHROMA[..., :0].copy(), {}, InputError, "chroma must not be empty"),
        (LUMA, CHROMA.repeat(2, 3), {}, InputError, "luma must be 1, 2, 3 or 4 times as high"),
        (LUMA.repeat(5, 2).repeat(5, 3), CHROMA, {}, InputError, "luma must be 1, 2, 3 or 4"),
        (LUMA.repeat(2, 2), CHROMA, {}, InputError, "luma must be 1, 2, 3 or 4 times as high"),
        (LUMA, CHROMA, {"out": FRAMES.astype(np.int8)}, InputTypeError, "out must be .*, got int8"),
        (LUMA, CHROMA, {"out": FRAMES[:, :2].copy()}, InputError, "out must have shape"),
    ],
)
def test_bad_luma_is_named(
    luma: Any, chroma: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^luma_to_rgb: {message}"):
        ops.luma_to_rgb(luma, chroma, **options)


def test_outputs_must_not_overlap() -> None:
    memory = np.zeros((1, 3, 4, 6), np.float32)
    with pytest.raises(InputError, match="out chroma must not share memory with out luma"):
        ops.rgb_to_luma(FRAMES, out=(memory[:, :1], memory[:, :2]))
