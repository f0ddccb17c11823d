"""Networks from elsewhere: what flags make of an ONNX file, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from fastvid import Interpolator, Upscaler
from fastvid.bundle import Bundle
from fastvid.errors import FastvidError, InputError, IntegrityError, UnsafePathError
from fastvid.scene import Scene
from fastvid_export import export, onnx_files, samples
from fastvid_export.errors import ExportError
from fastvid_export.foreign import name_of
from fastvid_export.foreign_graphs import OnnxFlags

PICTURE = Scene(80, 64, seed=5).draw(0.2)


@pytest.fixture(scope="module", autouse=True)
def small_pictures() -> Any:
    """Scenes of 80x64, so that the tests are quick."""
    patch = pytest.MonkeyPatch()
    patch.setattr(samples, "SIDES", (64, 80))
    yield
    patch.undo()


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: dict[str, list[Any]],
    outputs: dict[str, list[Any]],
    weights: dict[str, NDArray[Any]] | None = None,
    *,
    dtype: int = TensorProto.FLOAT,
) -> Path:
    def ports(values: dict[str, list[Any]]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(n, dtype, shape) for n, shape in values.items()]

    tensors = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(nodes, "net", ports(inputs), ports(outputs), tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path)
    return path


def enlarging(
    path: Path, *, last: bool = False, dtype: int = TensorProto.FLOAT, **more: Any
) -> Path:
    """Repeats pixels twice; its input has the name of the one around it."""
    scales = np.array([1, 2, 2, 1] if last else [1, 1, 2, 2], np.float32)
    node = helper.make_node(
        "Resize",
        ["frames", "", "scales"],
        ["y"],
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    small, large = ["N", 3, "h", "w"], ["N", 3, "H", "W"]
    if last:
        small, large = ["N", "h", "w", 3], ["N", "H", "W", 3]
    return save(path, [node], {"frames": small}, {"y": large}, {"scales": scales}, dtype=dtype)


def flags(**changes: Any) -> OnnxFlags:
    return OnnxFlags(**({"task": "upscaler", "scale": 2} | changes))


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"range": (0, 255)},
        {"range": (-1, 1)},
        {"order": "bgr"},
        {"multiple_of": 16, "padding": "reflect"},
        {"inputs": {"frames": "frames"}, "output": "y"},
    ],
    ids=str,
)
def test_an_upscaler_is_wrapped_by_what_the_flags_say(tmp_path: Path, given: dict) -> None:
    path = export(enlarging(tmp_path / "Real Net v2.onnx"), onnx=flags(**given))
    assert path == tmp_path / "real-net-v2"
    made = Bundle.load(path)
    assert (made.task, made.scale, made.licence) == ("upscaler", 2, "LicenseRef-unknown")
    assert made.size_rule.multiple_of == given.get("multiple_of", 1)
    with Upscaler(path, device="cpu") as model:
        large = model.upscale_frame(PICTURE)
    np.testing.assert_array_equal(large, PICTURE.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT16, TensorProto.UINT8])
def test_channels_last_and_other_dtypes(tmp_path: Path, dtype: int) -> None:
    source = enlarging(tmp_path / "net.onnx", last=True, dtype=dtype)
    path = export(source, onnx=flags(layout="nhwc"), output=tmp_path / "made")
    with Upscaler(path, device="cpu") as model:
        large = model.upscale_frame(PICTURE)
    assert np.abs(large.astype(int) - PICTURE.repeat(2, 0).repeat(2, 1)).max() <= 1


def test_the_other_formats_take_onnx_files_too(tmp_path: Path) -> None:
    source = enlarging(tmp_path / "net.onnx")
    path = export(source, "onnx-fp16", onnx=flags())
    assert path == tmp_path / "net-fp16"
    assert Bundle.load(path).precision == "float16"


# Interpolators: the mean by time, in the forms that networks have


def blending(path: Path, shapes: dict[str, list[Any]], packed: list[int] | None = None) -> Path:
    """`a + t (b - a)` of inputs a, b, t, or of slices of the one input x."""
    nodes, weights = [], {}
    if packed:
        weights["sizes"] = np.array(packed, np.int64)
        nodes.append(helper.make_node("Split", ["x", "sizes"], ["a", "b", "t"], axis=1))
    nodes += [
        helper.make_node("Sub", ["b", "a"], ["change"]),
        helper.make_node("Mul", ["change", "t"], ["part"]),
        helper.make_node("Add", ["a", "part"], ["y"]),
    ]
    return save(path, nodes, shapes, {"y": ["N", 3, "H", "W"]}, weights)


FRAME = ["N", 3, "H", "W"]


@pytest.mark.parametrize(
    ("shapes", "packed", "inputs"),
    [
        ({"a": FRAME, "b": FRAME, "t": [1]}, None, {}),
        ({"a": FRAME, "b": FRAME, "t": []}, None, {}),
        ({"t": ["N", 1, 1, 1], "b": FRAME, "a": FRAME}, None,
         {"t": "timestep", "a": "frame0", "b": "frame1"}),
        ({"a": FRAME, "b": FRAME, "t": ["N", 1, "H", "W"]}, None, {}),
        ({"x": ["N", 7, "H", "W"]}, [3, 3, 1], {"x": "frame0+frame1+timestep"}),
    ],
    ids=["vector", "scalar", "named", "plane", "packed"],
)  # fmt: skip
def test_an_interpolator_is_wrapped_in_any_of_its_forms(
    tmp_path: Path, shapes: dict, packed: list[int] | None, inputs: dict
) -> None:
    source = blending(tmp_path / "net.onnx", shapes, packed)
    path = export(source, onnx=OnnxFlags(task="interpolator", inputs=inputs))
    first, second = PICTURE, PICTURE[::-1].copy()
    with Interpolator(path, device="cpu") as model:
        quarter = model.between(first, second, 0.25)
    expected = first + 0.25 * (second.astype(float) - first)
    assert np.abs(quarter - expected).max() <= 0.51


# Flags that do not fit


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"task": None}, "task: argument must be one of upscaler, interpolator .*got nothing"),
        ({"task": "generator"}, "got 'generator'"),
        ({"task": "interpolate"}, "scale: argument must be given for upscalers only"),
        ({"scale": 3}, r"scale: .*3 gives \(1, 192, 192, 3\), the network \(1, 128, 128, 3\)"),
        ({"scale": 99}, "positive and sensible"),
        ({"range": (1, 0)}, "LOW < HIGH, got 1,0"),
        ({"layout": "chw"}, "nchw, nhwc"),
        ({"layout": "nhwc"}, r"must have 3 channels on axis 3, got shape .*--layout nchw"),
        ({"order": "grb"}, "rgb, bgr"),
        ({"padding": "zero"}, "edge, reflect, none"),
        ({"inputs": {"x": "frames"}}, "name must be one of frames, got x"),
        ({"inputs": {"frames": "picture"}}, "role of frames must be of frames, got picture"),
        ({"output": "z"}, "output-name: argument must be one of y, got 'z'"),
        ({"task": "interpolator", "scale": None, "inputs": {"frames": "frame0"}},
         "one input must be frame1"),
    ],
)  # fmt: skip
def test_wrong_flags_are_refused_with_what_was_found(
    tmp_path: Path, given: dict, message: str
) -> None:
    source = enlarging(tmp_path / "net.onnx")
    with pytest.raises(FastvidError, match=message):
        export(source, onnx=flags(**given))
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


def test_a_result_that_does_not_look_like_the_picture_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("Clip", ["x", "low", "high"], ["y"])
    limits = {"low": np.float32(-1), "high": np.float32(0)}
    source = save(
        tmp_path / "net.onnx", [node], {"x": FRAME}, {"y": FRAME},
        {k: np.asarray(v) for k, v in limits.items()},
    )  # fmt: skip
    with pytest.raises(ExportError, match=r"look like the picture.* dB") as info:
        export(source, onnx=flags(scale=1, range=(0, 1)))
    assert "--range" in info.value.hint
    # What it takes is -1 to 0.
    export(source, onnx=flags(scale=1, range=(-1, 0)))


def of_one_size(path: Path, height: int, width: int, reach: int, *, last: bool = False) -> Path:
    """Doubles 3 channels of height x width alone; each pixel is a mean of those `reach` around."""
    side = 2 * reach + 1
    kernel = np.zeros((3, 3, side, side), np.float32)
    kernel[np.arange(3), np.arange(3)] = 0.5 / side**2
    kernel[np.arange(3), np.arange(3), reach, reach] += 0.5
    weights = {"kernel": kernel, "scales": np.array([1, 1, 2, 2], np.float32)}
    weights |= {"flat": np.array([1, -1]), "back": np.array([1, 3, height, width])}
    nodes = [
        helper.make_node("Reshape", ["planes" if last else "x", "flat"], ["z"]),
        helper.make_node("Reshape", ["z", "back"], ["picture"]),
        helper.make_node("Conv", ["picture", "kernel"], ["mean"], pads=[reach] * 4),
        helper.make_node(
            "Resize", ["mean", "", "scales"], ["large" if last else "y"], mode="nearest",
            coordinate_transformation_mode="asymmetric", nearest_mode="floor",
        ),
    ]  # fmt: skip
    small, large = [1, 3, height, width], [1, 3, 2 * height, 2 * width]
    if last:
        nodes.insert(0, helper.make_node("Transpose", ["x"], ["planes"], perm=[0, 3, 1, 2]))
        nodes.append(helper.make_node("Transpose", ["large"], ["y"], perm=[0, 2, 3, 1]))
        small, large = [1, height, width, 3], [1, 2 * height, 2 * width, 3]
    return save(path, nodes, {"x": small}, {"y": large}, weights)


@pytest.mark.parametrize(
    ("size", "reach", "last"), [((64, 64), 2, False), ((48, 80), 3, True), ((33, 65), 1, False)]
)
def test_networks_of_one_size_take_frames_of_any_in_pieces(
    tmp_path: Path, size: tuple[int, int], reach: int, last: bool
) -> None:
    lines: list[str] = []
    source = of_one_size(tmp_path / "net.onnx", *size, reach, last=last)
    path = export(source, onnx=OnnxFlags(task="upscaler", range=(0, 1)), say=lines.append)
    sizes = f"{size[1]}x{size[0]} alone: larger frames pass in pieces, smaller are extended"
    assert f"found sizes: {sizes}" in lines
    made = Bundle.load(path)
    assert made.graphs["upscale"].inputs[0].shape == (1, *size, 3)
    assert made.tiling is not None
    assert (made.tiling.reach, made.tiling.exact, made.size_rule.padding) == (
        reach,
        True,
        "reflect",
    )
    frame = Scene(200, 100, seed=3).draw(0.5)
    side = 2 * reach + 1
    padded = np.pad(frame.astype(float), ((reach, reach), (reach, reach), (0, 0)))
    means = np.lib.stride_tricks.sliding_window_view(padded, (side, side), (0, 1)).mean((3, 4))
    wanted = np.rint(0.5 * means + 0.5 * frame).repeat(2, 0).repeat(2, 1)
    with Upscaler(path, device="cpu", threads=1) as model:
        large = model.upscale_frame(frame)
        # Ours and onnxruntime's sums round differently.
        assert np.abs(large - wanted).max() <= 1
        assert model.upscale_frame(frame[:20, :30]).shape == (40, 60, 3)


def test_sizes_that_an_interpolators_nodes_fix_are_refused(tmp_path: Path) -> None:
    shape = [1, 3, 64, 64]
    nodes = [
        helper.make_node("Reshape", ["a", "flat"], ["z"]),
        helper.make_node("Reshape", ["z", "back"], ["c"]),
        helper.make_node("Add", ["b", "c"], ["y"]),
    ]
    weights = {"flat": np.array([1, 3, 4096]), "back": np.array(shape)}
    source = save(tmp_path / "net.onnx", nodes, {"a": shape, "b": shape}, {"y": shape}, weights)
    with pytest.raises(InputError, match=r"must vary, got \[64, 64\]"):
        export(source, onnx=OnnxFlags(task="interpolator"))


def test_an_onnx_file_has_its_size(tmp_path: Path) -> None:
    source = enlarging(tmp_path / "net.onnx")
    with pytest.raises(InputError, match="tile: argument is for checkpoints, got an ONNX file"):
        export(source, onnx=flags(tile=64))


def test_flags_are_for_onnx_files_only(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="task: argument is for ONNX files, got a bundle"):
        export("upscaler-fast-x2", onnx=flags(), output=tmp_path / "made")


def test_names_are_made_of_file_names() -> None:
    assert name_of(Path("RealESRGAN x4+.onnx"), OnnxFlags()) == "realesrgan-x4"
    assert name_of(Path("___.onnx"), OnnxFlags()) == "model"
    assert name_of(Path("a.onnx"), OnnxFlags(name="Mine")) == "mine"


# Files that are not what they should be


@pytest.mark.parametrize("content", [b"", b"text", b"version https://git-lfs.github.com/spec/v1\n"])
def test_what_is_no_onnx_model_is_refused(tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "net.onnx"
    source.write_bytes(content)
    with pytest.raises(ExportError, match=r"net\.onnx must be an ONNX model"):
        export(source, onnx=flags())


def test_unknown_operators_are_named_with_their_node(tmp_path: Path) -> None:
    node = helper.make_node("DeformAttention", ["x"], ["y"], name="layer3", domain="mmcv")
    source = save(tmp_path / "net.onnx", [node], {"x": FRAME}, {"y": FRAME})
    with pytest.raises(ExportError, match=r"mmcv\.DeformAttention \(node layer3\)"):
        export(source, onnx=flags(scale=1))


def external(path: Path, location: str, offset: str = "0") -> Path:
    """An upscaler of scale 1 with its factor in another file."""
    node = helper.make_node("Mul", ["x", "one"], ["y"])
    save(path, [node], {"x": FRAME}, {"y": FRAME}, {"one": np.ones((1, 3, 1, 1), np.float32)})
    model = onnx.load(path)
    (weight,) = model.graph.initializer
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": offset, "length": "12"}.items():
        weight.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    return path


def test_weights_beside_the_file_are_taken_along(tmp_path: Path) -> None:
    (tmp_path / "net.weights").write_bytes(np.ones(3, np.float32).tobytes())
    path = export(external(tmp_path / "net.onnx", "net.weights"), onnx=flags(scale=1))
    assert not Bundle.load(path).graphs["upscale"].external_data
    with Upscaler(path, scale=1, device="cpu") as model:
        np.testing.assert_array_equal(model.upscale_frame(PICTURE), PICTURE)


@pytest.mark.parametrize(
    ("location", "kind"),
    [
        ("../secret", UnsafePathError),
        ("/etc/hostname", UnsafePathError),
        ("", UnsafePathError),
        ("link", UnsafePathError),
        ("missing", IntegrityError),
        ("short", IntegrityError),
    ],
)
def test_weights_elsewhere_are_not_opened(
    tmp_path: Path, location: str, kind: type[FastvidError]
) -> None:
    folder = tmp_path / "net"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(12))
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "short").write_bytes(bytes(8))
    with pytest.raises(kind):
        export(external(folder / "net.onnx", location), onnx=flags(scale=1))


def test_a_graph_that_cannot_be_run_in_one_piece_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_files, "_PROTOBUF_LIMIT", 100)
    with pytest.raises(ExportError, match="must be below 2 GiB to be compared"):
        export(enlarging(tmp_path / "net.onnx"), onnx=flags())


def test_large_weights_go_into_a_file_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_files, "INLINE_LIMIT", 1 << 10)
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    kernel = np.zeros((3, 3, 3, 3), np.float32)
    kernel[np.arange(3), np.arange(3), 1, 1] = 1
    extra = helper.make_node("Add", ["y0", "bias"], ["y"])
    node.output[0] = "y0"
    bias = np.zeros((64, 3, 64, 64), np.float32)[:1]
    source = save(
        tmp_path / "net.onnx",
        [node, extra],
        {"x": FRAME},
        {"y": FRAME},
        {"w": kernel, "bias": bias},
    )
    model = onnx_files.read(source)
    files = onnx_files.dump(model, "net.onnx")
    assert set(files) == {"net.onnx", "net.data"}
    assert len(files["net.onnx"]) < 2000
    folder = tmp_path / "out"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    again = onnx_files.read(folder / "net.onnx")
    assert [numpy_helper.to_array(w).tolist() for w in again.graph.initializer] == [
        numpy_helper.to_array(w).tolist() for w in model.graph.initializer
    ]
