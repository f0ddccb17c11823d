"""The benchmark for GPUs, rehearsed on the CPU: same path, tiny sizes, no figures."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from op_cases import OPS as ALL_OPS

torch = pytest.importorskip("torch")
ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

import gpu  # noqa: E402
import gpu_ops  # noqa: E402
import gpu_rows  # noqa: E402
import gpu_tables  # noqa: E402
import timing  # noqa: E402
from gpu_clock import Machine  # noqa: E402

REHEARSAL = Machine("cpu", dry=True)
SDK = gpu_rows.RUNNERS[0]
# Tracing warns of what torch itself does.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.set_grad_enabled(True)


def rehearse(folder: Path, *arguments: str) -> dict[str, Any]:
    assert gpu.main([*arguments, "--dry-run", "--out", str(folder)]) == 0
    (path,) = folder.glob("gpu_*.json")
    rows: dict[str, Any] = json.loads(path.read_text())["rows"]
    return rows


# It has no CUDA kernel.
OPS = set(ALL_OPS) - {"linear"}


def test_every_op_has_a_row() -> None:
    assert {row.spec["op"] for row in gpu_rows.rows(("ops",))} == OPS
    assert len({row.key for row in gpu_rows.ROWS}) == len(gpu_rows.ROWS)


@pytest.mark.parametrize("op", sorted(OPS))
def test_ops_agree_with_what_torch_computes(op: str) -> None:
    row = next(row for row in gpu_rows.rows(("ops",)) if row.spec["op"] == op)
    result = gpu_ops.measure(REHEARSAL, row.spec, rounds=1)
    assert result["right"], result
    assert {"fastvid", "copy"} <= set(result["warm"]["time"])


@pytest.mark.parametrize(
    ("part", "route"),
    [("upscaling", "host to host"), ("interpolation", "device to device")],
)
def test_tasks_run_the_same_weights_everywhere(part: str, route: str, tmp_path: Path) -> None:
    (row,) = rehearse(tmp_path, part, "--only", f"720p, {route}").values()
    # TensorRT needs a GPU; everything else has to give the picture of float32.
    assert set(row["psnr"]) == set(gpu_rows.RUNNERS) - {"fastvid, TensorRT"}
    assert set(row["absent"]) == {"fastvid, TensorRT"}
    assert min(row["psnr"].values()) > 50
    assert set(row["ratio"][SDK]) == set(gpu_rows.PEERS)


def test_generation_draws_the_same_clip_everywhere(tmp_path: Path) -> None:
    rows = rehearse(tmp_path, "generation", "--only", "64x64")
    (row,) = rows.values()
    assert set(row["psnr"]) == set(gpu_rows.RUNNERS) - {"fastvid, TensorRT"}
    assert min(row["psnr"].values()) > 40


def test_a_run_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(0, 100_000, 30))
    monkeypatch.setattr(gpu.time, "monotonic", lambda: next(clock))
    measured: list[str] = []

    def measure(m: Machine, row: gpu_rows.Row, rounds: int, models: Path | None) -> dict[str, Any]:
        measured.append(row.key)
        return {"right": row.name != "randn 16x21x90x160 float32", "absent": {}}

    monkeypatch.setattr(gpu, "measure", measure)
    arguments = ["ops", "--dry-run", "--out", str(tmp_path), "--minutes", "9"]
    codes = [gpu.main(arguments)]
    while codes[-1] == gpu.MORE:
        codes.append(gpu.main(arguments))
    assert measured == [row.key for row in gpu_rows.rows(("ops",))]
    # The last row was reached, and one of them is wrong.
    assert (len(codes) > 2, codes[-1]) == (True, 1)
    assert "randn 16x21x90x160 float32 is wrong" in capsys.readouterr().out


def test_rehearsals_are_kept_apart_from_results(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--dry-run"]) == 2
    assert "no results" in capsys.readouterr().out
    assert not list(timing.RESULTS.glob("gpu_rehearsal*"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_nothing_is_measured_without_a_gpu(tmp_path: Path) -> None:
    assert gpu.main(["--out", str(tmp_path)]) == 1
    assert not list(tmp_path.iterdir())


def test_report_lists_what_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "RESULTS", tmp_path)
    text = gpu_tables.gpu()
    assert "No GPU has been measured" in text
    assert all(row.name in text for row in gpu_rows.ROWS)
    time = {"median_ms": 2.0, "min_ms": 1.0, "p90_ms": 3.0}
    rows = {
        "upscaling: 720p, host to host": {
            "time": {SDK: time, "torch.compile": {**time, "median_ms": 5.0}},
            "absent": {"fastvid, TensorRT": "not installed"},
            "right": True,
        }
    }
    device = {"name": "Some GPU", "driver_clock_power": "1, 2, 3"}
    made = {"environment": timing.environment(), "gpu": device, "rows": rows}
    (tmp_path / "gpu_some.json").write_text(json.dumps(made))
    text = gpu_tables.gpu()
    assert "2.50x, fastvid, onnxruntime CUDA" in text
    assert "Not run, fastvid, TensorRT: not installed" in text
    assert "upscaling: 720p, device to device;" in text
    assert "No GPU has been measured" not in text
