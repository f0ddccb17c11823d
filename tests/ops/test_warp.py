"""`warp`: near float64 NumPy, equal bits on every instruction set, no read out of bounds."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import reference
from arrays import BFLOAT16
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastvid import _core, ops
from fastvid.errors import InputError, InputTypeError

# Around the widths of the vectors (8, 16) and of the windows (16, 32), and below both.
SIZES = [(1, 1), (1, 9), (2, 2), (3, 33), (4, 32), (5, 7), (17, 31), (16, 48), (23, 47), (70, 67)]
# Coordinates are float32: near 100 they are 4e-6 apart, and the slope is at most 1 per pixel.
TOLERANCE = 2e-5


def make_image(rng: np.random.Generator, *shape: int) -> Any:
    return rng.random(shape, np.float32)


def make_flow(
    rng: np.random.Generator, shape: tuple[int, int, int, int], scale: int = 1, std: float = 3
) -> Any:
    """A smooth field with steps and single outliers, so that every kind of block occurs."""
    n, channels, height, width = shape
    h, w = -(-height // scale), -(-width // scale)
    y, x = np.mgrid[:h, :w]
    flow = rng.normal(0, std, (n, channels, 1, 1)) + 0.02 * (x - y) + 0.3 * np.sin(y / 3)
    flow = flow + (rng.normal(0, 4 * std, (n, channels, 1, 1)) * (x > w // 2))
    flow += rng.normal(0, 10 * std, flow.shape) * (rng.random(flow.shape) < 0.02)
    return flow.astype(np.float32)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("padding", ["border", "zeros"])
def test_warp_agrees_with_float64(
    rng: np.random.Generator, isa: str, size: tuple[int, int], padding: str
) -> None:
    image = make_image(rng, 2, 3, *size)
    flow = make_flow(rng, (2, 2, *size))
    expected = reference.warp(image, flow, padding)
    np.testing.assert_allclose(ops.warp(image, flow, padding=padding), expected, atol=TOLERANCE)


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("size", [*SIZES, (19, 1031), (9, 2100)])
def test_coarse_flow_is_upsampled(
    rng: np.random.Generator, isa: str, size: tuple[int, int], scale: int
) -> None:
    image = make_image(rng, 1, 2, *size)
    flow = make_flow(rng, (1, 2, *size), scale)
    expected = reference.warp(image, reference.upsample(flow, scale, *size), "border")
    # Wide images: coordinates near 2000 are 1.2e-4 apart.
    tolerance = TOLERANCE if size[1] < 256 else 4e-4
    np.testing.assert_allclose(ops.warp(image, flow), expected, atol=tolerance)


@pytest.mark.parametrize("channels", [1, 2, 4, 5, 7, 16])
def test_any_number_of_channels(rng: np.random.Generator, isa: str, channels: int) -> None:
    image = make_image(rng, 1, channels, 21, 300)
    flow = make_flow(rng, (1, 2, 21, 300))
    expected = reference.warp(image, flow, "border")
    np.testing.assert_allclose(ops.warp(image, flow), expected, atol=4 * TOLERANCE)


@pytest.mark.parametrize("padding", ["border", "zeros"])
@pytest.mark.parametrize("scale", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [(5, 7), (4, 32), (40, 97), (64, 128)])
def test_every_instruction_set_gives_equal_bits(
    rng: np.random.Generator, each_isa: Any, size: tuple[int, int], scale: int, padding: str
) -> None:
    image = make_image(rng, 2, 6, *size)
    flow = make_flow(rng, (2, 2, *size), scale, std=6)
    results = each_isa(lambda: ops.warp(image, flow, padding=padding))
    for name, result in results.items():
        np.testing.assert_array_equal(
            result.view(np.uint32), results["baseline"].view(np.uint32), err_msg=name
        )


DTYPES = [np.dtype(np.float32), np.dtype(np.float16), BFLOAT16, np.dtype(np.uint8)]


def make_image_of(rng: np.random.Generator, dtype: Any, *shape: int) -> Any:
    values = rng.integers(0, 256, shape) if dtype == np.uint8 else rng.normal(0, 1, shape)
    return values.astype(dtype)


def rounded(values: Any, dtype: Any) -> Any:
    """float32 to a dtype, halves to even."""
    return (np.rint(values) if dtype == np.uint8 else values).astype(dtype)


def channels_last(image: Any) -> Any:
    return np.ascontiguousarray(np.moveaxis(image, 1, 3))


@pytest.mark.parametrize("padding", ["border", "zeros"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_and_layout_is_the_float32_result_rounded(
    rng: np.random.Generator, isa: str, dtype: Any, layout: str, padding: str
) -> None:
    for size in [*SIZES, (20, 1029)]:
        for channels, scale in ((1, 1), (3, 2), (4, 4), (6, 8), (19, 1), (32, 2)):
            image = make_image_of(rng, dtype, 2, channels, *size)
            flow = make_flow(rng, (2, 2, *size), scale)
            expected = ops.warp(image.astype(np.float32), flow, padding=padding)
            expected = rounded(expected, dtype)
            if layout == "NHWC":
                image, expected = channels_last(image), channels_last(expected)
            result = ops.warp(image, flow, padding=padding, layout=layout)
            assert result.dtype == dtype
            # Bits, so that a sign of zero counts.
            assert result.tobytes() == expected.tobytes(), (size, channels, scale)


@pytest.mark.parametrize("size", [(5, 7), (40, 97), (33, 64)])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_instruction_set_gives_equal_bits_in_every_dtype(
    rng: np.random.Generator, each_isa: Any, dtype: Any, layout: str, size: tuple[int, int]
) -> None:
    image = make_image_of(rng, dtype, 1, 7, *size)
    image = channels_last(image) if layout == "NHWC" else image
    flow = make_flow(rng, (1, 2, *size), std=6)
    for padding in ("border", "zeros"):
        results = each_isa(partial(ops.warp, image, flow, padding=padding, layout=layout))
        for name, result in results.items():
            assert result.tobytes() == results["baseline"].tobytes(), name


def test_halves_are_rounded_to_even(isa: str) -> None:
    """Half a pixel between levels: 0.5, 1.5, 2.5 and so on."""
    image = np.broadcast_to(np.arange(200, dtype=np.uint8), (1, 1, 3, 200)).copy()
    flow = np.zeros((1, 2, 3, 200), np.float32)
    flow[:, 0] = 0.5
    expected = np.rint(np.minimum(np.arange(200) + 0.5, 199))
    np.testing.assert_array_equal(ops.warp(image, flow)[0, 0, 1], expected)


@pytest.mark.parametrize("padding", ["border", "zeros"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("size", [(5, 7), (24, 150)])
def test_several_images_share_a_flow(
    rng: np.random.Generator, isa: str, layout: str, padding: str, size: tuple[int, int]
) -> None:
    images = [
        make_image_of(rng, dtype, 2, channels, *size)
        for dtype, channels in zip(DTYPES, (3, 16, 5, 1), strict=True)
    ]
    if layout == "NHWC":
        images = [channels_last(image) for image in images]
    flow = make_flow(rng, (2, 2, *size), 2)
    expected = [ops.warp(image, flow, padding=padding, layout=layout) for image in images]
    results = ops.warp(images, flow, padding=padding, layout=layout)
    assert isinstance(results, list)
    outs = [np.empty_like(image) for image in images]
    filled = ops.warp(tuple(images), flow, padding=padding, layout=layout, out=outs)
    for result, other, out, alone in zip(results, filled, outs, expected, strict=True):
        assert result.tobytes() == alone.tobytes()
        assert other is out
        assert out.tobytes() == alone.tobytes()


@pytest.mark.parametrize("count", [1, 8])
def test_one_to_eight_images_may_share_a_flow(rng: np.random.Generator, count: int) -> None:
    image, flow = make_image(rng, 1, 2, 9, 40), make_flow(rng, (1, 2, 9, 40))
    results = ops.warp([image] * count, flow)
    assert len(results) == count
    for result in results:
        np.testing.assert_array_equal(result, ops.warp(image, flow))


@pytest.mark.parametrize("channels", [16, 20])
def test_large_images_with_channels_last_are_written_completely(
    rng: np.random.Generator, each_isa: Any, channels: int
) -> None:
    """Above 8 MB, pixels of whole cache lines take another way to memory."""
    image = make_image(rng, 1, channels, 300, 500)
    flow = make_flow(rng, (1, 2, 300, 500))
    expected = channels_last(ops.warp(image, flow))
    image = channels_last(image)
    memory = np.empty(image.size + 16, np.float32)
    start = -memory.ctypes.data % 64 // 4
    out = memory[start : start + image.size].reshape(image.shape)

    def run() -> Any:
        out[:] = np.nan
        return ops.warp(image, flow, layout="NHWC", out=out).copy()

    for result in each_isa(run).values():
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("width", [1920, 1928])
def test_large_images_are_written_completely(
    rng: np.random.Generator, each_isa: Any, width: int
) -> None:
    """Above 8 MB, rows of whole cache lines take another way to memory."""
    image = make_image(rng, 1, 3, 400, width)
    flow = make_flow(rng, (1, 2, 400, width))
    out = np.full(image.shape, np.nan, np.float32)
    results = each_isa(lambda: ops.warp(image, flow, out=out).copy())
    for result in results.values():
        np.testing.assert_array_equal(result, results["baseline"])
    rows = slice(198, 202)
    expected = reference.warp(image, flow, "border")
    np.testing.assert_allclose(results["baseline"][:, :, rows], expected[:, :, rows], atol=4e-4)


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_threads_do_not_change_the_result(rng: np.random.Generator, threads: int) -> None:
    image, flow = make_image(rng, 2, 3, 75, 50), make_flow(rng, (2, 2, 75, 50))
    np.testing.assert_array_equal(ops.warp(image, flow, threads=threads), ops.warp(image, flow))


def test_no_motion_changes_nothing(rng: np.random.Generator, isa: str) -> None:
    image = make_image(rng, 1, 3, 37, 45)
    np.testing.assert_array_equal(ops.warp(image, np.zeros((1, 2, 37, 45), np.float32)), image)


def test_whole_pixels_shift_exactly(rng: np.random.Generator, isa: str) -> None:
    image = make_image(rng, 1, 1, 40, 50)
    flow = np.empty((1, 2, 40, 50), np.float32)
    flow[:, 0], flow[:, 1] = 3, -2
    border = image[:, :, np.clip(np.arange(40) - 2, 0, 39)][..., np.clip(np.arange(50) + 3, 0, 49)]
    np.testing.assert_array_equal(ops.warp(image, flow), border)
    zeros = border.copy()
    zeros[:, :, :2], zeros[..., 47:] = 0, 0
    np.testing.assert_array_equal(ops.warp(image, flow, padding="zeros"), zeros)


def test_nan_displaces_by_nothing_and_infinity_to_the_edge(
    rng: np.random.Generator, isa: str
) -> None:
    image = make_image(rng, 1, 2, 20, 40)
    flow = np.zeros((1, 2, 20, 40), np.float32)
    flow[:] = np.nan
    np.testing.assert_array_equal(ops.warp(image, flow), image)
    flow[:, 0], flow[:, 1] = np.inf, 0
    np.testing.assert_array_equal(ops.warp(image, flow), image[..., -1:].repeat(40, 3))
    assert not ops.warp(image, flow, padding="zeros").any()
    flow[:, 0], flow[:, 1] = 0, -np.inf
    np.testing.assert_array_equal(ops.warp(image, flow), image[:, :, :1].repeat(20, 2))


FLOATS = st.one_of(
    st.sampled_from([np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 2.0**31, -(2.0**31), 1e-45, -0.0]),
    st.floats(-200, 200, width=32),
)


@given(data=st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_flow_reads_out_of_bounds(data: st.DataObject) -> None:
    """A read outside the image would find NaN, or 255: the image lies inside a frame of them."""
    height = data.draw(st.integers(1, 70))
    width = data.draw(st.integers(1, 70))
    channels = data.draw(st.integers(1, 5))
    scale = data.draw(st.sampled_from([1, 2, 4, 8]))
    dtype = data.draw(st.sampled_from(DTYPES))
    layout = data.draw(st.sampled_from(["NCHW", "NHWC"]))
    h, w = -(-height // scale), -(-width // scale)
    seed = data.draw(st.integers(0, 2**32 - 1))
    special = np.array(data.draw(st.lists(FLOATS, min_size=1, max_size=20)), np.float32)
    generator = np.random.default_rng(seed)
    flow = generator.normal(0, data.draw(st.sampled_from([0.5, 5, 80])), (1, 2, h, w))
    flow = flow.astype(np.float32)
    places = generator.integers(0, flow.size, min(flow.size, 2 * special.size))
    flow.flat[places] = np.resize(special, places.size)
    guard, inside = 4096, np.nan if dtype != np.uint8 else 255
    memory = np.full(2 * guard + channels * height * width, inside, dtype)
    shape = (channels, height, width) if layout == "NCHW" else (height, width, channels)
    image = memory[guard:-guard].reshape(1, *shape)
    image[:] = generator.integers(0, 2, image.shape)
    results = []
    for name in _core.cpu_isas():
        _core._force_isa(name)
        try:
            results.extend(
                ops.warp(image, flow, padding=p, layout=layout) for p in ("border", "zeros")
            )
        finally:
            _core._force_isa(None)
    for result in results:
        values = result.astype(np.float32)
        assert np.all((values >= 0) & (values <= 1))
    for i in (0, 1):
        for other in results[i + 2 :: 2]:
            assert other.tobytes() == results[i].tobytes()


@pytest.mark.parametrize("scale", [1, 4])
@pytest.mark.parametrize("zeros", [0, 1])
def test_onnxruntime_gives_the_same_bits(
    rng: np.random.Generator, run_node: Callable[..., Any], scale: int, zeros: int
) -> None:
    image, flow = make_image(rng, 2, 3, 50, 70), make_flow(rng, (2, 2, 50, 70), scale)
    expected = ops.warp(image, flow, padding="zeros" if zeros else "border")
    np.testing.assert_array_equal(run_node("Warp", image, flow, zeros=zeros), expected)


@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_onnxruntime_takes_every_dtype_and_layout(
    rng: np.random.Generator, run_node: Callable[..., Any], dtype: Any, last: int
) -> None:
    image, flow = make_image_of(rng, dtype, 1, 3, 20, 50), make_flow(rng, (1, 2, 20, 50))
    image = channels_last(image) if last else image
    expected = ops.warp(image, flow, layout="NHWC" if last else "NCHW")
    result = run_node("Warp", image, flow, channels_last=last)
    assert result.dtype == dtype
    assert result.tobytes() == expected.tobytes()


def test_onnxruntime_reports_a_wrong_shape(run_node: Callable[..., Any]) -> None:
    with pytest.raises(Exception, match=r"warp: flow must have shape \(1, 2, 6, 8\)"):
        run_node("Warp", IMAGE, np.zeros((1, 2, 5, 8), np.float32))


IMAGE = np.zeros((1, 3, 6, 8), np.float32)
FLOW = np.zeros((1, 2, 6, 8), np.float32)


def read_only(array: Any) -> Any:
    array = array.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"image": IMAGE.astype(np.float64)}, InputTypeError, "image must be .*, got float64"),
        ({"image": IMAGE.astype(np.uint16)}, InputTypeError, "image must be .*, got uint16"),
        ({"image": "image"}, InputTypeError, "image must be a NumPy .*, got str"),
        (
            {"image": [IMAGE, IMAGE.tolist()], "out": None},
            InputTypeError,
            r"image\[1\] must be a NumPy .*, got list",
        ),
        ({"image": []}, InputError, "image must be 1 to 8 images, got 0"),
        ({"image": [IMAGE] * 9}, InputError, "image must be 1 to 8 images, got 9"),
        (
            {"image": [IMAGE, IMAGE[:, :, :5].copy()], "out": None},
            InputError,
            r"image\[1\] must have shape \(1, 3, 6, 8\), got \(1, 3, 5, 8\)",
        ),
        ({"image": [IMAGE, IMAGE]}, InputTypeError, "out must be a tuple of 2 arrays or None"),
        ({"image": [IMAGE, IMAGE], "out": (IMAGE,)}, InputError, "out must be a tuple of 2 arrays"),
        (
            {"image": [IMAGE, IMAGE], "out": [IMAGE.copy(), IMAGE.astype(np.uint8)]},
            InputTypeError,
            r"out\[1\] must be float32, got uint8",
        ),
        ({"layout": "NHWC"}, InputError, r"flow must have shape \(1, 2, 3, 6\), or"),
        ({"layout": "CHW"}, InputError, "layout must be one of NCHW, NHWC, got 'CHW'"),
        ({"flow": FLOW.astype(np.float16)}, InputTypeError, "flow must be .*, got float16"),
        (
            {"flow": None},
            InputTypeError,
            "flow must be a NumPy .*, got NoneType",
        ),
        ({"image": IMAGE[0]}, InputError, r"image must be \(N, C, H, W\), got shape \(3, 6, 8\)"),
        ({"flow": FLOW[0]}, InputError, r"flow must be \(N, 2, h, w\)"),
        ({"flow": FLOW[:, :1].copy()}, InputError, r"flow must have shape \(1, 2, 6, 8\), or"),
        ({"flow": FLOW[:, :, :5].copy()}, InputError, r"flow must have .*got \(1, 2, 5, 8\)"),
        ({"flow": FLOW.repeat(2, 0)}, InputError, "flow must have shape"),
        ({"image": IMAGE[..., ::-1]}, InputError, "image must be C-contiguous"),
        ({"image": IMAGE.transpose(0, 1, 3, 2)}, InputError, "image must be C-contiguous"),
        ({"flow": FLOW[:, ::-1]}, InputError, "flow must be C-contiguous"),
        ({"out": IMAGE[:, :2].copy()}, InputError, r"out must have shape \(1, 3, 6, 8\), got"),
        ({"out": IMAGE.astype(np.uint8)}, InputTypeError, "out must be float32, got uint8"),
        ({"out": read_only(IMAGE)}, InputError, "out must be writable"),
        ({"out": "out"}, InputTypeError, "out must be a NumPy .*, got str"),
        ({"padding": "wrap"}, InputError, "padding must be one of border, zeros, got 'wrap'"),
        ({"padding": 0}, InputTypeError, "padding must be a str, got int"),
        ({"threads": 257}, InputError, "threads must be from 1 to 256, got 257"),
        ({"threads": 1.0}, InputTypeError, "threads must be an int or None, got float"),
    ],
)
def test_bad_arguments_are_named(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    out = np.full_like(IMAGE, 7)
    with pytest.raises(error, match=f"^warp: {message}"):
        ops.warp(**{"image": IMAGE, "flow": FLOW, "out": out, **arguments})
    assert (out == 7).all()


@pytest.mark.parametrize("name", ["image", "flow"])
def test_out_must_not_overlap_an_input(name: str) -> None:
    memory = np.zeros(2 * IMAGE.size, np.float32)
    out = memory[: IMAGE.size].reshape(IMAGE.shape)
    arguments = {"image": IMAGE, "flow": FLOW}
    shape = arguments[name].shape
    first = IMAGE.size - 1
    arguments[name] = memory[first : first + arguments[name].size].reshape(shape)
    with pytest.raises(InputError, match=f"out must not share memory with {name}"):
        ops.warp(**arguments, out=out)


def test_outputs_must_not_overlap_each_other_or_any_image() -> None:
    memory = np.zeros(2 * IMAGE.size - 1, np.float32)
    first, second = (memory[i:][: IMAGE.size].reshape(IMAGE.shape) for i in (0, IMAGE.size - 1))
    with pytest.raises(InputError, match=r"out\[0\] must not share memory with out\[1\]"):
        ops.warp([IMAGE, IMAGE], FLOW, out=[first, second])
    with pytest.raises(InputError, match=r"out\[0\] must not share memory with image\[1\]"):
        ops.warp([IMAGE, first], FLOW, out=[second, IMAGE.copy()])


@pytest.mark.parametrize("shape", [(0, 3, 5, 7), (1, 0, 5, 7), (1, 3, 0, 7), (1, 3, 5, 0)])
def test_nothing_gives_nothing(shape: tuple[int, int, int, int]) -> None:
    flow = np.zeros((shape[0], 2, *shape[2:]), np.float32)
    assert ops.warp(np.zeros(shape, np.float32), flow).shape == shape
