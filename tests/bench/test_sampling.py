"""Warm-up, bursts, percentiles and the band of a ratio."""

from __future__ import annotations

import gc
import time

import numpy as np
import pytest

from fastvid.bench import _sampling as sampling


def test_percentiles_are_those_of_numpy_over_all_bursts(rng: np.random.Generator) -> None:
    values = rng.gamma(2.0, 5.0, 137)
    found = sampling.summary([values[:40], values[40:41], values[41:]])
    for name, percent in (("p50_ms", 50), ("p90_ms", 90), ("p99_ms", 99)):
        assert found[name] == pytest.approx(np.percentile(values, percent), abs=1e-4)
    assert found["fps"] == pytest.approx(1000 / values.mean(), rel=1e-4)
    assert (found["samples"], found["bursts"]) == (137, 3)


def test_drift_compares_the_halves() -> None:
    assert sampling.drift([10.0] * 8 + [12.0] * 8) == pytest.approx(0.2)
    assert sampling.drift([10.0] * 7) is None
    assert sampling.drifts(0.06)
    assert not sampling.drifts(0.04)
    assert not sampling.drifts(None)


def test_bursts_time_calls_without_the_collector_and_after_an_untimed_one() -> None:
    seen: list[tuple[int, bool]] = []
    samples, results = sampling.burst(
        lambda n: seen.append((n, gc.isenabled())) or n, seconds=60, most=4, first=7
    )
    assert seen == [(7, False), (7, False), (8, False), (9, False), (10, False)]
    assert results == [7, 8, 9, 10]
    assert len(samples) == 4
    assert gc.isenabled()


def test_bursts_end_in_time_with_one_sample_at_least() -> None:
    samples, _ = sampling.burst(lambda n: time.sleep(0.02), seconds=0, most=100, first=0)
    assert len(samples) == 1
    assert samples[0] >= 0.02


def test_a_long_call_is_not_repeated_untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "_LONG", 0.01)
    calls: list[int] = []
    samples, results = sampling.burst(
        lambda n: (calls.append(n), time.sleep(0.02), n)[2], seconds=60, most=9, first=3
    )
    assert (calls, results) == ([3], [3])
    assert len(samples) == 1


def test_the_collector_is_back_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError):
        sampling.burst(lambda n: 1 // 0, seconds=1, most=1, first=0)
    assert gc.isenabled()


def test_warm_up_ends_when_calls_are_steady_and_not_before() -> None:
    lengths = [0.03] * 3 + [0.01] * 200
    calls, steady = sampling.warm_up(lambda n: time.sleep(lengths[n]), least=0.0, most=30)
    assert steady
    assert 10 <= calls < 100


def test_warm_up_gives_up_at_its_limit() -> None:
    calls, steady = sampling.warm_up(lambda n: time.sleep(0.002 * 1.5**n), least=0, most=0.15)
    assert not steady
    assert calls < 30


def run(rng: np.random.Generator, level: float, processes: int = 6) -> list[list[list[float]]]:
    """Processes of four bursts: each has its own speed, and all calls of a burst one of theirs."""
    return [
        [(own * rng.normal(1, 0.02) + rng.normal(0, 0.1, 15)).tolist() for _ in range(4)]
        for own in level * rng.normal(1, 0.05, processes)
    ]


def test_the_band_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(25):
        low, high = sampling.ratio_band(run(rng, 10), run(rng, 12), 50)
        hits += low <= 1.2 <= high
    # A band of six processes is a little too narrow; one of single samples would hold a fifth.
    assert hits >= 20


def test_the_band_of_single_samples_is_too_narrow_which_is_why_processes_are_drawn() -> None:
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(25):
        pair = [[[np.concatenate([b for p in run(rng, v) for b in p]).tolist()]] for v in (10, 12)]
        low, high = sampling.ratio_band(*pair, 50)
        hits += low <= 1.2 <= high
    assert hits <= 12


@pytest.mark.parametrize("percentile", [50, 90, None])
def test_the_band_of_equal_runs_holds_one_and_of_different_ones_does_not(
    percentile: float | None,
) -> None:
    rng = np.random.default_rng(4)
    low, high = sampling.ratio_band(run(rng, 10), run(rng, 10), percentile)
    assert low < 1 < high
    low, high = sampling.ratio_band(run(rng, 10), run(rng, 20), percentile)
    assert 1.5 < low < high < 2.5


def test_one_burst_is_drawn_sample_by_sample() -> None:
    low, high = sampling.ratio_band([[[10.0, 11.0, 12.0]]], [[[10.0, 11.0, 12.0]]], 50)
    assert low < 1 < high


def test_overheads_are_small_and_positive() -> None:
    from fastvid.bench._hooks import hook_overhead

    # A loaded machine may take long, but not a thousand times as long.
    assert 0 < sampling.timer_overhead() < 1000
    assert 0 <= hook_overhead() < 1000
