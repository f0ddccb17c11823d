"""A network from elsewhere as a bundle: its ONNX file, and what it takes.

The network is not changed. Nodes around it turn uint8 frames into what it takes and its result back
into frames, so that the SDK's classes run it. What the flags do not say is found by running it
(`probing`); the whole is tried on a drawn picture, and a result that does not look like it is
refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastvid.bundle import Bundle, write_bundle
from fastvid.errors import InputError
from fastvid.metrics import psnr
from fastvid.scene import Scene
from fastvid_export import onnx_files, probing, tiling
from fastvid_export.errors import ExportError
from fastvid_export.foreign_graphs import (
    OnnxFlags,
    Wanted,
    interpolator_graphs,
    upscaler_graphs,
)
from fastvid_export.running import Arrays, Runner

TASKS = ("upscaler", "interpolator")
_ALSO = {"upscale": "upscaler", "interpolate": "interpolator", "restore": "upscaler"}
"""The commands' words for the tasks."""
LAYOUTS = ("nchw", "nhwc")
ORDERS = ("rgb", "bgr")


def name_of(path: Path, flags: OnnxFlags) -> str:
    """Name of the model, as bundles allow it."""
    text = re.sub(r"[^a-z0-9._-]+", "-", (flags.name or path.stem).lower()).strip("-._")
    return text[:56] or "model"


