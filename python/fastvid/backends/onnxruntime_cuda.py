"""A graph in an onnxruntime session on CUDA, whose inputs and outputs may stay on the device.

All sessions of a model queue their runs on one stream and return before they are done. Memory of
inputs and outputs comes from `_cuda.Memory`, so that the blocks of one frame serve the next, and
the addresses that CUDA graphs are recorded for come again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from fastvid._specs import TensorSpec
from fastvid.backends._checks import check_finite, output_shape
from fastvid.backends._cuda import DeviceArray, Memory, PinnedMemory, Stream
from fastvid.backends._worker import Call
from fastvid.backends.onnxruntime_session import OnnxSession
from fastvid.errors import OutOfMemoryError

_NO_WAIT = "disable_synchronize_execution_providers"
_GRAPH_ID = "gpu_graph_id"
_NO_GRAPH = -1
# Recordings of one session that are kept: a stream of frames of one size needs a few, because the
# memory of frames takes turns.
_MAX_GRAPHS = 16

Sizes = tuple[tuple[str, int], ...]


class Lane:
    """What the sessions of one model on a CUDA device share."""

    def __init__(self, device: int) -> None:
        self.device = device
        self.stream = Stream(device)
        self.memory = Memory(self.stream)
        self.pinned = PinnedMemory(device)
        self.lock = threading.RLock()
        """Held while work is queued: what belongs together must not be mixed with other work."""

    def close(self) -> None:
        """Gives memory and stream back once the work on them is done."""
        self.memory.close()
        self.pinned.close()
        self.stream.close()


class CudaSession(OnnxSession):
    """One graph on a CUDA device; see `fastvid.backends.Session`.

    Args:
        *arguments: As for `OnnxSession`.
        lane: Stream and memory of the model.
        graphs: Whether runs are recorded and repeated as CUDA graphs.
        **options: As for `OnnxSession`.
    """

    def __init__(self, *arguments: Any, lane: Lane, graphs: bool, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._lane = lane
        self._graphs: OrderedDict[Any, int] | None = OrderedDict() if graphs else None
        self._next_graph = 0
        # Shapes that the description leaves open, as runs of the same sizes gave them.
        self._shapes: dict[Sizes, dict[str, tuple[int, ...]]] = {}

    @property
    def stream(self) -> int | None:
        """Address of the stream that runs are queued on."""
        return self._lane.stream.handle

    def run(self, inputs: Mapping[str, Any], *, keep: Collection[str] = ()) -> dict[str, Any]:
        """Runs the graph once; see `Session.run`."""
        found = self._check(inputs, keep)
        sizes = tuple(sorted((symbol, size) for symbol, (size, _) in found.items()))
        shapes = dict(self._shapes.get(sizes, {}))
        for spec in self._graph.outputs:
            if (shape := output_shape(spec, found)) is not None:
                shapes[spec.name] = shape

        def run(call: Call[dict[str, Any]]) -> dict[str, Any]:
            with self._lane.lock:
                outputs = self._queued(call, inputs, shapes)
                self._shapes[sizes] = {name: array.shape for name, array in outputs.items()}
                return self._fetched(outputs, keep)

        # Only queueing happens here, which is short.
        outputs = self._worker.run(run, direct=True)
        host = {name: value for name, value in outputs.items() if not self._kept(value)}
        if host:
            self._lane.stream.mark().wait()
            # Page-locked memory is scarce, and a caller may keep its arrays.
            outputs |= {name: array.copy() for name, array in host.items()}
        if self._finite:
            check_finite(self._graph.name, _on_host(outputs))
        return outputs

    @staticmethod
    def _kept(value: Any) -> bool:
        return isinstance(value, DeviceArray)

    def _queued(
        self, call: Call[Any], inputs: Mapping[str, Any], shapes: dict[str, tuple[int, ...]]
    ) -> dict[str, DeviceArray]:
        try:
            return self._once(call, inputs, shapes)
        except OutOfMemoryError:
            # What lies idle between runs may be just what onnxruntime lacks.
            self._lane.memory.trim()
            return self._once(call, inputs, shapes)

    def _once(
        self, call: Call[Any], inputs: Mapping[str, Any], shapes: dict[str, tuple[int, ...]]
    ) -> dict[str, DeviceArray]:
        memory = self._lane.memory
        session, options = self._ready()
        binding = session.io_binding()
        given = {name: self._given(array) for name, array in inputs.items()}
        outputs = {
            spec.name: memory.empty(shapes[spec.name], spec.dtype)
            for spec in self._graph.outputs
            if spec.name in shapes
        }
        for name, array in given.items():
            binding.bind_input(name, *self._place(array))
        for spec in self._graph.outputs:
            if spec.name in outputs:
                binding.bind_output(spec.name, *self._place(outputs[spec.name]))
            else:
                binding.bind_output(spec.name, "cuda", self._lane.device)
        options.add_run_config_entry(_NO_WAIT, "1")
        graph = _NO_GRAPH
        if self._graphs is not None:
            if len(outputs) == len(self._names):
                graph = self._graph_id(session, [*given.values(), *outputs.values()])
            options.add_run_config_entry(_GRAPH_ID, str(graph))
        self._guarded(call, options, lambda: session.run_with_iobinding(binding, options))
        for spec, value in zip(self._graph.outputs, binding.get_outputs(), strict=True):
            if spec.name not in outputs:
                outputs[spec.name] = self._copied(spec, value)
        return outputs

    def _given(self, array: Any) -> DeviceArray:
        """An input on the device, behind the work on it."""
        if not isinstance(array, DeviceArray):
            return self._lane.memory.put(np.ascontiguousarray(array))
        if array.stream != self._lane.stream.handle:
            array.use_on(self._lane.stream.handle)
        return array

    def _place(self, array: DeviceArray) -> tuple[Any, ...]:
        """An array as `IOBinding.bind_input` takes it."""
        return "cuda", self._lane.device, array.dtype.type, array.shape, array.pointer

    def _graph_id(self, session: Any, arrays: list[DeviceArray]) -> int:
        """The recording for these addresses and shapes, an old one's place if there are many."""
        assert self._graphs is not None
        key = tuple((array.pointer, array.shape) for array in arrays)
        if key in self._graphs:
            self._graphs.move_to_end(key)
            return self._graphs[key]
        if len(self._graphs) >= _MAX_GRAPHS:
            if not hasattr(session, "release_captured_graph"):
                return _NO_GRAPH
            _, oldest = self._graphs.popitem(last=False)
            session.release_captured_graph(oldest)
        self._next_graph += 1
        self._graphs[key] = self._next_graph
        return self._next_graph

    def _copied(self, spec: TensorSpec, value: Any) -> DeviceArray:
        """An output that onnxruntime found the memory for, in memory of ours."""
        array = self._lane.memory.empty(value.shape(), spec.dtype)
        self._lane.memory.copy_from(value.data_ptr(), array)
        return array

    def _fetched(
        self, outputs: dict[str, DeviceArray], keep: Collection[str]
    ) -> dict[str, DeviceArray | np.ndarray[Any, Any]]:
        """The outputs, those that are not kept on their way to page-locked memory."""
        result: dict[str, Any] = {}
        for name in self._names:
            result[name] = array = outputs[name]
            if name not in keep:
                host = self._lane.pinned.empty(array.shape, array.dtype)
                array.copy_to(host, self._lane.stream)
                result[name] = host
        return result


def _on_host(outputs: Mapping[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    return {
        name: value.numpy() if isinstance(value, DeviceArray) else value
        for name, value in outputs.items()
    }
