"""Training state on disk: one file of tensors and plain values, written in one move, never code."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from fastvid.errors import InputError
from fastvid_export.errors import CheckpointError

_FORMAT = 1


@dataclass
class Checkpoint:
    """Everything that resuming, fine-tuning or exporting needs.

    Batches and random numbers are functions of (seed, step), so no generator state is stored.
    """

    task: str
    """Registered name of the model family."""
    options: dict[str, Any]
    """The family's options, enough to build the network again."""
    seed: int
    step: int
    """Optimiser steps done."""
    model: dict[str, torch.Tensor]
    """Raw weights, the ones that training goes on from."""
    ema: dict[str, torch.Tensor]
    """Averaged weights, the ones that are validated and exported."""
    optimizer: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    """Figures of the last validation of `ema`."""


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Writes `checkpoint` so that `path` is always either the old file or the complete new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    values = {"format": _FORMAT} | {
        name: getattr(checkpoint, name) for name in Checkpoint.__dataclass_fields__
    }
    with partial.open("wb") as file:
        torch.save(values, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def averaged(first: Checkpoint, second: Checkpoint, share: float) -> Checkpoint:
    """The second checkpoint with the mean of both ones' averaged weights, to validate and export.

    Where one run started from the other, the mean of the two is often better than either
    (Wortsman et al., "Model soups", 2022).

    Args:
        first: One of the two.
        second: The other, of the same family and options.
        share: Weight of the second, from 0 to 1.

    Raises:
        CheckpointError: They are of different networks.
        InputError: The share is out of its range.
    """
    if not 0 <= share <= 1:
        raise InputError(f"share: argument must be from 0 to 1, got {share}")
    for what in ("task", "options"):
        one, other = getattr(first, what), getattr(second, what)
        if one != other:
            raise CheckpointError(f"checkpoint: {what} must be {one} as in the first, got {other}")
    mean = {name: torch.lerp(first.ema[name], w, share) for name, w in second.ema.items()}
    return replace(second, ema=mean, metrics={})


def load(path: Path, *, task: str | None = None) -> Checkpoint:
    """Reads a checkpoint without running any code from it.

    Args:
        path: File that `save` wrote.
        task: Family that the checkpoint must be of; None accepts any.

    Raises:
        CheckpointError: The file is missing, not a checkpoint, or of another family.
    """
    if not path.is_file():
        raise CheckpointError(f"checkpoint: path must be a file, got {path}")
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types on a damaged file
        raise CheckpointError(f"checkpoint: {path} cannot be read: {error}") from error
    if not isinstance(values, dict) or values.pop("format", None) != _FORMAT:
        raise CheckpointError(f"checkpoint: {path} must have format {_FORMAT}")
    try:
        checkpoint = Checkpoint(**values)
    except TypeError as error:
        raise CheckpointError(f"checkpoint: {path} has the wrong fields: {error}") from error
    if task is not None and checkpoint.task != task:
        raise CheckpointError(f"checkpoint: task must be {task}, got {checkpoint.task}")
    return checkpoint


def digest(checkpoint: Checkpoint, *, without: str | None = None) -> bytes:
    """SHA-256 of the averaged weights, those aside whose name starts with `without`."""
    found = hashlib.sha256()
    for name, value in sorted(checkpoint.ema.items()):
        if without is None or not name.startswith(without):
            found.update(value.contiguous().numpy().tobytes())
    return found.digest()


def option_dict(options: Any) -> dict[str, Any]:
    """The fields of an options dataclass as plain values."""
    return asdict(options)
