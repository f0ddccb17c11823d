"""Reading: time stamps, durations, colour, orientation, formats."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from fastvid.errors import InputError
from fastvid.video import Video

VFR = [0, 10, 500, 510, 2000, 2001, 2600, 4000, 4010, 9000, 9500, 9501, 12000]


def _psnr(first: np.ndarray, second: np.ndarray) -> float:
    error = np.mean((first.astype(float) - second) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def test_constant_rate_has_exact_times(make_clip):
    video = Video.open(make_clip("a.mp4", fps=Fraction(30000, 1001), frames=7))
    assert video.fps == Fraction(30000, 1001)
    assert [frame.time for frame in video] == [n * Fraction(1001, 30000) for n in range(7)]
    assert {frame.duration for frame in video} == {Fraction(1001, 30000)}
    assert (video.num_frames, video.duration) == (7, 7 * Fraction(1001, 30000))


@pytest.mark.parametrize("name", ["v.mp4", "v.mov", "v.mkv", "v.ts"])
def test_varying_rate_is_kept(make_clip, name):
    units = {"v.mkv": 1000, "v.ts": 90000}
    unit = Fraction(1, units.get(name, 12000))
    scale = 1 if name != "v.ts" else 9
    path = make_clip(name, pts=[scale * n for n in VFR], time_base=unit, fps=25)
    frames = list(Video.open(path))
    assert [frame.time for frame in frames] == [n * scale * unit for n in VFR]
    for now, then in pairwise(frames):
        assert now.time + now.duration == then.time


def test_last_frame_lasts_as_the_container_says(make_clip):
    for name in ("v.mp4", "v.mkv"):
        path = make_clip(name, pts=[0, 40, 80, 120], time_base=Fraction(1, 1000))
        assert list(Video.open(path))[-1].duration == Fraction(40, 1000)


def test_time_starts_with_the_earliest_track(make_clip):
    alone = make_clip("alone.ts", fps=25)
    assert next(iter(Video.open(alone))).time == 0
    with_sound = make_clip(
        "late.mp4",
        pts=range(25, 33),
        time_base=Fraction(1, 25),
        audio="aac",
        container_options={"movie_timescale": "48000"},
    )
    assert abs(next(iter(Video.open(with_sound))).time - 1) < Fraction(3, 100)


@pytest.mark.parametrize(("name", "codec"), [("r.264", "libx264"), ("r.265", "libx265")])
def test_raw_streams_get_stamps_from_the_rate(make_clip, name, codec):
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    kind = "h264" if codec == "libx264" else "hevc"
    path = make_clip(name, codec=codec, fps=50, frames=9, format=kind, options=options)
    video = Video.open(path)
    assert video.fps == 50
    assert [frame.time for frame in video] == [Fraction(n, 50) for n in range(9)]
    slower = Video.open(path, fps="30000/1001")
    assert list(slower)[-1].time == 8 * Fraction(1001, 30000)


def test_rate_of_a_file_with_stamps_cannot_be_overridden(make_clip):
    with pytest.raises(InputError, match="fps"):
        Video.open(make_clip("a.mp4"), fps=60)


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.mkv", "ffv1", "yuv422p"),
        ("b.mkv", "ffv1", "bgr0"),
        ("c.mkv", "libx264", "yuvj420p"),
        ("d.mkv", "libx264", "yuv444p"),
        ("e.mkv", "ffv1", "yuv440p"),
        ("f.mkv", "libx264", "nv12"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
        ("a.avi", "mpeg4", "yuv420p"),
        ("a.y4m", "rawvideo", "yuv444p"),
        ("a.mpg", "mpeg2video", "yuv420p"),
    ],
)
def test_pictures_come_back(make_clip, name, codec, pix_fmt):
    tight = {"libvpx-vp9": {"crf": "4", "b": "0"}, "mpeg4": {"qmax": "2"}}
    tight["mpeg2video"] = tight["mpeg4"]
    path = make_clip(name, codec=codec, pix_fmt=pix_fmt, options=tight.get(codec))
    frames = Video.open(path).frames()
    assert frames.shape == (8, 48, 64, 3)
    expected = np.stack([np.asarray(_expected(n)) for n in range(8)])
    assert _psnr(frames, expected) > 28
    # A wrong matrix or range shifts the mean colour by several levels.
    assert np.abs(frames.mean((1, 2)) - expected.mean((1, 2))).max() < 4


def _expected(number: int) -> np.ndarray:
    y, x = np.mgrid[0:48, 0:64]
    blue = np.full((48, 64), (40 * number) % 256)
    return np.stack([255 * x / 63, 255 * y / 47, blue], -1).round()


@pytest.mark.parametrize("turn", [90, 180, 270, -90])
def test_rotated_video_comes_upright(make_clip, turn):
    upright = Video.open(make_clip("plain.mp4")).frames()
    video = Video.open(make_clip("turned.mp4", rotation=turn))
    # `set_display_rotation` counts counter-clockwise, as `np.rot90` does.
    expected = np.rot90(upright, turn // 90, axes=(1, 2))
    assert video.size == (expected.shape[2], expected.shape[1])
    assert _psnr(video.frames(), expected) > 45


def test_pixel_aspect_turns_with_the_picture(make_clip):
    video = Video.open(make_clip("a.mp4", aspect=Fraction(4, 3), rotation=90))
    assert video.info.pixel_aspect == Fraction(3, 4)


@pytest.mark.parametrize(
    ("size", "matrix"),
    [((64, 48), "smpte170m"), ((720, 576), "smpte170m"), ((1280, 720), "bt709")],
)
def test_unspecified_colour_follows_the_size(make_clip, size, matrix):
    colour = Video.open(make_clip("a.mp4", size=size, frames=1)).info.colour
    assert (colour.matrix, colour.full_range) == (matrix, False)
    assert (colour.primaries, colour.transfer) == ("unspecified", "unspecified")


def test_colour_tags_are_read(make_clip):
    tags = {"colorspace": 1, "color_primaries": 1, "color_trc": 1, "color_range": 2}
    colour = Video.open(make_clip("a.mp4", colour=tags)).info.colour
    assert (colour.matrix, colour.primaries, colour.transfer) == ("bt709", "bt709", "bt709")
    assert colour.full_range


def test_largest_picture_wins_and_others_can_be_chosen(tmp_path: Path):
    path = tmp_path / "two.mp4"
    with av.open(str(path), "w") as container:
        streams = []
        for width in (32, 96):
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height = width, 64
            streams.append(stream)
        for stream in streams:
            frame = av.VideoFrame(stream.width, 64, "yuv420p")
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    assert Video.open(path).width == 96
    assert Video.open(path, stream=0).width == 32
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        Video.open(path, stream=7)


def test_gif_is_read(make_clip):
    video = Video.open(make_clip("a.gif", codec="gif", pix_fmt="rgb8", fps=10))
    assert video.frames().shape == (8, 48, 64, 3)


def test_image_folder_is_read_in_natural_order(tmp_path: Path):
    for number in (1, 2, 10):
        image = np.full((6, 4, 3), 20 * number, np.uint8)
        av.VideoFrame.from_ndarray(image, format="rgb24").save(str(tmp_path / f"f{number}.png"))
    (tmp_path / "notes.txt").write_text("ignored")
    video = Video.open(tmp_path, fps="30000/1001")
    assert video.frames()[:, 0, 0, 0].tolist() == [20, 40, 200]
    assert (video.num_frames, video.size, video.fps) == (3, (4, 6), Fraction(30000, 1001))
    assert sum(frame.duration for frame in video) == 3 * Fraction(1001, 30000)


def test_jpeg_folder_is_read(tmp_path: Path):
    image = np.full((32, 32, 3), (200, 60, 30), np.uint8)
    av.VideoFrame.from_ndarray(image, format="rgb24").save(str(tmp_path / "a.jpg"))
    frames = Video.open(tmp_path).frames()
    assert np.abs(frames[0].astype(int) - image).max() <= 6


def test_repeated_stamps_are_left_out_with_a_warning(make_clip, tmp_path: Path):
    path = make_clip("a.ts", pts=[0, 1, 2, 3], time_base=Fraction(1, 25), options={"bf": "0"})
    doubled = tmp_path / "doubled.mkv"
    with av.open(str(path)) as source, av.open(str(doubled), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is None:
                continue
            packet.pts = packet.dts = 3600 * (packet.pts // 3600 - (packet.pts // 3600) % 2)
            packet.stream = stream
            output.mux(packet)
    result = Video.open(doubled).save(tmp_path / "out.mp4")
    assert result.frames_in < 4
    assert any("repeated" in warning for warning in result.warnings)
