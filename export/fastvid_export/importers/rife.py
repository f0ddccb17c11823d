"""IFNet 4.x of Practical-RIFE, from the files that it and vs-rife publish (`flownet.pkl`)."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fastvid.errors import InputError
from fastvid_export import state_dicts
from fastvid_export.errors import CheckpointError
from fastvid_export.importers import Architecture, ImportOptions, Say

if TYPE_CHECKING:
    from torch import Tensor

    from fastvid.bundle import Bundle
    from fastvid_export.models.ifnet import IFNet

_READS = "`.pkl`, `.pth`, `.pt`, `.safetensors`"
_SOURCE = (
    "[arXiv:2011.06294](https://arxiv.org/abs/2011.06294), "
    "[Practical-RIFE](https://github.com/hzwer/Practical-RIFE) (MIT)"
)
ARCHITECTURES = (
    Architecture(
        "IFNet 4.2 to 4.6",
        "interpolator",
        _SOURCE,
        _READS,
        "images and flow alone; sizes are multiples of 32, or padded",
    ),
    Architecture(
        "IFNet 4.7 to 4.24",
        "interpolator",
        _SOURCE,
        _READS,
        "with an encoder, the lite ones too; multiples of 32, or padded",
    ),
    Architecture(
        "IFNet 4.25 and 4.26",
        "interpolator",
        _SOURCE,
        _READS,
        "five blocks, lite and heavy too; multiples of 64 (lite 128), or padded",
    ),
)
FLOW_SCALES = (1.0, 0.5, 0.25)

_OURS = re.compile(r"^flownet", re.IGNORECASE)
_NAMED = re.compile(r"^(rife|ifnet)", re.IGNORECASE)
_MARKS = ("block0.conv0.0.0.weight", "block0.lastconv")
_SUFFIXES = (*state_dicts.TORCH, state_dicts.SAFETENSORS)
_TRAINING = ("teacher", "caltime", "block_tea", "contextnet", "unet")
"""Networks that only training needs; those who run the files leave them out too."""


def matches(path: Path) -> bool:
    """Whether it is a file, or the folder around one, that holds such names or is called so."""
    file = _file_of(path)
    if not file.is_file() or file.suffix.lower() not in (
        *state_dicts.TORCH,
        state_dicts.SAFETENSORS,
    ):
        return False
    names = state_dicts.names(file)
    if all(any(mark in name for name in names) for mark in _MARKS):
        return True
    # What is wrong with a file that is called so is told where it is read.
    return _OURS.match(file.name) is not None or (not names and _NAMED.match(file.name) is not None)


def build(path: Path, folder: Path, options: ImportOptions, say: Say) -> Bundle:
    """Writes the bundle of a checkpoint, see `Importer.build`."""
    from fastvid_export import interpolator_bundles

    flow_scale = _checked(options)
    file = _file_of(path)
    state = _weights(file, say)
    net, version = _network(state, file, flow_scale)
    say(f"IFNet {version}, {sum(p.numel() for p in net.parameters())} parameters")
    origin = interpolator_bundles.Origin(
        f"IFNet {version}", file, options.flags.licence or "MIT", flow_scale
    )
    return interpolator_bundles.write(net, origin, options.name, folder, say)


def _file_of(path: Path) -> Path:
    """Practical-RIFE publishes folders (`train_log`) with code beside the weights."""
    return path / "flownet.pkl" if path.is_dir() else path


def _checked(options: ImportOptions) -> float:
    """The part of the frames' size at which motion is looked for.

    Raises:
        InputError: A flag has no use here.
    """
    flags = options.flags
    if flags.task not in (None, "interpolator"):
        raise InputError(f"task: argument must be interpolator for an IFNet, got {flags.task!r}")
    flags.refuse_but("RIFE checkpoint", "task", "name", "licence", "flow_scale")
    flow_scale = 1.0 if flags.flow_scale is None else flags.flow_scale
    if flow_scale not in FLOW_SCALES:
        known = ", ".join(f"{scale:g}" for scale in FLOW_SCALES)
        raise InputError(f"flow-scale: argument must be one of {known}, got {flow_scale:g}")
    return flow_scale


def _weights(path: Path, say: Say) -> dict[str, Tensor]:
    """The network's own weights, by the names of `models.ifnet`.

    Raises:
        CheckpointError: The file is damaged, holds code or no weights.
    """
    state: dict[str, Tensor] = {}
    left_out = set()
    for name, value in state_dicts.read(path).items():
        plain = name
        while plain.startswith(("module.", "flownet.")):
            plain = plain.split(".", 1)[1]
        root = plain.split(".", 1)[0]
        if root in _TRAINING:
            left_out.add(root)
            continue
        if plain in state:
            raise CheckpointError(f"checkpoint: {path.name} must hold {plain!r} once")
        state[plain] = value
    if left_out:
        say(f"left out, for training only: {', '.join(sorted(left_out))}")
    broken = [name for name, value in state.items() if not value.isfinite().all()]
    if broken:
        raise CheckpointError(
            f"checkpoint: weights must be finite, got others in {', '.join(broken)}"
        )
    return state


def _network(state: dict[str, Tensor], path: Path, flow_scale: float) -> tuple[IFNet, str]:
    """The network, and the versions it is of.

    Raises:
        CheckpointError: It is none that is known; lists what is missing, unexpected or of another
            shape.
    """
    from fastvid_export.models.ifnet import IFNet
    from fastvid_export.models.ifnet_versions import VERSIONS, nearest

    if "block0.conv0.0.1.weight" in state:
        raise CheckpointError(
            f"checkpoint: {path.name} must be an IFNet {VERSIONS[0].names[0]} or newer, got one "
            "with PReLU, which is 4.1 or older",
            hint="4.0 and 4.1 change their scales with what they find, which a graph cannot",
        )
    version = nearest({name: tuple(value.shape) for name, value in state.items()})
    scales = tuple(round(scale / flow_scale) for scale in version.options.scales)
    net = IFNet(replace(version.options, scales=scales)).eval()
    state_dicts.fill(net, state, f"IFNet {version.name}, which is the nearest that is known")
    return net, version.name
