"""`warp_blend`: near float64 NumPy, equal bits on every instruction set, no read out of bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import reference
from arrays import BFLOAT16
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastvid import _core, ops
from fastvid.errors import InputError, InputTypeError

SIZES = [(1, 1), (2, 3), (3, 40), (4, 32), (9, 16), (17, 31), (33, 47), (40, 66), (11, 1100)]


def make_inputs(
    rng: np.random.Generator, size: tuple[int, int], scale: int = 1, batch: int = 2
) -> dict[str, Any]:
    height, width = size
    h, w = -(-height // scale), -(-width // scale)
    y, x = np.mgrid[:h, :w]
    flow = rng.normal(0, 4, (batch, 4, 1, 1)) + 0.03 * (x - y) + 9 * (x > w // 2)
    flow = flow + rng.normal(0, 30, flow.shape) * (rng.random(flow.shape) < 0.02)
    return {
        "image0": rng.random((batch, 3, height, width), np.float32),
        "image1": rng.random((batch, 3, height, width), np.float32),
        "flow": flow.astype(np.float32),
        "mask": rng.normal(0, 4, (batch, 1, h, w)).astype(np.float32),
    }


def make_residual(rng: np.random.Generator, inputs: dict[str, Any]) -> Any:
    return rng.normal(0, 0.3, inputs["image0"].shape).astype(np.float32)


def to_bytes(planes: Any) -> Any:
    """The rounding of float32 planes that uint8 output is defined by."""
    return np.rint(np.moveaxis(planes * np.float32(255), 1, 3)).astype(np.uint8)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scale", [1, 2, 4, 8])
@pytest.mark.parametrize("with_residual", [False, True])
def test_warp_blend_agrees_with_float64(
    rng: np.random.Generator, isa: str, size: tuple[int, int], scale: int, with_residual: bool
) -> None:
    inputs = make_inputs(rng, size, scale)
    residual = make_residual(rng, inputs) if with_residual else None
    expected = reference.warp_blend(**inputs, residual=residual, scale=scale)
    # Coordinates are float32; their rounding grows with the width.
    tolerance = 4e-5 if size[1] < 128 else 4e-4
    planes = ops.warp_blend(**inputs, residual=residual)
    np.testing.assert_allclose(planes, expected, atol=tolerance)
    frames = ops.warp_blend(**inputs, residual=residual, out_dtype="uint8")
    np.testing.assert_array_equal(frames, to_bytes(planes))
    wide = ops.warp_blend(**inputs, residual=residual, out_dtype="uint16")
    levels = np.rint(np.moveaxis(planes * np.float32(65535), 1, 3)).astype(np.uint16)
    np.testing.assert_array_equal(wide, levels)


@pytest.mark.parametrize("logit", [-200, -87.5, -20, -3, -1e-3, 0, 0.5, 4, 17, 88.5, 200])
def test_the_mask_is_a_logit(isa: str, logit: float) -> None:
    inputs = make_inputs(np.random.default_rng(1), (6, 40), batch=1)
    inputs["flow"][:] = 0
    inputs["image0"][:], inputs["image1"][:] = 1, 0
    inputs["mask"][:] = logit
    expected = 1 / (1 + np.exp(-np.float64(np.clip(np.float32(logit), -88, 87))))
    np.testing.assert_allclose(ops.warp_blend(**inputs), expected, rtol=4e-7)


def test_a_mask_decides_between_the_images(rng: np.random.Generator, isa: str) -> None:
    inputs = make_inputs(rng, (20, 50))
    inputs["flow"][:] = 0
    for logit, image in ((np.inf, "image0"), (np.nan, "image0"), (-np.inf, "image1")):
        inputs["mask"][:] = logit
        np.testing.assert_allclose(ops.warp_blend(**inputs), inputs[image], atol=1e-7)


def test_the_result_is_clamped_and_nan_becomes_zero(rng: np.random.Generator, isa: str) -> None:
    inputs = make_inputs(rng, (9, 40))
    residual = make_residual(rng, inputs)
    residual[:, :, 0], residual[:, :, 1], residual[:, :, 2] = 5, -5, np.nan
    planes = ops.warp_blend(**inputs, residual=residual)
    assert (planes[:, :, 0] == 1).all()
    assert not planes[:, :, 1:3].any()


@pytest.mark.parametrize("size", [(3, 5), (40, 97), (64, 128)])
@pytest.mark.parametrize("scale", [1, 2, 4, 8])
@pytest.mark.parametrize("out_dtype", ["float32", "uint8"])
def test_every_instruction_set_gives_equal_bits(
    rng: np.random.Generator, each_isa: Any, size: tuple[int, int], scale: int, out_dtype: str
) -> None:
    inputs = make_inputs(rng, size, scale)
    residual = make_residual(rng, inputs)
    results = each_isa(lambda: ops.warp_blend(**inputs, residual=residual, out_dtype=out_dtype))
    for name, result in results.items():
        assert result.tobytes() == results["baseline"].tobytes(), name


@pytest.mark.parametrize("dtype", [np.dtype(np.float16), BFLOAT16], ids=str)
@pytest.mark.parametrize("size", [(3, 5), (33, 47), (11, 1100)])
def test_halves_give_the_float32_result_rounded(
    rng: np.random.Generator, isa: str, size: tuple[int, int], dtype: Any
) -> None:
    inputs = make_inputs(rng, size, 2)
    inputs["residual"] = make_residual(rng, inputs)
    narrow = {
        name: array.astype(dtype) if "image" in name or name == "residual" else array
        for name, array in inputs.items()
    }
    wide = {name: array.astype(np.float32) for name, array in narrow.items()}
    result = ops.warp_blend(**narrow)
    assert result.dtype == dtype
    assert result.tobytes() == ops.warp_blend(**wide).astype(dtype).tobytes()
    assert ops.warp_blend(**narrow, out_dtype=str(dtype)).tobytes() == result.tobytes()
    frames = ops.warp_blend(**narrow, out_dtype="uint8")
    np.testing.assert_array_equal(frames, ops.warp_blend(**wide, out_dtype="uint8"))


@pytest.mark.parametrize("dtype", [np.dtype(np.float16), BFLOAT16], ids=str)
@pytest.mark.parametrize("output_uint8", [0, 1])
def test_onnxruntime_takes_halves(
    rng: np.random.Generator, run_node: Callable[..., Any], dtype: Any, output_uint8: int
) -> None:
    inputs = make_inputs(rng, (20, 50))
    inputs["image0"], inputs["image1"] = (inputs[f"image{i}"].astype(dtype) for i in (0, 1))
    expected = ops.warp_blend(**inputs, out_dtype="uint8" if output_uint8 else None)
    result = run_node("WarpBlend", *inputs.values(), output_uint8=output_uint8)
    assert result.dtype == expected.dtype
    assert result.tobytes() == expected.tobytes()
    expected = ops.warp_blend(**inputs, out_dtype="uint16")
    result = run_node("WarpBlend", *inputs.values(), output_uint8=1, output_uint16=1)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("width", [1920, 1924])
@pytest.mark.parametrize("scale", [1, 4])
def test_large_images_are_written_completely(
    rng: np.random.Generator, each_isa: Any, width: int, scale: int
) -> None:
    inputs = make_inputs(rng, (370, width), scale, batch=1)
    out = np.full(inputs["image0"].shape, np.nan, np.float32)
    results = each_isa(lambda: ops.warp_blend(**inputs, out=out).copy())
    for result in results.values():
        np.testing.assert_array_equal(result, results["baseline"])
    expected = reference.warp_blend(**inputs, scale=scale)
    np.testing.assert_allclose(results["baseline"], expected, atol=6e-4)


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_threads_do_not_change_the_result(rng: np.random.Generator, threads: int) -> None:
    inputs = make_inputs(rng, (75, 50), 2)
    np.testing.assert_array_equal(
        ops.warp_blend(**inputs, threads=threads), ops.warp_blend(**inputs)
    )


@pytest.mark.parametrize("out_dtype", ["float32", "uint8"])
def test_out_is_filled_and_returned(rng: np.random.Generator, out_dtype: str) -> None:
    inputs = make_inputs(rng, (21, 35))
    expected = ops.warp_blend(**inputs, out_dtype=out_dtype)
    # One past the end must stay as it was.
    memory = np.full(expected.size + 64, 77, expected.dtype)
    out = memory[:-64].reshape(expected.shape)
    assert ops.warp_blend(**inputs, out=out, out_dtype=out_dtype) is out
    np.testing.assert_array_equal(out, expected)
    assert (memory[-64:] == 77).all()


@given(data=st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_flow_or_mask_reads_out_of_bounds(data: st.DataObject) -> None:
    """A read outside an image would find NaN, which ends as 0; inside, all is 1."""
    size = data.draw(st.integers(1, 70)), data.draw(st.integers(1, 70))
    scale = data.draw(st.sampled_from([1, 2, 4, 8]))
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    inputs = make_inputs(generator, size, scale, batch=1)
    special = np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, 2.0**31, -(2.0**31)], np.float32)
    for name in ("flow", "mask"):
        array = inputs[name]
        places = generator.integers(0, array.size, data.draw(st.integers(0, 12)))
        array.flat[places] = generator.choice(special, places.size)
    guard = 4096
    for name in ("image0", "image1"):
        memory = np.full(2 * guard + inputs[name].size, np.nan, np.float32)
        memory[guard:-guard] = 1
        inputs[name] = memory[guard:-guard].reshape(inputs[name].shape)
    for name in _core.cpu_isas():
        _core._force_isa(name)
        try:
            assert (ops.warp_blend(**inputs) == 1).all()
            assert (ops.warp_blend(**inputs, out_dtype="uint8") == 255).all()
        finally:
            _core._force_isa(None)


@pytest.mark.parametrize("scale", [1, 8])
@pytest.mark.parametrize("output_uint8", [0, 1])
@pytest.mark.parametrize("with_residual", [False, True])
def test_onnxruntime_gives_the_same_bits(
    rng: np.random.Generator,
    run_node: Callable[..., Any],
    scale: int,
    output_uint8: int,
    with_residual: bool,
) -> None:
    inputs = make_inputs(rng, (50, 70), scale)
    residual = make_residual(rng, inputs) if with_residual else None
    expected = ops.warp_blend(
        **inputs, residual=residual, out_dtype="uint8" if output_uint8 else "float32"
    )
    optional = [residual] if with_residual else []
    result = run_node("WarpBlend", *inputs.values(), *optional, output_uint8=output_uint8)
    assert result.dtype == expected.dtype
    np.testing.assert_array_equal(result, expected)


def arguments(**changed: Any) -> dict[str, Any]:
    image = np.zeros((1, 3, 6, 8), np.float32)
    return {
        "image0": image,
        "image1": image,
        "flow": np.zeros((1, 4, 6, 8), np.float32),
        "mask": np.zeros((1, 1, 6, 8), np.float32),
        **changed,
    }


def zeros(*shape: int, dtype: Any = np.float32) -> Any:
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"image0": zeros(1, 3, 6, 8, dtype=np.uint8)}, InputTypeError, "image0 must be float32"),
        ({"image0": zeros(1, 4, 6, 8)}, InputError, "image0 must have 3 channels second"),
        ({"image0": zeros(3, 6, 8)}, InputError, r"image0 must be \(N, 3, H, W\)"),
        (
            {"image1": zeros(1, 3, 6, 8, dtype=np.float16)},
            InputTypeError,
            "image1 must be float32, got float16",
        ),
        (
            {"residual": zeros(1, 3, 6, 8, dtype=np.float16)},
            InputTypeError,
            "residual must be float32, got float16",
        ),
        ({"image1": zeros(1, 3, 6, 9)}, InputError, r"image1 must have shape \(1, 3, 6, 8\), got"),
        (
            {"image1": None},
            InputTypeError,
            "image1 must be a NumPy .*, got NoneType",
        ),
        ({"flow": zeros(1, 2, 6, 8)}, InputError, r"flow must have shape \(1, 4, 6, 8\), or"),
        ({"flow": zeros(1, 4, 2, 2)}, InputError, "mask must have shape"),
        ({"flow": zeros(1, 4, 6, 8, dtype=float)}, InputTypeError, "flow must be .*got float64"),
        ({"mask": zeros(1, 3, 6, 8)}, InputError, r"mask must have shape \(1, 1, 6, 8\), got"),
        ({"mask": zeros(1, 1, 8, 6).swapaxes(2, 3)}, InputError, "mask must be C-contiguous"),
        ({"residual": zeros(1, 3, 3, 4)}, InputError, "residual must have shape"),
        ({"residual": zeros(1, 3, 6, 8, dtype=np.uint8)}, InputTypeError, "residual must be float"),
        ({"out": zeros(1, 6, 8, 3)}, InputError, r"out must have shape \(1, 3, 6, 8\), got"),
        ({"out": zeros(1, 6, 8, 3, dtype=np.uint8)}, InputTypeError, "out must be float32, got"),
        ({"out": zeros(1, 3, 6, 8), "out_dtype": "uint8"}, InputTypeError, "out must be uint8"),
        (
            {"out_dtype": "float16"},
            InputError,
            "out_dtype must be uint8, uint16 or that of the images, float32, got float16",
        ),
        ({"out_dtype": "int8"}, InputError, "out_dtype must be one of float32, float16, bfloat16"),
        ({"out_dtype": np.uint8}, InputTypeError, "out_dtype must be a str, got type"),
        ({"threads": -1}, InputError, "threads must be from 1 to 256, got -1"),
    ],
)
def test_bad_arguments_are_named(
    changed: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^warp_blend: {message}"):
        ops.warp_blend(**arguments(**changed))


@pytest.mark.parametrize("name", ["image0", "image1", "flow", "mask", "residual"])
def test_out_must_not_overlap_an_input(name: str) -> None:
    given = arguments(residual=np.zeros((1, 3, 6, 8), np.float32))
    memory = np.zeros(2000, np.float32)
    size = given[name].size
    given[name] = memory[100 : 100 + size].reshape(given[name].shape)
    out = memory[100 + size - 1 :][:144].reshape(1, 3, 6, 8)
    with pytest.raises(InputError, match=f"out must not share memory with {name}"):
        ops.warp_blend(**given, out=out)


def test_no_images_give_no_frames() -> None:
    given = {name: array[:0] for name, array in arguments().items()}
    assert ops.warp_blend(**given, out_dtype="uint8").shape == (0, 6, 8, 3)
