"""A deserialised engine: contexts, their memory, and CUDA graphs of runs that repeat."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from fastvid._specs import GraphSpec
from fastvid.backends._cuda import DeviceArray, Graph, Memory, use_device
from fastvid.backends.tensorrt._setup import Messages, created, logger_and_recorder
from fastvid.errors import DeviceError, DeviceLostError, EngineLoadError, OutOfMemoryError

Shapes = tuple[tuple[int, ...], ...]
"""Of each input, in the order of the graph's description."""

_MAX_BINDINGS = 4
_MAX_GRAPHS = 8


class Engine:
    """One engine on one stream; runs are queued one after the other.

    Args:
        trt: The module.
        plan: The engine's bytes; they must be trusted, for they are native code.
        graph: The graph it was built from.
        memory: Where its memory comes from, and the stream of its runs.
        what: The engine, for messages.
        cuda_graphs: Whether runs that repeat are recorded.

    Raises:
        EngineLoadError: TensorRT refuses the plan, or it is not of this graph.
        OutOfMemoryError: It does not fit into the device.
    """

    def __init__(
        self,
        trt: Any,
        plan: bytes | memoryview,
        graph: GraphSpec,
        memory: Memory,
        what: str,
        *,
        cuda_graphs: bool,
    ) -> None:
        self._trt, self._graph, self._what = trt, graph, what
        self._memory = memory
        self._cuda_graphs = cuda_graphs
        self._lock = threading.Lock()
        self._bindings: OrderedDict[Shapes, _Binding] = OrderedDict()
        self._scratch: DeviceArray | None = None
        # TensorRT keeps pointers to logger and recorder for as long as the runtime lives.
        self._messages, self._logger, self._recorder = logger_and_recorder(trt)
        use_device(memory.device)
        self._runtime: Any = created(trt.Runtime, self._messages, self._logger)
        self._runtime.error_recorder = self._recorder
        self._engine: Any = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise_said(self._messages, EngineLoadError, f"{what}: TensorRT refuses the engine")
        self._check()

    @property
    def stream(self) -> int:
        """Address of the stream that runs are queued on."""
        return self._memory.stream.handle

    @property
    def scratch_bytes(self) -> int:
        """Bytes of the memory that layers share."""
        return 0 if self._scratch is None else self._scratch.nbytes

    def run(self, inputs: Mapping[str, DeviceArray]) -> dict[str, DeviceArray]:
        """Queues one run, without waiting for it.

        Args:
            inputs: An array for each input, within the engine's profile.

        Raises:
            DeviceError: TensorRT failed, or the engine is closed.
            OutOfMemoryError: The device is full.
        """
        with self._lock:
            if self._engine is None:
                raise DeviceError(f"{self._what}: engine is closed")
            use_device(self._memory.device)
            shapes = tuple(inputs[spec.name].shape for spec in self._graph.inputs)
            binding = self._bindings.get(shapes)
            if binding is None:
                binding = self._bind(shapes)
            self._bindings.move_to_end(shapes)
            outputs = {
                name: self._memory.empty(shape, dtype)
                for name, (shape, dtype) in binding.outputs.items()
            }
            self._reserve(binding)
            binding.run({**inputs, **outputs})
            return outputs

    def close(self) -> None:
        """Frees contexts and engine, once queued runs have ended."""
        with self._lock:
            if self._engine is None:
                return
            self._memory.stream.wait()
            # Contexts before their engine, engines before their runtime.
            for binding in self._bindings.values():
                binding.close()
            self._bindings.clear()
            self._scratch = None
            self._engine = None
            self._runtime = None

    def _check(self) -> None:
        """Holds names, directions and dtypes against the graph's description."""
        trt, engine = self._trt, self._engine
        found = {}
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            found[name] = (engine.get_tensor_mode(name), engine.get_tensor_dtype(name))
        sides = (
            (trt.TensorIOMode.INPUT, self._graph.inputs),
            (trt.TensorIOMode.OUTPUT, self._graph.outputs),
        )
        wanted = {
            spec.name: (mode, dtype_of(trt, spec.dtype)) for mode, specs in sides for spec in specs
        }
        if found != wanted:
            raise EngineLoadError(
                f"{self._what}: inputs and outputs must be {_told(wanted)}, got {_told(found)}"
            )

    def _bind(self, shapes: Shapes) -> _Binding:
        """A context for inputs of these shapes; the ones unused for longest are given up."""
        while len(self._bindings) >= _MAX_BINDINGS:
            # Its context may still be in use by queued runs.
            self._memory.stream.wait()
            self._bindings.popitem(last=False)[1].close()
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        context = self._engine.create_execution_context(strategy)
        if context is None:
            raise_said(self._messages, DeviceError, f"{self._what}: no context could be made")
        binding = _Binding(context, self._graph, shapes, self._memory, self._messages, self._what)
        binding.cuda_graphs = self._cuda_graphs
        self._bindings[shapes] = binding
        return binding

    def _reserve(self, binding: _Binding) -> None:
        """Gives a context the memory that all contexts share; runs follow one after the other."""
        if self._scratch is None or self._scratch.nbytes < binding.scratch_bytes:
            self._scratch = None
            self._scratch = self._memory.empty((max(binding.scratch_bytes, 1),), np.uint8)
        binding.use_scratch(self._scratch)


