"""Configurations of foreign models, read strictly: what is not honoured is refused by name."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from fastvid.errors import InputError
from fastvid_export.errors import CheckpointError

T = TypeVar("T")

_MOST_BYTES = 1 << 24
_TRAINING = frozenset(
    ("dropout", "dropout_rate", "attention_dropout", "initializer_factor", "initializer_range",
     "classifier_dropout")
)  # fmt: skip
"""What only matters in training."""
_BOOKKEEPING = frozenset(
    ("architectures", "dtype", "torch_dtype", "transformers_version", "model_type", "use_cache",
     "return_dict", "output_hidden_states", "output_attentions")
)  # fmt: skip
"""What says nothing about the numbers."""


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object in a file of the model.

    Raises:
        CheckpointError: There is no such file, or it holds none.
    """
    name = f"{path.parent.name}/{path.name}"
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise CheckpointError(f"model: {name} must have at most {_MOST_BYTES} bytes")
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"model: {name} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"model: {name} is not JSON: {error!s:.200}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"model: {name} must hold an object, got {type(value).__name__}")
    return value


class Config:
    """A JSON object of which every option must be asked for.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.what = f"model: {path.parent.name}/{path.name}"
        self._values = {k: v for k, v in read_json(path).items() if not k.startswith("_")}

    def take(self, name: str, kind: Any, default: Any = dataclasses.MISSING) -> Any:
        """An option.

        Args:
            name: Its name.
            kind: Its type, as an annotation: `int`, `float | None`, `tuple[int, ...]`.
            default: Where it is missing.

        Raises:
            CheckpointError: It is missing.
            InputError: It has another type.
        """
        if name not in self._values:
            if default is dataclasses.MISSING:
                raise CheckpointError(f"{self.what} must hold {name!r}, which is missing")
            return default
        value = self._values.pop(name)
        fits, made = _typed(value, kind)
        if not fits:
            wanted = getattr(kind, "__name__", None) or str(kind)
            raise InputError(f"{self.what}: {name} must be {wanted}, got {value!r:.60}")
        return made

    def expect(self, name: str, *allowed: Any) -> Any:
        """An option of which only some values are supported; the first is what it is by default.

        Raises:
            InputError: It has another.
        """
        value = self._values.pop(name, allowed[0])
        if value not in allowed:
            choices = " or ".join(map(repr, allowed))
            raise InputError(
                f"{self.what}: {name} must be {choices}, got {value!r:.60}; other values are not "
                "supported"
            )
        return value

    def fill(self, kind: type[T], **given: Any) -> T:
        """A dataclass of options, each by its name and type; what is not there is its default."""
        hints = get_type_hints(kind)
        values = dict(given)
        for field in dataclasses.fields(kind):  # type: ignore[arg-type]
            if field.name not in given:
                values[field.name] = self.take(field.name, hints[field.name], field.default)
        return kind(**values)

    def ignore(self, *names: str) -> None:
        """Drops options that make no difference."""
        for name in names:
            self._values.pop(name, None)

    def finish(self) -> None:
        """Refuses what nobody has asked for.

        Raises:
            InputError: Names every such option.
        """
        left = sorted(set(self._values) - _TRAINING - _BOOKKEEPING)
        if left:
            named = ", ".join(f"{name}={self._values[name]!r:.40}" for name in left)
            raise InputError(f"{self.what}: options must be known ones, got {named}")

    def rest(self) -> Mapping[str, Any]:
        """What nobody has asked for yet."""
        return dict(self._values)


def _typed(value: Any, kind: Any) -> tuple[bool, Any]:
    """Whether a JSON value is of a type, and the value as that type."""
    if get_origin(kind) is tuple:
        parts = get_args(kind)
        if not isinstance(value, list):
            return False, value
        kinds = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
        if len(kinds) != len(value):
            return False, value
        made = [_typed(item, one) for item, one in zip(value, kinds, strict=True)]
        return all(fits for fits, _ in made), tuple(item for _, item in made)
    if get_args(kind):
        return next(
            (found for one in get_args(kind) if (found := _typed(value, one))[0]), (False, value)
        )
    if kind is NoneType:
        return value is None, value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return True, float(value)
    fits = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    return fits, value
