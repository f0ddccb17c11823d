"""What interpolation and upscaling must never do to a video, on real clips and drawn scenes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import bundles
import numpy as np
import pytest
from PIL import Image, ImageDraw

from fastvid import Interpolator, Upscaler
from fastvid.bundle import shipped
from fastvid.metrics import psnr
from fastvid.video import Video


@pytest.fixture(scope="module", params=["fast", "quality"])
def trained(request: pytest.FixtureRequest) -> Iterator[Interpolator]:
    """Each class that ships."""
    if f"interpolator-{request.param}" not in shipped():
        pytest.skip("the trained interpolator is not installed")
    with Interpolator(request.param, device="cpu", threads=1) as model:
        yield model


@pytest.fixture(scope="module")
def blend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interpolator]:
    folder = tmp_path_factory.mktemp("models") / "blend"
    bundles.interpolator(folder)
    with Interpolator(folder, device="cpu") as model:
        yield model


# Time


@pytest.fixture(scope="module")
def clip_with_sound(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 40 pictures of a real clip, small, at 23.976 per second, with its sound."""
    path = tmp_path_factory.mktemp("clips") / "sound.mp4"
    rate = Fraction(24000, 1001)
    with (
        av.open(str(shared_data / "clips/big_buck_bunny/video.mp4")) as source,
        av.open(str(path), "w") as result,
    ):
        video = result.add_stream("libx264", rate=rate)
        video.width, video.height, video.pix_fmt = 160, 90, "yuv420p"
        video.time_base = video.codec_context.time_base = 1 / rate
        sound = result.add_stream_from_template(source.streams.audio[0])
        for number, frame in enumerate(itertools.islice(source.decode(video=0), 40)):
            small = frame.reformat(160, 90, "yuv420p")
            small.pts, small.time_base = number, 1 / rate
            result.mux(video.encode(small))
        result.mux(video.encode(None))
        source.seek(0)
        for packet in source.demux(audio=0):
            if packet.pts is not None and packet.pts * packet.time_base < 40 / rate:
                packet.stream = sound
                result.mux(packet)
    return path


def _sound(path: Path) -> list[tuple[Fraction, bytes]]:
    with av.open(str(path)) as container:
        packets = list(container.demux(audio=0))
    return [(p.pts * p.time_base, bytes(p)) for p in packets if p.size]


@pytest.mark.parametrize(
    ("rule", "rate"),
    [
        ({"factor": 2}, Fraction(48000, 1001)),
        ({"factor": 5}, Fraction(120000, 1001)),
        ({"fps": 60}, Fraction(60)),
        ({"fps": "59.94"}, Fraction(60000, 1001)),
        ({"fps": 25}, Fraction(25)),
        ({"fps": Fraction(120000, 1001)}, Fraction(120000, 1001)),
    ],
)
def test_duration_count_and_sound_are_exact_at_any_rate(
    clip_with_sound: Path, tmp_path: Path, blend: Interpolator, rule: dict[str, Any], rate: Fraction
) -> None:
    source = Video.open(clip_with_sound)
    target = tmp_path / "out.mp4"
    result = blend.interpolate(source, **rule).save(target)
    duration = sum(frame.duration for frame in source)
    assert result.duration == result.duration_in == duration
    assert result.frames_out == math.ceil(duration * rate)
    written = Video.open(target)
    assert written.fps == rate
    times = [frame.time for frame in written]
    assert times == [times[0] + k / rate for k in range(len(times))]
    before, after = _sound(clip_with_sound), _sound(target)
    assert [data for _, data in after] == [data for _, data in before]
    # Sound keeps its place beside the pictures.
    shifts = [float(b - a) for (a, _), (b, _) in zip(before, after, strict=True)]
    assert max(shifts) - min(shifts) <= 0.0001
    assert abs(shifts[0] - float(times[0] - next(iter(source)).time)) <= 0.0001


def test_varying_rate_keeps_every_source_frame(
    shared_data: Path, tmp_path: Path, blend: Interpolator
) -> None:
    frames = _excerpt(shared_data, "sam2_gallery/bedroom.mp4", 8, (96, 54))
    times = [Fraction(t, 600) for t in (0, 20, 55, 60, 110, 125, 150, 190)]
    path = tmp_path / "vary.mkv"
    with av.open(str(path), "w") as result:
        stream = result.add_stream("ffv1", rate=30)
        stream.width, stream.height, stream.pix_fmt = 96, 54, "bgr0"
        stream.time_base = Fraction(1, 600)
        for time, image in zip(times, frames, strict=True):
            frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="bgr0")
            frame.pts, frame.time_base = int(time * 600), Fraction(1, 600)
            result.mux(stream.encode(frame))
        result.mux(stream.encode(None))
    source = list(Video.open(path))
    target = tmp_path / "out.mkv"
    blend.interpolate(Video.open(path), factor=3).save(target, codec="lossless")
    written = list(Video.open(target))
    assert len(written) == 3 * len(source)
    for before, after in zip(source, written[::3], strict=True):
        np.testing.assert_array_equal(after.image, before.image)
        assert abs(after.time - before.time) <= Fraction(1, 1000)


