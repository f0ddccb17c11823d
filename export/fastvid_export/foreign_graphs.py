"""The graphs of a network from elsewhere: nodes around it, from frames and back to frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import onnx
import onnx.compose
from onnx import TensorProto

from fastvid.errors import InputError
from fastvid_export.convert.roles import NAMESPACE
from fastvid_export.convert.standard.builder import Builder

_FRAMES = ("frame0", "frame1")
_ROLES = {"upscaler": ("frames",), "interpolator": (*_FRAMES, "timestep")}
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8)
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
    """What black and white are; found by trying where it is not given, as is what follows."""
    output_range: tuple[float, float] | None = None
    """The same of what comes out, where it differs."""
    layout: str | None = None
    """`nchw` or `nhwc`."""
    order: str | None = None
    """`rgb` or `bgr`."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """What each input is: `frames`, or `frame0`, `frame1` and `timestep`; joined by `+` where an
    input takes several along its channels. By default in this order."""
    output: str | None = None
    """The output that is the picture; the only one by default."""
    multiple_of: int | None = None
    """What heights and widths must be multiples of."""
    padding: str | None = None
    """How frames of other sizes are padded: `edge` (default), `reflect` or `none`."""
    name: str | None = None
    """Of the model; that of the file by default."""
    licence: str | None = None
    """SPDX expression for the weights; `LicenseRef-unknown` by default."""
    flow_scale: float | None = None
    """The part of the frames' size at which an IFNet looks for motion; no ONNX file has it."""

    tile: int | None = None
    """Height and width to export a checkpoint for, which then takes no other; no ONNX file has
    it."""

    def refuse(self, kind: str) -> None:
        """Raises InputError if a flag is given for what needs none."""
        given = [f.name.replace("_", "-") for f in fields(self) if getattr(self, f.name)]
        if given:
            raise InputError(
                f"{given[0]}: argument is for ONNX files, got a {kind}, which says it itself"
            )

    def refuse_but(self, kind: str, *allowed: str) -> None:
        """Raises InputError if a flag is given for what needs none but those `allowed`."""
        replace(self, **dict.fromkeys(allowed)).refuse(kind)


@dataclass(frozen=True)
class Wanted:
    """Checked flags."""

    task: str
    scale: int
    low: float
    high: float
    low_out: float
    high_out: float
    last: bool
    """Whether channels come last."""
    reverse: bool
    """Whether blue comes first."""
    multiple_of: int
    padding: str
    channels: int = 3
    """3 for RGB; 1 for luma, of an upscaler."""
    minimum: int = 1
    """Least height and width."""
    fixed: tuple[int, int] | None = None
    """Height and width, where an upscaler takes no other."""


# The network's own inputs and outputs


def _inputs(model: onnx.ModelProto, wanted: Wanted, flags: OnnxFlags) -> dict[str, list[str]]:
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


def _check_picture(value: onnx.ValueInfoProto, channels: int, wanted: Wanted) -> None:
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
    other = shape[1 if wanted.last else 3] == channels
    if shape[axis] != channels and (other or isinstance(shape[axis], int)):
        hint = f"--layout {'nchw' if wanted.last else 'nhwc'}" if other else ""
        raise InputError(
            f"model: {value.name} must have {channels} channels on axis {axis}, got shape {shape}",
            hint=hint,
        )
    sides = shape[1:3] if wanted.last else shape[2:4]
    fixed = [side for side in sides if isinstance(side, int)]
    if fixed and wanted.fixed is None:
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


def _to_network(b: Builder, frames: str, wanted: Wanted, dtype: int) -> str:
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


