"""fastvid's operators inside OpenVINO graphs: nodes that compute with `fastvid.ops` in place.

OpenVINO calls back into Python for such a node. Arrays are its own memory, in and out, and the ops
release the interpreter's lock while they compute, so that the call itself costs some microseconds.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastvid import _core, ops
from fastvid.errors import UnsupportedModelError

DOMAIN = "fastvid"
VERSION = 1
_DLPACK_CPU, _DLPACK_BFLOAT = 1, 4  # DLDeviceType, DLDataTypeCode

Shape = Sequence[int | None]
"""Sizes; None is one that varies."""
Arrays = Sequence[Any]
"""Inputs of a node; None is an optional one that was left out."""


@dataclass(frozen=True)
class Operator:
    """One operator of the domain `fastvid`, as `csrc/bindings/onnxruntime` describes it."""

    name: str
    inputs: int
    """How many there may be; those behind `required` are optional."""
    shapes: Callable[[Sequence[Shape], Mapping[str, Any]], Sequence[Shape]]
    compute: Callable[[Arrays, Mapping[str, Any], tuple[Any, ...], int], Any]
    """Takes inputs, attributes, arrays to write to and the number of threads."""
    attributes: Mapping[str, int | float | str] = field(default_factory=dict)
    """With their defaults, whose types are theirs."""
    dtypes: Callable[[Mapping[str, Any]], Sequence[str]] = lambda _: ("like",)
    """Of each output: `like` its first input, `like1` its second, or NumPy's name."""
    required: int = 0
    coordinates: tuple[int, ...] = ()
    """Inputs whose error is one of place, not of brightness."""


def _same(shapes: Sequence[Shape], _: Mapping[str, Any]) -> Sequence[Shape]:
    return (shapes[0],)


def _planar(shapes: Sequence[Shape], _: Mapping[str, Any]) -> Sequence[Shape]:
    n, h, w, _c = shapes[0]
    return ((n, 3, h, w),)


def _frames(shapes: Sequence[Shape], _: Mapping[str, Any]) -> Sequence[Shape]:
    n, _c, h, w = shapes[0]
    return ((n, h, w, 3),)


def _luma(shapes: Sequence[Shape], _: Mapping[str, Any]) -> Sequence[Shape]:
    n, h, w, _c = shapes[0]
    return (n, 1, h, w), (n, 2, h, w)


