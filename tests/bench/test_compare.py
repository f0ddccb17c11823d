"""Two results: ratios with their noise, and what differs between the machines."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fastvid.bench import compare
from fastvid.errors import InputTypeError


def by_metric(comparison: Any) -> dict[str, Any]:
    return {change.metric: change for change in comparison.changes}


def scaled(make_row: Any, factor: float) -> Any:
    row = make_row()
    frame = {
        key: value * factor if key.endswith("_ms") else value for key, value in row.frame.items()
    }
    frame["fps"] = row.frame["fps"] / factor
    samples = tuple(tuple(s * factor for s in burst) for burst in row.samples_ms)
    return make_row(frame=frame, samples_ms=samples)


def test_the_same_run_twice_is_noise(make_row: Any, results_of: Any) -> None:
    results = results_of(make_row())
    comparison = compare(results, results)
    changes = by_metric(comparison)
    assert {change.ratio for change in comparison.changes} == {1.0}
    assert changes["p50"].verdict == changes["fps"].verdict == "within noise"
    assert changes["cold"].verdict == "within noise"
    assert (changes["size"].low, changes["size"].verdict) == (None, "")
    assert (comparison.differences, comparison.unmatched) == ((), ())


def test_twice_the_time_is_worse_and_half_is_better(make_row: Any, results_of: Any) -> None:
    base, slow = results_of(make_row()), results_of(scaled(make_row, 2))
    worse = by_metric(compare(base, slow))
    assert worse["p50"].ratio == pytest.approx(2)
    assert worse["p50"].low < 2 < worse["p50"].high
    assert (worse["p50"].verdict, worse["fps"].verdict) == ("worse", "worse")
    better = by_metric(compare(slow, base))
    assert (better["p50"].verdict, better["fps"].verdict) == ("better", "better")


@pytest.mark.parametrize("change", [{"others_busy": 0.5}, {"drift": -0.2}])
def test_changes_of_disturbed_rows_are_doubtful(
    make_row: Any, results_of: Any, change: dict[str, float]
) -> None:
    base, slow = make_row(), scaled(make_row, 2)
    busy = make_row(frame=slow.frame | change, samples_ms=slow.samples_ms)
    comparison = compare(results_of(base), results_of(busy))
    assert by_metric(comparison)["p50"].verdict == "worse?"
    assert "disturbed by other programs" in comparison.to_text()


def test_starts_have_the_spread_of_their_samples(make_row: Any, results_of: Any) -> None:
    row = make_row()
    later = make_row(start=row.start | {"cold_samples_ms": [580.0, 600.0, 620.0],
                                        "cold_first_frame_ms": 600.0})  # fmt: skip
    change = by_metric(compare(results_of(row), results_of(later)))["cold"]
    assert (change.low, change.high) == (round(580 / 310, 4), round(620 / 290, 4))
    assert change.verdict == "worse"


def test_other_machines_and_methods_are_told(make_row: Any, results_of: Any) -> None:
    before = results_of(make_row(), cpu="one", load_before=1.0)
    after = results_of(make_row(), cpu="two", load_before=7.0, versions={"numpy": "2.1"},
                       gpus=[{"name": "cuda:0 X", "sm_mhz": 300}])  # fmt: skip
    assert compare(before, after).differences == (
        "cpu: one before, two after",
        "numpy: 2.0 before, 2.1 after",
        "gpus: none before, ['cuda:0 X'] after",
    )
    text = compare(before, after).to_text()
    assert "the runs differ, so ratios are not of the rows alone" in text


def test_rows_of_one_run_only_are_told(make_row: Any, results_of: Any) -> None:
    failed = make_row(status="failed", frame={}, samples_ms=())
    before = results_of(make_row(), make_row(model="old"))
    after = results_of(failed, make_row(model="new"))
    comparison = compare(before, after)
    assert comparison.changes == ()
    assert comparison.unmatched == (
        "up onnx-cpu 64x48: ok before, failed after",
        "old onnx-cpu 64x48: ok before, absent after",
        "new onnx-cpu 64x48: absent before, ok after",
    )


def test_text_markdown_and_json_hold_the_same(make_row: Any, results_of: Any) -> None:
    comparison = compare(results_of(make_row()), results_of(scaled(make_row, 2)))
    assert json.loads(comparison.to_json())["changes"][0]["metric"] == "cold"
    for text in (comparison.to_markdown(), comparison.to_text(), str(comparison)):
        assert "2.000" in text
        assert "worse" in text


def test_other_objects_are_refused(results_of: Any) -> None:
    with pytest.raises(InputTypeError, match="after: argument must be Results, got str"):
        compare(results_of(), "x")  # type: ignore[arg-type]
