"""Finding out whether onnxruntime is there and what it can really use.

onnxruntime lists providers it was built with, whether or not their libraries and devices exist,
and falls back to the CPU without saying so. So nothing it lists is believed until it has run.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
from pathlib import Path
from typing import Any

import numpy as np

from fastvid.devices import cuda_driver
from fastvid.errors import BackendUnavailableError, UnsupportedModelError

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
INSTALL_CPU = "pip install 'fastvid-sdk[cpu]'"
INSTALL_CUDA = "pip uninstall -y onnxruntime && pip install 'fastvid-sdk[gpu]'"

OPERATOR_DOMAIN = "fastvid"
OPERATOR_VERSION = 1

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
    preloaded = io.StringIO()
    with contextlib.redirect_stdout(preloaded), contextlib.suppress(Exception):
        ort.preload_dlls()
    problem = _trial(ort, CUDA, {"device_id": index})
    if not problem:
        return ""
    notes = " ".join(preloaded.getvalue().split())
    return f"{driver.devices[index]} failed a trial: {problem}" + (f" [{notes}]" if notes else "")


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
            return "its libraries cannot be loaded (CUDA 13 and cuDNN 9 are needed)"
        (result,) = session.run(None, {"x": np.arange(4, dtype=np.float32)})
    except Exception as error:
        return first_line(error)
    return "" if result.tolist() == [0.0, 1.0, 4.0, 9.0] else "it computed wrong numbers"


def first_line(error: BaseException) -> str:
    """What an exception of onnxruntime says, on one line of at most 300 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."


def found() -> str:
    """The driver, its devices and the runtime's providers, for an error message."""
    driver = cuda_driver()
    devices = ", ".join(map(str, driver.devices)) or driver.problem
    ort = runtime()
    return f"found {devices}; onnxruntime {ort.__version__} with {ort.get_available_providers()}"


@functools.cache
def operators_library() -> Path:
    """The file that registers fastvid's operators with onnxruntime.

    Raises:
        UnsupportedModelError: This build of fastvid has none.
    """
    import ctypes

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
