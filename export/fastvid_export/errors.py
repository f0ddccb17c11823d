"""Errors of the export package; they join fastvid's one tree."""

from __future__ import annotations

from fastvid.errors import FastvidError, InputError


class ExportError(FastvidError):
    """An exported graph does not do what the PyTorch model does, or cannot be written."""


class CheckpointError(InputError):
    """A checkpoint is missing, damaged or of another model."""


class TrainingDataError(InputError):
    """The folder of training material lacks what the task needs."""
