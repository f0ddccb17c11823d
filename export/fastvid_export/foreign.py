"""A network from elsewhere as a bundle: its ONNX file, and flags that say what it takes.

The network is not changed. Nodes around it turn uint8 frames into what it takes and its result back
into frames, so that the SDK's classes run it. Nothing is guessed from the weights; what the flags
say is tried on a drawn picture, and a result that does not look like it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.compose
from onnx import TensorProto

from fastvid.bundle import Bundle, write_bundle
from fastvid.errors import InputError
from fastvid.metrics import psnr
from fastvid.scene import Scene
from fastvid_export import onnx_files
from fastvid_export.convert.standard.builder import Builder
from fastvid_export.errors import ExportError
from fastvid_export.running import Arrays, Runner

TASKS = ("upscaler", "interpolator")
LAYOUTS = ("nchw", "nhwc")
ORDERS = ("rgb", "bgr")
_FRAMES = ("frame0", "frame1")
_ROLES = {"upscaler": ("frames",), "interpolator": (*_FRAMES, "timestep")}
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8)
_LIKENESS = 15.0
"""dB; even a poor network is above, colours or levels that were mistaken are below."""
_TRIED = 64
_INSIDE = "network."
"""What the network's own names get, so that none is one of ours."""


@dataclass(frozen=True)
class OnnxFlags:
    """What a network takes and gives."""

    task: str | None = None
    """`upscaler` or `interpolator`."""
    scale: int | None = None
    """Output side divided by input side; upscalers only."""
    range: tuple[float, float] | None = None
    """What black and white are; (0, 1) by default."""
    layout: str | None = None
    """`nchw` (default) or `nhwc`."""
    order: str | None = None
    """`rgb` (default) or `bgr`."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """What each input is: `frames`, or `frame0`, `frame1` and `timestep`; joined by `+` where an
    input takes several along its channels. By default in this order."""
    output: str | None = None
    """The output that is the picture; the only one by default."""
    multiple_of: int | None = None
    """What heights and widths must be multiples of; 1 by default."""
    padding: str | None = None
    """How frames of other sizes are padded: `edge` (default), `reflect` or `none`."""
    name: str | None = None
    """Of the model; that of the file by default."""
    licence: str | None = None
    """SPDX expression for the weights; `LicenseRef-unknown` by default."""

    def refuse(self, kind: str) -> None:
        """Raises InputError if a flag is given for what needs none."""
        given = [f.name.replace("_", "-") for f in fields(self) if getattr(self, f.name)]
        if given:
            raise InputError(
                f"{given[0]}: argument is for ONNX files, got a {kind}, which says it itself"
            )


@dataclass(frozen=True)
class _Wanted:
    """Checked flags."""

    task: str
    scale: int
    low: float
    high: float
    last: bool
    """Whether channels come last."""
    reverse: bool
    """Whether blue comes first."""
    multiple_of: int
    padding: str


def name_of(path: Path, flags: OnnxFlags) -> str:
    """Name of the model, as bundles allow it."""
    text = re.sub(r"[^a-z0-9._-]+", "-", (flags.name or path.stem).lower()).strip("-._")
    return text[:56] or "model"


def wrap(path: Path, flags: OnnxFlags, out: Path) -> Bundle:
    """Writes the bundle of a network into the folder `out`.

    Raises:
        InputError: A flag is missing or does not fit the network.
        ExportError: The file is no network, or gives something else than the flags say.
        IntegrityError: Its weights cannot be read.
        UnsafePathError: Its weights lie outside its folder.
    """
    wanted = _checked(flags)
    model = onnx_files.read(path)
    graphs = _upscaler(model, wanted, flags)
    if wanted.task == "interpolator":
        graphs = _interpolator(model, wanted, flags)
    files: dict[str, bytes] = {}
    specs: dict[str, Any] = {}
    for name, (graph, ports) in graphs.items():
        written = onnx_files.dump(graph, f"{name}.onnx")
        files |= written
        specs[name] = {"file": f"{name}.onnx", **ports}
        if external := [file for file in written if file.endswith(".data")]:
            specs[name]["external_data"] = external
    _try(files, wanted)
    rule: dict[str, Any] = {
        "minimum": wanted.multiple_of, "multiple_of": wanted.multiple_of, "padding": wanted.padding
    }  # fmt: skip
    manifest = {
        "name": name_of(path, flags),
        "task": wanted.task,
        "description": f"{path.name}, wrapped for fastvid",
        "licence": flags.licence or "LicenseRef-unknown",
        "provenance": {"weights": f"Those of {path.name}; fastvid does not know their origin."},
        "graphs": specs,
        "size_rule": rule,
    }
    if wanted.task == "upscaler":
        manifest["scale"] = wanted.scale
    return write_bundle(out, manifest, files)


def _checked(flags: OnnxFlags) -> _Wanted:
    def one_of(name: str, value: str | None, allowed: Sequence[str], default: str | None) -> str:
        if value is None and default is not None:
            return default
        if value not in allowed:
            given = "nothing" if value is None else repr(value)
            raise InputError(
                f"{name}: argument must be one of {', '.join(allowed)} for an ONNX file, got "
                f"{given}",
                hint="an ONNX file does not say what it is: --task, --scale, --range, --layout, "
                "--channels, --input, --output-name and --size-multiple do",
            )
        return value

    task = one_of("task", flags.task, TASKS, None)
    low, high = flags.range or (0.0, 1.0)
    if not low < high:
        raise InputError(f"range: argument must be LOW,HIGH with LOW < HIGH, got {low:g},{high:g}")
    if (task == "upscaler") != (flags.scale is not None):
        raise InputError(
            f"scale: argument must be given for upscalers and for no other, task is {task!r}",
            hint="--scale 2 for a network that doubles both sides",
        )
    multiple = flags.multiple_of or 1
    for name, value in (("scale", flags.scale or 1), ("size-multiple", multiple)):
        if not 1 <= value <= (16 if name == "scale" else 512):
            raise InputError(f"{name}: argument must be positive and sensible, got {value}")
    return _Wanted(
        task=task,
        scale=flags.scale or 1,
        low=float(low),
        high=float(high),
        last=one_of("layout", flags.layout, LAYOUTS, "nchw") == "nhwc",
        reverse=one_of("channels", flags.order, ORDERS, "rgb") == "bgr",
        multiple_of=multiple,
        padding=one_of("padding", flags.padding, ("edge", "reflect", "none"), "edge"),
    )


# The network's own inputs and outputs


def _inputs(model: onnx.ModelProto, wanted: _Wanted, flags: OnnxFlags) -> dict[str, list[str]]:
    """The roles of each input of the network."""
    weights = {weight.name for weight in model.graph.initializer}
    names = [value.name for value in model.graph.input if value.name not in weights]
    roles = _ROLES[wanted.task]
    if unknown := set(flags.inputs) - set(names):
        raise InputError(
            f"input: name must be one of {', '.join(names)}, got {', '.join(sorted(unknown))}"
        )
    given = dict(flags.inputs) or dict(zip(names, roles, strict=False))
    if missing := [name for name in names if name not in given]:
        raise InputError(
            f"input: every input of the network must have a role, {', '.join(missing)} has none",
            hint=f"--input {missing[0]}=ROLE with ROLE one of {', '.join(roles)}",
        )
    found = {name: text.split("+") for name, text in given.items()}
    for name, parts in found.items():
        if wrong := [part for part in parts if part not in roles]:
            raise InputError(f"input: role of {name} must be of {', '.join(roles)}, got {wrong[0]}")
    needed = roles[:1] if wanted.task == "upscaler" else _FRAMES
    absent = [role for role in needed if not any(role in parts for parts in found.values())]
    if absent:
        raise InputError(f"input: one input must be {absent[0]}, got {given}")
    return found


def _shape(value: onnx.ValueInfoProto) -> list[int | str]:
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in dims]


def _port(model: onnx.ModelProto, name: str) -> onnx.ValueInfoProto:
    return next(v for v in [*model.graph.input, *model.graph.output] if v.name == name)


def _check_picture(value: onnx.ValueInfoProto, channels: int, wanted: _Wanted) -> None:
    """Whether an input or output is the picture that the flags say it is."""
    shape, dtype = _shape(value), value.type.tensor_type.elem_type
    if dtype not in _FLOATS:
        raise InputError(
            f"model: {value.name} must be float32, float16 or uint8, got "
            f"{TensorProto.DataType.Name(dtype)}"
        )
    if len(shape) != 4:
        raise InputError(f"model: {value.name} must have 4 axes, got shape {shape}")
    axis = 3 if wanted.last else 1
    if isinstance(shape[axis], int) and shape[axis] != channels:
        other = shape[1 if wanted.last else 3] == channels
        hint = f"--layout {'nchw' if wanted.last else 'nhwc'}" if other else ""
        raise InputError(
            f"model: {value.name} must have {channels} channels on axis {axis}, got shape {shape}",
            hint=hint,
        )
    sides = shape[1:3] if wanted.last else shape[2:4]
    if fixed := [side for side in sides if isinstance(side, int)]:
        raise InputError(
            f"model: height and width of {value.name} must vary, got {fixed} in shape {shape}",
            hint="export the network again with dynamic height and width",
        )


def _output(model: onnx.ModelProto, flags: OnnxFlags) -> onnx.ValueInfoProto:
    names = [value.name for value in model.graph.output]
    if flags.output is not None and flags.output not in names:
        raise InputError(
            f"output-name: argument must be one of {', '.join(names)}, got {flags.output!r}"
        )
    if flags.output is None and len(names) != 1:
        raise InputError(
            f"output-name: argument must say which of {', '.join(names)} is the picture",
            hint=f"--output-name {names[0]}",
        )
    return _port(model, flags.output or names[0])


# Nodes around it


def _to_network(b: Builder, frames: str, wanted: _Wanted, dtype: int) -> str:
    """uint8 (N, H, W, 3) as the network takes it."""
    x = frames if wanted.last else b.transpose(frames, 0, 3, 1, 2)
    if wanted.reverse:
        x = b.op("Gather", x, b.ints(2, 1, 0), axis=3 if wanted.last else 1)
    if dtype == TensorProto.UINT8:
        return x
    span = (wanted.high - wanted.low) / 255
    x = b.op("Mul", b.cast(x), b.const(span))
    if wanted.low:
        x = b.op("Add", x, b.const(wanted.low))
    return b.cast(x, dtype) if dtype != TensorProto.FLOAT else x


def _to_frames(b: Builder, x: str, wanted: _Wanted, dtype: int) -> str:
    """The network's result as uint8 (N, H, W, 3), clamped and rounded half to even."""
    if dtype != TensorProto.UINT8:
        x = b.cast(x) if dtype != TensorProto.FLOAT else x
        if wanted.low:
            x = b.op("Sub", x, b.const(wanted.low))
        x = b.op("Mul", b.no_nan(x), b.const(255 / (wanted.high - wanted.low)))
        x = b.op("Round", b.clip(x, b.const(0), b.const(255)))
        x = b.cast(x, TensorProto.UINT8)
    if wanted.reverse:
        x = b.op("Gather", x, b.ints(2, 1, 0), axis=3 if wanted.last else 1)
    return x if wanted.last else b.transpose(x, 0, 2, 3, 1)


