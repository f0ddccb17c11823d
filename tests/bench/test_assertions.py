"""Bounds: what they mean, which rows miss them, and what is no bound."""

from __future__ import annotations

from typing import Any

import pytest

from fastvid.bench import METRICS, Assertion
from fastvid.bench._assertions import check, parse
from fastvid.errors import InputError


def test_bounds_are_parsed_with_any_blanks() -> None:
    wanted = (
        Assertion("p99", "<", 33.0),
        Assertion("psnr", ">=", 40.5),
        Assertion("fps", ">", 1e3, "onnx-cuda:1"),
    )
    loose = " p99 < 33,psnr >= 40.5, onnx-cuda:1/fps>1000 "
    for text in ("p99<33 psnr>=40.5 onnx-cuda:1/fps>1e3", loose):
        assert parse(text) == wanted
    assert list(map(str, wanted)) == ["p99<33", "psnr>=40.5", "onnx-cuda:1/fps>1000"]


@pytest.mark.parametrize(
    "text",
    ["", "  ", "p99", "p99<", "<33", "p99=33", "p98<33", "P99<33", "p99<x", "p99<1e999", "p99<nan",
     "33>p99", "p99<33<34", "tensorrt/p99<3", "p99<--3"],
)  # fmt: skip
def test_what_is_no_bound_is_refused_with_the_metrics(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(text)
    assert caught.value.exit_code == 2
    if "p98" in text or "P99" in text:
        for name in METRICS:
            assert name in caught.value.message + caught.value.hint


def messages(results: Any, text: str, **options: Any) -> list[str]:
    return [str(failure) for failure in check(results, parse(text), **options)]


def test_rows_that_keep_their_bounds_pass(make_row: Any, results_of: Any) -> None:
    assert messages(results_of(make_row()), "p50<=16 p99<22 psnr>40 rss<100 size<2 fps>60") == []


def test_each_row_that_misses_is_named_with_what_was_found(make_row: Any, results_of: Any) -> None:
    slow = make_row(model="slow", frame={"p99_ms": 40.0, "samples": 20})
    assert messages(results_of(make_row(), slow), "p99<33 psnr>42") == [
        "p99<33: slow onnx-cpu 64x48: 40 ms, of 20 samples only",
        "psnr>42: up onnx-cpu 64x48: 41.5 dB",
        "psnr>42: slow onnx-cpu 64x48: 41.5 dB",
    ]


def test_identical_frames_keep_any_bound_of_psnr(make_row: Any, results_of: Any) -> None:
    same = make_row(quality={"identical": True, "psnr": None, "ssim": 1.0, "reference": "x"})
    assert messages(results_of(same), "psnr>1000") == []


def test_failed_rows_keep_no_bound(make_row: Any, results_of: Any) -> None:
    row = make_row(status="failed", reason="no graph")
    assert messages(results_of(row), "p50<1000") == [
        "p50<1000: up onnx-cpu 64x48: failed: no graph"
    ]


def test_rows_that_cannot_run_here_count_only_where_they_were_asked_for(
    make_row: Any, results_of: Any
) -> None:
    gone = make_row(format="engine", status="unavailable", reason="no driver", frame={})
    results = results_of(make_row(), gone)
    assert len(messages(results, "p50<1000")) == 1
    assert messages(results, "p50<1000", skip_unavailable=True) == []


def test_a_bound_that_nobody_answers_is_missed(make_row: Any, results_of: Any) -> None:
    results = results_of(make_row())
    for text in ("joules<1", "vram<1", "text<1", "engine/p50<1"):
        assert "no row" in messages(results, text)[0], text


def test_a_figure_that_a_row_must_have_is_missed_where_it_lacks(
    make_row: Any, results_of: Any
) -> None:
    results = results_of(make_row(), make_row(model="b", quality={}))
    assert messages(results, "psnr>40") == ["psnr>40: b onnx-cpu 64x48: was not measured"]


def test_a_bound_of_one_format_leaves_the_others_alone(make_row: Any, results_of: Any) -> None:
    results = results_of(make_row(), make_row(format="onnx-cuda", device="cuda:0"))
    failures = check(results, parse("onnx-cuda/p50<1"))
    assert [failure.row for failure in failures] == ["up onnx-cuda 64x48"]


def test_results_check_themselves(make_row: Any, results_of: Any) -> None:
    assert results_of(make_row()).check("p50<1")[0].problem == "16 ms"
