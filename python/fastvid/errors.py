"""Every error that leaves a public call: one tree, each with the exit code the CLI returns for it.

A message says what is wrong as `what: argument must be X, got Y`; `hint` says the way out.
"""

from __future__ import annotations


class FastvidError(Exception):
    """Base of all errors raised by fastvid.

    Args:
        message: What is wrong, with the value found and what is allowed.
        hint: What to do about it; empty where the message already says so.
    """

    exit_code = 1
    """Status that `fastvid` exits with when this error ends a command."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class InputError(FastvidError, ValueError):
    """An argument has the wrong shape, value or range."""

    exit_code = 2


class InputTypeError(InputError, TypeError):
    """An argument has the wrong type or dtype."""


class MediaError(FastvidError):
    """A video or image file cannot be used."""

    exit_code = 4


class UnreadableMediaError(MediaError):
    """The file is missing, not a regular file, or not a video."""


class TruncatedMediaError(MediaError):
    """The file ends before its index or its frames do."""


class UnsupportedMediaError(MediaError):
    """The file is sound but holds something fastvid does not process."""


class MediaLimitError(MediaError):
    """The file exceeds a limit on size, frames or duration."""


class ModelError(FastvidError):
    """A model bundle cannot be used."""

    exit_code = 5


class ManifestError(ModelError):
    """`bundle.json` is missing or does not follow the format."""


class IntegrityError(ModelError):
    """A file of a bundle is missing or is not the one `bundle.json` names."""


class UnsafePathError(ModelError):
    """A bundle names a file outside its folder, a link or a forbidden kind of file."""


class UnsupportedModelError(ModelError):
    """The bundle is sound but this version, device or class cannot run it."""


class DeviceError(FastvidError):
    """A device or an inference runtime failed."""

    exit_code = 6


class NoDeviceError(DeviceError):
    """The device asked for is not there."""


class BackendUnavailableError(DeviceError):
    """The inference runtime asked for is not installed."""


class EngineError(DeviceError):
    """An engine, the form of a graph that one GPU and one TensorRT run, cannot be made or used."""


class EngineBuildError(EngineError):
    """TensorRT cannot build an engine of a graph."""


class EngineLoadError(EngineError):
    """An engine is damaged, was not made here, or computes other results than its graph."""


class OutOfMemoryError(DeviceError, MemoryError):
    """Not enough memory on the device."""


class DeviceLostError(DeviceError):
    """The device failed for good: no call of this process on it can succeed any more."""


class NumericError(FastvidError):
    """A model's output is not a picture: NaN, infinity or nothing but black."""

    exit_code = 9


class OutputError(FastvidError):
    """The output cannot be written."""

    exit_code = 7


class DiskFullError(OutputError):
    """No space is left where the output goes."""


class CancelledError(FastvidError):
    """The caller stopped the work."""

    exit_code = 8
