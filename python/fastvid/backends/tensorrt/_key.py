"""What an engine depends on: two engines with one name are the same engine."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from typing import Any

from fastvid._specs import GraphSpec
from fastvid._version import __version__
from fastvid.backends.tensorrt._options import EngineOptions
from fastvid.backends.tensorrt._shapes import Ranges
from fastvid.backends.tensorrt_plugins import PLUGINS, kernels_folder
from fastvid.bundle import Bundle
from fastvid.devices import CudaDevice

BUILDER_VERSION = 1
"""Changes when the same graph and options would be built differently."""


def base_key(
    bundle: Bundle,
    graph: GraphSpec,
    plugins: Iterable[str],
    options: EngineOptions,
    device: CudaDevice,
    tensorrt: str,
    cuda: str,
) -> dict[str, Any]:
    """Everything but the sizes.

    Args:
        bundle: The model.
        graph: The graph.
        plugins: Names of the plugins in it; their kernels become part of the engine.
        options: How it is built.
        device: What it is built for.
        tensorrt: Full version.
        cuda: Version of CUDA that the driver supports.
    """
    files = (graph.file, *sorted(graph.external_data))
    return {
        "model": bundle.name,
        "graph": graph.name,
        "files": {file: bundle.files[file].sha256 for file in files},
        "inputs": [[spec.name, spec.dtype, list(spec.shape)] for spec in graph.inputs],
        "kernels": _kernels(plugins),
        "precision": bundle.precision,
        "options": options.builder(device.memory),
        "tensorrt": tensorrt,
        "cuda": cuda,
        # With that option other models of the same capability may take the engine too.
        "gpu": device.name if options.compatibility == "none" else "",
        "capability": list(device.capability),
        "system": platform.system(),
        "machine": platform.machine(),
        "builder": [BUILDER_VERSION, __version__],
    }


def _kernels(plugins: Iterable[str]) -> dict[str, str]:
    """Hashes of the PTX that goes into the engine."""
    files = sorted({PLUGINS[name].kernels for name in plugins})
    found = {}
    for file in files:
        path = kernels_folder() / f"{file}.ptx"
        found[file] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    return found


def base_name(key: Mapping[str, Any]) -> str:
    """The part of an engine's name that all sizes of a graph share."""
    return _digest(key)[:32]


def engine_name(key: Mapping[str, Any], sizes: Ranges) -> str:
    """The name of an engine in the cache.

    Args:
        key: Of `base_key`.
        sizes: The sizes it was asked for.
    """
    return f"{base_name(key)}-{_digest({n: list(r) for n, r in sizes.items()})[:32]}"


def timing_name(device: CudaDevice, tensorrt: str) -> str:
    """The name of the measurements that builds on one GPU model share."""
    facts = {"tensorrt": tensorrt, "gpu": device.name, "capability": list(device.capability)}
    return f"timing-{_digest(facts)[:32]}"


def _digest(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
