"""The pipeline: order, overlap, bounded queues, errors, cancel, progress."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from fastvid.errors import CancelledError, InputError, InputTypeError, MediaError, OutputError
from fastvid.pipeline import Pipeline, Progress
from fastvid.video import Frame, Video, VideoInfo


class Brighter:
    """Adds to every value; may wait to play a slow model."""

    def __init__(self, amount: int = 1, seconds: float = 0.0, name: str = "brighter") -> None:
        self.name = name
        self._amount = amount
        self._seconds = seconds
        self.seen = 0

    def transform(self, info: VideoInfo) -> VideoInfo:
        return info

    def process(self, frames: Iterator[Frame], info: VideoInfo) -> Iterator[Frame]:
        for frame in frames:
            time.sleep(self._seconds)
            self.seen += 1
            yield replace(frame, image=frame.image + np.uint8(self._amount))


class Twice:
    """Shows every frame twice, for half the time."""

    name = "twice"

    def transform(self, info: VideoInfo) -> VideoInfo:
        count = None if info.num_frames is None else 2 * info.num_frames
        return replace(info, fps=2 * info.fps, num_frames=count)

    def process(self, frames: Iterator[Frame], info: VideoInfo) -> Iterator[Frame]:
        for frame in frames:
            half = frame.duration / 2
            yield replace(frame, duration=half)
            yield replace(frame, time=frame.time + half, duration=half)


def _video(count: int = 10, size: tuple[int, int] = (32, 16)) -> Video:
    frames = np.zeros((count, size[1], size[0], 3), np.uint8)
    frames += np.arange(count, dtype=np.uint8)[:, None, None, None]
    return Video.from_frames(frames, "30000/1001")


def _our_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("fastvid-")]


def test_stages_run_in_order(tmp_path: Path):
    stages = [Brighter(100), Twice(), Brighter(5)]
    result = Pipeline(stages).run(_video(), tmp_path / "a.mkv", codec="lossless")
    values = Video.open(tmp_path / "a.mkv").frames()[:, 0, 0, 0].tolist()
    assert values == [105 + n // 2 for n in range(20)]
    assert (result.frames_in, result.frames_out) == (10, 20)
    assert list(result.busy) == ["decode", "brighter", "twice", "brighter-2", "encode"]


def test_durations_add_up_and_stamps_stay_exact(tmp_path: Path):
    result = Pipeline([Twice(), Twice()]).run(_video(), tmp_path / "a.mp4")
    assert result.duration == result.duration_in == 10 * Fraction(1001, 30000)
    expected = [n * Fraction(1001, 120000) for n in range(40)]
    assert [frame.time for frame in Video.open(tmp_path / "a.mp4")] == expected
    assert result.warnings == ()


def test_halved_frames_of_a_varying_rate_are_exact(make_varying, tmp_path: Path):
    source = make_varying([0, 333, 1000, 1001, 5000, 5007])
    result = Pipeline([Twice()]).run(source, tmp_path / "a.mp4")
    before, after = list(Video.open(source)), list(Video.open(tmp_path / "a.mp4"))
    assert [frame.time for frame in after[::2]] == [frame.time for frame in before]
    assert [f.time for f in after[1::2]] == [f.time + f.duration / 2 for f in before]
    assert result.warnings == ()


@pytest.fixture
def make_varying(tmp_path: Path):
    def make(ticks: list[int]) -> Path:
        info = VideoInfo(32, 16, Fraction(25), time_base=Fraction(1, 12000))

        class Source:
            warnings: tuple[str, ...] = ()
            truncated = False

            def frames(self) -> Iterator[Frame]:
                for start, end in zip(ticks, [*ticks[1:], ticks[-1] + 500], strict=True):
                    image = np.zeros((16, 32, 3), np.uint8)
                    yield Frame(image, Fraction(start, 12000), Fraction(end - start, 12000))

            def close(self) -> None:
                pass

        Video(Source, info).save(tmp_path / "varying.mp4")
        return tmp_path / "varying.mp4"

    return make


def test_steps_overlap(tmp_path: Path):
    stages = [Brighter(1, 0.02, "first"), Brighter(1, 0.02, "second")]
    result = Pipeline(stages).run(_video(25), tmp_path / "a.mp4")
    busy = result.busy["first"] + result.busy["second"]
    assert busy > 1.0
    assert result.elapsed < busy


def test_queues_are_bounded(tmp_path: Path):
    ahead = []

    class Source:
        read = 0

        def __iter__(self) -> Iterator[np.ndarray]:
            for _ in range(40):
                Source.read += 1
                yield np.zeros((16, 32, 3), np.uint8)

    class Slow(Brighter):
        def process(self, frames: Iterator[Frame], info: VideoInfo) -> Iterator[Frame]:
            for number, frame in enumerate(super().process(frames, info)):
                ahead.append(Source.read - number)
                yield frame

    slow = Slow(1, 0.005, "slow")
    Pipeline([slow], queue_frames=2).run(Video.from_frames(Source(), 25), tmp_path / "a.mp4")
    # One in the source's hand, two waiting, one in the stage, one that the check of size read.
    assert max(ahead) <= 5


@pytest.mark.parametrize("delay", [0.0, 0.3])
def test_cancel_ends_everything_soon(tmp_path: Path, delay: float):
    cancel = threading.Event()
    threading.Timer(delay, cancel.set).start()
    start = time.perf_counter()
    with pytest.raises(CancelledError):
        Pipeline([Brighter(1, 0.02)]).run(_video(250), tmp_path / "a.mp4", cancel=cancel)
    assert time.perf_counter() - start < delay + 1
    assert not list(tmp_path.iterdir())
    assert not _our_threads()


class Stuck(Brighter):
    """Stays in one frame until it is cancelled."""

    def __init__(self) -> None:
        super().__init__(name="stuck")
        self.began = threading.Event()
        self.cancelled = threading.Event()

    def process(self, frames: Iterator[Frame], info: VideoInfo) -> Iterator[Frame]:
        for frame in frames:
            self.began.set()
            if self.cancelled.wait(60):
                raise CancelledError("stuck: was cancelled")
            yield frame

    def cancel(self) -> None:
        self.cancelled.set()


@pytest.mark.timeout(30)
def test_cancel_reaches_a_stage_that_is_busy_with_a_frame(tmp_path: Path):
    stage = Stuck()
    with pytest.raises(CancelledError, match="by its caller"):
        Pipeline([stage]).run(_video(4), tmp_path / "a.mp4", cancel=stage.began)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(30)
def test_error_elsewhere_reaches_a_stage_that_is_busy_with_a_frame(tmp_path: Path):
    stage = Stuck()

    def pictures() -> Iterator[np.ndarray]:
        yield np.zeros((8, 8, 3), np.uint8)
        assert stage.began.wait(20)
        yield np.zeros((9, 8, 3), np.uint8)

    with pytest.raises(InputError, match="as the first"):
        Pipeline([stage]).run(Video.from_frames(pictures(), 25), tmp_path / "a.mp4")
    assert stage.cancelled.is_set()


def test_error_in_a_stage_reaches_the_caller(tmp_path: Path):
    class Broken(Brighter):
        def process(self, frames: Iterator[Frame], info: VideoInfo) -> Iterator[Frame]:
            for number, frame in enumerate(frames):
                if number == 5:
                    raise ZeroDivisionError("in the model")
                yield frame

    with pytest.raises(ZeroDivisionError, match="in the model"):
        Pipeline([Brighter(), Broken(), Brighter()]).run(_video(60), tmp_path / "a.mp4")
    assert not list(tmp_path.iterdir())
    assert not _our_threads()


def test_error_of_the_source_reaches_the_caller(tmp_path: Path):
    def pictures() -> Iterator[np.ndarray]:
        yield np.zeros((16, 32, 3), np.uint8)
        yield np.zeros((17, 32, 3), np.uint8)

    with pytest.raises(InputError, match="17"):
        Pipeline([Brighter()]).run(Video.from_frames(pictures(), 25), tmp_path / "a.mp4")
    with pytest.raises(MediaError, match="none"):
        Pipeline([Brighter()]).run(tmp_path / "none.mp4", tmp_path / "a.mp4")
    assert not list(tmp_path.iterdir())


def test_error_in_progress_stops_the_run(tmp_path: Path):
    def progress(_: Progress) -> None:
        raise BrokenPipeError("terminal is gone")

    with pytest.raises(BrokenPipeError):
        Pipeline([Brighter(1, 0.01)]).run(_video(50), tmp_path / "a.mp4", progress=progress)
    assert not list(tmp_path.iterdir())


def test_stage_may_end_early(tmp_path: Path):
    class First(Brighter):
        def process(self, frames: Iterator[Frame], info: VideoInfo) -> Iterator[Frame]:
            for _ in range(3):
                yield next(frames)

    result = Pipeline([First()]).run(_video(100), tmp_path / "a.mp4")
    assert result.frames_out == 3
    assert not _our_threads()


def test_stage_that_makes_another_size_than_it_said_is_an_error(tmp_path: Path):
    class Liar(Brighter):
        def transform(self, info: VideoInfo) -> VideoInfo:
            return replace(info, width=2 * info.width)

    with pytest.raises(InputError, match=r"\(16, 64, 3\), got \(16, 32, 3\)"):
        Pipeline([Liar()]).run(_video(), tmp_path / "a.mp4")
    assert not list(tmp_path.iterdir())


def test_progress_is_reported_in_the_callers_thread(tmp_path: Path):
    seen: list[tuple[str, Progress]] = []

    def progress(state: Progress) -> None:
        seen.append((threading.current_thread().name, state))

    Pipeline([Brighter(1, 0.02)]).run(_video(30), tmp_path / "a.mp4", progress=progress)
    states = [state for _, state in seen]
    assert {name for name, _ in seen} == {threading.current_thread().name}
    assert len(states) >= 4
    assert [s.frames for s in states] == sorted(s.frames for s in states)
    assert (states[-1].frames, states[-1].total, states[-1].eta) == (30, 30, 0)
    assert states[1].total == 30
    assert all(set(s.busy) == {"decode", "brighter", "encode"} for s in states)
    assert states[-1].fps > 0


def test_total_is_unknown_for_a_generator(tmp_path: Path):
    totals = []
    told = threading.Event()

    def frames():
        yield from np.zeros((4, 16, 32, 3), np.uint8)
        # The run is not over before progress was told once.
        told.wait(30)
        yield np.zeros((16, 32, 3), np.uint8)

    def progress(state):
        totals.append((state.total, state.eta))
        told.set()

    Pipeline().run(Video.from_frames(frames(), 25), tmp_path / "a.mp4", progress=progress)
    assert totals[0] == (None, None)
    assert totals[-1] == (5, 0)


def test_result_is_json(tmp_path: Path):
    result = Pipeline([Brighter()]).run(_video(), tmp_path / "a.mp4")
    values = json.loads(json.dumps(result.to_dict()))
    assert values["frames_out"] == 10
    assert values["path"] == str(tmp_path / "a.mp4")
    assert values["duration"] == pytest.approx(10 * 1001 / 30000)


def test_stages_of_the_video_come_first(tmp_path: Path):
    video = _video().through(Brighter(50, name="own"))
    result = Pipeline([Brighter(1, name="added")]).run(video, tmp_path / "a.mkv", codec="lossless")
    assert list(result.busy) == ["decode", "own", "added", "encode"]
    assert Video.open(tmp_path / "a.mkv").frames()[0, 0, 0, 0] == 51


def test_arguments_are_checked(tmp_path: Path):
    with pytest.raises(InputTypeError, match=r"stages\[0\]"):
        Pipeline([object()])  # type: ignore[list-item]
    with pytest.raises(InputTypeError, match="the class Brighter"):
        Pipeline([Brighter])  # type: ignore[list-item]
    with pytest.raises(InputTypeError, match="stages"):
        Pipeline(3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="queue_frames"):
        Pipeline(queue_frames=0)
    with pytest.raises(OutputError):
        Pipeline().run(_video(), tmp_path / "none" / "a.mp4")


@pytest.mark.parametrize("name", ["progress", "cancel"])
def test_callbacks_are_checked_before_work(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputTypeError, match=name):
        _video().save(tmp_path / "a.mp4", **{name: 3})
    assert list(tmp_path.iterdir()) == []


_INTERRUPTED = """
import sys, time
import numpy as np
from fastvid.pipeline import Pipeline
from fastvid.video import Video

def pictures():
    for number in range(100000):
        if number == 20:
            print("running", flush=True)
        time.sleep(0.005)
        yield np.zeros((64, 64, 3), np.uint8)

try:
    Pipeline().run(Video.from_frames(pictures(), 25), sys.argv[1])
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_interrupt_cleans_up(tmp_path: Path):
    with subprocess.Popen(
        [sys.executable, "-c", _INTERRUPTED, str(tmp_path / "a.mp4")],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        assert [entry.name for entry in tmp_path.iterdir()] == [f".a.mp4.{process.pid}.part"]
        start = time.perf_counter()
        os.kill(process.pid, signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
        assert process.wait(timeout=10) == 0
    assert time.perf_counter() - start < 2
    assert not list(tmp_path.iterdir())
