"""`Interpolator` on a bundle that blends linearly, so that every result is known exactly."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import bundles
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastvid._rates import common_unit, frame_rate
from fastvid.bundle import shipped
from fastvid.errors import FastvidError, InputError, InputTypeError
from fastvid.interpolator import Interpolator
from fastvid.video import Frame, Stage, Video, VideoInfo


@pytest.fixture(scope="module")
def blend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interpolator]:
    folder = tmp_path_factory.mktemp("models") / "blend"
    bundles.interpolator(folder)
    with Interpolator(folder, device="cpu") as model:
        yield model


def level(value: int, height: int = 4, width: int = 6) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def levels(frames: list[Frame]) -> list[int]:
    return [int(frame.image[0, 0, 0]) for frame in frames]


def stream(values: list[int], times: list[Fraction]) -> tuple[list[Frame], VideoInfo]:
    """Frames of one level each; the last of `times` is where the last one ends."""
    frames = [
        Frame(level(v), t, end - t) for v, t, end in zip(values, times[:-1], times[1:], strict=True)
    ]
    fps = len(values) / (times[-1] - times[0])
    return frames, VideoInfo(6, 4, fps, len(values), times[-1] - times[0])


def test_between_blends_at_the_time_asked_for(blend: Interpolator) -> None:
    frames = level(100), level(200)
    assert blend.between(*frames)[0, 0, 0] == 150
    assert blend.between(*frames, 0.25)[0, 0, 0] == 125
    assert blend.between(*frames, np.float32(0.75))[0, 0, 0] == 175


def test_sequence_of_times_gives_a_stack(blend: Interpolator) -> None:
    result = blend.between(level(0), level(200), [0, 0.25, 0.5, 1])
    assert result.shape == (4, 4, 6, 3)
    assert result.dtype == np.uint8
    assert result[:, 0, 0, 0].tolist() == [0, 50, 100, 200]
    assert blend.between(level(0), level(200), []).shape == (0, 4, 6, 3)
    assert blend.between(level(0), level(200), (0.5,)).shape == (1, 4, 6, 3)


def test_ends_are_copies_of_the_frames(blend: Interpolator, rng: np.random.Generator) -> None:
    frames = [rng.integers(0, 256, (5, 7, 3), dtype=np.uint8) for _ in range(2)]
    for end in (0, 1):
        result = blend.between(*frames, end)
        np.testing.assert_array_equal(result, frames[end])
        assert not np.shares_memory(result, frames[end])


def count_runs(monkeypatch: pytest.MonkeyPatch, model: Interpolator) -> dict[str, int]:
    runs = {"motion": 0, "between": 0}

    class Counted:
        def __init__(self, name: str, session: Any) -> None:
            self.name, self.session = name, session
            self.inputs, self.outputs = session.inputs, session.outputs

        def run(self, inputs: dict[str, Any], **options: Any) -> dict[str, Any]:
            runs[self.name] += 1
            return self.session.run(inputs, **options)

    counted = {name: Counted(name, model._graph(name)) for name in ("motion", "between")}
    monkeypatch.setattr(model, "_graph", lambda name, dtype: counted[name])
    return runs


def test_motion_is_computed_once_per_pair(
    blend: Interpolator, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = count_runs(monkeypatch, blend)
    blend.between(level(0), level(200), [0.2, 0.4, 0.6, 0.8])
    assert runs == {"motion": 1, "between": 4}
    blend.between(level(0), level(200), [0, 1])
    assert runs == {"motion": 1, "between": 4}


@pytest.mark.parametrize("size", [(1, 1), (9, 7), (16, 24)])
def test_size_rule_is_met_by_padding_and_cropping(
    tmp_path: Path, rng: np.random.Generator, size: tuple[int, int]
) -> None:
    bundles.interpolator(tmp_path / "m", padding="edge", multiple_of=8, minimum=16)
    first, second = (rng.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(2))
    with Interpolator(tmp_path / "m", device="cpu") as model:
        result = model.between(first, second)
    expected = np.rint((first.astype(float) + second) / 2)
    assert result.flags.c_contiguous
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ((level(0), level(0, 4, 7)), InputError, "shape of frame0"),
        ((level(0), level(0).astype(np.float32)), InputTypeError, "frame1: argument must be uint8"),
        ((level(0).transpose(2, 0, 1), level(0)), InputError, "moveaxis"),
        ((level(0), level(0), 1.5), InputError, "from 0 to 1, got 1.5"),
        ((level(0), level(0), -0.1), InputError, "from 0 to 1"),
        ((level(0), level(0), float("nan")), InputError, "got nan"),
        ((level(0), level(0), [0.5, float("inf")]), InputError, "got inf"),
        ((level(0), level(0), "0.5"), InputTypeError, "number"),
        ((level(0), level(0), None), InputTypeError, "number"),
        ((level(0), level(0), True), InputTypeError, "number"),
        ((level(0), level(0), [[0.5]]), InputError, "1-D"),
        ((level(0), level(0), [0.1, [0.2]]), InputError, "number"),
    ],
)
def test_wrong_arguments_of_between_are_refused(
    blend: Interpolator, arguments: tuple[Any, ...], error: type[FastvidError], says: str
) -> None:
    with pytest.raises(error) as caught:
        blend.between(*arguments)
    assert says in str(caught.value)


def test_factor_divides_each_interval(blend: Interpolator) -> None:
    video = Video.from_frames([level(0), level(32), level(16)], 10)
    result = list(blend.interpolate(video, factor=4))
    assert levels(result) == [0, 8, 16, 24, 32, 28, 24, 20, 16, 16, 16, 16]
    assert [frame.time for frame in result] == [Fraction(k, 40) for k in range(12)]
    assert {frame.duration for frame in result} == {Fraction(1, 40)}


def test_factor_two_is_the_default_and_info_follows(blend: Interpolator) -> None:
    video = blend.interpolate(Video.from_frames([level(0), level(80)], 25))
    assert (video.fps, video.num_frames, video.duration) == (50, 4, Fraction(2, 25))
    assert len(list(video)) == 4


def test_interpolation_reads_lazily(blend: Interpolator) -> None:
    read = []

    def source() -> Iterator[np.ndarray]:
        for index in range(100):
            read.append(index)
            yield level(index)

    frames = iter(blend.interpolate(Video.from_frames(source(), 10), factor=2))
    assert read == [0]
    for _ in range(4):
        next(frames)
    assert len(read) <= 4


def test_source_frames_pass_through_untouched(blend: Interpolator) -> None:
    sources = [level(v) for v in (0, 80, 40)]
    result = [f.image for f in blend.interpolate(Video.from_frames(sources, 10), factor=3)]
    for index, source in enumerate(sources):
        assert np.shares_memory(result[3 * index], source)


def test_varying_frame_rate_is_followed_by_factor(blend: Interpolator) -> None:
    times = [Fraction(n, 100) for n in (0, 10, 40, 45)]
    frames, info = stream([0, 32, 16], times)
    result = list(blend.stage(factor=2).process(iter(frames), info))
    assert [f.time * 200 for f in result] == [0, 10, 20, 50, 80, 85]
    assert [f.duration * 200 for f in result] == [10, 10, 30, 30, 5, 5]
    assert levels(result) == [0, 16, 32, 24, 16, 16]


def test_fps_places_frames_on_an_exact_grid(blend: Interpolator) -> None:
    video = Video.from_frames([level(v) for v in (0, 30, 60)], 24)
    fast = blend.interpolate(video, fps="59.94")
    assert fast.fps == Fraction(60000, 1001)
    result = list(fast)
    step = Fraction(1001, 60000)
    assert [f.time for f in result] == [k * step for k in range(8)]
    assert [f.duration for f in result[:-1]] == [step] * 7
    assert sum(f.duration for f in result) == Fraction(3, 24)
    expected = [min(60, round(float(30 * 24 * k * step))) for k in range(8)]
    assert levels(result) == expected
    assert fast.num_frames == 8


def test_fps_turns_varying_into_constant(blend: Interpolator) -> None:
    frames, info = stream([0, 32, 16], [Fraction(n, 10) for n in (0, 1, 5, 6)])
    result = list(blend.stage(fps=10).process(iter(frames), info))
    assert [f.time * 10 for f in result] == [0, 1, 2, 3, 4, 5]
    assert levels(result) == [0, 32, 28, 24, 20, 16]


def test_lower_fps_keeps_the_duration(blend: Interpolator) -> None:
    video = Video.from_frames([level(8 * k) for k in range(10)], 30)
    result = list(blend.interpolate(video, fps=8))
    assert levels(result) == [0, 30, 60]
    assert sum(f.duration for f in result) == Fraction(10, 30)


rates = st.one_of(
    st.integers(2, 7).map(lambda n: {"factor": n}),
    st.fractions(Fraction(1), Fraction(200), max_denominator=1001).map(lambda f: {"fps": f}),
)


@settings(max_examples=60, deadline=None)
@given(
    rate=rates,
    start=st.fractions(0, 2, max_denominator=90),
    ticks=st.lists(st.integers(1, 40), min_size=2, max_size=6),
)
def test_durations_in_and_out_sum_to_the_same(
    blend: Interpolator, rate: dict[str, Any], start: Fraction, ticks: list[int]
) -> None:
    times = [start + Fraction(sum(ticks[:k]), 90) for k in range(len(ticks) + 1)]
    frames, info = stream([20 * k for k in range(len(ticks))], times)
    result = list(blend.stage(**rate).process(iter(frames), info))
    assert result[0].time == start
    assert sum(f.duration for f in result) == sum(f.duration for f in frames)
    assert all(f.duration > 0 for f in result)
    for frame, after in itertools.pairwise(result):
        assert frame.time + frame.duration == after.time


@settings(max_examples=60, deadline=None)
@given(rate=rates, ticks=st.lists(st.integers(1, 40), min_size=2, max_size=6))
def test_time_base_divides_every_time_stamp(
    blend: Interpolator, rate: dict[str, Any], ticks: list[int]
) -> None:
    unit = Fraction(1, 90)
    times = [Fraction(sum(ticks[:k]), 90) for k in range(len(ticks) + 1)]
    frames, info = stream(list(range(len(ticks))), times)
    info = VideoInfo(6, 4, info.fps, time_base=unit)
    stage = blend.stage(**rate)
    base = stage.transform(info).time_base
    assert base is not None
    for frame in stage.process(iter(frames), info):
        assert (frame.time / base).denominator == 1
        assert (frame.duration / base).denominator == 1


def halves(count: int) -> list[np.ndarray]:
    """A drawn scene that becomes another one in the middle."""
    from fastvid.scene import Scene

    scenes = [Scene(160, 96, seed=seed) for seed in (1, 2)]
    return [scenes[k >= count // 2].draw(k / 30) for k in range(count)]


def test_frames_are_repeated_at_a_cut(blend: Interpolator) -> None:
    sources = halves(4)
    result = [f.image for f in blend.interpolate(Video.from_frames(sources, 30), factor=4)]
    nearest = [1, 1, 1, 2]
    for image, source in zip(result[4:8], nearest, strict=True):
        np.testing.assert_array_equal(image, sources[source])
    # Elsewhere frames are blended.
    assert not np.array_equal(result[2], sources[0])
    assert not np.array_equal(result[2], sources[1])


def test_cuts_are_blended_on_request(blend: Interpolator) -> None:
    sources = halves(4)
    video = Video.from_frames(sources, 30)
    result = [f.image for f in blend.interpolate(video, factor=2, scene_cuts=False)]
    expected = np.rint((sources[1].astype(float) + sources[2]) / 2)
    np.testing.assert_array_equal(result[3], expected)


@pytest.mark.parametrize("rhythm", [(2, 2, 2), (2, 3, 2), (4, 1, 3)])
def test_merged_duplicates_move_evenly(blend: Interpolator, rhythm: tuple[int, ...]) -> None:
    values = [30 * i for i, count in enumerate((*rhythm, 1)) for _ in range(count)]
    video = Video.from_frames([level(v) for v in values], 24)
    result = list(blend.interpolate(video, factor=2, duplicates="merge"))
    starts = np.cumsum((0, *rhythm))
    times = np.array([float(frame.time * 24) for frame in result[:-2]])
    even = np.interp(times, starts, [30 * i for i in range(len(starts))])
    np.testing.assert_array_equal(levels(result[:-2]), np.rint(even))
    assert len(result) == 2 * len(values)
    assert sum(frame.duration for frame in result) == Fraction(len(values), 24)


def test_duplicates_are_kept_unless_asked(blend: Interpolator) -> None:
    video = Video.from_frames([level(v) for v in (0, 0, 30, 30)], 24)
    assert levels(list(blend.interpolate(video, factor=2))) == [0, 0, 0, 15, 30, 30, 30, 30]


def test_noise_of_a_codec_does_not_hide_a_duplicate(
    blend: Interpolator, rng: np.random.Generator
) -> None:
    first = np.full((32, 48, 3), 90, np.uint8)
    again = (first + rng.integers(-2, 3, first.shape)).astype(np.uint8)
    frames = [first, again, np.full_like(first, 120)]
    result = list(blend.interpolate(Video.from_frames(frames, 24), factor=2, duplicates="merge"))
    assert levels(result) == [90, 98, 105, 112, 120, 120]


def test_something_small_that_moves_is_no_duplicate(blend: Interpolator) -> None:
    first, second = (np.full((32, 48, 3), 90, np.uint8) for _ in "12")
    second[10:14, 20:22] = 255
    result = list(
        blend.interpolate(
            Video.from_frames([first, second, first], 24), factor=2, duplicates="merge"
        )
    )
    np.testing.assert_array_equal(result[2].image, second)


def test_still_scene_stays_still_until_it_moves(blend: Interpolator) -> None:
    values = [10] * 9 + [40]
    result = list(
        blend.interpolate(
            Video.from_frames([level(v) for v in values], 24), factor=2, duplicates="merge"
        )
    )
    assert levels(result) == [10] * 17 + [25, 40, 40]


def test_fade_is_not_swallowed_with_duplicates(blend: Interpolator) -> None:
    values = list(range(60, 72))
    video = Video.from_frames([level(v) for v in values], 24)
    result = levels(list(blend.interpolate(video, factor=2, duplicates="merge")))
    assert np.abs(np.array(result[::2]) - values).max() <= 1


def test_equal_frames_are_repeated_without_work(
    blend: Interpolator, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = count_runs(monkeypatch, blend)
    video = Video.from_frames([level(7)] * 3 + [level(9)], 30)
    result = list(blend.stage(factor=2).process(iter(video), video.info))
    assert levels(result) == [7] * 4 + [7, 8, 9, 9]
    assert runs["motion"] == 1


@pytest.mark.parametrize("count", [0, 1])
def test_less_than_two_frames_are_refused(blend: Interpolator, count: int) -> None:
    frames = [Frame(level(0), Fraction(0), Fraction(1))] * count
    info = VideoInfo(6, 4, Fraction(1))
    with pytest.raises(InputError, match=f"at least 2 frames, got {count}"):
        list(blend.stage().process(iter(frames), info))


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"factor": 1}, InputError, "from 2 to 64"),
        ({"factor": 65}, InputError, "from 2 to 64"),
        ({"factor": 2.5}, InputTypeError, "fps="),
        ({"factor": True}, InputTypeError, "int"),
        ({"factor": "2"}, InputTypeError, "int"),
        ({"factor": 2, "fps": 60}, InputError, "not both"),
        ({"fps": 0}, InputError, "above 0"),
        ({"fps": -30}, InputError, "above 0"),
        ({"fps": 1001}, InputError, "at most 1000"),
        ({"fps": float("nan")}, InputError, "nan"),
        ({"fps": float("inf")}, InputError, "inf"),
        ({"fps": "fast"}, InputError, "fast"),
        ({"fps": "1/0"}, InputError, "1/0"),
        ({"fps": [60]}, InputTypeError, "list"),
        ({"scene_cuts": 1}, InputTypeError, "bool"),
        ({"duplicates": True}, InputTypeError, "str"),
        ({"duplicates": "drop"}, InputError, "keep, merge"),
    ],
)
def test_wrong_arguments_of_interpolate_are_refused(
    blend: Interpolator, arguments: dict[str, Any], error: type[FastvidError], says: str
) -> None:
    video = Video.from_frames([level(0), level(1)], 10)
    with pytest.raises(error) as caught:
        blend.interpolate(video, **arguments)
    assert says in str(caught.value)


def test_interpolate_refuses_what_is_no_video(blend: Interpolator) -> None:
    with pytest.raises(InputTypeError, match=r"Video\.from_frames"):
        blend.interpolate([level(0), level(1)])  # type: ignore[arg-type]


def test_frame_size_the_bundle_does_not_allow_is_refused_before_reading(tmp_path: Path) -> None:
    bundles.interpolator(tmp_path / "m", maximum=5)
    video = Video.from_frames([level(0), level(1)], 10)
    with (
        Interpolator(tmp_path / "m", device="cpu") as model,
        pytest.raises(InputError, match="from 1 to 5"),
    ):
        model.interpolate(video)


def test_stage_follows_the_protocol(blend: Interpolator) -> None:
    stage = blend.stage(fps=60)
    assert isinstance(stage, Stage)
    assert stage.name == "interpolate"


def test_interpolated_and_upscaled_lazily_in_one_chain(blend: Interpolator, tmp_path: Path) -> None:
    from fastvid.upscaler import Upscaler

    bundles.upscaler(tmp_path / "up")
    video = Video.from_frames([level(0), level(32)], 10)
    with Upscaler(tmp_path / "up", device="cpu") as upscaler:
        result = upscaler.upscale(blend.interpolate(video, factor=2))
        assert result.size == (12, 8)
        assert result.frames()[:, 0, 0, 0].tolist() == [0, 16, 32, 32]


@pytest.mark.parametrize(
    ("rate", "exact"),
    [
        (60, Fraction(60)),
        (59.94, Fraction(60000, 1001)),
        ("29.97", Fraction(30000, 1001)),
        (23.976, Fraction(24000, 1001)),
        (12.5, Fraction(25, 2)),
        ("60000/1001", Fraction(60000, 1001)),
        (Fraction(50), Fraction(50)),
    ],
)
def test_rates_are_exact(rate: object, exact: Fraction) -> None:
    assert frame_rate("fps", rate) == exact


def test_common_unit_is_the_largest_shared_fraction() -> None:
    assert common_unit(Fraction(1, 30), Fraction(1, 24)) == Fraction(1, 120)
    assert common_unit(Fraction(1001, 60000), Fraction(1, 25)) == Fraction(1, 60000)


@pytest.fixture(scope="module", params=["fast", "quality"])
def trained(request: pytest.FixtureRequest) -> Iterator[Interpolator]:
    """Each class that ships."""
    if f"interpolator-{request.param}" not in shipped():
        pytest.skip("the trained interpolator is not installed")
    with Interpolator(request.param, device="cpu") as model:
        yield model


def test_shipped_model_beats_averaging_on_the_drawn_scene(trained: Interpolator) -> None:
    from fastvid.metrics import psnr
    from fastvid.scene import Scene

    scene = Scene(256, 160, seed=3)
    first, truth, second = (scene.draw(0.5 + k / 60) for k in range(3))
    average = np.rint((first.astype(float) + second) / 2)
    result = trained.between(first, second)
    assert psnr(result, truth) > psnr(average, truth) + 2


@pytest.mark.parametrize("size", [(1, 1), (5, 2), (33, 47)])
def test_shipped_model_takes_any_size(
    trained: Interpolator, rng: np.random.Generator, size: tuple[int, int]
) -> None:
    first, second = (rng.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(2))
    assert trained.between(first, second, [0.3, 0.6]).shape == (2, *size, 3)


def test_shipped_model_moves_with_the_time_step(trained: Interpolator) -> None:
    first, second = np.zeros((2, 96, 160, 3), np.uint8)
    first[32:64, 32:64] = second[32:64, 40:72] = 255
    stack = trained.between(first, second, [0.25, 0.5, 0.75]).astype(float)
    columns = np.arange(160)
    centres = [(s[48, :, 0] * columns).sum() / s[48, :, 0].sum() for s in stack]
    assert centres == sorted(centres)
    assert centres[2] - centres[0] > 1


def test_shipped_model_leaves_what_is_still_as_it_is(
    trained: Interpolator, rng: np.random.Generator
) -> None:
    first = rng.integers(0, 256, (96, 192, 3), dtype=np.uint8)
    second = first.copy()
    second[32:64, 160:] = 0
    np.testing.assert_array_equal(trained.between(first, first, 0.3), first)
    np.testing.assert_array_equal(trained.between(first, second)[:, :112], first[:, :112])
