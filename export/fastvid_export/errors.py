"""Errors of the export package; they join fastvid's one tree."""

from __future__ import annotations

from fastvid.errors import FastvidError, InputError


class ExportError(FastvidError):
    """A graph cannot be exported or converted, or does not do what the original does."""

    exit_code = 10


class FidelityError(ExportError):
    """A converted graph is further from its float32 original than its gate allows."""


class CheckpointError(InputError):
    """A checkpoint is missing, damaged or of another model."""


class TrainingDataError(InputError):
    """The folder of training material lacks what the task needs."""
