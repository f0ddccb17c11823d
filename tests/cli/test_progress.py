"""Progress displays on terminals and elsewhere."""

from __future__ import annotations

import io

import pytest

from fastvid.pipeline import Progress
from fastvid.progress import ProgressDisplay, clock_time, describe


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def state(frames: int, total: int | None, elapsed: float) -> Progress:
    eta = None if total is None or not frames else (total - frames) * elapsed / frames
    fps = frames / elapsed if elapsed else 0.0
    return Progress(frames, total, elapsed, fps, eta, {"decode": 0.1, "upscale": 2.0})


def test_line_has_rate_time_left_and_stage_split() -> None:
    line = describe(state(40, 100, 2.0))
    assert line == "40/100 frames  20.0 fps  ETA 0:03  decode 2.5 upscale 50.0 ms/frame"
    assert describe(state(0, 100, 0.0)) == "0/100 frames"
    assert describe(state(40, 30, 2.0)).startswith("40 frames  20.0 fps  decode")
    assert describe(state(40, None, 2.0)).startswith("40 frames  20.0 fps  decode")


def test_terminal_gets_a_bar_that_redraws_and_clears(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    stream = Terminal()
    display = ProgressDisplay(stream)
    for frames in (10, 50):
        display(state(frames, 100, frames / 20))
    display.close()
    drawn = stream.getvalue().split("\r")
    assert "10%" in drawn[1]
    assert "50%" in drawn[2]
    assert drawn[2].count("█") == 12
    assert drawn[3] == "\x1b[K"
    assert "\n" not in stream.getvalue()


@pytest.mark.parametrize("columns", [20, 60, 79, 90, 200])
def test_terminal_lines_fit(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = Terminal()
    ProgressDisplay(stream)(state(50, 100, 1.0))
    line = stream.getvalue().removeprefix("\r").removesuffix("\x1b[K")
    assert len(line) < columns
    assert "50%" in line


def test_other_streams_get_a_line_every_five_seconds() -> None:
    stream = io.StringIO()
    display = ProgressDisplay(stream)
    for second in range(13):
        display(state(20 * second, 400, float(second)))
    display.close()
    lines = stream.getvalue().splitlines()
    assert [line.split("/")[0] for line in lines] == ["100", "200"]
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00"), (7.4, "0:07"), (754, "12:34"), (3723, "1:02:03")]
)
def test_times_are_clock_times(seconds: float, shown: str) -> None:
    assert clock_time(seconds) == shown
