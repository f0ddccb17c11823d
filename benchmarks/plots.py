"""Quality against time as SVG, from the results of the rankings.

`report.py` writes them to `docs/figures/rank_*.svg`. They bring their own background, light or dark
by what the reader prefers, so that they can be read on any page.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

import rank_tables
import timing

FIGURES = timing.ROOT / "docs" / "figures"
WIDTH, HEIGHT = 760, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 24, 56, 52
_CHARACTER, _LINE = 7.2, 13.0
"""Of the labels, in pixels: a little more than they take."""
_STYLE = """
.panel { fill: #ffffff; stroke: #d0d7de } .grid { stroke: #e4e8ec } .mark { stroke: #afb8c1 }
.text { fill: #24292f }
.faint { fill: #57606a } .own { fill: #0a66c2 } .peer { fill: #8c959f } .front { stroke: #0a66c2 }
@media (prefers-color-scheme: dark) {
.panel { fill: #0d1117; stroke: #30363d } .grid { stroke: #21262d } .mark { stroke: #484f58 }
.text { fill: #e6edf3 }
.faint { fill: #9198a1 } .own { fill: #4ea1ff } .peer { fill: #7d8590 } .front { stroke: #4ea1ff }
}
text { font: 12px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif }
.title { font-size: 15px; font-weight: 600 } .strong { font-weight: 600 }
"""
_REAL_TIME = 1000 / 30
Point = tuple[str, float, float, bool]
Box = tuple[float, float, float, float]


def figure(title: str, note: str, points: Sequence[Point]) -> str:
    """An SVG: milliseconds on a logarithmic axis, dB upwards, names beside the dots.

    Args:
        title: Above.
        note: Below the title, smaller.
        points: Name, milliseconds, dB, and whether the dot stands out.
    """
    xs, ys = [p[1] for p in points], [p[2] for p in points]
    low, high = math.log10(min(xs)) - 0.08, math.log10(max(xs)) + 0.22
    bottom, top = min(ys) - 0.08 * _spread(ys), max(ys) + 0.12 * _spread(ys)

    def x_of(ms: float) -> float:
        return _LEFT + (math.log10(ms) - low) / (high - low) * (WIDTH - _LEFT - _RIGHT)

    def y_of(db: float) -> float:
        return HEIGHT - _BOTTOM - (db - bottom) / (top - bottom) * (HEIGHT - _TOP - _BOTTOM)

    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            f'width="{WIDTH}" height="{HEIGHT}" role="img"><title>{escape(title)}</title>'
            f"<style>{_STYLE}</style>"
        ),
        f'<rect class="panel" x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="6"/>',
        _text(_LEFT - 46, 24, title, "text title"),
        _text(_LEFT - 46, 42, note, "faint"),
        _text(WIDTH - _RIGHT, HEIGHT - 12, "milliseconds a frame, 2 cores", "faint", "end"),
        _text(_LEFT - 46, HEIGHT - _BOTTOM + 18, "dB", "faint"),
    ]
    for ms in _marks(10**low, 10**high):
        x = x_of(ms)
        parts.append(_line(x, _TOP, x, HEIGHT - _BOTTOM))
        parts.append(_text(x, HEIGHT - _BOTTOM + 18, f"{ms:g}", "faint", "middle"))
    for db in _levels(bottom, top):
        y = y_of(db)
        parts.append(_line(_LEFT, y, WIDTH - _RIGHT, y))
        parts.append(_text(_LEFT - 8, y + 4, f"{db:g}", "faint", "end"))
    if low < math.log10(_REAL_TIME) < high:
        x = x_of(_REAL_TIME)
        parts.append(_line(x, _TOP, x, HEIGHT - _BOTTOM, "mark"))
        parts.append(_text(x + 4, HEIGHT - _BOTTOM - 6, "30 a second", "faint"))
    front = [f"{x_of(ms):.1f},{y_of(db):.1f}" for _, ms, db, _ in best(points)]
    parts.append(
        f'<polyline class="front" points="{" ".join(front)}" fill="none" '
        'stroke-dasharray="3 4" stroke-opacity="0.5"/>'
    )
    dots = [(x_of(ms), y_of(db)) for _, ms, db, _ in points]
    taken: list[Box] = [(x - 6, y - 6, x + 6, y + 6) for x, y in dots]
    for (name, _, _, own), (x, y) in sorted(
        zip(points, dots, strict=True), key=lambda item: (not item[0][3], item[1])
    ):
        kind = "own" if own else "peer"
        parts.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{5 if own else 4}"/>')
        left, base = _place(name, x, y, taken)
        parts.append(_text(left, base, name, "text strong" if own else "faint"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def best(points: Iterable[Point]) -> list[Point]:
    """Those that no other beats in both time and quality, the fastest first."""
    found: list[Point] = []
    for point in sorted(points, key=lambda p: (p[1], -p[2])):
        if not found or point[2] > found[-1][2]:
            found.append(point)
    return found


def _place(name: str, x: float, y: float, taken: list[Box]) -> tuple[float, float]:
    """Left end and base line of a label near its dot that covers as little as can be."""
    width = _CHARACTER * len(name)
    choices = []
    for far in (0, 1, 2):
        step = far * _LINE
        choices += [
            (x + 9, y + 4 - step), (x + 9, y + 4 + step), (x - 9 - width, y + 4 - step),
            (x - 9 - width, y + 4 + step), (x - width / 2, y - 10 - step),
            (x - width / 2, y + 19 + step),
        ]  # fmt: skip

    def covered(choice: tuple[float, float]) -> float:
        box = _box(choice, width)
        outside = max(0.0, _LEFT - 40 - box[0]) + max(0.0, box[2] - WIDTH + 4)
        outside += max(0.0, _TOP - 8 - box[1]) + max(0.0, box[3] - HEIGHT + _BOTTOM)
        return 100 * outside + sum(_overlap(box, other) for other in taken)

    chosen = min(choices, key=covered)
    taken.append(_box(chosen, width))
    return chosen


def _box(choice: tuple[float, float], width: float) -> Box:
    left, base = choice
    return left, base - _LINE + 3, left + width, base + 3


def _overlap(a: Box, b: Box) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0


def _spread(values: Sequence[float]) -> float:
    return max(values) - min(values) or 1.0


def _marks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten between."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [m * 10.0**p for p in powers for m in (1, 2, 5) if low <= m * 10.0**p <= high]


def _levels(low: float, high: float) -> list[float]:
    step = next(s for s in (0.25, 0.5, 1, 2, 5, 10) if (high - low) / s <= 9)
    first = math.ceil(low / step)
    return [step * n for n in range(first, math.floor(high / step) + 1)]


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    side = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}"{side}>{escape(text)}</text>'


def _line(x0: float, y0: float, x1: float, y1: float, kind: str = "grid") -> str:
    return f'<line class="{kind}" x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"/>'


def figures() -> dict[str, str]:
    """Names of files, and what belongs into them."""
    note = "PSNR on clips kept aside, against time; each method in its fastest runtime here"
    made = {
        "rank_interpolation": (
            "A frame between two, 1280x720", note, rank_tables.points("rank_interpolation")
        )
    }  # fmt: skip
    for scale, size in rank_tables.FIRST_SIZE.items():
        width, height = map(int, size.split("x"))
        made[f"rank_upscaling_x{scale}"] = (
            f"{size} to {scale * width}x{scale * height}",
            "Luma PSNR on pictures kept aside, against time; each in its fastest runtime here",
            rank_tables.points("rank_upscaling", f"x{scale} ", size),
        )
    return {f"{k}.svg": figure(*given) for k, given in made.items() if len(given[2]) > 1}
