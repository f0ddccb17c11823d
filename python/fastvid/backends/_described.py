"""What every session says of its graph."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from fastvid._specs import GraphSpec, TensorSpec


class Described:
    """Has the description of `_graph`, which a subclass sets."""

    _graph: GraphSpec

    @functools.cached_property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """Description of each input by its name."""
        return {spec.name: spec for spec in self._graph.inputs}

    @functools.cached_property
    def outputs(self) -> Mapping[str, TensorSpec]:
        """Description of each output by its name."""
        return {spec.name: spec for spec in self._graph.outputs}
