"""`rgb_to_planar` and `planar_to_rgb`: equal to NumPy to the last bit, on every instruction set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import reference

from fastvid import ops
from fastvid.errors import InputError, InputTypeError

SHAPES = [(1, 1, 1), (1, 3, 5), (2, 7, 15), (1, 4, 16), (1, 5, 17), (3, 33, 64), (1, 70, 131)]


def make_frames(rng: np.random.Generator, shape: tuple[int, int, int]) -> Any:
    return rng.integers(0, 256, (*shape, 3), np.uint8)


def make_planes(rng: np.random.Generator, shape: tuple[int, int, int]) -> Any:
    n, height, width = shape
    x = rng.uniform(-0.2, 1.2, (n, 3, height, width)).astype(np.float32)
    x.flat[:: max(1, x.size // 5)] = np.float32(0.5) / 255
    return x


@pytest.mark.parametrize("shape", SHAPES)
def test_frames_become_planes_exactly(rng: np.random.Generator, isa: str, shape: Any) -> None:
    frames = make_frames(rng, shape)
    np.testing.assert_array_equal(
        ops.rgb_to_planar(frames), reference.rgb_to_planar(frames).astype(np.float32)
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_planes_become_frames_exactly(rng: np.random.Generator, isa: str, shape: Any) -> None:
    x = make_planes(rng, shape)
    np.testing.assert_array_equal(ops.planar_to_rgb(x), reference.planar_to_rgb(x))


@pytest.mark.parametrize("shape", SHAPES)
def test_wide_frames_become_planes_and_back_exactly(
    rng: np.random.Generator, isa: str, shape: Any
) -> None:
    frames = rng.integers(0, 65536, (*shape, 3), np.uint16)
    planes = ops.rgb_to_planar(frames)
    exact = (np.moveaxis(frames, 3, 1).astype(np.float64) / 65535).astype(np.float32)
    np.testing.assert_array_equal(planes, exact)
    np.testing.assert_array_equal(ops.planar_to_rgb(planes, dtype="uint16"), frames)
    x = make_planes(rng, shape)
    # In single precision the product is rounded before it is made a whole number.
    scaled = np.clip(x, 0, 1) * np.float32(65535)
    expected = np.moveaxis(np.rint(scaled).astype(np.uint16), 1, 3)
    np.testing.assert_array_equal(ops.planar_to_rgb(x, dtype="uint16"), expected)


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_do_not_change_wide_frames(rng: np.random.Generator, threads: int) -> None:
    frames = rng.integers(0, 65536, (2, 70, 33, 3), np.uint16)
    planes = ops.rgb_to_planar(frames, threads=threads)
    np.testing.assert_array_equal(planes, ops.rgb_to_planar(frames))
    again = ops.planar_to_rgb(planes, dtype="uint16", threads=threads)
    np.testing.assert_array_equal(again, frames)


def test_every_byte_survives_the_round_trip(isa: str) -> None:
    frames = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    np.testing.assert_array_equal(ops.planar_to_rgb(ops.rgb_to_planar(frames)), frames)


def test_values_that_are_no_colours_are_clamped(isa: str) -> None:
    x = np.zeros((1, 3, 1, 6), np.float32)
    x[:, :] = [np.nan, np.inf, -np.inf, -0.0, 3e38, -1e-40]
    expected = np.array([0, 255, 0, 0, 255, 0], np.uint8)[None, None, :, None].repeat(3, 3)
    np.testing.assert_array_equal(ops.planar_to_rgb(x), expected)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_do_not_change_the_result(rng: np.random.Generator, threads: int) -> None:
    frames = make_frames(rng, (2, 70, 33))
    planes = ops.rgb_to_planar(frames, threads=threads)
    np.testing.assert_array_equal(planes, ops.rgb_to_planar(frames))
    np.testing.assert_array_equal(ops.planar_to_rgb(planes, threads=threads), frames)


def test_out_is_filled_and_returned(rng: np.random.Generator) -> None:
    frames = make_frames(rng, (1, 5, 7))
    planes = np.full((1, 3, 5, 7), 9, np.float32)
    assert ops.rgb_to_planar(frames, out=planes) is planes
    again = np.zeros_like(frames)
    assert ops.planar_to_rgb(planes, out=again) is again
    np.testing.assert_array_equal(again, frames)


def test_no_frames_give_no_planes() -> None:
    assert ops.rgb_to_planar(np.zeros((0, 4, 5, 3), np.uint8)).shape == (0, 3, 4, 5)
    assert ops.planar_to_rgb(np.zeros((1, 3, 0, 5), np.float32)).shape == (1, 0, 5, 3)


def test_onnxruntime_computes_the_same(
    rng: np.random.Generator, run_node: Callable[..., Any]
) -> None:
    frames = make_frames(rng, (2, 37, 41))
    planes = run_node("RgbToPlanar", frames)
    np.testing.assert_array_equal(planes, ops.rgb_to_planar(frames))
    np.testing.assert_array_equal(run_node("PlanarToRgb", planes), frames)


def test_onnxruntime_reports_a_wrong_shape(run_node: Callable[..., Any]) -> None:
    with pytest.raises(Exception, match="frames must have 3 channels last"):
        run_node("RgbToPlanar", np.zeros((1, 4, 4, 4), np.uint8))


FRAMES = np.zeros((1, 4, 6, 3), np.uint8)
PLANES = np.zeros((1, 3, 4, 6), np.float32)


def read_only(array: Any) -> Any:
    array = array.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("frames", "options", "error", "message"),
    [
        ([[1, 2]], {}, InputTypeError, "frames must be a NumPy .*, got list"),
        (None, {}, InputTypeError, "frames must be a NumPy .*, got NoneType"),
        (FRAMES.astype(np.float32), {}, InputTypeError, "frames must be uint8 or uint16, got fl"),
        (FRAMES.astype(np.int16), {}, InputTypeError, "frames must be .*, got int16"),
        (FRAMES.astype(object), {}, InputTypeError, "frames must be .*, got object"),
        (FRAMES[0], {}, InputError, r"frames must be \(N, H, W, 3\), got shape \(4, 6, 3\)"),
        (FRAMES[..., :2].copy(), {}, InputError, "frames must have 3 channels last"),
        (FRAMES[:, :, ::2], {}, InputError, "frames must be C-contiguous.*ascontiguousarray"),
        (FRAMES[:, ::-1], {}, InputError, "frames must be C-contiguous"),
        (FRAMES, {"out": PLANES[:, :, :3].copy()}, InputError, "out must have shape"),
        (FRAMES, {"out": PLANES.astype(np.uint8)}, InputTypeError, "out must be float32"),
        (FRAMES, {"out": PLANES.astype(">f4")}, InputTypeError, "out must be .*, got >f4"),
        (FRAMES, {"out": read_only(PLANES)}, InputError, "out must be writable"),
        (FRAMES, {"threads": 0}, InputError, "threads must be from 1 to 256, got 0"),
        (FRAMES, {"threads": "2"}, InputTypeError, "threads must be an int or None, got str"),
    ],
)
def test_bad_arguments_are_named(
    frames: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^rgb_to_planar: {message}"):
        ops.rgb_to_planar(frames, **options)


def test_out_must_not_overlap_the_input() -> None:
    memory = np.zeros(4 * PLANES.size, np.uint8)
    frames = memory[-FRAMES.size :].reshape(FRAMES.shape)
    planes = memory.view(np.float32).reshape(PLANES.shape)
    with pytest.raises(InputError, match="out must not share memory with frames"):
        ops.rgb_to_planar(frames, out=planes)
    with pytest.raises(InputError, match="out must not share memory with x"):
        ops.planar_to_rgb(planes, out=frames)
