"""How frames may be cut: what is measured, against networks whose reach is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from fastvid_export import tiling


def unknown() -> bytes:
    """A graph that does not tell how far it looks."""
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in "xy"]
    node = helper.make_node("Softmax", ["x"], ["y"])
    graph = helper.make_graph([node], "g", info[:1], info[1:])
    return helper.make_model(graph, ir_version=9).SerializeToString()


def known() -> bytes:
    """A graph with the window of `blur` below."""
    weight = helper.make_tensor("w", TensorProto.FLOAT, [1, 1, 7, 7], np.zeros(49, np.float32))
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 1, "H", "W"]) for n in "xy"]
    node = helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[7, 7], pads=[3] * 4)
    graph = helper.make_graph([node], "g", info[:1], info[1:], [weight])
    return helper.make_model(graph, ir_version=9).SerializeToString()


def blur(x: np.ndarray) -> np.ndarray:
    """Means over 7x7, edges repeated, doubled."""
    padded = np.pad(x.astype(np.float64), ((0, 0), (3, 3), (3, 3), (0, 0)), "edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (7, 7), axis=(1, 2))
    return np.rint(windows.mean((-1, -2)).repeat(2, 1).repeat(2, 2)).astype(np.uint8)


def windows_of(size: int):
    """Replaces each pixel by the mean of its window of a grid from the corner."""

    def run(x: np.ndarray) -> np.ndarray:
        _, height, width, _ = x.shape
        pads = [(0, 0), (0, -height % size), (0, -width % size), (0, 0)]
        padded = np.pad(x.astype(np.float64), pads, "edge")
        blocks = padded.reshape(1, padded.shape[1] // size, size, -1, size, 3).mean((2, 4))
        large = blocks.repeat(size, 1).repeat(size, 2)[:, :height, :width]
        return np.rint(large).astype(np.uint8)

    return run


def brightness(x: np.ndarray) -> np.ndarray:
    """Takes off the mean of the frame."""
    return np.clip(np.rint(x - x.mean((1, 2)) + 128), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("graph", [known(), unknown()], ids=["told", "measured"])
def test_windows_of_convolutions_are_found(graph):
    found = tiling.measure(graph, blur, 2, 1, 1)
    assert found.spec == tiling.TilingSpec(3, 1, exact=True)
    assert found.manifest() == {"reach": 3, "multiple_of": 1, "exact": True}


@pytest.mark.parametrize(("size", "multiple_of", "unit"), [(8, 1, 8), (16, 1, 16), (8, 12, 24)])
def test_grids_are_kept(size, multiple_of, unit):
    found = tiling.measure(unknown(), windows_of(size), 1, multiple_of, 1)
    assert found.spec.exact
    assert found.spec.multiple_of == unit
    assert found.spec.reach <= size


def test_a_claim_that_does_not_hold_is_not_made():
    """The graph says 3, the network looks at all of the frame."""
    found = tiling.measure(known(), brightness, 1, 1, 1)
    assert found.spec == tiling.TilingSpec(64, 1, exact=False)
    assert found.levels > 1
    assert 0 < found.psnr < 60


def test_networks_that_look_everywhere_are_told_from_others():
    assert not tiling.measure(unknown(), brightness, 1, 4, 16).spec.exact


@pytest.mark.parametrize("axes", [[2, 3], [-1, -2], [1, 2], None])
def test_no_claim_is_made_of_means_over_the_frame(axes):
    """Though the pictures tried show nothing of them."""
    weights = []
    if axes is not None:
        weights = [helper.make_tensor("axes", TensorProto.INT64, [2], axes)]
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 3, "H", "W"]) for n in "xy"]
    node = helper.make_node("ReduceMean", ["x", *(w.name for w in weights)], ["y"])
    graph = helper.make_graph([node], "g", info[:1], info[1:], weights)
    data = helper.make_model(graph, ir_version=9).SerializeToString()
    assert not tiling.measure(data, blur, 2, 1, 1).spec.exact


def test_means_over_channels_do_no_harm():
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 3, "H", "W"]) for n in "xy"]
    weights = [helper.make_tensor("axes", TensorProto.INT64, [1], [1])]
    node = helper.make_node("ReduceMean", ["x", "axes"], ["y"])
    graph = helper.make_graph([node], "g", info[:1], info[1:], weights)
    data = helper.make_model(graph, ir_version=9).SerializeToString()
    assert tiling.measure(data, blur, 2, 1, 1).spec == tiling.TilingSpec(3, 1, exact=True)


# Graphs of one size


def of_size(run: Any, height: int, width: int) -> Any:
    """A graph that takes no other size."""

    def checked(x: np.ndarray) -> np.ndarray:
        assert x.shape == (1, height, width, 3)
        return run(x)

    return checked


@pytest.mark.parametrize("sides", [(64, 64), (48, 80), (33, 97)])
def test_windows_in_pieces_of_one_size_are_found(sides):
    found = tiling.measure_fixed(of_size(blur, *sides), 2, sides)
    assert found.spec == tiling.TilingSpec(3, 1, exact=True)


def test_grids_of_pieces_of_one_size_are_kept():
    found = tiling.measure_fixed(of_size(windows_of(8), 64, 96), 1, (64, 96))
    assert (found.spec.exact, found.spec.multiple_of) == (True, 8)


@pytest.mark.parametrize(
    ("sides", "reach", "unit"),
    [((256, 256), 32, 16), ((64, 64), 16, 16), ((48, 80), 12, 1), ((33, 65), 8, 1)],
)
def test_pieces_of_what_looks_everywhere_overlap_all_the_same(sides, reach, unit):
    found = tiling.measure_fixed(of_size(brightness, *sides), 1, sides)
    assert found.spec == tiling.TilingSpec(reach, unit, exact=False)
    assert found.levels > 1
    assert found.psnr < 60


@pytest.mark.parametrize(("sides", "far"), [((64, 64), 16), ((48, 80), 12)])
def test_a_claim_for_one_size_is_tried_along_whole_seams(sides, far):
    """A difference far from the corners is seen."""

    def run(x: np.ndarray) -> np.ndarray:
        out = x.copy()
        out[:, :, -far - 1] = 255 - x[:, :, -far - 1]
        return out

    worst, _ = tiling._tried_fixed(run, 1, sides, far, 1)
    assert worst > 1


def test_graphs_of_the_tests_are_valid():
    for graph in (known(), unknown()):
        onnx.checker.check_model(onnx.load_from_string(graph))
