"""The degradation pipeline: what it keeps, what it takes away, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("av")

from PIL import Image

from fastvid.errors import InputError
from fastvid.metrics import psnr
from fastvid.scene import Scene
from fastvid_export.training.degradations import (
    Degradation,
    degrade,
    draw,
    through_h264,
)


@pytest.fixture(scope="module")
def clip() -> list[np.ndarray]:
    scene = Scene(96, 64, seed=3)
    return [scene.draw(0.1 * k) for k in range(4)]


def degraded(clip: list[np.ndarray], scale: int = 1, **settings: object) -> list[np.ndarray]:
    return degrade(clip, scale, Degradation(**settings), np.random.default_rng(5))  # type: ignore[arg-type]


def test_nothing_asked_for_changes_nothing(clip: list[np.ndarray]) -> None:
    for ours, source in zip(degraded(clip), clip, strict=True):
        np.testing.assert_array_equal(ours, source)


@pytest.mark.parametrize("scale", [2, 4])
def test_defaults_are_the_bicubic_reduction(clip: list[np.ndarray], scale: int) -> None:
    size = (96 // scale, 64 // scale)
    expected = Image.fromarray(clip[0]).resize(size, Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(degraded(clip, scale)[0], np.asarray(expected))


@pytest.mark.parametrize(
    ("mild", "strong"),
    [
        ({"blur": 0.5}, {"blur": 2.0}),
        ({"noise": 2.0}, {"noise": 12.0}),
        ({"jpeg": 95}, {"jpeg": 20}),
        ({"crf": 12}, {"crf": 40}),
    ],
)
def test_more_of_it_leaves_less(
    clip: list[np.ndarray], mild: dict[str, object], strong: dict[str, object]
) -> None:
    near, far = (psnr(degraded(clip, **s)[2], clip[2]) for s in (mild, strong))
    assert near > far + 2
    assert np.isfinite(near)


def test_noise_has_the_deviation_asked_for_and_differs_between_frames() -> None:
    grey = [np.full((64, 96, 3), 128, np.uint8)] * 2
    first, second = (f.astype(float) - 128 for f in degraded(grey, noise=6.0, colour_noise=True))
    assert np.std(first) == pytest.approx(6.0, rel=0.05)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.05
    grey_noise = degraded(grey, noise=6.0)[0]
    assert np.ptp(grey_noise, axis=-1).max() == 0


def test_blotches_are_coarse_and_leave_luma_as_it_is() -> None:
    grey = [np.full((96, 96, 3), 128, np.uint8)]
    found = degraded(grey, blotches=8.0)[0].astype(float) - 128
    assert np.std(found) == pytest.approx(8.0, rel=0.1)
    assert np.abs(found @ [0.299, 0.587, 0.114]).max() < 1
    red = found[..., 0]
    assert np.corrcoef(red[:, :-1].ravel(), red[:, 1:].ravel())[0, 1] > 0.4


def test_h264_keeps_the_order_of_frames(clip: list[np.ndarray]) -> None:
    decoded = through_h264(clip, 18)
    errors = [[psnr(ours, source) for source in clip] for ours in decoded]
    assert [int(np.argmax(row)) for row in errors] == [0, 1, 2, 3]


def test_h264_shifts_no_colour(clip: list[np.ndarray]) -> None:
    noise = np.random.default_rng(2).normal(128, 30, (2, 64, 96, 1))
    noisy = np.clip(np.rint(noise), 0, 255).astype(np.uint8).repeat(3, -1)
    for frames in (clip[:2], list(noisy)):
        for ours, source in zip(through_h264(frames, 4), frames, strict=True):
            assert np.abs((ours.astype(float) - source).mean((0, 1))).max() < 0.25


def test_the_same_seed_degrades_the_same(clip: list[np.ndarray]) -> None:
    def once() -> list[np.ndarray]:
        rng = np.random.default_rng(7)
        return degrade(clip, 2, draw(rng, 2), rng)

    for first, second in zip(once(), once(), strict=True):
        np.testing.assert_array_equal(first, second)


def test_drawn_settings_are_allowed_and_vary(clip: list[np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    drawn = [draw(rng, 2) for _ in range(40)]
    assert len(set(drawn)) > 30
    assert {s.crf is None for s in drawn} == {True, False}
    assert {s.jpeg is None for s in drawn} == {True, False}
    for settings in drawn[:6]:
        assert degrade(clip, 2, settings, rng)[0].shape == (32, 48, 3)


@pytest.mark.parametrize(
    ("frames", "scale", "settings", "says"),
    [
        ([], 1, {}, "at least one frame"),
        ([np.zeros((8, 8, 3), np.float32)], 1, {}, "uint8"),
        ([np.zeros((8, 8), np.uint8)], 1, {}, r"\(H, W, 3\)"),
        ([np.zeros((8, 8, 3), np.uint8), np.zeros((8, 6, 3), np.uint8)], 1, {}, "one size"),
        ([np.zeros((9, 8, 3), np.uint8)], 2, {}, "multiples of 2, got 8x9"),
        ([np.zeros((10, 8, 3), np.uint8)], 2, {"crf": 20}, "multiples of 4"),
        ([np.zeros((8, 8, 3), np.uint8)], 0, {}, "at 0"),
        ([np.zeros((8, 8, 3), np.uint8)], 1, {"crf": 52}, "crf must be from 0 to 51, got 52"),
        ([np.zeros((8, 8, 3), np.uint8)], 1, {"jpeg": 0}, "jpeg must be from 1"),
        ([np.zeros((8, 8, 3), np.uint8)], 1, {"noise": -1.0}, "noise must be"),
        ([np.zeros((8, 8, 3), np.uint8)], 1, {"blotches": 200.0}, "blotches must be"),
    ],
)
def test_wrong_input_is_refused(
    frames: list[np.ndarray], scale: int, settings: dict[str, object], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        degrade(frames, scale, Degradation(**settings), np.random.default_rng(0))  # type: ignore[arg-type]
