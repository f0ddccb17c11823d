"""`fastvid export`, which the runtime's command line finds through its entry point.

Only the standard library and the table of formats are imported before the command runs, so that its
help is instant and a missing package is an error of its own.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

from fastvid.errors import BackendUnavailableError, InputError
from fastvid_export import formats
from fastvid_export.families.settings import pairs

TEXT = "Turn a checkpoint, a bundle, others' weights or ONNX into what runs elsewhere or faster."
INSTALL = "pip install 'fastvid-sdk[cpu,export]'"
_NEEDED = ("onnx", "onnxruntime")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what `fastvid export` takes."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"formats:\n{_indented(formats.to_text())}"
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="checkpoint (.pt), bundle folder, shipped name, folder of diffusers, or .onnx",
    )
    parser.add_argument(
        "--format", default="onnx", metavar="NAME", help=f"{', '.join(formats.NAMES)}; see below"
    )
    parser.add_argument(
        "-o",
        "--output",
        "--out",
        metavar="FOLDER",
        help="by default named after the model, beside it",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier export")
    parser.add_argument(
        "--portable", action="store_true", help="standard ONNX operators only, none of fastvid's"
    )
    parser.add_argument(
        "--precision",
        metavar="NAME",
        help=f"of an engine or a repository: {_precisions()}; of a folder of diffusers: float32, "
        "bfloat16, int8 or int4",
    )
    parser.add_argument(
        "--lora",
        dest="loras",
        action="append",
        default=[],
        metavar="FILE[:SCALE]",
        help="merge a LoRA file into a folder of diffusers; may be repeated; "
        "transformer_2=FILE[:SCALE] for the second of two",
    )
    parser.add_argument("--device", default="cuda", help="GPU of an engine (default cuda)")
    parser.add_argument(
        "--size",
        dest="sizes",
        action="append",
        default=[],
        metavar="SIZE",
        help="frame size of an engine, such as 1080p or 1920x800; may be repeated",
    )
    parser.add_argument(
        "--data", metavar="PATH", help="video or folder of videos to calibrate and check with"
    )
    parser.add_argument(
        "--min-psnr", type=float, metavar="DB", help="what every output must reach, not the gate"
    )
    parser.add_argument(
        "--part",
        dest="parts",
        action="append",
        default=[],
        metavar="MODEL=FILE",
        help="checkpoint of a network trained apart, such as video-vae=vae/best.pt",
    )
    _add_onnx_arguments(parser)
    parser.add_argument(
        "--flow-scale",
        type=float,
        metavar="PART",
        help="of a RIFE checkpoint: look for motion at 0.5 or 0.25 of the size, for 4K",
    )
    parser.add_argument(
        "--tile",
        type=int,
        metavar="N",
        help="of a checkpoint: a graph for pieces of N x N alone, where its sizes cannot vary "
        "(default 256)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quiet", action="store_true", help="no progress and no summary")
    parser.add_argument("--debug", action="store_true", help="show the traceback of errors")


def _add_onnx_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "what a network in an ONNX file takes and gives",
        "What is not given is found by running it.",
    )
    group.add_argument("--task", metavar="NAME", help="upscale or interpolate")
    group.add_argument("--scale", type=int, metavar="N", help="of an upscaler")
    group.add_argument("--range", metavar="LOW,HIGH", help="of black and white")
    group.add_argument(
        "--output-range", metavar="LOW,HIGH", help="the same of what comes out, where it differs"
    )
    group.add_argument("--layout", metavar="NAME", help="nchw or nhwc")
    group.add_argument("--channels", metavar="NAME", help="rgb or bgr")
    group.add_argument(
        "--input",
        dest="inputs",
        action="append",
        default=[],
        metavar="NAME=ROLE",
        help="frames; or frame0, frame1, timestep, joined by + where an input takes several",
    )
    group.add_argument("--output-name", metavar="NAME", help="the output that is the picture")
    group.add_argument("--size-multiple", type=int, metavar="N", help="of height and width")
    group.add_argument("--padding", metavar="NAME", help="edge (default), reflect or none")
    group.add_argument("--name", help="of the model (default the file's)")
    group.add_argument("--licence", metavar="SPDX", help="of the weights")


def run(options: argparse.Namespace) -> int:
    """`fastvid export`.

    Raises:
        BackendUnavailableError: A package of the exporter is missing.
        FastvidError: See `export`.
    """
    for name in _NEEDED:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise BackendUnavailableError(
                f"export: {name} cannot be imported: {error}", hint=INSTALL
            ) from None
    from fastvid_export import exporting
    from fastvid_export.foreign_graphs import OnnxFlags

    flags = OnnxFlags(
        task=options.task,
        scale=options.scale,
        range=_range("range", options.range),
        output_range=_range("output-range", options.output_range),
        layout=options.layout,
        order=options.channels,
        inputs=pairs("input", options.inputs),
        output=options.output_name,
        multiple_of=options.size_multiple,
        padding=options.padding,
        name=options.name,
        licence=options.licence,
        flow_scale=options.flow_scale,
        tile=options.tile,
    )
    request = exporting.Request(
        model=options.model,
        format=options.format,
        output=options.output,
        overwrite=options.overwrite,
        portable=options.portable,
        precision=options.precision,
        device=options.device,
        sizes=tuple(options.sizes),
        data=options.data,
        min_psnr=options.min_psnr,
        parts={k: Path(v) for k, v in pairs("part", options.parts).items()},
        onnx=flags,
        loras=tuple(options.loras),
    )
    quiet = options.quiet or options.json
    made = exporting.run(request, lambda line: None if quiet else _note(line))
    if options.json:
        print(json.dumps(made.to_dict(), indent=2), flush=True)
    elif not options.quiet:
        share = made.bytes / made.source_bytes
        print(f"{made.path}")
        print(
            f"{made.bytes / 1e6:.2f} MB, {share:.2f} of the {made.source_bytes / 1e6:.2f} MB it "
            f"was made from, in {made.seconds:.1f} s"
        )
        print(f"next: {made.next_command}")
    else:
        print(made.path)
    return 0


def _precisions() -> str:
    return ", ".join(formats.PRECISIONS)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _range(name: str, text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    parts: list[Any] = text.split(",")
    try:
        low, high = (float(part) for part in parts)
    except ValueError:
        raise InputError(f"{name}: argument must be LOW,HIGH, got {text!r}") from None
    return low, high
