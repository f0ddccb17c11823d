"""Every public op that takes arrays, with valid calls of it: what tests of all ops are driven by.

A new op is one function here, decorated with `op`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import ml_dtypes
import numpy as np
import reference

from fastvid import ops

Array = np.ndarray[Any, Any]
T = TypeVar("T")

DTYPES = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "uint8": np.dtype(np.uint8),
    "uint16": np.dtype(np.uint16),
}
FLOATS = ("float32", "float16", "bfloat16")
# None, one, and around the widths of vectors.
SIZES = (0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 65)
SPECIAL = (np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 6e4, 2.0**31, -(2.0**63), 1e-45, -0.0)


class Draw:
    """Makes arrays and choices; `pick` chooses one of a sequence, whose first item is the usual."""

    def __init__(self, pick: Callable[[Sequence[Any]], Any], *, special: bool = False) -> None:
        self._pick = pick
        self.special = special
        self._rng = np.random.default_rng(pick(range(1000)))

    def choice(self, *options: T) -> T:
        return self._pick(options)  # type: ignore[no-any-return]

    def size(self, usual: int, *, largest: int = 65, least: int = 0) -> int:
        options = (size for size in SIZES if least <= size <= largest)
        return self._pick((usual, *options))  # type: ignore[no-any-return]

    def batch(self) -> int:
        return self.size(2, largest=3)

    def array(
        self,
        shape: Sequence[int],
        dtype: str = "float32",
        *,
        low: float = -1.0,
        high: float = 1.0,
    ) -> Array:
        """Evenly drawn values; of a float dtype every tenth is special where `special` is."""
        values = self._rng.uniform(low, high, tuple(shape))
        if self.special and dtype in FLOATS:
            places = self._rng.random(values.shape) < 0.1
            values[places] = self._rng.choice(SPECIAL, int(places.sum()))
        if dtype in ("uint8", "uint16"):
            values = np.floor(values)
        with np.errstate(over="ignore"):
            return values.astype(DTYPES[dtype])


def usual() -> Draw:
    """Always the same call: the first of every choice."""
    return Draw(lambda options: options[0])


@dataclass(frozen=True)
class Case:
    """One valid call: arrays by argument name (`inputs[1]` is an item of a list), and the rest."""

    arrays: dict[str, Array]
    options: dict[str, Any] = field(default_factory=dict)
    # The outputs in float64, from the arrays; None where another test has a reference.
    expected: Callable[[Mapping[str, Any]], tuple[Array, ...]] | None = None
    tolerance: float = 2e-5
    # Whether every instruction set gives equal bits.
    exact: bool = True
    # What finite inputs outside of `wild`, with anything in `wild`, must give.
    bounds: tuple[float, float] | None = None
    wild: tuple[str, ...] = ()


@dataclass(frozen=True)
class Op:
    """How an op is called, and what it takes beside C-contiguous arrays."""

    name: str
    make: Callable[[Draw], Case]
    # Names of its outputs in messages; several are passed as a tuple.
    outputs: tuple[str, ...] = ("out",)
    # Arguments that take any strides with neighbours along the last axis adjacent.
    strided: frozenset[str] = frozenset()
    # Arguments whose rows may stand apart.
    rows: frozenset[str] = frozenset()
    # Inputs that an output may be itself.
    in_place: Mapping[str, str] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()
    # Whether it takes arrays on a CUDA device.
    cuda: bool = True

    @property
    def function(self) -> Callable[..., Any]:
        return getattr(ops, self.name)  # type: ignore[no-any-return]

    def arguments(self, case: Case, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """All but `out`."""
        given: dict[str, Any] = {}
        for name, array in arrays.items():
            if name.endswith("]"):
                given.setdefault(name.split("[")[0], []).append(array)
            else:
                given[name] = array
        return given | case.options

    def __call__(self, case: Case, arrays: Mapping[str, Any], out: Any, **more: Any) -> Any:
        return self.function(**self.arguments(case, arrays) | more, out=out)

    def allocate(self, case: Case) -> tuple[Array, ...]:
        """The outputs of a call that allocates them."""
        none = (None,) * len(self.outputs) if self.in_place else None
        found = self(case, case.arrays, none)
        return tuple(found) if isinstance(found, tuple) else (found,)

    def pack(self, outputs: Sequence[Any]) -> Any:
        return outputs[0] if self.outputs == ("out",) else tuple(outputs)


OPS: dict[str, Op] = {}


def op(**more: Any) -> Callable[[Callable[[Draw], Case]], Callable[[Draw], Case]]:
    def add(make: Callable[[Draw], Case]) -> Callable[[Draw], Case]:
        OPS[make.__name__] = Op(make.__name__, make, **more)
        return make

    return add


@op()
def rgb_to_planar(draw: Draw) -> Case:
    shape = (draw.batch(), draw.size(5), draw.size(7), 3)
    return Case(
        {"frames": draw.array(shape, "uint8", low=0, high=256)},
        expected=lambda a: (reference.rgb_to_planar(a["frames"]),),
        bounds=(0, 1),
    )


@op()
def planar_to_rgb(draw: Draw) -> Case:
    shape = (draw.batch(), 3, draw.size(5), draw.size(7))
    return Case(
        {"x": draw.array(shape, low=-0.2, high=1.2)},
        expected=lambda a: (reference.planar_to_rgb(a["x"]),),
        tolerance=1,
    )


@op()
def downscale(draw: Draw) -> Case:
    factor = draw.choice(2, 4, 8)
    shape = (draw.batch(), draw.size(3, largest=3))
    shape += (factor * draw.size(5, largest=9), factor * draw.size(7, largest=17))
    return Case(
        {"x": draw.array(shape)},
        {"factor": factor},
        lambda a: (reference.downscale(a["x"], factor),),
    )


@op(outputs=("luma", "chroma"))
def rgb_to_luma(draw: Draw) -> Case:
    shape = (draw.batch(), draw.size(5), draw.size(7), 3)
    return Case(
        {"frames": draw.array(shape, "uint8", low=0, high=256)},
        expected=lambda a: reference.rgb_to_luma(a["frames"]),
        bounds=(-0.5001, 1.0001),
    )


@op()
def luma_to_rgb(draw: Draw) -> Case:
    n, height, width = draw.batch(), draw.size(5, least=1), draw.size(7, least=1)
    scale = draw.choice(2, 1, 3, 4)
    return Case(
        {
            "luma": draw.array((n, 1, scale * height, scale * width), low=0),
            "chroma": draw.array((n, 2, height, width), low=-0.5, high=0.5),
        },
        expected=lambda a: (
            reference.luma_to_rgb(a["luma"], a["chroma"])
            if n
            else np.zeros((0, scale * height, scale * width, 3)),
        ),
        tolerance=1,
    )


def _yuv(draw: Draw) -> tuple[dict[str, Any], tuple[int, int], tuple[int, int]]:
    options = {
        "matrix": draw.choice("bt709", "bt601", "bt2020"),
        "full_range": draw.choice(False, True),
        "bit_depth": draw.choice(8, 10),
        "subsampling": draw.choice("420", "422", "444"),
        "chroma_location": draw.choice(*reference.CHROMA_OFFSETS),
    }
    height, width = draw.size(6, least=1), draw.size(8, least=1)
    across, down = reference.chroma_is_halved(options["subsampling"])
    return options, (height, width), (-(-height // (1 + down)), -(-width // (1 + across)))


@op(rows=frozenset("yuv"))
def yuv_to_rgb(draw: Draw) -> Case:
    options, size, chroma = _yuv(draw)
    dtype = "uint8" if options["bit_depth"] == 8 else "uint16"
    top = 2 ** options["bit_depth"]
    planes = {
        name: draw.array(shape, dtype, low=0, high=top)
        for name, shape in (("y", size), ("u", chroma), ("v", chroma))
    }
    return Case(
        planes,
        options | {"layout": "NCHW"},
        lambda a: (
            np.moveaxis(reference.yuv_to_rgb(a["y"], a["u"], a["v"], **options), 2, 0)[None],
        ),
        bounds=(0, 1),
    )


@op(outputs=("y", "u", "v"), rows=frozenset("yuv"))
def rgb_to_yuv(draw: Draw) -> Case:
    options, size, _ = _yuv(draw)
    rgb = draw.array((1, 3, *size), low=-0.2, high=1.2)
    return Case(
        {"rgb": rgb},
        options,
        lambda a: reference.rgb_to_yuv(np.moveaxis(a["rgb"][0], 0, 2), **options),
        tolerance=0.51,
    )


def _flow_size(draw: Draw, *size: int) -> tuple[int, tuple[int, int]]:
    scale = draw.choice(1, 2, 4, 8)
    return scale, (-(-size[0] // scale), -(-size[1] // scale))


@op()
def warp(draw: Draw) -> Case:
    n, channels = draw.batch(), draw.size(3, largest=17)
    size = draw.size(5), draw.size(7)
    scale, coarse = _flow_size(draw, *size)
    padding, layout = draw.choice("border", "zeros"), draw.choice("NCHW", "NHWC")
    dtype = draw.choice(*FLOATS, "uint8")
    shape = (n, channels, *size) if layout == "NCHW" else (n, *size, channels)
    image = draw.array(shape, dtype, low=0, high=256 if dtype == "uint8" else 1)

    def expected(a: Mapping[str, Any]) -> tuple[Array, ...]:
        planes = a["image"] if layout == "NCHW" else np.moveaxis(a["image"], 3, 1)
        out = reference.warp(planes.astype(np.float64), _upsampled(a["flow"], scale, size), padding)
        return (out if layout == "NCHW" else np.moveaxis(out, 1, 3),)

    return Case(
        {"image": image, "flow": draw.array((n, 2, *coarse), low=-9, high=9)},
        {"padding": padding, "layout": layout},
        expected,
        tolerance=1 if dtype == "uint8" else 1e-4,
        bounds=(0, 255 if dtype == "uint8" else 1.0001),
        wild=("flow",),
    )


def _upsampled(field: Array, scale: int, size: tuple[int, int]) -> Array:
    empty = 0 in size
    return np.zeros((*field.shape[:2], *size)) if empty else reference.upsample(field, scale, *size)


@op(optional=frozenset({"residual"}))
def warp_blend(draw: Draw) -> Case:
    n, size = draw.batch(), (draw.size(5, least=1), draw.size(7, least=1))
    scale, coarse = _flow_size(draw, *size)
    dtype, out_dtype = draw.choice(*FLOATS), draw.choice(None, "uint8")
    arrays = {
        "image0": draw.array((n, 3, *size), dtype, low=0),
        "image1": draw.array((n, 3, *size), dtype, low=0),
        "flow": draw.array((n, 4, *coarse), low=-9, high=9),
        "mask": draw.array((n, 1, *coarse), low=-5, high=5),
    }
    if draw.choice(True, False):
        arrays["residual"] = draw.array((n, 3, *size), dtype, low=-0.1, high=0.1)

    def expected(a: Mapping[str, Any]) -> tuple[Array, ...]:
        images = (a[name].astype(np.float64) for name in ("image0", "image1"))
        out = reference.warp_blend(*images, a["flow"], a["mask"], a.get("residual"), scale)  # type: ignore[arg-type]
        return (255 * np.moveaxis(out, 1, 3) if out_dtype == "uint8" else out,)

    return Case(
        arrays,
        {} if out_dtype is None else {"out_dtype": out_dtype},
        expected,
        tolerance=1 if out_dtype == "uint8" else 2e-4,
        bounds=(0, 255 if out_dtype == "uint8" else 1),
        wild=("flow", "mask", "residual", "image0", "image1"),
    )


@op(optional=frozenset({"metric"}))
def softmax_splat(draw: Draw) -> Case:
    dtype = draw.choice(*FLOATS)
    n, channels = draw.batch(), draw.size(3, largest=17)
    size = draw.size(5), draw.size(7)
    mode = draw.choice("softmax", "linear", "average", "sum")
    arrays = {
        "image": draw.array((n, channels, *size), dtype),
        "flow": draw.array((n, 2, *size), low=-4, high=4),
    }
    if mode in ("softmax", "linear"):
        arrays["metric"] = draw.array((n, 1, *size), low=0.1, high=3)
    return Case(
        arrays,
        {"mode": mode},
        lambda a: (reference.softmax_splat(a["image"], a["flow"], a.get("metric"), mode),),
        tolerance=1e-3,
    )


@op(outputs=("flow01", "flow10"))
def inverse_search(draw: Draw) -> Case:
    shape = (draw.batch(), 1, draw.size(20), draw.size(24))
    return Case(
        {"luma0": draw.array(shape, low=0), "luma1": draw.array(shape, low=0)},
        {"iterations": draw.choice(2, 8), "stride": draw.choice(4, 1, 3)},
        bounds=(-1e4, 1e4),
        wild=("luma0", "luma1"),
    )


@op()
def randn(draw: Draw) -> Case:
    shape = (draw.size(2), draw.size(7), draw.size(5, largest=9))
    options = {"seed": draw.choice(3, 0, 2**64 - 1), "offset": draw.choice(0, 5, 2**62 - 1)}
    return Case(
        {},
        {"shape": shape, "dtype": draw.choice(*FLOATS), **options},
        lambda a: (
            (reference.randn(int(np.prod(shape)), **options).reshape(shape),)
            if options["offset"] < 2**60
            else (ops.randn(shape, **options).astype(np.float64),)
        ),
        bounds=(-5.8, 5.8),
    )


@op(
    outputs=("out[0]", "out[1]"),
    in_place={"out[0]": "inputs[0]", "out[1]": "inputs[1]"},
    optional=frozenset({"uncond"}),
)
def scheduler_step(draw: Draw) -> Case:
    shape = (draw.batch(), draw.size(7), draw.size(5, largest=33))
    names = ["inputs[0]", "inputs[1]", "uncond"][: draw.choice(3, 2)]
    matrix = np.array([[0.75, -1.25], [0.5, 2]])
    return Case(
        {name: draw.array(shape, draw.choice(*FLOATS)) for name in names},
        {"matrix": matrix, "guidance_scale": 3.5, "out_dtype": draw.choice(*FLOATS)},
        lambda a: tuple(
            reference.scheduler_step(matrix, [a["inputs[0]"], a["inputs[1]"]], a.get("uncond"), 3.5)
        ),
        tolerance=1e-5,
    )


@op(
    outputs=("q", "k"),
    strided=frozenset({"q", "k", "out"}),
    in_place={"q": "q", "k": "k"},
    optional=frozenset({"q_weight", "k_weight", "cos", "sin"}),
)
def qk_norm_rope(draw: Draw) -> Case:
    dtype = draw.choice(*FLOATS)
    n, heads, dim = (
        draw.size(5, largest=17),
        draw.size(3, largest=4, least=1),
        2 * draw.size(8, least=1),
    )
    batch, fewer = draw.batch(), draw.choice(heads, 1)
    norm, rope = draw.choice("head", "full", None), draw.choice("interleaved", "half", None)
    rope = "half" if norm is None and rope is None else rope
    arrays = {
        "q": draw.array((batch, n, heads, dim), dtype),
        "k": draw.array((batch, n, fewer, dim), dtype),
    }
    if norm is not None:
        width = (1, 1) if norm == "head" else (heads, fewer)
        arrays["q_weight"] = draw.array((width[0] * dim,))
        arrays["k_weight"] = draw.array((width[1] * dim,))
    if rope is not None:
        arrays |= {"cos": draw.array((n, dim // 2)), "sin": draw.array((n, dim // 2))}

    def expected(a: Mapping[str, Any]) -> tuple[Array, ...]:
        return tuple(
            reference.qk_norm_rope(
                a[x], a.get(f"{x}_weight"), a.get("cos"), a.get("sin"), norm, rope
            )
            for x in "qk"
        )

    return Case(arrays, {"norm": norm, "rope": rope}, expected, 1e-4)


@op(optional=frozenset({"bias"}), cuda=False)
def linear(draw: Draw) -> Case:
    dtype = draw.choice(*FLOATS)
    depth, columns = draw.size(17, least=1), draw.size(65, least=1, largest=65)
    arrays = {
        "x": draw.array((draw.batch(), draw.size(7), depth)),
        "weight": draw.array((columns, depth), dtype),
    }
    if draw.choice(True, False):
        arrays["bias"] = draw.array((columns,))
    narrow = draw.choice("float32", "bfloat16")
    return Case(
        arrays,
        {"precision": narrow},
        lambda a: (reference.linear(a["x"], a["weight"], a.get("bias")),),
        tolerance=1e-5 if narrow == "float32" else 0.3,
        exact=narrow == "float32",
    )


@op(strided=frozenset({"q", "k", "v", "bias", "out"}), optional=frozenset({"bias"}))
def attention(draw: Draw) -> Case:
    dtype = draw.choice(*FLOATS)
    batch, heads, dim = draw.batch(), draw.size(3, largest=3), draw.size(8, least=1)
    queries, keys = draw.size(5), draw.size(7, least=1)
    arrays = {
        "q": draw.array((batch, queries, heads, dim), dtype),
        "k": draw.array((batch, keys, heads, dim), dtype),
        "v": draw.array((batch, keys, heads, dim), dtype),
    }
    if draw.choice(True, False):
        arrays["bias"] = draw.array((batch, heads, queries, keys))
    causal = draw.choice(False, True)
    return Case(
        arrays,
        {"causal": causal},
        lambda a: (reference.attention(a["q"], a["k"], a["v"], causal=causal, bias=a.get("bias")),),
        tolerance=1e-2 if dtype == "bfloat16" else 1e-4,
        exact=dtype != "bfloat16",
    )


@op(strided=frozenset({"q", "k", "v", "out"}), optional=frozenset({"bias"}))
def temporal_attention(draw: Draw) -> Case:
    dtype = draw.choice(*FLOATS)
    frames, places = draw.size(5, least=1, largest=33), draw.size(7, largest=17)
    shape = (draw.batch(), frames, places, draw.size(3, largest=3), draw.choice(16, 8, 24, 64))
    arrays = {name: draw.array(shape, dtype) for name in "qkv"}
    if draw.choice(True, False):
        arrays["bias"] = draw.array((shape[3], frames, frames))
    causal = draw.choice(False, True)
    return Case(
        arrays,
        {"causal": causal},
        lambda a: (
            reference.temporal_attention(a["q"], a["k"], a["v"], causal=causal, bias=a.get("bias")),
        ),
        tolerance=1e-4,
    )
