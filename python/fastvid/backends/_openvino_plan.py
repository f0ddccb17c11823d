"""A graph compiled for one set of input shapes, in one piece or in pieces of different precision.

OpenVINO computes a whole model in one precision. So a graph in which some nodes stay float32 is cut
where the precision changes, and the pieces run one after the other on the same arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastvid.backends import _openvino_setup as setup
from fastvid.backends._openvino_ops import Nodes, Registered
from fastvid.backends._openvino_roles import narrow_nodes

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class _Compiled:
    """A piece, and between which values it stands."""

    model: Any
    inputs: Mapping[str, Any]
    """Port of each value that it reads."""
    outputs: Mapping[str, Any]


class Plan:
    """A graph compiled for one set of shapes.

    Args:
        nodes: Of fastvid's operators in it.
        pieces: In the order in which they run.
        inputs: Names of the graph's inputs.
        outputs: Names of its outputs.
    """

    def __init__(
        self,
        nodes: Nodes,
        pieces: Sequence[_Compiled],
        inputs: Sequence[str],
        outputs: Sequence[str],
    ) -> None:
        self._nodes = nodes
        self._pieces = pieces
        self._inputs = inputs
        self._outputs = outputs
        self.idle: list[Chain] = []
        """Chains that no run uses."""

    def chain(self) -> Chain:
        """Requests for one run at a time."""
        return Chain(self._nodes, self._pieces, self._inputs, self._outputs)


class Chain:
    """One request of each piece; what passes between them stays where it was made."""

    def __init__(
        self,
        nodes: Nodes,
        pieces: Sequence[_Compiled],
        inputs: Sequence[str],
        outputs: Sequence[str],
    ) -> None:
        # A run that is under way when the plan is dropped must still find its nodes.
        self._nodes = nodes
        self._tensor = setup.runtime().Tensor
        self._requests = [piece.model.create_infer_request() for piece in pieces]
        self._takes: dict[str, list[tuple[Any, Any]]] = {name: [] for name in inputs}
        self._gives: dict[str, tuple[Any, Any]] = {}
        self._cancelled = False
        inside: dict[str, Any] = {}
        for piece, request in zip(pieces, self._requests, strict=True):
            for name, port in piece.inputs.items():
                if name in self._takes:
                    self._takes[name].append((request, port))
                else:
                    request.set_tensor(port, inside[name])
            for name, port in piece.outputs.items():
                if name in outputs:
                    self._gives[name] = request, port
                if len(pieces) > 1:
                    inside[name] = request.get_tensor(port)

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Runs the pieces.

        Args:
            inputs: An array for each input of the graph.

        Returns:
            A new array for each output.
        """
        self._cancelled = False
        # OpenVINO reads and writes these arrays where they lie; it does not keep them alive, and
        # takes none that is read-only.
        held = {name: np.require(inputs[name], None, ["C", "W"]) for name in self._takes}
        for name, ports in self._takes.items():
            tensor = self._tensor(held[name], shared_memory=True)
            for request, port in ports:
                request.set_tensor(port, tensor)
        made = {}
        for name, (request, port) in self._gives.items():
            if port.partial_shape.is_static:
                made[name] = np.empty(tuple(port.shape), port.element_type.to_dtype())
                request.set_tensor(port, self._tensor(made[name], shared_memory=True))
        for request in self._requests:
            if self._cancelled:
                raise RuntimeError("the run was cancelled")
            # `infer` on one thread drops the errors of nodes, and cancelling, without a word.
            request.start_async(share_inputs=True)
            request.wait()
        for name, (request, port) in self._gives.items():
            if name not in made:
                made[name] = request.get_tensor(port).data.copy()
        return made

    def cancel(self) -> None:
        """Stops the run that is under way."""
        self._cancelled = True
        for request in self._requests:
            request.cancel()


