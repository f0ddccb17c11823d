"""A test double of the module `tensorrt`: its Python interface, with onnxruntime behind it.

Nothing here is TensorRT. It builds "plans" that hold the ONNX graph it was given, and runs them
with onnxruntime on the fake CUDA device of `fake_cuda`, so that what the backend does around
TensorRT can be tested. It is as strict as the bindings: names, numbers of arguments, keywords and
plain types are held against `tests/data/tensorrt_api.json`, read from the real bindings of several
versions, and what must be set before a run is asked for.
"""

from __future__ import annotations

import json
import os
import time
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import tensorrt_api
from onnx import helper
from strict_tensorrt import Object, Value
from tensorrt_graphs import runnable

_MAGIC = b"FAKE PLAN "


def make(version: str, cuda: Any) -> FakeTensorRT:
    """The module as a version of the real bindings has it.

    Args:
        version: A key of `tests/data/tensorrt_api.json`.
        cuda: The fake device that engines run on.
    """
    return FakeTensorRT(version, cuda)


class FakeTensorRT(ModuleType):
    """The module; attributes starting with `fake_` steer it."""

    def __init__(self, version: str, cuda: Any) -> None:
        super().__init__("tensorrt")
        self.__version__ = version
        self.fake_api = tensorrt_api.known()[version]
        self.fake_cuda = cuda
        self.fake_fail: set[str] = set()
        """What fails: parse, profile, timing, build, memory, deserialize, context, run, capture."""
        self.fake_wrong = 0.0
        """What is added to every result of engines that are built from now on."""
        self.fake_steps = 3
        self.fake_step_seconds = 0.0
        self.fake_log: list[str] = []
        """What was done: build, deserialize, run."""
        for name in self.fake_api:
            setattr(self, name, self._made(name))

    def _made(self, name: str) -> Any:
        members = self.fake_api[name]
        base = _CLASSES.get(name)
        if base is None:
            # Enumerations.
            values = {member: Value(f"{name}.{member}", i) for i, member in enumerate(members)}
            return type(name, (), values)
        return type(name, (base,), {"_trt": self, "_members": members, "_name": name})


def _host(trt: FakeTensorRT, data: bytes) -> Any:
    """The bindings' object is a buffer; Python has that from 3.12 on, so it is a NumPy array."""
    assert trt.fake_api["IHostMemory"]
    return np.frombuffer(data, np.uint8)


class _Logger(Object):
    INTERNAL_ERROR = Value("Severity.INTERNAL_ERROR", 0)
    ERROR = Value("Severity.ERROR", 1)
    WARNING = Value("Severity.WARNING", 2)

    def __init__(self) -> None:
        self._made = True


class _Recorder(Object):
    def __init__(self) -> None:
        self._made = True


class _Monitor(Object):
    def __init__(self) -> None:
        self._made = True


def _report(recorder: Any, code: str, text: str) -> None:
    """An error, as TensorRT tells of it."""
    type(recorder).report_error(recorder, code, text)


def _require_made(value: Any) -> None:
    # The bindings crash or raise where a subclass does not call the constructor of its base.
    assert getattr(value, "_made", False), f"{type(value).__name__} did not call its base"


class _Builder(Object):
    def __init__(self, logger: Any) -> None:
        _require_made(logger)
        self._logger = logger

    def create_network(self, flags: int = 0) -> Any:
        trt = self._trt
        old = trt.__version__.startswith("10.")
        typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        assert bool(flags & typed) == old, "a network of 10 must be asked to be strongly typed"
        return trt.INetworkDefinition()

    def create_builder_config(self) -> Any:
        return self._trt.IBuilderConfig()

    def create_optimization_profile(self) -> Any:
        return self._trt.IOptimizationProfile()

    def build_serialized_network(self, network: Any, config: Any, kernel_text: Any = None) -> Any:
        trt = self._trt
        _require_made(self.error_recorder)
        trt.fake_log.append("build")
        assert config._profiles, "a network of dynamic shapes needs a profile"
        for name in network._inputs():
            assert name in config._profiles[0]._shapes, f"no sizes for {name}"
        if (monitor := getattr(config, "progress_monitor", None)) is not None:
            _require_made(monitor)
            # By the class: what TensorRT passes is not held against what its users may pass.
            kind = type(monitor)
            kind.phase_start(monitor, "Building Engine", None, trt.fake_steps)
            for step in range(trt.fake_steps):
                time.sleep(trt.fake_step_seconds)
                if not kind.step_complete(monitor, "Building Engine", step):
                    type(self._logger).log(
                        self._logger, self._logger.ERROR, "interrupted by the monitor"
                    )
                    return None
            kind.phase_finish(monitor, "Building Engine")
        if "memory" in trt.fake_fail:
            _report(self.error_recorder, "ErrorCodeTRT.FAILED_ALLOCATION", "no more memory")
            return None
        if "build" in trt.fake_fail:
            _report(self.error_recorder, "ErrorCodeTRT.INTERNAL_ERROR", "no tactic was found")
            return None
        if config._timing is not None:
            config._timing._entries.add(f"{os.getpid()}-{len(network._model)}")
        head = {"profile": config._profiles[0]._shapes, "wrong": trt.fake_wrong}
        return _host(trt, _MAGIC + json.dumps(head).encode() + b"\n" + network._model)


