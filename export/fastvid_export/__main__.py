"""`python -m fastvid_export train | prepare | average | bundle | precisions | credits | ...`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from fastvid.errors import FastvidError
from fastvid_export import registry
from fastvid_export.families.settings import pairs


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        result: int = options.run(options)
    except FastvidError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fastvid_export", description="Train and export fastvid's models."
    )
    commands = parser.add_subparsers(required=True)
    train = commands.add_parser("train", help="train a model; resumable and seeded")
    train.add_argument("model", choices=registry.NAMES)
    train.add_argument("--data", type=Path, required=True, help="folder with photos/ and clips/")
    train.add_argument("--out", type=Path, required=True, help="folder of the run")
    train.add_argument("--cache", type=Path, help="folder of prepared material [OUT/cache]")
    train.add_argument("--resume", action="store_true", help="go on from OUT/last.pt")
    train.add_argument("--init", type=Path, help="checkpoint whose weights a new run starts from")
    train.add_argument("--steps", type=int, help="optimiser steps of the whole schedule")
    train.add_argument("--seed", type=int)
    train.add_argument("--threads", type=int)
    train.add_argument("--lr", type=float, help="peak learning rate")
    train.add_argument(
        "--hold", type=float, help="share of the steps at the peak before the rate falls"
    )
    train.add_argument(
        "--bfloat16-until",
        type=float,
        help="share of the run that computes in bfloat16, which CPUs with avx512_bf16 do faster",
    )
    train.add_argument(
        "--compile", action="store_true", default=None, help="let torch compile the network first"
    )
    train.add_argument("--validate-every", type=int, help="steps between validations")
    train.set_defaults(run=_train)
    prepare = commands.add_parser("prepare", help="build the material of a training, and stop")
    prepare.add_argument("model", choices=registry.NAMES)
    prepare.add_argument("--data", type=Path, required=True, help="folder with photos/ and clips/")
    prepare.add_argument("--cache", type=Path, required=True, help="folder of prepared material")
    prepare.add_argument("--threads", type=int, default=1)
    prepare.set_defaults(run=_prepare)
    for command in (train, prepare):
        command.add_argument(
            "--set",
            dest="settings",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="an option of the network or of its material, for example depth=5",
        )
    average = commands.add_parser("average", help="mean of the weights of two checkpoints")
    average.add_argument("first", type=Path)
    average.add_argument("second", type=Path, help="of the same network; its log comes along")
    average.add_argument("--share", type=float, default=0.5, help="weight of the second [0.5]")
    average.add_argument("--out", type=Path, required=True, help="file of the checkpoint")
    average.set_defaults(run=_average)
    bundle = commands.add_parser("bundle", help="export a checkpoint as a bundle")
    bundle.add_argument("model", choices=registry.NAMES)
    bundle.add_argument("--checkpoint", type=Path, required=True)
    bundle.add_argument("--out", type=Path, required=True, help="folder of the bundle")
    bundle.add_argument(
        "--part",
        dest="parts",
        action="append",
        default=[],
        metavar="MODEL=FILE",
        help="checkpoint of a network trained apart, for example video-vae=vae/best.pt",
    )
    bundle.add_argument("--data", type=Path, help="material to measure quality with")
    bundle.add_argument("--cache", type=Path, help="folder of prepared material")
    bundle.set_defaults(run=_bundle)
    precisions = commands.add_parser(
        "precisions", help="measure a bundle in other backends and precisions, and write it there"
    )
    precisions.add_argument("folder", type=Path, help="of the bundle")
    precisions.add_argument("--data", type=Path, help="a video or a folder of them [drawn scenes]")
    precisions.add_argument("--reference", type=Path, help="the model in float32, for one in less")
    precisions.add_argument("--rounds", type=int, default=15, help="times each is timed")
    precisions.add_argument("--dry-run", action="store_true", help="write nothing")
    precisions.set_defaults(run=_precisions)
    architectures = commands.add_parser(
        "architectures", help="print the page of networks whose published weights can be imported"
    )
    architectures.set_defaults(run=_architectures)
    credits = commands.add_parser("credits", help="print what NOTICE must say of the material")
    credits.set_defaults(run=_credits)
    return parser


def _train(options: argparse.Namespace) -> int:
    from fastvid_export.training import loop

    family = registry.family(options.model)
    named = (
        "steps",
        "seed",
        "threads",
        "lr",
        "hold",
        "bfloat16_until",
        "compile",
        "validate_every",
    )
    given = {name: getattr(options, name) for name in named if getattr(options, name) is not None}
    config = dataclasses.replace(family.loop(), **given)
    task = family.task(
        options.data, options.cache or options.out / "cache", pairs("set", options.settings)
    )
    best = loop.run(
        task,
        config,
        options.out,
        resume=options.resume,
        init=options.init,
        on_event=lambda event: print(json.dumps(event), flush=True),
    )
    print(best)
    return 0


def _prepare(options: argparse.Namespace) -> int:
    import torch

    torch.set_num_threads(options.threads)
    task = registry.family(options.model).task(
        options.data, options.cache, pairs("set", options.settings)
    )
    task.prepare()
    return 0


def _average(options: argparse.Namespace) -> int:
    from fastvid_export.training import checkpoint

    both = [checkpoint.load(path) for path in (options.first, options.second)]
    made = checkpoint.averaged(both[0], both[1], options.share)
    checkpoint.save(made, options.out)
    log = options.second.with_name("log.jsonl")
    told = log.read_text() if log.is_file() else ""
    event = {"event": "average", "step": made.step, "steps": [c.step for c in both]}
    line = json.dumps(event | {"share": options.share})
    options.out.with_name("log.jsonl").write_text(f"{told}{line}\n")
    print(options.out)
    return 0


def _bundle(options: argparse.Namespace) -> int:
    from fastvid_export import bundles

    made = bundles.build(
        options.model,
        options.checkpoint,
        options.out,
        parts={name: Path(path) for name, path in pairs("part", options.parts).items()},
        data=options.data,
        cache=options.cache,
    )
    print(made.path)
    return 0


def _precisions(options: argparse.Namespace) -> int:
    from fastvid.bundle import Bundle
    from fastvid_export import precisions, samples

    bundle = Bundle.load(options.folder)
    reference = None if options.reference is None else Bundle.load(options.reference)
    material = None if options.data is None else samples.from_videos(options.data)
    measured = precisions.measure(
        bundle, reference=reference, material=material, rounds=options.rounds
    )
    for row in measured:
        print(row.to_text())
    if not options.dry_run:
        precisions.update(bundle, measured)
    return 0


def _architectures(options: argparse.Namespace) -> int:
    from fastvid_export import architectures

    print(architectures.to_markdown(), end="")
    return 0


def _credits(options: argparse.Namespace) -> int:
    from fastvid_export.training import material

    print("\n".join(material.credits()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
