"""Video of more than 8 bits and HDR: 16 bits inside, tags and light kept, or refused by name."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import bundles
import numpy as np
import pytest

from fastvid import Interpolator, Upscaler
from fastvid.bundle import shipped
from fastvid.errors import (
    InputError,
    InputTypeError,
    OutputError,
    UnsupportedMediaError,
    UnsupportedModelError,
)
from fastvid.video import Video

HDR10 = {"colorspace": 9, "color_primaries": 9, "color_trc": 16}
LIGHT = (
    "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50):"
    "max-cll=1000,400:log-level=none"
)
needs_models = pytest.mark.skipif(
    not {"interpolator-fast", "upscaler-fast-x2"} <= set(shipped()),
    reason="this build ships no models",
)


def deep(count: int = 4, size: tuple[int, int] = (96, 64)) -> np.ndarray:
    """A slope whose steps are finer than 8 bits, moving slowly."""
    width, height = size
    x = np.arange(width) * 37 + np.arange(height)[:, None] * 11
    frames = [np.stack([20000 + x + 64 * k, 30000 + 2 * x, 40000 - x], -1) for k in range(count)]
    return np.stack(frames).astype(np.uint16)


def probe(path: Path) -> dict[str, Any]:
    if shutil.which("ffprobe") is None:
        pytest.skip("ffprobe is not installed")
    command = ["ffprobe", "-v", "error", "-show_streams", "-of", "json", str(path)]
    output = subprocess.run(command, capture_output=True, check=True, timeout=120)
    found: dict[str, Any] = json.loads(output.stdout)
    return found


def test_ten_bits_are_read_as_sixteen(make_clip: Any) -> None:
    path = make_clip("a.mkv", codec="libx264", pix_fmt="yuv420p10le")
    video = Video.open(path)
    assert video.info.bit_depth == 10
    frames = video.frames()
    assert frames.dtype == np.uint16
    plain = Video.open(path, bit_depth=8).frames()
    assert plain.dtype == np.uint8
    assert np.abs(frames / 257 - plain).max() <= 0.51


@pytest.mark.parametrize(
    ("name", "options", "pixels"),
    [
        ("a.mp4", {}, "yuv420p10le"),
        ("a.mp4", {"codec": "h264"}, "yuv420p10le"),
        ("a.mkv", {"codec": "hevc"}, "yuv420p10le"),
        ("a.webm", {}, "yuv420p10le"),
        ("a.mkv", {"codec": "lossless"}, "gbrp16le"),
    ],
)
def test_sixteen_bit_frames_are_written_with_ten(
    tmp_path: Path, name: str, options: dict[str, Any], pixels: str
) -> None:
    frames = deep()
    Video.from_frames(frames, 24).save(tmp_path / name, quality=95, **options)
    with av.open(str(tmp_path / name)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.pix_fmt == pixels
        expected = {"a.mp4": options.get("codec", "hevc")}.get(name)
        assert expected is None or stream.codec_context.name == expected
    again = Video.open(tmp_path / name).frames()
    assert again.dtype == np.uint16
    if pixels == "gbrp16le":
        np.testing.assert_array_equal(again, frames)
    else:
        # Finer than 8 bits could be, whose steps are 257.
        assert np.abs(again.astype(int) - frames).mean() < 100


def test_png_folder_keeps_sixteen_bits(tmp_path: Path) -> None:
    frames = deep(2)
    Video.from_frames(frames, 24).save(tmp_path / "folder")
    np.testing.assert_array_equal(Video.open(tmp_path / "folder").frames(), frames)
    assert Video.open(tmp_path / "folder", bit_depth=8).frames().dtype == np.uint8


def test_hdr_keeps_tags_and_light(tmp_path: Path, make_clip: Any) -> None:
    options = {"x265-params": LIGHT}
    source = make_clip(
        "a.mp4", codec="libx265", pix_fmt="yuv420p10le", colour=HDR10, options=options
    )
    video = Video.open(source)
    assert video.info.colour.transfer == "smpte2084"
    light = video.info.light
    assert light is not None
    assert light.content == (1000, 400)
    assert light.luminance == (Fraction(50, 10000), Fraction(1000))
    assert light.red == (Fraction(34000, 50000), Fraction(16000, 50000))
    video.save(tmp_path / "b.mp4")
    assert Video.open(tmp_path / "b.mp4").info.light == light
    stream = probe(tmp_path / "b.mp4")["streams"][0]
    assert stream["pix_fmt"] == "yuv420p10le"
    assert (stream["color_transfer"], stream["color_primaries"]) == ("smpte2084", "bt2020")
    assert stream["color_space"] == "bt2020nc"


@pytest.mark.parametrize(("name", "encoder"), [("b.mp4", "h264"), ("b.webm", "av1")])
def test_other_encoders_keep_light_too(
    tmp_path: Path, make_clip: Any, name: str, encoder: str
) -> None:
    options = {"x265-params": LIGHT}
    source = make_clip(
        "a.mp4", codec="libx265", pix_fmt="yuv420p10le", colour=HDR10, options=options
    )
    Video.open(source).save(tmp_path / name, codec=encoder)
    found, given = Video.open(tmp_path / name).info.light, Video.open(source).info.light
    assert found is not None
    assert given is not None
    assert found.content == given.content
    assert found.luminance is not None
    assert given.luminance is not None
    assert abs(found.luminance[1] - given.luminance[1]) < 1


@pytest.mark.parametrize("transfer", [16, 18])
def test_hdr_is_refused_with_8_bits(make_clip: Any, transfer: int) -> None:
    colour = {**HDR10, "color_trc": transfer}
    path = make_clip("a.mkv", codec="libx264", pix_fmt="yuv420p10le", colour=colour)
    with pytest.raises(UnsupportedMediaError, match="HDR"):
        Video.open(path, bit_depth=8)
    assert Video.open(path).info.bit_depth == 10
    path = make_clip("b.mkv", colour=colour)
    with pytest.raises(UnsupportedMediaError, match="standard dynamic range"):
        Video.open(path)


def test_what_cannot_hold_it_says_so(tmp_path: Path, make_clip: Any) -> None:
    video = Video.from_frames(deep(), 24)
    with pytest.raises(OutputError, match=r"\.y4m file must have 8 bits"):
        video.save(tmp_path / "a.y4m")
    with pytest.raises(OutputError, match=r"lossless.*must be a \.mkv file, got \.mp4"):
        video.save(tmp_path / "a.mp4", codec="lossless")
    hdr = make_clip("hdr.mkv", codec="libx264", pix_fmt="yuv420p10le", colour=HDR10)
    with pytest.raises(OutputError, match=r"PNG files must be standard dynamic range.*PQ"):
        Video.open(hdr).save(tmp_path / "folder")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hdr.mkv"]


def test_frames_of_two_depths_are_refused() -> None:
    frames = [deep(1)[0], (deep(1)[0] >> 8).astype(np.uint8)]
    with pytest.raises(InputTypeError, match=r"frames\[1\]: dtype must be that of the first"):
        list(Video.from_frames(frames, 24))


def test_preview_of_sixteen_bits_is_shown() -> None:
    assert "data:video/mp4" in Video.from_frames(deep(), 24)._repr_html_()


# Models


@needs_models
def test_models_give_sixteen_bits_for_sixteen() -> None:
    frames = deep(3, (64, 48))
    with (
        Interpolator("fast", device="cpu", threads=1) as between,
        Upscaler("fast", device="cpu", threads=1) as upscaler,
    ):
        made = between.between(frames[0], frames[2], [0.25, 0.5])
        large = upscaler.upscale_frame(frames[0])
        eight = [(f >> 8).astype(np.uint8) for f in frames]
        assert np.abs(made[1] / 257 - between.between(eight[0], eight[2])).max() < 2.5
        assert np.abs(large / 257 - upscaler.upscale_frame(eight[0])).max() < 4
        names = [graph.graph for graph in upscaler.report().graphs]
        assert names == ["upscale", "upscale, 16 bits"]
    assert made.dtype == large.dtype == np.uint16
    # A slope that 8 bits would show as steps stays smooth.
    assert len(np.unique(made[1][..., 0])) > len(np.unique(frames[1][..., 0] >> 8)) * 4
    assert np.abs(made[1].astype(int) - frames[1]).mean() < 60


@needs_models
def test_hdr_clip_is_interpolated_and_enlarged(shared_data: Path, tmp_path: Path) -> None:
    source = Video.open(shared_data / "clips/torchcodec/bt2020_10bit.mp4")
    few = Video.from_frames([f.image for f in itertools.islice(source, 3)], source.fps)
    with (
        Interpolator("fast", device="cpu", threads=1) as between,
        Upscaler("fast", device="cpu", threads=1) as upscaler,
    ):
        target = tmp_path / "out.mkv"
        upscaler.upscale(between.interpolate(few)).save(target, codec="lossless")
        assert source.through(between.stage()).info.colour.transfer == "smpte2084"
    written = Video.open(target).frames()
    assert written.shape == (6, 480, 640, 3)
    assert written.dtype == np.uint16


def test_source_frames_of_ten_bits_pass_through_untouched(tmp_path: Path) -> None:
    frames = deep(3)
    bundle = bundles.interpolator(tmp_path / "blend")
    with Interpolator(bundle.path, device="cpu") as blend:
        video = Video.from_frames(frames, 24)
        with pytest.raises(UnsupportedModelError, match="to take 16 bits a sample, got"):
            blend.interpolate(video)
        with pytest.raises(UnsupportedModelError, match="16 bits"):
            blend.between(frames[0], frames[1])


@needs_models
def test_ten_bit_source_frames_are_bit_exact_in_lossless_output(tmp_path: Path) -> None:
    frames = deep(3)
    with Interpolator("fast", device="cpu", threads=1) as between:
        video = between.interpolate(Video.from_frames(frames, 24), factor=2)
        video.save(tmp_path / "out.mkv", codec="lossless")
    written = Video.open(tmp_path / "out.mkv").frames()
    np.testing.assert_array_equal(written[::2], frames)


@needs_models
def test_frames_of_one_pair_have_one_depth() -> None:
    frame = deep(1)[0]
    with Interpolator("fast", device="cpu", threads=1) as between:
        with pytest.raises(InputTypeError, match="dtype of frame0, uint16, got uint8"):
            between.between(frame, (frame >> 8).astype(np.uint8))
        with pytest.raises((InputTypeError, InputError), match="uint8"):
            between.between(frame.astype(np.float32), frame.astype(np.float32))
