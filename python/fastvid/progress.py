"""How far the work is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import TextIO

from fastvid.pipeline import Progress

_REDRAW_SECONDS = 0.1
_LINE_SECONDS = 5.0
_BAR_WIDTH = 24
_LEAST_BAR_WIDTH = 4
_EIGHTHS = " ▏▎▍▌▋▊▉█"


class ProgressDisplay:
    """Shows frames done, frames per second, time left and what each step costs.

    Args:
        stream: Where it is shown; a bar that redraws itself if that is a terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._shown = float("-inf") if self._is_terminal else 0.0
        self._drawn = False

    def __call__(self, progress: Progress) -> None:
        """Show a state, at most ten times a second on a terminal and every 5 s elsewhere."""
        pause = _REDRAW_SECONDS if self._is_terminal else _LINE_SECONDS
        if progress.elapsed - self._shown < pause:
            return
        self._shown = progress.elapsed
        line = describe(progress)
        if self._is_terminal:
            width = shutil.get_terminal_size().columns - 1
            self._write(f"\r{_with_bar(progress, line, width)}\x1b[K")
        else:
            self._write(f"{line}\n")
        self._drawn = True

    def close(self) -> None:
        """Clear the bar."""
        if self._drawn and self._is_terminal:
            self._write("\r\x1b[K")
        self._drawn = False

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            self._stream.write(text.encode("ascii", "replace").decode())
        self._stream.flush()


def describe(progress: Progress) -> str:
    """One line such as `120/300 frames  24.0 fps  ETA 0:07  decode 1.2 upscale 30.5 ms/frame`."""
    done, total = progress.frames, _total(progress)
    parts = [f"{done} frames" if total is None else f"{done}/{total} frames"]
    if done:
        parts.append(f"{progress.fps:.1f} fps")
        if total and progress.eta is not None:
            parts.append(f"ETA {clock_time(progress.eta)}")
        parts.append(split(progress.busy, done))
    return "  ".join(parts)


def split(busy: Mapping[str, float], frames: int) -> str:
    """What each step costs, such as `decode 1.2 upscale 30.5 ms/frame`."""
    steps = " ".join(f"{name} {1e3 * seconds / frames:.1f}" for name, seconds in busy.items())
    return f"{steps} ms/frame"


def clock_time(seconds: float) -> str:
    """`0:07`, `12:34` or `1:02:03`."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _total(progress: Progress) -> int | None:
    """Frames expected; more frames than that count as an unknown total."""
    total = progress.total
    return total if total is not None and total >= max(progress.frames, 1) else None


def _with_bar(progress: Progress, line: str, width: int) -> str:
    """The line behind a percentage, and a bar as wide as `width` leaves room for."""
    total = _total(progress)
    if total is None:
        return line[:width]
    fraction = progress.frames / total
    line = f"{int(100 * fraction):3d}%  {line}"
    room = min(_BAR_WIDTH, width - len(line) - 1)
    if room >= _LEAST_BAR_WIDTH:
        full, rest = divmod(round(fraction * room * 8), 8)
        line = f"{'█' * full + _EIGHTHS[rest].strip():{room}} {line}"
    return line[:width]
