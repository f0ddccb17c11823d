"""The ops in plain NumPy float64: what the compiled ones are checked against."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def rgb_to_planar(frames: NDArray[np.uint8]) -> Array:
    return np.moveaxis(frames, 3, 1).astype(np.float64) / 255


def planar_to_rgb(x: NDArray[np.float32]) -> NDArray[np.uint8]:
    clamped = np.clip(np.nan_to_num(x, nan=0.0), 0, 1)
    # The product is float32 in the op, and its rounding decides ties.
    return np.rint(np.moveaxis(clamped * np.float32(255), 1, 3)).astype(np.uint8)


YUV_WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}
# The chroma sample's position among the two luma positions it covers, across and down.
CHROMA_OFFSETS = {
    "left": (0.0, 0.5),
    "center": (0.5, 0.5),
    "topleft": (0.0, 0.0),
    "top": (0.5, 0.0),
    "bottomleft": (0.0, 1.0),
    "bottom": (0.5, 1.0),
}


def yuv_scales(full_range: bool, bit_depth: int) -> tuple[float, float, float, float]:
    """Range of luma and of chroma, value of black and of neutral chroma."""
    step, top = 2.0 ** (bit_depth - 8), 2.0**bit_depth - 1
    return (
        (top, top, 0, 128 * step) if full_range else (219 * step, 224 * step, 16 * step, 128 * step)
    )


def chroma_is_halved(subsampling: str) -> tuple[bool, bool]:
    """Across and down."""
    return subsampling != "444", subsampling == "420"


def enlarge_axis(x: Array, at: Array, axis: int) -> Array:
    """Linear interpolation of `x` at the positions `at`, its edge repeated outside."""
    low = np.floor(at).astype(int)
    weight = (at - low).reshape((-1, 1) if axis == 0 else (1, -1))
    last = x.shape[axis] - 1
    near, far = (np.take(x, np.clip(low + i, 0, last), axis) for i in (0, 1))
    return near * (1 - weight) + far * weight


def narrow_axis(x: Array, offset: float, axis: int) -> Array:
    """Every second position plus `offset`: (1, 2, 1) / 4 on a sample, (1, 1) / 2 between two."""
    size = x.shape[axis]
    first = 2 * np.arange((size + 1) // 2)
    taps = {0: 0.5, 1: 0.5} if offset == 0.5 else {offset - 1: 0.25, offset: 0.5, offset + 1: 0.25}
    return sum(w * np.take(x, np.clip(first + int(i), 0, size - 1), axis) for i, w in taps.items())  # type: ignore[return-value]


def yuv_to_rgb(
    y: Array,
    u: Array,
    v: Array,
    *,
    matrix: str,
    full_range: bool,
    bit_depth: int,
    subsampling: str,
    chroma_location: str,
) -> Array:
    """(H, W, 3) in [0, 1], not rounded."""
    kr, kb = YUV_WEIGHTS[matrix]
    y_range, c_range, black, neutral = yuv_scales(full_range, bit_depth)
    planes = []
    for plane in (u, v):
        plane = plane.astype(np.float64)
        offsets = CHROMA_OFFSETS[chroma_location]
        for axis, halved, offset in zip(
            (1, 0), chroma_is_halved(subsampling), offsets, strict=True
        ):
            if halved:
                at = (np.arange(y.shape[axis]) - offset) / 2
                plane = enlarge_axis(plane, at, axis)
        planes.append((plane - neutral) / c_range)
    pb, pr = planes
    luma = (y.astype(np.float64) - black) / y_range
    r, b = luma + 2 * (1 - kr) * pr, luma + 2 * (1 - kb) * pb
    g = (luma - kr * r - kb * b) / (1 - kr - kb)
    return np.clip(np.stack([r, g, b], 2), 0, 1)


def rgb_to_yuv(
    rgb: Array,
    *,
    matrix: str,
    full_range: bool,
    bit_depth: int,
    subsampling: str,
    chroma_location: str,
) -> tuple[Array, Array, Array]:
    """Planes of (H, W, 3) in [0, 1], not rounded."""
    kr, kb = YUV_WEIGHTS[matrix]
    y_range, c_range, black, neutral = yuv_scales(full_range, bit_depth)
    r, g, b = np.moveaxis(np.clip(np.nan_to_num(rgb.astype(np.float64), nan=0.0), 0, 1), 2, 0)
    luma = kr * r + (1 - kr - kb) * g + kb * b
    planes = []
    for difference in ((b - luma) / (2 - 2 * kb), (r - luma) / (2 - 2 * kr)):
        plane = difference
        offsets = CHROMA_OFFSETS[chroma_location]
        for axis, halved, offset in zip(
            (1, 0), chroma_is_halved(subsampling), offsets, strict=True
        ):
            if halved:
                plane = narrow_axis(plane, offset, axis)
        planes.append(np.clip(c_range * plane + neutral, 0, 2**bit_depth - 1))
    return y_range * luma + black, planes[0], planes[1]


def rgb_to_luma(frames: NDArray[np.uint8]) -> tuple[Array, Array]:
    r, g, b = np.moveaxis(frames.astype(np.float64) / 255, 3, 0)
    luma = 0.299 * r + 0.587 * g + 0.114 * b
    return luma[:, None], np.stack([(b - luma) / 1.772, (r - luma) / 1.402], 1)


def luma_to_rgb(luma: NDArray[np.float32], chroma: NDArray[np.float32]) -> Array:
    """(N, sH, sW, 3) in [0, 255], not rounded."""
    size = luma.shape[2:]
    scale = size[0] // chroma.shape[2]
    pictures = []
    for image in chroma.astype(np.float64):
        planes = []
        for plane in image:
            for axis in (0, 1):
                at = (np.arange(size[axis]) + 0.5) / scale - 0.5
                plane = enlarge_axis(plane, at, axis)
            planes.append(plane)
        pictures.append(planes)
    cb, cr = np.moveaxis(np.array(pictures), 1, 0)
    y = luma[:, 0].astype(np.float64)
    r, b = y + 1.402 * cr, y + 1.772 * cb
    g = (y - 0.299 * r - 0.114 * b) / 0.587
    return 255 * np.clip(np.stack([r, g, b], 3), 0, 1)
