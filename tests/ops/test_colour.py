"""`yuv_to_rgb` and `rgb_to_yuv` against float64 NumPy, against swscale, and against each other."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from fastvid import ops
from fastvid.errors import InputError, InputTypeError

MATRICES = ["bt601", "bt709", "bt2020"]
LOCATIONS = list(reference.CHROMA_OFFSETS)
SUBSAMPLINGS = ["420", "422", "444"]
SIZES = [(1, 1), (1, 2), (2, 1), (3, 5), (5, 8), (4, 16), (7, 33), (3, 131), (2, 1031), (3, 2053)]
# How far a rounded result may lie from the exact one: half a level, and what single precision adds.
ROUNDING = 0.5 + 1e-3
WIDE_ROUNDING = 0.5 + 0.05


def chroma_size(size: tuple[int, int], subsampling: str) -> tuple[int, int]:
    halved_x, halved_y = reference.chroma_is_halved(subsampling)
    return (size[0] + halved_y) >> halved_y, (size[1] + halved_x) >> halved_x


def make_planes(
    rng: np.random.Generator, size: tuple[int, int], subsampling: str, bit_depth: int
) -> tuple[Any, Any, Any]:
    dtype = np.uint16 if bit_depth == 10 else np.uint8
    small = chroma_size(size, subsampling)
    y, u, v = (rng.integers(0, 2**bit_depth, s, dtype) for s in (size, small, small))
    return y, u, v


def to_planar(rgb: Any) -> Any:
    return np.ascontiguousarray(np.moveaxis(rgb, 2, 0)[None])


def settings_of(subsampling: str, location: str) -> list[dict[str, Any]]:
    return [
        {
            "matrix": matrix,
            "full_range": full_range,
            "bit_depth": bit_depth,
            "subsampling": subsampling,
            "chroma_location": location,
        }
        for matrix, full_range, bit_depth in product(MATRICES, [False, True], [8, 10])
    ]


@pytest.mark.parametrize("location", LOCATIONS)
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_rgb_is_the_exact_one_rounded_once(
    rng: np.random.Generator, isa: str, subsampling: str, location: str
) -> None:
    for size, options in product(SIZES, settings_of(subsampling, location)):
        planes = make_planes(rng, size, subsampling, options["bit_depth"])
        exact = reference.yuv_to_rgb(*planes, **options)
        found = ops.yuv_to_rgb(*planes, **options)
        assert found.dtype == np.uint8
        assert np.abs(found - 255 * exact).max() <= ROUNDING
        wide = ops.yuv_to_rgb(*planes, **options, dtype="uint16")
        assert wide.dtype == np.uint16
        assert np.abs(wide - 65535 * exact).max() <= WIDE_ROUNDING
        planar = ops.yuv_to_rgb(*planes, **options, layout="NCHW")
        assert planar.dtype == np.float32
        np.testing.assert_allclose(planar, to_planar(exact), rtol=0, atol=1e-6)


@pytest.mark.parametrize("location", LOCATIONS)
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_yuv_is_the_exact_one_rounded_once(
    rng: np.random.Generator, isa: str, subsampling: str, location: str
) -> None:
    for size, options in product(SIZES, settings_of(subsampling, location)):
        rgb = rng.integers(0, 256, (*size, 3), np.uint8)
        wide = rng.integers(0, 65536, (*size, 3), np.uint16)
        floats = rng.uniform(-0.1, 1.1, (*size, 3)).astype(np.float32)
        dtype = np.uint16 if options["bit_depth"] == 10 else np.uint8
        pairs = ((rgb, rgb / 255), (wide, wide / 65535), (to_planar(floats), floats))
        for given_rgb, unit in pairs:
            exact = reference.rgb_to_yuv(unit, **options)
            found = ops.rgb_to_yuv(given_rgb, **options)
            for plane, exact_plane in zip(found, exact, strict=True):
                assert plane.dtype == dtype
                assert plane.shape == exact_plane.shape
                assert np.abs(plane - exact_plane).max() <= ROUNDING


@pytest.mark.parametrize("bit_depth", [8, 10])
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_instruction_sets_and_threads_give_the_same_bits(
    rng: np.random.Generator, each_isa: Callable[..., Any], subsampling: str, bit_depth: int
) -> None:
    size = (75, 2101)
    planes = make_planes(rng, size, subsampling, bit_depth)
    rgb = rng.integers(0, 256, (*size, 3), np.uint8)
    floats = rng.uniform(-0.1, 1.1, (1, 3, *size)).astype(np.float32)
    floats.flat[::97] = np.nan
    wide = rng.integers(0, 65536, (*size, 3), np.uint16)
    for location in LOCATIONS:
        options: dict[str, Any] = {
            "bit_depth": bit_depth,
            "subsampling": subsampling,
            "chroma_location": location,
        }

        def everything(options: dict[str, Any] = options, **more: Any) -> list[Any]:
            return [
                ops.yuv_to_rgb(*planes, **options, **more),
                ops.yuv_to_rgb(*planes, **options, layout="NCHW", **more),
                ops.yuv_to_rgb(*planes, **options, dtype="uint16", **more),
                *ops.rgb_to_yuv(rgb, **options, **more),
                *ops.rgb_to_yuv(wide, **options, **more),
                *ops.rgb_to_yuv(floats, **options, **more),
            ]

        expected = everything(threads=1)
        results = [*each_isa(everything).values(), *(everything(threads=n) for n in (2, 5))]
        for result in results:
            for found, wanted in zip(result, expected, strict=True):
                np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", MATRICES)
def test_grey_stays_grey(isa: str, matrix: str, full_range: bool) -> None:
    for bit_depth, subsampling in product([8, 10], SUBSAMPLINGS):
        options: dict[str, Any] = {
            "matrix": matrix,
            "full_range": full_range,
            "bit_depth": bit_depth,
            "subsampling": subsampling,
        }
        dtype = np.uint16 if bit_depth == 10 else np.uint8
        y = np.arange(2**bit_depth, dtype=dtype).reshape(-1, 32)
        neutral = np.full(chroma_size(y.shape, subsampling), 2 ** (bit_depth - 1), dtype)
        for layout, axis in (("NHWC", 2), ("NCHW", 1)):
            rgb = ops.yuv_to_rgb(y, neutral, neutral, **options, layout=layout)
            assert np.ptp(rgb, axis=axis).max() == 0
        grey = np.arange(256, dtype=np.uint8).reshape(8, 32, 1).repeat(3, 2)
        for rgb in (grey, to_planar(grey / np.float32(255))):
            luma, u, v = ops.rgb_to_yuv(rgb, **options)
            assert np.all(u == 2 ** (bit_depth - 1))
            assert np.all(v == 2 ** (bit_depth - 1))
            again = ops.yuv_to_rgb(luma, u, v, **options)
            assert np.abs(again.astype(int) - grey).max() <= (not full_range and bit_depth == 8)


def test_black_and_white_of_both_ranges(isa: str) -> None:
    ends = {
        (False, 8): (16, 235),
        (True, 8): (0, 255),
        (False, 10): (64, 940),
        (True, 10): (0, 1023),
    }
    rgb = np.array([[[0] * 3, [255] * 3]], np.uint8)
    for (full_range, bit_depth), luma in ends.items():
        options: dict[str, Any] = {"full_range": full_range, "bit_depth": bit_depth}
        y, u, v = ops.rgb_to_yuv(rgb, **options)
        assert y.tolist() == [list(luma)]
        np.testing.assert_array_equal(ops.yuv_to_rgb(y, u, v, **options), rgb)
        planar = ops.yuv_to_rgb(y, u, v, **options, layout="NCHW")
        np.testing.assert_allclose(planar[0, :, 0], [[0, 1]] * 3, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("bit_depth", "full_range", "levels"),
    [(8, True, 1), (8, False, 2), (10, True, 0), (10, False, 0)],
)
@pytest.mark.parametrize("matrix", MATRICES)
def test_colours_survive_the_round_trip_at_full_resolution(
    rng: np.random.Generator, matrix: str, bit_depth: int, full_range: bool, levels: int
) -> None:
    rgb = rng.integers(0, 256, (61, 67, 3), np.uint8)
    options: dict[str, Any] = {
        "matrix": matrix,
        "full_range": full_range,
        "bit_depth": bit_depth,
        "subsampling": "444",
    }
    again = ops.yuv_to_rgb(*ops.rgb_to_yuv(rgb, **options), **options)
    assert np.abs(again.astype(int) - rgb).max() <= levels


@pytest.mark.parametrize("location", LOCATIONS)
@pytest.mark.parametrize("subsampling", ["420", "422"])
def test_a_colour_ramp_is_not_shifted_by_the_chroma_planes(location: str, subsampling: str) -> None:
    y, x = np.mgrid[0:40, 0:48].astype(np.float32)
    rgb = np.stack([0.2 + x / 96, 0.8 - x / 96 + y / 400, 0.3 + y / 80], 0)[None].astype(np.float32)
    options: dict[str, Any] = {
        "subsampling": subsampling,
        "chroma_location": location,
        "bit_depth": 10,
        "full_range": True,
    }
    again = ops.yuv_to_rgb(*ops.rgb_to_yuv(rgb, **options), **options, layout="NCHW")
    # Half a level of each of the three samples; a shift of half a pixel would be five times that.
    assert np.abs(again - rgb)[:, :, 2:-2, 2:-2].max() <= 2 / 1023


@settings(max_examples=30, deadline=None)
@given(
    color=st.tuples(*[st.integers(0, 255)] * 3),
    height=st.integers(1, 9),
    width=st.integers(1, 70),
    subsampling=st.sampled_from(SUBSAMPLINGS),
    location=st.sampled_from(LOCATIONS),
)
def test_one_colour_stays_one_colour(
    color: tuple[int, int, int], height: int, width: int, subsampling: str, location: str
) -> None:
    options: dict[str, Any] = {"subsampling": subsampling, "chroma_location": location}
    rgb = np.broadcast_to(np.array(color, np.uint8), (height, width, 3)).copy()
    planes = ops.rgb_to_yuv(rgb, **options)
    assert all(np.ptp(plane) == 0 for plane in planes)
    again = ops.yuv_to_rgb(*planes, **options)
    assert np.ptp(again, axis=(0, 1)).max() == 0
    assert np.abs(again[0, 0].astype(int) - rgb[0, 0]).max() <= 2


@pytest.mark.parametrize("bit_depth", [8, 10])
def test_rows_may_stand_apart_and_be_read_only(rng: np.random.Generator, bit_depth: int) -> None:
    planes = make_planes(rng, (9, 21), "420", bit_depth)
    apart = []
    for plane in planes:
        wide = np.zeros((plane.shape[0], plane.shape[1] + 11), plane.dtype)
        wide[:, : plane.shape[1]] = plane
        wide.flags.writeable = False
        apart.append(wide[:, : plane.shape[1]])
    expected = ops.yuv_to_rgb(*planes, bit_depth=bit_depth)
    np.testing.assert_array_equal(ops.yuv_to_rgb(*apart, bit_depth=bit_depth), expected)


def test_out_is_filled_and_returned(rng: np.random.Generator) -> None:
    planes = make_planes(rng, (9, 21), "420", 8)
    rgb = np.zeros((9, 21, 3), np.uint8)
    assert ops.yuv_to_rgb(*planes, out=rgb) is rgb
    np.testing.assert_array_equal(rgb, ops.yuv_to_rgb(*planes))
    wide = np.full((9, 32), 7, np.uint8)
    out = (wide[:, :21], np.zeros((5, 11), np.uint8), np.zeros((5, 11), np.uint8))
    found = ops.rgb_to_yuv(rgb, out=out)
    assert all(a is b for a, b in zip(found, out, strict=True))
    for a, b in zip(found, ops.rgb_to_yuv(rgb), strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.all(wide[:, 21:] == 7)


def test_wide_samples_out_of_range_count_as_the_largest() -> None:
    rng = np.random.default_rng(0)
    planes = [rng.integers(0, 65536, s, np.uint16) for s in ((6, 70), (3, 35), (3, 35))]
    clamped = [np.minimum(plane, 1023) for plane in planes]
    np.testing.assert_array_equal(
        ops.yuv_to_rgb(*planes, bit_depth=10), ops.yuv_to_rgb(*clamped, bit_depth=10)
    )


# SWS_BILINEAR, SWS_FULL_CHR_H_INT and SWS_ACCURATE_RND of libswscale.
BILINEAR_ACCURATE = 2 | 8192 | 262144
SWSCALE_MATRICES = {"bt601": 5, "bt709": 1, "bt2020": 9}
PIXEL_FORMATS = {
    ("420", 8): "yuv420p",
    ("422", 8): "yuv422p",
    ("444", 8): "yuv444p",
    ("420", 10): "yuv420p10le",
    ("444", 10): "yuv444p10le",
}


@pytest.mark.parametrize("pixels", PIXEL_FORMATS)
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", MATRICES)
def test_swscale_sees_the_same_colours(
    matrix: str, full_range: bool, pixels: tuple[str, int]
) -> None:
    av = pytest.importorskip("av")
    subsampling, bit_depth = pixels
    y, x = np.mgrid[0:64, 0:96] / 96.0
    rgb = np.stack([0.3 + 0.5 * x, 0.7 - 0.4 * y, 0.5 + 0.3 * np.sin(2 * x + y)], 2)
    frame_rgb = np.rint(255 * rgb).astype(np.uint8)
    options: dict[str, Any] = {
        "matrix": matrix,
        "full_range": full_range,
        "bit_depth": bit_depth,
        "subsampling": subsampling,
    }
    planes = ops.rgb_to_yuv(frame_rgb, **options)
    frame = av.VideoFrame(96, 64, PIXEL_FORMATS[pixels])
    for plane, samples in zip(frame.planes, planes, strict=True):
        rows = np.frombuffer(plane, samples.dtype).reshape(samples.shape[0], -1)
        rows[:, : samples.shape[1]] = samples
    theirs = frame.reformat(
        format="rgb24",
        src_colorspace=SWSCALE_MATRICES[matrix],
        src_color_range=2 if full_range else 1,
        dst_color_range=2,
        interpolation=BILINEAR_ACCURATE,
    ).to_ndarray()
    ours = ops.yuv_to_rgb(*planes, **options)
    inside = (slice(4, -4), slice(4, -4))
    assert np.abs(ours.astype(int) - theirs)[inside].max() <= 2
    assert np.abs(ours.astype(int) - frame_rgb)[inside].max() <= 3


Y, UV = np.zeros((4, 6), np.uint8), np.zeros((2, 3), np.uint8)
RGB = np.zeros((4, 6, 3), np.uint8)
PLANES = (Y.copy(), UV.copy(), UV.copy())


@pytest.mark.parametrize(
    ("planes", "options", "error", "message"),
    [
        (
            (Y, UV, UV),
            {"matrix": "rec709"},
            InputError,
            "matrix must be 'bt601', 'bt709' or 'bt2020', got 'rec709'",
        ),
        ((Y, UV, UV), {"matrix": 1}, InputTypeError, "matrix must be a str, got int"),
        ((Y, UV, UV), {"matrix": "\ud800"}, InputError, "matrix must be 'bt601', "),
        ((Y, UV, UV), {"full_range": 1}, InputTypeError, "full_range must be a bool, got int"),
        ((Y, UV, UV), {"bit_depth": 12}, InputError, "bit_depth must be 8 or 10, got 12"),
        ((Y, UV, UV), {"bit_depth": "8"}, InputTypeError, "bit_depth must be an int, got str"),
        (
            (Y, UV, UV),
            {"bit_depth": 10},
            InputTypeError,
            "y must be uint16 for bit_depth 10, got uint8",
        ),
        (
            (Y, UV, UV),
            {"subsampling": "411"},
            InputError,
            "subsampling must be '420', '422' or '444', got '411'",
        ),
        (
            (Y, UV, UV),
            {"subsampling": "444"},
            InputError,
            r"u must have shape \(4, 6\), got \(2, 3\)",
        ),
        (
            (Y, UV, UV),
            {"chroma_location": "middle"},
            InputError,
            "chroma_location must be 'left', .* or 'bottom', got 'middle'",
        ),
        ((Y, UV, UV), {"layout": "HWC"}, InputError, "layout must be 'NHWC' or 'NCHW', got 'HWC'"),
        ((Y, UV, UV), {"threads": 0}, InputError, "threads must be from 1 to 256, got 0"),
        (
            (Y, UV, UV),
            {"out": RGB.astype(np.float32)},
            InputTypeError,
            "out must be uint8, got float32",
        ),
        (
            (Y, UV, UV),
            {"out": RGB[:3].copy()},
            InputError,
            r"out must have shape \(4, 6, 3\), got \(3, 6, 3\)",
        ),
        (
            (Y.astype(np.uint16), UV, UV),
            {},
            InputTypeError,
            "y must be uint8 for bit_depth 8, got uint16",
        ),
        (
            (Y, UV.astype(np.float32), UV),
            {},
            InputTypeError,
            "u must be uint8 for bit_depth 8, got float32",
        ),
        ((Y, UV.astype(np.int8), UV), {}, InputTypeError, "u must be .*, got int8"),
        ((Y[None], UV, UV), {}, InputError, r"y must be \(H, W\), got shape \(1, 4, 6\)"),
        ((Y, UV, UV[:1]), {}, InputError, r"v must have shape \(2, 3\), got \(1, 3\)"),
        ((Y[:, ::2], UV, UV), {}, InputError, "y must be a plane"),
        ((Y[::-1], UV, UV), {}, InputError, "y must be a plane"),
        ((Y[:0], UV[:0], UV[:0]), {}, InputError, "y must not be empty"),
        (
            (Y.tolist(), UV, UV),
            {},
            InputTypeError,
            "y must be a NumPy .*, got list",
        ),
    ],
)
def test_bad_planes_and_options_are_named(
    planes: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^yuv_to_rgb: {message}"):
        ops.yuv_to_rgb(*planes, **options)


@pytest.mark.parametrize(
    ("rgb", "options", "error", "message"),
    [
        (
            RGB.astype(np.float16),
            {},
            InputTypeError,
            "rgb must be uint8, uint16 or float32, got float16",
        ),
        (RGB[None], {}, InputError, r"rgb must be \(H, W, 3\), got shape \(1, 4, 6, 3\)"),
        (RGB[..., :2].copy(), {}, InputError, r"rgb must have shape \(4, 6, 3\), got \(4, 6, 2\)"),
        (np.zeros((2, 3, 4, 6), np.float32), {}, InputError, r"rgb must have shape \(1, 3, 4, 6\)"),
        (np.zeros((0, 6, 3), np.uint8), {}, InputError, "rgb must not be empty"),
        (RGB[:, ::2], {}, InputError, "rgb must be C-contiguous"),
        (
            RGB,
            {"out": list(PLANES)},
            InputTypeError,
            "out must be a tuple of 3 arrays or None, got list",
        ),
        (RGB, {"out": PLANES[:2]}, InputError, "out must be a tuple of 3 arrays, got 2"),
        (
            RGB,
            {"out": (PLANES[0], PLANES[1], PLANES[1])},
            InputError,
            "out v must not share memory with out u",
        ),
        (
            RGB,
            {"out": (PLANES[0], PLANES[0], PLANES[2])},
            InputError,
            r"out u must have shape \(2, 3\)",
        ),
        (
            RGB,
            {"out": PLANES, "bit_depth": 10},
            InputTypeError,
            "out y must be uint16 for bit_depth 10",
        ),
        (RGB, {"matrix": "rgb"}, InputError, "matrix must be"),
    ],
)
def test_bad_rgb_and_options_are_named(
    rgb: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^rgb_to_yuv: {message}"):
        ops.rgb_to_yuv(rgb, **options)


def test_out_must_not_overlap_the_planes() -> None:
    memory = np.zeros(72, np.uint8)
    with pytest.raises(InputError, match="yuv_to_rgb: out must not share memory with y"):
        ops.yuv_to_rgb(memory[:24].reshape(4, 6), UV, UV, out=memory.reshape(4, 6, 3))


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", MATRICES)
def test_ten_bits_survive_sixteen_bit_frames(
    rng: np.random.Generator, isa: str, matrix: str, full_range: bool
) -> None:
    options: dict[str, Any] = {
        "matrix": matrix,
        "full_range": full_range,
        "bit_depth": 10,
        "subsampling": "444",
        "chroma_location": "left",
    }
    # Colours that are inside RGB, so that nothing is clamped.
    planes = ops.rgb_to_yuv(rng.integers(0, 65536, (40, 131, 3), np.uint16), **options)
    again = ops.rgb_to_yuv(ops.yuv_to_rgb(*planes, **options, dtype="uint16"), **options)
    inside = np.ones(planes[0].shape, bool)
    exact = reference.yuv_to_rgb(*planes, **options)
    inside &= ((exact > 0) & (exact < 1)).all(2)
    assert inside.mean() > 0.9
    for before, after in zip(planes, again, strict=True):
        np.testing.assert_array_equal(after[inside], before[inside])


def test_wide_frames_are_for_rows_of_pixels() -> None:
    planes = (np.zeros((4, 4), np.uint8),) * 3
    with pytest.raises(InputError, match="dtype must be uint8 for layout 'NCHW'"):
        ops.yuv_to_rgb(*planes, subsampling="444", layout="NCHW", dtype="uint16")
    with pytest.raises(InputError, match="dtype must be one of uint8, uint16"):
        ops.yuv_to_rgb(*planes, subsampling="444", dtype="float32")
