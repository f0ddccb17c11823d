"""Planar YUV pictures and RGB. `fastvid.ops` is the public face."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from fastvid import _core
from fastvid._ops.checks import is_wide, outputs, threads_of
from fastvid.errors import InputError


def yuv_to_rgb(
    y: NDArray[Any],
    u: NDArray[Any],
    v: NDArray[Any],
    *,
    matrix: str = "bt709",
    full_range: bool = False,
    bit_depth: int = 8,
    subsampling: str = "420",
    chroma_location: str = "left",
    layout: str = "NHWC",
    dtype: str = "uint8",
    out: Any = None,
    threads: int | None = None,
    stream: int | None = None,
) -> NDArray[Any]:
    """Turns a planar YUV picture into RGB in one pass.

    The inverse of `rgb_to_yuv`, which has the formulas; chroma is enlarged by linear interpolation
    between the samples around each pixel, with its edge repeated outside the picture. Results are
    clamped and rounded half to even once. Equal chroma of half the range gives R = G = B exactly.

    Args:
        y: uint8 (H, W), or uint16 from 0 to 1023 with `bit_depth=10`. The rows of all three planes
            may stand apart, as a decoder leaves them.
        u: The same dtype, (H, W) with the halved axes rounded up.
        v: Like u.
        matrix: "bt601", "bt709" or "bt2020" (non-constant luminance).
        full_range: Whether samples span the full range and not the limited one (16 to 235 and 240).
        bit_depth: 8 or 10.
        subsampling: "420" halves both axes of u and v, "422" the columns, "444" none.
        chroma_location: Where a chroma sample lies among the luma samples it covers: "left",
            "center", "topleft", "top", "bottomleft" or "bottom". "left" is on the even columns and
            midway between two rows.
        layout: "NHWC" for frames, "NCHW" for what models work in.
        dtype: "uint8", or "uint16" for "NHWC" with 65535 for white.
        out: The result's array to write to; None allocates.
        threads: Number of threads; None is the default.
        stream: CUDA stream of arrays on a device; None is the current one.

    Returns:
        uint8 or uint16 (H, W, 3) for "NHWC", float32 (1, 3, H, W) in [0, 1] for "NCHW"; `out`
        where it was given.

    Raises:
        InputTypeError: An argument has the wrong type or dtype.
        InputError: An argument has the wrong shape, layout or value.
    """
    wide = is_wide("yuv_to_rgb", dtype)
    if wide and layout == "NCHW":
        raise InputError("yuv_to_rgb: dtype must be uint8 for layout 'NCHW', got 'uint16'")
    return _core.yuv_to_rgb(
        y,
        u,
        v,
        matrix,
        full_range,
        bit_depth,
        subsampling,
        chroma_location,
        layout,
        wide,
        out,
        threads_of("yuv_to_rgb", threads),
        stream,
    )


def rgb_to_yuv(
    rgb: NDArray[Any],
    *,
    matrix: str = "bt709",
    full_range: bool = False,
    bit_depth: int = 8,
    subsampling: str = "420",
    chroma_location: str = "left",
    out: tuple[Any, Any, Any] | None = None,
    threads: int | None = None,
    stream: int | None = None,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Turns RGB into a planar YUV picture in one pass.

    With R, G, B in [0, 1], the matrix's Kr and Kb, and d the bit depth:
    `E = Kr R + (1 - Kr - Kb) G + Kb B`, `Pb = (B - E) / (2 - 2 Kb)`, `Pr = (R - E) / (2 - 2 Kr)`;
    limited range: `Y = 2**(d-8) (219 E + 16)`, `U, V = 2**(d-8) (224 Pb, Pr + 128)`;
    full range: `Y = (2**d - 1) E`, `U, V = (2**d - 1) Pb, Pr + 2**(d-1)`; rounded half to even.
    Chroma is first averaged with weights (1, 2, 1) / 4 around a chroma sample that lies on a luma
    position and (1, 1) / 2 for one midway, with the edge repeated outside the picture.

    Args:
        rgb: uint8 or uint16 (H, W, 3), or float32 (1, 3, H, W) in [0, 1]; values outside are
            clamped, NaN counts as 0.
        matrix: As in `yuv_to_rgb`, as are the next four.
        full_range: Whether samples span the full range.
        bit_depth: 8 or 10.
        subsampling: "420", "422" or "444".
        chroma_location: Where a chroma sample lies.
        out: Planes (y, u, v) to write to, whose rows may stand apart; None allocates.
        threads: Number of threads; None is the default.
        stream: CUDA stream of arrays on a device; None is the current one.

    Returns:
        y, u and v: uint8 (H, W) and twice (H, W) with the halved axes rounded up; uint16 with
        `bit_depth=10`.

    Raises:
        InputTypeError: An argument has the wrong type or dtype.
        InputError: An argument has the wrong shape, layout or value.
    """
    op = "rgb_to_yuv"
    out_y, out_u, out_v = outputs(op, out, 3)
    return _core.rgb_to_yuv(
        rgb,
        matrix,
        full_range,
        bit_depth,
        subsampling,
        chroma_location,
        out_y,
        out_u,
        out_v,
        threads_of(op, threads),
        stream,
    )
