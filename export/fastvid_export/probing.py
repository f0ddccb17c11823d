"""What a network in an ONNX file takes and gives, found by running it on drawn pictures.

A question is tried with the very nodes that the bundle will have around the network: what works in
a trial works in the bundle. What the caller says is not tried. What cannot be told, because answers
differ and none is clearly better, is asked for by an error that names the flag.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from fastvid.errors import FastvidError, InputError
from fastvid.metrics import psnr
from fastvid.scene import Scene
from fastvid_export import apart, onnx_files
from fastvid_export.errors import ExportError
from fastvid_export.foreign_graphs import (
    Graphs,
    OnnxFlags,
    Wanted,
    interpolator_graphs,
    upscaler_graphs,
)
from fastvid_export.running import Runner

Picture = NDArray[np.uint8]
Range = tuple[float, float]

LIKENESS = 15.0
"""dB; even a poor network is above, colours or levels that were mistaken are below."""
_CERTAIN = 20.0
"""dB that a range must reach to be found."""
_TINT = (1.0, 0.8, 0.6)
"""Of the picture that tells red from blue, by channel."""
_RANGES: tuple[Range, ...] = ((0.0, 1.0), (0.0, 255.0), (-1.0, 1.0))
_MULTIPLES = (1, 2, 3, 4, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 48, 56, 64, 128)
_SIDE = 64
_CHANNELS = (1, 3, 6, 7)
"""Of inputs: luma, colours, two frames, and two with their time."""
_MINIMA = (4, 8, 16, 32)
_SAME = 40.0
"""dB between two answers from which on it does not matter which is right."""
_CLEAR = 1.0
"""dB by which one answer must be better than the others."""
_MAX_SCALE = 16
_FOUND = "found."


@dataclass
class Findings:
    """What the network takes, and how that is known."""

    wanted: Wanted
    flags: OnnxFlags
    lines: dict[str, str] = field(default_factory=dict)
    """What was found, by the name of its flag."""

    def note(self, name: str, text: str) -> None:
        """Keeps a line."""
        self.lines[name] = text


def probe(
    model: onnx.ModelProto, wanted: Wanted, flags: OnnxFlags
) -> tuple[onnx.ModelProto, Findings]:
    """Fills in what the flags leave open.

    Args:
        model: The network, its weights inside.
        wanted: The flags, with defaults for what is not given.
        flags: Which of them were given.

    Returns:
        The network, with heights and widths that vary where it runs on others, and what was found.

    Raises:
        InputError: Something cannot be told, or a flag does not fit; names the flag.
        ExportError: The network does not run on any picture, or makes none.
    """
    found = Findings(wanted, flags)
    upscales = wanted.task == "upscaler"
    if not upscales:
        _assign_inputs(model, found)
    fixed = _fixed(model)
    free = _freed(model) if fixed else model
    if not (_find_sizes(free, found, fixed) or _find_fixed(model, found, fixed)):
        raise InputError(
            f"model: height and width must vary, got {list(fixed)}, and the network runs on no "
            "other",
            hint="export the network again with dynamic height and width",
        )
    model = model if found.wanted.fixed else free
    _find_range(model, found)
    _find_order(model, found)
    if not upscales:
        _find_direction(model, found)
    return model, found


# Trials


class _Trial:
    """The network between the nodes that its bundle will have."""

    def __init__(self, model: onnx.ModelProto, wanted: Wanted, flags: OnnxFlags) -> None:
        make = upscaler_graphs if wanted.task == "upscaler" else interpolator_graphs
        graphs: Graphs = make(model, wanted, flags)
        self.files = {name: onnx_files.to_bytes(graph) for name, (graph, _) in graphs.items()}
        self._runners = {name: Runner(data) for name, data in self.files.items()}

    def upscale(self, picture: Picture) -> Picture:
        """(1, H, W, 3) → (1, sH, sW, 3)."""
        return self._runners["upscale"]({"frames": picture})["upscaled"]

    def between(self, first: Picture, second: Picture, time: float) -> Picture:
        """Two of (1, H, W, 3) → one."""
        features = self._runners["motion"]({"frame0": first, "frame1": second})
        moment = {"timestep": np.array([time], np.float32)}
        return self._runners["between"](features | moment)["frame"]

    def likeness(self, picture: Picture, task: str) -> tuple[float, Picture]:
        """How near the result is to the picture, in dB, at the size of the picture."""
        if task == "interpolator":
            made = self.between(picture, picture, 0.5)
        else:
            made = _smaller(self.upscale(picture), picture.shape)
        if made.shape != picture.shape:
            return 0.0, made
        return psnr(made, picture), made


def _smaller(large: Picture, shape: tuple[int, ...]) -> Picture:
    """A picture at `shape`, by means, where the factor is whole; else as it is."""
    _, height, width, _ = shape
    factor = large.shape[1] // height
    if large.shape[1:3] != (factor * height, factor * width):
        return large
    blocks = large.reshape(1, height, factor, width, factor, 3)
    return np.rint(blocks.mean((2, 4))).astype(np.uint8)


def _drawn(height: int, width: int, time: float = 0.5) -> Picture:
    """A drawn scene cut to a size."""
    scene = Scene(max(width, 64), max(height, 64), seed=1).draw(time)
    return np.ascontiguousarray(scene[None, :height, :width])


# Inputs of interpolators


def _shape(value: onnx.ValueInfoProto) -> list[int | None]:
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    weights = {weight.name for weight in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def _assign_inputs(model: onnx.ModelProto, found: Findings) -> None:
    """Which input is a frame, several, or the time: by their shapes, frames by number in names."""
    if found.flags.inputs:
        return
    roles: dict[str, str] = {}
    frames: list[str] = []
    for value in _inputs(model):
        shape = _shape(value)
        counts = {shape[1], shape[3]} if len(shape) == 4 else set()
        if len(shape) != 4 or all(size == 1 for size in shape[1:]) or 1 in counts:
            roles[value.name] = "timestep"
        elif 7 in counts:
            roles[value.name] = "frame0+frame1+timestep"
        elif 6 in counts:
            roles[value.name] = "frame0+frame1"
        elif 3 in counts or counts == {None}:
            frames.append(value.name)
        else:
            raise InputError(
                f"input: what {value.name} with shape {shape} takes must be given",
                hint=f"--input {value.name}=ROLE, of frame0, frame1 and timestep, joined by +",
            )
    ordered = sorted(frames, key=_number) if len({_number(n) for n in frames}) == 2 else frames
    roles |= dict(zip(ordered, ("frame0", "frame1"), strict=False))
    times = [name for name, role in roles.items() if role == "timestep"]
    if len(frames) not in (0, 2) or len(times) > 1 or len(frames) + len(times) > len(roles):
        names = [value.name for value in _inputs(model)]
        raise InputError(
            f"input: what the inputs {', '.join(names)} take must be given",
            hint=f"--input {names[0]}=ROLE, of frame0, frame1 and timestep, joined by +",
        )
    found.flags = replace(found.flags, inputs=roles)
    found.note("input", ", ".join(f"{name}={role}" for name, role in roles.items()))
    if not any("timestep" in role for role in roles.values()):
        found.note("timestep", "none: every time gives the middle of two frames")


def _number(name: str) -> int:
    """The last number in a name; -1 without."""
    numbers = re.findall(r"\d+", name)
    return int(numbers[-1]) if numbers else -1


# Sizes


def _fixed(model: onnx.ModelProto) -> list[int]:
    """Height and width that the file fixes, in either layout."""
    pictures = [shape for shape in map(_shape, _inputs(model)) if len(shape) == 4]
    for shape in pictures:
        sides = [size for size in (shape[1:3] if shape[3] in _CHANNELS else shape[2:4]) if size]
        if sides and any(size != 1 for size in sides):
            return sides
    return []


def _freed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network with heights and widths that may vary, as far as its nodes let them."""
    free = onnx.ModelProto()
    free.CopyFrom(model)
    for value in [*_inputs(free), *free.graph.output]:
        shape = _shape(value)
        if len(shape) != 4:
            continue
        axes = (1, 2) if shape[3] in _CHANNELS and shape[1] not in _CHANNELS else (2, 3)
        for axis, name in zip(axes, "hw", strict=True):
            if shape[axis] not in (None, 1):
                value.type.tensor_type.shape.dim[axis].dim_param = f"{value.name}_{name}"
    del free.graph.value_info[:]
    return free


