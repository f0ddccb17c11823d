"""Finding out whether OpenVINO is there, and what this machine's processor computes with it."""

from __future__ import annotations

import functools
import importlib
import re
from typing import Any

from fastvid.errors import BackendUnavailableError

INSTALL = "pip install 'fastvid-sdk[openvino]'"
OLDEST = (2025, 0)
CPU = "CPU"

TYPES = {"float32": "f32", "bfloat16": "bf16"}
"""OpenVINO's names of what it may compute products of float32 graphs in."""

# Places in OpenVINO's sources, and what it says about every exception.
_NOISE = re.compile(
    r"Exception from \S+:|Check '.*?' failed at \S+:|\[ [A-Z_]+ \]|\S+\.cpp:\d+:?|Caught exception:"
)
_SPACE = re.compile(r"\s+")


def runtime() -> Any:
    """The openvino module.

    Raises:
        BackendUnavailableError: It is not installed, too old, or cannot be imported.
    """
    try:
        module = importlib.import_module("openvino")
        module.Core  # noqa: B018
    except ModuleNotFoundError as error:
        if error.name != "openvino":
            raise _broken(error) from error
        raise BackendUnavailableError("backend: openvino is not installed", hint=INSTALL) from None
    except Exception as error:
        raise _broken(error) from error
    if release(module) < OLDEST or not hasattr(module, "Op"):
        raise BackendUnavailableError(
            f"backend: openvino must be {'.'.join(map(str, OLDEST))} or newer, got "
            f"{version(module)}",
            hint=f"pip install --upgrade openvino, or {INSTALL}",
        )
    return module


def _broken(error: Exception) -> BackendUnavailableError:
    return BackendUnavailableError(
        f"backend: openvino cannot be imported: {first_line(error)}",
        hint=f"pip uninstall -y openvino && {INSTALL}",
    )


def version(module: Any) -> str:
    """The version without the build: `2026.4.1`."""
    return str(module.__version__).partition("-")[0]


def release(module: Any) -> tuple[int, ...]:
    """Year and number of the version."""
    parts = version(module).split(".")[:2]
    return tuple(int(part) if part.isdigit() else 0 for part in parts)


@functools.cache
def precisions() -> tuple[str, ...]:
    """What products of a float32 graph can be computed in on this processor, float32 first.

    Raises:
        BackendUnavailableError: OpenVINO cannot be used.
    """
    module = runtime()
    try:
        able = module.Core().get_property(CPU, "OPTIMIZATION_CAPABILITIES")
    except Exception as error:  # its exceptions are plain RuntimeErrors
        raise _broken(error) from error
    return ("float32", "bfloat16") if "BF16" in able else ("float32",)


def properties(precision: str, threads: int) -> dict[str, Any]:
    """How a graph is compiled: nothing that changes results unless it was asked for.

    Left alone, OpenVINO computes in bfloat16 and rounds what products with int8 weights read
    wherever the processor is faster that way. No folder for compiled models is ever named: they
    are native code.
    """
    return {
        "INFERENCE_PRECISION_HINT": TYPES[precision],
        "EXECUTION_MODE_HINT": "ACCURACY" if precision == "float32" else "PERFORMANCE",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        # The cores are shared with decoding and encoding.
        "ENABLE_CPU_PINNING": False,
    }


def first_line(error: BaseException) -> str:
    """What an exception of OpenVINO says, on one line of at most 300 characters."""
    text = _SPACE.sub(" ", _NOISE.sub(" ", str(error))).strip() or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."
