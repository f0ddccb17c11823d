"""Weights in files that others made: read without running code, and matched name by name.

`.safetensors` holds no code. `.pth`, `.pt` and `.ckpt` are pickles: PyTorch's `weights_only`
loader reads tensors and plain containers from them and refuses everything else.
"""

from __future__ import annotations

import io
import json
import pickle
import pickletools
import re
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastvid_export.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor, nn

TORCH = (".pth", ".pt", ".ckpt", ".pkl")
SAFETENSORS = ".safetensors"
_HEADER_LIMIT = 100 << 20
_SCANNED = 64 << 20
"""Bytes of a pickle that are looked through for names."""
_WRAPPERS = ("params_ema", "params-ema", "params", "state_dict", "model_state_dict", "model", "net")
"""Keys that weights lie below, the first one that is there; averaged weights before raw ones."""
_PREFIXES = ("module.", "netG.")
_LISTED = 400
"""Most names in one message."""


# What is in a file, without reading it


def names(path: Path) -> frozenset[str]:
    """The words in a file of weights: its tensors' names among others; nothing is unpickled.

    Returns:
        Empty where the file is none, or cannot be read.
    """
    try:
        if path.suffix.lower() == SAFETENSORS:
            return frozenset(_safetensors_header(path))
        return frozenset(_words(path))
    except (OSError, ValueError, zipfile.BadZipFile, struct.error, RecursionError):
        return frozenset()


def _safetensors_header(path: Path) -> Mapping[str, Any]:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > _HEADER_LIMIT:
            raise ValueError("header")
        found = json.loads(file.read(length))
    if not isinstance(found, dict):
        raise ValueError("header")
    return found


def _words(path: Path) -> set[str]:
    """The strings in a pickle, up to where it cannot be followed."""
    found: set[str] = set()
    for data in _pickles(path):
        stream = io.BytesIO(data)
        # Older files hold several pickles in a row.
        while True:
            try:
                for _, value, _ in pickletools.genops(stream):
                    if isinstance(value, str):
                        found.add(value)
            except Exception:  # any bytes may be there
                break
    return found


def _pickles(path: Path) -> list[bytes]:
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            return [file.read(_SCANNED)]
    with zipfile.ZipFile(path) as archive:
        inner = [name for name in archive.namelist() if name.endswith("data.pkl")]
        result = []
        for name in inner[:1]:
            with archive.open(name) as file:
                result.append(file.read(_SCANNED))
        return result


def plain(found: frozenset[str]) -> frozenset[str]:
    """Names without what a wrapper put before all of them."""
    return found | {name.removeprefix(prefix) for prefix in _PREFIXES for name in found}


