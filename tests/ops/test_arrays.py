"""What arrays the ops take, tried on the simplest of them: every op reads its arrays alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from arrays import Exchanged, OnDevice

from fastvid import _core, ops
from fastvid.errors import InputError, InputTypeError, NoDeviceError

FRAMES = np.arange(2 * 5 * 7 * 3, dtype=np.uint8).reshape(2, 5, 7, 3)
PLANES = ops.rgb_to_planar(FRAMES)


@pytest.mark.parametrize("legacy", [False, True])
def test_an_array_exchanged_by_dlpack_is_used_where_it_lies(legacy: bool) -> None:
    out = np.zeros_like(PLANES)
    target = Exchanged(out, legacy=legacy)
    assert ops.rgb_to_planar(Exchanged(FRAMES, legacy=legacy), out=target) is target  # type: ignore[arg-type, comparison-overlap]
    assert np.array_equal(out, PLANES)


def test_a_read_only_array_may_be_read_and_not_written() -> None:
    frames, out = FRAMES.copy(), np.zeros_like(PLANES)
    frames.flags.writeable = out.flags.writeable = False
    for wrap in (lambda array: array, Exchanged):
        assert np.array_equal(ops.rgb_to_planar(wrap(frames)), PLANES)
        with pytest.raises(InputError, match="rgb_to_planar: out must be writable, got read-only"):
            ops.rgb_to_planar(frames, out=wrap(out))


@pytest.mark.parametrize("wrap", [lambda array: array, Exchanged])
@pytest.mark.parametrize(
    "frames",
    [
        FRAMES[:, ::2],
        FRAMES[:, :, ::-1],
        FRAMES.transpose(0, 2, 1, 3),
        FRAMES[..., :1].repeat(3, -1),
    ],
)
def test_an_array_that_is_not_contiguous_is_refused(wrap: Any, frames: Any) -> None:
    if frames.flags.c_contiguous:
        assert ops.rgb_to_planar(wrap(frames)).shape == (2, 3, 5, 7)
        return
    with pytest.raises(
        InputError, match="frames must be C-contiguous, got a strided array"
    ) as info:
        ops.rgb_to_planar(wrap(frames))
    assert "np.ascontiguousarray(frames)" in str(info.value)


def test_strides_of_axes_of_one_element_do_not_count() -> None:
    view = np.lib.stride_tricks.as_strided(FRAMES, (1, 5, 7, 3), (-8, 21, 3, 1))
    assert np.array_equal(ops.rgb_to_planar(view), PLANES[:1])


def test_a_broadcast_output_is_refused() -> None:
    y = np.zeros((4, 6), np.uint8)
    chroma = np.zeros((2, 3), np.uint8)
    rows = np.lib.stride_tricks.as_strided(np.zeros(6, np.uint8), (4, 6), (0, 1))
    with pytest.raises(InputError, match=r"y must (be a plane|have its own memory)"):
        ops.rgb_to_yuv(np.zeros((4, 6, 3), np.uint8), out=(rows, chroma, chroma.copy()))
    assert not y.any()


def test_other_objects_are_refused_by_name() -> None:
    class Broken:
        def __dlpack_device__(self) -> tuple[int, int]:
            return (1, 0)

        def __dlpack__(self, **options: Any) -> Any:
            raise BufferError("no")

    class NotACapsule(Broken):
        def __dlpack__(self, **options: Any) -> Any:
            return 5

    for bad, rule in (
        ([1, 2], "must be a NumPy array or have __dlpack__, got list"),
        (None, "must be a NumPy array or have __dlpack__, got NoneType"),
        (Broken(), "must be an array that DLPack can exchange, got Broken: BufferError: no"),
        (NotACapsule(), "must give a DLPack capsule, got int"),
        (FRAMES.astype(np.int64), "must be float32, float16, bfloat16, uint8 or uint16, got int64"),
        (FRAMES.astype(">u2"), "must be float32, float16, bfloat16, uint8 or uint16, got >u2"),
        (Exchanged(FRAMES.astype(np.int16)), "got DLPack type 0 of 16 bits"),
    ):
        with pytest.raises(InputTypeError) as info:
            ops.rgb_to_planar(bad)  # type: ignore[arg-type]
        assert rule in str(info.value)
        assert str(info.value).startswith("rgb_to_planar: frames must")


def test_more_axes_than_six_are_refused() -> None:
    with pytest.raises(InputError, match="frames must have at most 6 axes, got 7"):
        ops.rgb_to_planar(np.zeros((1,) * 7, np.uint8))
    with pytest.raises(InputError, match="frames must have at most 6 axes, got 7"):
        ops.rgb_to_planar(Exchanged(np.zeros((1,) * 7, np.uint8)))  # type: ignore[arg-type]


@pytest.mark.skipif(_core.cuda_compiled(), reason="with CUDA kernels a device may be there")
def test_a_device_array_without_a_device_is_refused() -> None:
    with pytest.raises(NoDeviceError, match="rgb_to_planar: this build of fastvid has no CUDA"):
        ops.rgb_to_planar(OnDevice())  # type: ignore[arg-type]
    with pytest.raises(NoDeviceError, match="rgb_to_planar: this build of fastvid has no CUDA"):
        ops.rgb_to_planar(FRAMES, out=OnDevice())


def test_a_stream_belongs_to_device_arrays() -> None:
    with pytest.raises(InputError, match="stream must be None for arrays on the CPU, got 7"):
        ops.rgb_to_planar(FRAMES, stream=7)
    with pytest.raises(InputTypeError, match="stream must be an int or None, got str"):
        ops.rgb_to_planar(FRAMES, stream="7")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="stream must be the address of a CUDA stream, got -"):
        ops.rgb_to_planar(FRAMES, stream=-(2**70))


def test_torch_tensors_are_used_where_they_lie() -> None:
    torch = pytest.importorskip("torch")
    frames = torch.from_numpy(FRAMES)
    out = torch.zeros(2, 3, 5, 7)
    assert ops.rgb_to_planar(frames, out=out) is out
    assert np.array_equal(out.numpy(), PLANES)
    assert isinstance(ops.rgb_to_planar(frames), np.ndarray)
    with pytest.raises(InputError, match="frames must be C-contiguous"):
        ops.rgb_to_planar(frames.transpose(1, 2))
    with pytest.raises(InputError, match=r"x must not require a gradient.*x\.detach\(\)"):
        ops.planar_to_rgb(out.requires_grad_())
    with pytest.raises(InputTypeError, match="frames must be"):
        ops.rgb_to_planar(torch.empty(1, 2, 2, 3, dtype=torch.uint8, device="meta"))


def test_values_of_onnxruntime_are_used_where_they_lie() -> None:
    ort = pytest.importorskip("onnxruntime")
    if not hasattr(ort.OrtValue, "__dlpack__"):
        pytest.skip(f"onnxruntime {ort.__version__} exchanges no arrays by DLPack")
    value = ort.OrtValue.ortvalue_from_numpy(FRAMES)
    assert np.array_equal(ops.rgb_to_planar(value), PLANES)
