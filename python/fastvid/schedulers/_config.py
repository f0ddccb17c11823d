"""Options of schedulers: diffusers' names and defaults, checked when a scheduler is made."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Mapping
from typing import Any, TypeVar

from fastvid.errors import InputError, InputTypeError

C = TypeVar("C")


def option(default: Any, *choices: str, low: float | None = None, high: float | None = None) -> Any:
    """A field that takes values of its default's type, in a range or among choices."""
    return dataclasses.field(
        default=default, metadata={"choices": choices, "low": low, "high": high}
    )


def optional(*, low: float | None = None, high: float | None = None) -> Any:
    """A field that takes a number or None, its default."""
    return dataclasses.field(default=None, metadata={"optional": True, "low": low, "high": high})


def unchecked() -> Any:
    """A field that is None by default and that its scheduler checks."""
    return dataclasses.field(default=None, metadata={"free": True})


def fixed(default: Any) -> Any:
    """A field of diffusers of which only the default is supported."""
    return dataclasses.field(default=default, metadata={"fixed": True})


def build(config_type: type[C], name: str, config: Mapping[str, Any]) -> C:
    """Makes the config of the scheduler `name`, or raises InputError for what it does not take."""
    fields = {f.name: f for f in dataclasses.fields(config_type)}  # type: ignore[arg-type]
    for key, value in config.items():
        if key not in fields:
            raise InputError(
                f"{name}: options must be among those of {name}, got {key!r}",
                hint="it takes " + ", ".join(fields),
            )
        _check(name, fields[key], value)
    return config_type(**config)


def _check(name: str, field: dataclasses.Field[Any], value: Any) -> None:
    rules: Mapping[str, Any] = field.metadata
    default: Any = field.default
    what = f"{name}: {field.name}"
    if rules.get("free"):
        return
    if rules.get("fixed"):
        if value is not default:
            raise InputError(
                f"{what} must be {default!r}, got {value!r}; other values are not supported"
            )
        return
    if rules.get("optional"):
        if value is None:
            return
        default = 0.0
    if isinstance(default, str):
        if not isinstance(value, str) or value not in rules["choices"]:
            allowed = ", ".join(map(repr, rules["choices"]))
            raise InputError(f"{what} must be one of {allowed}, got {value!r}")
        return
    if isinstance(default, bool) or isinstance(value, bool):
        matches = isinstance(default, bool) and isinstance(value, bool)
    else:
        wanted = numbers.Integral if isinstance(default, int) else numbers.Real
        matches = isinstance(value, wanted)
    if not matches:
        raise InputTypeError(f"{what} must be {type(default).__name__}, got {type(value).__name__}")
    _check_range(what, rules, value, default)


def _check_range(what: str, rules: Mapping[str, Any], value: float, default: float) -> None:
    low, high = rules.get("low"), rules.get("high")
    if value != default and not math.isfinite(value):
        raise InputError(f"{what} must be finite, got {value}")
    if (low is not None and value < low) or (high is not None and value > high):
        bounds = f"at least {low}" if high is None else f"from {low} to {high}"
        raise InputError(f"{what} must be {bounds}, got {value}")


def at_most_one(name: str, config: object, *options: str) -> None:
    """Raises where more than one of these options is set."""
    chosen = [o for o in options if getattr(config, o)]
    if len(chosen) > 1:
        raise InputError(f"{name}: at most one of {', '.join(options)} may be set, got {chosen}")