def wrap(path: Path, flags: OnnxFlags, out: Path, say: Callable[[str], None]) -> Bundle:
    """Writes the bundle of a network into the folder `out`.

    Raises:
        InputError: A flag is missing or does not fit the network.
        ExportError: The file is no network, or gives something else than the flags say.
        IntegrityError: Its weights cannot be read.
        UnsafePathError: Its weights lie outside its folder.
    """
    wanted = _checked(flags)
    model = onnx_files.read(path)
    model, found = probing.probe(model, wanted, flags)
    wanted, flags = found.wanted, found.flags
    for what, text in found.lines.items():
        say(f"found {what}: {text}")
    make = upscaler_graphs if wanted.task == "upscaler" else interpolator_graphs
    graphs = make(model, wanted, flags)
    files: dict[str, bytes] = {}
    specs: dict[str, Any] = {}
    for name, (graph, ports) in graphs.items():
        written = onnx_files.dump(graph, f"{name}.onnx")
        files |= written
        specs[name] = {"file": f"{name}.onnx", **ports}
        if external := [file for file in written if file.endswith(".data")]:
            specs[name]["external_data"] = external
    _try(files, wanted)
    step = wanted.multiple_of
    least = max(wanted.minimum, step)
    manifest = {
        "name": name_of(path, flags),
        "task": wanted.task,
        "description": f"{path.name}, wrapped for fastvid",
        "licence": flags.licence or "LicenseRef-unknown",
        "provenance": {
            "weights": f"Those of {path.name}; fastvid does not know their origin.",
            "settings": probing.as_settings(found.lines),
        },
        "graphs": specs,
    }
    if wanted.task == "upscaler":
        manifest["scale"] = wanted.scale
        cut = _cut(files["upscale.onnx"], wanted)
        manifest["tiling"] = cut.manifest()
        # A frame that is no multiple of what pieces are could not be cut.
        step = math.lcm(step, cut.spec.multiple_of)
    manifest["size_rule"] = {
        "minimum": -(-least // step) * step, "multiple_of": step, "padding": wanted.padding
    }  # fmt: skip
    return write_bundle(out, manifest, files)


def _checked(flags: OnnxFlags) -> Wanted:
    def one_of(name: str, value: str | None, allowed: Sequence[str], default: str | None) -> str:
        if value is None and default is not None:
            return default
        if value not in allowed:
            given = "nothing" if value is None else repr(value)
            raise InputError(
                f"{name}: argument must be one of {', '.join(allowed)} for an ONNX file, got "
                f"{given}",
                hint="an ONNX file does not say what it is: --task does, and --scale, --range, "
                "--layout, --channels, --input and --size-multiple take the place of what is found",
            )
        return value

    if flags.flow_scale is not None:
        raise InputError("flow-scale: argument is for RIFE checkpoints, got an ONNX file")
    if flags.tile is not None:
        raise InputError("tile: argument is for checkpoints, got an ONNX file, which has its size")
    given = _ALSO.get(flags.task or "", flags.task)
    task = one_of("task", given, TASKS, None)
    low, high = flags.range or (0.0, 1.0)
    low_out, high_out = flags.output_range or (low, high)
    for name, black, white in (("range", low, high), ("output-range", low_out, high_out)):
        if not black < white:
            raise InputError(
                f"{name}: argument must be LOW,HIGH with LOW < HIGH, got {black:g},{white:g}"
            )
    if task != "upscaler" and flags.scale is not None:
        raise InputError(f"scale: argument must be given for upscalers only, task is {task!r}")
    multiple = flags.multiple_of or 1
    for name, value in (("scale", flags.scale or 1), ("size-multiple", multiple)):
        if not 1 <= value <= (16 if name == "scale" else 512):
            raise InputError(f"{name}: argument must be positive and sensible, got {value}")
    return Wanted(
        task=task,
        scale=flags.scale or 1,
        low=float(low),
        high=float(high),
        low_out=float(low_out),
        high_out=float(high_out),
        last=one_of("layout", flags.layout, LAYOUTS, "nchw") == "nhwc",
        reverse=one_of("channels", flags.order, ORDERS, "rgb") == "bgr",
        multiple_of=multiple,
        padding=one_of("padding", flags.padding, ("edge", "reflect", "none"), "edge"),
    )


def _cut(graph: bytes, wanted: Wanted) -> tiling.Tiling:
    """How frames may pass in pieces, or must."""
    runner = Runner(graph)

    def run(frames: tiling.Frames) -> tiling.Frames:
        return runner({"frames": frames})["upscaled"]

    if wanted.fixed is not None:
        return tiling.measure_fixed(run, wanted.scale, wanted.fixed)
    least = max(wanted.minimum, wanted.multiple_of)
    return tiling.measure(graph, run, wanted.scale, wanted.multiple_of, least)


# Whether it is true


def _try(files: Mapping[str, bytes], wanted: Wanted) -> None:
    """Runs the bundle's graphs once on a drawn picture.

    Raises:
        ExportError: They fail, or make something that does not look like the picture.
    """
    height, width = probing.sides_of(wanted)
    scene = Scene(max(width, 64), max(height, 64), seed=1).draw(0.5)
    picture = np.ascontiguousarray(scene[None, :height, :width])
    if wanted.task == "upscaler":
        made = _ran(files, "upscale", {"frames": picture})["upscaled"]
        expected = (1, wanted.scale * height, wanted.scale * width, 3)
        if made.shape != expected:
            raise ExportError(
                f"scale: argument must be what the network does, {wanted.scale} gives {expected}, "
                f"the network {made.shape}",
                hint="--scale, --layout and --size-multiple say what the network takes",
            )
        blocks = made.reshape(1, height, wanted.scale, width, wanted.scale, 3)
        small = np.rint(blocks.mean((2, 4))).astype(np.uint8)
    else:
        features = _ran(files, "motion", {"frame0": picture, "frame1": picture})
        moment = np.array([0.5], np.float32)
        small = _ran(files, "between", features | {"timestep": moment})["frame"]
    if small.shape != picture.shape or psnr(small, picture) < probing.LIKENESS:
        found = f"{small.shape}"
        if small.shape == picture.shape:
            found = f"{psnr(small, picture):.1f} dB"
        raise ExportError(
            "model: the result must look like the picture that went in, at least "
            f"{probing.LIKENESS:g} dB or {picture.shape}, got {found}",
            hint="--range, --channels, --layout and --input say what the network takes",
        )


def _ran(files: Mapping[str, bytes], graph: str, inputs: Arrays) -> Arrays:
    data = files[f"{graph}.onnx"]
    if f"{graph}.data" in files:
        raise ExportError(
            f"model: weights must fit {onnx_files.INLINE_LIMIT} bytes to be tried, they do not"
        )
    try:
        return Runner(data)(inputs)
    except ExportError as error:
        raise ExportError(
            f"model: the network must run on frames of {next(iter(inputs.values())).shape}: "
            f"{' '.join(error.message.split())[:300]}",
            hint="--layout, --size-multiple and --input say what the network takes",
        ) from None
