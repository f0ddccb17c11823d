"""The ops as TensorRT plugins, compiled ahead of time.

`register()` tells TensorRT of every plugin; its ONNX parser then takes the nodes that
`fastvid_export.tensorrt.prepare` makes. A kernel is PTX that ships with builds of fastvid that have
CUDA kernels; TensorRT compiles it into the engine, which needs neither fastvid nor Python to run.

What is checked without TensorRT's builder: that every plugin registers with the Python bindings,
what shapes, dtypes, grids and arguments it asks for, and that its kernel takes just those. Building
and running an engine needs a GPU and is not part of the tests.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import GenericAlias
from typing import Any

from fastvid.backends.tensorrt_plugins._describe import NAMESPACE, Plugin
from fastvid.backends.tensorrt_plugins._ptx import with_constants, with_entry
from fastvid.backends.tensorrt_plugins._table import PLUGINS
from fastvid.errors import BackendUnavailableError, UnsupportedModelError

__all__ = ["NAMESPACE", "PLUGINS", "kernels_folder", "register"]

_OLDEST = (10, 16)
"""Before it, TensorRT's Python garbles the text of a node's attributes."""
_HINT = "pip install 'fastvid-sdk[tensorrt]'"


def kernels_folder() -> Path:
    """Where the plugins' PTX lies, for compute capability 7.5 and newer."""
    return Path(str(importlib.import_module("fastvid._core").__file__)).parent / "ptx"


@functools.cache
def register() -> tuple[str, ...]:
    """Registers every plugin with TensorRT, once.

    Returns:
        Their names; all are in the namespace `fastvid`.

    Raises:
        BackendUnavailableError: TensorRT is not installed or older than 10.16, or this build of
            fastvid has no PTX.
    """
    trt, api = _tensorrt()
    if not kernels_folder().is_dir():
        raise BackendUnavailableError(
            f"tensorrt: this build of fastvid must hold the plugins' kernels, none are in "
            f"{kernels_folder()}",
            hint="install a wheel with CUDA kernels, or build with FASTVID_CUDA=ON",
        )
    for plugin in PLUGINS.values():
        _register(plugin, trt, api, kernels_folder())
    return tuple(PLUGINS)


def _tensorrt() -> tuple[Any, Any]:
    try:
        trt = importlib.import_module("tensorrt")
        api = importlib.import_module("tensorrt.plugin")
    except Exception as error:  # its bindings raise many types where a library is missing
        raise BackendUnavailableError(
            f"tensorrt: the package must be importable, got {type(error).__name__}: {error}",
            hint=_HINT,
        ) from error
    if tuple(int(part) for part in trt.__version__.split(".")[:2]) < _OLDEST:
        raise BackendUnavailableError(
            f"tensorrt: must be {_OLDEST[0]}.{_OLDEST[1]} or newer, got {trt.__version__}",
            hint=_HINT,
        )
    return trt, api


def _register(plugin: Plugin, trt: Any, api: Any, folder: Path) -> None:
    names = [*plugin.inputs, *plugin.attributes]

    def describe(*given: Any, **named: Any) -> Any:
        inputs, attributes = _split(plugin, {**dict(zip(names, given, strict=False)), **named})
        results = plugin.results(api, trt, inputs, attributes)
        return results[0] if len(results) == 1 else tuple(results)

    def compiled(*given: Any) -> Any:
        *arguments, _outputs, _tactic = given
        inputs, attributes = _split(plugin, dict(zip(names, arguments, strict=True)))
        kernel = plugin.kernel(api, inputs, attributes)
        entry = f"{kernel.name}_{_suffix(plugin, trt, inputs)}"
        launch = api.KernelLaunchParams(grid_x=kernel.blocks, block_x=kernel.threads)
        extras = api.SymIntExprs(len(kernel.arguments))
        for i, argument in enumerate(kernel.arguments):
            extras[i] = api.SymInt32(argument)
        ptx = (folder / f"{plugin.kernels}.ptx").read_text()
        return entry, with_constants(with_entry(ptx, entry), kernel.constants), launch, extras

    plugin_id = f"{NAMESPACE}::{plugin.name}"
    tensors = dict.fromkeys(plugin.inputs, api.TensorDesc)
    outputs = GenericAlias(tuple, (api.TensorDesc,) * plugin.outputs)
    described = api.TensorDesc if plugin.outputs == 1 else outputs
    # As text: TensorRT 10's Python cannot read numbers with NumPy 2.4 and newer.
    attributes = dict.fromkeys(plugin.attributes, str)
    _annotate(describe, {**tensors, **attributes}, described)
    _annotate(
        compiled,
        {**tensors, **attributes, "outputs": outputs, "tactic": int},
        tuple[str, str, api.KernelLaunchParams, api.SymIntExprs],
    )
    api.register(plugin_id)(describe)
    api.aot_impl(plugin_id)(compiled)


def _split(plugin: Plugin, named: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    inputs = [named[name] for name in plugin.inputs]
    return inputs, {n: type(value)(named[n]) for n, value in plugin.attributes.items()}


def _suffix(plugin: Plugin, trt: Any, inputs: list[Any]) -> str:
    """The part of a kernel's name that stands for the dtype of the first input."""
    names = {trt.DataType.FLOAT: "f32", trt.DataType.HALF: "f16", trt.DataType.BF16: "bf16"}
    suffix = names.get(inputs[0].dtype)
    if suffix not in plugin.dtypes:
        raise UnsupportedModelError(
            f"tensorrt: {plugin.inputs[0]} of {plugin.name} must be one of "
            f"{', '.join(plugin.dtypes)}, got {inputs[0].dtype}"
        )
    return suffix


def _annotate(function: Callable[..., Any], arguments: Mapping[str, Any], returns: Any) -> None:
    """Gives a function the signature that TensorRT reads a plugin's inputs and attributes from."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(n, kind, annotation=a) for n, a in arguments.items()]
    signature = inspect.Signature(parameters, return_annotation=returns)
    function.__signature__ = signature  # type: ignore[attr-defined]