def _find_sizes(model: onnx.ModelProto, found: Findings, fixed: Sequence[int]) -> bool:
    """Layout, channels, multiple, scale and least size: the first that the network runs with.

    Returns:
        False if it runs with none, but the file fixes a size that it may run with.
    """
    problem: FastvidError | None = None
    for wanted in _layouts(model, found):
        try:
            trial = _Trial(model, wanted, found.flags)
        except FastvidError as error:
            problem = problem or error
            continue
        for multiple in (found.flags.multiple_of,) if found.flags.multiple_of else _MULTIPLES:
            count = -(-_SIDE // multiple) | 1
            try:
                # Sides that are odd multiples.
                scale = _scale_at(trial, wanted.task, count * multiple, (count + 2) * multiple)
            except ExportError as error:
                problem = problem or error
                continue
            _take_sizes(trial, found, replace(wanted, multiple_of=multiple), scale, fixed)
            return True
    if fixed:
        return False
    assert problem is not None
    if isinstance(problem, InputError):
        raise problem
    raise ExportError(
        f"model: the network must run on frames of some size: "
        f"{' '.join(problem.message.split())[:400]}",
        hint="--layout, --size-multiple and --input say what the network takes",
    )


def _find_fixed(model: onnx.ModelProto, found: Findings, fixed: Sequence[int]) -> bool:
    """Layout, channels and scale of an upscaler at the one size that the file fixes."""
    if found.wanted.task != "upscaler" or len(fixed) != 2:
        return False
    height, width = fixed
    for layout in _layouts(model, found):
        wanted = replace(layout, fixed=(height, width))
        try:
            scale = _scale_at(_Trial(model, wanted, found.flags), wanted.task, height, width)
        except FastvidError:
            continue
        if not found.flags.padding:
            wanted = replace(wanted, padding="reflect")
        found.wanted = replace(wanted, scale=found.flags.scale or scale)
        _note_sizes(found, scale)
        text = f"{width}x{height} alone: larger frames pass in pieces, smaller are extended"
        found.note("sizes", text)
        return True
    return False


def _layouts(model: onnx.ModelProto, found: Findings) -> list[Wanted]:
    """What to try: what the caller says, else every layout and number of channels."""
    lasts = (found.wanted.last,) if found.flags.layout else (False, True)
    channels = (3, 1) if found.wanted.task == "upscaler" else (3,)
    return [replace(found.wanted, last=last, channels=n) for n in channels for last in lasts]


def _scale_at(trial: _Trial, task: str, height: int, width: int) -> int:
    """The network's factor on a picture.

    Raises:
        ExportError: It does not run, or makes no picture of a whole factor.
    """
    picture = _drawn(height, width)
    if task == "interpolator":
        made = trial.between(picture, _drawn(height, width, 0.55), 0.5)
    else:
        made = trial.upscale(picture)
    scale = made.shape[1] // height if made.ndim == 4 else 0
    if not 1 <= scale <= _MAX_SCALE or made.shape != (1, scale * height, scale * width, 3):
        raise ExportError(
            f"the result of frames of {height}x{width} must be a whole factor as large, got "
            f"{made.shape}"
        )
    return scale


def _take_sizes(
    trial: _Trial, found: Findings, wanted: Wanted, scale: int, fixed: Sequence[int]
) -> None:
    sides = sorted({-(-side // wanted.multiple_of) * wanted.multiple_of for side in _MINIMA})
    least = next((side for side in sides if apart.survives(trial.files, side)), _SIDE)
    # What runs on the smallest picture tried runs on any.
    minimum = wanted.multiple_of if least == sides[0] else least
    found.wanted = replace(wanted, scale=found.flags.scale or scale, minimum=minimum)
    _note_sizes(found, scale)
    if not found.flags.multiple_of:
        found.note("size-multiple", str(wanted.multiple_of))
    if minimum > wanted.multiple_of:
        found.note("least-size", str(minimum))
    if fixed:
        text = "x".join(map(str, fixed))
        found.note("sizes", f"any, though the file says {text}: it runs on others too")


def _note_sizes(found: Findings, scale: int) -> None:
    if not found.flags.layout:
        found.note("layout", "nhwc" if found.wanted.last else "nchw")
    if found.wanted.task == "upscaler":
        found.note("colour", "luma alone" if found.wanted.channels == 1 else "three channels")
        if found.flags.scale is None:
            found.note("scale", str(scale))


def sides_of(wanted: Wanted) -> tuple[int, int]:
    """Height and width of a picture to try."""
    step = wanted.multiple_of
    side = -(-max(_SIDE, wanted.minimum) // step) * step
    return wanted.fixed or (side, side)


# Levels and colours


def _find_range(model: onnx.ModelProto, found: Findings) -> None:
    """What black and white are: where the result looks most like the picture."""
    given, given_out = found.flags.range, found.flags.output_range
    if (given and given_out) or _takes_bytes(model, found):
        return
    picture = _drawn(*sides_of(found.wanted))
    ranges = (given,) if given else _RANGES
    pairs = [(one, given_out or one) for one in ranges]
    tried = [_liked(model, found, pair, picture) for pair in pairs]
    if max(value for value, *_ in tried) < _CERTAIN and not given_out:
        others = [(one, other) for one in ranges for other in _RANGES if one != other]
        tried += [_liked(model, found, pair, picture) for pair in others]
    best = max(tried, key=lambda one: one[0])
    if best[0] < _CERTAIN:
        return  # said when the bundle is tried
    rivals = [one for one in tried if one[0] >= best[0] - _CLEAR]
    apart = [one for one in rivals if psnr(one[3], best[3]) < _SAME]
    if apart:
        listed = " and ".join(f"{one[1][0]:g},{one[1][1]:g}" for one in (best, *apart))
        raise InputError(
            f"range: argument must be given, {listed} look alike but are not the same",
            hint="--range 0,1 or 0,255 or -1,1, as the network was trained",
        )
    # The first of those that make no difference.
    _, low_high, out, _ = rivals[0]
    found.wanted = replace(
        found.wanted, low=low_high[0], high=low_high[1], low_out=out[0], high_out=out[1]
    )
    free = len(rivals) > 1
    if not given:
        more = f"; {len(rivals)} of those tried give the same" if free else ""
        found.note("range", f"{low_high[0]:g},{low_high[1]:g} ({best[0]:.1f} dB{more})")
    if out != low_high:
        found.note("output-range", f"{out[0]:g},{out[1]:g}")


def _takes_bytes(model: onnx.ModelProto, found: Findings) -> bool:
    """Whether levels are those of uint8, which need no range."""
    kinds = {value.type.tensor_type.elem_type for value in (*_inputs(model), *model.graph.output)}
    return kinds == {onnx.TensorProto.UINT8}


def _liked(
    model: onnx.ModelProto, found: Findings, pair: tuple[Range, Range], picture: Picture
) -> tuple[float, Range, Range, Picture]:
    """How near the result is to the picture with a range going in and one coming out."""
    (low, high), (low_out, high_out) = pair
    wanted = replace(found.wanted, low=low, high=high, low_out=low_out, high_out=high_out)
    try:
        value, made = _Trial(model, wanted, found.flags).likeness(picture, wanted.task)
    except ExportError:
        value, made = 0.0, picture
    return value, *pair, made


def _find_order(model: onnx.ModelProto, found: Findings) -> None:
    """Red or blue first: which is nearer to the picture, where it makes a difference."""
    if found.flags.order or found.wanted.channels != 3:
        return
    picture = (_drawn(*sides_of(found.wanted)) * np.array(_TINT)).astype(np.uint8)
    results = {}
    for name, reverse in (("rgb", False), ("bgr", True)):
        wanted = replace(found.wanted, reverse=reverse)
        try:
            results[name] = _Trial(model, wanted, found.flags).likeness(picture, wanted.task)
        except ExportError:
            return  # said when the bundle is tried
    (first, ours), (second, theirs) = results["rgb"], results["bgr"]
    if ours.shape != theirs.shape or max(first, second) < LIKENESS:
        return
    apart = psnr(ours, theirs)
    if apart < _SAME and abs(first - second) < _CLEAR:
        raise InputError(
            f"channels: argument must be given, rgb and bgr are {apart:.1f} dB apart and neither "
            f"is clearly better, {first:.1f} and {second:.1f} dB",
            hint="--channels rgb or --channels bgr, as the network was trained",
        )
    reverse = apart < _SAME and second > first
    found.wanted = replace(found.wanted, reverse=reverse)
    if apart >= _SAME:
        text = f"rgb (it makes little difference, {min(apart, 99):.0f} dB)"
    else:
        better, worse = max(first, second), min(first, second)
        text = f"{'bgr' if reverse else 'rgb'} ({better:.1f} dB, not {worse:.1f})"
    found.note("channels", text)


def _find_direction(model: onnx.ModelProto, found: Findings) -> None:
    """Whether time runs from the first frame to the second; if not, the frames change places."""
    given = found.flags.inputs
    if not any("timestep" in role for role in given.values()) or "input" not in found.lines:
        return
    sides = sides_of(found.wanted)
    first, second = (_drawn(*sides, time) for time in (0.4, 0.6))
    try:
        trial = _Trial(model, found.wanted, found.flags)
        early, late = (trial.between(first, second, time) for time in (0.1, 0.9))
    except ExportError:
        return  # said when the bundle is tried
    forth = psnr(early, first) + psnr(late, second)
    back = psnr(early, second) + psnr(late, first)
    if back > forth + _CLEAR:
        other = {"frame0": "frame1", "frame1": "frame0"}
        swapped = {
            name: "+".join(other.get(role, role) for role in roles.split("+"))
            for name, roles in given.items()
        }
        found.flags = replace(found.flags, inputs=swapped)
        found.note("input", ", ".join(f"{k}={v}" for k, v in found.flags.inputs.items()))


def as_settings(lines: Mapping[str, str]) -> dict[str, str]:
    """What was found, for the provenance of a bundle."""
    return {f"{_FOUND}{name}": text for name, text in lines.items()}


def of_settings(settings: Mapping[str, object]) -> dict[str, str]:
    """The same, back from a bundle."""
    return {
        name.removeprefix(_FOUND): str(text)
        for name, text in settings.items()
        if name.startswith(_FOUND)
    }
