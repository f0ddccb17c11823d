"""`Video`: what a user holds in hand."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from fastvid.errors import InputError, InputTypeError
from fastvid.video import Frame, Stage, Video


class Flip:
    name = "flip"

    def transform(self, info):
        return replace(info, width=info.height, height=info.width)

    def process(self, frames, info):
        for frame in frames:
            yield replace(frame, image=np.ascontiguousarray(frame.image.swapaxes(0, 1)))


@pytest.fixture
def pictures(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (6, 10, 14, 3)).astype(np.uint8)


def test_array_is_a_video(pictures: np.ndarray):
    video = Video.from_frames(pictures, 24)
    assert (video.fps, video.size, video.num_frames) == (24, (14, 10), 6)
    assert (video.width, video.height, video.duration) == (14, 10, Fraction(1, 4))
    assert (video.frames() == pictures).all()
    assert (video.frames() == pictures).all()


@pytest.mark.parametrize(
    ("fps", "exact"),
    [
        (25, Fraction(25)),
        (29.97, Fraction(30000, 1001)),
        (12.5, Fraction(25, 2)),
        (Fraction(60000, 1001), Fraction(60000, 1001)),
        ("30000/1001", Fraction(30000, 1001)),
        ("23.976", Fraction(24000, 1001)),
    ],
)
def test_rates_are_exact(pictures: np.ndarray, fps: object, exact: Fraction):
    frames = list(Video.from_frames(pictures, fps))
    assert [frame.time for frame in frames] == [n / exact for n in range(6)]
    assert {frame.duration for frame in frames} == {1 / exact}


@pytest.mark.parametrize("fps", [0, -1, float("inf"), float("nan"), "x", "1/0", 1e9])
def test_bad_rates_are_refused(pictures: np.ndarray, fps: object):
    with pytest.raises(InputError, match="fps"):
        Video.from_frames(pictures, fps)


@pytest.mark.parametrize("fps", [None, True, [25], b"25"])
def test_rates_of_another_type_are_refused(pictures: np.ndarray, fps: object):
    with pytest.raises(InputTypeError, match="fps"):
        Video.from_frames(pictures, fps)


def test_list_is_read_again_and_generator_once(pictures: np.ndarray):
    again = Video.from_frames(list(pictures), 25)
    assert (again.frames() == again.frames()).all()
    once = Video.from_frames((picture for picture in pictures), 25)
    assert (once.size, once.num_frames, once.duration) == ((14, 10), None, None)
    assert (once.frames() == pictures).all()
    with pytest.raises(InputError, match="once"):
        once.frames()


@pytest.mark.parametrize(
    ("frames", "error", "word"),
    [
        (np.zeros((0, 8, 8, 3), np.uint8), InputError, "at least one"),
        ([], InputError, "at least one"),
        (np.zeros((8, 8, 3), np.uint8), InputError, r"\(T, H, W, 3\)"),
        (np.zeros((2, 3, 8, 8), np.uint8), InputError, r"\(H, W, 3\)"),
        (np.zeros((2, 8, 8, 3), np.float32), InputTypeError, "uint8"),
        (3, InputTypeError, "int"),
        (None, InputTypeError, "NoneType"),
        (["frame"], InputTypeError, "str"),
    ],
)
def test_bad_frames_are_refused(frames: object, error: type, word: str):
    with pytest.raises(error, match=word):
        Video.from_frames(frames, 25)  # type: ignore[arg-type]


def test_change_of_size_is_refused(pictures: np.ndarray):
    video = Video.from_frames([pictures[0], pictures[1][:5]], 25)
    with pytest.raises(InputError, match=r"frames\[1\]"):
        video.frames()


def test_views_are_made_contiguous(pictures: np.ndarray):
    flipped = pictures[:, ::-1, ::-1, ::-1]
    frames = list(Video.from_frames(flipped, 25))
    assert all(frame.image.flags["C_CONTIGUOUS"] for frame in frames)
    assert (frames[2].image == flipped[2]).all()


def test_stages_are_lazy_and_chain(pictures: np.ndarray):
    video = Video.from_frames(pictures, 25)
    flipped = video.through(Flip())
    assert isinstance(Flip(), Stage)
    assert (flipped.size, video.size) == ((10, 14), (14, 10))
    assert (flipped.frames() == pictures.swapaxes(1, 2)).all()
    assert (flipped.through(Flip()).frames() == pictures).all()
    assert repr(flipped) == "<Video 10x14, 25 fps, 0.24 s -> flip>"


@pytest.mark.parametrize("stage", [None, "flip", Flip, lambda frames: frames])
def test_what_is_no_stage_is_refused(pictures: np.ndarray, stage: object):
    with pytest.raises(InputTypeError, match="stage"):
        Video.from_frames(pictures, 25).through(stage)  # type: ignore[arg-type]


def test_iteration_can_stop_and_start_again(make_clip):
    video = Video.open(make_clip("a.mp4"))
    first = next(iter(video))
    assert isinstance(first, Frame)
    assert first.image.dtype == np.uint8
    assert (first.image == next(iter(video)).image).all()
    assert len(video.frames()) == 8


def test_frames_own_their_memory(make_clip):
    # Decoders reuse their buffers: a frame kept by the user must not change.
    frames = list(Video.open(make_clip("a.mp4", frames=30)))
    kept = [frame.image.copy() for frame in frames]
    list(Video.open(make_clip("b.mp4", frames=30)))
    assert all((frame.image == copy).all() for frame, copy in zip(frames, kept, strict=True))
    assert len({frame.image.ctypes.data for frame in frames}) == 30


def test_notebook_shows_a_playable_file(pictures: np.ndarray, tmp_path: Path):
    large = np.zeros((40, 501, 1001, 3), np.uint8)
    for frames in (pictures, large):
        bundle = Video.from_frames(frames, 25)._repr_mimebundle_()
        found = re.search(r'src="data:video/mp4;base64,([^"]+)"', bundle["text/html"])
        assert found is not None
        data = base64.b64decode(found[1])
        assert len(data) < 8_000_000
        (tmp_path / "shown.mp4").write_bytes(data)
        shown = Video.open(tmp_path / "shown.mp4")
        assert shown.num_frames == len(frames)
        assert all(side % 2 == 0 for side in shown.size)
        assert "Video" in bundle["text/plain"]


def test_notebook_does_not_consume_a_generator(pictures: np.ndarray):
    video = Video.from_frames((picture for picture in pictures), 25)
    assert "not shown" in video._repr_html_()
    assert len(video.frames()) == 6


def test_long_video_is_shown_in_part(pictures: np.ndarray):
    video = Video.from_frames(np.repeat(pictures, 6, 0), 1)
    assert "first 10 s" in video._repr_html_()


def test_import_loads_no_codec_library():
    code = "import sys, fastvid; fastvid.Video; assert 'av' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