def _info(name: str, dtype: int, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, dtype, shape)


def _opset(model: onnx.ModelProto) -> int:
    return next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)


def _assembled(
    model: onnx.ModelProto,
    before: Builder,
    after: Builder,
    inputs: Sequence[onnx.ValueInfoProto],
    output: onnx.ValueInfoProto,
    renamed: Mapping[str, str],
) -> onnx.ModelProto:
    """The network between two groups of nodes; `renamed` is what each of its inputs now reads."""
    made = onnx.compose.add_prefix(model, _INSIDE)
    graph = made.graph
    weights = {weight.name for weight in graph.initializer}
    kept = [value for value in graph.input if value.name in weights]
    links = [
        onnx.helper.make_node("Identity", [old], [_INSIDE + new]) for new, old in renamed.items()
    ]
    nodes = [*before.nodes, *links, *graph.node, *after.nodes]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(copies)
    graph.input.extend([*inputs, *kept])
    graph.output.append(output)
    graph.initializer.extend([*before.weights, *after.weights])
    return made


Graphs = dict[str, tuple[onnx.ModelProto, dict[str, Any]]]


def _upscaler(model: onnx.ModelProto, wanted: _Wanted, flags: OnnxFlags) -> Graphs:
    if wanted.task != "upscaler":
        return {}
    roles = _inputs(model, wanted, flags)
    if len(roles) != 1:
        raise InputError(f"input: an upscaler must have one input, got {', '.join(roles)}")
    source, result = _port(model, next(iter(roles))), _output(model, flags)
    for value in (source, result):
        _check_picture(value, 3, wanted)
    before, after = Builder("to_network", _opset(model)), Builder("to_frames", _opset(model))
    value = _to_network(before, "frames", wanted, source.type.tensor_type.elem_type)
    last = _to_frames(after, _INSIDE + result.name, wanted, result.type.tensor_type.elem_type)
    after.name_result(last, "upscaled")
    batch = _shape(source)[0]
    batch = batch if isinstance(batch, int) and batch else "N"
    factor = "" if wanted.scale == 1 else f"{wanted.scale}*"
    large: list[int | str] = [batch, f"{factor}H", f"{factor}W", 3]
    frames = [batch, "H", "W", 3]
    made = _assembled(
        model,
        before,
        after,
        [_info("frames", TensorProto.UINT8, frames)],
        _info("upscaled", TensorProto.UINT8, [batch, "large_H", "large_W", 3]),
        {source.name: value},
    )
    ports = {
        "inputs": [{"name": "frames", "dtype": "uint8", "shape": frames}],
        "outputs": [{"name": "upscaled", "dtype": "uint8", "shape": large}],
    }
    return {"upscale": (made, ports)}


