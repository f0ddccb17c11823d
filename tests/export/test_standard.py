"""Portable graphs: each fastvid node in standard operators, against the compiled op."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bundles
import numpy as np
import onnx
import pytest
from nodes import model_of, session_of
from numpy.typing import NDArray

from fastvid.bundle import Bundle
from fastvid.scene import Scene
from fastvid_export import onnx_files
from fastvid_export.convert.standard import WRITERS, to_standard
from fastvid_export.errors import ExportError
from fastvid_export.running import Runner

Arrays = list[NDArray[Any] | None]
RNG = np.random.default_rng(0)


def normal(*shape: int) -> NDArray[np.float32]:
    return RNG.normal(size=shape).astype(np.float32)


def uniform(*shape: int) -> NDArray[np.float32]:
    return RNG.random(shape).astype(np.float32)


def _bias() -> NDArray[np.float32]:
    bias = normal(1, 3, 5, 7)
    bias[0, 1, 2] = -np.inf
    return bias


def _search(height: int, width: int, step: float = 0.05) -> list[NDArray[np.float32]]:
    scene = Scene(width, height, seed=3)
    frames = (scene.draw(t)[None, :, :, 1].astype(np.float32) / 255 for t in (0.2, 0.2 + step))
    return [frame[:, None] for frame in frames]


def _flow() -> NDArray[np.float32]:
    flow = 4 * normal(2, 2, 16, 24)
    flow[0, 0, 3, 4] = np.nan
    flow[1, 1, 5, 6] = 1e9
    return flow


FRAMES = RNG.integers(0, 256, (2, 13, 9, 3), np.uint8)
QKV = [normal(2, 5, 3, 8), normal(2, 7, 3, 8), normal(2, 7, 3, 8)]
TEMPORAL = [normal(2, 5, 4, 3, 8) for _ in range(3)]
PAIR = [normal(2, 5, 3, 8), normal(2, 5, 2, 8)]
STRANGE = normal(2, 3, 7, 5)
STRANGE[0, 0, 0, :3] = [np.nan, np.inf, -np.inf]

CASES: list[tuple[str, Arrays, dict[str, Any]]] = [
    ("RgbToPlanar", [FRAMES], {}),
    ("PlanarToRgb", [STRANGE], {}),
    ("RgbToLuma", [FRAMES], {}),
    ("LumaToRgb", [uniform(2, 1, 13, 9), uniform(2, 2, 13, 9) - 0.5], {}),
    ("LumaToRgb", [uniform(2, 1, 26, 18), uniform(2, 2, 13, 9) - 0.5], {}),
    ("LumaToRgb", [uniform(1, 1, 39, 27), uniform(1, 2, 13, 9) - 0.5], {}),
    ("Downscale", [normal(1, 3, 16, 24)], {}),
    ("Downscale", [normal(1, 3, 16, 24)], {"factor": 8}),
    ("Warp", [uniform(2, 3, 16, 24), _flow()], {}),
    ("Warp", [uniform(2, 3, 16, 24), _flow()], {"zeros": 1}),
    ("Warp", [uniform(2, 3, 17, 23), 4 * normal(2, 2, 9, 12)], {}),
    ("Warp", [uniform(1, 3, 5, 9), 4 * normal(1, 2, 2, 3)], {"zeros": 1}),
    ("Warp", [uniform(1, 1, 3, 9), 4 * normal(1, 2, 1, 2)], {}),
    ("Warp", [uniform(1, 1, 1, 1), 4 * normal(1, 2, 1, 1)], {"zeros": 1}),
    ("Warp", [FRAMES, 4 * normal(2, 2, 13, 9)], {"channels_last": 1}),
    ("Warp", [uniform(2, 3, 16, 24).astype(np.float16), 4 * normal(2, 2, 16, 24)], {}),
    (
        "WarpBlend",
        [*(uniform(2, 3, 16, 24) for _ in "01"), 4 * normal(2, 4, 8, 12), normal(2, 1, 8, 12)],
        {"output_uint8": 1},
    ),
    (
        "WarpBlend",
        [
            uniform(2, 3, 17, 23), uniform(2, 3, 17, 23), 4 * normal(2, 4, 5, 6),
            normal(2, 1, 5, 6), uniform(2, 3, 17, 23) - 0.5,
        ],
        {},
    ),
    ("InverseSearch", [*_search(72, 100)], {}),
    ("InverseSearch", [uniform(2, 1, 17, 33), uniform(2, 1, 17, 33)], {}),
    ("InverseSearch", [*_search(65, 83)], {"finest": 1, "stride": 8, "iterations": 3}),
    ("InverseSearch", [uniform(1, 1, 7, 40), uniform(1, 1, 7, 40)], {}),
    ("InverseSearch", [*_search(64, 64, 0)], {}),
    ("Attention", [*QKV], {}),
    ("Attention", [*QKV], {"causal": 1, "scale": 0.3}),
    ("Attention", [*QKV, _bias()], {}),
    ("TemporalAttention", [*TEMPORAL], {}),
    ("TemporalAttention", [*TEMPORAL, normal(3, 5, 5)], {"causal": 1, "scale": 0.2}),
    ("QkNormRope", [*PAIR, normal(24), normal(16), uniform(5, 4), uniform(5, 4)], {}),
    ("QkNormRope", [*PAIR, normal(8), None, uniform(5, 4), uniform(5, 4)],
     {"norm": "head", "rope": "half"}),
    ("QkNormRope", [PAIR[0], normal(2, 5, 3, 8), None, None, uniform(5, 12), uniform(5, 12)],
     {"norm": "none"}),
    ("QkNormRope", [*PAIR], {"norm": "full", "rope": "none", "eps": 1e-3}),
    ("SchedulerStep", [normal(2, 3), normal(3), normal(2, 3), normal(2, 3), normal(2, 3)],
     {"guidance": 3.0}),
    ("SchedulerStep", [normal(2, 3), normal(1)], {}),
]  # fmt: skip
OUTPUTS = {"RgbToLuma": 2, "QkNormRope": 2, "InverseSearch": 2}


def both(
    op: str, inputs: Arrays, attributes: dict[str, Any], opset: int = 18
) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """What the compiled op gives, and what standard operators give."""
    model = onnx.load_from_string(model_of(op, *inputs, outputs=OUTPUTS.get(op, 1), **attributes))
    model.opset_import[0].version = opset
    given = {f"in{i}": array for i, array in enumerate(inputs) if array is not None}
    compiled = session_of(model.SerializeToString()).run(None, given)
    portable = to_standard(model)
    assert {node.domain for node in portable.graph.node} == {""}
    assert all(entry.domain != "fastvid" for entry in portable.opset_import)
    runner = Runner(portable.SerializeToString(), operators=False)
    return compiled, list(runner(given).values())


@pytest.mark.parametrize(("op", "inputs", "attributes"), CASES)
def test_standard_operators_do_what_the_op_does(
    op: str, inputs: Arrays, attributes: dict[str, Any]
) -> None:
    for ours, theirs in zip(*both(op, inputs, attributes), strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        if ours.dtype == np.uint8:
            assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1
        else:
            tolerance = 2e-3 if ours.dtype == np.float16 else 5e-6
            if op == "InverseSearch":
                # Pixels; a descent doubles what rounding makes of its first step.
                tolerance = 2e-3
            np.testing.assert_allclose(
                theirs.astype(np.float32), ours.astype(np.float32), rtol=0, atol=tolerance
            )


@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize("op", ["Warp", "QkNormRope", "Attention"])
def test_older_and_newer_operator_sets_do_too(op: str, opset: int) -> None:
    _, inputs, attributes = next(case for case in CASES if case[0] == op and case[1][1] is not None)
    for ours, theirs in zip(*both(op, [np.nan_to_num(x) for x in inputs], attributes, opset)):  # noqa: B905
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=5e-6)


def test_every_op_that_cannot_be_written_is_refused_by_name() -> None:
    image, flow = uniform(1, 3, 8, 8), normal(1, 2, 8, 8)
    assert "SoftmaxSplat" not in WRITERS
    model = onnx.load_from_string(model_of("SoftmaxSplat", image, flow))
    model.graph.node[0].name = "the_node"
    with pytest.raises(ExportError, match=r"'the_node' \(fastvid\.SoftmaxSplat\)") as info:
        to_standard(model)
    assert "--portable" in info.value.hint


def test_an_old_operator_set_is_refused() -> None:
    model = onnx.load_from_string(model_of("Downscale", normal(1, 3, 8, 8)))
    model.opset_import[0].version = 13
    with pytest.raises(ExportError, match="16 or newer for portable graphs, got 13"):
        to_standard(model)


def test_openvino_draws_the_same(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino", reason="openvino is not installed")
    made = bundles.conv_upscaler(tmp_path / "up")
    model = onnx_files.load(made, "upscale")
    found = Runner(model.SerializeToString())({"frames": FRAMES})["upscaled"]
    for case in (_whole(made), _one("WarpBlend"), _one("InverseSearch")):
        data, given, expected = case
        expected = found if expected is None else expected
        core = openvino.Core()
        compiled = core.compile_model(
            core.read_model(model=data), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        result = next(iter(compiled(given).values()))
        largest = np.abs(result.astype(np.float64) - expected).max()
        assert largest <= (1 if result.dtype == np.uint8 else 0.01)


def _whole(made: Bundle) -> tuple[bytes, dict[str, Any], Any]:
    data = to_standard(onnx_files.load(made, "upscale")).SerializeToString()
    return data, {"frames": FRAMES}, None


def _one(wanted: str) -> tuple[bytes, dict[str, Any], Any]:
    op, inputs, attributes = next(case for case in CASES if case[0] == wanted)
    model = onnx.load_from_string(model_of(op, *inputs, outputs=OUTPUTS.get(op, 1), **attributes))
    model.opset_import[0].version = 18
    given = {f"in{i}": array for i, array in enumerate(inputs)}
    expected = session_of(model.SerializeToString()).run(None, given)[0]
    return to_standard(model).SerializeToString(), given, expected


def test_nodes_around_stay_and_names_do_not_clash(tmp_path: Path) -> None:
    bundle = bundles.conv_upscaler(tmp_path / "up")
    before = onnx_files.load(bundle, "upscale")
    after = to_standard(before)
    names = [name for node in after.graph.node for name in node.output]
    assert len(names) == len(set(names))
    kinds = [node.op_type for node in after.graph.node]
    assert kinds.count("Conv") == 4
    assert before.graph.node[0].domain == "fastvid", "the model given was changed"
