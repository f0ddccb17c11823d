"""`fastvid bench`: measures, prints, writes, and checks bounds."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from fastvid.bench import _assertions
from fastvid.bench._assertions import Failure
from fastvid.bench._compare import Comparison, compare
from fastvid.bench._plan import Clip
from fastvid.bench._runner import Runner
from fastvid.bench._settings import Settings
from fastvid.bench.results import Results
from fastvid.errors import FastvidError, InputError, NoDeviceError
from fastvid.video.target import Target, output_errors

EXIT_MISSED = 3
"""Status where a row misses a bound of `--assert`."""

_SUFFIXES = (".json", ".md")


def bench(options: argparse.Namespace) -> int:
    """Runs the command; see `fastvid bench --help`."""
    _check_outputs(options)
    if options.compare is not None:
        return _compare(options)
    bounds = [bound for text in options.bounds or () for bound in _assertions.parse(text)]
    with _runner(options) as runner:
        try:
            runner.measure()
        except KeyboardInterrupt as stop:
            _publish(options, runner.results())
            if options.json:
                return _status_of(stop)
            raise
        results = runner.results()
    failures = _assertions.check(results, bounds, skip_unavailable=options.formats is None)
    _publish(options, results, failures)
    for failure in failures:
        print(f"fastvid: missed: {failure}", file=sys.stderr)
    return EXIT_MISSED if failures else _status(results)


def _runner(options: argparse.Namespace) -> Runner:
    settings = Settings(
        seconds=options.seconds,
        min_samples=options.min_samples,
        max_seconds=5 * options.seconds if options.max_seconds is None else options.max_seconds,
        processes=options.processes,
        threads=options.threads,
        interleave=not options.sequential,
        timeout=options.timeout,
    )
    clip = Clip(options.prompt or Clip.prompt, options.num_inference_steps, options.num_frames)
    return Runner(
        options.models,
        options.input,
        options.formats,
        options.size,
        options.reference,
        settings,
        clip,
        None if options.quiet else _note,
    )


def _status(results: Results) -> int:
    """0 if any row ran, else the code of the first that did not."""
    if any(row.status == "ok" for row in results.rows):
        return 0
    codes = [row.error.get("exit_code") for row in results.rows if row.status == "failed"]
    if codes:
        return int(codes[0] or FastvidError.exit_code)
    return NoDeviceError.exit_code


def _status_of(stop: KeyboardInterrupt) -> int:
    from fastvid import cli

    # Only Ctrl-C raises the class itself.
    return cli.EXIT_INTERRUPTED if type(stop) is KeyboardInterrupt else cli.EXIT_TERMINATED


def _check_outputs(options: argparse.Namespace) -> None:
    """Refuses an output that cannot be written before anything is measured."""
    for path in options.output or ():
        if not path.endswith(_SUFFIXES):
            raise InputError(f"output: argument must end in .json or .md, got {path!r:.80}")
        Target(path, overwrite=options.overwrite).discard()


def _publish(
    options: argparse.Namespace, results: Results, failures: Sequence[Failure] = ()
) -> None:
    for path in options.output or ():
        text = results.to_json() + "\n" if path.endswith(".json") else results.to_markdown()
        _write(path, text, overwrite=options.overwrite)
    if options.json:
        missed = [
            {"assertion": str(f.assertion), "row": f.row, "problem": f.problem} for f in failures
        ]
        values: dict[str, Any] = {**results.to_dict(), "missed": missed}
        print(json.dumps(values, indent=1, allow_nan=False), flush=True)
    elif not options.quiet:
        print(results.to_text(), flush=True)


def _write(path: str, text: str, *, overwrite: bool) -> None:
    target = Target(path, overwrite=overwrite)
    try:
        with output_errors(path), open(target.part, "w", encoding="utf-8") as file:
            file.write(text)
        target.commit()
    finally:
        target.discard()


def _compare(options: argparse.Namespace) -> int:
    for given, word in ((options.models, "MODEL"), (options.bounds, "--assert")):
        if given:
            raise InputError(f"bench: --compare reads two files and takes no {word}")
    before, after = (Results.load(os.path.expanduser(path)) for path in options.compare)
    comparison: Comparison = compare(before, after)
    for path in options.output or ():
        is_json = path.endswith(".json")
        text = comparison.to_json() + "\n" if is_json else comparison.to_markdown()
        _write(path, text, overwrite=options.overwrite)
    if options.json:
        print(comparison.to_json(), flush=True)
    elif not options.quiet:
        print(comparison.to_text(), flush=True)
    return 0


def _note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
