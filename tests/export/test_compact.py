"""Weights of 8 bits: rounded once, stored small, computed with exactly."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

from fastvid_export import onnx as exporting  # noqa: E402
from fastvid_export.compact import expand, halve_weights, round_weights  # noqa: E402
from fastvid_export.onnx import GraphPlan, Port  # noqa: E402


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.plain = torch.nn.Linear(64, 96)
        self.bare = torch.nn.Linear(96, 64, bias=False)
        self.kernel = torch.nn.Conv2d(8, 32, 3)
        self.small = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.bare(torch.relu(self.plain(x))), self.kernel(y), self.small(x[:, :4])


def plan(net: Net, *, compact: bool) -> GraphPlan:
    rng = np.random.default_rng(0)
    sample = {
        "x": rng.normal(size=(3, 64)).astype(np.float32),
        "y": rng.normal(size=(2, 8, 7, 9)).astype(np.float32),
    }
    inputs = (Port("x", "float32", ("N", 64)), Port("y", "float32", ("M", 8, "h", "w")))
    outputs = (
        Port("a", "float32", ("N", 64)),
        Port("b", "float32", ("M", 32, "p", "q")),
        Port("c", "float32", ("N", 4)),
    )
    return GraphPlan("net", net, inputs, outputs, {"random": [sample]}, compact=compact)


def test_rounded_weights_are_stored_as_bytes_and_give_the_same_bits() -> None:
    torch.manual_seed(0)
    net = Net()
    with torch.no_grad():
        net.kernel.weight[3] = 0
    round_weights(net)
    graphs = [exporting.export(plan(net, compact=c)).data for c in (False, True)]
    assert len(graphs[1]) < 0.45 * len(graphs[0])
    kinds = {w.name: w.data_type for w in onnx.load_from_string(graphs[1]).graph.initializer}
    assert sum(kind == onnx.TensorProto.INT8 for kind in kinds.values()) == 3
    sample = plan(net, compact=True).samples["random"][0]
    wide, narrow = (exporting.Runner(data)(sample) for data in graphs)
    for name, value in wide.items():
        np.testing.assert_array_equal(narrow[name], value)


def test_weights_of_16_bits_are_stored_as_such_and_give_the_same_bits() -> None:
    torch.manual_seed(0)
    net = Net()
    halve_weights(net)
    graphs = [exporting.export(plan(net, compact=c)).data for c in (False, True)]
    assert len(graphs[1]) < 0.6 * len(graphs[0])
    stored = onnx.load_from_string(graphs[1])
    halves = [w for w in stored.graph.initializer if w.data_type == onnx.TensorProto.FLOAT16]
    assert len(halves) == 3
    sample = plan(net, compact=True).samples["random"][0]
    wide, narrow, again = (
        exporting.Runner(data)(sample) for data in (*graphs, expand(stored).SerializeToString())
    )
    for name, value in wide.items():
        np.testing.assert_array_equal(narrow[name], value)
        np.testing.assert_array_equal(again[name], value)


def test_rounding_moves_a_weight_by_half_a_step_at_most() -> None:
    torch.manual_seed(0)
    net, rounded = Net(), Net()
    rounded.load_state_dict(net.state_dict())
    round_weights(rounded)
    for (name, before), after in zip(net.named_parameters(), rounded.parameters(), strict=True):
        if before.dim() < 2 or "small" in name:
            assert torch.equal(before, after)
            continue
        step = before.flatten(1).abs().amax(1) / 127
        assert ((before - after).flatten(1).abs().amax(1) <= 0.501 * step).all()
        assert len(after.flatten(1)[0].unique()) > 32


def test_weights_that_were_not_rounded_stay_as_they_are() -> None:
    torch.manual_seed(0)
    data = exporting.trace(plan(Net(), compact=True))
    kinds = {w.data_type for w in onnx.load_from_string(data).graph.initializer}
    assert onnx.TensorProto.INT8 not in kinds
