"""IFNet 4.x: recognised, the same as vs-rife's networks, and as graphs the same again."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

import onnx  # noqa: E402
import torch.nn.functional as F  # noqa: E402
import vsrife_nets  # noqa: E402

from fastvid import Interpolator  # noqa: E402
from fastvid.cli import main  # noqa: E402
from fastvid.errors import FastvidError, InputError  # noqa: E402
from fastvid.metrics import psnr  # noqa: E402
from fastvid.scene import Scene  # noqa: E402
from fastvid.video import Video  # noqa: E402
from fastvid_export import importers, ops  # noqa: E402
from fastvid_export.errors import CheckpointError  # noqa: E402
from fastvid_export.foreign_graphs import OnnxFlags  # noqa: E402
from fastvid_export.importers import ImportOptions, rife  # noqa: E402
from fastvid_export.models.ifnet import IFNet  # noqa: E402
from fastvid_export.models.ifnet_versions import VERSIONS, Version, nearest  # noqa: E402

BY_NAME = {name: version for version in VERSIONS for name in version.names}


class Sampled(IFNet):
    """Warps as vs-rife does, so that only the network is compared."""

    def warp(self, image: Any, flow: Any) -> Any:
        height, width = image.shape[2:]
        x = torch.linspace(-1, 1, width) + flow[:, 0] / ((width - 1) / 2)
        y = torch.linspace(-1, 1, height)[:, None] + flow[:, 1] / ((height - 1) / 2)
        grid = torch.stack([x, y], -1)
        return F.grid_sample(image, grid, padding_mode="border", align_corners=True)


def network(version: Version, flow_scale: float = 1.0, kind: type[IFNet] = IFNet) -> IFNet:
    scales = tuple(round(scale / flow_scale) for scale in version.options.scales)
    with torch.device("meta"):
        net = kind(replace(version.options, scales=scales))
    net.load_state_dict(vsrife_nets.random_state(version.shapes()), assign=True)
    return net.eval()


def theirs(name: str, **options: Any) -> Any:
    module = vsrife_nets.load(name)
    with torch.device("meta"):
        net = module.IFNet(**options)
    net.load_state_dict(vsrife_nets.random_state(BY_NAME[name].shapes()), assign=True)
    return net.eval()


def images(height: int, width: int) -> list[Any]:
    scene = Scene(width, height, seed=3)
    return [ops.rgb_to_planar(torch.from_numpy(scene.draw(t / 30)[None])) for t in (10, 12)]


def relative(ours: Any, wanted: Any) -> float:
    return float((ours - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.names[-1])
def test_networks_are_those_of_vsrife(version: Version) -> None:
    side = max(64, version.options.multiple_of)
    ours, other = network(version, kind=Sampled), theirs(version.names[-1])
    assert {n: tuple(v.shape) for n, v in other.state_dict().items()} == version.shapes()
    pair = images(side, 2 * side)
    with torch.no_grad():
        made = ours(*pair, torch.tensor([0.3]))
        warped = network(version)(*pair, torch.tensor([0.3]))
    wanted = vsrife_nets.draw(other, *pair, 0.3)
    assert relative(made, wanted) <= 1e-5
    # Theirs rounds coordinates to parts of the image, ours to parts of a pixel.
    assert relative(warped, wanted) <= 1e-4


@pytest.mark.parametrize("name", ["4.6", "4.26"])
def test_blocks_are_those_of_vsrife(name: str) -> None:
    ours, other = network(BY_NAME[name]), theirs(name)
    torch.manual_seed(1)
    for index, block in enumerate(ours.blocks()):
        channels = ours.options.inputs(index) - (4 if index else 0)
        x, flow = torch.rand(1, channels, 64, 128), 4 * torch.randn(1, 4, 64, 128)
        flow = flow if index else None
        with torch.no_grad():
            wanted = getattr(other, f"block{index}")(x, flow, scale=other.scale_list[index])
            made = block(x, flow)
        for mine, given in zip(made, wanted, strict=False):
            assert relative(mine, given) <= 1e-5


@pytest.mark.parametrize("name", ["4.6", "4.26"])
@pytest.mark.parametrize("scale", [0.5])
def test_motion_at_a_part_of_the_size_is_that_of_vsrife(name: str, scale: float) -> None:
    ours = network(BY_NAME[name], scale, Sampled)
    pair = images(128, 128)
    with torch.no_grad():
        made = ours(*pair, torch.tensor([0.4]))
    assert relative(made, vsrife_nets.draw(theirs(name, scale=scale), *pair, 0.4)) <= 1e-5


def test_every_published_version_has_shapes_of_its_own() -> None:
    for version in VERSIONS:
        assert nearest(version.shapes()) is version
    assert len(BY_NAME) == sum(len(version.names) for version in VERSIONS)


# From a checkpoint to a bundle


def saved(path: Path, name: str, change: Callable[[dict[str, Any]], Any] = dict) -> Path:
    state = vsrife_nets.random_state(BY_NAME[name].shapes())
    torch.save(change({f"module.{key}": value for key, value in state.items()}), path)
    return path


def imported(path: Path, folder: Path, flags: OnnxFlags | None = None) -> list[str]:
    said: list[str] = []
    assert importers.find(path) is rife
    rife.build(path, folder, ImportOptions("rife", flags or OnnxFlags()), said.append)
    return said


@pytest.mark.parametrize("name", ["4.4", "4.6", "4.9", "4.12", "4.14-lite", "4.22-lite", "4.26"])
def test_graphs_draw_what_the_network_draws(tmp_path: Path, name: str) -> None:
    imported(saved(tmp_path / "flownet.pkl", name), tmp_path / "made")
    for graph in ("motion", "between"):
        nodes = onnx.load(tmp_path / "made" / f"{graph}.onnx").graph.node
        kinds = {node.op_type for node in nodes}
        assert not kinds & {"GridSample", "ScatterND", "ConvTranspose", "Loop", "If"}
        assert graph == "motion" or {"Warp", "WarpBlend"} <= kinds
    # 100 rows are padded, by repeating the last one.
    scene, net = Scene(160, 100, seed=5), network(BY_NAME[name])
    frames = [scene.draw(t / 30) for t in (10, 12)]
    step = net.options.multiple_of
    with Interpolator(tmp_path / "made", device="cpu", threads=1) as model:
        made = model.between(*frames, [0.3, 0.5])
    assert made.shape == (2, 100, 160, 3)
    padding = ((0, -100 % step), (0, -160 % step), (0, 0))
    padded = [torch.from_numpy(np.pad(frame, padding, "edge")[None]) for frame in frames]
    pair = [ops.rgb_to_planar(frame) for frame in padded]
    for time, picture in zip((0.3, 0.5), made, strict=True):
        with torch.no_grad():
            wanted = ops.planar_to_rgb(net(*pair, torch.tensor([time])))[0, :100, :160].numpy()
        assert psnr(picture, wanted) >= 50
    assert psnr(made[0], made[1]) < 50  # the time matters


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rife")
    imported(saved(folder / "flownet.pkl", "4.6"), folder / "made")
    return folder / "made"


def test_times_of_a_pair_share_its_motion(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(96, 64, seed=5)
    with Interpolator(bundle, device="cpu", threads=1) as model:
        runs = []
        session = model._graph("motion")
        monkeypatch.setattr(
            type(session), "run", _counting(type(session).run, session, runs), raising=True
        )
        many = model.between(scene.draw(0), scene.draw(0.1), [0.25, 0.5, 0.75])
        assert len(runs) == 1
        one = model.between(scene.draw(0), scene.draw(0.1), 0.5)
    np.testing.assert_array_equal(many[1], one)


def _counting(run: Any, session: Any, runs: list[int]) -> Any:
    def counted(self: Any, *args: Any, **named: Any) -> Any:
        if self is session:
            runs.append(1)
        return run(self, *args, **named)

    return counted


def test_video_gets_the_frames_of_the_network(bundle: Path, shared_data: Path) -> None:
    source = Video.open(shared_data / "clips/sam2_gallery/bedroom.mp4")
    frames = [frame.image for frame, _ in zip(source, range(3), strict=False)]
    frames = [np.ascontiguousarray(frame[:96, :160]) for frame in frames]
    with Interpolator(bundle, device="cpu", threads=1) as model:
        video = model.interpolate(Video.from_frames(frames, 25), factor=2, scene_cuts=False)
        made = [frame.image for frame in video]
    assert len(made) == 6
    net = network(BY_NAME["4.6"])
    for index in range(2):
        np.testing.assert_array_equal(made[2 * index], frames[index])
        pair = [ops.rgb_to_planar(torch.from_numpy(f[None])) for f in frames[index : index + 2]]
        with torch.no_grad():
            wanted = ops.planar_to_rgb(net(*pair, torch.tensor([0.5])))[0].numpy()
        assert psnr(made[2 * index + 1], wanted) >= 50


def test_batches_give_what_single_pairs_give(bundle: Path) -> None:
    from fastvid_export.running import Runner

    motion, between = (
        Runner((bundle / f"{name}.onnx").read_bytes()) for name in ("motion", "between")
    )
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 256, (2, 2, 64, 96, 3), np.uint8)
    times = np.array([0.2, 0.7], np.float32)
    both = between(motion({"frame0": frames[0], "frame1": frames[1]}) | {"timestep": times})
    for i in range(2):
        pair = {"frame0": frames[0, i : i + 1], "frame1": frames[1, i : i + 1]}
        single = between(motion(pair) | {"timestep": times[i : i + 1]})
        np.testing.assert_array_equal(both["frame"][i : i + 1], single["frame"])


# What a file may look like


def test_names_may_lack_the_prefix_and_values_may_be_half(tmp_path: Path) -> None:
    def changed(state: dict[str, Any]) -> dict[str, Any]:
        plain = {key.removeprefix("module."): value.half() for key, value in state.items()}
        extra = {"teacher.block0.conv0.0.0.weight": torch.ones(1), "caltime.0.bias": torch.ones(1)}
        return plain | extra

    said = imported(saved(tmp_path / "weights.pt", "4.6", changed), tmp_path / "made")
    assert any("training only: caltime, teacher" in line for line in said)
    manifest = json.loads((tmp_path / "made" / "bundle.json").read_text())
    assert manifest["provenance"]["settings"]["architecture"] == "IFNet 4.6"
    assert manifest["licence"] == "MIT"
    assert manifest["size_rule"]["multiple_of"] == 32


def test_folder_and_safetensors_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "train_log"
    folder.mkdir()
    saved(folder / "flownet.pkl", "4.6")
    imported(folder, tmp_path / "one")
    files = pytest.importorskip("safetensors.torch")
    files.save_file(torch.load(folder / "flownet.pkl"), tmp_path / "some.safetensors")
    imported(tmp_path / "some.safetensors", tmp_path / "two")
    graphs = [(tmp_path / made / "between.onnx").read_bytes() for made in ("one", "two")]
    assert graphs[0] == graphs[1]


def test_flow_scale_widens_the_size_rule(tmp_path: Path) -> None:
    path = saved(tmp_path / "flownet.pkl", "4.6")
    imported(path, tmp_path / "made", OnnxFlags(flow_scale=0.5))
    manifest = json.loads((tmp_path / "made" / "bundle.json").read_text())
    assert manifest["size_rule"] == {"minimum": 64, "multiple_of": 64, "padding": "edge"}


def test_command_makes_a_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path / "flownet_v4.6.pkl", "4.6")
    assert main(["export", str(path), "--output", str(tmp_path / "rife"), "--quiet"]) == 0
    with Interpolator(tmp_path / "rife", device="cpu", threads=1) as model:
        frame = np.full((40, 50, 3), 90, np.uint8)
        assert model.between(frame, frame).shape == frame.shape
    (tmp_path / "broken.pkl").write_bytes(path.read_bytes()[:5000])
    (tmp_path / "rife-broken.pkl").write_bytes(path.read_bytes()[:5000])
    code = main(["export", str(tmp_path / "rife-broken.pkl"), "--output", str(tmp_path / "no")])
    assert code == CheckpointError.exit_code
    assert "cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


class _Code:
    def __reduce__(self) -> Any:
        return print, ("code was run",)


def _drop(state: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in state.items()
        if not key.endswith(("block2.conv0.1.0.bias", "block3.lastconv.0.bias"))
    } | {"module.block9.weight": torch.ones(2)}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_drop, r"block2\.conv0\.1\.0\.bias, block3\.lastconv\.0\.bias.*block9\.weight"),
        (lambda s: s | {"module.block0.conv0.0.1.weight": torch.ones(96)}, "4.1 or older"),
        (lambda s: s | {"block0.conv0.0.0.bias": torch.ones(96)}, "once"),
        (lambda s: s | {"module.block1.conv0.0.0.bias": torch.full((64,), torch.nan)}, "finite"),
        (lambda s: s | {"module.block1.conv0.0.0.bias": torch.ones(5)}, r"\[5\]"),
        (lambda s: {"module.block0.lastconv.x": torch.ones(1)}, "missing"),
        (lambda s: {"epoch": 3}, "tensors"),
        (lambda s: [1, 2], "tensors by name"),
    ],
)
def test_wrong_weights_are_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], problem: str
) -> None:
    path = saved(tmp_path / "flownet.pkl", "4.6", change)
    with pytest.raises(CheckpointError, match=problem):
        imported(path, tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_code_in_a_file_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "flownet.pkl"
    path.write_bytes(pickle.dumps({"module.block0.conv0.0.0.weight": _Code()}))
    with pytest.raises(CheckpointError):
        imported(path, tmp_path / "made")
    assert "code was run" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (OnnxFlags(flow_scale=0.3), "flow-scale: argument must be one of 1, 0.5, 0.25, got 0.3"),
        (OnnxFlags(task="upscaler"), "task"),
        (OnnxFlags(scale=2), "scale"),
        (OnnxFlags(padding="none"), "padding"),
    ],
)
def test_flags_without_a_use_are_refused(tmp_path: Path, flags: OnnxFlags, problem: str) -> None:
    path = tmp_path / "flownet.pkl"
    path.write_bytes(b"")
    with pytest.raises(InputError, match=problem):
        imported(path, tmp_path / "made", flags)


def test_other_files_are_not_ours(tmp_path: Path) -> None:
    for name in ("model.pth", "rife-upscaler.pth"):
        torch.save({"conv.weight": torch.ones(2)}, tmp_path / name)
    (tmp_path / "flownet.txt").write_text("block0")
    for name in (".", "model.pth", "rife-upscaler.pth", "flownet.txt", "flownet.pkl"):
        assert not rife.matches(tmp_path / name)


def test_older_and_renamed_files_are_known_by_their_names_inside(tmp_path: Path) -> None:
    path = saved(tmp_path / "some.pth", "4.6")
    state = torch.load(path)
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert rife.matches(path)
    assert rife.matches(tmp_path / "old.pt")


def test_sizes_that_the_rule_forbids_are_refused(bundle: Path) -> None:
    with Interpolator(bundle, device="cpu", threads=1) as model:
        with pytest.raises(InputError):
            model.between(np.zeros((0, 5, 3), np.uint8), np.zeros((0, 5, 3), np.uint8))
        frame = np.zeros((20, 20, 3), np.uint8)
        assert model.between(frame, frame).shape == frame.shape


def test_wrong_size_rule_is_an_error_and_no_picture(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "wrong")
    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest["size_rule"] = {"minimum": 8, "multiple_of": 8, "padding": "edge"}
    (tmp_path / "wrong" / "bundle.json").write_text(json.dumps(manifest))
    frame = np.zeros((72, 40, 3), np.uint8)
    with (
        Interpolator(tmp_path / "wrong", device="cpu", threads=1) as model,
        pytest.raises(FastvidError, match="flow must have shape"),
    ):
        model.between(frame, frame)