def _smaller(shapes: Sequence[Shape], given: Mapping[str, Any]) -> Sequence[Shape]:
    n, c, h, w = shapes[0]
    factor = max(1, given["factor"])
    return ((n, c, *(None if side is None else side // factor for side in (h, w))),)


def _flows(shapes: Sequence[Shape], _: Mapping[str, Any]) -> Sequence[Shape]:
    n, _c, h, w = shapes[0]
    return (n, 2, h, w), (n, 2, h, w)


def _blended(shapes: Sequence[Shape], given: Mapping[str, Any]) -> Sequence[Shape]:
    return _frames(shapes, given) if _makes_frames(given) else _same(shapes, given)


def _makes_frames(given: Mapping[str, Any]) -> bool:
    return bool(given["output_uint8"] or given["output_uint16"])


def _frame_dtype(given: Mapping[str, Any]) -> str:
    return "uint16" if given["output_uint16"] else "uint8"


def _scheduler_step(x: Arrays, given: Mapping[str, Any], out: tuple[Any, ...], threads: int) -> Any:
    first, coefficients, uncond, *more = x
    inputs = [first, *(array for array in more if array is not None)]
    return ops.scheduler_step(
        coefficients[None],
        inputs,
        uncond=uncond,
        guidance_scale=given["guidance"],
        out=out,
        threads=threads,
    )


OPERATORS: Mapping[str, Operator] = {
    operator.name: operator
    for operator in (
        Operator(
            "RgbToPlanar",
            1,
            _planar,
            lambda x, _, out, t: ops.rgb_to_planar(x[0], out=out[0], threads=t),
            dtypes=lambda _: ("float32",),
        ),
        Operator(
            "PlanarToRgb",
            1,
            _frames,
            lambda x, a, out, t: ops.planar_to_rgb(
                x[0], dtype=_frame_dtype(a), out=out[0], threads=t
            ),
            {"output_uint16": 0},
            dtypes=lambda a: (_frame_dtype(a),),
        ),
        Operator(
            "RgbToLuma",
            1,
            _luma,
            lambda x, _, out, t: ops.rgb_to_luma(x[0], out=out, threads=t),
            dtypes=lambda _: ("float32", "float32"),
        ),
        Operator(
            "LumaToRgb",
            2,
            _frames,
            lambda x, a, out, t: ops.luma_to_rgb(
                x[0], x[1], dtype=_frame_dtype(a), out=out[0], threads=t
            ),
            {"output_uint16": 0},
            dtypes=lambda a: (_frame_dtype(a),),
        ),
        Operator(
            "Downscale",
            1,
            _smaller,
            lambda x, a, out, t: ops.downscale(x[0], a["factor"], out=out[0], threads=t),
            {"factor": 2},
        ),
        Operator(
            "InverseSearch",
            2,
            _flows,
            lambda x, a, out, t: ops.inverse_search(x[0], x[1], out=out, threads=t, **a),
            {"iterations": 8, "stride": 4, "finest": 0},
            dtypes=lambda _: ("float32", "float32"),
            coordinates=(0, 1),
        ),
        Operator(
            "Warp",
            2,
            _same,
            lambda x, a, out, t: ops.warp(
                x[0],
                x[1],
                padding="zeros" if a["zeros"] else "border",
                layout="NHWC" if a["channels_last"] else "NCHW",
                out=out[0],
                threads=t,
            ),
            {"zeros": 0, "channels_last": 0},
            coordinates=(1,),
        ),
        Operator(
            "WarpBlend",
            5,
            _blended,
            lambda x, a, out, t: ops.warp_blend(
                x[0],
                x[1],
                x[2],
                x[3],
                residual=x[4],
                out=out[0],
                out_dtype=_frame_dtype(a) if _makes_frames(a) else None,
                threads=t,
            ),
            {"output_uint8": 0, "output_uint16": 0},
            dtypes=lambda a: (_frame_dtype(a),) if _makes_frames(a) else ("like",),
            required=4,
            coordinates=(2,),
        ),
        Operator(
            "SoftmaxSplat",
            3,
            _same,
            lambda x, a, out, t: ops.softmax_splat(
                x[0],
                x[1],
                x[2],
                mode=a["mode"],
                deterministic=bool(a["deterministic"]),
                out=out[0],
                threads=t,
            ),
            {"mode": "softmax", "deterministic": 0},
            required=2,
            coordinates=(1, 2),
        ),
        Operator(
            "Attention",
            4,
            _same,
            lambda x, a, out, t: ops.attention(
                x[0],
                x[1],
                x[2],
                bias=x[3],
                scale=a["scale"] or None,
                causal=bool(a["causal"]),
                out=out[0],
                threads=t,
            ),
            {"causal": 0, "scale": 0.0},
            required=3,
        ),
        Operator(
            "TemporalAttention",
            4,
            _same,
            lambda x, a, out, t: ops.temporal_attention(
                x[0],
                x[1],
                x[2],
                bias=x[3],
                scale=None if math.isnan(a["scale"]) else a["scale"],
                causal=bool(a["causal"]),
                out=out[0],
                threads=t,
            ),
            {"causal": 0, "scale": math.nan},
            required=3,
        ),
        Operator(
            "QkNormRope",
            6,
            lambda shapes, _: (shapes[0], shapes[1]),
            lambda x, a, out, t: ops.qk_norm_rope(
                x[0],
                x[1],
                q_weight=x[2],
                k_weight=x[3],
                cos=x[4],
                sin=x[5],
                norm=None if a["norm"] == "none" else a["norm"],
                rope=None if a["rope"] == "none" else a["rope"],
                eps=a["eps"],
                out=out,
                threads=t,
            ),
            {"norm": "full", "rope": "interleaved", "eps": 1e-6},
            dtypes=lambda _: ("like", "like1"),
            required=2,
        ),
        Operator(
            "Linear",
            3,
            lambda shapes, _: ((*shapes[0][:-1], shapes[1][0]),),
            lambda x, a, out, t: ops.linear(
                x[0],
                x[1],
                x[2],
                precision="bfloat16" if a["bfloat16"] else "float32",
                out=out[0],
                threads=t,
            ),
            {"bfloat16": 0},
            dtypes=lambda _: ("float32",),
            required=2,
        ),
        Operator(
            "SchedulerStep",
            8,
            _same,
            _scheduler_step,
            {"guidance": 1.0},
            required=2,
        ),
    )
}
"""By name: every operator that onnxruntime graphs may hold."""


def check_version(file: str, domains: Mapping[str, int]) -> None:
    """Refuses a graph for operators of a newer fastvid.

    Raises:
        UnsupportedModelError: It imports another version of the domain than 1.
    """
    version = domains.get(DOMAIN)
    if version is not None and version > VERSION:
        raise UnsupportedModelError(
            f"{file}: operators of fastvid must be version {VERSION}, got {version}",
            hint="pip install --upgrade fastvid-sdk",
        )


class Nodes:
    """Nodes that were made for one model: they work as long as this object is kept.

    OpenVINO never frees a node that is written in Python, nor what it reads: all weights before it.
    So they are taken off their graph when nobody keeps them.
    """

    def __init__(self, nodes: list[Any]) -> None:
        weakref.finalize(self, _take_apart, nodes).atexit = False


class Registered:
    """A `Core` that reads one graph with fastvid's operators.

    Args:
        openvino: The module.
        threads: That the operators compute with.
    """

    def __init__(self, openvino: Any, threads: int) -> None:
        from openvino.frontend.onnx import ConversionExtension

        self.core = openvino.Core()
        self._made: list[Any] = []
        for operator in OPERATORS.values():
            convert = _converter(_node_class(openvino, operator, threads, self._made))
            self.core.add_extension(ConversionExtension(operator.name, DOMAIN, convert))

    def read(self, model: bytes) -> Any:
        """The graph of an ONNX file; its nodes work as long as this object is kept."""
        found = self.core.read_model(model)
        self._kept = self.claim()
        return found

    def claim(self) -> Nodes:
        """The nodes that were made since this was last called."""
        nodes = list(self._made)
        self._made.clear()
        return Nodes(nodes)


def _take_apart(nodes: list[Any]) -> None:
    for node in nodes:
        node.set_arguments([])
    nodes.clear()


def _converter(node_class: Any) -> Callable[[Any], list[Any]]:
    operator: Operator = node_class.operator

    def convert(context: Any) -> list[Any]:
        given = {
            name: type(default)(context.get_attribute(name, default))
            for name, default in operator.attributes.items()
        }
        inputs: list[Any] = []
        present = []
        for i in range(min(context.get_input_size(), operator.inputs)):
            value = _input(context, i)
            present.append(value is not None)
            if value is not None:
                inputs.append(value)
        return list(node_class(inputs, given, tuple(present)).outputs())

    return convert


def _input(context: Any, i: int) -> Any:
    """An input of a node; None where an optional one was left out."""
    value = context.get_input(i)
    return None if value.get_node().get_type_name() == "NullNode" else value


def _node_class(openvino: Any, operator: Operator, threads: int, made: list[Any]) -> Any:
    """The class of the nodes of one operator; OpenVINO knows them by its name.

    Nodes add themselves to `made`.
    """
    to_type = {name: openvino.Type(np.dtype(name)) for name in ("float32", "uint8", "uint16")}

    def array_of(tensor: Any) -> Any:
        narrow = tensor.get_element_type() == openvino.Type.bf16
        return _Bfloat16(tensor.data) if narrow else tensor.data

    class Node(openvino.Op):  # type: ignore[misc]
        def __init__(
            self, inputs: Any = None, given: Any = None, present: tuple[bool, ...] = ()
        ) -> None:
            super().__init__(self)
            self.given = given
            self.present = present
            if inputs is not None:
                made.append(self)
                self.set_arguments(inputs)
                self.constructor_validate_and_infer_types()

        def validate_and_infer_types(self) -> None:
            shapes = [_sizes(self.get_input_partial_shape(i)) for i in range(sum(self.present))]
            found = operator.shapes(shapes, self.given)
            kinds = operator.dtypes(self.given)
            self.set_output_size(len(found))
            for i, (shape, kind) in enumerate(zip(found, kinds, strict=True)):
                like = {"like": 0, "like1": 1}.get(kind)
                dtype = to_type[kind] if like is None else self.get_input_element_type(like)
                sizes = [openvino.Dimension(-1 if size is None else size) for size in shape]
                self.set_output_type(i, dtype, openvino.PartialShape(sizes))

        def visit_attributes(self, visitor: Any) -> bool:
            # Nodes of one class that read the same and have equal attributes are merged.
            given = self.given | {"present": "".join("01"[one] for one in self.present)}
            visitor.on_attributes({name: str(value) for name, value in given.items()})
            return True

        def clone_with_new_inputs(self, inputs: Any) -> Any:
            return Node(inputs, self.given, self.present)

        def has_evaluate(self) -> bool:
            return True

        def evaluate(self, outputs: Any, inputs: Any) -> bool:
            given = iter([_unsigned(array_of(tensor)) for tensor in inputs])
            arrays = [next(given) if one else None for one in self.present]
            arrays += [None] * (operator.inputs - len(arrays))
            shapes = operator.shapes([a.shape for a in arrays if a is not None], self.given)
            for tensor, shape in zip(outputs, shapes, strict=True):
                tensor.shape = openvino.Shape(shape)
            operator.compute(arrays, self.given, tuple(map(array_of, outputs)), threads)
            return True

    Node.operator = operator
    Node.__name__ = Node.__qualname__ = operator.name
    return Node


def _unsigned(array: Any) -> Any:
    """OpenVINO's CPU hands on uint16 as int32, which is no dtype of any op's."""
    is_wide = isinstance(array, np.ndarray) and array.dtype == np.int32
    return array.astype(np.uint16) if is_wide else array


class _Bfloat16:
    """An array of bfloat16, which NumPy has not: OpenVINO calls it float16. The ops take DLPack."""

    def __init__(self, array: Any) -> None:
        self._array = array
        self.shape = array.shape

    def __dlpack_device__(self) -> tuple[int, int]:
        return _DLPACK_CPU, 0

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> object:
        versioned = max_version is not None and max_version[0] >= 1
        address = self._array.ctypes.data
        return _core._dlpack_capsule(
            address, self.shape, _DLPACK_BFLOAT, 16, _DLPACK_CPU, 0, self._array, versioned
        )


def _sizes(shape: Any) -> list[int | None]:
    return [None if size.is_dynamic else size.get_length() for size in shape]
