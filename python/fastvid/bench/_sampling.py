"""Sampling that does not flatter: steady warm-up, bursts without the collector, percentiles."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

Bursts = Sequence[Sequence[float]]

WARM_UP_CALLS = 200
_WINDOW = 5
_STEADY = 0.05
"""Two windows of calls whose medians differ by less are steady."""
_DRIFT = 0.05
"""Halves of the samples whose medians differ by more are said to drift."""
_LONG = 0.5
"""Seconds of a call that is long enough to need no untimed one before it."""
_RESAMPLES = 400


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """No garbage collection inside, and none left over from before."""
    was = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def warm_up(call: Callable[[int], object], *, least: float, most: float) -> tuple[int, bool]:
    """Calls until two neighbouring windows of 5 calls have alike medians, or a limit is reached.

    Args:
        call: What is measured later; it is given the number of the call.
        least: Seconds to spend at least.
        most: Seconds to spend at most, if 2 calls take less.

    Returns:
        Calls made, and whether they became steady.
    """
    samples: list[float] = []
    begun = time.perf_counter()
    while len(samples) < WARM_UP_CALLS:
        start = time.perf_counter()
        call(len(samples))
        now = time.perf_counter()
        samples.append(now - start)
        steady = _is_steady(samples)
        if steady and now - begun >= least:
            return len(samples), True
        if now - begun >= most and len(samples) >= 2:
            return len(samples), steady
    return len(samples), _is_steady(samples)


def _is_steady(samples: Sequence[float]) -> bool:
    if len(samples) < 2 * _WINDOW:
        return False
    last = float(np.median(samples[-_WINDOW:]))
    before = float(np.median(samples[-2 * _WINDOW : -_WINDOW]))
    return abs(last - before) <= _STEADY * before


def burst(
    call: Callable[[int], Any], *, seconds: float, most: int, first: int
) -> tuple[list[float], list[Any]]:
    """Timed calls in a row, after one untimed call unless they are long.

    Args:
        call: What is measured; it is given the number of the call.
        seconds: When to stop.
        most: Calls at most; there is always one.
        first: Number of the first call.

    Returns:
        Seconds of each call, and what each returned.
    """
    samples: list[float] = []
    results: list[Any] = []
    clock = time.perf_counter
    with no_collection():
        start = clock()
        result = call(first)
        once = clock() - start
        if once >= _LONG:
            return [once], [result]
        begun = clock()
        while True:
            start = clock()
            result = call(first + len(samples))
            end = clock()
            samples.append(end - start)
            results.append(result)
            if end - begun >= seconds or len(samples) >= most:
                return samples, results


def summary(bursts: Bursts) -> dict[str, Any]:
    """Percentiles of samples in ms; linear interpolation between neighbours.

    Returns:
        `p50_ms`, `p90_ms`, `p99_ms`, `mean_ms`, `min_ms`, `max_ms`, `fps`, `samples`, `bursts`,
        and `drift`: how much longer the second half took than the first, as a share.
    """
    flat = np.concatenate([np.asarray(b, np.float64) for b in bursts])
    p50, p90, p99 = np.percentile(flat, (50, 90, 99))
    mean = float(flat.mean())
    return {
        "p50_ms": round(float(p50), 4),
        "p90_ms": round(float(p90), 4),
        "p99_ms": round(float(p99), 4),
        "mean_ms": round(mean, 4),
        "min_ms": round(float(flat.min()), 4),
        "max_ms": round(float(flat.max()), 4),
        "fps": round(1e3 / mean, 3) if mean > 0 else None,
        "samples": len(flat),
        "bursts": len(bursts),
        "drift": drift(flat.tolist()),
    }


def drift(samples: Sequence[float]) -> float | None:
    """Median of the second half over that of the first, minus 1; None for less than 8 samples."""
    if len(samples) < 8:
        return None
    half = len(samples) // 2
    first, second = float(np.median(samples[:half])), float(np.median(samples[half:]))
    return round(second / first - 1, 4) if first > 0 else None


def drifts(value: float | None) -> bool:
    """Whether a drift is worth a warning."""
    return value is not None and abs(value) > _DRIFT


def ratio_band(before: Bursts, after: Bursts, percentile: float) -> tuple[float, float]:
    """Where the ratio of a percentile lies in 95 of 100 repetitions, by bootstrap.

    Whole bursts are drawn again, because calls of one burst share what the machine did then
    (block bootstrap, Kuensch 1989); of less than 3 bursts single samples are drawn.

    Args:
        before: Samples by burst.
        after: The same of the other run.
        percentile: 0 to 100.

    Returns:
        Bounds of after / before.
    """
    rng = np.random.default_rng(0)
    bounds = []
    for bursts in (before, after):
        blocks = [np.asarray(b, np.float64) for b in bursts if len(b)]
        if len(blocks) < 3:
            blocks = list(np.concatenate(blocks)[:, None])
        picks = rng.integers(len(blocks), size=(_RESAMPLES, len(blocks)))
        bounds.append(
            np.array(
                [np.percentile(np.concatenate([blocks[i] for i in p]), percentile) for p in picks]
            )
        )
    low, high = np.percentile(bounds[1] / bounds[0], (2.5, 97.5))
    return round(float(low), 4), round(float(high), 4)


def timer_overhead() -> float:
    """Microseconds that timing itself adds to a sample: the median of timing nothing."""
    samples, _ = burst(lambda number: None, seconds=0.05, most=5000, first=0)
    return round(1e6 * float(np.median(samples)), 3)
