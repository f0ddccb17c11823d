"""Folders of images: orientation, grey, depth, damage."""

from __future__ import annotations

import struct
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from fastvid.errors import (
    OutputError,
    TruncatedMediaError,
    UnreadableMediaError,
    UnsupportedMediaError,
)
from fastvid.video import Video

# The shown picture for each Exif orientation, from the stored one.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[::-1],
}


def _encode(image: np.ndarray, codec: str, pix_fmt: str, source: str = "rgb24") -> bytes:
    encoder = av.CodecContext.create(codec, "w")
    encoder.width, encoder.height, encoder.pix_fmt = image.shape[1], image.shape[0], pix_fmt
    encoder.time_base = Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(image, format=source).reformat(format=pix_fmt)
    return b"".join(bytes(packet) for packet in encoder.encode(frame) + encoder.encode(None))


@pytest.fixture
def picture() -> np.ndarray:
    y, x = np.mgrid[0:32, 0:48]
    return np.stack([5 * x, 7 * y, x + y], -1).astype(np.uint8)


@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_applied(
    tmp_path: Path, picture: np.ndarray, orientation: int, byte_order: str
):
    jpeg = _encode(picture, "mjpeg", "yuvj444p")
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "a.jpg").write_bytes(jpeg)
    stored = Video.open(tmp_path / "plain").frames()[0]
    tiff = (b"II*\0" if byte_order == "<" else b"MM\0*") + struct.pack(byte_order + "I", 8)
    tiff += struct.pack(byte_order + "HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)
    block = b"Exif\0\0" + tiff
    tagged = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg[2:]
    (tmp_path / "tagged").mkdir()
    (tmp_path / "tagged" / "a.jpg").write_bytes(tagged)
    shown = Video.open(tmp_path / "tagged").frames()[0]
    assert (shown == UPRIGHT[orientation](stored)).all()


def test_broken_exif_is_ignored(tmp_path: Path, picture: np.ndarray):
    jpeg = _encode(picture, "mjpeg", "yuvj444p")
    for tiff in (b"", b"II*\0", b"II*\0\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff" + b"\x12" * 9):
        block = b"Exif\0\0" + tiff
        size = struct.pack(">H", len(block) + 2)
        (tmp_path / "a.jpg").write_bytes(jpeg[:2] + b"\xff\xe1" + size + block + jpeg[2:])
        assert Video.open(tmp_path).size == (48, 32)


def test_grey_image_keeps_its_values(tmp_path: Path):
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    (tmp_path / "a.png").write_bytes(_encode(grey, "png", "gray", "gray"))
    assert (Video.open(tmp_path).frames()[0] == grey[..., None]).all()


def test_16_bits_are_kept_or_rounded(tmp_path: Path):
    deep = np.full((8, 8, 3), 40000, np.uint16)
    (tmp_path / "a.png").write_bytes(_encode(deep, "png", "rgb48be", "rgb48le"))
    assert (Video.open(tmp_path).frames() == 40000).all()
    frames = Video.open(tmp_path, bit_depth=8).frames().astype(int)
    assert np.abs(frames - 40000 / 257).max() <= 1


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_cut_png_is_refused(tmp_path: Path, rng: np.random.Generator, kept: float):
    data = _encode(rng.integers(0, 256, (64, 64, 3)).astype(np.uint8), "png", "rgb24")
    (tmp_path / "a.png").write_bytes(data[: int(kept * len(data))])
    with pytest.raises(TruncatedMediaError, match="cut or damaged"):
        Video.open(tmp_path)


def test_cut_jpeg_is_told(tmp_path: Path, rng: np.random.Generator):
    data = _encode(rng.integers(0, 256, (64, 64, 3)).astype(np.uint8), "mjpeg", "yuvj420p")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(data[: len(data) // 2])
    result = Video.open(tmp_path / "images").save(tmp_path / "a.mp4")
    assert result.truncated
    assert "a.jpg is cut" in result.warnings[0]
    with pytest.raises(TruncatedMediaError):
        Video.open(tmp_path / "images", strict=True)


def test_one_image_is_no_video(tmp_path: Path, picture: np.ndarray):
    (tmp_path / "a.png").write_bytes(_encode(picture, "png", "rgb24"))
    with pytest.raises(UnreadableMediaError, match="name its folder"):
        Video.open(tmp_path / "a.png")


def test_transparent_webm_is_refused(make_clip, tmp_path: Path):
    source, tagged = make_clip("a.webm", codec="libvpx-vp9"), tmp_path / "alpha.webm"
    with av.open(str(source)) as before, av.open(str(tagged), "w") as after:
        stream = after.add_stream_from_template(before.streams.video[0])
        stream.metadata["alpha_mode"] = "1"
        for packet in before.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                after.mux(packet)
    with pytest.raises(UnsupportedMediaError, match="transparency"):
        Video.open(tagged)
    assert len(Video.open(tagged, alpha="drop").frames()) == 8


def test_two_writers_of_one_file_do_not_mix(tmp_path: Path, picture: np.ndarray):
    started, finish = threading.Event(), threading.Event()

    def slow():
        yield picture
        started.set()
        finish.wait(30)
        yield picture

    first = threading.Thread(target=lambda: Video.from_frames(slow(), 5).save(tmp_path / "a.mp4"))
    first.start()
    assert started.wait(30)
    with pytest.raises(OutputError, match="written"):
        Video.from_frames([picture], 5).save(tmp_path / "a.mp4")
    finish.set()
    first.join()
    assert Video.open(tmp_path / "a.mp4").num_frames == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.mp4"]
