"""The static metadata of HDR video: read from decoded frames, written by encoders.

Mastering display: SMPTE ST 2086; content light level: CTA-861.3. FFmpeg hands both out as the
structures `AVMasteringDisplayMetadata` and `AVContentLightMetadata`.
"""

from __future__ import annotations

import struct
from fractions import Fraction

from fastvid.video.types import Light

MASTERING, CONTENT, DYNAMIC = (
    "MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL", "DYNAMIC_HDR_PLUS",
)  # fmt: skip
_PLACE, _LUMINANCE = 50000, 10000


def light_of(side_data: dict[str, bytes]) -> Light | None:
    """What a frame's side data say, None where they say nothing."""
    light = Light()
    if MASTERING in side_data:
        numbers = struct.unpack_from("=22i", side_data[MASTERING])
        values = [
            Fraction(a, b) if b else Fraction(0)
            for a, b in zip(numbers[:20:2], numbers[1:20:2], strict=True)
        ]
        red, green, blue, white, bounds = zip(values[::2], values[1::2], strict=True)
        primaries, luminance = numbers[20:]
        if primaries and luminance:
            light = Light(red, green, blue, white, bounds)
    if CONTENT in side_data:
        greatest, mean = struct.unpack_from("=2I", side_data[CONTENT])
        light = Light(light.red, light.green, light.blue, light.white, light.luminance,
                      (greatest, mean))  # fmt: skip
    return None if light == Light() else light


def encoder_options(light: Light, encoder: str) -> dict[str, str]:
    """The options by which an encoder of FFmpeg writes the metadata; none where it cannot."""
    display, content = _display(light, whole=encoder != "libsvtav1"), light.content
    levels = None if content is None else f"{content[0]},{content[1]}"
    names = {
        "libx265": ("x265-params", "master-display", "max-cll"),
        "libx264": ("x264-params", "mastering-display", "cll"),
        "libsvtav1": ("svtav1-params", "mastering-display", "content-light"),
    }
    if encoder not in names:
        return {}
    option, display_name, level_name = names[encoder]
    parts = [f"{display_name}={display}"] if display else []
    parts += [f"{level_name}={levels}"] if levels else []
    return {option: ":".join(parts)} if parts else {}


def _display(light: Light, *, whole: bool) -> str:
    """The mastering display; `whole` counts in steps of 1/50000 and 1/10000, as x265 does."""
    if light.luminance is None:
        return ""

    def place(point: tuple[Fraction, Fraction] | None) -> str:
        x, y = point or (Fraction(0), Fraction(0))
        if whole:
            return f"({round(x * _PLACE)},{round(y * _PLACE)})"
        return f"({float(x):.5f},{float(y):.5f})"

    least, greatest = light.luminance
    if whole:
        bounds = f"({round(greatest * _LUMINANCE)},{round(least * _LUMINANCE)})"
    else:
        bounds = f"({float(greatest):.4f},{float(least):.4f})"
    return (
        f"G{place(light.green)}B{place(light.blue)}R{place(light.red)}WP{place(light.white)}"
        f"L{bounds}"
    )
