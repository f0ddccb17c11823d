"""What cannot be read is refused with an error that says why, and nothing hangs."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from fastvid.errors import (
    FastvidError,
    InputError,
    InputTypeError,
    MediaError,
    MediaLimitError,
    TruncatedMediaError,
    UnreadableMediaError,
    UnsupportedMediaError,
)
from fastvid.video import Limits, Video

HDR10 = {"colorspace": 9, "color_primaries": 9, "color_trc": 16, "color_range": 1}


def _refused(path: object, error: type[FastvidError], *words: str, **options: object) -> None:
    with pytest.raises(error) as caught:
        for _ in Video.open(path, **options):  # type: ignore[arg-type]
            pass
    for word in words:
        assert word in str(caught.value)
    assert caught.value.exit_code == 4


def test_missing_file(tmp_path: Path):
    _refused(tmp_path / "none.mp4", UnreadableMediaError, "none.mp4", "No such file")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS"),
        (b"just some words\n" * 50, "text"),
        (b'{"error": "not found", "status": 404}', "JSON"),
        (b"PK\x03\x04" + bytes(100), "ZIP"),
        (b"ID3\x04" + bytes(400), "audio"),
        (b"RIFF\x24\x08\0\0WAVEfmt " + bytes(400), "audio"),
        (bytes(5000), "zeros"),
        (np.random.default_rng(1).bytes(5000), "known format"),
    ],
)
def test_what_is_no_video_is_named(tmp_path: Path, content: bytes, word: str):
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    _refused(path, UnreadableMediaError, word)


@pytest.mark.parametrize(
    "content",
    [
        b"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile '/etc/passwd'\n",
    ],
)
def test_playlist_is_refused(tmp_path: Path, content: bytes):
    for name in ("list.m3u8", "list.mp4"):
        path = tmp_path / name
        path.write_bytes(content)
        _refused(path, UnreadableMediaError, "playlist")


@pytest.mark.parametrize(
    "path",
    [
        "http://127.0.0.1:9/a.mp4",
        "concat:a.mp4|b.mp4",
        "subfile,,start,0,end,0,,:a.mp4",
        "data:video/mp4;base64,AAAA",
        "lavfi:testsrc",
        "file:///etc/passwd",
        "pipe:0",
    ],
)
def test_url_is_refused(path: str):
    _refused(path, UnreadableMediaError, "URLs are not opened")


def test_name_that_looks_like_a_protocol_is_a_file(make_clip, tmp_path: Path):
    shutil.copy(make_clip("a.mp4"), tmp_path / "concat:a.mp4")
    os.chdir(tmp_path)
    assert Video.open("concat:a.mp4").num_frames == 8


def test_fifo_device_and_socket_are_refused(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.mp4")
    _refused(tmp_path / "pipe.mp4", UnreadableMediaError, "named pipe")
    _refused("/dev/zero", UnreadableMediaError, "device")
    # A socket's path is limited to about 100 characters.
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.join(folder, "s"))
        _refused(os.path.join(folder, "s"), UnreadableMediaError, "socket")


def test_folder_without_images_is_refused(tmp_path: Path):
    _refused(tmp_path, UnreadableMediaError, "PNG or JPEG")


def test_folder_with_images_of_two_sizes_is_refused(tmp_path: Path):
    for number, width in enumerate((8, 10)):
        image = np.zeros((8, width, 3), np.uint8)
        av.VideoFrame.from_ndarray(image, format="rgb24").save(str(tmp_path / f"{number}.png"))
    _refused(tmp_path, MediaError, "8x8", "10x8")


def test_folder_with_a_text_file_named_png_is_refused(tmp_path: Path):
    (tmp_path / "a.png").write_text("hello world\n" * 20)
    _refused(tmp_path, UnreadableMediaError, "a.png")


@pytest.mark.parametrize("path", [3, None, b"clip.mp4", ["clip.mp4"]])
def test_path_of_another_type_is_refused(path: object):
    with pytest.raises(InputTypeError, match="path"):
        Video.open(path)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["", "a\0b.mp4"])
def test_path_that_names_nothing_is_refused(path: str):
    with pytest.raises(UnreadableMediaError):
        Video.open(path)


def test_audio_alone_is_refused(tmp_path: Path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        for _ in range(4):
            samples = np.zeros((1, 1024), np.float32)
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate = 48000
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    _refused(path, UnsupportedMediaError, "video stream", "audio")


def test_cover_art_is_no_video(make_clip, tmp_path: Path):
    path = tmp_path / "song.mp4"
    image = make_clip("cover.png", codec="png", pix_fmt="rgb24", frames=1, format="image2")
    with av.open(str(path), "w") as container, av.open(str(image)) as cover:
        sound = container.add_stream("aac", rate=48000)
        art = container.add_stream_from_template(cover.streams.video[0])
        art.disposition = av.stream.Disposition.attached_pic
        for packet in cover.demux(video=0):
            if packet.size:
                packet.stream = art
                container.mux(packet)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 48000
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    _refused(path, UnsupportedMediaError, "cover art")


def test_mp4_without_its_index(make_clip):
    path = make_clip("a.mp4", frames=40)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moov") - 100])
    _refused(path, TruncatedMediaError, "moov", "fetch the file again")


@pytest.mark.parametrize("name", ["a.mkv", "a.ts", "fast.mp4"])
def test_cut_file_ends_with_a_warning(make_clip, tmp_path: Path, name: str):
    options = {"movflags": "faststart"} if name == "fast.mp4" else {}
    path = make_clip(name, frames=60, options={"g": "10"}, container_options=options)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10 + 7])
    result = Video.open(path).save(tmp_path / "out.mp4")
    assert result.truncated
    assert 10 < result.frames_out < 60
    assert any("cut" in warning for warning in result.warnings)
    _refused(path, TruncatedMediaError, strict=True)


def test_damaged_frames_are_counted(make_clip, tmp_path: Path):
    path = make_clip("a.mkv", frames=40, size=(320, 240), options={"g": "10"})
    data = bytearray(path.read_bytes())
    for part in range(3, 9):
        middle = len(data) * part // 10
        data[middle : middle + 4] = b"\xff\x00\xaa\x55"
    path.write_bytes(data)
    result = Video.open(path).save(tmp_path / "out.mp4")
    assert any("damaged" in warning for warning in result.warnings)


def test_container_without_frames(make_clip, tmp_path: Path):
    path = make_clip("a.mkv", frames=5)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"\x1f\x43\xb6\x75")])
    _refused(path, TruncatedMediaError, "first frame")


def test_unknown_matrix_is_refused_by_name(make_clip):
    path = make_clip("a.mp4", colour={"colorspace": 8})
    _refused(path, UnsupportedMediaError, "ycgco")


def test_interlaced_is_refused(make_clip):
    path = make_clip("a.mkv", options={"x264-params": "interlaced=1"})
    _refused(path, UnsupportedMediaError, "interlaced", "bwdif")


def test_transparency_is_refused_and_can_be_dropped(tmp_path: Path):
    image = np.full((8, 8, 4), 200, np.uint8)
    _save_rgba(image, tmp_path / "a.png")
    _refused(tmp_path, UnsupportedMediaError, "transparent", 'alpha="drop"')
    assert (Video.open(tmp_path, alpha="drop").frames() == 200).all()
    opaque = tmp_path / "opaque"
    opaque.mkdir()
    image[..., 3] = 255
    _save_rgba(image, opaque / "a.png")
    assert (Video.open(opaque).frames() == 200).all()


def _save_rgba(image: np.ndarray, path: Path) -> None:
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt = image.shape[1], image.shape[0], "rgba"
    encoder.time_base = Fraction(1, 25)
    packets = encoder.encode(av.VideoFrame.from_ndarray(image, format="rgba"))
    path.write_bytes(b"".join(bytes(packet) for packet in packets))


def test_grey_is_read_as_equal_channels(make_clip):
    frames = Video.open(make_clip("a.mkv", codec="ffv1", pix_fmt="gray")).frames()
    assert (frames[..., 0] == frames[..., 1]).all()
    assert frames.max() > 200


def test_size_change_is_refused(make_clip, tmp_path: Path):
    joined = tmp_path / "joined.ts"
    parts = [make_clip("a.ts"), make_clip("b.ts", size=(128, 96), pts=range(20, 28))]
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    _refused(joined, MediaError, "64x48", "128x96")


def test_time_that_runs_backwards_is_refused(make_clip, tmp_path: Path):
    joined = tmp_path / "joined.ts"
    parts = [make_clip("a.ts", pts=range(900, 920)), make_clip("b.ts", pts=range(20))]
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    _refused(joined, MediaError, "time stamps must increase")


@pytest.mark.parametrize(
    ("limits", "word"),
    [
        (Limits(max_pixels=64 * 48 - 1), "64x48"),
        (Limits(max_frames=7), "at most 7 frames"),
        (Limits(max_duration=0.3), "0.3 s"),
    ],
)
@pytest.mark.parametrize("name", ["a.mp4", "a.ts", "a.mkv"])
def test_limits_stop_reading(make_clip, name: str, limits: Limits, word: str):
    _refused(make_clip(name), MediaLimitError, word, limits=limits)


def test_limits_hold_for_folders(tmp_path: Path):
    for number in range(3):
        image = np.zeros((4, 4, 3), np.uint8)
        av.VideoFrame.from_ndarray(image, format="rgb24").save(str(tmp_path / f"{number}.png"))
    _refused(tmp_path, MediaLimitError, limits=Limits(max_frames=2))
    _refused(tmp_path, MediaLimitError, limits=Limits(max_pixels=15))


@pytest.mark.parametrize(
    "options",
    [{"bit_depth": 10}, {"alpha": "keep"}, {"fps": 0}, {"fps": "fast"}, {"fps": float("nan")}],
)
def test_options_are_checked(make_clip, options: dict[str, object]):
    with pytest.raises(InputError, match=next(iter(options))):
        Video.open(make_clip("a.264", format="h264"), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options", [{"strict": "no"}, {"stream": "0"}, {"stream": True}, {"limits": 3}]
)
def test_types_of_options_are_checked(make_clip, options: dict[str, object]):
    with pytest.raises(InputTypeError, match=next(iter(options))):
        Video.open(make_clip("a.mp4"), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["max_pixels", "max_frames", "max_duration"])
def test_limits_are_numbers(name: str):
    with pytest.raises(InputTypeError, match=name):
        Limits(**{name: "many"})  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(6))
def test_mutated_files_raise_nothing_foreign(make_clip, seed: int):
    rng = np.random.default_rng(seed)
    for name in ("a.mp4", "a.mkv", "a.ts", "a.avi"):
        codec = "mpeg4" if name == "a.avi" else "libx264"
        path = make_clip(name, codec=codec, time_base=Fraction(1, 25))
        original = path.read_bytes()
        for _ in range(8):
            data = bytearray(original)
            for position in rng.integers(0, len(data), rng.integers(1, 30)):
                data[position] = rng.integers(256)
            path.write_bytes(data)
            try:
                for _ in Video.open(path, limits=Limits(max_frames=100)):
                    pass
            except FastvidError:
                pass


def test_damaged_hevc_headers_do_not_hang():
    # A drawn clip of libx265 at 64x64 with a few bytes changed at random, for which FFmpeg's
    # frame threads wait for each other.
    path = Path(__file__).parents[1] / "data" / "damaged_hevc.mp4"
    code = f"""
from fastvid.errors import FastvidError
from fastvid.video import Video
try:
    for _ in Video.open({str(path)!r}):
        pass
except FastvidError:
    pass
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
