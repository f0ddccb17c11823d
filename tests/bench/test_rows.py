"""Real rows in processes of their own: what they hold, and how they may end."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import tiny_models
from onnx import TensorProto, helper

from fastvid import bench
from fastvid.bench import Results, _plan
from fastvid.bench import _runner as runner
from fastvid.bench._child import Child, RowError
from fastvid.bench._settings import Settings
from fastvid.bundle import write_bundle
from fastvid.devices import cuda_driver
from fastvid.errors import InputError, MediaError
from fastvid.video import Video

QUICK: dict[str, Any] = {"seconds": 0.05, "min_samples": 4, "processes": 1}


@pytest.fixture(scope="module")
def measured(models: Path) -> Results:
    """Four models, one of them broken, one of less precision."""
    return bench.run(
        [models / "up", models / "bad", models / "off", models / "ip"],
        formats="onnx-cpu",
        sizes=["64x48"],
        **QUICK | {"processes": 2},
    )


def row_of(results: Results, model: str) -> bench.Row:
    return next(row for row in results.rows if row.model == model)


def test_rows_have_every_figure_that_applies(measured: Results) -> None:
    for name in ("up", "ip"):
        row = row_of(measured, name)
        assert (row.status, row.reason, row.device) == ("ok", "", "cpu")
        missing = [
            metric.name
            for metric in bench.METRICS.values()
            if metric.applies(row) and metric.of(row) is None
        ]
        assert missing == []
        assert row.report["graphs"][0]["provider"] == "CPUExecutionProvider"


def test_figures_agree_with_each_other(measured: Results) -> None:
    row = row_of(measured, "ip")
    samples = [s for burst in row.samples_ms for s in burst]
    assert len(samples) == row.frame["samples"] >= QUICK["min_samples"]
    assert row.frame["p50_ms"] == pytest.approx(np.median(samples), abs=1e-4)
    assert sorted(set(row.frame["process_of_burst"])) == [0, 1]
    medians = [np.median(np.concatenate(bursts)) for bursts in row.samples_by_process]
    assert row.frame["process_p50_ms"] == pytest.approx(medians, abs=1e-4)
    start = row.start
    assert len(start["cold_samples_ms"]) == 2
    parts = ("python_ms", "import_ms", "load_ms", "first_call_ms")
    # Medians of two are means, so that the parts of the sum can be compared with it.
    assert sum(start[p] for p in parts) == pytest.approx(start["cold_first_frame_ms"], rel=0.05)
    assert start["warm_first_frame_ms"] >= start["warm_load_ms"] > 0
    stages = row.stages
    assert stages["infer_ms"] > 0
    assert (row.file["frames_in"], row.file["frames_out"]) in ((8, 16), (32, 64))
    assert row.memory["file_peak_rss_mb"] >= row.memory["peak_rss_mb"] > 20


def test_a_broken_model_is_a_row_with_its_error(measured: Results) -> None:
    row = row_of(measured, "bad")
    assert row.status == "failed"
    assert row.error["type"] == "ModelError"
    assert row.error["exit_code"] == 5
    assert "run.onnx" in row.reason
    assert (row.frame, row.samples_ms) == ({}, ())


def test_quality_is_against_the_float32_model_on_the_cpu(measured: Results) -> None:
    up, off = row_of(measured, "up"), row_of(measured, "up-fp16")
    assert up.quality["identical"]
    assert off.quality["reference"] == "up onnx-cpu float32"
    # Every sample is one step darker, but for those that were black.
    assert off.quality["psnr"] == pytest.approx(20 * math.log10(255), abs=0.1)
    assert 0.9 < off.quality["ssim"] < 1
    assert (off.precision, up.precision) == ("float16", "float32")


def test_results_follow_the_schema(measured: Results, schema: dict[str, Any]) -> None:
    jsonschema.validate(json.loads(measured.to_json()), schema)
    assert Results.from_json(measured.to_json()) == measured
    assert measured.environment["cores"] >= 1
    assert measured.method["timer_overhead_us"] > 0


def test_rows_take_turns(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    ask = Child.ask

    def noted(self: Child, do: str, **arguments: Any) -> dict[str, Any]:
        if do == "burst":
            asked.append(str(id(self)))
        return ask(self, do, **arguments)

    monkeypatch.setattr(Child, "ask", noted)
    pair = [models / "up", models / "off"]
    few = QUICK | {"seconds": 0.3, "min_samples": 1, "max_seconds": 0.3, "processes": 1}
    bench.run(pair, formats="onnx-cpu", sizes=["64x48"], **few)
    first = asked[0]
    assert [row == first for row in asked[:4]] == [True, False, True, False]
    asked.clear()
    bench.run(pair, formats="onnx-cpu", sizes=["64x48"], interleave=False, **few)
    turns = [row == asked[0] for row in asked]
    assert turns == sorted(turns, reverse=True)


def test_the_reference_runs_by_itself_where_no_row_does(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = bench.run(
        models / "off", formats="onnx-cpu", sizes=["64x48"], reference=models / "up", **QUICK
    )
    (row,) = results.rows
    assert row.quality["reference"] == "up onnx-cpu float32"
    assert row.quality["psnr"] == pytest.approx(48.13, abs=0.1)


def test_devices_that_are_not_here_are_rows_with_a_reason(models: Path) -> None:
    if cuda_driver().devices:
        pytest.skip("there is a CUDA device")
    results = bench.run(models / "up", formats="onnx-cuda,engine", sizes=["64x48"], **QUICK)
    assert [row.status for row in results.rows] == ["unavailable"] * 2
    assert {row.reason for row in results.rows} == {cuda_driver().problem}


def test_a_device_that_only_the_driver_has_is_a_row_with_a_reason_too(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if cuda_driver().devices:
        pytest.skip("there is a CUDA device")
    monkeypatch.setattr(_plan, "device_problem", lambda device: "")
    results = bench.run(models / "up", formats="onnx-cuda,engine", sizes=["64x48"], **QUICK)
    assert [row.status for row in results.rows] == ["unavailable"] * 2
    assert all("libcuda.so.1" in row.reason for row in results.rows)
    assert {row.error["type"] for row in results.rows} == {"NoDeviceError"}


def test_engines_are_built_before_and_measured_apart(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    ask = Child.ask

    def answer(self: Child, do: str, **arguments: Any) -> dict[str, Any]:
        asked.append(do)
        if do == "build":
            return {"build_s": 12.5, "was_cached": len(asked) > 1, "bytes": 3_000_000}
        return ask(self, do, **arguments)

    monkeypatch.setattr(Child, "ask", answer)
    # The engine's own row, which runs in onnxruntime here once it is built.
    own = _plan.Format("engine", "tensorrt", False, "")
    monkeypatch.setitem(_plan.FORMATS, "engine", own)
    spec = runner.Runner._child_spec

    def on_the_cpu(self: runner.Runner, *arguments: Any) -> dict[str, Any]:
        values = spec(self, *arguments)
        values["device"]["backend"] = "onnxruntime"
        return values

    monkeypatch.setattr(runner.Runner, "_child_spec", on_the_cpu)
    (row,) = bench.run(models / "up", formats="engine", sizes=["64x48"], **QUICK).rows
    assert (row.status, row.build_s, row.artefact_mb) == ("ok", 12.5, 3.0)
    assert asked[:2] == ["build", "open"]
    (row,) = bench.run(models / "up", formats="engine", sizes=["64x48"], **QUICK).rows
    assert row.build_s == 0
    assert "engines were there already" in row.notes[0]


def test_generation_has_its_own_stages(models: Path) -> None:
    results = bench.run(
        models / "gen", formats="onnx-cpu", num_inference_steps=3, num_frames=5,
        prompt="a blue square", **QUICK,
    )  # fmt: skip
    (row,) = results.rows
    assert (row.status, row.reason, row.size) == ("ok", "", (24, 16))
    assert (row.generation["frames"], row.generation["steps"]) == (5, 3)
    assert set(row.stages) == {"text_ms", "denoise_ms", "decode_ms", "encode_ms"}
    assert all(value > 0 for value in row.stages.values())
    assert 0 < row.generation["first_frame_ms"] <= row.generation["total_ms"] * 1.5
    assert row.generation["total_ms"] == pytest.approx(5 * row.frame["p50_ms"], rel=0.01)
    assert row.quality["identical"]
    assert "generation, milliseconds per clip" in results.to_text()


def test_clips_are_measured_at_their_size_or_another(models: Path, make_clip: Any) -> None:
    clip = make_clip("clip.mp4", size=(80, 60), frames=3)
    results = bench.run(models / "up", input=clip, formats="onnx-cpu", **QUICK)
    assert [row.size for row in results.rows] == [(80, 60)]
    assert results.method["input"] == "clip.mp4"
    from fastvid.bench._inputs import Inputs

    folder = clip.parent
    frames = Inputs(folder, clip).frames((40, 30))
    assert frames["shape"] == [3, 30, 40, 3]
    assert os.path.getsize(frames["path"]) == 3 * 30 * 40 * 3
    clips = Inputs(folder, clip).clips((40, 30))
    assert [Video.open(path).size for path in clips.values()] == [(40, 30)] * 2
    assert [len(Video.open(path).frames()) for path in clips.values()] == list(clips)


def test_frames_that_do_not_fit_on_the_disk_are_an_error(tmp_path: Path) -> None:
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from fastvid.bench._inputs import Inputs\n"
        "from fastvid.errors import DiskFullError\n"
        "inputs = Inputs(Path(sys.argv[1]))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "try:\n"
        "    inputs.frames((64, 48))\n"
        "except DiskFullError as error:\n"
        "    print(inputs.are_made((64, 48)), error.exit_code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert (done.stdout.split(), done.stderr) == (["False", "7"], "")


def test_a_size_that_cannot_be_encoded_keeps_its_calls(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = Child.ask

    def refused(self: Child, do: str, **arguments: Any) -> dict[str, Any]:
        if do == "file":
            raise RowError("failed", "too large", {"type": "OutputError"})
        return ask(self, do, **arguments)

    monkeypatch.setattr(Child, "ask", refused)
    (row,) = bench.run(models / "up", formats="onnx-cpu", sizes=["64x48"], **QUICK).rows
    assert (row.status, row.file) == ("ok", {})
    assert "nothing from file to file: too large" in row.notes
    assert row.stages["infer_ms"] > 0


@pytest.mark.parametrize("size", ["65x49", "17x300"])
def test_odd_sizes_are_measured(models: Path, size: str) -> None:
    pair = [models / "up", models / "ip"]
    results = bench.run(pair, formats="onnx-cpu", sizes=[size], **QUICK)
    assert [row.status for row in results.rows] == ["ok", "ok"]
    assert all(row.file["fps"] > 0 for row in results.rows)
    assert all(row.quality["identical"] for row in results.rows)


def test_clips_that_cannot_be_used_are_refused(
    models: Path, make_clip: Any, tmp_path: Path
) -> None:
    with pytest.raises(MediaError):
        bench.run(models / "up", input=tmp_path / "none.mp4", **QUICK)
    with pytest.raises(InputError, match="at least 2 frames, got 1"):
        bench.run(models / "up", input=make_clip("one.mp4", frames=1), **QUICK)


def endless(folder: Path) -> Path:
    """An upscaler that never answers."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["again"], ["again_out"]),
            helper.make_node("Add", ["v", "v"], ["v_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, ["N", "H", "W", 3]),
        ],
        [
            helper.make_tensor_value_info("again_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v_out", TensorProto.FLOAT, ["N", "H", "W", 3]),
        ],
    )
    frames = tiny_models.tensor("frames", "uint8", "N", "H", "W", 3)
    upscaled = tiny_models.tensor("upscaled", "uint8", "N", "H", "W", 3)
    nodes = [
        helper.make_node("Cast", ["frames"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Loop", ["", "start", "x"], ["y"], body=body),
        helper.make_node("Cast", ["y"], ["upscaled"], to=TensorProto.UINT8),
    ]
    start = helper.make_tensor("start", TensorProto.BOOL, [], [True])
    manifest = tiny_models.manifest(
        name=folder.name, task="upscaler", scale=1,
        graphs={"upscale": {"file": "run.onnx", "inputs": [frames], "outputs": [upscaled]}},
    )  # fmt: skip
    data = tiny_models.model(nodes, [frames], [upscaled], [start])
    write_bundle(folder, manifest, {"run.onnx": data})
    return folder


def test_a_row_that_never_answers_fails_and_its_process_ends(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []
    init = Child.__init__

    def noted(self: Child, *arguments: Any) -> None:
        init(self, *arguments)
        # The clock starts once the process has: this machine may be slow to start one.
        self._timeout = 5 if "endless" in str(arguments) else 300
        started.append(self._process)

    monkeypatch.setattr(Child, "__init__", noted)
    folder = endless(tmp_path / "endless")
    results = bench.run([folder, models / "up"], formats="onnx-cpu", sizes=["64x48"], **QUICK)
    stuck, fine = results.rows
    assert (stuck.status, stuck.reason) == ("failed", "no answer to 'open' within 5 s")
    assert fine.status == "ok"
    assert all(process.poll() is not None for process in started)


def child(models: Path, tmp_path: Path) -> Child:
    with runner.Runner(
        [models / "up"], None, "onnx-cpu", ["64x48"], None, Settings(), runner.Clip()
    ) as made:
        spec = made._child_spec(made._works[0].spec, tmp_path / "outputs.raw")
        frames = np.zeros(spec["frames"]["shape"], np.uint8)
    frames.tofile(tmp_path / "frames.raw")
    spec["frames"]["path"] = str(tmp_path / "frames.raw")
    return Child(spec, 300)


def test_a_process_that_dies_says_how(models: Path, tmp_path: Path) -> None:
    victim = child(models, tmp_path)
    victim.ask("open")
    os.kill(victim._process.pid, signal.SIGKILL)
    with pytest.raises(RowError, match="killed by SIGKILL in 'warm', as the system does"):
        victim.ask("warm", least=0.0, most=1.0)
    victim.kill()


def test_unknown_errors_of_a_row_are_errors_and_not_the_end(models: Path, tmp_path: Path) -> None:
    made = child(models, tmp_path)
    made.ask("open")
    with pytest.raises(RowError) as caught:
        made.ask("file", clip=str(tmp_path / "none.mp4"), output=str(tmp_path / "out.mp4"))
    assert caught.value.error["type"] == "UnreadableMediaError"
    assert made.ask("memory")["peak_rss_mb"] > 0
    made.end()
    assert made._process.returncode == 0


def test_a_row_without_room_waits_for_the_others(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_has_room", lambda alive: False)
    alive: list[int] = []
    start = runner.Runner._start

    def noted(self: runner.Runner, work: Any) -> None:
        alive.append(sum(w.child is not None for w in self._works))
        start(self, work)

    monkeypatch.setattr(runner.Runner, "_start", noted)
    results = bench.run(
        [models / "up", models / "off"], formats="onnx-cpu", sizes=["64x48"], **QUICK
    )
    assert [row.status for row in results.rows] == ["ok", "ok"]
    assert alive == [0, 0]


def test_a_row_that_ran_out_of_memory_beside_others_is_tried_again_alone(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = runner.Runner._start

    def short(self: runner.Runner, work: Any) -> None:
        if any(w.child is not None for w in self._works):
            raise RowError("failed", "not enough memory", {"type": "OutOfMemoryError"})
        start(self, work)

    monkeypatch.setattr(runner.Runner, "_start", short)
    results = bench.run(
        [models / "up", models / "off"], formats="onnx-cpu", sizes=["64x48"], **QUICK
    )
    assert [row.status for row in results.rows] == ["ok", "ok"]
    assert "measured again alone" in results.rows[1].notes[0]


def test_watched_runs_wait_for_their_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastvid.backends import _cuda_runtime
    from fastvid.bench._hooks import Watch, WatchedSession

    class Queued:
        stream = 7

        def run(self, inputs: Any, keep: Any = ()) -> dict[str, Any]:
            return {"inputs": inputs, "keep": keep}

    calls: list[Any] = []
    monkeypatch.setattr(_cuda_runtime, "call", lambda *arguments: calls.append(arguments))
    watch = Watch()
    session = WatchedSession("graph", Queued(), watch)
    assert session.run(3, keep=("a",)) == {"inputs": 3, "keep": ("a",)}
    assert calls == [("cudaStreamSynchronize", 7)]
    assert [graph for graph, _, _ in watch.take()] == ["graph"]


def test_hooks_are_gone_after_use_and_change_no_result(models: Path) -> None:
    from fastvid import Upscaler, _model
    from fastvid.bench._hooks import watched

    frame = np.arange(64 * 48 * 3, dtype=np.uint8).reshape(48, 64, 3)
    with Upscaler(models / "up") as plain:
        wanted = plain.upscale_frame(frame)
    with watched() as watch, Upscaler(models / "up") as model:
        np.testing.assert_array_equal(model.upscale_frame(frame), wanted)
        assert [graph for graph, _, _ in watch.take()] == ["upscale"]
        assert model.report().task == "upscaler"
    assert _model.wrap_loaded is None
    begun = time.perf_counter()
    assert watch.take() == []
    assert time.perf_counter() - begun < 60


def test_rows_are_plain_data(measured: Results) -> None:
    row = measured.rows[0]
    assert dataclasses.replace(row, model="x").label == "x onnx-cpu 64x48"
    assert row.key == ("up", "onnx-cpu", (64, 48))