def _interpolator(model: onnx.ModelProto, wanted: _Wanted, flags: OnnxFlags) -> Graphs:
    """`motion` prepares both frames once; `between` is the network and the way back."""
    roles = _inputs(model, wanted, flags)
    result = _output(model, flags)
    _check_picture(result, 3, wanted)
    opset = _opset(model)
    shape: list[int | str] = [1, "H", "W", 3] if wanted.last else [1, 3, "H", "W"]
    frame: list[int | str] = [1, "H", "W", 3]
    motion, before, after = (Builder(name, opset) for name in ("motion", "before", "after"))
    for i, name in enumerate(_FRAMES):
        motion.name_result(_to_network(motion, name, wanted, TensorProto.FLOAT), f"image{i}")
    renamed = {}
    for name, parts in roles.items():
        port = _port(model, name)
        pictures = sum(part in _FRAMES for part in parts)
        if pictures:
            _check_picture(port, 3 * pictures + ("timestep" in parts), wanted)
        values = [_part(before, part, parts, port, wanted) for part in parts]
        joined = values[0]
        if len(values) > 1:
            joined = before.op("Concat", *values, axis=3 if wanted.last else 1)
        dtype = port.type.tensor_type.elem_type
        renamed[name] = joined if dtype == TensorProto.FLOAT else before.cast(joined, dtype)
    last = _to_frames(after, _INSIDE + result.name, wanted, result.type.tensor_type.elem_type)
    after.name_result(last, "frame")
    images = [_info(f"image{i}", TensorProto.FLOAT, shape) for i in range(2)]
    moment = _info("timestep", TensorProto.FLOAT, [1])
    between = _assembled(
        model, before, after, [*images, moment], _info("frame", TensorProto.UINT8, frame), renamed
    )
    graph = onnx.helper.make_graph(
        motion.nodes,
        "motion",
        [_info(name, TensorProto.UINT8, frame) for name in _FRAMES],
        images,
        motion.weights,
    )
    imports = [onnx.helper.make_opsetid("", opset)]
    prepared = onnx.helper.make_model(graph, opset_imports=imports, ir_version=model.ir_version)
    limits = [wanted.low, wanted.high]
    features = [
        {"name": f"image{i}", "dtype": "float32", "shape": shape, "range": limits} for i in range(2)
    ]
    time = {"name": "timestep", "dtype": "float32", "shape": [1], "range": [0, 1]}
    pair = [{"name": name, "dtype": "uint8", "shape": frame} for name in _FRAMES]
    return {
        "motion": (prepared, {"inputs": pair, "outputs": features}),
        "between": (
            between,
            {
                "inputs": [*features, time],
                "outputs": [{"name": "frame", "dtype": "uint8", "shape": frame}],
            },
        ),
    }


