"""Drawn pictures: the same every time, sharp, and as large as asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from PIL import Image

from fastvid_export.training.drawings import draw_picture, draw_static, drawn_pictures
from fastvid_export.training.upscaling import DRAWN, UpscalingData


@pytest.mark.parametrize("side", [16, 61, 128])
def test_pictures_follow_from_the_seed_and_have_the_size_asked_for(side: int) -> None:
    first, again, other = (draw_picture(np.random.default_rng(s), side) for s in (3, 3, 4))
    assert first.shape == (side, side, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_most_pictures_have_edges_that_halving_blurs() -> None:
    lost = []
    for seed in range(12):
        picture = Image.fromarray(draw_picture(np.random.default_rng(seed), 96)).convert("L")
        back = picture.resize((48, 48), Image.Resampling.BICUBIC).resize((96, 96))
        lost.append(float(np.abs(np.asarray(picture, float) - np.asarray(back, float)).max()))
    assert np.median(lost) > 40


def test_backgrounds_show_photos_that_are_large_enough(tmp_path: Path) -> None:
    for name, colour in (("a.png", (255, 0, 255)), ("b.png", (0, 255, 0))):
        Image.new("RGB", (400, 300), colour).save(tmp_path / name)
    pictures = list(drawn_pictures([tmp_path / "a.png"], 12, 64))
    shown = [(p.reshape(-1, 3) == (255, 0, 255)).all(1).mean() for p in pictures]
    assert 3 <= sum(share > 0.1 for share in shown) <= 10
    # 400x300 cannot fill a canvas of three times 128.
    unfilled = list(drawn_pictures([tmp_path / "b.png"], 6, 128))
    assert not any((p.reshape(-1, 3) == (0, 255, 0)).all(1).any() for p in unfilled)


def test_drawn_pictures_have_their_share_of_the_crops() -> None:
    names = ["a/2", "b/2", "c/2", f"{DRAWN}0"]
    np.testing.assert_allclose(UpscalingData(drawn=0.4).chances(names), [0.2, 0.2, 0.2, 0.4])
    np.testing.assert_allclose(UpscalingData(drawn=0.4).chances(names[:3]), [1 / 3] * 3)
    assert UpscalingData(drawn=0.0).chances(names)[3] == 0


@pytest.mark.parametrize("side", [1, 7, 64])
def test_static_is_noise_of_the_size_asked_for(side: int) -> None:
    pictures = [draw_static(np.random.default_rng(seed), side) for seed in range(20)]
    assert all(p.shape == (side, side) and p.dtype == np.uint8 for p in pictures)
    np.testing.assert_array_equal(pictures[3], draw_static(np.random.default_rng(3), side))
    if side == 64:
        assert all(p.std() > 1 for p in pictures)
