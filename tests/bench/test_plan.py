"""Which rows there are, and which arguments are refused before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastvid import bench
from fastvid.bench import _plan
from fastvid.bench._plan import Clip, make
from fastvid.errors import InputError, InputTypeError, ModelError

CLIP = Clip()


def test_rows_are_every_format_of_every_size_of_every_model(models: Path) -> None:
    specs = make(
        [models / "up", str(models / "ip")], "onnx-cpu,engine", ["64x48", (32, 32)], CLIP, None
    )
    assert [(s.label, s.size, s.format) for s in specs] == [
        (model, size, form)
        for model in ("up", "ip")
        for size in ((64, 48), (32, 32))
        for form in ("onnx-cpu", "engine")
    ]
    assert all(spec.problem == "" for spec in specs if spec.format == "onnx-cpu")


def test_shipped_models_and_all_formats_are_the_default() -> None:
    specs = make(None, None, None, CLIP, None)
    assert {spec.label for spec in specs} >= {"interpolator-fast", "upscaler-fast-x2"}
    assert {spec.format for spec in specs} == set(bench.FORMATS)
    assert {spec.size for spec in specs if spec.task != "generator"} == {(1280, 720)}


def test_a_short_name_is_that_model_of_every_task_and_factor() -> None:
    upscalers = [f"upscaler-fast-x{scale}" for scale in (2, 3, 4)]
    labels = {bundle.name for bundle in _plan.find_models(["fast"])}
    assert labels == {"interpolator-fast", *upscalers}
    assert [b.name for b in _plan.find_models(["upscaler-fast"])] == upscalers
    assert [b.name for b in _plan.find_models(["upscaler-fast-x2"])] == upscalers[:1]


def test_sizes_come_from_the_clip_and_of_a_generator_from_itself(models: Path) -> None:
    specs = make([models / "up", models / "gen"], "onnx-cpu", None, CLIP, (80, 60))
    assert [spec.size for spec in specs] == [(80, 60), (24, 16)]
    assert specs[0].generation == {}
    assert (specs[1].generation["num_frames"], specs[1].generation["num_inference_steps"]) == (9, 4)


def test_a_size_that_one_model_refuses_is_a_row_and_that_all_refuse_an_error(models: Path) -> None:
    specs = make([models / "up", models / "even"], "onnx-cpu", ["31x31"], CLIP, None)
    assert specs[0].problem == ""
    assert specs[1].problem.startswith("even does not take 31x31: frame: height and width must be")
    with pytest.raises(InputError, match="even does not take 31x31"):
        make([models / "even"], "onnx-cpu", ["31x31"], CLIP, None)


def test_two_models_of_one_name_are_told_apart(models: Path, tmp_path: Path) -> None:
    import bundles

    other = bundles.upscaler(tmp_path / "up")
    specs = make([models / "up", other.path], "onnx-cpu", ["64x48"], CLIP, None)
    assert [spec.label for spec in specs] == ["up", "up #2"]


def test_devices_have_numbers() -> None:
    words = [(word, device) for word, _, device in _plan.parse_formats("onnx-cuda:1,engine,engine")]
    assert words == [("onnx-cuda:1", "cuda:1"), ("engine", "cuda:0")]


@pytest.mark.parametrize("formats", ["onnx", "onnx-cpu:1", "engine:x", "", [], "onnx-cpu,,", [3]])
def test_unknown_formats_are_refused_with_those_there_are(formats: object) -> None:
    with pytest.raises(InputError, match="onnx-cpu, onnx-cuda, openvino, openvino-bf16, engine"):
        _plan.parse_formats(formats)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "size", ["64", "64x", "x64", "0x64", "64x99999", "-4x4", (64,), 64, "6 4x4"]
)
def test_sizes_must_be_two_whole_numbers(size: object) -> None:
    with pytest.raises(InputError, match="size: argument must be WxH with sides from 1 to 16384"):
        _plan.parse_size(size)


def test_unknown_models_are_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got 'fastest'") as caught:
        _plan.find_models(["fastest"])
    assert "upscaler-fast-x2" in caught.value.message
    with pytest.raises(ModelError, match=r"bundle\.json"):
        _plan.find_models([tmp_path])
    with pytest.raises(InputTypeError, match="name or a folder, got int"):
        _plan.find_models([3])  # type: ignore[list-item]


def test_too_many_rows_are_refused(models: Path) -> None:
    sizes = [f"{side}x64" for side in range(64, 400)]
    with pytest.raises(InputError, match="rows must be at most 256, got 336"):
        make([models / "up"], "onnx-cpu", sizes, CLIP, None)


def test_references_are_the_row_itself_or_its_float32_twin(models: Path) -> None:
    specs = make([models / "up", models / "ip", models / "off"], "onnx-cpu", ["64x48"], CLIP, None)
    up, ip, off = specs
    assert [_plan.reference_of(s, specs, None)[1] for s in specs] == ["up", "ip", "up"]
    assert _plan.reference_of(off, [off, ip], None)[1] == "up-fp16"
    assert _plan.reference_of(ip, specs, up.bundle)[1] == "ip"
    assert _plan.reference_of(off, [off], up.bundle)[0] == up.bundle


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("seconds", 0, "seconds: argument must be from 0.01 to 3600, got 0"),
        ("seconds", float("nan"), "seconds: argument must be from 0.01"),
        ("seconds", "3", "seconds: argument must be a number, got str"),
        ("max_seconds", 1, "max_seconds: argument must be from 3 to 36000, got 1"),
        ("min_samples", 0, "min_samples: argument must be from 1 to 100000, got 0"),
        ("min_samples", 1.5, "min_samples: argument must be an int, got float"),
        ("processes", 101, "processes: argument must be from 1 to 100"),
        ("threads", 0, "threads: argument must be from 1 to 1024, got 0"),
        ("timeout", 0.5, "timeout: argument must be from 1"),
    ],
)
def test_settings_are_checked(argument: str, value: object, message: str) -> None:
    from fastvid.bench._settings import Settings

    with pytest.raises(InputError) as caught:
        Settings(**{argument: value})  # type: ignore[arg-type]
    assert caught.value.message.startswith(message)


def test_openvino_rows_say_what_they_compute_in(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastvid.backends import _choice

    monkeypatch.setattr(_choice, "installed", lambda module: True)
    monkeypatch.setattr(_choice, "_runnable", lambda: ("float32", "bfloat16"))
    upscaler, interpolator = "upscaler-fast-x2", "interpolator-fast"
    specs = make([upscaler, interpolator], "openvino,openvino-bf16", ["64x48"], CLIP, None)
    assert [(s.backend, s.computes, s.precision) for s in specs[:2]] == [
        ("openvino", "auto", "float32"),
        ("openvino", "bfloat16", "bfloat16"),
    ]
    assert [spec.problem for spec in specs[:2]] == ["", ""]
    monkeypatch.setattr(_choice, "_runnable", lambda: ("float32",))
    (narrow,) = make([upscaler], "openvino-bf16", ["64x48"], CLIP, None)
    assert narrow.problem == "upscaler-fast-x2 is not offered in bfloat16 here"
    monkeypatch.setattr(_choice, "installed", lambda module: False)
    (absent,) = make([upscaler], "openvino", ["64x48"], CLIP, None)
    assert absent.problem == "openvino is not installed"
