"""What runs where on this machine, and why: every part is tried, and nothing that fails ends it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from fastvid._version import __version__
from fastvid.doctor import _machine, _models, _runtimes, _video
from fastvid.doctor._check import LIMIT, PROBLEM, Check, problem

__all__ = ["Check", "DoctorReport", "collect"]


@dataclass(frozen=True)
class DoctorReport:
    """All checks."""

    version: str
    """Version of fastvid."""
    python: str
    machine: str
    checks: tuple[Check, ...]

    @property
    def exit_status(self) -> int:
        """0 if everything that fastvid needs works here, else the code of the first problem."""
        return next((check.exit_code for check in self.checks if check.exit_code), 0)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain objects."""
        return {**dataclasses.asdict(self), "exit_status": self.exit_status}

    def to_json(self) -> str:
        """The report as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    def to_text(self) -> str:
        """The report for people, one line per check."""
        lines = [f"fastvid {self.version}, Python {self.python}, {self.machine}"]
        width = max((len(check.name) for check in self.checks), default=0)
        part = ""
        for check in self.checks:
            if check.part != part:
                part = check.part
                lines.append(f"\n{part}")
            lines.append(f"  {check.status:8}{check.name:{width}}  {check.detail}")
            if check.hint:
                lines.append(f"  {'':8}{'':{width}}  -> {check.hint}")
        counts = {name: sum(c.status == name for c in self.checks) for name in (PROBLEM, LIMIT)}
        found = [f"{n} {name}{'s' * (n > 1)}" for name, n in counts.items() if n]
        lines.append("\n" + (", ".join(found) or "no problems"))
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.to_text()


def collect(*, run_models: bool = True) -> DoctorReport:
    """Tries everything that fastvid uses on this machine.

    Args:
        run_models: Whether each shipped model also runs on a frame of 640x360.

    Returns:
        The report; problems are in it and are never raised.
    """
    sections: list[tuple[str, Callable[[], Iterator[Check]]]] = [
        ("machine", _machine.machine),
        ("ops", _machine.ops),
        ("devices", _runtimes.devices),
        ("onnxruntime", _runtimes.onnxruntime),
        ("openvino", _runtimes.openvino),
        ("tensorrt", _runtimes.tensorrt),
        ("video", _video.video),
        ("models", lambda: _models.models(run=run_models)),
    ]
    checks: list[Check] = []
    for part, section in sections:
        try:
            checks.extend(section())
        except Exception as error:
            checks.append(problem(part, part, error))
    return DoctorReport(__version__, _machine.python(), _machine.summary(), tuple(checks))
