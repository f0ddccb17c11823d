"""Training and export of fastvid's models: everything that needs torch or onnx.

The runtime never imports this package. `python -m fastvid_export --help` lists what trains models;
`fastvid export` and `export` turn them into what runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastvid_export.exporting import export

__all__ = ["export"]


def __getattr__(name: str) -> Any:
    # Training does not need onnxruntime, nor the command's help any of it.
    if name == "export":
        from fastvid_export.exporting import export

        return export
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
