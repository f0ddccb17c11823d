"""`temporal_attention`: near float64 NumPy, equal bits on every instruction set, strided views."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import reference
from arrays import Exchanged, OnDevice
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastvid import _core, ops
from fastvid.errors import InputError, InputTypeError, NoDeviceError

DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
# Of normal values: the rounding of scores and sums, then half a unit of the dtype's last place.
TOLERANCE = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 1.6e-2}
# Around the vectors (16 queries, two of them), the blocks of keys and rows, and the ends.
FRAMES = [1, 2, 3, 5, 7, 8, 11, 12, 13, 14, 16, 17, 21, 25, 31, 32, 33, 48, 49, 63, 64]
DIMS = [8, 16, 24, 40, 64, 80, 96, 128, 160, 256]


def make(
    rng: np.random.Generator, shape: tuple[int, ...], dtype: str = "float32", std: float = 1
) -> tuple[Any, Any, Any]:
    q, k, v = (rng.normal(0, std, shape).astype(DTYPES[dtype]) for _ in range(3))
    return q, k, v


def same_bits(a: Any, b: Any, message: str = "") -> None:
    bits = np.uint32 if a.dtype.itemsize == 4 else np.uint16
    np.testing.assert_array_equal(a.view(bits), b.view(bits), err_msg=message)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("frames", FRAMES)
def test_any_number_of_frames_agrees_with_float64(
    rng: np.random.Generator, isa: str, frames: int, dtype: str
) -> None:
    q, k, v = make(rng, (2, frames, 3, 2, 24), dtype)
    out = ops.temporal_attention(q, k, v)
    assert out.dtype == q.dtype
    np.testing.assert_allclose(
        out.astype(np.float64), reference.temporal_attention(q, k, v), atol=TOLERANCE[dtype]
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", DIMS)
def test_any_size_of_heads_agrees_with_float64(
    rng: np.random.Generator, isa: str, dim: int, dtype: str
) -> None:
    q, k, v = make(rng, (1, 11, 2, 3, dim), dtype)
    np.testing.assert_allclose(
        ops.temporal_attention(q, k, v).astype(np.float64),
        reference.temporal_attention(q, k, v),
        atol=TOLERANCE[dtype],
    )


@pytest.mark.parametrize("frames", [5, 16, 21, 33])
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("scale", [None, 0.03, -1.0, 0.0])
def test_bias_causal_and_scale(
    rng: np.random.Generator, frames: int, heads: int, causal: bool, scale: float | None
) -> None:
    q, k, v = make(rng, (2, frames, 3, 3, 16))
    bias = rng.normal(0, 2, (heads, frames, frames)).astype(np.float32)
    bias[rng.random(bias.shape) < 0.2] = -np.inf
    for given_bias in (None, bias):
        found = ops.temporal_attention(q, k, v, scale=scale, causal=causal, bias=given_bias)
        expected = reference.temporal_attention(
            q, k, v, scale=scale, causal=causal, bias=given_bias
        )
        np.testing.assert_allclose(found, expected, atol=2e-5)


def test_causal_frames_do_not_see_later_ones(rng: np.random.Generator, isa: str) -> None:
    q, k, v = make(rng, (1, 12, 2, 2, 32))
    before = ops.temporal_attention(q, k, v, causal=True)
    k[:, 7:], v[:, 7:] = 9, -9
    after = ops.temporal_attention(q, k, v, causal=True)
    np.testing.assert_array_equal(after[:, :7], before[:, :7])
    assert (after[:, 7:] != before[:, 7:]).any()
    np.testing.assert_allclose(before[:, 0], ops.temporal_attention(q, k, v, causal=True)[:, 0])


def test_a_query_without_keys_gives_zero(rng: np.random.Generator, isa: str) -> None:
    q, k, v = make(rng, (1, 9, 2, 2, 16))
    bias = np.zeros((2, 9, 9), np.float32)
    bias[1, 4] = -np.inf
    out = ops.temporal_attention(q, k, v, bias=bias)
    assert not out[:, 4, :, 1].any()
    plain = ops.temporal_attention(q, k, v)
    np.testing.assert_array_equal(np.delete(out, 4, 1), np.delete(plain, 4, 1))


def test_one_frame_is_its_value(rng: np.random.Generator, isa: str) -> None:
    q, k, v = make(rng, (2, 1, 5, 2, 40))
    np.testing.assert_array_equal(ops.temporal_attention(q, k, v), v)


def test_large_scores_choose_one_key(rng: np.random.Generator, isa: str) -> None:
    q, k, v = make(rng, (1, 16, 2, 2, 64), std=100)
    expected = reference.temporal_attention(q, k, v)
    np.testing.assert_allclose(ops.temporal_attention(q, k, v), expected, atol=0.2)
    assert np.isfinite(ops.temporal_attention(1e18 * q, k, v)).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("frames", "dim"), [(3, 8), (8, 64), (14, 40), (21, 64), (40, 24)])
def test_every_instruction_set_gives_equal_bits(
    rng: np.random.Generator, each_isa: Any, frames: int, dim: int, dtype: str
) -> None:
    q, k, v = make(rng, (2, frames, 5, 3, dim), dtype)
    bias = rng.normal(0, 1, (3, frames, frames)).astype(np.float32)
    results = each_isa(lambda: ops.temporal_attention(q, k, v, bias=bias, causal=True))
    for name, result in results.items():
        same_bits(result, results["baseline"], name)


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_results_are_written_completely(rng: np.random.Generator, dtype: str) -> None:
    """Above 8 MB, rows of whole cache lines take another way to memory; many units are fetched."""
    q, k, v = make(rng, (2, 6, 700, 9, 64), dtype)
    out = np.full_like(q, np.nan)
    ops.temporal_attention(q, k, v, out=out)
    for part in (slice(0, 3), slice(350, 353), slice(697, 700)):
        expected = ops.temporal_attention(*(x[:, :, part] for x in (q, k, v)))
        same_bits(out[:, :, part].copy(), expected)


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_threads_do_not_change_the_result(rng: np.random.Generator, threads: int) -> None:
    q, k, v = make(rng, (2, 16, 130, 5, 64))
    same_bits(ops.temporal_attention(q, k, v, threads=threads), ops.temporal_attention(q, k, v))


@pytest.mark.parametrize("dtype", DTYPES)
def test_views_of_packed_projections_need_no_copy(
    rng: np.random.Generator, isa: str, dtype: str
) -> None:
    packed = rng.normal(0, 1, (2, 10, 6, 3, 4, 32)).astype(DTYPES[dtype])
    views = [packed[..., i, :, :] for i in range(3)]
    same_bits(ops.temporal_attention(*views), ops.temporal_attention(*(x.copy() for x in views)))


def test_any_order_of_axes_will_do(rng: np.random.Generator) -> None:
    q, k, v = make(rng, (2, 7, 6, 4, 16))
    expected = ops.temporal_attention(q, k, v)
    # Heads before places, as after a projection of (B, T, H, S, D); frames last but one.
    heads_first = np.ascontiguousarray(q.transpose(0, 1, 3, 2, 4)).transpose(0, 1, 3, 2, 4)
    frames_last = np.ascontiguousarray(k.transpose(0, 2, 3, 1, 4)).transpose(0, 3, 1, 2, 4)
    target = np.zeros((2, 4, 6, 7, 16), np.float32).transpose(0, 3, 2, 1, 4)
    out = ops.temporal_attention(heads_first, frames_last, v, out=target)
    assert out is target
    np.testing.assert_array_equal(target, expected)


def test_broadcast_keys_are_read_where_they_lie(rng: np.random.Generator) -> None:
    q, k, v = make(rng, (2, 5, 6, 3, 16))
    shared = np.broadcast_to(k[:1, :, :1], k.shape)
    np.testing.assert_array_equal(
        ops.temporal_attention(q, shared, v), ops.temporal_attention(q, shared.copy(), v)
    )


def test_arrays_of_dlpack(rng: np.random.Generator) -> None:
    q, k, v = make(rng, (1, 5, 6, 3, 16))
    out = np.zeros_like(q)
    target = Exchanged(out)
    found = ops.temporal_attention(Exchanged(q), Exchanged(k), Exchanged(v), out=target)  # type: ignore[arg-type]
    assert found is target
    np.testing.assert_array_equal(out, ops.temporal_attention(q, k, v))


def test_a_nan_stays_in_its_sequence_and_query(rng: np.random.Generator, isa: str) -> None:
    q, k, v = make(rng, (1, 6, 3, 2, 16))
    clean = ops.temporal_attention(q, k, v)
    q[0, 2, 1, 1, 5] = np.nan
    out = ops.temporal_attention(q, k, v)
    assert np.isnan(out[0, 2, 1, 1]).all()
    rest = np.ones(q.shape, bool)
    rest[0, 2, 1, 1] = False
    np.testing.assert_array_equal(out[rest], clean[rest])


SPECIAL = np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45, -0.0, 0.0], np.float32)


@given(data=st.data())
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_nothing_outside_the_views_is_read_or_written(data: st.DataObject) -> None:
    """The arrays lie in memory of NaN and with gaps of NaN, and may hold special values."""
    frames = data.draw(st.integers(1, 64))
    dim = 8 * data.draw(st.integers(1, 5))
    batch, places, heads = (data.draw(st.integers(1, 4)) for _ in range(3))
    dtype = DTYPES[data.draw(st.sampled_from(sorted(DTYPES)))]
    order = data.draw(st.permutations(range(4)))
    gaps = [data.draw(st.integers(0, 2)) for _ in range(4)]
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    specials = data.draw(st.integers(0, 4))
    sizes = [batch, frames, places, heads]

    def in_a_frame_of_nan() -> tuple[Any, Any]:
        wide = [sizes[axis] + gaps[axis] for axis in order]
        memory = np.full((*wide, dim + 8), np.nan, dtype)
        view = memory[..., 8 * (gaps[0] % 2) :][..., :dim]
        view = view.transpose(*(order.index(axis) for axis in range(4)), 4)
        view = view[tuple(slice(0, size) for size in sizes)]
        return memory, view

    arrays = []
    for _ in range(3):
        _, view = in_a_frame_of_nan()
        view[:] = generator.normal(0, 1, view.shape).astype(dtype)
        arrays.append(view)
    for _ in range(specials):
        place = tuple(int(generator.integers(size)) for size in (*sizes, dim))
        with np.errstate(over="ignore"):
            arrays[int(generator.integers(3))][place] = generator.choice(SPECIAL).astype(dtype)
    results = []
    with np.errstate(all="ignore"):
        for name in _core.cpu_isas():
            memory, out = in_a_frame_of_nan()
            untouched = memory.copy()
            _core._force_isa(name)
            try:
                ops.temporal_attention(*arrays, out=out)
            finally:
                _core._force_isa(None)
            results.append(out.astype(np.float32))
            out[:] = np.nan
            same_bits(memory, untouched)
        if specials == 0:
            assert np.isfinite(results[0]).all()
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("causal", [0, 1])
def test_onnxruntime_gives_the_same_bits(
    rng: np.random.Generator, run_node: Callable[..., Any], dtype: str, causal: int
) -> None:
    q, k, v = make(rng, (2, 9, 7, 3, 40), dtype)
    bias = rng.normal(0, 1, (1, 9, 9)).astype(np.float32)
    found = run_node("TemporalAttention", q, k, v, bias, causal=causal, scale=0.25)
    expected = ops.temporal_attention(q, k, v, bias=bias, causal=bool(causal), scale=0.25)
    same_bits(found, expected)
    same_bits(run_node("TemporalAttention", q, k, v), ops.temporal_attention(q, k, v))


def test_onnxruntime_reports_a_wrong_shape(run_node: Callable[..., Any]) -> None:
    with pytest.raises(Exception, match=r"temporal_attention: v must have shape \(1, 3, 4, 2, 8\)"):
        run_node("TemporalAttention", X, X, X[:, :2].copy())


X = np.zeros((1, 3, 4, 2, 8), np.float32)
BIAS = np.zeros((2, 3, 3), np.float32)


def read_only(array: Any) -> Any:
    array = array.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"q": X.astype(np.float64)}, InputTypeError, "q must be .*, got float64"),
        ({"q": X.astype(np.uint8)}, InputTypeError, "q must be float32, float16 or bfloat16, got"),
        ({"k": X.astype(np.float16)}, InputTypeError, "k must be float32, got float16"),
        ({"v": X.tolist()}, InputTypeError, "v must be a NumPy array"),
        ({"q": X[0]}, InputError, r"q must be \(B, T, S, H, D\), got shape \(3, 4, 2, 8\)"),
        ({"k": X[:, :2]}, InputError, r"k must have shape \(1, 3, 4, 2, 8\), got \(1, 2, 4"),
        ({"v": X[..., :1, :]}, InputError, "v must have shape"),
        ({"q": X.transpose(0, 1, 2, 4, 3)}, InputError, "q must"),
        ({"k": X[:, ::-1]}, InputError, "k must"),
        ({"scale": "1"}, InputTypeError, "scale must be a number, got str"),
        ({"scale": True}, InputTypeError, "scale must be a number, got bool"),
        ({"scale": np.nan}, InputError, "scale must be finite, got nan"),
        ({"scale": 1e39}, InputError, "scale must be finite"),
        ({"causal": 1}, InputTypeError, "causal must be a bool, got int"),
        ({"bias": BIAS.astype(np.float16)}, InputTypeError, "bias must be float32, got float16"),
        ({"bias": BIAS[0]}, InputError, r"bias must be \(H, T, T\), got shape \(3, 3\)"),
        ({"bias": BIAS[:, :2]}, InputError, "bias must"),
        ({"bias": BIAS.repeat(2, 0)}, InputError, r"bias must have shape \(2, 3, 3\)"),
        ({"bias": BIAS[::-1]}, InputError, "bias must be C-contiguous"),
        ({"out": X[:, :2].copy()}, InputError, r"out must have shape \(1, 3, 4, 2, 8\), got"),
        ({"out": X.astype(np.float16)}, InputTypeError, "out must be float32, got float16"),
        ({"out": read_only(X)}, InputError, "out must be writable"),
        ({"out": np.broadcast_to(X[:, :1], X.shape)}, InputError, "out must"),
        ({"threads": 0}, InputError, "threads must be from 1 to 256, got 0"),
        ({"stream": 3}, InputError, "stream must be None for arrays on the CPU, got 3"),
    ],
)
def test_bad_arguments_are_named(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    out = np.full_like(X, 7)
    with pytest.raises(error, match=f"^temporal_attention: {message}"):
        ops.temporal_attention(**{"q": X, "k": X, "v": X, "out": out, **arguments})
    assert (out == 7).all()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 0, 4, 2, 8), r"q must have from 1 to 64 frames \(axis 1\), got shape \(1, 0, 4, 2, 8"),
        ((1, 65, 4, 2, 8), "q must have from 1 to 64 frames"),
        ((1, 3, 4, 2, 4), "q must have a multiple of 8 from 8 to 256 elements per head"),
        ((1, 3, 4, 2, 20), "q must have a multiple of 8"),
        ((1, 3, 4, 2, 264), "q must have a multiple of 8"),
        ((1, 3, 4, 2, 0), "q must have a multiple of 8"),
    ],
)
def test_sizes_out_of_range_are_refused(shape: tuple[int, ...], message: str) -> None:
    x = np.zeros(shape, np.float32)
    with pytest.raises(InputError, match=f"^temporal_attention: {message}"):
        ops.temporal_attention(x, x, x)


def test_out_may_lie_between_the_inputs(rng: np.random.Generator) -> None:
    packed = rng.normal(0, 1, (1, 5, 6, 4, 2, 16)).astype(np.float32)
    q, k, v, out = (packed[..., i, :, :] for i in range(4))
    expected = ops.temporal_attention(q, k, v)
    ops.temporal_attention(q, k, v, out=out)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("name", ["q", "k", "v"])
def test_out_must_not_overlap_an_input(name: str) -> None:
    memory = np.zeros(2 * X.size, np.float32)
    out = memory[: X.size].reshape(X.shape)
    arguments = {"q": X, "k": X, "v": X}
    arguments[name] = memory[X.size - 1 : 2 * X.size - 1].reshape(X.shape)
    with pytest.raises(InputError, match=f"out must not share memory with {name}"):
        ops.temporal_attention(**arguments, out=out)


@pytest.mark.parametrize("shape", [(0, 3, 5, 2, 16), (1, 3, 0, 2, 16), (1, 3, 5, 0, 16)])
def test_nothing_gives_nothing(shape: tuple[int, ...]) -> None:
    x = np.zeros(shape, np.float32)
    assert ops.temporal_attention(x, x, x).shape == shape


@pytest.mark.skipif(_core.cuda_compiled(), reason="with CUDA kernels a device may be there")
def test_a_device_array_without_a_device_is_refused() -> None:
    with pytest.raises(NoDeviceError, match=r"^temporal_attention: "):
        ops.temporal_attention(OnDevice(), OnDevice(), OnDevice())  # type: ignore[arg-type]


def on_device(*shape: int, dtype: str = "float32", seed: int = 0) -> list[Any]:
    """q, k and v as torch tensors on the first CUDA device."""
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(shape, generator=generator).to("cuda", getattr(torch, dtype)) for _ in "qkv"
    ]


def host(tensor: Any) -> Any:
    return tensor.float().cpu().numpy()


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("frames", FRAMES)
def test_cuda_agrees_with_float64(frames: int, dtype: str) -> None:
    for dim, causal in itertools.product([8, 40, 64, 136], [False, True]):
        check_on_cuda(frames, dim, dtype, causal)


def check_on_cuda(frames: int, dim: int, dtype: str, causal: bool) -> None:
    q, k, v = on_device(2, frames, 5, 3, dim, dtype=dtype)
    bias = q.new_zeros((3, frames, frames)).float().normal_()
    bias[1, frames // 2] = -np.inf
    out = q.new_full(q.shape, np.nan)
    assert ops.temporal_attention(q, k, v, bias=bias, causal=causal, out=out) is out
    expected = reference.temporal_attention(*map(host, (q, k, v)), bias=host(bias), causal=causal)
    np.testing.assert_allclose(host(out), expected, atol=TOLERANCE[dtype])


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("frames", [5, 16, 21, 40])
def test_cuda_takes_views_aligned_or_not(frames: int, dtype: str) -> None:
    (packed, wide, _) = on_device(1, frames, 6, 12, 33, dtype=dtype)
    parts = packed[..., :32].reshape(1, frames, 6, 3, 4, 32)
    aligned = [parts[..., i, :, :] for i in range(3)]
    odd = [wide[..., 4 * i : 4 * i + 4, 1:25] for i in range(3)]
    for views in (aligned, odd):
        out = views[0].new_empty(views[0].shape)
        ops.temporal_attention(*views, out=out)
        expected = reference.temporal_attention(*map(host, views))
        np.testing.assert_allclose(host(out), expected, atol=TOLERANCE[dtype])


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", DTYPES)
def test_cuda_takes_more_sequences_than_a_grid_has_rows(dtype: str) -> None:
    q, k, v = on_device(1, 4, 70001, 2, 8, dtype=dtype)
    out = q.new_empty(q.shape)
    ops.temporal_attention(q, k, v, out=out)
    last = [x[:, :, -9:] for x in (q, k, v)]
    expected = reference.temporal_attention(*map(host, last))
    np.testing.assert_allclose(host(out[:, :, -9:]), expected, atol=TOLERANCE[dtype])