# Colour

_MATRICES = {"bt709": 1, "smpte170m": 6, "bt2020nc": 9}


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", _MATRICES)
def test_drawn_frames_are_as_bright_as_their_neighbours(
    tmp_path: Path, trained: Interpolator, matrix: str, full: bool, bits: int
) -> None:
    path, target = tmp_path / "bars.mkv", tmp_path / "out.y4m"
    _write_bars(path, _MATRICES[matrix], full, bits)
    trained.interpolate(Video.open(path, bit_depth=8)).save(target)
    means = []
    with av.open(str(target)) as container:
        for frame in container.decode(video=0):
            luma = np.asarray(frame.to_ndarray(), np.float64)[: frame.height]
            # Away from the edge that moves: bars above, a grey ramp below.
            means.append([luma[4:28, 16 * k + 4 : 16 * k + 12].mean() for k in range(8)])
            means[-1] += [luma[40:60, 16 * k + 4 : 16 * k + 12].mean() for k in range(8)]
    values = np.array(means)
    assert len(values) == 12
    steps = values[1:-2:2] - (values[:-3:2] + values[2:-1:2]) / 2
    assert np.abs(steps).max() <= 0.5


def _write_bars(path: Path, matrix: int, full: bool, bits: int) -> None:
    """Six pictures: still colour bars over a grey ramp, with a band that moves between them."""
    name = "yuv444p" if bits == 8 else "yuv444p10le"
    top, low, span = (1 << bits) - 1, 0 if full else 16 << (bits - 8), 1 << (bits - 8)
    white = top if full else 235 * span
    with av.open(str(path), "w") as result:
        stream = result.add_stream("ffv1", rate=24)
        stream.width, stream.height, stream.pix_fmt = 128, 64, name
        stream.codec_context.colorspace = matrix
        stream.codec_context.color_range = 2 if full else 1
        rng = np.random.default_rng(3)
        shade = np.linspace(low, white, 8).repeat(16)
        chroma = rng.integers(96 * span, 160 * span, (2, 8)).repeat(16, axis=1)
        for number in range(6):
            planes = np.empty((3, 64, 128), np.uint16)
            planes[0, :32], planes[0, 32:] = shade[::-1], shade
            planes[1:, :32], planes[1:, 32:] = chroma[:, None], 128 * span
            planes[0, 30:36, 8 * number : 8 * number + 40] = (low + white) // 2
            frame = av.VideoFrame(128, 64, name)
            for plane, values in zip(frame.planes, planes, strict=True):
                samples = values.astype(np.uint8 if bits == 8 else "<u2")
                rows = np.zeros((64, plane.line_size // samples.itemsize), samples.dtype)
                rows[:, :128] = samples
                plane.update(rows.tobytes())
            frame.colorspace, frame.color_range = matrix, 2 if full else 1
            frame.pts, frame.time_base = number, Fraction(1, 24)
            result.mux(stream.encode(frame))
        result.mux(stream.encode(None))


# Pictures


def test_still_content_stays_still(shared_data: Path, trained: Interpolator) -> None:
    ground = _excerpt(shared_data, "sam2_gallery/bedroom.mp4", 1, (320, 180))[0]
    frames = []
    for x in (120, 132):
        frames.append(ground.copy())
        frames[-1][70:110, x : x + 40] = (250, 60, 20)
    made = trained.between(*frames)
    away = np.ones((180, 320), bool)
    away[50:130, 90:200] = False
    assert np.abs(made.astype(int) - ground)[away].max() <= 1


def _lines(at: float) -> np.ndarray:
    """Thin bright lines that move over a slope of grey, drawn with 4 x 4 samples a pixel."""
    picture = Image.linear_gradient("L").resize((4 * 256, 4 * 144)).convert("RGB")
    draw = ImageDraw.Draw(picture)
    for k in range(5):
        x = 4 * (30 + 40 * k + at)
        draw.line((x, 0, x + 160, 4 * 144), fill=(255, 255, 240), width=6)
    return np.asarray(picture.reduce(4))


def _text(at: float) -> np.ndarray:
    """Lines of text that scroll up over a slope of grey."""
    picture = Image.linear_gradient("L").resize((2 * 256, 2 * 144)).convert("RGB")
    draw = ImageDraw.Draw(picture)
    for k in range(8):
        place = (20, round(2 * (26 * k + 6 - at)))
        draw.text(place, "Nothing tears 0123456789", fill=(255, 255, 255), font_size=26)
    return np.asarray(picture.reduce(2))


_CREDITS = (
    "Directed by Nobody", "Music: the quick fox", "jumps over lazy dogs", "Camera 42, Sound 17",
    "filmed on location", "places far, far away", "with thanks to all", "(c) MMXXVI, all rights",
)  # fmt: skip


def _credits(at: float) -> np.ndarray:
    """Lines of text, each another, that scroll up."""
    picture = Image.new("RGB", (2 * 256, 2 * 144), (30, 40, 60))
    draw = ImageDraw.Draw(picture)
    for k in range(16):
        place = (20 + 37 * k % 60, round(2 * (26 * k - 100 - at)))
        draw.text(place, _CREDITS[k % 8], fill=(255, 255, 255), font_size=26)
    return np.asarray(picture.reduce(2))


def _crawl(at: float) -> np.ndarray:
    """A line of text that passes to the left."""
    picture = Image.linear_gradient("L").resize((2 * 256, 2 * 144)).convert("RGB")
    draw = ImageDraw.Draw(picture)
    text = "   ".join(_CREDITS)
    draw.text((round(2 * (200 - at)), 120), text, fill=(255, 255, 255), font_size=30)
    return np.asarray(picture.reduce(2))


def _grid(at: float) -> np.ndarray:
    """A grid of lines of one pixel, 20 pixels apart, that moves right and down."""
    picture = Image.new("RGB", (4 * 256, 4 * 144), (60, 90, 60))
    draw = ImageDraw.Draw(picture)
    for k in range(-2, 20):
        x, y = 4 * (20 * k + at), 4 * (20 * k + at / 2)
        draw.line((x, 0, x, 4 * 144), fill=(230, 230, 200), width=5)
        draw.line((0, y, 4 * 256, y), fill=(230, 230, 200), width=5)
    return np.asarray(picture.reduce(4))


def _glass(at: float) -> np.ndarray:
    """A pane through which the scene behind is seen, and a reflection that moves over it."""
    rng = np.random.default_rng(0)
    behind, reflected = (
        np.asarray(
            Image.fromarray(rng.integers(0, 256, (20, 34, 3), np.uint8)).resize(
                (340, 200), Image.Resampling.BICUBIC
            )
        ).astype(float)
        for _ in range(2)
    )
    x = round(at)
    share = np.zeros((144, 256, 1))
    share[40:110, 60 + x : 160 + x] = 0.45
    pane = reflected[20:164, 40 - x : 296 - x]
    return np.rint(behind[20:164, 40:296] * (1 - share) + share * pane).astype(np.uint8)


def _against_averaging(
    model: Interpolator, draw: Callable[[float], np.ndarray], speed: int
) -> float:
    """PSNR of a middle frame, less that of the mean of both, in dB; `speed` in pixels a frame."""
    first, middle, last = (draw(speed * k) for k in range(3))
    averaged = np.rint((first.astype(float) + last) / 2).astype(np.uint8)
    return psnr(model.between(first, last), middle) - psnr(averaged, middle)


_FOLLOWED = {_lines: (2, 5, 8), _text: (2, 5), _crawl: (2, 4), _credits: (2, 4), _grid: (2,)}
_BEYOND = {_credits: (8, 16), _lines: (12,), _grid: (4,), _glass: (2, 5, 8)}


def _scenes(speeds: dict[Callable[[float], np.ndarray], tuple[int, ...]]) -> Any:
    return [
        pytest.param(draw, v, id=f"{draw.__name__}-{v}") for draw in speeds for v in speeds[draw]
    ]


@pytest.mark.parametrize(("draw", "speed"), _scenes(_FOLLOWED))
def test_lines_and_text_do_not_tear(
    trained: Interpolator, draw: Callable[[float], np.ndarray], speed: int
) -> None:
    assert _against_averaging(trained, draw, speed) > 3


@pytest.mark.parametrize(("draw", "speed"), _scenes(_BEYOND))
def test_what_cannot_be_followed_is_hardly_worse_than_averaging(
    trained: Interpolator, draw: Callable[[float], np.ndarray], speed: int
) -> None:
    """Rows of text that move by half their distance or more, and two motions in one place."""
    assert _against_averaging(trained, draw, speed) > -1.5


# Sizes


@pytest.mark.parametrize("size", [(16, 16), (17, 31), (333, 18)])
def test_small_and_odd_sizes_pass_through_both(
    trained: Interpolator, size: tuple[int, int]
) -> None:
    width, height = size
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 256, (3, height, width, 3)).astype(np.uint8)
    with Upscaler("fast", device="cpu", threads=1) as upscaler:
        video = upscaler.upscale(trained.interpolate(Video.from_frames(frames, 30)))
        result = video.frames()
    assert result.shape == (6, 2 * height, 2 * width, 3)


def _excerpt(shared_data: Path, clip: str, count: int, size: tuple[int, int]) -> list[np.ndarray]:
    with av.open(str(shared_data / "clips" / clip)) as container:
        frames = itertools.islice(container.decode(video=0), count)
        return [f.reformat(*size, "rgb24", interpolation="AREA").to_ndarray() for f in frames]
