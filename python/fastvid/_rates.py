"""Frame rates as exact fractions, from what people write."""

from __future__ import annotations

import math
from fractions import Fraction

from fastvid.errors import InputError, InputTypeError

MAX_FPS = 1000
_NTSC = {
    Fraction(nominal): Fraction(base * 1000, 1001)
    for base, names in {
        24: ("23.976", "23.98"),
        30: ("29.97",),
        48: ("47.952", "47.95"),
        60: ("59.94",),
        120: ("119.88",),
    }.items()
    for nominal in names
}


def frame_rate(what: str, rate: object) -> Fraction:
    """A frame rate as a fraction.

    Args:
        what: The argument's name, for messages.
        rate: int, float, `Fraction`, or text such as `"60"`, `"59.94"` or `"60000/1001"`. A float
            counts as the decimal it prints as, and 23.976, 23.98, 29.97, 47.952, 59.94 and 119.88
            stand for the broadcast rates n * 1000 / 1001 that they abbreviate.

    Raises:
        InputTypeError: `rate` has another type.
        InputError: It is not a number above 0 and at most 1000.
    """
    if isinstance(rate, bool) or not isinstance(rate, int | float | Fraction | str):
        raise InputTypeError(
            f"{what}: argument must be int, float, Fraction or str, got {type(rate).__name__}"
        )
    allowed = f"a rate above 0 and at most {MAX_FPS} such as 60, 59.94 or 60000/1001"
    if isinstance(rate, float) and not math.isfinite(rate):
        raise InputError(f"{what}: argument must be {allowed}, got {rate}")
    shown = repr(rate)[:40]
    try:
        exact = Fraction(str(rate)) if isinstance(rate, float | str) else Fraction(rate)
    except (ValueError, ZeroDivisionError):
        raise InputError(f"{what}: argument must be {allowed}, got {shown}") from None
    if not 0 < exact <= MAX_FPS:
        raise InputError(f"{what}: argument must be {allowed}, got {shown}")
    return _NTSC.get(exact, exact)


def common_unit(first: Fraction, second: Fraction) -> Fraction:
    """The largest fraction that both are whole multiples of."""
    shared = math.gcd(first.numerator * second.denominator, second.numerator * first.denominator)
    return Fraction(shared, first.denominator * second.denominator)
