"""Finding out whether onnxruntime is there and what it can really use.

onnxruntime lists providers it was built with, whether or not their libraries and devices exist,
and falls back to the CPU without saying so. So nothing it lists is believed until it has run.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import io
import platform
import re
from pathlib import Path
from typing import Any

import numpy as np

from fastvid.backends._fatbin import device_code
from fastvid.devices import CudaDevice, cuda_driver
from fastvid.errors import BackendUnavailableError, UnsupportedModelError

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
INSTALL_CPU = "pip install 'fastvid-sdk[cpu]'"
INSTALL_CUDA = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'fastvid-sdk[gpu]'"

OPERATOR_DOMAIN = "fastvid"
OPERATOR_VERSION = 1

# Native code in the wheels; a device runs that of its own major version up to its minor one.
_WHEEL_CAPABILITIES = {
    "x86_64": ((7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (12, 0)),
    "aarch64": ((8, 9), (9, 0), (12, 0), (12, 1)),
}

# The error code that starts each message, and the places in the runtime's sources.
_NOISE = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : \w+ : |/\S+\.(?:cc|cpp|h|cu|cuh):\d+ .*?\)(?: const)? (?=[A-Z])"
)

# y = x * x for float32 (4,), ONNX opset 13.
_SQUARE = bytes.fromhex(
    "08083a3a0a0e0a01780a017812017922034d756c12067371756172655a0f0a01"
    "78120a0a08080112040a020804620f0a0179120a0a08080112040a0208044204"
    "0a00100d"
)


def runtime() -> Any:
    """The onnxruntime module.

    Raises:
        BackendUnavailableError: It is not installed, or cannot be imported.
    """
    try:
        module = importlib.import_module("onnxruntime")
        module.InferenceSession  # noqa: B018
    except ModuleNotFoundError as error:
        if error.name != "onnxruntime":
            raise _broken(error) from error
        raise BackendUnavailableError(
            "backend: onnxruntime is not installed",
            hint=f"{INSTALL_CPU}, or for NVIDIA GPUs pip install 'fastvid-sdk[gpu]'",
        ) from None
    except Exception as error:
        raise _broken(error) from error
    return module


def _broken(error: Exception) -> BackendUnavailableError:
    return BackendUnavailableError(
        f"backend: onnxruntime cannot be imported: {error}",
        hint=f"pip uninstall -y onnxruntime onnxruntime-gpu && {INSTALL_CPU}",
    )


@functools.cache
def cuda_problem(index: int) -> str:
    """Why CUDA device `index` cannot be used through onnxruntime; empty if a graph ran on it.

    Raises:
        BackendUnavailableError: onnxruntime is not installed.
    """
    ort = runtime()
    driver = cuda_driver()
    if driver.problem:
        return driver.problem
    if index >= len(driver.devices):
        return f"the driver lists {len(driver.devices)} devices, cuda:{index} is not one"
    if CUDA not in ort.get_available_providers():
        return f"the installed onnxruntime {ort.__version__} is built without CUDA"
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception):
        ort.preload_dlls()
    device = driver.devices[index]
    if problem := _missing_code(ort, device):
        return problem
    problem = _missing_library(ort) or _trial(ort, CUDA, {"device_id": index})
    return f"{device} failed a trial: {problem}" if problem else ""


def _provider_library(ort: Any) -> Path:
    return Path(ort.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"


def _missing_code(ort: Any, device: CudaDevice) -> str:
    """That the CUDA provider has no code for a device; empty where it has or does not say."""
    try:
        code = device_code(_provider_library(ort))
    except (OSError, ValueError):
        return ""
    if code.runs_on(device.capability) or not (code.native or code.ptx):
        return ""
    return f"the installed onnxruntime {ort.__version__} has code for {code}, not for {device}"


def _missing_library(ort: Any) -> str:
    """The first library that the CUDA provider needs and the loader does not find."""
    try:
        ctypes.CDLL(str(_provider_library(ort)))
    except OSError as error:
        # Anything but a missing file comes of loading it outside onnxruntime.
        if "cannot open shared object file" in str(error):
            return f"{error}; CUDA 13 and cuDNN 9 are needed"
    return ""


def _capability_note(device: CudaDevice) -> str:
    """That onnxruntime has no code for a device: the installed one, else that on PyPI."""
    ort = runtime()
    if _provider_library(ort).exists():
        problem = _missing_code(ort, device)
        return f" ({problem})" if problem else ""
    built = _WHEEL_CAPABILITIES.get(platform.machine(), ())
    major, minor = device.capability
    if any(known_major == major and known <= minor for known_major, known in built):
        return ""
    names = ", ".join(f"{known_major}.{known}" for known_major, known in built)
    return f" (onnxruntime-gpu from PyPI is built for compute capability {names or 'none'})"


def cpu_problem() -> str:
    """Why onnxruntime cannot run graphs on the CPU; empty if it did."""
    return _trial(runtime(), CPU, {})


def _trial(ort: Any, provider: str, provider_options: dict[str, Any]) -> str:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    if provider != CPU:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        session = ort.InferenceSession(
            _SQUARE, options, providers=[(provider, provider_options)], enable_fallback=0
        )
        if session.get_providers()[0] != provider:
            return f"onnxruntime chose {session.get_providers()[0]} instead"
        (result,) = session.run(None, {"x": np.arange(4, dtype=np.float32)})
    except Exception as error:
        return first_line(error)
    return "" if result.tolist() == [0.0, 1.0, 4.0, 9.0] else "it computed wrong numbers"


def first_line(error: BaseException) -> str:
    """What an exception of onnxruntime says, on one line of at most 300 characters."""
    text = _NOISE.sub("", " ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."


def found() -> str:
    """The driver's devices and the runtime's providers, for an error message."""
    devices = ", ".join(map(str, cuda_driver().devices)) or "no device"
    ort = runtime()
    return f"{devices}, and onnxruntime {ort.__version__} with {ort.get_available_providers()}"


@functools.cache
def operators_library() -> Path:
    """The file that registers fastvid's operators with onnxruntime.

    Raises:
        UnsupportedModelError: This build of fastvid has none.
    """
    problem = ""
    try:
        core = importlib.import_module("fastvid._core")
        path = Path(str(core.__file__))
        if hasattr(ctypes.CDLL(str(path)), "RegisterCustomOps"):
            return path
        problem = "it exports no RegisterCustomOps"
    except (ImportError, OSError) as error:
        problem = str(error)
    raise UnsupportedModelError(
        f"fastvid._core: must hold the operators for onnxruntime, {problem}",
        hint="install a wheel of fastvid-sdk, or build it for this machine",
    )
