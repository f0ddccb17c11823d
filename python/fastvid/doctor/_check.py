"""One line of the doctor's report."""

from __future__ import annotations

from dataclasses import dataclass

from fastvid.errors import FastvidError

OK, LIMIT, ABSENT, PROBLEM = "ok", "limit", "absent", "problem"


@dataclass(frozen=True)
class Check:
    """One thing that was tried."""

    part: str
    """What it belongs to, for example `onnxruntime` or `models`."""
    name: str
    status: str
    """`ok`, `limit` for what works less well than it could, `absent` for what is optional and not
    there, or `problem`."""
    detail: str
    hint: str = ""
    """What follows from it, and the command that changes it."""
    exit_code: int = 0
    """What a problem makes `fastvid doctor` exit with."""


def problem(part: str, name: str, error: Exception) -> Check:
    """The line of something that failed."""
    if isinstance(error, FastvidError):
        return Check(part, name, PROBLEM, error.message, error.hint, error.exit_code)
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return Check(part, name, PROBLEM, text, exit_code=FastvidError.exit_code)
