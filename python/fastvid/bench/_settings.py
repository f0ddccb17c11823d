"""How long and how often rows are measured."""

from __future__ import annotations

from dataclasses import dataclass

from fastvid.devices import thread_count
from fastvid.errors import InputError, InputTypeError


@dataclass(frozen=True)
class Settings:
    """How long and how often."""

    seconds: float = 3.0
    """Time of the calls of a row, at least."""
    min_samples: int = 30
    """Calls of a row, at least, unless they take `max_seconds`."""
    max_seconds: float = 15.0
    processes: int = 3
    """Processes of a row, one after the other: memory that lies otherwise, another second."""
    threads: int | None = None
    interleave: bool = True
    timeout: float = 900.0
    """Seconds that one step of a row may take."""

    def __post_init__(self) -> None:
        thread_count(self.threads)
        _require_number("seconds", self.seconds, 0.01, 3600)
        _require_number("max_seconds", self.max_seconds, self.seconds, 36000)
        _require_number("timeout", self.timeout, 1, 86400)
        for name, value, most in (
            ("min_samples", self.min_samples, 100_000),
            ("processes", self.processes, 100),
        ):
            if isinstance(value, bool) or not isinstance(value, int):
                raise InputTypeError(f"{name}: argument must be an int, got {type(value).__name__}")
            _require_number(name, value, 1, most)


def _require_number(name: str, value: object, least: float, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputTypeError(f"{name}: argument must be a number, got {type(value).__name__}")
    if not least <= value <= most:
        raise InputError(f"{name}: argument must be from {least:g} to {most:g}, got {value:g}")
