"""The ops in plain NumPy float64: what the compiled ones are checked against."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def rgb_to_planar(frames: NDArray[np.uint8]) -> Array:
    return np.moveaxis(frames, 3, 1).astype(np.float64) / 255


def planar_to_rgb(x: NDArray[np.float32]) -> NDArray[np.uint8]:
    clamped = np.clip(np.nan_to_num(x, nan=0.0), 0, 1)
    # The product is float32 in the op, and its rounding decides ties.
    return np.rint(np.moveaxis(clamped * np.float32(255), 1, 3)).astype(np.uint8)


def downscale(x: NDArray[np.float32], factor: int) -> Array:
    n, c, height, width = x.shape
    blocks = x.astype(np.float64).reshape(n, c, height // factor, factor, width // factor, factor)
    return blocks.mean((3, 5))


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


def upsample(field: NDArray[np.float32], scale: int, height: int, width: int) -> Array:
    """Bilinear, pixel centres at halves, clamped at the edge, cut to (height, width)."""

    def axis(size: int, cells: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
        at = np.clip((np.arange(size) + 0.5) / scale - 0.5, 0, cells - 1)
        low = np.floor(at).astype(np.int64)
        return low, np.minimum(low + 1, cells - 1), at - low

    field = field.astype(np.float64)
    y0, y1, wy = axis(height, field.shape[2])
    x0, x1, wx = axis(width, field.shape[3])
    rows = field[:, :, y0] * (1 - wy[:, None]) + field[:, :, y1] * wy[:, None]
    return rows[..., x0] * (1 - wx) + rows[..., x1] * wx


def warp(image: NDArray[np.float32], flow: Array | NDArray[np.float32], padding: str) -> Array:
    height, width = image.shape[2:]
    y, x = np.mgrid[:height, :width].astype(np.float64)
    out = np.empty(image.shape)
    for n, (dx, dy) in enumerate(flow.astype(np.float64)):
        px, py = x + dx, y + dy
        if padding == "border":
            px, py = np.clip(px, 0, width - 1), np.clip(py, 0, height - 1)
        x0, y0 = np.floor(px).astype(np.int64), np.floor(py).astype(np.int64)
        out[n] = 0
        for j, wj in ((y0, 1 - (py - y0)), (y0 + 1, py - y0)):
            for i, wi in ((x0, 1 - (px - x0)), (x0 + 1, px - x0)):
                inside = (i >= 0) & (i < width) & (j >= 0) & (j < height)
                values = image[n][:, np.clip(j, 0, height - 1), np.clip(i, 0, width - 1)]
                out[n] += np.where(inside, wj * wi * values, 0)
    return out


def warp_blend(
    image0: NDArray[np.float32],
    image1: NDArray[np.float32],
    flow: NDArray[np.float32],
    mask: NDArray[np.float32],
    residual: NDArray[np.float32] | None = None,
    scale: int = 1,
) -> Array:
    """The float32 output; frames are rint(255 * it) in (N, H, W, 3)."""
    size = image0.shape[2:]
    full = upsample(flow, scale, *size)
    share = 1 / (1 + np.exp(-upsample(mask, scale, *size)))
    first = warp(image0, full[:, :2], "border")
    second = warp(image1, full[:, 2:], "border")
    out = second + share * (first - second)
    return np.clip(out if residual is None else out + residual, 0, 1)


def philox(counters: NDArray[np.uint64], seed: int) -> NDArray[np.uint32]:
    """Philox4x32-10: counters (n, 4) of 32 bits to words (n, 4)."""
    mask, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    c = list(counters.T)
    keys = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        first, second = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [
            (second >> half) ^ c[1] ^ np.uint64(keys[0]),
            second & mask,
            (first >> half) ^ c[3] ^ np.uint64(keys[1]),
            first & mask,
        ]
        keys = [(keys[0] + 0x9E3779B9) & 0xFFFFFFFF, (keys[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return np.stack(c, 1).astype(np.uint32)


def randn(count: int, seed: int, subsequence: int = 0, offset: int = 0) -> Array:
    first = offset // 4
    block = np.uint64(first) + np.arange((offset + count + 3) // 4 - first, dtype=np.uint64)
    counters = np.zeros((len(block), 4), np.uint64)
    counters[:, 0], counters[:, 1] = block & np.uint64(0xFFFFFFFF), block >> np.uint64(32)
    counters[:, 2] = subsequence
    words = philox(counters, seed).reshape(-1, 2) >> 8
    radius = np.sqrt(-2 * np.log((words[:, 0] + 1.0) / 2**24))
    angle = 2 * np.pi * words[:, 1] / 2**24
    values = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).ravel()
    return values[offset - 4 * first :][:count]


def scheduler_step(
    matrix: NDArray[np.float64],
    inputs: list[NDArray[np.float32]],
    uncond: NDArray[np.float32] | None = None,
    guidance_scale: float = 1.0,
) -> Array:
    """(outputs, *shape)."""
    given = [x.astype(np.float64) for x in inputs]
    if uncond is not None:
        given[0] = uncond + guidance_scale * (given[0] - uncond)
    return np.tensordot(matrix, np.stack(given), 1)


def linear(x: NDArray[Any], weight: NDArray[Any], bias: NDArray[Any] | None = None) -> Array:
    """(..., K) times (N, K), transposed."""
    out = x.astype(np.float64) @ weight.astype(np.float64).T
    return out if bias is None else out + bias.astype(np.float64)


def qk_norm_rope(
    x: NDArray[Any],
    weight: NDArray[np.float32] | None,
    cos: NDArray[np.float32] | None,
    sin: NDArray[np.float32] | None,
    norm: str | None,
    rope: str | None,
    eps: float = 1e-6,
) -> Array:
    """One of q and k, (B, N, H, D)."""
    y = x.astype(np.float64)
    dim = y.shape[3]
    if norm is not None:
        axes = (3,) if norm == "head" else (2, 3)
        y = y / np.sqrt((y * y).mean(axes, keepdims=True) + eps)
        if weight is not None:
            y = y * weight.reshape(-1, dim)
    if cos is None or sin is None:
        return y
    c, s = (
        np.broadcast_to(t.reshape(len(t), -1, dim // 2), (*y.shape[1:3], dim // 2))
        for t in (cos, sin)
    )
    first = slice(0, dim, 2) if rope == "interleaved" else slice(0, dim // 2)
    second = slice(1, dim, 2) if rope == "interleaved" else slice(dim // 2, dim)
    out = np.empty_like(y)
    out[..., first] = y[..., first] * c - y[..., second] * s
    out[..., second] = y[..., second] * c + y[..., first] * s
    return out


def softmax_splat(
    image: NDArray[Any],
    flow: NDArray[np.float32],
    metric: NDArray[np.float32] | None = None,
    mode: str = "softmax",
) -> Array:
    n, c, height, width = image.shape
    # Coordinates are float32 in the op, and their rounding decides what is reached.
    x = np.arange(width, dtype=np.float32) + flow[:, 0]
    y = np.arange(height, dtype=np.float32)[:, None] + flow[:, 1]
    counts = np.isfinite(x) & np.isfinite(y)
    weight = np.ones(x.shape)
    if metric is not None:
        weight = metric[:, 0].astype(np.float64)
        counts &= np.isfinite(weight)
        if mode == "softmax":
            peak = np.max(weight, (1, 2), initial=-np.inf, where=np.isfinite(weight))
            weight = np.exp(np.maximum(weight - peak[:, None, None], -80))
    values = np.concatenate([image.astype(np.float64), np.ones((n, 1, height, width))], 1)
    sums = np.zeros((n, height, width, c + 1))
    batch, row, column = np.nonzero(counts)
    x, y = (a[batch, row, column].astype(np.float64) for a in (x, y))
    given = weight[batch, row, column, None] * values[batch, :, row, column]
    for down in (0, 1):
        for right in (0, 1):
            i, j = np.floor(y) + down, np.floor(x) + right
            share = (1 - abs(y - i)) * (1 - abs(x - j))
            inside = (i >= 0) & (i < height) & (j >= 0) & (j < width)
            where = (batch[inside], i[inside].astype(int), j[inside].astype(int))
            np.add.at(sums, where, (share[:, None] * given)[inside])
    total = np.moveaxis(sums, 3, 1)
    if mode == "sum":
        return total[:, :c]
    reached = total[:, c:] != 0
    return np.where(reached, total[:, :c] / np.where(reached, total[:, c:], 1), 0)


def attention(
    q: NDArray[Any],
    k: NDArray[Any],
    v: NDArray[Any],
    scale: float | None = None,
    causal: bool = False,
    bias: NDArray[np.float32] | None = None,
) -> Array:
    """(B, Nq, H, D); a query that sees no key gives zeros."""
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    scores = np.einsum("bihd,bjhd->bhij", q, k) * (q.shape[3] ** -0.5 if scale is None else scale)
    if bias is not None:
        scores = scores + bias
    if causal:
        scores = np.where(np.tri(*scores.shape[2:], dtype=bool), scores, -np.inf)
    top = scores.max(3, keepdims=True)
    weights = np.exp(scores - np.where(np.isneginf(top), 0, top))
    total = weights.sum(3, keepdims=True)
    return np.einsum("bhij,bjhd->bihd", weights / np.where(total == 0, 1, total), v)


def temporal_attention(q: NDArray[Any], k: NDArray[Any], v: NDArray[Any], **options: Any) -> Array:
    """`attention` over axis 1 of (B, T, S, H, D), each place a batch of its own."""
    batch, frames, places, heads, dim = q.shape
    folded = (x.swapaxes(1, 2).reshape(batch * places, frames, heads, dim) for x in (q, k, v))
    out = attention(*folded, **options)
    return out.reshape(batch, places, frames, heads, dim).swapaxes(1, 2)
