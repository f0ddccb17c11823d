"""`fastvid export`: every format that can be made here, what is stored with it, what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import bundles
import numpy as np
import onnx
import pytest
import tiny_models

import fastvid_export
from fastvid import Interpolator, Upscaler, cli
from fastvid.bundle import Bundle, shipped
from fastvid.errors import (
    BackendUnavailableError,
    DiskFullError,
    FastvidError,
    InputError,
    InputTypeError,
    OutputError,
)
from fastvid.metrics import psnr
from fastvid.scene import Scene
from fastvid_export import export, exporting, fidelity, formats, samples
from fastvid_export.convert import int8
from fastvid_export.errors import ExportError, FidelityError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def small_pictures() -> None:
    """Scenes of 80x64, so that the tests are quick."""
    patch = pytest.MonkeyPatch()
    patch.setattr(samples, "SIDES", (64, 80))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def upscaler(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundles.conv_upscaler(tmp_path_factory.mktemp("models") / "up")


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return Scene(80, 64, seed=5).draw(0.2)


# The table


def test_docs_and_help_show_the_table_of_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs/export.md").read_text()
    assert formats.to_markdown() in page
    for name, gate in fidelity.GATES.items():
        assert f"| {name} | {gate.pictures:g} dB | {gate.values:g} dB | {gate.cosine:g} |" in page
    with pytest.raises(SystemExit) as stop:
        cli.main(["export", "--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    for line in formats.to_text().splitlines():
        assert line in printed


def test_every_option_in_the_table_is_one_of_the_command() -> None:
    parser = cli.build_parser()
    for row in formats.FORMATS:
        for option in row.options:
            value = [] if option == "portable" else ["x"]
            parser.parse_args(["export", "m", "--format", row.name, f"--{option}", *value])


def test_other_commands_do_not_look_for_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise AssertionError("looked for entry points")

    monkeypatch.setattr(cli, "_other_commands", fail)
    cli.build_parser(["upscale", "clip.mp4"])
    with pytest.raises(AssertionError):
        cli.build_parser(["export"])


def test_help_of_export_loads_neither_numpy_nor_onnx() -> None:
    code = (
        "import sys\nfrom fastvid.cli import main\n"
        "try: main(['export', '--help'])\nexcept SystemExit: pass\n"
        "heavy = {'numpy', 'onnx', 'onnxruntime', 'torch'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# What comes out


@pytest.mark.parametrize(
    ("name", "precision", "share", "least"),
    [
        ("onnx", "float32", 1.2, 90.0),
        ("onnx-fp16", "float16", 0.75, 55.0),
        ("onnx-int8", "int8", 0.75, 40.0),
    ],
)
@pytest.mark.parametrize("portable", [False, True])
def test_artefacts_load_with_the_same_class_and_draw_the_same(
    upscaler: Bundle,
    picture: np.ndarray,
    tmp_path: Path,
    name: str,
    precision: str,
    share: float,
    least: float,
    portable: bool,
) -> None:
    path = export(upscaler.path, name, output=tmp_path / "made", portable=portable)
    made = Bundle.load(path)
    made.verify()
    assert (path, made.precision) == (tmp_path / "made", precision)
    before, after = (sum(f.size for f in b.files.values()) for b in (upscaler, made))
    assert portable or after <= share * before
    with Upscaler(upscaler.path, device="cpu") as old, Upscaler(path, device="cpu") as new:
        assert new.report().precision == precision
        assert new.report().graphs[0].custom_ops != portable
        assert psnr(new.upscale_frame(picture), old.upscale_frame(picture)) >= least
    (figure,) = made.fidelity
    assert (figure.graph, figure.output, figure.unit) == ("upscale", "upscaled", "levels")
    assert figure.psnr is None or figure.psnr >= least
    ends = {q.metric: q for q in made.quality}
    assert "drawn scenes" in ends["largest difference from float32, end to end"].data


def test_what_is_computed_in_8_bits_is_in_the_graph(upscaler: Bundle, tmp_path: Path) -> None:
    path = export(upscaler.path, "onnx-int8", output=tmp_path / "made")
    model = onnx.load(path / "upscale.onnx")
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("QuantizeLinear") >= 3
    made = Bundle.load(path).provenance
    assert made.settings["conversion.upscale"] == "int8 convolutions"
    assert made.settings["sha256.upscale"] == upscaler.files["upscale.onnx"].sha256
    # The picture itself is the last convolution's result, which stays in float32.
    last = next(node for node in model.graph.node if node.output[0] == "last")
    assert "DequantizeLinear" not in [
        n.op_type for n in model.graph.node if last.input[1] in n.output
    ]


def test_int8_falls_back_to_weights_where_activations_miss_the_gate(
    upscaler: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wide(model: onnx.ModelProto, names: list[str], inputs: object) -> dict:
        return dict.fromkeys(names, (-500.0, 500.0))

    monkeypatch.setattr(int8, "calibrate", wide)
    lines: list[str] = []
    path = export(upscaler.path, "onnx-int8", output=tmp_path / "made", say=lines.append)
    assert any("int8 convolutions misses the gate" in line for line in lines)
    assert Bundle.load(path).provenance.settings["conversion.upscale"] == "int8 weights"
    kinds = [node.op_type for node in onnx.load(path / "upscale.onnx").graph.node]
    assert "QuantizeLinear" not in kinds


def test_below_the_gate_nothing_is_written(upscaler: Bundle, tmp_path: Path) -> None:
    with pytest.raises(FidelityError, match=r"upscaled of upscale .* at least 150 dB, got") as info:
        export(upscaler.path, "onnx-fp16", output=tmp_path / "made", min_psnr=150)
    assert "--min-psnr" in info.value.hint
    assert not list(tmp_path.iterdir())


def test_interpolators_are_checked_graph_by_graph(tmp_path: Path) -> None:
    made = bundles.interpolator(tmp_path / "ip")
    path = export(made.path, "onnx-fp16")
    assert path == tmp_path / "ip-fp16"
    assert [(f.graph, f.output) for f in Bundle.load(path).fidelity] == [
        ("motion", "change"),
        ("between", "frame"),
    ]
    with Interpolator(path, device="cpu") as model:
        frames = np.zeros((2, 8, 8, 3), np.uint8)
        assert model.between(*frames).shape == (8, 8, 3)


def test_real_clips_check_and_calibrate(
    upscaler: Bundle, tmp_path: Path, picture: np.ndarray
) -> None:
    from fastvid import Video

    clip = tmp_path / "clip.mp4"
    Video.from_frames([np.roll(picture, 2 * i, 1) for i in range(8)], 10).save(clip)
    path = export(upscaler.path, "onnx-int8", output=tmp_path / "made", data=clip)
    assert Bundle.load(path).fidelity[0].data == "2 runs on 1 clips of clip.mp4"


def test_shipped_names_are_models_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = export("upscaler-fast-x2", "onnx-fp16")
    assert path == tmp_path / "upscaler-fast-x2-fp16"
    made, source = Bundle.load(path), Bundle.load(shipped()["upscaler-fast-x2"])
    assert made.files["upscale.onnx"].size <= 0.55 * source.files["upscale.onnx"].size
    assert all("before conversion" in q.data for q in made.quality[: len(source.quality)])


def test_the_shipped_interpolator_needs_no_library_when_it_is_portable(tmp_path: Path) -> None:
    path = export("interpolator-fast", portable=True, output=tmp_path / "made")
    made = Bundle.load(path)
    for name in made.graphs:
        domains = {node.domain for node in onnx.load(path / f"{name}.onnx").graph.node}
        assert domains == {""}
    # Pixels, of flows of some: the search descends by other sums.
    (flow,) = (f for f in made.fidelity if f.output == "flow")
    assert flow.psnr is not None
    assert flow.psnr > 80


# The command


def test_the_command_prints_path_size_time_and_what_to_do_next(
    upscaler: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "made"
    assert cli.main(["export", str(upscaler.path), "--format", "onnx-fp16", "-o", str(out)]) == 0
    printed = capsys.readouterr()
    path, size, following = printed.out.splitlines()
    assert path == str(out)
    assert " MB, 0." in size
    assert " s" in size
    assert following == f"next: fastvid upscale IN --scale 2 --model {out}"
    assert "upscaled of upscale" in printed.err
    assert cli.main(["export", str(upscaler.path), "--overwrite", "-o", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["format"], told["precision"]) == ("onnx", "float32")
    assert told["fidelity"][0]["psnr"] is None


def test_errors_have_the_documented_exit_code(
    upscaler: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", str(upscaler.path), "-o", str(tmp_path / "m"), "--format", "onnx-fp16"]
    assert cli.main([*command, "--min-psnr", "190"]) == ExportError.exit_code == 10
    error = capsys.readouterr().err
    assert "fastvid: error: fidelity: PSNR" in error


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert cli.main(["export", "upscaler-fast-x2"]) == BackendUnavailableError.exit_code
    assert "pip install 'fastvid-sdk[cpu,export]'" in capsys.readouterr().err


def test_a_broken_package_does_not_take_other_commands_along(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken:
        value = "nowhere"

        def load(self) -> None:
            raise ImportError("no such thing")

    monkeypatch.setattr(cli, "_other_commands", lambda: {"export": Broken()})
    assert cli.main(["export"]) == BackendUnavailableError.exit_code
    assert "cannot be loaded from nowhere" in capsys.readouterr().err


def test_the_module_has_nothing_but_export() -> None:
    assert fastvid_export.export is exporting.export
    with pytest.raises(AttributeError, match="no attribute 'nonsuch'"):
        fastvid_export.nonsuch  # noqa: B018


# What is refused


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"format": "coreml"}, InputError, "one of onnx, onnx-fp16, .*got 'coreml'"),
        ({"format": 3}, InputError, "got 'int'"),
        ({"format": "onnx", "precision": "int8"}, InputError, "only for engine and triton"),
        ({"format": "triton", "portable": True}, InputError, "portable: .*not be given"),
        ({"format": "onnx", "sizes": ("1080p",)}, InputError, "size: .*only for engine"),
        ({"format": "triton", "precision": "fp8"}, InputError, "float32, float16, int8, got 'fp8'"),
        ({"min_psnr": -1}, InputError, "min-psnr"),
        ({"data": 4}, InputTypeError, "data: argument must be a path"),
        ({"data": "nowhere"}, FastvidError, "nowhere"),
        ({"parts": {"video-vae": Path("x")}}, InputError, "part: argument is for checkpoints"),
        ({"format": "engine"}, BackendUnavailableError, "no NVIDIA driver|TensorRT|no device"),
        ({"format": "engine", "device": "cpu"}, InputError, "'cuda' or 'cuda:N'"),
        ({"output": "nowhere/made"}, OutputError, "nowhere' must be there"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_before_any_work(
    upscaler: Bundle, arguments: dict, kind: type[FastvidError], message: str, tmp_path: Path
) -> None:
    before = set(upscaler.path.parent.iterdir())
    with pytest.raises(kind, match=message):
        export(upscaler.path, **arguments)
    assert set(upscaler.path.parent.iterdir()) == before


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("nowhere", "holds bundle.json or .*, or a shipped model .*upscaler-fast-x2"),
        ("nowhere.onnx", "a file that is there"),
        ("nowhere.pt", "path must be a file"),
        ("text.pt", "must hold tensors and plain values only"),
        ("empty", "a folder without bundle.json"),
        (7, "a path or a name, got int"),
    ],
)
def test_what_is_no_model_is_refused(
    model: str | int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if str(model).endswith(".pt"):
        pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.pt").write_text("no checkpoint")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=message):
        export(model)  # type: ignore[arg-type]


def test_what_is_converted_already_is_refused(upscaler: Bundle, tmp_path: Path) -> None:
    path = export(upscaler.path, "onnx-fp16", output=tmp_path / "made")
    with pytest.raises(InputError, match="must be float32, 'made' has float16"):
        export(path, "onnx-int8")


def test_an_existing_folder_is_replaced_only_if_it_is_an_export(
    upscaler: Bundle, tmp_path: Path
) -> None:
    target = tmp_path / "made"
    export(upscaler.path, output=target)
    with pytest.raises(OutputError, match="must not exist"):
        export(upscaler.path, output=target)
    export(upscaler.path, "onnx-fp16", output=target, overwrite=True)
    assert Bundle.load(target).precision == "float16"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").touch()
    with pytest.raises(OutputError, match="must not exist"):
        export(upscaler.path, output=tmp_path / "mine", overwrite=True)
    with pytest.raises(OutputError, match=r"must not (be the model itself|exist)"):
        export(upscaler.path, output=upscaler.path)


def test_a_full_disk_leaves_nothing(
    upscaler: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError, match="No space left"):
        export(upscaler.path, output=tmp_path / "made")
    assert not list(tmp_path.iterdir())


def test_ctrl_c_leaves_nothing(
    upscaler: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(work))

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(samples, "pictures", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export(upscaler.path, output=tmp_path / "made")
    assert not list(work.iterdir())
    assert not (tmp_path / "made").exists()


def test_a_bundle_with_an_operator_nobody_knows_is_refused(tmp_path: Path) -> None:
    made = bundles.upscaler(tmp_path / "up")
    model = onnx.load(made.path / "run.onnx")
    model.graph.node[1].op_type = "Enlarge"
    model.graph.node[1].name = "the_node"
    folder = tmp_path / "other"
    shutil.copytree(made.path, folder)
    data = model.SerializeToString()
    (folder / "run.onnx").write_bytes(data)
    manifest = json.loads((folder / "bundle.json").read_text())
    import hashlib

    manifest["files"]["run.onnx"] = {
        "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)
    }  # fmt: skip
    (folder / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(FastvidError, match="Enlarge"):
        export(folder, "onnx-fp16")


def test_a_generator_is_converted_graph_by_graph(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    import generators

    made = generators.bundle(tmp_path / "gen")
    path = export(made.path, "onnx-int8")
    assert {f.graph for f in Bundle.load(path).fidelity} == set(made.graphs)
    assert tiny_models.manifest()["task"] == "generator"