def compile_plan(
    registered: Registered,
    model: Any,
    shapes: Shapes,
    outputs: Sequence[str],
    precision: str,
    threads: int,
) -> Plan:
    """Compiles a graph for inputs of known shapes.

    Args:
        registered: What the model was read with.
        model: As it was read; it is not changed.
        shapes: Of each input.
        outputs: Names of the graph's outputs.
        precision: What products are computed in, `float32` or `bfloat16`.
        threads: CPU threads.
    """
    from openvino.passes import ConstantFolding, Manager

    fixed = model.clone()
    fixed.reshape({name: list(shape) for name, shape in shapes.items()})
    if precision == "float32":
        places = [dict(zip(found, range(len(found)), strict=True)) for found in (shapes, outputs)]
        cuts = [_Cut(fixed, precision, *places)]
    else:
        passes = Manager()
        passes.register_pass(ConstantFolding())
        passes.run_passes(fixed)
        cuts = _cut(fixed, list(shapes), outputs, precision)
    pieces = []
    for cut in cuts:
        made = _compile(registered.core, cut, threads)
        takes = {name: _port(made.inputs, name, i) for name, i in cut.inputs.items()}
        gives = {name: _port(made.outputs, name, i) for name, i in cut.outputs.items()}
        pieces.append(_Compiled(made, takes, gives))
    return Plan(registered.claim(), pieces, list(shapes), list(outputs))


def _compile(core: Any, cut: _Cut, threads: int) -> Any:
    properties = setup.properties(cut.precision, threads)
    try:
        return core.compile_model(cut.model, setup.CPU, properties)
    except RuntimeError as error:
        # OpenVINO 2026.4 loses the order of some graphs while it fuses elementwise operations.
        if "TokenizeSnippets" not in str(error):
            raise
        return core.compile_model(cut.model, setup.CPU, properties | {"SNIPPETS_MODE": "DISABLE"})


def _port(ports: Sequence[Any], name: str, place: int) -> Any:
    """The port called `name`, or at `place` in a model whose ports have no names."""
    return next((port for port in ports if name in port.get_names()), ports[place])


@dataclass(frozen=True)
class _Cut:
    """A piece before it is compiled."""

    model: Any
    precision: str
    inputs: Mapping[str, int]
    """Place of each value among the model's inputs."""
    outputs: Mapping[str, int]


def _cut(model: Any, inputs: Sequence[str], outputs: Sequence[str], precision: str) -> list[_Cut]:
    """The pieces of a model, which is taken apart.

    A value that passes between pieces is called by its maker and the number of the output.
    """
    import openvino
    from openvino import opset13

    stages, ordered = _stages(model)
    names = {}
    for name in inputs:
        names[model.input(name).get_node().get_name(), 0] = name
    wanted = {}
    for name in outputs:
        source = model.output(name).get_node().input_value(0)
        wanted[name] = source.get_node().get_name(), source.get_index()
    parameters: dict[int, dict[str, Any]] = {}
    results: dict[int, dict[str, Any]] = {}
    makers = {node.get_name(): node for node in ordered}
    for node in ordered:
        stage = stages[node.get_name()]
        for port in node.inputs():
            source = port.get_source_output()
            maker, index = source.get_node(), source.get_index()
            key = maker.get_name(), index
            if maker.get_type_name() == "Constant":
                continue
            if maker.get_type_name() != "Parameter" and stages[maker.get_name()] == stage:
                continue
            name = names.get(key) or f"{key[0]}:{index}"
            inside = parameters.setdefault(stage, {})
            if name not in inside:
                inside[name] = opset13.parameter(
                    source.get_partial_shape(), source.get_element_type()
                )
            port.replace_source_output(inside[name].output(0))
            if key not in names:
                results.setdefault(stages[key[0]], {})[name] = source
    for name, key in wanted.items():
        maker = makers.get(key[0])
        if maker is not None:
            results.setdefault(stages[key[0]], {})[name] = maker.output(key[1])
    found = []
    for stage in sorted(results):
        given, made = parameters.get(stage, {}), results[stage]
        ends = [opset13.result(source) for source in made.values()]
        piece = openvino.Model(ends, list(given.values()), f"piece{stage}")
        computes = precision if stage % 2 else "float32"
        places = [{name: i for i, name in enumerate(names)} for names in (given, made)]
        found.append(_Cut(piece, computes, *places))
    return found


def _stages(model: Any) -> tuple[dict[str, int], list[Any]]:
    """Number of the piece of each node, odd for those in bfloat16; and the nodes, in order."""
    every = list(model.get_ordered_ops())
    narrow = narrow_nodes(every)
    stages: dict[str, int] = {}
    ordered = []
    for node in every:
        kind, name = node.get_type_name(), node.get_name()
        if kind in ("Parameter", "Constant", "Result"):
            continue
        odd = name in narrow
        stage = int(odd)
        for value in node.input_values():
            before = stages.get(value.get_node().get_name(), 0)
            stage = max(stage, before + (before % 2 != odd))
        stages[name] = stage
        ordered.append(node)
    return stages, ordered
