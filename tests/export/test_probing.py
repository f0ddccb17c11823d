"""ONNX files of many kinds: what is found by running them, what is asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fastvid import Interpolator, Upscaler, cli
from fastvid.errors import FastvidError, InputError
from fastvid.scene import Scene
from fastvid_export import foreign, probing
from fastvid_export.foreign_graphs import OnnxFlags

PICTURE = Scene(80, 64, seed=5).draw(0.2)
FRAME: list[Any] = ["N", 3, "h", "w"]
LARGE: list[Any] = ["N", 3, "H", "W"]


class Net:
    """Writes a graph node by node."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}

    def op(self, kind: str, *inputs: Any, to: str | None = None, **attributes: Any) -> str:
        names = []
        for one in inputs:
            if not isinstance(one, str):
                name = f"w{len(self.weights)}"
                self.weights[name] = np.asarray(one)
                one = name
            names.append(one)
        output = to or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, names, [output], **attributes))
        return output

    def floats(self, *values: float) -> np.ndarray:
        """A number per channel."""
        return np.array(values, np.float32).reshape(-1, 1, 1)

    def twice(self, x: str, to: str = "y", *, last: bool = False) -> str:
        scales = np.array([1, 2, 2, 1] if last else [1, 1, 2, 2], np.float32)
        return self.op(
            "Resize", x, "", scales, to=to, mode="nearest", nearest_mode="floor",
            coordinate_transformation_mode="asymmetric",
        )  # fmt: skip

    def save(
        self,
        path: Path,
        inputs: dict[str, list[Any]],
        output: list[Any],
        dtype: int = TensorProto.FLOAT,
    ) -> Path:
        info = [helper.make_tensor_value_info(n, dtype, s) for n, s in inputs.items()]
        result = [helper.make_tensor_value_info("y", dtype, output)]
        tensors = [numpy_helper.from_array(a, n) for n, a in self.weights.items()]
        graph = helper.make_graph(self.nodes, "net", info, result, tensors)
        imports = [helper.make_opsetid("", 18)]
        onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=9), path)
        return path


def wrapped(path: Path, **flags: Any) -> tuple[Any, dict[str, str]]:
    """The bundle of a file, and what was found."""
    said: list[str] = []
    options = OnnxFlags(**({"task": "upscale"} | flags))
    bundle = foreign.wrap(path, options, path.parent / "made", said.append)
    found = probing.of_settings(bundle.provenance.settings)
    assert said == [f"found {name}: {text}" for name, text in found.items()]
    return bundle, found


def doubled(bundle: Any) -> bool:
    with Upscaler(bundle.path, device="cpu", threads=1) as model:
        made = model.upscale_frame(PICTURE)
    return bool(np.abs(made.astype(int) - PICTURE.repeat(2, 0).repeat(2, 1)).max() <= 1)


# Upscalers


def plain(net: Net) -> tuple[dict[str, list[Any]], list[Any]]:
    net.twice("x")
    return {"x": FRAME}, LARGE


def unit_levels(net: Net) -> tuple[dict[str, list[Any]], list[Any]]:
    net.twice(net.op("Clip", "x", np.float32(0), np.float32(1)))
    return {"x": FRAME}, LARGE


def byte_levels(net: Net) -> tuple[dict[str, list[Any]], list[Any]]:
    net.twice(net.op("Round", "x"))
    return {"x": FRAME}, LARGE


def bytes_out(net: Net) -> tuple[dict[str, list[Any]], list[Any]]:
    clipped = net.op("Clip", "x", np.float32(0), np.float32(1))
    net.twice(net.op("Mul", clipped, np.float32(255)))
    return {"x": FRAME}, LARGE


def last_unknown(net: Net) -> tuple[dict[str, list[Any]], list[Any]]:
    net.twice(net.op("Mul", "x", np.ones(3, np.float32)), last=True)
    return {"x": ["N", "h", "w", "c"]}, ["N", "H", "W", "C"]


def blocks_of_four(net: Net) -> tuple[dict[str, list[Any]], list[Any]]:
    deep = net.op("SpaceToDepth", "x", blocksize=4)
    net.twice(net.op("DepthToSpace", deep, blocksize=4))
    return {"x": FRAME}, LARGE


