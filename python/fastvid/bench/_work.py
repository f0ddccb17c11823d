"""A row while it is measured: its process and the figures that it has until now."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from fastvid.bench import _sampling
from fastvid.bench._child import Child, RowError
from fastvid.bench._plan import Spec
from fastvid.bench.results import Row

QUIET = 0.1
"""Processors that others may keep busy without a note."""


class Work:
    """One row in the making.

    Args:
        spec: What is measured.
        outputs: Where its process writes the frames that are compared.
    """

    def __init__(self, spec: Spec, outputs: Path) -> None:
        self.spec = spec
        self.outputs = outputs
        self.child: Child | None = None
        self.shape: list[int] | None = None
        self.memory: dict[str, Any] = {}
        self.quality: dict[str, Any] = {}
        self.error: dict[str, Any] = {}
        self.notes: list[str] = []
        self.retried = False
        self._status = "unavailable" if spec.problem else "not run"
        self._reason = spec.problem
        self._opens: list[dict[str, Any]] = []
        self._bursts: list[dict[str, Any]] = []
        self._warm: list[dict[str, Any]] = []
        self._split: dict[str, Any] = {}
        self._file: dict[str, Any] = {}
        self._built: dict[str, Any] = {}

    @property
    def spec_label(self) -> str:
        """The row as text."""
        return f"{self.spec.label} {self.spec.format} {self.spec.size[0]}x{self.spec.size[1]}"

    @property
    def done(self) -> bool:
        """Whether there is nothing more to measure."""
        return self._status != "not run"

    @property
    def is_to_be_retried(self) -> bool:
        """Whether the row lacked memory for the first time."""
        return self.error.get("type") == "OutOfMemoryError" and not self.retried

    @property
    def samples(self) -> int:
        """Timed calls of the process that runs now."""
        return sum(len(burst["samples_ms"]) for burst in self._of_process(len(self._opens) - 1))

    @property
    def seconds(self) -> float:
        """Time of these calls."""
        bursts = self._of_process(len(self._opens) - 1)
        total = sum(sum(burst["samples_ms"]) for burst in bursts)
        return total * self._frames_per_call / 1e3

    def _of_process(self, number: int) -> list[dict[str, Any]]:
        return [burst for burst in self._bursts if burst["process"] == number]

    @property
    def median_ms(self) -> float:
        """Median per frame."""
        return float(statistics.median(s for b in self._bursts for s in b["samples_ms"]))

    @property
    def _frames_per_call(self) -> int:
        return int(self.spec.generation.get("num_frames", 1))

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Gives the row's process a command; see `Child.ask`."""
        assert self.child is not None
        return self.child.ask(do, **arguments)

    def opened(self, answer: dict[str, Any]) -> None:
        """Takes the answer to `open`, like the next ones that of their command."""
        self._opens.append(answer)

    def built(self, answer: dict[str, Any]) -> None:
        """Takes what building the engines took."""
        self._built = answer
        if answer["was_cached"]:
            self.notes.append("the engines were there already, so building is not measured")

    def warmed(self, answer: dict[str, Any]) -> None:
        """Takes how long it took to become steady."""
        self._warm.append(answer)

    def holds(self, answer: dict[str, Any]) -> None:
        """Takes memory; the most of all processes counts."""
        for name, value in answer.items():
            known = self.memory.get(name)
            is_less = isinstance(known, float) and isinstance(value, float) and value < known
            if value is not None and not is_less:
                self.memory[name] = value

    def add(self, answer: dict[str, Any]) -> None:
        """Takes a burst."""
        self._bursts.append({**answer, "process": len(self._opens) - 1})

    def split(self, answer: dict[str, Any]) -> None:
        """Takes the warm start and the stages of a call."""
        self._split = answer

    def filed(self, answer: dict[str, Any]) -> None:
        """Takes what a clip from file to file took."""
        self._file = answer

    def release(self) -> None:
        """Lets the process end."""
        if self.child is not None:
            self.child.end()
            self.child = None

    def fail(self, error: RowError) -> None:
        """Ends the row with an error."""
        self._status, self._reason, self.error = error.status, error.reason, error.error
        if self.child is not None:
            self.child.kill()
            self.child = None

    def retry(self) -> None:
        """Starts the row anew, once."""
        self.retried = True
        self.notes.append("too little memory beside other rows, measured again alone")
        self._status, self._reason, self.error = "not run", "", {}
        self._opens, self._warm, self._bursts = [], [], []

    def interrupt(self) -> None:
        """Ends a row that somebody stopped; it keeps what was measured."""
        if self.child is not None:
            self.child.kill()
            self.child = None
        if not self.done:
            begun = bool(self._opens)
            self._status = "interrupted" if begun else "not run"
            self._reason = "stopped while it was measured" if begun else "stopped before"

    def finish(self) -> None:
        """Ends a row that has everything."""
        self._status = "ok"
        if not all(warm["steady"] for warm in self._warm):
            self.notes.append("calls were not steady after the warm-up")
        drift = self._frame()["drift"]
        if _sampling.drifts(drift):
            self.notes.append(f"drift: the second half took {100 * drift:+.0f} %")
        busy = self._others_busy()
        if busy is not None and busy > QUIET:
            self.notes.append(f"others kept {busy:.1f} cores busy meanwhile")

    def row(self) -> Row:
        """The row as it is now."""
        spec = self.spec
        report = self._opens[-1]["report"] if self._opens else {}
        return Row(
            model=spec.label,
            task=spec.task,
            format=spec.format,
            size=spec.size,
            status=self._status,
            device=report.get("device", spec.device),
            backend=spec.backend,
            precision=report.get("precision", spec.precision),
            reason=self._reason,
            error=self.error,
            start=self._start(),
            frame=self._frame(),
            stages=self._stages(),
            file=self._from_file_to_file(),
            generation=self._generation(),
            memory={k: round(v, 1) if isinstance(v, float) else v for k, v in self.memory.items()},
            quality=self.quality,
            energy=self._energy(),
            artefact_mb=round(self._bytes() / 1e6, 3),
            build_s=self._build_seconds(),
            samples_ms=tuple(tuple(burst["samples_ms"]) for burst in self._bursts),
            notes=tuple(self.notes),
            report=report,
        )

    def _bytes(self) -> int:
        """Of the engines, or of the bundle where it is loaded itself."""
        files = self.spec.bundle.files.values()
        return int(self._built.get("bytes", sum(file.size for file in files)))

    def _build_seconds(self) -> float | None:
        if not self._built:
            return None
        return 0.0 if self._built["was_cached"] else round(self._built["build_s"], 3)

    def _start(self) -> dict[str, Any]:
        if not self._opens:
            return {}
        names = ("python_ms", "import_ms", "load_ms", "first_call_ms", "cold_first_frame_ms")
        found: dict[str, Any] = {
            name: _rounded(statistics.median(o[name] for o in self._opens)) for name in names
        }
        found["cold_samples_ms"] = [_rounded(o["cold_first_frame_ms"]) for o in self._opens]
        found["load_samples_ms"] = [_rounded(o["load_ms"]) for o in self._opens]
        for name in ("warm_load_ms", "warm_first_frame_ms"):
            if name in self._split:
                found[name] = _rounded(self._split[name])
        return found

    def _frame(self) -> dict[str, Any]:
        if not self._bursts:
            return {}
        return {
            **_sampling.summary([burst["samples_ms"] for burst in self._bursts]),
            "process_of_burst": [burst["process"] for burst in self._bursts],
            "process_p50_ms": [
                _rounded(_sampling.summary([b["samples_ms"] for b in bursts])["p50_ms"])
                for number in range(len(self._opens))
                if (bursts := self._of_process(number))
            ],
            "warmup_calls": sum(warm["warmup_calls"] for warm in self._warm),
            "steady": all(warm["steady"] for warm in self._warm),
            "others_busy": self._others_busy(),
        }

    def _others_busy(self) -> float | None:
        known = [b["others_busy"] for b in self._bursts if b["others_busy"] is not None]
        return round(statistics.fmean(known), 2) if known else None

    def _stages(self) -> dict[str, Any]:
        found = {name: _rounded(value) for name, value in self._split.get("stages", {}).items()}
        for name in ("decode_ms", "encode_ms"):
            if name in self._file:
                found[name] = _rounded(self._file[name])
        return found

    def _from_file_to_file(self) -> dict[str, Any]:
        names = ("fps", "frames_in", "frames_out", "seconds", "runs")
        return {name: _rounded(self._file[name]) for name in names if name in self._file}

    def _generation(self) -> dict[str, Any]:
        spec = self.spec.generation
        if not (spec and self._bursts):
            return {}
        firsts = [f for burst in self._bursts for f in burst["first_frame_ms"]]
        total = self.median_ms * self._frames_per_call
        steps = spec["num_inference_steps"]
        denoise = self._split.get("stages", {}).get("denoise_ms")
        return {
            "frames": spec["num_frames"],
            "steps": steps,
            "step_ms": None if denoise is None else _rounded(denoise / steps),
            "first_frame_ms": _rounded(statistics.median(firsts)) if firsts else None,
            "total_ms": _rounded(total),
        }

    def _energy(self) -> dict[str, Any]:
        known = [b for b in self._bursts if b["joules_per_frame"] is not None]
        if not known:
            return {}
        weights = [len(b["samples_ms"]) for b in known]
        total = sum(w * b["joules_per_frame"] for w, b in zip(weights, known, strict=True))
        return {
            "joules_per_frame": _rounded(total / sum(weights)),
            "sources": known[0]["energy_sources"],
        }


def _rounded(value: float) -> float:
    return round(value, 4)
