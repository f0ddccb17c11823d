"""`attention`: near float64 NumPy, equal bits where the contract has them, any strides."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
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
# Of the largest |v|: float32 sums, then half a unit of the dtype's last place.
TOLERANCE = {"float32": 3e-6, "float16": 6e-4, "bfloat16": 4e-3}
# What the contract allows for products in bfloat16.
PAIR_TOLERANCE = 2**-7
# Queries, keys, dim: below and around the blocks (48 or 24 queries, 6 rows, 64 and 128 keys) and
# vectors (16 and 32 values).
SIZES = [
    (1, 1, 1),
    (5, 3, 8),
    (6, 64, 16),
    (47, 127, 17),
    (49, 129, 31),
    (50, 65, 64),
    (97, 300, 80),
    (48, 256, 128),
    (25, 40, 130),
    (30, 97, 256),
]


@pytest.fixture(params=["baseline", "avx2", "avx512", "avx512_bf16"])
def any_isa(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param not in _core.cpu_isas():
        pytest.skip(f"this machine does not run {request.param}")
    _core._force_isa(request.param)
    yield request.param
    _core._force_isa(None)


def make(
    rng: np.random.Generator, dtype: str, queries: int, keys: int, dim: int, heads: int = 3
) -> list[Any]:
    return [
        rng.normal(0, 1.5, (2, n, heads, dim)).astype(DTYPES[dtype]) for n in (queries, keys, keys)
    ]


def check(result: Any, q: Any, k: Any, v: Any, dtype: str, isa: str, **options: Any) -> None:
    assert result.dtype == DTYPES[dtype]
    right = reference.attention(q, k, v, **options)
    pairs = dtype == "bfloat16" and isa == "avx512_bf16"
    tolerance = PAIR_TOLERANCE if pairs else TOLERANCE[dtype]
    error = np.abs(result.astype(np.float64) - right).max()
    assert error <= tolerance * np.abs(v.astype(np.float64)).max()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("causal", [False, True])
def test_agrees_with_float64(
    rng: np.random.Generator, any_isa: str, size: tuple[int, int, int], dtype: str, causal: bool
) -> None:
    q, k, v = make(rng, dtype, *size)
    result = ops.attention(q, k, v, causal=causal)
    check(result, q, k, v, dtype, any_isa, causal=causal)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("causal", [False, True])
def test_bias_is_added_and_hides(
    rng: np.random.Generator, any_isa: str, dtype: str, batch: int, heads: int, causal: bool
) -> None:
    q, k, v = make(rng, dtype, 53, 150, 40)
    bias = rng.normal(0, 2, (batch, heads, 53, 150)).astype(np.float32)
    bias[:, :, :, rng.random(150) < 0.3] = -np.inf
    bias[:, :, 7] = -np.inf
    result = ops.attention(q, k, v, bias=bias, causal=causal, scale=0.3)
    check(result, q, k, v, dtype, any_isa, bias=bias, causal=causal, scale=0.3)
    assert not result[:, 7].any()


def test_a_bias_of_other_strides(rng: np.random.Generator) -> None:
    q, k, v = make(rng, "float32", 20, 30, 16)
    wide = rng.normal(0, 2, (2, 20, 3, 40)).astype(np.float32)
    bias = wide.transpose(0, 2, 1, 3)[..., 5:35]
    result = ops.attention(q, k, v, bias=bias)
    np.testing.assert_array_equal(result, ops.attention(q, k, v, bias=bias.copy()))
    every = np.broadcast_to(bias[:, :, :1], bias.shape)
    result = ops.attention(q, k, v, bias=every)
    np.testing.assert_array_equal(result, ops.attention(q, k, v, bias=every.copy()))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(5, 3, 8), (49, 129, 31), (50, 65, 64), (25, 200, 130)])
@pytest.mark.parametrize("causal", [False, True])
def test_every_instruction_set_gives_equal_bits(
    rng: np.random.Generator, each_isa: Any, size: tuple[int, int, int], dtype: str, causal: bool
) -> None:
    q, k, v = make(rng, dtype, *size)
    bias = rng.normal(0, 2, (1, 1, *size[:2])).astype(np.float32)
    q[0, 1, 0, 0], k[1, 2, 1, 3] = np.nan, np.inf
    for given_bias in (None, bias):
        options = {"causal": causal, "bias": given_bias}
        results = each_isa(lambda options=options: ops.attention(q, k, v, **options))
        for name, result in results.items():
            right = results["baseline"]
            assert ((result == right) | (np.isnan(result) & np.isnan(right))).all(), name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_do_not_change_the_result(
    rng: np.random.Generator, dtype: str, threads: int
) -> None:
    q, k, v = make(rng, dtype, 200, 333, 64, heads=5)
    once = ops.attention(q, k, v)
    np.testing.assert_array_equal(ops.attention(q, k, v, threads=threads), once)


def test_many_heads_are_packed_in_groups(rng: np.random.Generator) -> None:
    """More keys and values than one group holds (16 MB)."""
    q, k, v = (rng.normal(size=(3, n, 5, 128)).astype(np.float32) for n in (3, 2050, 2050))
    result = ops.attention(q, k, v)
    for batch in range(3):
        part = slice(batch, batch + 1)
        np.testing.assert_array_equal(result[part], ops.attention(q[part], k[part], v[part]))
    check(result, q, k, v, "float32", "")


@pytest.mark.parametrize("dtype", DTYPES)
def test_packed_projections_and_other_strides(
    rng: np.random.Generator, any_isa: str, dtype: str
) -> None:
    q, k, v = make(rng, dtype, 60, 60, 24)
    right = ops.attention(q, k, v)
    qkv = np.stack([q, k, v], 2)
    packed = [qkv[:, :, i] for i in range(3)]
    np.testing.assert_array_equal(ops.attention(*packed), right)
    heads_first = [
        np.ascontiguousarray(x.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3) for x in (q, k, v)
    ]
    out = np.zeros((2, 60, 3, 40), DTYPES[dtype])[..., 8:32]
    assert ops.attention(*heads_first, out=out) is out
    np.testing.assert_array_equal(out, right)
    assert not out.base[..., :8].any()
    assert not out.base[..., 32:].any()


def test_all_queries_may_share_keys(rng: np.random.Generator) -> None:
    q, k, v = make(rng, "float32", 9, 33, 16)
    shared = [np.broadcast_to(x[:1, :, :1], x.shape) for x in (k, v)]
    np.testing.assert_array_equal(
        ops.attention(q, *shared), ops.attention(q, *(x.copy() for x in shared))
    )


def test_equal_keys_give_the_mean_of_the_values(rng: np.random.Generator, any_isa: str) -> None:
    q, _, v = make(rng, "float32", 7, 100, 32)
    result = ops.attention(q, np.ones_like(v), v)
    mean = np.broadcast_to(v.astype(np.float64).mean(1, keepdims=True), q.shape)
    np.testing.assert_allclose(result, mean, atol=2e-6)


def test_large_scores_pick_one_key(rng: np.random.Generator, any_isa: str) -> None:
    """The largest score is subtracted before the exponential, so that nothing overflows."""
    q = np.zeros((1, 40, 1, 16), np.float32)
    k, v = np.zeros((1, 130, 1, 16), np.float32), rng.normal(size=(1, 130, 1, 16))
    q[..., 0], k[0, 77, 0, 0], k[0, 3, 0, 0] = 1e9, 1e9, -1e9
    result = ops.attention(q, k, v.astype(np.float32))
    np.testing.assert_array_equal(result, np.broadcast_to(v[:, 77:78].astype(np.float32), q.shape))


def test_nan_stays_in_its_query(rng: np.random.Generator, any_isa: str) -> None:
    q, k, v = make(rng, "float32", 60, 90, 16)
    right = ops.attention(q, k, v)
    q[0, 5, 1, 2] = np.nan
    result = ops.attention(q, k, v)
    assert np.isnan(result[0, 5, 1]).all()
    result[0, 5, 1] = right[0, 5, 1]
    np.testing.assert_array_equal(result, right)


ANY_FLOAT = st.floats(width=16, allow_nan=True, allow_infinity=True)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    sizes=st.tuples(st.integers(1, 60), st.integers(1, 140), st.integers(1, 40)),
    dtype=st.sampled_from(sorted(DTYPES)),
    causal=st.booleans(),
    values=st.lists(ANY_FLOAT, min_size=1, max_size=20),
    where=st.sampled_from("qkvb"),
)
def test_any_value_is_read_and_written_inside(
    sizes: tuple[int, int, int], dtype: str, causal: bool, values: list[float], where: str
) -> None:
    rng = np.random.default_rng(4)
    arrays = dict(zip("qkv", make(rng, dtype, *sizes, heads=1), strict=True))
    arrays["b"] = rng.normal(size=(1, 1, *sizes[:2])).astype(np.float32)
    with np.errstate(all="ignore"):
        odd = np.array(values).astype(arrays[where].dtype)
    arrays[where].reshape(-1)[: len(odd)] = odd[: arrays[where].size]
    guarded = np.full((2, sizes[0] + 2, 1, sizes[2]), 7, DTYPES[dtype])
    out = guarded[:, 1:-1]
    q, k, v, bias = arrays.values()
    ops.attention(q, k, v, bias=bias, causal=causal, out=out)
    assert (guarded[:, 0] == 7).all()
    assert (guarded[:, -1] == 7).all()
    # The other batch has none of these values.
    other = [x[1:] for x in (q, k, v)]
    clean = where == "b" or arrays[where].size // 2 >= len(odd)
    if clean and where != "b":
        right = reference.attention(*other, causal=causal, bias=bias)
        error = np.abs(out[1:].astype(np.float64) - right).max()
        assert error <= PAIR_TOLERANCE * np.abs(other[2].astype(np.float64)).max() + 1e-6


def test_torch_tensors_of_bfloat16(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    q, k, v = (torch.randn(1, 70, 2, 32, dtype=torch.bfloat16) for _ in range(3))
    out = torch.empty_like(q)
    assert ops.attention(q, k, v, out=out) is out
    right = torch.nn.functional.scaled_dot_product_attention(
        *(x.transpose(1, 2).double() for x in (q, k, v))
    ).transpose(1, 2)
    assert (out.double() - right).abs().max() <= PAIR_TOLERANCE * v.double().abs().max()


def zeros(*shape: int, dtype: Any = np.float32) -> Any:
    return np.zeros(shape, dtype)


Q, K = zeros(2, 4, 3, 8), zeros(2, 5, 3, 8)
PACKED = zeros(2, 4, 3, 3, 8)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"q": 1.0}, InputTypeError, "q must be a NumPy array or have __dlpack__, got float"),
        ({"q": zeros(2, 4, 3, 8, dtype=np.uint8)}, InputTypeError, "q must be float32, float16"),
        ({"k": zeros(2, 5, 3, 8, dtype=np.float16)}, InputTypeError, "k must be float32, got"),
        ({"v": zeros(2, 5, 3, 8, dtype=np.float16)}, InputTypeError, "v must be float32, got"),
        ({"q": zeros(4, 3, 8)}, InputError, "q must be (B, Nq, H, D), got shape (4, 3, 8)"),
        ({"q": zeros(2, 0, 3, 8)}, InputError, "q must not be empty"),
        ({"k": zeros(2, 0, 3, 8)}, InputError, "k must not be empty"),
        ({"q": zeros(1, 1, 1, 257)}, InputError, "q must have a dim of at most 256"),
        ({"k": zeros(2, 5, 3, 9)}, InputError, "k must have the batch, heads and dim of q"),
        ({"k": zeros(1, 5, 3, 8)}, InputError, "k must have the batch, heads and dim of q"),
        ({"v": zeros(2, 6, 3, 8)}, InputError, "v must have shape (2, 5, 3, 8), got (2, 6, 3, 8)"),
        ({"q": zeros(2, 4, 3, 16)[..., ::2]}, InputError, "q must be adjacent along its last"),
        ({"bias": zeros(4, 5)}, InputError, "bias must have shape (2, 3, 4, 5), or 1 in place"),
        ({"bias": zeros(2, 2, 4, 5)}, InputError, "bias must have shape (2, 3, 4, 5)"),
        ({"bias": zeros(2, 3, 1, 5)}, InputError, "bias must have shape (2, 3, 4, 5)"),
        ({"bias": zeros(2, 3, 4, 5, dtype=np.float16)}, InputTypeError, "bias must be float32"),
        ({"scale": 0}, InputError, "scale must be from 1e-30 to 1e30"),
        ({"scale": -1.0}, InputError, "scale must be from 1e-30 to 1e30"),
        ({"scale": float("inf")}, InputError, "scale must be finite, got inf"),
        ({"scale": "1"}, InputTypeError, "scale must be a number, got str"),
        ({"out": zeros(2, 4, 3, 9)}, InputError, "out must have shape (2, 4, 3, 8)"),
        ({"out": zeros(2, 4, 3, 8, dtype=np.float16)}, InputTypeError, "out must be float32"),
        ({"out": Q}, InputError, "out must not share memory with q, got overlapping arrays"),
        (
            {"q": PACKED[:, :, 0], "out": PACKED[:, :, 0, :, :]},
            InputError,
            "out must not share memory with q",
        ),
        ({"threads": 0}, InputError, "threads must be from 1 to 256"),
        ({"stream": 5}, InputError, "stream must be None for arrays on the CPU"),
    ],
)
def test_wrong_arguments_are_refused(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match="^attention: .*" + re.escape(message)):
        ops.attention(**{"q": Q, "k": K, "v": K, **arguments})


@pytest.mark.skipif(_core.cuda_compiled(), reason="with CUDA kernels a device may be there")
def test_a_device_array_without_a_device_is_refused() -> None:
    with pytest.raises(NoDeviceError, match="attention: this build of fastvid has no CUDA"):
        ops.attention(OnDevice(), OnDevice(), OnDevice())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("with_bias", [False, True])
def test_onnxruntime_gives_the_same_bits(
    rng: np.random.Generator, run_node: Callable[..., Any], dtype: str, with_bias: bool
) -> None:
    q, k, v = make(rng, dtype, 60, 150, 40)
    bias = rng.normal(size=(2, 1, 60, 150)).astype(np.float32) if with_bias else None
    for scale in (0.0, 0.25):
        result = run_node("Attention", q, k, v, bias, causal=1, scale=scale)
        expected = ops.attention(q, k, v, bias=bias, causal=True, scale=scale or None)
        assert result.dtype == q.dtype
        np.testing.assert_array_equal(result, expected)


def test_onnxruntime_reports_errors(run_node: Callable[..., Any]) -> None:
    with pytest.raises(Exception, match="attention: k must have the batch, heads and dim of q"):
        run_node("Attention", Q, zeros(2, 5, 3, 9), K)


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
def test_cuda_is_near_float64(
    rng: np.random.Generator, dtype: str, size: tuple[int, int, int], causal: bool, with_bias: bool
) -> None:
    torch = pytest.importorskip("torch")
    q, k, v = make(rng, dtype, *size)
    bias = None
    if with_bias:
        bias = rng.normal(0, 2, (1, 3, *size[:2])).astype(np.float32)
        bias[:, :, :, 1:3] = -np.inf
    there = [
        torch.from_numpy(x.astype(np.float32)).to("cuda", getattr(torch, dtype)) for x in (q, k, v)
    ]
    out = torch.full_like(there[0], torch.nan)
    device_bias = None if bias is None else torch.from_numpy(bias).cuda()
    ops.attention(*there, bias=device_bias, causal=causal, out=out)
    right = reference.attention(q, k, v, causal=causal, bias=bias)
    # Tensor cores take weights rounded to the dtype.
    tolerance = {"float32": 4e-6, "float16": 2e-3, "bfloat16": PAIR_TOLERANCE}[dtype]
    error = np.abs(out.double().cpu().numpy() - right).max()
    assert error <= tolerance * np.abs(v.astype(np.float64)).max()


@pytest.mark.cuda
def test_cuda_takes_packed_projections(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    for dim, dtype in ((64, "float16"), (128, "bfloat16"), (36, "float32"), (20, "bfloat16")):
        qkv = torch.randn(2, 100, 3, 5, dim, device="cuda", dtype=getattr(torch, dtype))
        out = torch.empty_like(qkv[:, :, 0])
        ops.attention(*qkv.unbind(2), out=out)
        right = reference.attention(*(x.double().cpu().numpy() for x in qkv.unbind(2)))
        tolerance = 1e-5 if dtype == "float32" else 4 * PAIR_TOLERANCE
        assert np.abs(out.double().cpu().numpy() - right).max() <= tolerance
