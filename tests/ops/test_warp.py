"""`warp`: near float64 NumPy, equal bits on every instruction set, no read out of bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import reference
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
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_flow_reads_out_of_bounds(data: st.DataObject) -> None:
    """A read outside the image would find NaN: the image lies inside a frame of them."""
    height = data.draw(st.integers(1, 70))
    width = data.draw(st.integers(1, 70))
    scale = data.draw(st.sampled_from([1, 2, 4, 8]))
    h, w = -(-height // scale), -(-width // scale)
    seed = data.draw(st.integers(0, 2**32 - 1))
    special = np.array(data.draw(st.lists(FLOATS, min_size=1, max_size=20)), np.float32)
    generator = np.random.default_rng(seed)
    flow = generator.normal(0, data.draw(st.sampled_from([0.5, 5, 80])), (1, 2, h, w))
    flow = flow.astype(np.float32)
    places = generator.integers(0, flow.size, min(flow.size, 2 * special.size))
    flow.flat[places] = np.resize(special, places.size)
    guard = 4096
    memory = np.full(2 * guard + height * width, np.nan, np.float32)
    image = memory[guard:-guard].reshape(1, 1, height, width)
    image[:] = generator.random(image.shape, np.float32)
    results = []
    for name in _core.cpu_isas():
        _core._force_isa(name)
        try:
            results.extend(ops.warp(image, flow, padding=p) for p in ("border", "zeros"))
        finally:
            _core._force_isa(None)
    for result in results:
        assert np.all((result >= 0) & (result <= 1))
    for i in (0, 1):
        for other in results[i + 2 :: 2]:
            np.testing.assert_array_equal(other, results[i])


@pytest.mark.parametrize("scale", [1, 4])
@pytest.mark.parametrize("zeros", [0, 1])
def test_onnxruntime_gives_the_same_bits(
    rng: np.random.Generator, run_node: Callable[..., Any], scale: int, zeros: int
) -> None:
    image, flow = make_image(rng, 2, 3, 50, 70), make_flow(rng, (2, 2, 50, 70), scale)
    expected = ops.warp(image, flow, padding="zeros" if zeros else "border")
    np.testing.assert_array_equal(run_node("Warp", image, flow, zeros=zeros), expected)


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
        ({"image": IMAGE.astype(np.uint8)}, InputTypeError, "image must be float32, got uint8"),
        (
            {"image": IMAGE.tolist()},
            InputTypeError,
            "image must be a NumPy .*, got list",
        ),
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


@pytest.mark.parametrize("shape", [(0, 3, 5, 7), (1, 0, 5, 7), (1, 3, 0, 7), (1, 3, 5, 0)])
def test_nothing_gives_nothing(shape: tuple[int, int, int, int]) -> None:
    flow = np.zeros((shape[0], 2, *shape[2:]), np.float32)
    assert ops.warp(np.zeros(shape, np.float32), flow).shape == shape
