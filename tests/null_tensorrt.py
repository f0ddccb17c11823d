"""TensorRT's real Python bindings without its libraries: enough to register plugins, not to build.

The wheel `tensorrt-cu13-bindings` holds the compiled bindings and the Python of `tensorrt.plugin`.
They load once three libraries exist that have a few C functions; those made here return null, so
whatever would build an engine is out of reach. Symbolic sizes, which only a builder makes, are
replaced by ones that hold a number.
"""

from __future__ import annotations

import ctypes
import importlib
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

FUNCTIONS = (
    "createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL",
    "createNvOnnxParser_INTERNAL", "createNvOnnxParserRefitter_INTERNAL",
    "getBuilderPluginRegistry", "getPluginRegistry", "getNvOnnxParserVersion",
    "initLibNvInferPlugins",
)  # fmt: skip
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")


def load(
    folder: Path, *, major: str | None = None, plugins: bool = True
) -> tuple[ModuleType, ModuleType | None]:
    """`tensorrt` and `tensorrt.plugin`, from the installed bindings.

    Args:
        folder: Where the libraries are made.
        major: Version in the libraries' names; None is that of the installed bindings.
        plugins: Whether to load `tensorrt.plugin`, which 10.3 does not have.

    Raises:
        ImportError: The bindings are not installed, or there is no C compiler.
    """
    from importlib.metadata import PackageNotFoundError, version

    try:
        major = major or version("tensorrt-cu13-bindings").split(".")[0]
    except PackageNotFoundError as error:
        raise ImportError("tensorrt-cu13-bindings is not installed") from error
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise ImportError("there is no C compiler")
    source = folder / "functions.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in FUNCTIONS))
    for name in LIBRARIES:
        soname = f"lib{name}.so.{major}"
        command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{soname}", "-o", soname, source.name]
        subprocess.run(command, cwd=folder, check=True)
        # Loaded once under its soname, the bindings find it without a search path.
        ctypes.CDLL(str(folder / soname), mode=ctypes.RTLD_GLOBAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in TensorRT's docstrings
        trt = importlib.import_module("tensorrt_bindings")
        sys.modules.setdefault("tensorrt", trt)
        return trt, importlib.import_module("tensorrt.plugin") if plugins else None


class Registry:
    """Keeps the creators that `tensorrt.plugin.register` makes."""

    def __init__(self) -> None:
        self.creators: dict[tuple[str, str], Any] = {}

    def register_creator(self, creator: Any, namespace: str) -> bool:
        self.creators[(namespace, creator.name)] = creator
        return True

    def get_creator(self, name: str, version: str, namespace: str) -> Any:
        return self.creators[(namespace, name)]


def evaluator(trt: Any) -> Any:
    """An expression builder whose expressions hold numbers."""

    class Number(trt.IDimensionExpr):  # type: ignore[misc]
        value: int

        def get_constant_value(self) -> int:
            return self.value

        def is_constant(self) -> bool:
            return True

    def number(value: int) -> Any:
        # The bindings' class has no constructor; its methods are replaced above.
        made = trt.IDimensionExpr.__new__(Number)
        made.value = value
        return made

    operations = trt.DimensionOperation
    functions = {
        operations.SUM: lambda a, b: a + b,
        operations.SUB: lambda a, b: a - b,
        operations.PROD: lambda a, b: a * b,
        operations.MAX: max,
        operations.MIN: min,
        operations.FLOOR_DIV: lambda a, b: a // b,
        operations.CEIL_DIV: lambda a, b: -(-a // b),
    }

    class Builder:
        def constant(self, value: int) -> Any:
            return number(value)

        def operation(self, operation: Any, first: Any, second: Any) -> Any:
            return number(functions[operation](first.value, second.value))

    return Builder()
