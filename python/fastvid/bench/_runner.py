"""Measures rows: a process each, those that compute the same against each other in bursts."""

from __future__ import annotations

import datetime
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fastvid.bench import _plan, _quality, _sampling, probes
from fastvid.bench._child import Child, RowError
from fastvid.bench._environment import command, environment, warnings_of
from fastvid.bench._hooks import hook_overhead
from fastvid.bench._inputs import CLIP_FRAMES, Inputs
from fastvid.bench._plan import Clip, Spec
from fastvid.bench._settings import Settings
from fastvid.bench._work import Work
from fastvid.bench.results import Results
from fastvid.bundle import Bundle
from fastvid.errors import OutputError

Note = Callable[[str], None]

_BURSTS = 4
"""Bursts that the share of a process is cut into."""
_LONG_CLIP_MS = 3000
_BUILD_SECONDS = 3600.0
_ROOM = 1.5
"""Times the memory of the largest process that must be free for another to start beside it."""


def run(
    models: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    *,
    input: str | os.PathLike[str] | None = None,
    formats: str | Sequence[str] | None = None,
    sizes: Sequence[object] | None = None,
    reference: str | os.PathLike[str] | None = None,
    seconds: float = 3.0,
    min_samples: int = 30,
    max_seconds: float | None = None,
    processes: int = 3,
    threads: int | None = None,
    interleave: bool = True,
    timeout: float = 900.0,
    prompt: str = Clip.prompt,
    num_inference_steps: int | None = None,
    num_frames: int | None = None,
    progress: Note | None = None,
) -> Results:
    """Measures models on this machine; see docs/bench.md for what each figure is.

    Args:
        models: Shipped names, short names (`fast` is every task's), or folders; None is all.
        input: A clip or a folder of pictures to measure on; None draws a scene.
        formats: Words of `FORMATS`, as a sequence or with commas; None is all.
        sizes: `WxH` each; None is the clip's size, or 1280x720, and a generator's own size.
        reference: The float32 model whose run on the CPU is the truth of `quality`; None is the
            row's own model, or for one of less precision the float32 one among the rows.
        seconds: Time of the calls of each row at least, 0.01 to 3600.
        min_samples: Calls of each row at least.
        max_seconds: Where a row ends that has not had `min_samples` calls; None is 5 `seconds`.
        processes: Processes of a row, one after the other: each draws a cold first frame and takes
            its share of the calls.
        threads: CPU threads of each network; None takes what the machine has.
        interleave: Whether rows that compute the same take turns; else one after the other.
        timeout: Seconds that one step of a row may take.
        prompt: What generators draw.
        num_inference_steps: Steps of generators; None is each model's own number.
        num_frames: Frames of generators; None is each model's own number.
        progress: Takes a line on what is done next.

    Returns:
        A row for each model, size and format, failed ones included.

    Raises:
        InputError: An argument is wrong, or no model takes the size.
        ModelError: A bundle cannot be used at all.
        MediaError: The clip cannot be read.
    """
    named = [models] if isinstance(models, str | os.PathLike) else models
    most = 5 * seconds if max_seconds is None else max_seconds
    settings = Settings(seconds, min_samples, most, processes, threads, interleave, timeout)
    clip = Clip(prompt, num_inference_steps, num_frames)
    with Runner(named, input, formats, sizes, reference, settings, clip, progress) as runner:
        runner.measure()
        return runner.results()