class _Network(Object):
    _model = b""

    def _inputs(self) -> list[str]:
        graph = onnx.load_from_string(self._model).graph
        return [value.name for value in graph.input]

    @property
    def num_inputs(self) -> int:
        return len(self._inputs())

    def get_input(self, index: int) -> Any:
        tensor = self._trt.ITensor()
        tensor._text = self._inputs()[index]
        return tensor


class _Tensor(Object):
    _text = ""

    @property
    def name(self) -> str:
        return self._text


class _Parser(Object):
    def __init__(self, network: Any, logger: Any) -> None:
        _require_made(logger)
        self._network = network
        self._errors: list[str] = []

    def parse(self, model: Any, path: str | None = None) -> bool:
        trt = self._trt
        if "parse" in trt.fake_fail:
            self._errors.append("In node 3 (importFoo): no importer for Foo")
            return False
        try:
            loaded = onnx.load_from_string(bytes(model))
            if path:
                onnx.load_external_data_for_model(loaded, os.path.dirname(path))
                for tensor in loaded.graph.initializer:
                    # What the real parser may do later: look at the file again.
                    for entry in tensor.external_data:
                        if entry.key == "location":
                            assert os.path.exists(os.path.join(os.path.dirname(path), entry.value))
                    tensor.ClearField("data_location")
                    tensor.ClearField("external_data")
            onnx.checker.check_model(runnable(loaded), full_check=not _ours(loaded))
        except Exception as error:
            self._errors.append(f"{type(error).__name__}: {error}")
            return False
        self._network._model = loaded.SerializeToString()
        return True

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> Any:
        error = self._trt.ParserError()
        error._text = self._errors[index]
        return error


def _ours(model: onnx.ModelProto) -> bool:
    return any(node.domain == "fastvid" for node in model.graph.node)


class _ParserError(Object):
    _text = ""

    def desc(self) -> str:
        return self._text


class _Config(Object):
    def __init__(self) -> None:
        self._profiles: list[Any] = []
        self._timing: Any = None
        self._flags = {"TF32"}

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        assert pool_size > 0

    def set_flag(self, flag: Any) -> None:
        self._flags.add(str(flag).split(".")[1])

    def clear_flag(self, flag: Any) -> None:
        self._flags.discard(str(flag).split(".")[1])

    def add_optimization_profile(self, profile: Any) -> int:
        if "profile" in self._trt.fake_fail:
            return -1
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: Any) -> Any:
        cache = self._trt.ITimingCache()
        cache._entries = set(bytes(serialized_timing_cache).decode().split())
        return cache

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        if "timing" in self._trt.fake_fail and cache._entries:
            return False
        self._timing = cache
        return True

    def get_timing_cache(self) -> Any:
        return self._timing


class _Timing(Object):
    _entries: set[str]

    def combine(self, input_cache: Any, ignore_mismatch: bool) -> bool:
        self._entries = self._entries | input_cache._entries
        return True

    def serialize(self) -> Any:
        return _host(self._trt, " ".join(sorted(self._entries)).encode())


class _Profile(Object):
    def __init__(self) -> None:
        self._shapes: dict[str, list[tuple[int, ...]]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        assert len(min) == len(opt) == len(max)
        assert all(a <= b <= c for a, b, c in zip(min, opt, max, strict=True))
        self._shapes[input] = [tuple(min), tuple(opt), tuple(max)]


class _Runtime(Object):
    def __init__(self, logger: Any) -> None:
        _require_made(logger)
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine: Any) -> Any:
        trt = self._trt
        _require_made(self.error_recorder)
        trt.fake_log.append("deserialize")
        data = bytes(serialized_engine)
        if "deserialize" in trt.fake_fail or not data.startswith(_MAGIC):
            _report(self.error_recorder, "ErrorCodeTRT.INVALID_ARGUMENT", "magic tag is wrong")
            return None
        head, _, model = data[len(_MAGIC) :].partition(b"\n")
        engine = trt.ICudaEngine()
        engine._load(json.loads(head), model, self.error_recorder)
        return engine