class _Binding:
    """One execution context with the shapes of its inputs."""

    def __init__(
        self,
        context: Any,
        graph: GraphSpec,
        shapes: Shapes,
        memory: Memory,
        messages: Messages,
        what: str,
    ) -> None:
        self._context, self._memory = context, memory
        self._messages, self._what = messages, what
        self.cuda_graphs = True
        self._graphs: OrderedDict[tuple[int, ...], Graph] = OrderedDict()
        self._seen: OrderedDict[tuple[int, ...], None] = OrderedDict()
        self._scratch = 0
        if not context.set_optimization_profile_async(0, memory.stream.handle):
            self._fail("its profile cannot be chosen")
        for spec, shape in zip(graph.inputs, shapes, strict=True):
            if not context.set_input_shape(spec.name, shape):
                self._fail(f"input {spec.name!r} cannot have shape {shape}")
        if missing := context.infer_shapes():
            self._fail(f"shapes of {', '.join(missing)} do not follow from the inputs")
        self.scratch_bytes = int(context.update_device_memory_size_for_shapes())
        self.outputs: dict[str, tuple[tuple[int, ...], Any]] = {}
        for spec in graph.outputs:
            shape = tuple(int(n) for n in context.get_tensor_shape(spec.name))
            if any(size < 0 for size in shape):
                self._fail(f"output {spec.name!r} has a shape that depends on values: {shape}")
            self.outputs[spec.name] = (shape, np.dtype(spec.dtype))

    def use_scratch(self, scratch: DeviceArray) -> None:
        """Sets the memory that layers work in."""
        if self._scratch != scratch.pointer:
            self._forget()
            self._context.set_device_memory(scratch.pointer, scratch.nbytes)
            self._scratch = scratch.pointer

    def run(self, arrays: Mapping[str, DeviceArray]) -> None:
        """Queues one run on arrays of these shapes.

        A run on addresses that came before is recorded, and from then on launched as one graph.
        """
        addresses = tuple(array.pointer for array in arrays.values())
        if known := self._graphs.get(addresses):
            self._graphs.move_to_end(addresses)
            known.launch(self._memory.stream)
            return
        for name, array in arrays.items():
            if not self._context.set_tensor_address(name, array.pointer):
                self._fail(f"address of {name!r} is refused")
        if self.cuda_graphs and addresses in self._seen:
            try:
                graph = Graph(self._memory.stream, self._queue)
            except DeviceLostError:
                raise
            except DeviceError:
                # Some layers cannot be recorded; the engine runs without.
                self.cuda_graphs = False
                self._messages.clear()
            else:
                self._keep(addresses, graph)
                graph.launch(self._memory.stream)
                return
        self._queue()
        self._seen[addresses] = None
        while len(self._seen) > 4 * _MAX_GRAPHS:
            self._seen.popitem(last=False)

    def close(self) -> None:
        """Frees recordings and context."""
        self._forget()
        self._context = None

    def _queue(self) -> None:
        if not self._context.execute_async_v3(self._memory.stream.handle):
            self._fail("running failed")

    def _keep(self, addresses: tuple[int, ...], graph: Graph) -> None:
        while len(self._graphs) >= _MAX_GRAPHS:
            # Freeing a recording that is being run is allowed: it ends first.
            self._graphs.popitem(last=False)[1].close()
        self._graphs[addresses] = graph

    def _forget(self) -> None:
        for graph in self._graphs.values():
            graph.close()
        self._graphs.clear()
        # A context must run once with its memory before it is recorded.
        self._seen.clear()

    def _fail(self, problem: str) -> NoReturn:
        raise_said(self._messages, DeviceError, f"{self._what}: {problem}")


def raise_said(messages: Messages, kind: type[DeviceError], problem: str) -> NoReturn:
    """Raises with what TensorRT said, as `OutOfMemoryError` where an allocation failed."""
    full = messages.out_of_memory()
    text = f"{problem}: {messages.drain()}"
    if full:
        raise OutOfMemoryError(text, hint="use smaller frames or tiles")
    raise kind(text)


def dtype_of(trt: Any, dtype: str) -> Any:
    """TensorRT's name of an element type; None if it has none."""
    names = {
        "float32": "FLOAT",
        "float16": "HALF",
        "int8": "INT8",
        "int32": "INT32",
        "int64": "INT64",
        "bool": "BOOL",
        "uint8": "UINT8",
    }
    return getattr(trt.DataType, names[dtype]) if dtype in names else None


def _told(tensors: Mapping[str, tuple[Any, Any]]) -> str:
    return ", ".join(f"{n} ({m} {d})" for n, (m, d) in sorted(tensors.items(), key=lambda t: t[0]))
