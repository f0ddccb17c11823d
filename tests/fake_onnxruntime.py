"""onnxruntime whose CUDA provider is its CPU provider on the memory of a fake device.

Sessions are real ones, on the CPU. A run is queued on the stream that the session was made with,
as the CUDA provider does, and reads and writes the memory that was bound when its turn comes.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
from fake_cuda import FakeCuda

from fastvid.backends import _onnxruntime_setup as setup

# Names that the library of the CUDA provider holds, with values it takes.
_OPTIONS = {
    "device_id",
    "user_compute_stream",
    "use_tf32",
    "arena_extend_strategy",
    "cudnn_conv_use_max_workspace",
    "enable_cuda_graph",
}


class _Value:
    """An output that the session found the memory for."""

    def __init__(self, pointer: int, shape: tuple[int, ...]) -> None:
        self._pointer, self._shape = pointer, shape

    def shape(self) -> list[int]:
        return list(self._shape)

    def data_ptr(self) -> int:
        return self._pointer


class _Binding:
    def __init__(self) -> None:
        self.inputs: dict[str, tuple[Any, ...]] = {}
        self.outputs: dict[str, tuple[Any, ...] | None] = {}
        self.found: dict[str, _Value] = {}

    def bind_input(
        self, name: str, device_type: str, device_id: int, element_type: Any, shape: Any, ptr: int
    ) -> None:
        assert (device_type, device_id) == ("cuda", 0)
        self.inputs[name] = element_type, tuple(shape), ptr

    def bind_output(
        self,
        name: str,
        device_type: str = "cpu",
        device_id: int = 0,
        element_type: Any = None,
        shape: Any = None,
        buffer_ptr: int | None = None,
    ) -> None:
        assert (device_type, device_id) == ("cuda", 0)
        known = buffer_ptr is not None
        self.outputs[name] = (element_type, tuple(shape), buffer_ptr) if known else None

    def get_outputs(self) -> list[_Value]:
        return [
            self.found[name] if place is None else _Value(place[2], place[1])
            for name, place in self.outputs.items()
        ]


class FakeOrt:
    """Stands in for the module `onnxruntime`."""

    def __init__(self, real: Any, cuda: FakeCuda) -> None:
        self._real, self._cuda = real, cuda
        self.sessions: list[FakeSession] = []
        self.refuse_runs: list[str] = []
        """Messages that the next runs fail with."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def InferenceSession(  # noqa: N802
        self, model: bytes, options: Any, *, providers: list[Any], enable_fallback: int
    ) -> Any:
        if providers == [setup.CPU]:
            return self._real.InferenceSession(model, options, providers=providers)
        ((provider, values),) = providers
        assert provider == setup.CUDA
        assert set(values) <= _OPTIONS
        assert enable_fallback == 0
        session = FakeSession(self, model, values)
        self.sessions.append(session)
        return session


class FakeSession:
    """A session of the CUDA provider."""

    def __init__(self, ort: FakeOrt, model: bytes, values: dict[str, Any]) -> None:
        real = ort._real
        options = real.SessionOptions()
        options.log_severity_level = 4
        options.register_custom_ops_library(str(setup.operators_library()))
        self._session = real.InferenceSession(model, options, providers=[setup.CPU])
        self._ort, self._real, self._cuda = ort, real, ort._cuda
        self.values = values
        self.stream = int(values["user_compute_stream"])
        self.graph_ids: list[str] = []
        self.released: list[int] = []
        self._captured: dict[str, Any] = {}

    def get_inputs(self) -> Any:
        return self._session.get_inputs()

    def get_outputs(self) -> Any:
        return self._session.get_outputs()

    def get_providers(self) -> list[str]:
        return [setup.CUDA, setup.CPU]

    def io_binding(self) -> _Binding:
        return _Binding()

    def release_captured_graph(self, number: int = 0) -> None:
        self.released.append(number)
        del self._captured[str(number)]

    def run_with_iobinding(self, binding: _Binding, options: Any) -> None:
        if self._ort.refuse_runs:
            raise RuntimeError(self._ort.refuse_runs.pop())
        assert options.get_run_config_entry("disable_synchronize_execution_providers") == "1"
        if self.values.get("enable_cuda_graph"):
            self._replay(binding, options.get_run_config_entry("gpu_graph_id"))
        if None in binding.outputs.values():
            # Its memory is found while the run is queued.
            self._cuda.finish()
            self._run(binding)
        else:
            self._cuda.queue(self.stream, lambda: self._run(binding))

    def _replay(self, binding: _Binding, number: str) -> None:
        """What was recorded under a number reads and writes the addresses of then."""
        self.graph_ids.append(number)
        if number != "-1":
            places = (binding.inputs, binding.outputs)
            assert self._captured.setdefault(number, places) == places

    def _run(self, binding: _Binding) -> None:
        real = self._session.io_binding()
        for name, (kind, shape, pointer) in binding.inputs.items():
            real.bind_input(name, "cpu", 0, kind, shape, pointer)
        for name, place in binding.outputs.items():
            if place is None:
                real.bind_output(name, "cpu")
            else:
                real.bind_output(name, "cpu", 0, *place)
        self._session.run_with_iobinding(real)
        values = zip(binding.outputs, real.get_outputs(), strict=True)
        for name, value in values:
            if binding.outputs[name] is None:
                array = np.ascontiguousarray(value.numpy())
                pointer = self._cuda._cudaMalloc(array.nbytes)
                self._cuda.arena.add(pointer)
                ctypes.memmove(pointer, array.ctypes.data, array.nbytes)
                binding.found[name] = _Value(pointer, array.shape)


def install(monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda) -> FakeOrt:
    """Lets `device="cuda"` find the fake device."""
    real = pytest.importorskip("onnxruntime")
    ort = FakeOrt(real, cuda)
    monkeypatch.setattr(setup, "runtime", lambda: ort)
    monkeypatch.setattr(setup, "cuda_problem", lambda index: "")
    return ort
