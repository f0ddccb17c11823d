"""Pillow's bicubic resize, reproduced."""

from __future__ import annotations

import numpy as np
import pytest

from fastvid._resample import resize_like_pillow


@pytest.mark.parametrize(
    ("size", "wanted"),
    [((48, 83), (22, 38)), ((16, 16), (32, 32)), ((37, 50), (74, 41)), ((9, 7), (9, 20)),
     ((5, 5), (5, 5)), ((64, 1), (1, 3))],
)  # fmt: skip
def test_equals_pillow(size, wanted):
    image = pytest.importorskip("PIL.Image")
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    theirs = image.fromarray(picture).resize(wanted[::-1], image.Resampling.BICUBIC)
    np.testing.assert_array_equal(resize_like_pillow(picture, *wanted), np.asarray(theirs))
