"""`inverse_search`: known motion is found, still images stay still, every path gives equal bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastvid import ops
from fastvid.errors import InputError, InputTypeError

Array = NDArray[Any]


class Texture:
    """A smooth random image that can be sampled anywhere: a sum of plane waves."""

    def __init__(self, rng: np.random.Generator, waves: int = 60) -> None:
        length = np.exp(rng.uniform(np.log(10), np.log(100), waves))
        angle = rng.uniform(0, 2 * np.pi, waves)
        self.kx = np.cos(angle) * 2 * np.pi / length
        self.ky = np.sin(angle) * 2 * np.pi / length
        self.phase = rng.uniform(0, 2 * np.pi, waves)

    def draw(self, height: int, width: int, dx: float = 0, dy: float = 0) -> Array:
        """float32 (1, 1, height, width) in [0, 1], moved right by dx and down by dy pixels."""
        y, x = np.mgrid[:height, :width]
        angles = (x[..., None] - dx) * self.kx + (y[..., None] - dy) * self.ky + self.phase
        values = np.sin(angles).sum(-1) / np.sqrt(2 * self.kx.size)
        return np.clip(0.5 + 0.18 * values, 0, 1).astype(np.float32)[None, None]


def inside(flow: Array, margin: int) -> Array:
    return flow[:, :, margin:-margin, margin:-margin]


def moved(dx: float, dy: float) -> Array:
    return np.array([dx, dy]).reshape(1, 2, 1, 1)


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (37, 53), (180, 321)])
def test_identical_images_give_exactly_zero(
    rng: np.random.Generator, isa: str, size: tuple[int, int]
) -> None:
    luma = rng.random((1, 1, *size), np.float32)
    for flow in ops.inverse_search(luma, luma):
        np.testing.assert_array_equal(flow, np.zeros((1, 2, *size), np.float32))


@pytest.mark.parametrize(
    "motion", [(1, 0), (-3, 2), (0.5, 0.25), (-0.3, 0.7), (12.6, -7.2), (-25, 14.5)]
)
def test_translation_is_found(rng: np.random.Generator, motion: tuple[float, float]) -> None:
    texture = Texture(rng)
    first, second = texture.draw(180, 320), texture.draw(180, 320, *motion)
    forward, backward = ops.inverse_search(first, second)
    # What comes in at the border shows only in one image, and patches reach eight pixels further.
    margin = int(max(map(abs, motion))) + 16
    for flow, truth in ((forward, moved(*motion)), (backward, -moved(*motion))):
        error = np.abs(inside(flow, margin) - truth)
        assert np.quantile(error, 0.95) < 0.05
        assert error.max() < 0.3


def test_swapped_images_swap_the_flows(rng: np.random.Generator) -> None:
    texture = Texture(rng)
    first, second = texture.draw(64, 96), texture.draw(64, 96, 2.5, -1.5)
    forward, backward = ops.inverse_search(first, second)
    swapped = ops.inverse_search(second, first)
    np.testing.assert_array_equal(swapped[0], backward)
    np.testing.assert_array_equal(swapped[1], forward)


def test_still_background_stays_still_beside_motion(rng: np.random.Generator) -> None:
    background = Texture(rng).draw(120, 200)
    first, second = background.copy(), background.copy()
    block = Texture(rng).draw(40, 40)
    first[:, :, 40:80, 60:100] = block
    second[:, :, 43:83, 66:106] = block
    forward, _ = ops.inverse_search(first, second)
    assert np.abs(forward[:, :, :, 140:]).max() == 0
    assert np.abs(forward[:, :, 52:68, 72:88] - moved(6, 3)).max() < 0.1


def test_noise_on_a_still_image_does_not_move_it(rng: np.random.Generator) -> None:
    luma = Texture(rng).draw(120, 200)
    noisy = [luma + rng.normal(0, 1 / 255, luma.shape).astype(np.float32) for _ in range(2)]
    forward, _ = ops.inverse_search(*noisy)
    assert (forward == 0).mean() > 0.95


def test_brightness_does_not_move_it(rng: np.random.Generator) -> None:
    texture = Texture(rng)
    first, second = texture.draw(96, 128) * 0.9, texture.draw(96, 128, 1.5, 0.5) * 0.9
    forward, _ = ops.inverse_search(first, second + np.float32(0.06))
    assert np.quantile(np.abs(inside(forward, 20) - moved(1.5, 0.5)), 0.98) < 0.1


@pytest.mark.parametrize("finest", [1, 2])
def test_coarser_finest_level_is_enlarged_to_full_size(
    rng: np.random.Generator, finest: int
) -> None:
    texture = Texture(rng)
    first, second = texture.draw(179, 243), texture.draw(179, 243, 4, -3)
    forward, _ = ops.inverse_search(first, second, finest=finest)
    assert forward.shape == (1, 2, 179, 243)
    assert np.abs(inside(forward, 32) - moved(4, -3)).max() < 0.5


def test_every_instruction_set_gives_the_same_bits(
    rng: np.random.Generator, each_isa: Callable[..., dict[str, Any]]
) -> None:
    texture = Texture(rng)
    first = texture.draw(75, 131) + rng.normal(0, 0.02, (1, 1, 75, 131)).astype(np.float32)
    second = texture.draw(75, 131, 5.3, -2.1)
    for options in ({}, {"stride": 3, "finest": 1}, {"iterations": 1, "stride": 8}):
        results = each_isa(lambda options=options: ops.inverse_search(first, second, **options))
        for flows in results.values():
            np.testing.assert_array_equal(flows, results["baseline"])


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_do_not_change_the_result(rng: np.random.Generator, threads: int) -> None:
    luma = rng.random((2, 1, 75, 90), np.float32)
    other = np.roll(luma, (2, 3), (2, 3)) + rng.random(luma.shape, np.float32) * 0.1
    expected = ops.inverse_search(luma, other)
    found = ops.inverse_search(luma, other, threads=threads)
    np.testing.assert_array_equal(found, expected)


def test_each_image_of_a_batch_is_searched_alone(rng: np.random.Generator) -> None:
    luma, other = rng.random((2, 3, 1, 40, 50), np.float32)
    together = ops.inverse_search(luma, other)
    for n in range(3):
        alone = ops.inverse_search(luma[n : n + 1], other[n : n + 1])
        for both, one in zip(together, alone, strict=True):
            np.testing.assert_array_equal(both[n : n + 1], one)


def test_every_small_size_gives_a_finite_flow(rng: np.random.Generator, isa: str) -> None:
    for height in [*range(1, 24), 31, 32, 33, 63, 70]:
        for width in (1, 7, 8, 9, 15, 16, 17, 33, 64, 70):
            luma, other = rng.random((2, 1, 1, height, width), np.float32)
            forward, backward = ops.inverse_search(luma, other, stride=3, iterations=4)
            assert np.isfinite(forward).all()
            assert np.isfinite(backward).all()
            if min(height, width) < 8:
                assert not forward.any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_values_that_are_no_luma_give_a_finite_flow(
    rng: np.random.Generator, isa: str, value: float
) -> None:
    luma, other = rng.random((2, 1, 1, 48, 64), np.float32)
    luma[rng.random(luma.shape) < 0.3] = value
    other[:, :, 10:30] = value
    for flow in ops.inverse_search(luma, other):
        assert np.isfinite(flow).all()


def test_one_direction_is_the_first_of_two(rng: np.random.Generator) -> None:
    luma, other = rng.random((2, 1, 1, 48, 64), np.float32)
    forward, backward = ops.inverse_search(luma, other, bidirectional=False)
    assert backward is None
    np.testing.assert_array_equal(forward, ops.inverse_search(luma, other)[0])


def test_out_is_filled_and_returned(rng: np.random.Generator) -> None:
    luma, other = rng.random((2, 1, 1, 48, 64), np.float32)
    out = (np.full((1, 2, 48, 64), 9, np.float32), np.full((1, 2, 48, 64), 9, np.float32))
    found = ops.inverse_search(luma, other, out=out)
    assert found[0] is out[0]
    assert found[1] is out[1]
    np.testing.assert_array_equal(out, ops.inverse_search(luma, other))


def test_onnxruntime_computes_the_same(
    rng: np.random.Generator, run_node: Callable[..., Any]
) -> None:
    luma, other = rng.random((2, 2, 1, 61, 83), np.float32)
    for options in ({}, {"iterations": 3, "stride": 5, "finest": 1}):
        found = run_node("InverseSearch", luma, other, outputs=2, **options)
        np.testing.assert_array_equal(found, ops.inverse_search(luma, other, **options))


def test_wrong_arguments_are_refused() -> None:
    luma = np.zeros((1, 1, 16, 16), np.float32)
    with pytest.raises(InputTypeError, match="luma0 must be float32"):
        ops.inverse_search(luma.astype(np.uint8), luma)
    with pytest.raises(InputTypeError, match="luma1 must be"):
        ops.inverse_search(luma, None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="1 channel"):
        ops.inverse_search(luma.repeat(3, 1), luma.repeat(3, 1))
    with pytest.raises(InputError, match=r"\(N, 1, H, W\)"):
        ops.inverse_search(luma[0], luma[0])
    with pytest.raises(InputError, match=r"luma1 must have shape \(1, 1, 16, 16\)"):
        ops.inverse_search(luma, luma[:, :, :8])
    with pytest.raises(InputError, match="C-contiguous"):
        ops.inverse_search(luma[..., ::2], luma[..., ::2])
    for name, value in (("iterations", 0), ("iterations", 65), ("stride", 9), ("finest", 3)):
        with pytest.raises(InputError, match=f"{name} must be from"):
            ops.inverse_search(luma, luma, **{name: value})  # type: ignore[arg-type]
    with pytest.raises(InputTypeError, match="stride must be an int"):
        ops.inverse_search(luma, luma, stride=2.0)  # type: ignore[arg-type]
    with pytest.raises(InputTypeError, match="out must be a tuple"):
        ops.inverse_search(luma, luma, out=luma)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="share memory"):
        ops.inverse_search(luma, luma, out=(np.zeros((1, 2, 16, 16), np.float32),) * 2)
