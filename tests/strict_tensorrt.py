"""Objects as strict as TensorRT's bindings: what there is, and how it may be used."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any


class Value(int):
    """A member of an enumeration."""

    def __new__(cls, text: str, number: int) -> Value:
        value = super().__new__(cls, number)
        value.text = text
        return value

    text: str

    def __repr__(self) -> str:
        return self.text

    __str__ = __repr__


class Object:
    """Base of all classes: only what the bindings have can be used, as they take it."""

    _trt: Any
    _members: dict[str, Any]
    _name: str

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if hasattr(cls, "_members"):
            # A subclass in the code under test: what it overrides must be what TensorRT calls.
            for name, value in vars(cls).items():
                if not name.startswith("_") and callable(value):
                    assert name in cls._members, f"{cls._name} has no {name}"
                    wanted = [one for one, _ in _parameters(cls._members[name][0])]
                    given = list(inspect.signature(value).parameters)[1:]
                    assert given == wanted, f"{cls._name}.{name} takes {wanted}, not {given}"

    def __getattribute__(self, name: str) -> Any:
        value = object.__getattribute__(self, name)
        if name.startswith("_"):
            return value
        members = object.__getattribute__(self, "_members")
        if name not in members:
            raise AttributeError(f"{self._name} of {self._trt.__version__} has no {name!r}")
        if callable(value) and members[name] not in ("property", "value"):
            return _checked(f"{self._name}.{name}", members[name], value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            assert self._members.get(name) == "property", f"{self._name}.{name} cannot be set"
        object.__setattr__(self, name, value)


def _parameters(signature: str) -> list[tuple[str, str]]:
    """Names and types of the parameters after self; a default is left in the type."""
    inside = re.sub(r"\[[^\]]*\]", "", signature[signature.index("(") + 1 : signature.rindex(")")])
    parts = [part.partition(":") for part in inside.split(",")]
    return [(name.strip(), kind.strip()) for name, _, kind in parts][1:]


def _checked(what: str, signatures: list[str], function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*given: Any, **named: Any) -> Any:
        problems = [problem for one in signatures if (problem := _misfit(one, given, named))]
        if len(problems) == len(signatures):
            raise TypeError(f"{what}(): {'; '.join(problems)}")
        return function(*given, **named)

    return call


def _misfit(signature: str, given: tuple[Any, ...], named: dict[str, Any]) -> str:
    parameters = _parameters(signature)
    names = [name for name, _ in parameters]
    if len(given) > len(names):
        return f"{signature} got {len(given)} arguments"
    values = dict(zip(names, given, strict=False))
    if set(values) & set(named) or set(named) - set(names):
        return f"{signature} got {sorted(named)}"
    values |= named
    for name, kind in parameters:
        if name not in values:
            if "=" not in kind:
                return f"{signature} lacks {name}"
        elif not _is(values[name], kind.partition("=")[0].strip()):
            return f"{signature} got {type(values[name]).__name__} for {name}"
    return ""


def _is(value: Any, kind: str) -> bool:
    if kind == "int":
        return isinstance(value, int) and not isinstance(value, bool)
    if kind in ("str", "bool", "tuple", "list"):
        return type(value).__name__ == kind
    if kind == "buffer":
        return isinstance(value, bytes | bytearray | memoryview)
    if kind == "Dims":
        return isinstance(value, tuple | list) and all(type(one) is int for one in value)
    if isinstance(value, Value):
        return value.text.startswith(f"{kind}.")
    return any(getattr(cls, "_name", "") == kind for cls in type(value).__mro__)
