"""`qk_norm_rope` and `rope_table_3d`: near float64 NumPy and diffusers' tables, equal bits."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import reference
from arrays import OnDevice
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastvid import _core, ops
from fastvid.errors import InputError, InputTypeError, NoDeviceError

DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
# Relative to the largest value: the sums' rounding, then half a unit of the dtype's last place.
TOLERANCE = {"float32": 2e-6, "float16": 6e-4, "bfloat16": 5e-3}
MODES = [
    ("full", "interleaved"),
    ("head", "interleaved"),
    ("full", "half"),
    ("head", "half"),
    ("full", None),
    ("head", None),
    (None, "interleaved"),
    (None, "half"),
]
# Around the width of the vectors (16 values, pairs of 8), and below both.
DIMS = [2, 6, 16, 18, 32, 40, 64, 100, 128, 256]


def make(
    rng: np.random.Generator, dtype: str, shape: tuple[int, ...], norm: str | None, rope: str | None
) -> dict[str, Any]:
    _, tokens, heads, dim = shape
    q, k = (rng.normal(0, 2, shape).astype(DTYPES[dtype]) for _ in range(2))
    arguments: dict[str, Any] = {"q": q, "k": k, "norm": norm, "rope": rope}
    if norm is not None:
        size = dim if norm == "head" else heads * dim
        arguments["q_weight"] = rng.normal(1, 0.3, size).astype(np.float32)
        arguments["k_weight"] = rng.normal(1, 0.3, size).astype(np.float32)
    if rope is not None:
        angles = rng.uniform(-7, 7, (tokens, dim // 2))
        arguments["cos"] = np.cos(angles).astype(np.float32)
        arguments["sin"] = np.sin(angles).astype(np.float32)
    return arguments


def expected(arguments: dict[str, Any]) -> list[Any]:
    cos, sin = arguments.get("cos"), arguments.get("sin")
    norm, rope = arguments["norm"], arguments["rope"]
    return [
        reference.qk_norm_rope(
            arguments[name], arguments.get(f"{name}_weight"), cos, sin, norm, rope
        )
        for name in ("q", "k")
    ]


def check(results: tuple[Any, Any], arguments: dict[str, Any], dtype: str) -> None:
    for result, right in zip(results, expected(arguments), strict=True):
        assert result.dtype == DTYPES[dtype]
        largest = np.abs(right).max()
        error = np.abs(result.astype(np.float64) - right).max()
        assert error <= TOLERANCE[dtype] * largest


@pytest.mark.parametrize(("norm", "rope"), MODES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", DIMS)
def test_agrees_with_float64(
    rng: np.random.Generator, isa: str, dim: int, dtype: str, norm: str | None, rope: str | None
) -> None:
    arguments = make(rng, dtype, (2, 5, 3, dim), norm, rope)
    before = [arguments[name].copy() for name in ("q", "k")]
    check(ops.qk_norm_rope(**arguments, out=(None, None)), arguments, dtype)
    for name, array in zip(("q", "k"), before, strict=True):
        np.testing.assert_array_equal(arguments[name], array)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [6, 32, 100, 128])
@pytest.mark.parametrize(("norm", "rope"), MODES)
def test_every_instruction_set_gives_equal_bits(
    rng: np.random.Generator,
    each_isa: Any,
    dim: int,
    dtype: str,
    norm: str | None,
    rope: str | None,
) -> None:
    arguments = make(rng, dtype, (1, 9, 5, dim), norm, rope)
    arguments["q"][0, 2, 1, 3] = np.nan
    arguments["k"][0, 4, 2, 1] = np.inf
    results = each_isa(lambda: ops.qk_norm_rope(**arguments, out=(None, None)))
    for name, result in results.items():
        for array, baseline in zip(result, results["baseline"], strict=True):
            same = (array == baseline) | (np.isnan(array) & np.isnan(baseline))
            assert same.all(), name


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("norm", ["full", "head"])
def test_threads_do_not_change_the_result(
    rng: np.random.Generator, threads: int, norm: str
) -> None:
    arguments = make(rng, "float32", (2, 301, 4, 64), norm, "interleaved")
    once = ops.qk_norm_rope(**arguments, out=(None, None))
    other = ops.qk_norm_rope(**arguments, out=(None, None), threads=threads)
    for first, second in zip(once, other, strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [24, 64])
def test_packed_projections_are_changed_where_they_lie(
    rng: np.random.Generator, isa: str, dim: int, dtype: str
) -> None:
    arguments = make(rng, dtype, (2, 7, 3, dim), "full", "interleaved")
    qkv = np.stack([arguments["q"], arguments["k"], arguments["k"]], 2)
    right = ops.qk_norm_rope(**arguments, out=(None, None))
    views = {"q": qkv[:, :, 0], "k": qkv[:, :, 1]}
    q, k = ops.qk_norm_rope(**{**arguments, **views})
    assert q is views["q"]
    assert k is views["k"]
    np.testing.assert_array_equal(qkv[:, :, 0], right[0])
    np.testing.assert_array_equal(qkv[:, :, 1], right[1])
    np.testing.assert_array_equal(qkv[:, :, 2], arguments["k"])


def test_other_strides_and_an_output_of_another_layout(rng: np.random.Generator) -> None:
    arguments = make(rng, "float32", (2, 7, 3, 32), "head", "half")
    right = ops.qk_norm_rope(**arguments, out=(None, None))
    heads_first = {
        name: np.ascontiguousarray(arguments[name].transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3)
        for name in ("q", "k")
    }
    interleaved_heads = np.stack([arguments["q"], arguments["k"]], 3)
    for views in (
        heads_first,
        {"q": interleaved_heads[:, :, :, 0], "k": interleaved_heads[:, :, :, 1]},
    ):
        out = tuple(np.empty((2, 3, 7, 32), np.float32).transpose(0, 2, 1, 3) for _ in range(2))
        results = ops.qk_norm_rope(**{**arguments, **views}, out=out)
        assert results[0] is out[0]
        assert results[1] is out[1]
        for result, array in zip(results, right, strict=True):
            np.testing.assert_array_equal(result, array)
        ops.qk_norm_rope(**{**arguments, **views})
        np.testing.assert_array_equal(views["q"], right[0])
        np.testing.assert_array_equal(views["k"], right[1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_outputs_are_written_completely(
    rng: np.random.Generator, each_isa: Any, dtype: str
) -> None:
    """From 8 MB, results of whole cache lines take another way to memory."""
    arguments = make(rng, dtype, (1, 1500, 24, 128), "full", "interleaved")
    right = [arguments[name].copy() for name in ("q", "k")]
    ops.qk_norm_rope(**{**arguments, "q": right[0], "k": right[1]})
    results = each_isa(lambda: ops.qk_norm_rope(**arguments, out=(None, None)))
    for result in results.values():
        for array, in_place in zip(result, right, strict=True):
            np.testing.assert_array_equal(array, in_place)


def test_fewer_heads_and_other_tokens_of_k(rng: np.random.Generator) -> None:
    q = rng.normal(size=(2, 6, 4, 32)).astype(np.float32)
    k = rng.normal(size=(2, 11, 2, 32)).astype(np.float32)
    weights = rng.normal(size=128).astype(np.float32), rng.normal(size=64).astype(np.float32)
    results = ops.qk_norm_rope(q, k, *weights, rope=None, out=(None, None))
    for result, x, weight in zip(results, (q, k), weights, strict=True):
        right = reference.qk_norm_rope(x, weight, None, None, "full", None)
        np.testing.assert_allclose(result, right, atol=1e-5)


@pytest.mark.parametrize("rope", ["interleaved", "half"])
def test_tables_of_each_head(rng: np.random.Generator, isa: str, rope: str) -> None:
    arguments = make(rng, "float32", (2, 6, 3, 20), "full", rope)
    angles = rng.uniform(-7, 7, (6, 30))
    arguments["cos"], arguments["sin"] = (f(angles).astype(np.float32) for f in (np.cos, np.sin))
    check(ops.qk_norm_rope(**arguments, out=(None, None)), arguments, "float32")


def test_rotation_keeps_lengths_and_depends_on_distance(rng: np.random.Generator) -> None:
    """The reason for rotary embeddings: q . k depends on the difference of the positions."""
    q, k = (np.tile(rng.normal(size=(1, 1, 1, 64)), (1, 9, 1, 1)).astype(np.float32) for _ in "qk")
    cos, sin = ops.rope_table_3d(9, 1, 1, 64)
    q, k = ops.qk_norm_rope(q, k, cos=cos, sin=sin, norm=None)
    scores = q[0, :, 0] @ k[0, :, 0].T
    for distance in range(-8, 9):
        line = np.diagonal(scores, distance)
        np.testing.assert_allclose(line, line[0], rtol=1e-4, atol=1e-4)
    assert np.ptp(scores[0]) > 1


FIXTURE = Path(__file__).parents[1] / "data" / "rope_tables.json"


@pytest.mark.parametrize("case", json.loads(FIXTURE.read_text())["tables"], ids=lambda c: c["name"])
def test_tables_are_those_of_diffusers(case: dict[str, Any]) -> None:
    tables = ops.rope_table_3d(*case["grid"], case["dim"], **case["arguments"])
    # Wan's angles are float64 there too; the others' are float32, up to 1.6e4 in LTX.
    tolerance = {"WanRotaryPosEmbed": 6e-8, "LTXVideoRotaryPosEmbed": 4e-3}
    for name, table in zip(("cos", "sin"), tables, strict=True):
        right = np.array(case[name], np.float32).reshape(table.shape)
        assert table.dtype == np.float32
        np.testing.assert_allclose(table, right, atol=tolerance.get(case["name"], 2e-6))
    if case["name"] == "LTXVideoRotaryPosEmbed":
        slow = slice(0, 2 + 12)  # what is left over, and four frequencies of three axes
        for name, table in zip(("cos", "sin"), tables, strict=True):
            right = np.array(case[name], np.float32).reshape(table.shape)
            np.testing.assert_allclose(table[:, slow], right[:, slow], atol=2e-4)


def test_a_later_chunk_continues_the_table() -> None:
    whole = ops.rope_table_3d(5, 2, 3, 44)
    chunk = ops.rope_table_3d(2, 2, 3, 44, offset=(3, 0, 0))
    for table, part in zip(whole, chunk, strict=True):
        np.testing.assert_array_equal(table[18:], part)


ANY_FLOAT = st.floats(width=32, allow_nan=True, allow_infinity=True)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    data=st.data(),
    shape=st.tuples(*[st.integers(1, n) for n in (2, 9, 4)], st.integers(1, 40)),
    dtype=st.sampled_from(sorted(DTYPES)),
    mode=st.sampled_from(MODES),
    values=st.lists(ANY_FLOAT, min_size=1, max_size=12),
)
def test_any_value_stays_inside_its_row(
    data: Any, shape: tuple[int, ...], dtype: str, mode: tuple[str, str], values: list[float]
) -> None:
    """NaN and infinity spread over what they are averaged with, and nothing else is written."""
    if mode[1] is not None:
        shape = (*shape[:3], 2 * ((shape[3] + 1) // 2))
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    arguments = make(rng, dtype, shape, *mode)
    token = data.draw(st.integers(0, shape[1] - 1))
    with np.errstate(all="ignore"):
        row = np.resize(np.array(values, np.float32), shape[2:]).astype(DTYPES[dtype])
    guarded = np.full((shape[0], shape[1] + 2, *shape[2:]), 7, DTYPES[dtype])
    q = guarded[:, 1:-1]
    q[:] = arguments["q"]
    right, _ = ops.qk_norm_rope(**arguments, out=(None, None))
    q[:, token] = row
    ops.qk_norm_rope(**{**arguments, "q": q})
    assert (guarded[:, 0] == 7).all()
    assert (guarded[:, -1] == 7).all()
    others = [t for t in range(shape[1]) if t != token]
    np.testing.assert_array_equal(q[:, others], right[:, others])


def wrong(**changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    return {**make(rng, "float32", (1, 4, 2, 8), "full", "interleaved"), **changes}


def zeros(*shape: int, dtype: Any = np.float32) -> Any:
    return np.zeros(shape, dtype)


SHARED = zeros(1, 4, 5, 8)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (wrong(q=[1.0]), InputTypeError, "q must be a NumPy array or have __dlpack__, got list"),
        (wrong(q=zeros(1, 4, 2, 8, dtype=np.uint8)), InputTypeError, "got uint8"),
        (
            wrong(k=zeros(1, 4, 2, 8, dtype=np.float16)),
            InputTypeError,
            "k must be float32, got float16",
        ),
        (wrong(q=zeros(4, 2, 8)), InputError, "q must be (B, N, H, D), got shape (4, 2, 8)"),
        (wrong(q=zeros(1, 4, 0, 8)), InputError, "q must not be empty"),
        (wrong(k=zeros(1, 5, 2, 8)), InputError, "k must have the batch, tokens and dim of q"),
        (wrong(k=zeros(2, 4, 2, 8), rope=None), InputError, "k must have the batch and dim of q"),
        (wrong(q=zeros(1, 4, 2, 16)[..., ::2]), InputError, "q must be adjacent along its last"),
        (wrong(q=zeros(1, 4, 2, 7), k=zeros(1, 4, 2, 7)), InputError, "q must have an even dim"),
        (wrong(norm=None), InputError, "q_weight must be None without norm"),
        (wrong(rope=None), InputError, "cos must be None without rope"),
        (wrong(cos=None), InputError, "cos must be given with rope, got None"),
        (wrong(sin=None), InputError, "sin must be given with rope, got None"),
        (wrong(sin=zeros(4, 8)), InputError, "sin must have shape (4, 4), got (4, 8)"),
        (wrong(cos=zeros(3, 4)), InputError, "cos must have shape (4, 4) or (4, 8), got (3, 4)"),
        (
            wrong(k=zeros(1, 4, 1, 8), k_weight=None, cos=zeros(4, 8)),
            InputError,
            "cos must have shape (4, 4), got (4, 8)",
        ),
        (wrong(cos=zeros(4, 4, dtype=np.float16)), InputTypeError, "cos must be float32"),
        (wrong(q_weight=zeros(8)), InputError, "q_weight must have shape (16,), got (8,)"),
        (wrong(norm="head"), InputError, "q_weight must have shape (8,), got (16,)"),
        (
            wrong(norm="layer"),
            InputError,
            "norm must be one of head, full, got 'layer'",
        ),
        (wrong(rope=3), InputTypeError, "rope must be a str, got int"),
        (wrong(eps=-1.0), InputError, "eps must be a finite number of at least 0"),
        (wrong(eps=float("nan")), InputError, "eps must be finite, got nan"),
        (wrong(eps="small"), InputTypeError, "eps must be a number, got str"),
        (wrong(out=zeros(1, 4, 2, 8)), InputTypeError, "out must be a tuple of 2 arrays"),
        (
            wrong(out=(zeros(1, 4, 2, 9), None)),
            InputError,
            "q_out must have shape (1, 4, 2, 8), got (1, 4, 2, 9)",
        ),
        (
            wrong(out=(None, zeros(1, 4, 2, 8, dtype=np.float16))),
            InputTypeError,
            "k_out must be float32, got float16",
        ),
        (
            wrong(q=SHARED[:, :, 0:2], k=SHARED[:, :, 1:3]),
            InputError,
            "q_out must not share memory with k, got overlapping arrays",
        ),
        (
            wrong(q=SHARED[:, :, 0:2], k=SHARED[:, :, 0:2]),
            InputError,
            "q_out must not share memory with k, got overlapping arrays",
        ),
        (
            wrong(out=(SHARED[:, :, 0:2], SHARED[:, :, 1:3])),
            InputError,
            "q_out must not share memory with k_out",
        ),
        (wrong(threads=0), InputError, "threads must be from 1 to 256"),
    ],
)
def test_wrong_arguments_are_refused_before_any_work(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    before = {
        name: array.copy() for name, array in arguments.items() if isinstance(array, np.ndarray)
    }
    with pytest.raises(error, match="^qk_norm_rope: .*" + re.escape(message)):
        ops.qk_norm_rope(**arguments)
    for name, array in before.items():
        np.testing.assert_array_equal(arguments[name], array)


def test_neither_norm_nor_rope_is_refused() -> None:
    with pytest.raises(InputError, match="norm or rope must be given, got None for both"):
        ops.qk_norm_rope(zeros(1, 4, 2, 8), zeros(1, 4, 2, 8), norm=None, rope=None)


def test_a_read_only_array_is_not_changed_in_place() -> None:
    arguments = wrong()
    arguments["q"].flags.writeable = False
    with pytest.raises(InputError, match="q_out must be writable"):
        ops.qk_norm_rope(**arguments)


@pytest.mark.skipif(_core.cuda_compiled(), reason="with CUDA kernels a device may be there")
def test_a_device_array_without_a_device_is_refused() -> None:
    with pytest.raises(NoDeviceError, match="qk_norm_rope: this build of fastvid has no CUDA"):
        ops.qk_norm_rope(OnDevice(), OnDevice())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"frames": 0}, InputError, "frames must be from 1"),
        ({"width": 2.0}, InputTypeError, "width must be an int, got float"),
        ({"dim": 7}, InputError, "dim must be even, got 7"),
        ({"theta": 0.0}, InputError, "theta must be positive"),
        ({"split": (4, 4, 4)}, InputError, "split must be three even numbers of sum 8"),
        ({"split": (3, 3, 2)}, InputError, "split must be three even numbers of sum 8"),
        ({"split": (8, 0)}, InputError, "split must be 3 numbers, got 2"),
        ({"offset": 1.0}, InputTypeError, "offset must be a sequence of 3 numbers, got float"),
        ({"scale": (1, 1, float("inf"))}, InputError, "scale must be finite, got inf"),
        ({"style": "rwkv"}, InputError, "style must be one of wan, ltx, got 'rwkv'"),
        ({"style": "ltx", "split": (4, 2, 2)}, InputError, "split must be None for style 'ltx'"),
    ],
)
def test_wrong_tables_are_refused(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    given_arguments = {"frames": 1, "height": 2, "width": 3, "dim": 8, **arguments}
    with pytest.raises(error, match="^rope_table_3d: .*" + re.escape(message)):
        ops.rope_table_3d(**given_arguments)


@pytest.mark.parametrize(("norm", "rope"), MODES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_onnxruntime_gives_the_same_bits(
    rng: np.random.Generator,
    run_node: Callable[..., Any],
    dtype: str,
    norm: str | None,
    rope: str | None,
) -> None:
    arguments = make(rng, dtype, (2, 6, 3, 20), norm, rope)
    names = ("q", "k", "q_weight", "k_weight", "cos", "sin")
    results = run_node(
        "QkNormRope",
        *(arguments.get(name) for name in names),
        outputs=2,
        norm=norm or "none",
        rope=rope or "none",
        eps=1e-5,
    )
    expected = ops.qk_norm_rope(**arguments, eps=1e-5, out=(None, None))
    for result, right in zip(results, expected, strict=True):
        assert result.dtype == right.dtype
        np.testing.assert_array_equal(result, right)


def test_onnxruntime_reports_errors(run_node: Callable[..., Any]) -> None:
    with pytest.raises(Exception, match="qk_norm_rope: norm must be one of none, head, full, got"):
        run_node("QkNormRope", zeros(1, 4, 2, 8), zeros(1, 4, 2, 8), outputs=2, norm="layer")


@pytest.mark.cuda
@pytest.mark.parametrize(("norm", "rope"), MODES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", DIMS)
def test_cuda_is_near_float64(
    rng: np.random.Generator, dim: int, dtype: str, norm: str | None, rope: str | None
) -> None:
    torch = pytest.importorskip("torch")
    arguments = make(rng, dtype, (2, 37, 3, dim), norm, rope)

    def on_device(value: Any) -> Any:
        if not isinstance(value, np.ndarray):
            return value
        kind = torch.float32 if value.dtype == np.float32 else getattr(torch, dtype)
        return torch.from_numpy(value.astype(np.float32)).to("cuda", kind)

    there = {name: on_device(value) for name, value in arguments.items()}
    out = tuple(torch.full_like(there[name], torch.nan) for name in ("q", "k"))
    ops.qk_norm_rope(**there, out=out)
    packed = torch.stack([there["q"], there["k"]], 2)
    ops.qk_norm_rope(**{**there, "q": packed[:, :, 0], "k": packed[:, :, 1]})
    for i, right in enumerate(expected(arguments)):
        largest = np.abs(right).max()
        for found in (out[i], packed[:, :, i]):
            error = np.abs(found.double().cpu().numpy() - right).max()
            assert error <= TOLERANCE[dtype] * largest
