"""TensorRT engines of an exported bundle: the backend builds them into this user's cache."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from fastvid.bundle import Bundle
from fastvid.devices import Device, cuda_driver, parse_device
from fastvid.errors import BackendUnavailableError, InputError

INSTALL = "pip install 'fastvid-sdk[tensorrt]'"


def require(device: str) -> Device:
    """The device that engines are built on and for.

    Raises:
        InputError: `device` is none of CUDA.
        BackendUnavailableError: There is no driver, no device or no TensorRT.
    """
    target = parse_device(device)
    if target.kind != "cuda":
        raise InputError(
            f"device: argument must be 'cuda' or 'cuda:N' for an engine, got {device!r}"
        )
    driver = cuda_driver()
    problem = driver.problem
    if not problem and target.index >= len(driver.devices):
        problem = f"the driver lists {len(driver.devices)} devices, {target} is not one"
    if problem:
        raise BackendUnavailableError(
            f"export: an engine is built on the GPU that runs it, and there is none: {problem}",
            hint="run this on the machine with the GPU; --format onnx-fp16 makes what engines are "
            "built from",
        )
    _backend()
    return target


def _backend() -> Any:
    for name in ("tensorrt", "fastvid.backends.tensorrt"):
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            raise BackendUnavailableError(
                f"export: engines need TensorRT, which cannot be imported: {error}", hint=INSTALL
            ) from None
    return module


def build(
    bundle: Bundle, device: str, sizes: tuple[str, ...], say: Callable[[str], None]
) -> list[str]:
    """Builds the engines of all graphs; takes minutes.

    Returns:
        The files in the cache.
    """
    backend = _backend()
    options = backend.EngineOptions(sizes=sizes or None)
    told = ""

    def tell(progress: Any) -> None:
        # TensorRT makes thousands of steps; a line for each phase is enough.
        nonlocal told
        phase = f"{progress.graph} {progress.size} {progress.phase}"
        if phase != told:
            told = phase
            say(progress.to_text())

    paths = backend.build(bundle, parse_device(device), options, progress=tell)
    return [str(path) for path in paths]