class Runner:
    """A run that can be asked for its results at any time; a context manager.

    Args:
        models: As in `run`, like the next ones.
        source: The clip.
        formats: Words.
        sizes: Sizes.
        reference: A model.
        settings: How long and how often.
        clip: What generators draw.
        progress: Takes a line on what is done next.
    """

    def __init__(
        self,
        models: Sequence[str | os.PathLike[str]] | None,
        source: str | os.PathLike[str] | None,
        formats: str | Sequence[str] | None,
        sizes: Sequence[object] | None,
        reference: str | os.PathLike[str] | None,
        settings: Settings,
        clip: Clip,
        progress: Note | None = None,
    ) -> None:
        self._settings = settings
        self._note: Note = progress or (lambda line: None)
        self._reference = None if reference is None else _plan.find_models([reference])[0]
        try:
            self._temporary = tempfile.TemporaryDirectory(prefix="fastvid-bench-")
        except OSError as error:
            raise OutputError(
                f"bench: a temporary folder cannot be made: {error.strerror}",
                hint="TMPDIR names another place",
            ) from None
        self._folder = Path(self._temporary.name)
        self._interrupted = False
        self._references: dict[tuple[Path, tuple[int, int]], Path | None] = {}
        try:
            self._inputs = Inputs(self._folder, source)
            specs = _plan.make(models, formats, sizes, clip, self._inputs.size)
        except BaseException:
            self._temporary.cleanup()
            raise
        self._works = [
            Work(spec, self._folder / f"outputs-{i}.raw") for i, spec in enumerate(specs)
        ]
        self._created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self._environment = environment()
        self._method = self._describe(source)

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *exception: object) -> None:
        self._temporary.cleanup()

    def _describe(self, source: str | os.PathLike[str] | None) -> dict[str, Any]:
        settings = self._settings
        return {
            "input": "drawn scene" if source is None else Path(source).name,
            "seconds": settings.seconds,
            "min_samples": settings.min_samples,
            "max_seconds": settings.max_seconds,
            "processes": settings.processes,
            "threads": settings.threads,
            "interleaved": settings.interleave,
            "garbage_collection": "off in timed calls",
            "timer_overhead_us": _sampling.timer_overhead(),
            "hook_overhead_us": hook_overhead(),
        }

    def results(self) -> Results:
        """What is known by now."""
        return Results(
            rows=tuple(work.row() for work in self._works),
            environment=self._environment,
            method=self._method,
            command=command(),
            created=self._created,
            interrupted=self._interrupted,
            warnings=tuple(warnings_of(self._environment)),
        )

    def measure(self) -> None:
        """Measures every row.

        Raises:
            KeyboardInterrupt: Somebody stopped it; `results` has what was measured until then.
        """
        try:
            for works in self._groups():
                while works:
                    works = self._measure(works)
        except BaseException:
            self._interrupted = True
            for work in self._works:
                work.interrupt()
            raise

    def _groups(self) -> Iterator[list[Work]]:
        waiting = [work for work in self._works if not work.done]
        if not self._settings.interleave:
            yield from ([work] for work in waiting)
            return
        for group in dict.fromkeys(work.spec.group for work in waiting):
            yield [work for work in waiting if work.spec.group == group]

    def _measure(self, works: list[Work]) -> list[Work]:
        """Measures as many rows as there is memory for; returns those that are left."""
        for work in works:
            self._prepare(work)
            if work.spec.backend == "tensorrt":
                self._try(work, self._build, "building engines")
        later: list[Work] = []
        for number in range(self._settings.processes):
            later += self._round(works, number)
            works = [work for work in works if work not in later]
        for work in works:
            self._end(work)
        return later

    def _round(self, works: list[Work], number: int) -> list[Work]:
        """A process of each row: its start, its share of the calls, its end.

        Returns:
            Rows for which there was no memory, in the first round.
        """
        count = self._settings.processes
        alive: list[Work] = []
        later: list[Work] = []
        for index, work in enumerate(works):
            if number == 0 and alive and not _has_room(alive):
                later += works[index:]
                break
            said = f"process {number + 1} of {count}, loading and warming up"
            if self._try(work, self._start, said):
                alive.append(work)
            elif number == 0 and alive and work.is_to_be_retried:
                work.retry()
                later.append(work)
        self._bursts(alive)
        for work in alive:
            if number == count - 1:
                self._try(work, self._finish, "stages, and from file to file")
            work.release()
        return later

    def _try(self, work: Work, step: Callable[[Work], None], what: str = "") -> bool:
        """Does a step of a row; an error ends the row and nothing else."""
        if work.done:
            return False
        if what:
            number = self._works.index(work) + 1
            self._note(f"[{number}/{len(self._works)}] {work.spec_label}: {what}")
        try:
            step(work)
        except RowError as error:
            work.fail(error)
            return False
        return True

    def _spawn(self, spec: Spec, outputs: Path) -> Child:
        return Child(self._child_spec(spec, outputs), self._settings.timeout)

    def _child_spec(self, spec: Spec, outputs: Path) -> dict[str, Any]:
        device: dict[str, Any] = {
            "device": spec.device,
            "backend": spec.backend,
            "precision": spec.computes,
        }
        values: dict[str, Any] = {
            "task": spec.task,
            "model": str(spec.bundle.path),
            "scale": spec.bundle.scale,
            "device": device | {"threads": self._settings.threads},
            "cuda": None if spec.device == "cpu" else int(spec.device.partition(":")[2]),
            "size": f"{spec.size[0]}x{spec.size[1]}",
            "outputs": str(outputs),
            "generation": spec.generation,
        }
        if spec.task != "generator":
            values["frames"] = self._inputs.frames(spec.size)
        return values

    def _prepare(self, work: Work) -> None:
        """Makes the frames of a row, so that no start waits for them."""
        if work.spec.task != "generator" and not self._inputs.are_made(work.spec.size):
            self._note(f"making frames of {work.spec.size[0]}x{work.spec.size[1]}")
            self._inputs.frames(work.spec.size)

    def _build(self, work: Work) -> None:
        """Builds engines in a process of its own, so that no start holds any of it."""
        timeout = max(self._settings.timeout, _BUILD_SECONDS)
        work.child = Child(self._child_spec(work.spec, work.outputs), timeout)
        work.built(work.child.ask("build"))
        work.release()

    def _start(self, work: Work) -> None:
        work.child = child = self._spawn(work.spec, work.outputs)
        work.opened(child.ask("open"))
        if work.shape is None:
            work.shape = child.ask("outputs")["shape"]
        share = self._settings.seconds / self._settings.processes
        work.warmed(child.ask("warm", least=share / 2, most=2 * share))
        work.holds(child.ask("memory"))

    def _bursts(self, works: list[Work]) -> None:
        """Bursts of all rows in turns, until each process has had its share."""
        settings = self._settings
        parts = settings.processes
        seconds = settings.seconds / parts / _BURSTS
        waiting = list(works)
        while waiting:
            for work in waiting:
                self._try(work, lambda w: w.add(w.ask("burst", seconds=seconds, most=10_000)))
            waiting = [
                work
                for work in waiting
                if not work.done
                and work.seconds < settings.max_seconds / parts
                and (
                    work.seconds < settings.seconds / parts
                    or work.samples * parts < settings.min_samples
                )
            ]
        for work in works:
            self._try(work, lambda w: w.holds(w.ask("memory")))

    def _finish(self, work: Work) -> None:
        child = work.child
        assert child is not None
        work.split(child.ask("split"))
        clip = ""
        if work.spec.task != "generator":
            short, long = CLIP_FRAMES
            count = long if long * work.median_ms < _LONG_CLIP_MS else short
            clip = self._inputs.clips(work.spec.size)[count]
        try:
            work.filed(child.ask("file", clip=clip, output=str(self._folder / "out.mp4")))
        except RowError as error:
            if not error.error:
                raise
            # A size that no encoder takes says nothing about the calls.
            work.notes.append(f"nothing from file to file: {error.reason}")
        work.memory["file_peak_rss_mb"] = child.ask("memory")["peak_rss_mb"]
        child.ask("close")

    def _end(self, work: Work) -> None:
        if work.done:
            return
        work.quality = self._compare(work)
        work.finish()
        self._note(f"{work.spec_label}: {work.median_ms:.2f} ms per frame")

    def _compare(self, work: Work) -> dict[str, Any]:
        bundle, label = _plan.reference_of(
            work.spec, [w.spec for w in self._works], self._reference
        )
        path = self._reference_outputs(bundle, work.spec)
        if path is None or work.shape is None:
            work.notes.append(f"no quality: the reference {label} did not run on the CPU")
            return {}
        return _quality.compare(work.outputs, path, work.shape, f"{label} onnx-cpu float32")

    def _reference_outputs(self, bundle: Bundle, spec: Spec) -> Path | None:
        """The frames of a model on the CPU: those of a row, or of one more process."""
        for work in self._works:
            other = work.spec
            same = (other.bundle.path, other.size) == (bundle.path, spec.size)
            if same and other.format == "onnx-cpu" and work.shape is not None:
                return work.outputs
        key = (bundle.path, spec.size)
        if key not in self._references:
            path = self._folder / f"reference-{len(self._references)}.raw"
            wanted = Spec(
                bundle, bundle.name, "onnx-cpu", "onnxruntime", "cpu", spec.size,
                generation=spec.generation,
            )  # fmt: skip
            work = Work(wanted, path)
            self._note(f"{work.spec_label}: reference")
            done = self._try(work, self._reference_run)
            work.release()
            self._references[key] = path if done else None
        return self._references[key]

    def _reference_run(self, work: Work) -> None:
        work.child = self._spawn(work.spec, work.outputs)
        work.child.ask("open")
        work.child.ask("outputs")


def _has_room(alive: Sequence[Work]) -> bool:
    """Whether one more process fits beside those that wait for their turns."""
    free = probes.memory_available()
    largest = max((w.memory.get("peak_rss_mb") or 0.0) for w in alive)
    return free is None or free > _ROOM * 1e6 * largest
