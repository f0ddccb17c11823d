"""Rows and results: what was measured, as plain values, and how it is written and read.

The JSON is versioned by `SCHEMA` and described by `results.schema.json` beside this file.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastvid.errors import InputError, InputTypeError

if TYPE_CHECKING:
    from fastvid.bench._assertions import Failure

__all__ = ["SCHEMA", "STATUSES", "Results", "Row"]

SCHEMA = "fastvid.bench/1"
"""Name and version of the format; the version grows with every change of the fields."""

STATUSES = ("ok", "failed", "unavailable", "interrupted", "not run")
_MAX_BYTES = 64 << 20


@dataclass(frozen=True)
class Row:
    """One model in one format at one size."""

    model: str
    """Name of the bundle."""
    task: str
    format: str
    """`onnx-cpu`, `onnx-cuda`, `engine`, with `:N` behind it for another CUDA device than 0."""
    size: tuple[int, int]
    """Width and height of the frames that go in; of a generator, of those that come out."""
    status: str
    """`ok`; `failed`; `unavailable` for what cannot run on this machine; `interrupted` for a row
    that has only what was measured until then; `not run`."""
    device: str
    """`cpu` or `cuda:N`."""
    backend: str
    precision: str = ""
    reason: str = ""
    """Why the status is not `ok`, in a line."""
    error: Mapping[str, Any] = field(default_factory=dict)
    """`type`, `message`, `hint` and `exit_code` of what failed."""
    start: Mapping[str, Any] = field(default_factory=dict)
    """`python_ms`, `import_ms`, `load_ms`, `first_call_ms` and `cold_first_frame_ms`, their sum:
    medians over processes, with `load_samples_ms` and `cold_samples_ms`; `warm_load_ms` and
    `warm_first_frame_ms` of a second model in the last one."""
    frame: Mapping[str, Any] = field(default_factory=dict)
    """`p50_ms`, `p90_ms`, `p99_ms`, `mean_ms`, `min_ms`, `max_ms`, `fps`, `samples`, `bursts`,
    `process_of_burst`, `process_p50_ms`, `warmup_calls`, `steady`, `drift`, `others_busy`."""
    stages: Mapping[str, Any] = field(default_factory=dict)
    """Frames: `decode_ms`, `pre_ms`, `infer_ms`, `post_ms`, `encode_ms`, each per frame.
    Generation: `text_ms`, `denoise_ms`, `decode_ms`, `encode_ms`, each per clip."""
    file: Mapping[str, Any] = field(default_factory=dict)
    """A clip from file to file: `fps`, `frames_in`, `frames_out`, `seconds`."""
    generation: Mapping[str, Any] = field(default_factory=dict)
    """`frames`, `steps`, `step_ms`, `first_frame_ms`, `total_ms`; empty for other tasks."""
    memory: Mapping[str, Any] = field(default_factory=dict)
    """`peak_rss_mb` of the calls, `file_peak_rss_mb` with decoder and encoder, `vram_mb` and
    `vram_of`, which is `process` or `device`; 1 MB is 10**6 bytes."""
    quality: Mapping[str, Any] = field(default_factory=dict)
    """`reference`, `frames`, `identical`, `psnr` (dB; None if identical) and `ssim`, both of the
    worst frame."""
    energy: Mapping[str, Any] = field(default_factory=dict)
    """`joules_per_frame` and its `sources`; empty where nothing counts it."""
    artefact_mb: float | None = None
    build_s: float | None = None
    """Time to build the engine; None for other formats, 0 for one that was built before."""
    samples_ms: tuple[tuple[float, ...], ...] = ()
    """Every sample, by burst."""
    notes: tuple[str, ...] = ()
    """What makes the figures of this row less sure."""
    report: Mapping[str, Any] = field(default_factory=dict)
    """What ran each graph: `fastvid.backends.Report`."""

    @property
    def key(self) -> tuple[str, str, tuple[int, int]]:
        """Model, format and size, which rows of two results are matched by."""
        return self.model, self.format, self.size

    @property
    def label(self) -> str:
        """The key as text."""
        return f"{self.model} {self.format} {self.size[0]}x{self.size[1]}"

    @property
    def samples_by_process(self) -> list[list[tuple[float, ...]]]:
        """`samples_ms` by process and burst."""
        processes: dict[int, list[tuple[float, ...]]] = {}
        numbers = self.frame.get("process_of_burst") or [0] * len(self.samples_ms)
        for number, burst in zip(numbers, self.samples_ms, strict=True):
            processes.setdefault(number, []).append(burst)
        return list(processes.values())

    @property
    def measured(self) -> bool:
        """Whether the row has times."""
        return bool(self.frame)


_GROUPS = ("start", "frame", "stages", "file", "generation", "memory", "quality", "energy")
_WORDS = ("vram_of", "reference")
_FLAGS = ("steady", "identical")
_LISTS = ("cold_samples_ms", "load_samples_ms", "process_of_burst", "process_p50_ms")
_FIELDS = {f.name: f for f in dataclasses.fields(Row)}


@dataclass(frozen=True)
class Results:
    """All rows of one run, with the machine and the method."""

    rows: tuple[Row, ...]
    environment: Mapping[str, Any] = field(default_factory=dict)
    method: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    created: str = ""
    """Time of the start, ISO 8601 in UTC."""
    interrupted: bool = False
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The results as plain JSON values."""
        rows = [dataclasses.asdict(row) for row in self.rows]
        return {
            "schema": SCHEMA,
            "created": self.created,
            "command": self.command,
            "interrupted": self.interrupted,
            "warnings": list(self.warnings),
            "environment": dict(self.environment),
            "method": dict(self.method),
            "rows": [{**row, **_listed(row)} for row in rows],
        }

    def to_json(self) -> str:
        """The results as JSON text."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)

    def to_markdown(self) -> str:
        """The results as Markdown: tables, what did not run and why, machine and method."""
        from fastvid.bench._tables import markdown

        return markdown(self)

    def to_text(self) -> str:
        """The same for a terminal."""
        from fastvid.bench._tables import text

        return text(self)

    def __str__(self) -> str:
        return self.to_text()

    def check(self, assertions: str) -> list[Failure]:
        """What misses assertions such as `"p99<33 psnr>40"`; empty if every row meets them.

        Raises:
            InputError: The text is no assertion; the message names the metrics.
        """
        from fastvid.bench._assertions import check, parse

        return check(self, parse(assertions))

    @classmethod
    def from_json(cls, text: str, what: str = "results") -> Results:
        """The results that `to_json` wrote.

        Args:
            text: JSON.
            what: What the message of an error starts with.

        Raises:
            InputError: It is no JSON, or not of this version of the format.
        """
        if not isinstance(text, str):
            raise InputTypeError(f"{what}: argument must be text, got {type(text).__name__}")
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{what}: must be JSON: {error}") from None
        found = data.get("schema") if isinstance(data, dict) else None
        if found != SCHEMA:
            raise InputError(
                f"{what}: schema must be {SCHEMA!r}, got {found!r:.60}",
                hint="fastvid bench --output FILE.json writes it",
            )
        try:
            rows = tuple(_row(row) for row in data["rows"])
            return cls(
                rows=rows,
                environment=_environment(data["environment"]),
                method=dict(data["method"].items()),
                command=str(data["command"]),
                created=str(data["created"]),
                interrupted=bool(data["interrupted"]),
                warnings=tuple(map(str, data["warnings"])),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise InputError(f"{what}: does not follow {SCHEMA}: {error!r}") from None

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Results:
        """Reads a file that `fastvid bench --output` wrote.

        Raises:
            InputError: It is missing, or holds no results.
        """
        name = os.fspath(path)
        try:
            if os.path.getsize(name) > _MAX_BYTES or not os.path.isfile(name):
                raise InputError(f"{name}: must be a file of at most {_MAX_BYTES >> 20} MiB")
            text = Path(name).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InputError(f"{name}: results cannot be read: {reason}") from None
        return cls.from_json(text, name)


def _listed(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "size": list(row["size"]),
        "notes": list(row["notes"]),
        "samples_ms": [list(burst) for burst in row["samples_ms"]],
    }


def _row(data: Mapping[str, Any]) -> Row:
    if unknown := set(data) - set(_FIELDS):
        raise ValueError(f"unknown fields {sorted(unknown)}")
    row = Row(
        **{
            **data,
            "size": _size(data["size"]),
            "samples_ms": tuple(tuple(map(_time, burst)) for burst in data["samples_ms"]),
            "notes": tuple(map(str, data["notes"])),
        }
    )
    if row.status not in STATUSES:
        raise ValueError(f"status {row.status!r}")
    for name in ("model", "task", "format", "device", "backend", "precision", "reason"):
        _require(isinstance(getattr(row, name), str), name)
    for name in (*_GROUPS, "error", "report"):
        _require(isinstance(getattr(row, name), dict), name)
    for name in _GROUPS:
        for key, value in getattr(row, name).items():
            _require(_fits(key, value), f"{name}.{key}")
    for name in ("artefact_mb", "build_s"):
        _require(_fits(name, getattr(row, name)), name)
    # Raises where bursts and their processes do not agree.
    _ = row.samples_by_process
    return row


def _environment(data: Mapping[str, Any]) -> dict[str, Any]:
    gpus = data.get("gpus", [])
    _require(isinstance(gpus, list) and all(isinstance(g, dict) for g in gpus), "gpus")
    _require(isinstance(data.get("versions", {}), dict), "versions")
    return dict(data.items())


def _require(holds: bool, name: str) -> None:
    if not holds:
        raise TypeError(f"{name} has the wrong type")


def _fits(key: str, value: Any) -> bool:
    """Whether a figure is what its name says: a finite number, if it is no word, flag or list."""
    if key in _WORDS:
        return isinstance(value, str)
    if key in _FLAGS:
        return isinstance(value, bool)
    if key == "sources":
        return isinstance(value, list) and all(isinstance(v, str) for v in value)
    if key in _LISTS:
        return isinstance(value, list) and all(_is_number(v) for v in value)
    return value is None or _is_number(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _size(value: Sequence[Any]) -> tuple[int, int]:
    width, height = value
    return int(width), int(height)


def _time(value: Any) -> float:
    time = float(value)
    if not (math.isfinite(time) and time >= 0):
        raise ValueError(f"sample {value!r}")
    return time