def _part(
    b: Builder, role: str, parts: Sequence[str], port: onnx.ValueInfoProto, wanted: _Wanted
) -> str:
    """What an input, or its share of one, is fed."""
    if role in _FRAMES:
        return f"image{_FRAMES.index(role)}"
    shape = _shape(port)
    if len(parts) == 1 and len(shape) <= 1:
        return b.op("Squeeze", "timestep", b.ints(0)) if not shape else "timestep"
    moment = b.op("Reshape", "timestep", b.ints(*([1] * (4 if len(parts) > 1 else len(shape)))))
    if len(parts) == 1 and all(size == 1 for size in shape[1:]):
        return str(moment)
    # A plane of the frames' size.
    first = 1 if wanted.last else 2
    sides = b.op("Shape", "image0", start=first, end=first + 2)
    ends = [b.ints(1), sides, b.ints(1)] if wanted.last else [b.ints(1, 1), sides]
    return str(b.op("Expand", moment, b.op("Concat", *ends, axis=0)))


# Whether it is true


def _try(files: Mapping[str, bytes], wanted: _Wanted) -> None:
    """Runs the bundle's graphs once on a drawn picture.

    Raises:
        ExportError: They fail, or make something that does not look like the picture.
    """
    side = -(-_TRIED // wanted.multiple_of) * wanted.multiple_of
    picture = Scene(side, side, seed=1).draw(0.5)[None]
    if wanted.task == "upscaler":
        made = _ran(files, "upscale", {"frames": picture})["upscaled"]
        expected = (1, wanted.scale * side, wanted.scale * side, 3)
        if made.shape != expected:
            raise ExportError(
                f"scale: argument must be what the network does, {wanted.scale} gives {expected}, "
                f"the network {made.shape}",
                hint="--scale, --layout and --size-multiple say what the network takes",
            )
        blocks = made.reshape(1, side, wanted.scale, side, wanted.scale, 3)
        small = np.rint(blocks.mean((2, 4))).astype(np.uint8)
    else:
        features = _ran(files, "motion", {"frame0": picture, "frame1": picture})
        moment = np.array([0.5], np.float32)
        small = _ran(files, "between", features | {"timestep": moment})["frame"]
    if small.shape != picture.shape or psnr(small, picture) < _LIKENESS:
        found = f"{small.shape}"
        if small.shape == picture.shape:
            found = f"{psnr(small, picture):.1f} dB"
        raise ExportError(
            f"model: the result must look like the picture that went in, at least {_LIKENESS:g} dB "
            f"or {picture.shape}, got {found}",
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