def fixed(net: Net) -> tuple[dict[str, list[Any]], list[Any]]:
    net.twice("x")
    return {"x": [1, 3, 48, 48]}, [1, 3, 96, 96]


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (plain, {"layout": "nchw", "colour": "three channels", "scale": "2", "size-multiple": "1"}),
        (unit_levels, {"range": "0,1 "}),
        (byte_levels, {"range": "0,255 "}),
        (bytes_out, {"range": "0,1 ", "output-range": "0,255"}),
        (last_unknown, {"layout": "nhwc"}),
        (blocks_of_four, {"size-multiple": "4", "scale": "2"}),
        (fixed, {"sizes": "any, though the file says 48x48"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_upscalers_are_found_out(make, expected, tmp_path):
    net = Net()
    bundle, found = wrapped(net.save(tmp_path / "net.onnx", *make(net)))
    assert (bundle.task, bundle.scale) == ("upscaler", 2)
    for name, text in expected.items():
        assert found[name].startswith(text), found
    assert bundle.size_rule.multiple_of == int(found["size-multiple"])
    assert bundle.tiling is not None
    assert bundle.tiling.exact
    assert doubled(bundle)


def test_a_range_around_zero_is_told_from_one_above(tmp_path):
    """x + (x³ - x) / 2 leaves -1, 0 and 1 where they are."""
    net = Net()
    cube = net.op("Mul", "x", net.op("Mul", "x", "x"))
    half = net.op("Mul", net.op("Sub", cube, "x"), np.float32(0.5))
    net.twice(net.op("Add", "x", half))
    _, found = wrapped(net.save(tmp_path / "net.onnx", {"x": FRAME}, LARGE))
    assert found["range"].startswith("-1,1 ")


def test_pictures_too_small_for_a_network_are_found_in_a_process_of_their_own(tmp_path):
    """Pooling leaves nothing of 4x4, on which a resize to the size of the picture would crash."""
    net = Net()
    pooled = net.op("MaxPool", "x", kernel_shape=[7, 7])
    size = net.op("Shape", "x")
    wide = net.op("Resize", pooled, "", "", size, mode="linear")
    change = net.op("Mul", net.op("Sub", wide, "x"), np.float32(0.001))
    net.twice(net.op("Add", "x", change))
    bundle, found = wrapped(net.save(tmp_path / "net.onnx", {"x": FRAME}, LARGE))
    assert found["least-size"] == "8"
    assert bundle.size_rule.minimum == 8
    with Upscaler(bundle.path, device="cpu", threads=1) as model:
        assert model.upscale_frame(PICTURE[:3, :5]).shape == (6, 10, 3)


@pytest.mark.parametrize("last", [False, True])
def test_networks_on_luma_get_luma(last, tmp_path):
    net = Net()
    net.twice(net.op("Clip", "x", np.float32(0), np.float32(1)), last=last)
    small, large = ["N", 1, "h", "w"], ["N", 1, "H", "W"]
    if last:
        small, large = ["N", "h", "w", 1], ["N", "H", "W", 1]
    bundle, found = wrapped(net.save(tmp_path / "net.onnx", {"x": small}, large))
    assert found["colour"] == "luma alone"
    assert "channels" not in found
    with Upscaler(bundle.path, device="cpu", threads=1) as model:
        made = model.upscale_frame(PICTURE).astype(float)
    weights = np.array([0.299, 0.587, 0.114])
    wanted = PICTURE.repeat(2, 0).repeat(2, 1) @ weights
    # Colours that clip change luma a little.
    assert np.median(np.abs(made @ weights - wanted)) < 1


def mean_colour() -> np.ndarray:
    return probing._drawn(64, 64).mean((0, 1, 2)) / 255 * probing._TINT


def test_the_order_of_colours_is_the_one_that_fits_better(tmp_path):
    """Half of the picture, half of its mean colour, blue first."""
    blue_first = mean_colour()[::-1]
    assert abs(blue_first[0] - blue_first[2]) > 0.03
    net = Net()
    part = net.op("Mul", "x", np.float32(0.5))
    net.twice(net.op("Add", part, net.floats(*(blue_first / 2))))
    _, found = wrapped(net.save(tmp_path / "net.onnx", {"x": FRAME}, LARGE))
    assert found["channels"].startswith("bgr (")


def test_an_order_that_cannot_be_told_is_asked_for(tmp_path):
    net = Net()
    net.twice(net.op("Add", "x", net.floats(0.08, 0.0, -0.08)))
    path = net.save(tmp_path / "net.onnx", {"x": FRAME}, LARGE)
    with pytest.raises(InputError, match=r"channels: argument must be given") as caught:
        wrapped(path, range=(0, 1))
    assert "--channels bgr" in caught.value.hint
    bundle, found = wrapped(path, range=(0, 1), order="bgr")
    assert "channels" not in found
    assert bundle.scale == 2


def test_flags_take_the_place_of_what_is_found(tmp_path):
    net = Net()
    path = net.save(tmp_path / "net.onnx", *plain(net))
    given = {"layout": "nchw", "range": (0, 255), "order": "rgb", "multiple_of": 8, "scale": 2}
    bundle, found = wrapped(path, **given)
    assert set(found) == {"colour"}
    assert bundle.size_rule.multiple_of == 8
    assert doubled(bundle)


@pytest.mark.parametrize(
    ("inputs", "build", "problem"),
    [
        ({"x": FRAME, "sigma": [1]}, "two", "every input of the network must have a role, sigma"),
        ({"x": ["N", 5, "h", "w"]}, "plain", "must have 3 channels on axis 1"),
        ({"x": ["N", 3, "h"]}, "plain", "must have 4 axes"),
        ({"x": FRAME}, "cropped", "whole factor as large, got"),
        ({"x": FRAME}, "black", "must look like the picture"),
    ],
)
def test_what_is_no_upscaler_is_refused(inputs, build, problem, tmp_path):
    net = Net()
    if build == "two":
        net.twice(net.op("Mul", "x", "sigma"))
    elif build == "cropped":
        large = net.twice("x", "z")
        pads = np.array([0, 0, -8, -8, 0, 0, -8, -8])
        net.op("Pad", large, pads, to="y")
    elif build == "black":
        net.twice(net.op("Mul", "x", np.float32(0)))
    else:
        net.op("Relu", "x", to="y")
    with pytest.raises(FastvidError, match=problem):
        wrapped(net.save(tmp_path / "net.onnx", inputs, LARGE[: len(inputs["x"])]))
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]


def test_the_command_shows_what_it_found(tmp_path, capsys):
    net = Net()
    path = net.save(tmp_path / "net.onnx", *blocks_of_four(net))
    command = ["export", str(path), "--task", "upscale", "--out", str(tmp_path / "made")]
    assert cli.main([*command, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["found"]
    assert shown["size-multiple"] == "4"
    assert cli.main([*command, "--overwrite"]) == 0
    assert "found scale: 2" in capsys.readouterr().err


# Interpolators


def blended(net: Net, first: str, second: str, time: str) -> None:
    change = net.op("Sub", second, first)
    net.op("Add", first, net.op("Mul", change, time), to="y")


def between(bundle: Any, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    with Interpolator(bundle.path, device="cpu", threads=1) as model:
        return model.between(first, second, 0.25).astype(float)


@pytest.mark.parametrize("kind", ["numbered", "backwards", "seven", "nhwc seven", "fixed"])
def test_interpolators_are_found_out(kind, tmp_path):
    net, frame = Net(), FRAME
    if kind == "numbered":
        inputs = {"img1": frame, "img0": frame, "t": ["N", 1, 1, 1]}
        blended(net, "img0", "img1", "t")
    elif kind == "backwards":
        inputs = {"a": frame, "b": frame, "t": [1]}
        blended(net, "b", "a", "t")
    elif kind == "fixed":
        inputs = {"a": [1, 3, 64, 96], "b": [1, 3, 64, 96], "t": [1, 1, 64, 96]}
        blended(net, "a", "b", "t")
        frame = [1, 3, 64, 96]
    else:
        axis = 3 if kind.startswith("nhwc") else 1
        shape = ["N", 7, "h", "w"] if axis == 1 else ["N", "h", "w", 7]
        inputs, frame = {"x": shape}, FRAME if axis == 1 else ["N", "h", "w", 3]
        net.nodes.append(helper.make_node("Split", ["x", "sizes"], ["a", "b", "t"], axis=axis))
        net.weights["sizes"] = np.array([3, 3, 1])
        blended(net, "a", "b", "t")
    bundle, found = wrapped(net.save(tmp_path / "net.onnx", inputs, frame), task="interpolate")
    assert bundle.task == "interpolator"
    assert "frame0" in found["input"]
    first, second = PICTURE, PICTURE[::-1].copy()
    wanted = first + 0.25 * (second.astype(float) - first)
    assert np.abs(between(bundle, first, second) - wanted).max() <= 0.51


def test_a_network_without_time_gives_the_middle(tmp_path):
    net = Net()
    net.nodes.append(helper.make_node("Split", ["x"], ["a", "b"], axis=1, num_outputs=2))
    net.op("Mul", net.op("Add", "a", "b"), np.float32(0.5), to="y")
    path = net.save(tmp_path / "net.onnx", {"x": ["N", 6, "h", "w"]}, FRAME)
    bundle, found = wrapped(path, task="interpolator")
    assert "middle" in found["timestep"]
    second = PICTURE[::-1].copy()
    wanted = (PICTURE.astype(float) + second) / 2
    assert np.abs(between(bundle, PICTURE, second) - wanted).max() <= 0.51


@pytest.mark.parametrize(
    "inputs",
    [
        {"x": ["N", 11, "h", "w"]},
        {"a": FRAME, "b": FRAME, "c": FRAME},
        {"a": FRAME, "b": FRAME, "t": [1], "s": [1]},
        {"a": FRAME},
    ],
    ids=["eleven", "three", "two times", "one"],
)
def test_inputs_that_cannot_be_told_are_asked_for(inputs, tmp_path):
    net = Net()
    net.op("Relu", next(iter(inputs)), to="y")
    path = net.save(tmp_path / "net.onnx", inputs, FRAME)
    with pytest.raises(InputError, match=r"input: what .* must be given") as caught:
        wrapped(path, task="interpolate")
    assert "--input" in caught.value.hint
