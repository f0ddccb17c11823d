"""Graphs for TensorRT: nodes of the project become its plugins, and nothing else changes."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

import fastvid
from fastvid.backends.tensorrt_plugins import PLUGINS
from fastvid_export.errors import ExportError
from fastvid_export.tensorrt import prepare


def graph(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info("frames", TensorProto.UINT8, [1, 8, 8, 3])]
    results = [helper.make_tensor_value_info("out", TensorProto.UINT8, [1, 8, 8, 3])]
    return helper.make_model(helper.make_graph(list(nodes), "graph", values, results))


def node(kind: str, inputs: list[str], outputs: list[str], **attributes: object) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, outputs, domain="fastvid", **attributes)


def attributes(made: onnx.NodeProto) -> dict[str, object]:
    return {a.name: helper.get_attribute_value(a) for a in made.attribute}


def test_attributes_are_text_beside_those_the_parser_reads() -> None:
    model = graph(node("Downscale", ["x"], ["small"], factor=4))
    (made,) = prepare(model).graph.node
    assert made.op_type == "Downscale"
    assert attributes(made) == {
        "factor": b"4", "plugin_namespace": b"fastvid", "plugin_version": b"1", "aot": 1,
    }  # fmt: skip
    assert attributes(model.graph.node[0]) == {"factor": 4}, "the model given was changed"


def test_absent_attributes_have_the_nodes_defaults() -> None:
    (made,) = prepare(
        graph(node("QkNormRope", ["q", "k", "a", "b", "c", "s"], ["q1", "k1"]))
    ).graph.node
    assert made.op_type == "QkNormRopeQWeightKWeightCosSin"
    found = attributes(made)
    assert (found["norm"], found["rope"], found["eps"]) == (b"full", b"interleaved", b"1e-06")


def test_frames_become_levels_and_back() -> None:
    """TensorRT has uint8 at the ends of a network only."""
    model = graph(
        node("RgbToPlanar", ["frames"], ["x"]),
        helper.make_node("Relu", ["x"], ["y"]),
        node("PlanarToRgb", ["y"], ["out"]),
    )
    made = prepare(model).graph.node
    assert [n.op_type for n in made] == ["Cast", "RgbToPlanar", "Relu", "PlanarToRgb", "Cast"]
    assert made[0].input[0] == "frames"
    assert made[1].input[0] == made[0].output[0]
    assert made[4].input[0] == made[3].output[0]
    assert made[4].output[0] == "out"
    assert attributes(made[0])["to"] == TensorProto.FLOAT
    assert attributes(made[4])["to"] == TensorProto.UINT8


def test_left_out_inputs_choose_the_plugin() -> None:
    def chosen(*inputs: str) -> str:
        (made,) = prepare(graph(node("QkNormRope", list(inputs), ["a", "b"]))).graph.node
        assert list(made.input) == [name for name in inputs if name]
        return made.op_type

    assert chosen("q", "k", "", "", "c", "s") == "QkNormRopeCosSin"
    assert chosen("q", "k", "w", "w") == "QkNormRopeQWeightKWeight"


@pytest.mark.parametrize("frames", [0, 1])
@pytest.mark.parametrize("residual", ["", "r"])
def test_a_blend_of_frames_is_a_plugin_of_its_own(frames: int, residual: str) -> None:
    inputs = ["a", "b", "flow", "mask", residual]
    made = prepare(graph(node("WarpBlend", inputs, ["out"], output_uint8=frames))).graph.node
    name = "WarpBlend" + ("Residual" if residual else "") + ("Frames" if frames else "")
    assert [n.op_type for n in made] == [name, *(["Cast"] if frames else [])]
    assert made[-1].output[0] == "out"


def test_attention_does_not_take_the_name_of_tensorrts_own() -> None:
    (made,) = prepare(graph(node("Attention", ["q", "k", "v", "bias"], ["out"]))).graph.node
    assert made.op_type == "FastvidAttentionBias"
    assert made.op_type in PLUGINS


@pytest.mark.parametrize(
    "wrong",
    [
        node("InverseSearch", ["a", "b"], ["f", "g"]),
        node("QkNormRope", ["q", "k", "w"], ["a", "b"]),
    ],
    ids=["no plugin", "no such inputs"],
)
def test_nodes_without_a_plugin_are_refused(wrong: onnx.NodeProto) -> None:
    with pytest.raises(ExportError, match=f"{wrong.op_type} .* must have a TensorRT plugin"):
        prepare(graph(wrong))


@pytest.mark.parametrize(
    "path", ["interpolator-fast/between.onnx", "upscaler-fast-x2/upscale.onnx"]
)
def test_shipped_graphs_have_a_plugin_for_every_node(path: str) -> None:
    model = onnx.load(Path(fastvid.__file__).parent / "models" / path)
    mine = [n for n in prepare(model).graph.node if n.domain == "fastvid"]
    assert len(mine) == sum(n.domain == "fastvid" for n in model.graph.node) > 0
    for made in mine:
        plugin = PLUGINS[made.op_type]
        assert len(made.input) == len(plugin.inputs)
        assert len(made.output) == plugin.outputs
        assert set(plugin.attributes) < set(attributes(made))
    onnx.checker.check_model(prepare(model), full_check=False)