# Reading


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, as float32 where they are floats, wrappers taken off.

    Raises:
        CheckpointError: The file is missing, damaged, holds code, or holds no weights.
    """
    if not path.is_file():
        raise CheckpointError(f"checkpoint: path must be a file, got {str(path)!r}")
    suffix = path.suffix.lower()
    if suffix == SAFETENSORS:
        values = _read_safetensors(path)
    elif suffix in TORCH:
        values = _read_torch(path)
    else:
        raise CheckpointError(
            f"checkpoint: file must end in {', '.join((*TORCH, SAFETENSORS))}, got {path.name!r}"
        )
    return _tensors(values, path)


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"checkpoint: {path} cannot be read: {error}") from None


def _read_torch(path: Path) -> Any:
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        what = re.search(
            r"GLOBAL ([\w.]+)|Unsupported (?:global|operand)[^:]*:? *([\w.]+)", str(error)
        )
        named = next((group for group in what.groups() if group), "") if what else ""
        got = f", got {named}" if named else ""
        raise CheckpointError(
            f"checkpoint: {path} must hold tensors and plain values only{got}; code in it is not "
            "run",
            hint="save its state_dict() alone, best as .safetensors, where it was trained",
        ) from None
    except Exception as error:  # torch raises many types on a damaged file
        text = " ".join(str(error).split())
        if "TorchScript" in text:
            raise CheckpointError(
                f"checkpoint: {path} must hold weights, got a TorchScript program",
                hint="save its state_dict() where it was trained",
            ) from None
        raise CheckpointError(f"checkpoint: {path} cannot be read: {text[:300]}") from None


def _tensors(values: Any, path: Path) -> dict[str, Tensor]:
    from torch import Tensor

    for name in _WRAPPERS:
        if isinstance(values, Mapping) and isinstance(values.get(name), Mapping):
            values = values[name]
            break
    if not isinstance(values, Mapping):
        raise CheckpointError(
            f"checkpoint: {path} must hold tensors by name, got {type(values).__name__}"
        )
    found = {str(key): value for key, value in values.items() if isinstance(value, Tensor)}
    others = sorted(str(key) for key in values.keys() - found.keys())
    if not found or others:
        got = f"{len(others)} other values: {', '.join(others[:20])}" if others else "no tensor"
        raise CheckpointError(f"checkpoint: {path} must hold tensors by name alone, got {got}")
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in found):
            found = {name.removeprefix(prefix): value for name, value in found.items()}
    return {
        name: value.float() if value.is_floating_point() else value for name, value in found.items()
    }


# Which network it is


@dataclass(frozen=True)
class Shapes:
    """The shapes of a state dict, from which a network's options are read."""

    sizes: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> Shapes:
        """Those of `state`."""
        return cls({name: tuple(value.shape) for name, value in state.items()})

    def size(self, name: str, axis: int) -> int:
        """The size of an axis of a weight.

        Raises:
            CheckpointError: The weight is not there, or has fewer axes.
        """
        shape = self.sizes.get(name)
        if shape is None or len(shape) <= axis or not 0 < shape[axis] <= 1 << 16:
            got = "nothing" if shape is None else f"shape {list(shape)}"
            raise CheckpointError(f"checkpoint: weight {name!r} must have axis {axis}, got {got}")
        return shape[axis]

    def scale(self, name: str, channels: int) -> int:
        """The factor of a pixel shuffle that a convolution leads to.

        Raises:
            CheckpointError: Its outputs are no square times `channels`.
        """
        outputs = self.size(name, 0)
        for scale in range(1, 17):
            if channels * scale**2 == outputs:
                return scale
        raise CheckpointError(
            f"checkpoint: weight {name!r} must have {channels} * scale² outputs, got {outputs}"
        )


def indices(shapes: Shapes, pattern: str) -> list[int]:
    """The numbers in names that match a pattern with one group, in order.

    Raises:
        CheckpointError: They are not consecutive.
    """
    found = sorted(int(m[1]) for m in (re.fullmatch(pattern, name) for name in shapes.sizes) if m)
    if found and found != list(range(found[0], found[0] + len(found))):
        raise CheckpointError(f"checkpoint: {pattern} must be numbered without gaps, got {found}")
    return found


def fill(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Gives a module its weights; each must be there, in its shape, and none may be left over.

    Raises:
        CheckpointError: Lists every name that is missing, unexpected or of another shape.
    """
    wanted = module.state_dict()
    problems = [
        ("missing", sorted(wanted.keys() - state.keys())),
        ("unexpected", sorted(state.keys() - wanted.keys())),
        (
            "of another shape",
            [
                f"{name} {list(state[name].shape)} instead of {list(wanted[name].shape)}"
                for name in sorted(wanted.keys() & state.keys())
                if state[name].shape != wanted[name].shape
            ],
        ),
    ]
    if any(listed for _, listed in problems):
        text = "; ".join(f"{kind}: {_listed(found)}" for kind, found in problems if found)
        raise CheckpointError(f"checkpoint: weights must be those of {what}, {text}")
    module.load_state_dict(dict(state))


def _listed(found: list[str]) -> str:
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return ", ".join(found[:_LISTED]) + more
