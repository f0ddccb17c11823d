"""A machine with a GPU and TensorRT, as far as this one can pretend: a test double."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_cuda
import fake_tensorrt
import numpy as np
import pytest

from fastvid import devices
from fastvid.backends import _cuda, _cuda_runtime, tensorrt, tensorrt_plugins
from fastvid.backends.tensorrt import _provide
from fastvid.devices import CudaDevice, CudaDriver

H200 = CudaDevice(0, "NVIDIA H200", (9, 0), 141 << 30)
VERSIONS = ("10.3.0", "10.16.1.11", "11.4.0.106")
_ORDER = threading.RLock()
KERNELS = Path(__file__).parents[1] / "csrc" / "fastvid" / "cuda" / "plugins"


class Device(fake_cuda.FakeCuda):
    """The fake device with several recordings at once, and a look at its memory."""

    def __init__(self, real: Any, *, capacity: int = 1 << 30) -> None:
        super().__init__(real, capacity=capacity)
        self._recordings: dict[int, list[Callable[[], None]]] = {}
        self._instances: dict[int, list[Callable[[], None]]] = {}

    @staticmethod
    def _run(stream: Any, until: int) -> None:
        # A stream does one thing after the other, whoever waits for it.
        with _ORDER:
            fake_cuda.FakeCuda._run(stream, until)

    def view(self, pointer: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
        """An array in device memory."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        assert self._inside(self._device, pointer, size), "outside of the device's memory"
        memory = (ctypes.c_uint8 * size).from_address(pointer)
        return np.frombuffer(memory, np.uint8).view(dtype).reshape(shape)

    def _cudaStreamEndCapture(self, stream: Any) -> Any:  # noqa: N802
        graph = super()._cudaStreamEndCapture(stream)
        self._recordings[int(graph)] = self._recorded
        return graph

    def _cudaGraphInstantiate(self, graph: Any, flags: int) -> Any:  # noqa: N802
        made = super()._cudaGraphInstantiate(graph, flags)
        self._instances[int(made)] = self._recordings[int(graph)]
        return made

    def _cudaGraphLaunch(self, graph: Any, stream: Any) -> None:  # noqa: N802
        assert not self._stream(stream).capturing
        self._stream(stream).queue.extend(self._instances[int(graph)])

    def _cudaGraphExecDestroy(self, graph: Any) -> None:  # noqa: N802
        del self._instances[int(graph)]


def install(
    monkeypatch: pytest.MonkeyPatch, version: str = VERSIONS[-1], device: CudaDevice = H200
) -> fake_tensorrt.FakeTensorRT:
    """Puts the doubles in place.

    Args:
        monkeypatch: Takes them away later.
        version: Of TensorRT.
        device: What the driver lists.
    """
    real = pytest.importorskip("cuda.bindings.runtime")
    pytest.importorskip("onnxruntime")
    fake = Device(real)
    for module in (_cuda, _cuda_runtime):
        monkeypatch.setattr(module, "runtime", lambda: fake)

    def driver() -> CudaDriver:
        return CudaDriver((device,), "13.0")

    for module in (devices, tensorrt, _provide):
        monkeypatch.setattr(module, "cuda_driver", driver)
    trt = fake_tensorrt.make(version, fake)
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    # The plugins themselves are held against the real bindings elsewhere.
    monkeypatch.setattr(tensorrt_plugins, "register", lambda: tuple(tensorrt_plugins.PLUGINS))
    monkeypatch.setattr(tensorrt_plugins, "kernels_folder", lambda: KERNELS)
    return trt


def python(script: str, *arguments: str) -> list[str]:
    """A command that runs `script` in a Python of its own, with the doubles in place as `trt`."""
    head = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import pytest, fake_machine\n"
        "trt = fake_machine.install(pytest.MonkeyPatch())\n"
    )
    return [sys.executable, "-c", head + script, *arguments]
