"""Upscalers whose graph takes frames of one size: any frame passes through it in pieces."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import bundles
import numpy as np
import pytest

from fastvid._tiles import equal_spans
from fastvid.errors import InputError, ManifestError
from fastvid.upscaler import Upscaler
from fastvid.video import Video

TILING = {"reach": 4, "multiple_of": 1, "exact": True}
REFLECT = {"minimum": 1, "multiple_of": 1, "padding": "reflect"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    bundles.conv_upscaler(path / "any", tiling=TILING)
    bundles.conv_upscaler(path / "fixed", (32, 40), tiling=TILING, size_rule=REFLECT)
    return path


@pytest.fixture(scope="module")
def models(folder: Path) -> Iterator[tuple[Upscaler, Upscaler]]:
    """One that takes any size, and the same network for 40x32."""
    with (
        Upscaler(folder / "any", device="cpu", threads=1) as free,
        Upscaler(folder / "fixed", device="cpu", threads=1) as fixed,
    ):
        yield free, fixed


def picture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def sizes_seen(monkeypatch: pytest.MonkeyPatch, model: Upscaler) -> set[tuple[int, ...]]:
    sizes: set[tuple[int, ...]] = set()
    run = model._run
    monkeypatch.setattr(model, "_run", lambda f: (sizes.add(f.shape[:2]), run(f))[1])
    return sizes


@pytest.mark.parametrize("size", [(32, 40), (33, 41), (32, 97), (101, 40), (111, 85)])
def test_pieces_of_one_size_give_the_pixels_of_the_whole(
    models: tuple[Upscaler, Upscaler],
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    size: tuple[int, int],
) -> None:
    free, fixed = models
    frame = picture(rng, *size)
    whole = free.upscale_frame(frame)
    seen = sizes_seen(monkeypatch, fixed)
    made = fixed.upscale_frame(frame)
    assert seen == {(32, 40)}
    assert made.flags.c_contiguous
    # Sums of float32 may be ordered differently for another size, so one level may turn.
    assert made.shape == whole.shape
    assert np.abs(made.astype(int) - whole).max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (31, 40), (32, 39), (7, 60), (50, 3)])
def test_smaller_frames_are_extended_by_reflection(
    models: tuple[Upscaler, Upscaler], rng: np.random.Generator, size: tuple[int, int]
) -> None:
    free, fixed = models
    frame = picture(rng, *size)
    missing = [(0, max(0, side - have)) for side, have in zip((32, 40), size, strict=True)]
    extended = np.pad(frame, [*missing, (0, 0)], mode="reflect")
    whole = free.upscale_frame(extended)[: 2 * size[0], : 2 * size[1]]
    assert np.abs(fixed.upscale_frame(frame).astype(int) - whole).max() <= 1


def test_frames_of_16_bits_pass_too(
    models: tuple[Upscaler, Upscaler], rng: np.random.Generator
) -> None:
    free, fixed = models
    frame = rng.integers(0, 65536, (50, 45, 3), dtype=np.uint16)
    wide = np.abs(fixed.upscale_frame(frame).astype(int) - free.upscale_frame(frame))
    assert wide.max() <= 1


def test_videos_and_several_passes(models: tuple[Upscaler, Upscaler], folder: Path) -> None:
    frames = np.random.default_rng(1).integers(0, 256, (2, 20, 30, 3), np.uint8)
    with Upscaler(folder / "fixed", scale=4, device="cpu", threads=1) as model:
        video = model.upscale(Video.from_frames(frames, 25))
        assert (video.width, video.height) == (120, 80)
        made = video.frames()
    twice = models[1].upscale_frame(models[1].upscale_frame(frames[1]))
    np.testing.assert_array_equal(made[1], twice)


def test_the_plan_is_for_pieces_of_that_size(models: tuple[Upscaler, Upscaler]) -> None:
    plan = models[1].plan(500, 700)
    assert plan.piece == (32, 40)
    assert plan.fits
    assert models[1].plan(32, 40).piece is None


@pytest.mark.parametrize("tile", [None, 24, 64, True, 1.5, "all"])
def test_no_other_tile_is_taken(folder: Path, tile: object) -> None:
    with pytest.raises(InputError, match=r"must be 'auto' for 'fixed'.* takes 40x32 alone"):
        Upscaler(folder / "fixed", device="cpu", tile=tile)  # type: ignore[arg-type]


def test_the_size_itself_may_be_named(folder: Path) -> None:
    with Upscaler(folder / "fixed", device="cpu", tile=40) as model:
        assert model.upscale_frame(np.zeros((5, 6, 3), np.uint8)).shape == (10, 12, 3)


def test_frames_that_must_not_be_padded_are_refused(tmp_path: Path) -> None:
    rule = REFLECT | {"padding": "none"}
    bundles.conv_upscaler(tmp_path / "m", (32, 40), tiling=TILING, size_rule=rule)
    with Upscaler(tmp_path / "m", device="cpu") as model:
        assert model.upscale_frame(np.zeros((33, 40, 3), np.uint8)).shape == (66, 80, 3)
        with pytest.raises(InputError, match="at least 32x40 for 'm', got 31x40"):
            model.upscale_frame(np.zeros((31, 40, 3), np.uint8))


@pytest.mark.parametrize("tiling", [{"reach": 16}, {"multiple_of": 16}])
def test_bundles_whose_pieces_cannot_be_cut_are_refused(tmp_path: Path, tiling: dict) -> None:
    bundles.conv_upscaler(tmp_path / "m", (32, 40), tiling=TILING | tiling, size_rule=REFLECT)
    with pytest.raises(ManifestError, match=r"got 32x40"):
        Upscaler(tmp_path / "m", device="cpu")


@pytest.mark.parametrize("reach", [0, 1, 7])
@pytest.mark.parametrize("unit", [1, 4])
@pytest.mark.parametrize("size", [24, 40])
def test_equal_spans_cover_a_side_and_keep_their_distance(reach: int, unit: int, size: int) -> None:
    margin = -(-reach // unit) * unit
    for length in range(size, 200, unit):
        found = equal_spans(length, size, reach, unit)
        assert found[0].begin == found[0].first == 0
        assert found[-1].end == found[-1].last == length
        assert all(a.end == b.begin for a, b in itertools.pairwise(found))
        for i, span in enumerate(found):
            assert (span.last - span.first, span.first % unit) == (size, 0)
            assert i == 0 or span.begin - span.first >= margin
            assert i == len(found) - 1 or span.last - span.end >= margin
        # No more than are needed.
        assert len(found) == 1 or (len(found) - 1) * (size - 2 * margin) + 2 * margin < length
