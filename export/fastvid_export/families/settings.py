"""`--set name=value` for dataclasses of plain values."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

from fastvid.errors import InputError

T = TypeVar("T")
_BOOLS = {"yes": True, "no": False}


def pairs(what: str, texts: Sequence[str]) -> dict[str, str]:
    """What was given as NAME=VALUE.

    Raises:
        InputError: A text has no name or no value; `what` says of which option.
    """
    for text in texts:
        if not all(text.partition("=")):
            raise InputError(f"{what}: argument must be NAME=VALUE, got {text!r}")
    return dict(text.split("=", 1) for text in texts)


def fill(kind: type[T], settings: dict[str, Any]) -> T:
    """An instance of the dataclass `kind` from the settings that name its fields, and removes them.

    Raises:
        InputError: A value does not fit its field.
    """
    values = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        if field.name not in settings:
            continue
        text, example = settings.pop(field.name), field.default
        try:
            values[field.name] = _BOOLS[text] if isinstance(example, bool) else type(example)(text)
        except (KeyError, TypeError, ValueError):
            raise InputError(
                f"{field.name}: setting must be {type(example).__name__}, got {text!r}"
            ) from None
    return kind(**values)


def refuse_rest(settings: dict[str, Any]) -> None:
    """Raises InputError for settings that nothing took."""
    if settings:
        raise InputError(f"set: no setting is called {', '.join(sorted(settings))}")
