"""Writing: exact time stamps, tags, tracks, codecs and sizes."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from fastvid.errors import InputError, OutputError
from fastvid.video import Colour, Frame, Video, VideoInfo

VFR = [7, 10, 500, 510, 2000, 2001, 2600, 4000, 4010, 9000, 9500, 9501, 30000]


class _Stamped:
    """Frames with given stamps, as an open source."""

    truncated = False

    def __init__(self, stamps: list[Fraction], last: Fraction, size=(80, 64), **info) -> None:
        self.warnings: list[str] = []
        self._stamps, self._last, self._size = stamps, last, size
        values = {"fps": Fraction(25), "time_base": Fraction(1, 12000), **info}
        self.info = VideoInfo(*size, **values)

    def frames(self):
        rng = np.random.default_rng(0)
        ends = [*self._stamps[1:], self._stamps[-1] + self._last]
        for start, end in zip(self._stamps, ends, strict=True):
            image = rng.integers(0, 255, (self._size[1], self._size[0], 3)).astype(np.uint8)
            yield Frame(image, start, end - start)

    def close(self) -> None:
        pass

    def video(self) -> Video:
        return Video(lambda: self, self.info)


def _source(last: Fraction = Fraction(311, 12000), **info) -> _Stamped:
    return _Stamped([Fraction(n, 12000) for n in VFR], last, **info)


@pytest.mark.parametrize("last", [1, 3, 311, 20000])
@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "h264"), ("a.mov", "h264"), ("a.mp4", "hevc"), ("a.mp4", "lossless")],
)
def test_varying_rate_round_trip_is_exact(tmp_path: Path, name: str, codec: str, last: int):
    source = _source(Fraction(last, 12000))
    result = source.video().save(tmp_path / name, codec=codec)
    frames = list(Video.open(tmp_path / name))
    offset = frames[0].time - Fraction(VFR[0], 12000)
    assert [frame.time - offset for frame in frames] == [Fraction(n, 12000) for n in VFR]
    assert sum(frame.duration for frame in frames) == result.duration
    assert result.warnings == ()


def test_av1_round_trip_is_exact(tmp_path: Path):
    _source().video().save(tmp_path / "a.mp4", codec="av1")
    frames = list(Video.open(tmp_path / "a.mp4"))
    assert [f.time - frames[0].time for f in frames] == [Fraction(n - 7, 12000) for n in VFR]


def test_late_first_frame_stays_late(make_clip, tmp_path: Path):
    late = make_clip(
        "late.mkv", pts=range(500, 540, 5), time_base=Fraction(1, 1000), audio="libopus"
    )
    start = next(iter(Video.open(late))).time
    assert start > Fraction(2, 5)
    Video.open(late).save(tmp_path / "out.mp4")
    assert next(iter(Video.open(tmp_path / "out.mp4"))).time == start


def test_stamps_finer_than_the_source_are_exact(tmp_path: Path):
    stamps = [Fraction(n, 90) for n in range(12)]
    source = _Stamped(stamps, Fraction(1, 90), fps=Fraction(30), time_base=Fraction(1, 30))
    result = source.video().save(tmp_path / "a.mp4")
    assert [frame.time for frame in Video.open(tmp_path / "a.mp4")] == stamps
    assert result.warnings == ()


def test_matroska_says_that_it_rounds(tmp_path: Path):
    stamps = [Fraction(n * n, 700) for n in range(1, 13)]
    source = _Stamped(stamps, Fraction(1, 30), time_base=Fraction(1, 2100))
    result = source.video().save(tmp_path / "a.mkv")
    assert any("1 ms" in warning for warning in result.warnings)
    frames = list(Video.open(tmp_path / "a.mkv"))
    for frame, stamp in zip(frames, stamps, strict=True):
        assert abs(frame.time - frames[0].time - stamp + stamps[0]) <= Fraction(1, 1000)


def test_matroska_refuses_frames_it_would_merge(tmp_path: Path, no_leftovers):
    with pytest.raises(OutputError, match="1 ms apart"):
        _source().video().save(tmp_path / "a.mkv")
    no_leftovers()


@pytest.mark.parametrize(
    "colour",
    [
        Colour("bt709", "bt709", "bt709", False),
        Colour("smpte170m", "smpte170m", "smpte170m", False),
        Colour("bt470bg", "bt470bg", "bt709", True),
        Colour("bt709", "bt709", "iec61966-2-1", True),
        Colour("bt2020nc", "bt2020", "bt709", False),
    ],
)
@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "h264"), ("a.mkv", "hevc"), ("a.mp4", "av1")]
)
def test_colour_tags_are_kept(tmp_path: Path, name: str, codec: str, colour: Colour):
    stamps = [Fraction(n, 25) for n in range(4)]
    video = _Stamped(stamps, Fraction(1, 25), colour=colour).video()
    video.save(tmp_path / name, codec=codec)
    assert Video.open(tmp_path / name).info.colour == colour


def test_unspecified_colour_is_written_as_it_was_understood(make_clip, tmp_path: Path):
    Video.open(make_clip("a.mp4")).save(tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].codec_context.colorspace == 6


def test_rgb_is_written_as_limited_bt709(tmp_path: Path):
    Video.from_frames(np.zeros((3, 48, 64, 3), np.uint8), 25).save(tmp_path / "a.mp4")
    colour = Video.open(tmp_path / "a.mp4").info.colour
    assert (colour.matrix, colour.primaries, colour.full_range) == ("bt709", "bt709", False)


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", ["bt709", "smpte170m", "bt2020nc"])
def test_flat_colours_survive(tmp_path: Path, matrix: str, full_range: bool):
    colours = [(255, 255, 255), (0, 0, 0), (200, 30, 40), (20, 180, 60), (30, 60, 210)]
    frames = np.empty((5, 48, 64, 3), np.uint8)
    frames[:] = np.array(colours, np.uint8)[:, None, None]
    source = Video.from_frames(frames, 25)
    info = replace(source.info, colour=Colour(matrix, "bt709", "bt709", full_range))
    Video(source.open_source, info).save(tmp_path / "a.mp4", quality=100)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].codec_context.color_range == (2 if full_range else 1)
    back = Video.open(tmp_path / "a.mp4").frames().astype(int)
    assert np.abs(back - frames).max() <= 4


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.mov"])
def test_lossless_is_exact(tmp_path: Path, name: str, rng: np.random.Generator):
    frames = rng.integers(0, 256, (4, 31, 53, 3)).astype(np.uint8)
    result = Video.from_frames(frames, 25).save(tmp_path / name, codec="lossless")
    assert (Video.open(tmp_path / name).frames() == frames).all()
    assert result.warnings == ()


@pytest.mark.parametrize("name", ["frames", "frames/"])
def test_png_folder_is_exact(tmp_path: Path, name: str, rng: np.random.Generator):
    frames = rng.integers(0, 256, (12, 5, 7, 3)).astype(np.uint8)
    Video.from_frames(frames, 30).save(f"{tmp_path}/{name}")
    assert (tmp_path / "frames" / "000011.png").is_file()
    assert (Video.open(tmp_path / "frames", fps=30).frames() == frames).all()


@pytest.mark.parametrize("size", [(64, 48), (33, 17), (1, 1)])
def test_y4m_is_read_back(tmp_path: Path, size: tuple[int, int]):
    frames = np.full((3, size[1], size[0], 3), (90, 140, 60), np.uint8)
    Video.from_frames(frames, "30000/1001").save(tmp_path / "a.y4m")
    video = Video.open(tmp_path / "a.y4m")
    assert (video.fps, video.size) == (Fraction(30000, 1001), size)
    assert np.abs(video.frames().astype(int) - frames).max() <= 3


def test_y4m_refuses_a_varying_rate(tmp_path: Path, no_leftovers):
    with pytest.raises(OutputError, match="constant frame rate"):
        _source().video().save(tmp_path / "a.y4m")
    no_leftovers()


@pytest.mark.parametrize(
    ("codec", "size"),
    [
        *(("h264", size) for size in ((63, 48), (64, 47), (33, 17), (2, 2), (1, 1), (1, 9))),
        *(("hevc", size) for size in ((64, 64), (65, 64), (64, 65), (97, 65))),
    ],
)
def test_odd_and_small_sizes(tmp_path: Path, size: tuple[int, int], codec: str):
    frames = np.full((3, size[1], size[0], 3), (90, 140, 60), np.uint8)
    result = Video.from_frames(frames, 25).save(tmp_path / "a.mp4", codec=codec)
    odd = size[0] % 2 or size[1] % 2
    assert any("4:4:4" in warning for warning in result.warnings) == bool(odd)
    video = Video.open(tmp_path / "a.mp4")
    assert video.size == size
    assert np.abs(video.frames().astype(int) - frames).max() <= 4


@pytest.mark.parametrize(("codec", "size"), [("hevc", (34, 34)), ("av1", (2, 2))])
def test_size_below_what_the_codec_holds_is_refused(
    tmp_path: Path, codec: str, size: tuple[int, int], no_leftovers
):
    frames = np.zeros((2, size[1], size[0], 3), np.uint8)
    with pytest.raises(OutputError, match=f"{size[0]}x{size[1]}"):
        Video.from_frames(frames, 25).save(tmp_path / "a.mp4", codec=codec)
    no_leftovers()


def test_odd_av1_is_refused(tmp_path: Path, no_leftovers):
    with pytest.raises(OutputError, match="even"):
        Video.from_frames(np.zeros((2, 49, 64, 3), np.uint8), 25).save(
            tmp_path / "a.mp4", codec="av1"
        )
    no_leftovers()


def test_pixel_aspect_is_kept(make_clip, tmp_path: Path):
    Video.open(make_clip("a.mp4", aspect=Fraction(4, 3))).save(tmp_path / "out.mp4")
    assert Video.open(tmp_path / "out.mp4").info.pixel_aspect == Fraction(4, 3)


def test_rotation_is_applied_and_its_tag_is_gone(make_clip, tmp_path: Path):
    Video.open(make_clip("a.mp4", rotation=90)).save(tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        frame = next(container.decode(video=0))
    assert (frame.width, frame.height, frame.rotation) == (48, 64, 0)


@pytest.mark.parametrize(
    ("source", "codec", "name"),
    [
        ("a.mp4", "aac", "out.mp4"),
        ("a.mp4", "aac", "out.mkv"),
        ("a.mkv", "libopus", "out.mp4"),
        ("a.mkv", "flac", "out.mp4"),
        ("a.mkv", "pcm_s16le", "out.mov"),
        ("a.ts", "ac3", "out.ts"),
        ("a.mkv", "libopus", "out.webm"),
    ],
)
def test_audio_packets_are_untouched(
    make_clip, packet_hashes, tmp_path: Path, source: str, codec: str, name: str
):
    path = make_clip(source, audio=codec, frames=25, audio_seconds=1)
    result = Video.open(path).save(tmp_path / name)
    assert result.audio_tracks == 1
    assert packet_hashes(tmp_path / name, "audio") == packet_hashes(path, "audio")
    with av.open(str(path)) as before, av.open(str(tmp_path / name)) as after:
        old = sum(frame.samples for frame in before.decode(audio=0))
        new = sum(frame.samples for frame in after.decode(audio=0))
        # A format may state the encoder's delay or its padding, which is less than two packets.
        assert abs(old - new) <= 1024


def test_audio_that_does_not_fit_is_refused_and_can_be_dropped(
    make_clip, tmp_path: Path, no_leftovers
):
    path = make_clip("a.mkv", audio="pcm_s16le")
    with pytest.raises(OutputError, match='audio="drop"'):
        Video.open(path).save(tmp_path / "out.webm")
    no_leftovers("a.mkv")
    assert Video.open(path).save(tmp_path / "out.webm", audio="drop").audio_tracks == 0


@pytest.mark.parametrize("name", ["out.y4m", "out"])
def test_formats_without_sound_say_so(make_clip, tmp_path: Path, name: str):
    path = make_clip("a.mp4", audio="aac")
    assert any("audio" in text for text in Video.open(path).save(tmp_path / name).warnings)
    dropped = Video.open(path).save(tmp_path / name, audio="drop", overwrite=True)
    assert dropped.warnings == ()


@pytest.mark.parametrize(
    ("name", "codec"), [("a.webm", "h264"), ("a.ts", "av1"), ("a.ts", "lossless")]
)
def test_codec_that_the_format_cannot_hold_is_refused(tmp_path: Path, name: str, codec: str):
    with pytest.raises(OutputError, match=codec):
        Video.from_frames(np.zeros((2, 48, 64, 3), np.uint8), 25).save(tmp_path / name, codec=codec)


def test_unknown_suffix_is_refused(tmp_path: Path, no_leftovers):
    with pytest.raises(OutputError, match=r"\.mp4"):
        Video.from_frames(np.zeros((2, 48, 64, 3), np.uint8), 25).save(tmp_path / "a.xyz")
    no_leftovers()


@pytest.mark.parametrize(
    "options",
    [
        {"codec": "divx"},
        {"quality": 101},
        {"quality": -1},
        {"quality": 50.5},
        {"effort": "most"},
        {"audio": "convert"},
        {"subtitles": True},
    ],
)
def test_options_are_checked(tmp_path: Path, options: dict[str, object], no_leftovers):
    video = Video.from_frames(np.zeros((2, 48, 64, 3), np.uint8), 25)
    with pytest.raises(InputError, match=next(iter(options))):
        video.save(tmp_path / "a.mp4", **options)  # type: ignore[arg-type]
    no_leftovers()


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1"])
def test_quality_trades_size(tmp_path: Path, codec: str, rng: np.random.Generator):
    noise = rng.integers(0, 256, (6, 96, 128, 3)).astype(np.uint8)
    video = Video.from_frames(noise, 25)
    for quality in (10, 90):
        video.save(tmp_path / f"{quality}.mp4", codec=codec, quality=quality)
    small, large = ((tmp_path / f"{q}.mp4").stat().st_size for q in (10, 90))
    assert small < large / 2


def test_no_frames_is_an_error(tmp_path: Path, no_leftovers):
    source = _source()
    source.frames = lambda: iter(())  # type: ignore[method-assign]
    for name in ("a.mp4", "a.y4m", "folder"):
        with pytest.raises(OutputError, match="frames"):
            source.video().save(tmp_path / name)
    no_leftovers()


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("codec", ["h264", "hevc", "av1", "lossless"])
def test_a_few_frames_are_enough(tmp_path: Path, codec: str, count: int):
    frames = np.full((count, 64, 64, 3), 100, np.uint8)
    result = Video.from_frames(frames, 10).save(tmp_path / "a.mp4", codec=codec)
    assert (result.frames_out, result.duration) == (count, Fraction(count, 10))
    back = list(Video.open(tmp_path / "a.mp4"))
    assert [frame.time for frame in back] == [Fraction(n, 10) for n in range(count)]
    assert {frame.duration for frame in back} == {Fraction(1, 10)}


def test_damaged_audio_packets_are_left_out_with_a_warning(make_clip, tmp_path: Path):
    path = make_clip("a.ts", audio="aac", frames=50, audio_seconds=2)
    data = bytearray(path.read_bytes())
    # An ADTS header that promises less than itself, which no format but the source's accepts.
    start = data.index(b"\xff\xf1", len(data) // 2)
    data[start + 3 : start + 6] = b"\x40\x00\x00"
    path.write_bytes(data)
    result = Video.open(path).save(tmp_path / "out.mp4")
    assert any("damaged packets of track 1" in text for text in result.warnings)
    assert result.frames_out == 50
