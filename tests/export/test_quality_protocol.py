"""The papers' protocol for super-resolution, against values that follow from its definition."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

_FILE = Path(__file__).parents[2] / "benchmarks" / "quality" / "protocol.py"
_SPEC = importlib.util.spec_from_file_location("protocol", _FILE)
protocol = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(protocol)


def test_weights_of_a_half_are_those_of_matlab():
    indices, weights = protocol.taps(20, 2)
    middle = weights[5][weights[5] != 0]
    published = [-0.01171875, -0.03515625, 0.11328125, 0.43359375]
    np.testing.assert_allclose(middle, published + published[::-1], atol=1e-12)
    used = indices[5][weights[5] != 0]
    assert used.tolist() == list(range(7, 15))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_edges_are_mirrored_and_flat_pictures_stay(scale):
    indices, weights = protocol.taps(24, scale)
    assert indices.min() == 0
    assert indices.max() == 23
    np.testing.assert_allclose(weights.sum(1), 1)
    # Half a sample before the first is the first again.
    first = indices[0].tolist()
    assert first[first.index(0) + 1] == 0
    flat = np.full((24, 24, 3), 77, np.uint8)
    assert (protocol.reduced(flat, scale) == 77).all()


def test_ramps_keep_their_slope():
    """A cubic kernel reproduces straight lines, away from the mirrored edges."""
    ramp = np.repeat(np.arange(64, dtype=np.uint8)[None, :, None] * 2, 64, 0).repeat(3, 2)
    small = protocol.reduced(ramp, 2)
    assert np.array_equal(small[10, 4:-4, 0], (np.arange(32) * 4 + 1)[4:-4])


def test_luma_is_that_of_bt601_in_studio_range():
    colours = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 0, 255]]], np.uint8)
    wanted = [16, 235, 16 + 65.481, 16 + 24.966]
    np.testing.assert_allclose(protocol.luma(colours)[0], wanted, atol=1e-9)


def test_psnr_leaves_the_border_out():
    truth = np.full((20, 20, 3), 100, np.uint8)
    made = truth.copy()
    made[:2] = made[-2:] = 0
    made[:, :2] = made[:, -2:] = 255
    assert protocol.psnr(made, truth, 2) == float("inf")
    level = truth + np.uint8(1)
    # One level of all channels is 219/255 of luma.
    assert protocol.psnr(level, truth, 2) == pytest.approx(20 * np.log10(255 / (219 / 255)))


def test_sides_are_cut_to_multiples():
    assert protocol.cut(np.zeros((17, 22, 3), np.uint8), 4).shape == (16, 20, 3)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_weights_inside_are_pytorchs_antialiased_cubic(scale):
    """Another implementation of the same kernel, which treats edges in its own way."""
    torch = pytest.importorskip("torch")
    length = 24 * scale
    indices, weights = protocol.taps(length, scale)
    ours = np.zeros((24, length))
    for row, (places, values) in enumerate(zip(indices, weights, strict=True)):
        np.add.at(ours[row], places, values)
    theirs = torch.nn.functional.interpolate(
        torch.eye(length, dtype=torch.float64)[None, None],
        size=(24, length), mode="bicubic", antialias=True,
    )[0, 0].numpy()  # fmt: skip
    np.testing.assert_allclose(ours[4:-4], theirs[4:-4], atol=1e-9)