def _to_frames(b: Builder, x: str, wanted: Wanted, dtype: int) -> str:
    """The network's result as uint8 (N, H, W, 3), clamped and rounded half to even."""
    if dtype != TensorProto.UINT8:
        x = b.cast(x) if dtype != TensorProto.FLOAT else x
        if wanted.low_out:
            x = b.op("Sub", x, b.const(wanted.low_out))
        x = b.op("Mul", b.no_nan(x), b.const(255 / (wanted.high_out - wanted.low_out)))
        x = b.op("Round", b.clip(x, b.const(0), b.const(255)))
        x = b.cast(x, TensorProto.UINT8)
    if wanted.reverse:
        x = b.op("Gather", x, b.ints(2, 1, 0), axis=3 if wanted.last else 1)
    return x if wanted.last else b.transpose(x, 0, 2, 3, 1)


def _luma_to_network(b: Builder, frames: str, wanted: Wanted, dtype: int) -> tuple[str, str]:
    """Luma as the network takes it, and chroma."""
    x, chroma = b.op("RgbToLuma", frames, count=2, domain=NAMESPACE)
    if wanted.last:
        x = b.transpose(x, 0, 2, 3, 1)
    if wanted.high - wanted.low != 1:
        x = b.op("Mul", x, b.const(wanted.high - wanted.low))
    if wanted.low:
        x = b.op("Add", x, b.const(wanted.low))
    return (b.cast(x, dtype) if dtype != TensorProto.FLOAT else x), chroma


def _luma_to_frames(b: Builder, x: str, chroma: str, wanted: Wanted, dtype: int) -> str:
    """The network's luma and the chroma that went by it, as uint8 (N, H, W, 3)."""
    x = b.cast(x) if dtype != TensorProto.FLOAT else x
    if wanted.low_out:
        x = b.op("Sub", x, b.const(wanted.low_out))
    x = b.op("Mul", b.no_nan(x), b.const(1 / (wanted.high_out - wanted.low_out)))
    x = b.transpose(x, 0, 3, 1, 2) if wanted.last else x
    return str(b.op("LumaToRgb", x, chroma, domain=NAMESPACE))


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
    if any(node.domain == NAMESPACE for node in copies) and all(
        one.domain != NAMESPACE for one in made.opset_import
    ):
        made.opset_import.append(onnx.helper.make_opsetid(NAMESPACE, 1))
    return made


Graphs = dict[str, tuple[onnx.ModelProto, dict[str, Any]]]


def upscaler_graphs(model: onnx.ModelProto, wanted: Wanted, flags: OnnxFlags) -> Graphs:
    """The network between two conversions."""
    roles = _inputs(model, wanted, flags)
    if len(roles) != 1:
        raise InputError(f"input: an upscaler must have one input, got {', '.join(roles)}")
    source, result = _port(model, next(iter(roles))), _output(model, flags)
    for value in (source, result):
        _check_picture(value, wanted.channels, wanted)
    before, after = Builder("to_network", _opset(model)), Builder("to_frames", _opset(model))
    kinds = [value.type.tensor_type.elem_type for value in (source, result)]
    made_by_network = _INSIDE + result.name
    if wanted.channels == 1:
        if TensorProto.UINT8 in kinds:
            raise InputError("model: a network on luma must take and give floats, got uint8")
        value, chroma = _luma_to_network(before, "frames", wanted, kinds[0])
        last = _luma_to_frames(after, made_by_network, chroma, wanted, kinds[1])
    else:
        value = _to_network(before, "frames", wanted, kinds[0])
        last = _to_frames(after, made_by_network, wanted, kinds[1])
    after.name_result(last, "upscaled")
    batch = _shape(source)[0]
    batch = batch if isinstance(batch, int) and batch else "N"
    factor = "" if wanted.scale == 1 else f"{wanted.scale}*"
    large: list[int | str] = [batch, f"{factor}H", f"{factor}W", 3]
    frames: list[int | str] = [batch, "H", "W", 3]
    if wanted.fixed is not None:
        frames[1:3] = wanted.fixed
        large[1:3] = [wanted.scale * side for side in wanted.fixed]
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


def interpolator_graphs(model: onnx.ModelProto, wanted: Wanted, flags: OnnxFlags) -> Graphs:
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
    b: Builder, role: str, parts: Sequence[str], port: onnx.ValueInfoProto, wanted: Wanted
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
