"""What is written can be read, follows its schema, and says all that must be said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from fastvid import bench
from fastvid.bench import METRICS, Results
from fastvid.errors import InputError


def test_json_survives_a_round_trip_and_follows_the_schema(
    make_row: Any, results_of: Any, schema: dict[str, Any]
) -> None:
    failed = make_row(
        status="failed", reason="no", frame={}, samples_ms=(), model="other",
        error={"type": "ModelError", "message": "no", "hint": "", "exit_code": 5},
    )  # fmt: skip
    results = results_of(make_row(), failed)
    read = Results.from_json(results.to_json())
    assert read == results
    jsonschema.validate(json.loads(results.to_json()), schema)


def test_the_schema_has_every_field_and_no_other(
    make_row: Any, results_of: Any, schema: dict[str, Any]
) -> None:
    data = json.loads(results_of(make_row()).to_json())
    validator = jsonschema.Draft202012Validator(schema)
    assert set(schema["properties"]) == {*data, "missed"}
    assert set(schema["$defs"]["row"]["properties"]) == set(data["rows"][0])
    data["rows"][0]["more"] = 1
    assert not validator.is_valid(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "fastvid.bench/2"}, "schema must be 'fastvid.bench/1'"),
        ({"rows": 3}, "does not follow fastvid.bench/1"),
        ({"rows": [{"model": "x"}]}, "does not follow fastvid.bench/1"),
        ({"environment": None}, "does not follow fastvid.bench/1"),
    ],
)
def test_other_json_is_refused(
    make_row: Any, results_of: Any, change: dict[str, Any], message: str
) -> None:
    data = results_of(make_row()).to_dict() | change
    with pytest.raises(InputError, match=message):
        Results.from_json(json.dumps(data))


@pytest.mark.parametrize(
    "change",
    [
        {"status": "great"}, {"frame": 3}, {"samples_ms": [["x"]]}, {"samples_ms": [[-1]]},
        {"samples_ms": [[1.0]]}, {"size": [1]}, {"odd": 1},
    ],
)  # fmt: skip
def test_wrong_rows_are_refused(make_row: Any, results_of: Any, change: dict[str, Any]) -> None:
    data = results_of(make_row()).to_dict()
    data["rows"][0] |= change
    with pytest.raises(InputError, match="does not follow"):
        Results.from_json(json.dumps(data))


def test_samples_are_told_by_process(make_row: Any) -> None:
    row = make_row()
    assert row.samples_by_process == [list(row.samples_ms[:3]), list(row.samples_ms[3:])]
    assert make_row(frame={}).samples_by_process == [list(row.samples_ms)]
    assert make_row(frame={}, samples_ms=()).samples_by_process == []


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of everything inside a JSON value."""
    if not isinstance(value, dict | list):
        return
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*path, key)
        yield from places(inner, (*path, key))


def test_whatever_is_changed_in_a_file_is_read_or_refused(
    make_row: Any, results_of: Any, rng: np.random.Generator
) -> None:
    results = results_of(make_row(), make_row(model="b", status="failed", reason="no"))
    text = json.dumps(results.to_dict() | {"method": {"seconds": 3, "interleaved": True}})
    paths = [path for path in places(json.loads(text)) if "samples_ms" not in path[:-1]]
    junk: list[Any] = [None, True, -1, 1e300, 1 << 70, "x", "", [], [1], ["x"], {}, {"a": 1}, [[]]]
    refused = 0
    for path in paths:
        for value in rng.permutation(len(junk))[:4]:
            data = json.loads(text)
            place = data
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = junk[value]
            try:
                read = Results.from_json(json.dumps(data))
            except InputError:
                refused += 1
                continue
            assert read.to_text()
            assert read.to_markdown()
            assert read.check("p99<33 psnr>40 vram<3") is not None
            if rng.random() < 0.05:
                assert bench.compare(results, read).to_text()
    assert refused > len(paths)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, "3", "null"])
def test_what_is_no_json_object_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        Results.from_json(text)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.json").write_bytes(b"\xff\xfe{}")
    for path in (tmp_path / "none.json", tmp_path, tmp_path / "latin.json"):
        with pytest.raises(InputError):
            Results.load(path)


def test_every_metric_is_found_where_the_table_says(make_row: Any) -> None:
    row = make_row(
        task="generator", device="cuda:0",
        memory={"peak_rss_mb": 1.0, "vram_mb": 2.0}, build_s=3.0,
        energy={"joules_per_frame": 4.0},
        generation={"first_frame_ms": 5.0, "total_ms": 6.0},
        stages={f"{n}_ms": 1.0 for n in ("decode", "pre", "infer", "post", "encode", "text",
                                         "denoise")},
    )  # fmt: skip
    assert [name for name, metric in METRICS.items() if metric.of(row) is None] == []


def test_tables_show_figures_and_say_what_is_unsure(make_row: Any, results_of: Any) -> None:
    few = make_row(
        model="few", frame={"p50_ms": 16.0, "p90_ms": 20.7, "p99_ms": 21.8, "samples": 20}
    )
    reference = make_row(
        model="ref",
        quality={"reference": "ref onnx-cpu float32", "identical": True, "psnr": None, "ssim": 1.0},
    )
    gone = [
        make_row(model=m, format="engine", status="unavailable", reason="no driver", frame={})
        for m in ("a", "b")
    ]
    broken = make_row(model="c", status="failed", reason="no graph", frame={}, quality={})
    results = results_of(make_row(notes=("drifts",)), few, reference, *gone, broken)
    results = Results(results.rows, warnings=("busy",))
    for text in (results.to_markdown(), results.to_text(), str(results)):
        assert "41.5" in text
        assert "~21.8" in text
        assert "~20.7" not in text
        assert "reference" in text
        assert "engine (2 rows): unavailable: no driver" in text
        assert "c onnx-cpu 64x48: failed: no graph" in text
        assert "c (failed)" in text
        assert "up onnx-cpu 64x48: drifts" in text
        assert "busy" in text
        assert "~ marks percentiles of too few samples" in text
        # Nothing in these rows has device memory, so there is no column for it.
        assert "VRAM" not in text


def test_generation_has_a_table_of_its_own(make_row: Any, results_of: Any) -> None:
    row = make_row(
        task="generator", model="gen",
        stages={"text_ms": 1.25, "denoise_ms": 40.0, "decode_ms": 8.0, "encode_ms": 3.0},
        generation={"first_frame_ms": 44.0, "total_ms": 49.0, "step_ms": 10.0, "steps": 4},
    )  # fmt: skip
    text = results_of(row).to_text()
    head, line = text.splitlines()[1:3]
    for title, value in (("text", "1.25"), ("denoise", "40.0"), ("per step", "10.0"),
                         ("1st frame", "44.0"), ("total", "49.0")):  # fmt: skip
        end = head.index(title) + len(title)
        assert line[:end].endswith(value), (title, line)


def test_an_interrupted_run_says_so() -> None:
    assert "stopped before the end" in Results((), interrupted=True).to_text()


def test_the_page_names_every_metric_and_format() -> None:
    page = (Path(__file__).parents[2] / "docs" / "bench.md").read_text()
    for name, metric in METRICS.items():
        assert f"| `{name}` | {metric.unit} | {metric.meaning} |" in page
    for name in bench.FORMATS:
        assert f"| `{name}` |" in page


def test_public_names_load() -> None:
    assert dir(bench) == sorted(bench.__all__)
    for name in bench.__all__:
        assert getattr(bench, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsuch'"):
        bench.nonsuch  # noqa: B018
