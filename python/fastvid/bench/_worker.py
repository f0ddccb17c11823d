"""The process that measures one row: `python -m fastvid.bench._worker`.

It reads commands, one JSON object per line, from standard input and answers each with one on what
was standard output; what libraries print goes to standard error. Only the standard library is
loaded before the first command, so that a cold start is that of a user's program.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import statistics
import sys
import time
from collections.abc import Mapping
from typing import Any

_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG
_QUALITY_CALLS = 3
_SPLIT_SECONDS, _SPLIT_CALLS = 1.5, 20
_FILE_SECONDS = 1.0
_FILE_RUNS = 5
_MB = 1e6

Answer = dict[str, Any]


class Measurement:
    """One row: a method per command, in the order they come in."""

    def __init__(self, spec: Mapping[str, Any], begun: float) -> None:
        self._spec = spec
        self._begun = begun
        self._work: Any = None
        self._nvml: Any = None
        self._energy: Any = None
        self._vram_before = 0
        self._calls = 0

    def open(self) -> Answer:
        """Constructs the model and draws the first frame: the cold start."""
        from fastvid.bench import _workloads

        if self._spec["cuda"] is not None:
            self._watch_device()
        aside = time.perf_counter()
        work = self._work = _workloads.make(self._spec)
        start = time.perf_counter()
        work.open()
        loaded = time.perf_counter()
        work.call(0)
        end = time.perf_counter()
        spawned = self._spec["spawned"]
        return {
            "python_ms": 1e3 * (self._begun - spawned),
            "import_ms": 1e3 * (aside - self._begun),
            "load_ms": 1e3 * (loaded - start),
            "first_call_ms": 1e3 * (end - loaded),
            # Reading the frames that the parent prepared is no part of a start.
            "cold_first_frame_ms": 1e3 * (end - spawned - (start - aside)),
            "report": work.report().to_dict(),
        }

    def _watch_device(self) -> None:
        from fastvid.bench.probes import Nvml

        self._nvml = Nvml.open(self._spec["cuda"])
        memory = self._nvml.memory() if self._nvml else None
        self._vram_before = memory[0] if memory and memory[1] == "device" else 0

    def build(self) -> Answer:
        """Builds the engines of the row's size, or finds them."""
        from fastvid.backends import tensorrt
        from fastvid.bundle import Bundle

        options = tensorrt.EngineOptions(sizes=(self._spec["size"],))
        bundle, device = Bundle.load(self._spec["model"]), self._spec["device"]["device"]
        there = {engine.path for engine in tensorrt.cached_engines()}
        start = time.perf_counter()
        paths = tensorrt.build(bundle, device, options)
        return {
            "build_s": time.perf_counter() - start,
            "was_cached": there.issuperset(paths),
            "bytes": sum(path.stat().st_size for path in paths),
        }

    def outputs(self) -> Answer:
        """Writes the frames that are compared with the reference."""
        frames = self._work.outputs(_QUALITY_CALLS)
        frames.tofile(self._spec["outputs"])
        return {"shape": list(frames.shape)}

    def warm(self, least: float, most: float) -> Answer:
        """Calls until the times are steady."""
        from fastvid.bench._sampling import warm_up
        from fastvid.bench.probes import EnergyMeter

        calls, steady = warm_up(self._work.call, least=least, most=most)
        self._calls = calls
        self._energy = EnergyMeter(self._nvml)
        return {"warmup_calls": calls, "steady": steady}

    def burst(self, seconds: float, most: int) -> Answer:
        """Timed calls."""
        from fastvid.bench._sampling import burst
        from fastvid.bench.probes import busy_seconds

        busy, energy = busy_seconds(), self._energy.read()
        samples, results = burst(self._work.call, seconds=seconds, most=most, first=self._calls)
        used, after = self._energy.read(), busy_seconds()
        self._calls += len(samples)
        count = self._work.frames_per_call
        # The untimed call before the samples took energy like one of them.
        made = len(samples) + (len(samples) > 1)
        joules = self._energy.between(energy, used)
        firsts = [1e3 * r for r in results if isinstance(r, float)]
        return {
            "samples_ms": [round(1e3 * s / count, 5) for s in samples],
            "first_frame_ms": firsts,
            "others_busy": after.others_since(busy),
            "joules_per_frame": None if joules is None else joules / made / count,
            "energy_sources": self._energy.sources(),
        }

    def memory(self) -> Answer:
        """Peaks so far."""
        from fastvid.bench.probes import peak_rss

        peak = peak_rss()
        answer: Answer = {"peak_rss_mb": None if peak is None else peak / _MB}
        memory = self._nvml.memory() if self._nvml else None
        if memory is not None:
            answer["vram_mb"] = max(0, memory[0] - self._vram_before) / _MB
            answer["vram_of"] = memory[1]
        return answer

    def split(self) -> Answer:
        """A second, warm start, whose model is watched; and the stages of its calls."""
        from fastvid.bench._hooks import watched

        self._work.close()
        with watched() as watch:
            start = time.perf_counter()
            self._work.open()
            loaded = time.perf_counter()
            self._work.call(0)
            end = time.perf_counter()
        watch.take()
        stages: dict[str, list[float]] = {}
        begun = time.perf_counter()
        for number in range(_SPLIT_CALLS):
            before = time.perf_counter()
            self._work.call(number)
            after = time.perf_counter()
            for name, value in self._work.split(before, after, watch.take()).items():
                stages.setdefault(name, []).append(value)
            if after - begun > _SPLIT_SECONDS and number >= 2:
                break
        return {
            "warm_load_ms": 1e3 * (loaded - start),
            "warm_first_frame_ms": 1e3 * (end - start),
            "stages": {name: statistics.median(values) for name, values in stages.items()},
        }

    def file(self, clip: str, output: str) -> Answer:
        """A clip from file to file, as often as a second allows; the median run."""
        runs: list[Answer] = []
        begun = time.perf_counter()
        while len(runs) < _FILE_RUNS and (not runs or time.perf_counter() - begun < _FILE_SECONDS):
            runs.append(self._work.file(clip, output))
        runs.sort(key=lambda run: run["seconds"])
        middle = runs[len(runs) // 2]
        return {**middle, "fps": middle["frames_out"] / middle["seconds"], "runs": len(runs)}

    def close(self) -> Answer:
        """Frees the model."""
        if self._work is not None:
            self._work.close()
        return {}


def _error(error: Exception) -> Answer:
    from fastvid.errors import FastvidError, OutOfMemoryError

    if isinstance(error, MemoryError) and not isinstance(error, FastvidError):
        error = OutOfMemoryError("not enough memory", hint="use smaller frames")
    if isinstance(error, FastvidError):
        message, hint, code = error.message, error.hint, error.exit_code
    else:
        message, hint, code = f"{type(error).__name__}: {error}", "", FastvidError.exit_code
    body = {"type": type(error).__name__, "message": " ".join(message.split()), "hint": hint}
    return {"error": {**body, "exit_code": code}}


def main() -> int:
    """Answers commands until there are no more."""
    begun = time.perf_counter()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    spec = sys.stdin.readline()
    if not spec:
        # The parent was stopped while it started this process.
        return 0
    row = Measurement(json.loads(spec), begun)
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = getattr(row, command.pop("do"))(**command)
        except Exception as error:
            answer = _error(error)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