class _Engine(Object):
    def _load(self, head: dict[str, Any], model: bytes, recorder: Any) -> None:
        import onnxruntime as ort

        from fastvid import _core

        self._head, self._recorder = head, recorder
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.register_custom_ops_library(_core.__file__)
        made = runnable(onnx.load_from_string(model))
        self._session = ort.InferenceSession(
            made.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        trt = self._trt
        sides = (
            (trt.TensorIOMode.INPUT, made.graph.input),
            (trt.TensorIOMode.OUTPUT, made.graph.output),
        )
        self._tensors = {
            value.name: (mode, helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
            for mode, values in sides
            for value in values
        }

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_mode(self, name: str) -> Any:
        return self._tensors[name][0]

    def get_tensor_dtype(self, name: str) -> Any:
        kinds = {
            "float32": "FLOAT", "float16": "HALF", "int8": "INT8", "int32": "INT32",
            "int64": "INT64", "bool": "BOOL", "uint8": "UINT8",
        }  # fmt: skip
        return getattr(self._trt.DataType, kinds[self._tensors[name][1].name])

    def create_execution_context(self, strategy: Any = None) -> Any:
        assert "USER_MANAGED" in str(strategy)
        if "context" in self._trt.fake_fail:
            return None
        context = self._trt.IExecutionContext()
        context._engine = self
        return context


class _Context(Object):
    _engine: Any

    def __init__(self) -> None:
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._outputs: dict[str, Any] | None = None
        self._need = 0
        self._memory = (0, 0)
        self._runs = 0
        self._profile = -1

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        assert not self._trt.fake_cuda._stream(stream_handle).capturing
        self._profile = profile_index
        return profile_index == 0

    def set_input_shape(self, name: str, shape: Any) -> bool:
        assert self._profile == 0, "a profile must be chosen before shapes are"
        low, _, high = self._engine._head["profile"][name]
        if not all(a <= n <= b for a, n, b in zip(low, shape, high, strict=True)):
            return False
        self._shapes[name] = tuple(shape)
        return True

    def infer_shapes(self) -> list[str]:
        engine = self._engine
        missing = [n for n in engine._head["profile"] if n not in self._shapes]
        if missing:
            return missing
        zeros = {
            name: np.zeros(shape, engine._tensors[name][1]) for name, shape in self._shapes.items()
        }
        names = [value.name for value in engine._session.get_outputs()]
        results = engine._session.run(names, zeros)
        self._outputs = dict(zip(names, results, strict=True))
        return []

    def update_device_memory_size_for_shapes(self) -> int:
        assert self._outputs is not None
        self._need = sum(array.nbytes for array in self._outputs.values())
        return self._need

    def set_device_memory(self, memory: int, size: int) -> None:
        assert self._trt.fake_cuda._inside(self._trt.fake_cuda._device, memory, size)
        self._memory = (memory, size)

    def get_tensor_shape(self, name: str) -> Any:
        assert self._outputs is not None
        return self._outputs[name].shape

    def set_tensor_address(self, name: str, memory: int) -> bool:
        assert name in self._engine._tensors
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        trt, engine = self._trt, self._engine
        assert stream_handle > 2, "the default stream makes TensorRT wait"
        assert self._memory[0], "a context without memory of its own must be given some"
        assert self._memory[1] >= self._need, "the memory is too small for these shapes"
        stream = trt.fake_cuda._stream(stream_handle)
        if "run" in trt.fake_fail:
            _report(engine._recorder, "ErrorCodeTRT.FAILED_EXECUTION", "a kernel failed")
            return False
        if stream.capturing:
            assert self._runs, "a context must run once before it is recorded"
        self._runs += 1
        areas = {}
        for name, shape in self._shapes.items():
            areas[name] = (self._addresses[name], shape, engine._tensors[name][1])
        for name, array in self._outputs.items():
            areas[name] = (self._addresses[name], array.shape, array.dtype)
        device = trt.fake_cuda

        def work() -> None:
            trt.fake_log.append("run")
            arrays = {name: device.view(*area) for name, area in areas.items()}
            given = {name: arrays[name].copy() for name in self._shapes}
            results = engine._session.run(list(self._outputs), given)
            for name, result in zip(self._outputs, results, strict=True):
                wrong = np.asarray(engine._head["wrong"]).astype(result.dtype)
                arrays[name][...] = result + wrong

        stream.queue.append(work)
        return True


_CLASSES: dict[str, type] = {
    "Builder": _Builder,
    "IBuilderConfig": _Config,
    "ICudaEngine": _Engine,
    "IErrorRecorder": _Recorder,
    "IExecutionContext": _Context,
    "ILogger": _Logger,
    "INetworkDefinition": _Network,
    "IOptimizationProfile": _Profile,
    "IProgressMonitor": _Monitor,
    "ITensor": _Tensor,
    "ITimingCache": _Timing,
    "OnnxParser": _Parser,
    "ParserError": _ParserError,
    "Runtime": _Runtime,
}
