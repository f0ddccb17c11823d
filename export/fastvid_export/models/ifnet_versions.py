"""Which IFNet a checkpoint holds: every published one from 4.2 on, told apart by its weights."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from fastvid_export.models.ifnet import Encoder, IFNet, IFNetOptions

_FOUR, _FIVE = (8, 4, 2, 1), (16, 8, 4, 2, 1)
_BASE, _LITE = (192, 128, 96, 64), (128, 96, 64, 48)
_LAST = (*_BASE, 32)
_WIDE, _NARROW = Encoder("named", 32, 8), Encoder("named", 16, 4)

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Version:
    """Versions whose networks differ in their weights alone."""

    names: tuple[str, ...]
    options: IFNetOptions

    @property
    def name(self) -> str:
        """All of them in a phrase, for example `4.25 or 4.26`."""
        *others, last = self.names
        return f"{', '.join(others)} or {last}" if others else last

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every weight, by its name."""
        return dict(_shapes(self.options))


@functools.cache
def _shapes(options: IFNetOptions) -> Mapping[str, tuple[int, ...]]:
    with torch.device("meta"):
        state = IFNet(options).state_dict()
    return {name: tuple(value.shape) for name, value in state.items()}


VERSIONS = (
    Version(
        ("4.2", "4.3", "4.4"),
        IFNetOptions(_BASE, _FOUR, outputs=5, shuffle=False, residual=False),
    ),
    Version(("4.5",), IFNetOptions(_BASE, _FOUR, outputs=5)),
    Version(("4.6",), IFNetOptions(_BASE, _FOUR)),
    Version(("4.7", "4.8", "4.9"), IFNetOptions(_BASE, _FOUR, encoder=Encoder("pair", 16, 4))),
    Version(
        ("4.10", "4.11", "4.12"), IFNetOptions(_BASE, _FOUR, encoder=Encoder("sequence", 32, 8))
    ),
    Version(
        ("4.12-lite", "4.13-lite"),
        IFNetOptions(_LITE, _FOUR, encoder=Encoder("sequence", 32, 4)),
    ),
    Version(
        ("4.13", "4.14", "4.15", "4.17", "4.18", "4.19", "4.24"),
        IFNetOptions(_BASE, _FOUR, encoder=_WIDE),
    ),
    Version(("4.14-lite",), IFNetOptions(_BASE, _FOUR, groups=2, encoder=_WIDE)),
    Version(("4.15-lite", "4.16-lite", "4.17-lite"), IFNetOptions(_LITE, _FOUR, encoder=_NARROW)),
    Version(("4.20",), IFNetOptions((384, 192, 96, 48), _FOUR, encoder=_WIDE)),
    Version(
        ("4.21", "4.22", "4.23"),
        IFNetOptions((256, 192, 96, 48), _FOUR, outputs=13, encoder=_WIDE),
    ),
    Version(("4.22-lite",), IFNetOptions((192, 128, 64, 32), _FOUR, outputs=13, encoder=_NARROW)),
    Version(("4.25", "4.26"), IFNetOptions(_LAST, _FIVE, outputs=13, encoder=_NARROW)),
    Version(
        ("4.25-lite",),
        IFNetOptions((*_BASE, 24), (32, 16, 8, 4, 1), outputs=13, encoder=_NARROW),
    ),
    Version(
        ("4.25-heavy",),
        IFNetOptions((384, 256, 192, 128, 64), _FIVE, outputs=13, encoder=_NARROW),
    ),
    Version(
        ("4.26-heavy",),
        IFNetOptions(_LAST, _FIVE, outputs=13, encoder=Encoder("named", 16, 16)),
    ),
)


def nearest(found: Shapes) -> Version:
    """The version with which most weights agree; the first where several do."""
    return max(VERSIONS, key=lambda version: _agreement(version.shapes(), found))


def _agreement(wanted: Shapes, found: Shapes) -> int:
    """How many names and shapes agree, less those that only one side has."""
    same = sum(wanted.get(name) == shape for name, shape in found.items())
    return 2 * same - len(wanted) - len(found)
