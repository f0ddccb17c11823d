"""fastvid: low-latency frame interpolation, super-resolution and video generation, torch-free.

Names are imported when they are first used, so that the import itself costs next to nothing and
the command line can answer without loading NumPy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fastvid._version import __version__

if TYPE_CHECKING:
    from fastvid import bench, errors, ops, schedulers
    from fastvid.errors import FastvidError
    from fastvid.generator import Generator
    from fastvid.interpolator import Interpolator
    from fastvid.pipeline import Pipeline
    from fastvid.upscaler import Upscaler
    from fastvid.video import Video

__all__ = [
    "FastvidError",
    "Generator",
    "Interpolator",
    "Pipeline",
    "Upscaler",
    "Video",
    "__version__",
    "bench",
    "errors",
    "ops",
    "schedulers",
]

_HOMES = {
    "FastvidError": "fastvid.errors",
    "Generator": "fastvid.generator",
    "Interpolator": "fastvid.interpolator",
    "Pipeline": "fastvid.pipeline",
    "Upscaler": "fastvid.upscaler",
    "Video": "fastvid.video",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    elif name in ("bench", "errors", "ops", "schedulers"):
        value = importlib.import_module(f"fastvid.{name}")
    else:
        raise AttributeError(f"module 'fastvid' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
