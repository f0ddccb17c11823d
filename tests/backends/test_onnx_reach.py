"""How far a network looks, from the graph, against what changes when a pixel does."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from fastvid.backends._onnx_file import loops
from fastvid.backends._onnx_reach import reach
from fastvid.bundle import Bundle, shipped


def model(*nodes: onnx.NodeProto, weights: dict[str, Any] | None = None) -> bytes:
    """A graph from `x` to `y`, float32 (1, 1, H, W)."""
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 1, "H", "W"]) for n in "xy"]
    initializers = [
        helper.make_tensor(
            name, TensorProto.FLOAT, np.shape(value), np.asarray(value, np.float32).ravel()
        )
        for name, value in (weights or {}).items()
    ]
    graph = helper.make_graph([*nodes], "g", info[:1], info[1:], initializers)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return made.SerializeToString()


def conv(source: str, target: str, size: int, **attributes: Any) -> tuple[Any, dict[str, Any]]:
    pads = {"pads": [size // 2] * 4} if "auto_pad" not in attributes else {}
    options = {"kernel_shape": [size, size], **pads, **attributes}
    node = helper.make_node("Conv", [source, f"w_{target}"], [target], **options)
    return node, {f"w_{target}": np.ones((1, 1, size, size)) / size**2}


def chain(*parts: tuple[Any, dict[str, Any]]) -> bytes:
    weights: dict[str, Any] = {}
    for _, more in parts:
        weights |= more
    return model(*(node for node, _ in parts), weights=weights)


def seen(data: bytes, side: int = 96) -> int:
    """How far from a pixel of the input the output changes with it, by running the graph."""
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    x = np.zeros((1, 1, side, side), np.float32)
    before = session.run(None, {"x": x})[0]
    x[0, 0, side // 2, side // 2] = 1
    after = session.run(None, {"x": x})[0]
    rows, columns = np.nonzero(after[0, 0] != before[0, 0])
    scale = after.shape[2] // side
    places = np.concatenate([rows, columns]) // scale - side // 2
    return int(np.abs(places).max())


@pytest.mark.parametrize(
    ("data", "expected", "block"),
    [
        (chain(conv("x", "y", 3)), 1, 1),
        (chain(conv("x", "a", 3), conv("a", "b", 5), conv("b", "y", 7)), 6, 1),
        (chain(conv("x", "y", 3, dilations=[4, 4], pads=[4] * 4)), 4, 1),
        (chain(conv("x", "a", 3), (helper.make_node("Relu", ["a"], ["y"]), {})), 1, 1),
    ],
    ids=["one", "three", "dilated", "relu"],
)
def test_reach_of_convolutions_is_exact(data: bytes, expected: int, block: int) -> None:
    assert reach(data) == (expected, block)
    assert seen(data) == expected


def test_reach_counts_smaller_pictures_by_their_pitch() -> None:
    down, weights = conv("x", "a", 4, strides=[4, 4], pads=[0] * 4)
    inner, more = conv("a", "b", 3)
    up = helper.make_node("Resize", ["b", "", "scales"], ["y"], mode="nearest")
    data = model(down, inner, up, weights={**weights, **more, "scales": np.array([1, 1, 4, 4])})
    found = reach(data)
    assert found is not None
    assert found[1] == 4
    assert seen(data) <= found[0] <= 20


def test_reach_is_that_of_the_farthest_path() -> None:
    near, first = conv("x", "a", 3)
    far, second = conv("x", "b", 9)
    add = helper.make_node("Add", ["a", "b"], ["y"])
    data = model(near, far, add, weights={**first, **second})
    assert reach(data) == (4, 1)
    assert seen(data) == 4


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("GlobalAveragePool", ["x"], ["y"]),
        helper.make_node("Softmax", ["x"], ["y"]),
        helper.make_node("Warp", ["x", "x"], ["y"], domain="fastvid"),
        helper.make_node("Conv", ["x", "w"], ["y"]),
        helper.make_node("Resize", ["x", "", "s"], ["y"], mode="cubic"),
    ],
    ids=lambda node: node.op_type,
)
def test_reach_of_what_looks_everywhere_or_is_not_known_is_none(node: onnx.NodeProto) -> None:
    assert reach(model(node)) is None


def test_damaged_files_are_refused() -> None:
    with pytest.raises(ValueError, match=r"."):
        reach(b"\x3a\xff\xff")


@pytest.mark.skipif(len(shipped()) < 2, reason="the shipped models are not here")
def test_shipped_upscaler_looks_no_farther_than_its_graph_says() -> None:
    import onnxruntime

    from fastvid.backends._onnxruntime_setup import operators_library

    bundle = Bundle.load(shipped()["upscaler-fast-x2"])
    data = bundle.read("upscale.onnx")
    far, block = reach(data) or (0, 0)
    assert (far, block) == (23, 2)
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(operators_library()))
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    frame = np.random.default_rng(0).integers(0, 256, (1, 128, 128, 3), np.uint8)
    other = frame.copy()
    other[0, 64, 64] ^= 255
    first, second = (session.run(None, {"frames": f})[0] for f in (frame, other))
    changed = np.argwhere((first != second).any(-1)[0]) // 2 - 64
    assert 0 < np.abs(changed).max() <= far


def test_loops_are_found() -> None:
    import tiny_models as tiny

    assert loops(tiny.endless())
    assert not loops(tiny.double())
