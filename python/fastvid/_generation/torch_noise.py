"""The noise of `torch.Generator("cpu")`, without torch: for results that must match a pipeline's.

The generator is MT19937 (Matsumoto and Nishimura 1998, "Mersenne Twister"), of whose 32-bit words
torch makes uniform and then normal numbers by Box and Muller's transform. Arrays of 16 values and
more go through float32 polynomials of the Cephes library, as torch computes them on x86 with AVX2;
smaller ones through the C library's functions in float64.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_F = np.float32
_ROW = 16
_BLOCK = 1 << 15
_UNIT32, _UNIT64 = _F(2.0**-24), 2.0**-53
_SMALLEST = _F(2.0**-126)
_HALF = np.int32(0x3F000000)
_LOG = tuple(
    map(
        _F,
        (
            7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
            -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
        ),
    )
)  # fmt: skip
_LN2_HIGH, _LN2_LOW = _F(0.693359375), _F(-2.12194440e-4)
_QUARTERS = tuple(map(_F, (-0.78515625, -2.4187564849853515625e-4, -3.77489497744594108e-8)))
_COS = tuple(map(_F, (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)))
_SIN = tuple(map(_F, (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)))

_Floats = NDArray[np.float32]


class TorchNoise:
    """A generator in the state of `torch.Generator("cpu").manual_seed(seed)`.

    Args:
        seed: 0 to 2**64 - 1; like torch's generator it goes by the low 32 bits.
    """

    def __init__(self, seed: int) -> None:
        self._words = np.random.MT19937()
        # NumPy's public seeding mixes the seed; this is the initialisation of the paper.
        self._words._legacy_seeding(seed & 0xFFFFFFFF)
        self._spare: float | None = None

    def normal(self, shape: tuple[int, ...]) -> _Floats:
        """The next `torch.randn(shape, generator=...)`, float32.

        Equal bit by bit to torch on x86 with AVX2; elsewhere torch itself differs in the last bits.
        """
        count = math.prod(shape)
        if count < _ROW:
            return np.array([self._one() for _ in range(count)], _F).reshape(shape)
        values = np.empty(count, _F)
        whole = count - count % _ROW
        for begin in range(0, whole, _BLOCK):
            end = min(begin + _BLOCK, whole)
            values[begin:end] = _box_muller(self._uniform(end - begin))
        if whole != count:
            # The rest is drawn and dropped: the last 16 values are drawn anew.
            self._uniform(count - whole)
            values[-_ROW:] = _box_muller(self._uniform(_ROW))
        return values.reshape(shape)

    def _uniform(self, count: int) -> _Floats:
        words = self._words.random_raw(count)
        return (words & 0xFFFFFF).astype(_F) * _UNIT32

    def _one(self) -> float:
        if self._spare is not None:
            value, self._spare = self._spare, None
            return value
        angle, height = (self._uniform64() for _ in range(2))
        radius = math.sqrt(-2.0 * math.log1p(-height))
        self._spare = radius * math.sin(2.0 * math.pi * angle)
        return radius * math.cos(2.0 * math.pi * angle)

    def _uniform64(self) -> float:
        high, low = (int(word) for word in self._words.random_raw(2))
        return ((high << 32 | low) & ((1 << 53) - 1)) * _UNIT64


def _box_muller(uniform: _Floats) -> _Floats:
    """Rows of 16 uniform numbers in [0, 1) to as many normal ones: 8 cosines, then 8 sines."""
    rows = uniform.reshape(-1, 2, _ROW // 2)
    radius = np.sqrt(_F(-2) * _log(_F(1) - rows[:, 0]))
    sine, cosine = _sine_and_cosine(_F(2 * math.pi) * rows[:, 1])
    return np.stack([radius * cosine, radius * sine], 1).reshape(-1)


def _fma(a: _Floats, b: _Floats | np.float32, c: _Floats | np.float32) -> _Floats:
    """The sum of a b and c, rounded once: the product of two float32 is exact in float64."""
    return (a.astype(np.float64) * b + c).astype(_F)


def _log(x: _Floats) -> _Floats:
    bits = np.maximum(x, _SMALLEST).view(np.int32)
    exponent = ((bits >> 23) - 126).astype(_F)
    mantissa = ((bits & 0x7FFFFF) | _HALF).view(_F)
    low = mantissa < _F(math.sqrt(0.5))
    exponent = exponent - low
    x = mantissa - _F(1) + np.where(low, mantissa, _F(0))
    square = x * x
    y = np.full_like(x, _LOG[0])
    for coefficient in _LOG[1:]:
        y = _fma(y, x, coefficient)
    y = _fma(y * x, square, exponent * _LN2_LOW)
    y = _fma(square, _F(-0.5), y)
    return _fma(exponent, _LN2_HIGH, x + y)


def _sine_and_cosine(x: _Floats) -> tuple[_Floats, _Floats]:
    """Of angles from 0 to 2 pi."""
    octant = ((x * _F(4 / math.pi)).astype(np.int32) + 1) & ~1
    count = octant.astype(_F)
    for part in _QUARTERS:
        x = _fma(count, part, x)
    square = x * x
    y = np.full_like(x, _COS[0])
    for coefficient in _COS[1:]:
        y = _fma(y, square, coefficient)
    cosine = _fma(y * square, square, square * _F(-0.5)) + _F(1)
    y = np.full_like(x, _SIN[0])
    for coefficient in _SIN[1:]:
        y = _fma(y, square, coefficient)
    sine = _fma(y * square, x, x)
    swapped = (octant & 2) != 0
    sign_of_sine = ((octant & 4) << 29).astype(np.int32)
    sign_of_cosine = ((~(octant - 2) & 4) << 29).astype(np.int32)
    first, second = np.where(swapped, cosine, sine), np.where(swapped, sine, cosine)
    return (
        (first.view(np.int32) ^ sign_of_sine).view(_F),
        (second.view(np.int32) ^ sign_of_cosine).view(_F),
    )
