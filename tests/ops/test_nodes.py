"""The custom ops as onnxruntime sees them: dtypes, attributes, optional inputs, providers."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastvid import ops

IMAGE = np.zeros((1, 3, 6, 8), np.float32)
FLOW = np.zeros((1, 2, 6, 8), np.float32)
BLEND_FLOW = np.zeros((1, 4, 6, 8), np.float32)
MASK = np.zeros((1, 1, 6, 8), np.float32)


def test_an_optional_input_may_be_left_out_by_an_empty_name(
    rng: np.random.Generator, run_node: Callable[..., Any]
) -> None:
    image = rng.random(IMAGE.shape, np.float32)
    expected = ops.warp_blend(image, image, BLEND_FLOW, MASK, out_dtype="uint8")
    result = run_node("WarpBlend", image, image, BLEND_FLOW, MASK, None, output_uint8=1)
    np.testing.assert_array_equal(result, expected)


def test_a_required_input_may_not(run_node: Callable[..., Any]) -> None:
    with pytest.raises(Exception, match="input 2 is marked single but has an empty string"):
        run_node("WarpBlend", IMAGE, IMAGE, None, MASK)


def test_the_ops_own_checks_name_the_dtypes(run_node: Callable[..., Any]) -> None:
    with pytest.raises(Exception, match=r"fastvid\.Warp: warp: image must be float32.*got"):
        run_node("Warp", IMAGE.astype(np.int32), FLOW)


@pytest.mark.parametrize(
    ("value", "got"), [(1.5, "a float"), ("zeros", "a string")], ids=["float", "string"]
)
def test_an_attribute_of_the_wrong_type_is_refused(
    run_node: Callable[..., Any], value: Any, got: str
) -> None:
    with pytest.raises(Exception, match=f"Warp: attribute zeros must be an integer, got {got}"):
        run_node("Warp", IMAGE, FLOW, zeros=value)


def test_dtypes_of_outputs_are_known_to_the_next_node(run_node: Callable[..., Any]) -> None:
    """A chain of nodes whose dtypes are written nowhere but in their inputs."""
    from nodes import session_of
    from onnx import TensorProto, helper

    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", channels, "h", "w"])
        for name, channels in (("image", 3), ("flow", 2))
    ]
    chain = [
        helper.make_node("Warp", ["image", "flow"], ["once"], domain="fastvid"),
        helper.make_node("Warp", ["once", "flow"], ["twice"], domain="fastvid"),
        helper.make_node("PlanarToRgb", ["twice"], ["frames"], domain="fastvid"),
    ]
    result = helper.make_tensor_value_info("frames", TensorProto.UINT8, None)
    graph = helper.make_graph(chain, "chain", values, [result])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("fastvid", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    session = session_of(model.SerializeToString())
    image = np.full((2, 3, 5, 7), 0.5, np.float32)
    (frames,) = session.run(None, {"image": image, "flow": np.zeros((2, 2, 5, 7), np.float32)})
    np.testing.assert_array_equal(frames, np.full((2, 5, 7, 3), 128, np.uint8))


def nodes() -> dict[str, tuple[list[Any], dict[str, Any], int]]:
    """Every node: inputs, attributes, number of outputs."""
    rng = np.random.default_rng(3)

    def noise(*shape: int) -> Any:
        return rng.random(shape, np.float32)

    image, flow = noise(2, 3, 32, 48), 3 * noise(2, 2, 32, 48) - 1.5
    frames = rng.integers(0, 256, (2, 32, 48, 3), np.uint8)
    q, video = noise(2, 9, 3, 16), noise(1, 5, 7, 2, 16)
    weight, table = noise(48), noise(9, 8)
    blend = [image, noise(2, 3, 32, 48), 2 * noise(2, 4, 16, 24) - 1, noise(2, 1, 16, 24), image]
    return {
        "Attention": ([q, q, q, noise(1, 3, 9, 9)], {"causal": 1}, 1),
        "Downscale": ([image], {"factor": 4}, 1),
        "InverseSearch": ([noise(1, 1, 32, 48), noise(1, 1, 32, 48)], {}, 2),
        "Linear": ([q, noise(5, 16), noise(5)], {"bfloat16": 1}, 1),
        "LumaToRgb": ([noise(2, 1, 32, 48), noise(2, 2, 16, 24) - 0.5], {}, 1),
        "PlanarToRgb": ([image], {}, 1),
        "QkNormRope": ([q, q, weight, weight, table, table], {"rope": "half"}, 2),
        "RgbToLuma": ([frames], {}, 2),
        "RgbToPlanar": ([frames], {}, 1),
        "SchedulerStep": ([q, np.float32([2, -1]), q, q], {"guidance": 3.0}, 1),
        "SoftmaxSplat": ([image, flow, noise(2, 1, 32, 48)], {"deterministic": 1}, 1),
        "TemporalAttention": ([video, video, video], {"causal": 1}, 1),
        "Warp": ([image, flow], {"zeros": 1}, 1),
        "WarpBlend": (blend, {"output_uint8": 0}, 1),
    }


def test_every_node_is_listed() -> None:
    folder = Path(__file__).parents[2] / "csrc" / "bindings" / "onnxruntime"
    text = "".join(path.read_text() for path in folder.glob("*.cc"))
    assert set(nodes()) == set(re.findall(r'\.name = "([A-Z]\w+)"', text))


def unlike(array: Any) -> list[Any]:
    """Arrays that no op takes in the place of this one."""
    return [
        array.astype(np.float64),
        array.astype(np.bool_),
        array[..., None, None, None, None, None],
        np.array(array.flat[0]),
    ]


@pytest.mark.parametrize("name", sorted(nodes()))
def test_wrong_inputs_are_errors_of_the_session(run_node: Callable[..., Any], name: str) -> None:
    """Wrong dtypes, too many axes and none: no crash and no result."""
    inputs, attributes, outputs = nodes()[name]
    for i, array in enumerate(inputs):
        for wrong in unlike(array):
            given = [*inputs[:i], wrong, *inputs[i + 1 :]]
            with pytest.raises(Exception, match=rf"{name}|in{i}|type"):
                run_node(name, *given, outputs=outputs, **attributes)


@pytest.mark.cuda
@pytest.mark.parametrize("name", sorted(set(nodes()) - {"Linear"}))
def test_the_cuda_provider_agrees_with_the_cpu(run_node: Callable[..., Any], name: str) -> None:
    """The node must run on the device: a session that leaves it to the CPU is refused."""
    import onnxruntime as ort
    from nodes import CUDA

    if CUDA not in ort.get_available_providers():
        pytest.skip("this onnxruntime has no CUDA provider")
    inputs, attributes, outputs = nodes()[name]
    found = run_node(name, *inputs, outputs=outputs, provider=CUDA, **attributes)
    expected = run_node(name, *inputs, outputs=outputs, **attributes)
    for one, other in zip(*([r] if outputs == 1 else r for r in (found, expected)), strict=True):
        np.testing.assert_allclose(one.astype(np.float64), other.astype(np.float64), atol=2e-5)
