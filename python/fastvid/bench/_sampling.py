"""Sampling that does not flatter: steady warm-up, bursts without the collector, percentiles."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bursts = Sequence[Sequence[float]]
FloatArray = NDArray[np.float64]

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
        most: Seconds to spend at most, but for one call.

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
        if now - begun >= most:
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


def ratio_band(
    before: Sequence[Bursts], after: Sequence[Bursts], percentile: float | None
) -> tuple[float, float]:
    """Where the ratio of a percentile, or of the mean, lies in 95 of 100 repetitions, by bootstrap.

    Whole processes are drawn again, and whole bursts of each, because calls share what their
    process and their second were like (Kalibera and Jones 2013; block bootstrap, Kuensch 1989).
    Of one burst in all single samples are drawn.

    Args:
        before: Samples in ms by process and burst.
        after: The same of the other run.
        percentile: 0 to 100; None is the mean.

    Returns:
        Bounds of after / before.
    """
    rng = np.random.default_rng(0)
    draws = [
        np.array([_statistic(_drawn(rng, run), percentile) for _ in range(_RESAMPLES)])
        for run in (_split(before), _split(after))
    ]
    low, high = np.percentile(draws[1] / draws[0], (2.5, 97.5))
    return round(float(low), 4), round(float(high), 4)


def _statistic(samples: FloatArray, percentile: float | None) -> float:
    return float(samples.mean() if percentile is None else np.percentile(samples, percentile))


def _split(processes: Sequence[Bursts]) -> list[list[FloatArray]]:
    runs = [[np.asarray(b, np.float64) for b in bursts if len(b)] for bursts in processes]
    runs = [bursts for bursts in runs if bursts]
    if len(runs) == 1 and len(runs[0]) == 1:
        return [list(runs[0][0][:, None])]
    return runs


def _drawn(rng: np.random.Generator, runs: list[list[FloatArray]]) -> FloatArray:
    chosen = [runs[i] for i in rng.integers(len(runs), size=len(runs))]
    parts = [bursts[i] for bursts in chosen for i in rng.integers(len(bursts), size=len(bursts))]
    return np.concatenate(parts)


def timer_overhead() -> float:
    """Microseconds that timing itself adds to a sample: the median of timing nothing."""
    samples, _ = burst(lambda number: None, seconds=0.05, most=5000, first=0)
    return round(1e6 * float(np.median(samples)), 3)
