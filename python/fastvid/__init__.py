"""fastvid: low-latency frame interpolation, super-resolution and video generation, torch-free."""

from __future__ import annotations

from fastvid._version import __version__

__all__ = ["__version__"]
