"""Decoded pictures to RGB and RGB to pictures to encode: colour tags, planes, orientation.

Rules where a file does not say: `Colour` states the one for matrix and range; chroma samples lie
left of the picture samples (MPEG-2 siting) except in JPEG, MPEG-1 and y4m files tagged `jpeg`,
where they lie in the centre.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastvid.errors import UnsupportedMediaError
from fastvid.video.types import Colour, RgbImage

if TYPE_CHECKING:
    from av import VideoFrame

_MATRIX = {0: "rgb", 1: "bt709", 5: "bt470bg", 6: "smpte170m", 9: "bt2020nc"}
_PRIMARIES = {
    1: "bt709", 4: "bt470m", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "film",
    9: "bt2020", 10: "smpte428", 11: "smpte431", 12: "smpte432", 22: "jedec-p22",
}  # fmt: skip
_TRANSFER = {
    1: "bt709", 4: "bt470m", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "linear",
    9: "log100", 10: "log316", 11: "iec61966-2-4", 12: "bt1361e", 13: "iec61966-2-1",
    14: "bt2020-10", 15: "bt2020-12", 16: "smpte2084", 17: "smpte428", 18: "arib-std-b67",
}  # fmt: skip
_UNSUPPORTED_MATRIX = {
    4: "fcc", 7: "smpte240m", 8: "ycgco", 10: "bt2020c", 11: "smpte2085",
    12: "chroma-derived-nc", 13: "chroma-derived-c", 14: "ictcp", 15: "ipt-c2",
    16: "ycgco-re", 17: "ycgco-ro",
}  # fmt: skip
HDR = {"smpte2084": "HDR (PQ transfer)", "arib-std-b67": "HDR (HLG transfer)"}
"""Transfer functions of HDR, with what to call them."""
_UNSPECIFIED = 2
_FULL_RANGE = 2
_ALPHA = ("rgba", "bgra", "argb", "abgr", "yuva", "gbrap", "ya8", "ya16", "ayuv", "vuya", "pal8")

# Pixel formats the compiled ops read and write, as (subsampling, bits).
_PLANAR = {
    f"yuv{j}{s}p{tail}": (s, bits)
    for s in ("420", "422", "444")
    for j, tail, bits in (("", "", 8), ("j", "", 8), ("", "10le", 10))
}


def codes(colour: Colour) -> dict[str, int]:
    """The attributes of an encoder or a frame that carry `colour`, with FFmpeg's numbers."""

    def code(names: dict[int, str], name: str) -> int:
        return next((number for number, text in names.items() if text == name), _UNSPECIFIED)

    return {
        "colorspace": code(_MATRIX, colour.matrix),
        "color_primaries": code(_PRIMARIES, colour.primaries),
        "color_trc": code(_TRANSFER, colour.transfer),
        "color_range": _FULL_RANGE if colour.full_range else 1,
    }


def is_rgb(pixel_format: str) -> bool:
    """Whether pictures of this FFmpeg pixel format are stored as red, green and blue."""
    return pixel_format.startswith(("rgb", "bgr", "gbr", "argb", "abgr", "0rgb", "0bgr", "pal8"))


def is_grey(pixel_format: str) -> bool:
    """Whether pictures of this FFmpeg pixel format have luma only."""
    return pixel_format.startswith(("gray", "mono", "ya"))


def colour_of(frame: VideoFrame, path: str) -> Colour:
    """The colour tags of a decoded frame, completed by the rules of `Colour`.

    Raises:
        UnsupportedMediaError: The frame is Dolby Vision or uses a matrix fastvid does not convert.
    """
    transfer = _TRANSFER.get(int(frame.color_trc), "unspecified")
    if any(name.startswith("DOVI") for name in side_data(frame)):
        raise UnsupportedMediaError(
            f"{path}: video must be SDR, HDR10 or HLG, got Dolby Vision, whose metadata for each "
            "frame would be lost",
            hint="convert it to HDR10 or SDR first",
        )
    primaries = _PRIMARIES.get(int(frame.color_primaries), "unspecified")
    if is_rgb(frame.format.name):
        return Colour()
    number = int(frame.colorspace)
    if number in _UNSUPPORTED_MATRIX:
        raise UnsupportedMediaError(
            f"{path}: colour matrix must be one of bt709, smpte170m, bt470bg, bt2020nc, "
            f"got {_UNSUPPORTED_MATRIX[number]}"
        )
    matrix = _MATRIX.get(number, "")
    if matrix in ("", "rgb"):
        matrix = Colour.default_matrix(frame.width, frame.height)
    name, tag = frame.format.name, int(frame.color_range)
    # FFmpeg takes untagged grey for full range, as images have it.
    full = tag == _FULL_RANGE or name.startswith("yuvj") or (tag == 0 and is_grey(name))
    return Colour(matrix, primaries, transfer, full)


def check_pixels(frame: VideoFrame, path: str, *, bit_depth: int | None, alpha: str) -> None:
    """Refuses what would lose something in RGB, of 8 bits a sample with `bit_depth=8`.

    Raises:
        UnsupportedMediaError: The frame is interlaced, HDR with 8 bits, or has a transparent pixel
            without `alpha="drop"`.
    """
    if frame.interlaced_frame:
        raise UnsupportedMediaError(
            f"{path}: video must be progressive, got interlaced",
            hint="deinterlace it first, for example with ffmpeg -vf bwdif",
        )
    hdr = HDR.get(_TRANSFER.get(int(frame.color_trc), ""))
    if hdr is not None and (bit_depth == 8 or bits_of(frame) == 8):
        raise UnsupportedMediaError(
            f"{path}: video must be standard dynamic range to be processed with 8 bits, got {hdr}",
            hint="leave bit_depth=8 (--to-8bit) out, or tone-map it to SDR BT.709 first",
        )
    if alpha == "refuse" and frame.format.name.startswith(_ALPHA):
        pixels = frame.reformat(format="rgba").to_ndarray()
        if (pixels[..., 3] != 255).any():
            raise UnsupportedMediaError(
                f"{path}: video must be opaque, got transparent pixels ({frame.format.name})",
                hint='pass alpha="drop" to ignore transparency',
            )


def bits_of(frame: VideoFrame) -> int:
    """Bits of a sample of a decoded frame."""
    return max((part.bits for part in frame.format.components), default=8)


def plane(frame: VideoFrame, index: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Plane `index` of a frame as a (rows, columns) view of its memory."""
    source: Any = frame.planes[index]
    columns = source.line_size // np.dtype(dtype).itemsize
    rows: npt.NDArray[Any] = np.frombuffer(source, dtype, count=columns * source.height)
    return rows.reshape(source.height, columns)[:, : source.width]


def to_rgb(
    frame: VideoFrame, colour: Colour, chroma_location: str, *, wide: bool = False
) -> RgbImage:
    """A decoded frame as RGB, (H, W, 3), in the orientation in which it is stored.

    It is uint8, or with `wide` uint16.
    """
    from fastvid import ops

    if is_grey(frame.format.name):
        return _grey_rgb(frame, colour.full_range, wide)
    layout = _PLANAR.get(frame.format.name)
    if layout is None or any(part.line_size < 0 for part in frame.planes):
        return np.ascontiguousarray(_swscale_rgb(frame, colour, wide))
    subsampling, bits = layout
    dtype = np.uint16 if bits > 8 else np.uint8
    rgb: RgbImage = ops.yuv_to_rgb(
        *(plane(frame, index, dtype) for index in range(3)),
        matrix=colour.conversion,
        full_range=colour.full_range,
        bit_depth=bits,
        subsampling=subsampling,
        chroma_location=chroma_location,
        dtype="uint16" if wide else "uint8",
        threads=_threads(frame.width, frame.height),
    )
    return rgb


def _threads(width: int, height: int) -> int | None:
    # One thread converts 1080p faster than it decodes; more would take cores from the stages.
    return 1 if width * height <= 1920 * 1088 else None


def _grey_rgb(frame: VideoFrame, full_range: bool, wide: bool) -> RgbImage:
    top, dtype, name = (65535, np.uint16, "gray16le") if wide else (255, np.uint8, "gray")
    grey = plane(frame.reformat(format=name), 0, dtype)
    if not full_range:
        # swscale takes all grey for full range.
        step = (top + 1) // 256
        levels = (np.arange(top + 1) - 16 * step) * (top / (219 * step))
        grey = np.clip(np.rint(levels), 0, top).astype(dtype)[grey]
    return np.repeat(grey[:, :, None], 3, axis=2)


def _swscale_rgb(frame: VideoFrame, colour: Colour, wide: bool) -> RgbImage:
    # Formats that are neither planar 8 or 10 bit YUV nor grey: swscale knows their layouts.
    matrix = {"bt709": 1, "bt601": 5, "bt2020": 9}[colour.conversion]
    arguments: dict[str, Any] = {} if colour.matrix == "rgb" else {"src_colorspace": matrix}
    full = 2 if colour.full_range else 1
    rgb = frame.reformat(
        format="rgb48le" if wide else "rgb24",
        src_color_range=full,
        dst_color_range=2,
        interpolation=4,
        **arguments,
    )
    return plane_rgb(rgb)


def plane_rgb(frame: VideoFrame) -> RgbImage:
    """An `rgb24` or `rgb48le` frame as a (H, W, 3) view of its memory."""
    source: Any = frame.planes[0]
    dtype = np.dtype(np.uint8 if frame.format.name == "rgb24" else "<u2")
    columns = source.line_size // dtype.itemsize
    rows: RgbImage = np.frombuffer(source, dtype, count=columns * source.height)
    return rows.reshape(source.height, columns)[:, : 3 * source.width].reshape(
        source.height, source.width, 3
    )


def fill(frame: VideoFrame, image: RgbImage, colour: Colour) -> None:
    """Writes RGB (H, W, 3) into a frame to encode, whatever its pixel format."""
    name = frame.format.name
    if name in ("rgb24", "rgb48le"):
        plane_rgb(frame)[:] = image
        return
    if name == "bgr0":
        memory: Any = frame.planes[0]
        rows: RgbImage = np.frombuffer(memory, np.uint8).reshape(image.shape[0], -1)
        pixels = rows[:, : 4 * image.shape[1]].reshape(*image.shape[:2], 4)
        pixels[..., :3] = image[..., ::-1]
        return
    subsampling, bits = _PLANAR[name]
    dtype = np.uint16 if bits > 8 else np.uint8
    planes = tuple(plane(frame, index, dtype) for index in range(3))
    to_yuv(image, colour, subsampling, bit_depth=bits, out=planes)


def to_yuv(
    image: RgbImage,
    colour: Colour,
    subsampling: str,
    *,
    bit_depth: int = 8,
    out: tuple[npt.NDArray[Any], ...] | None = None,
) -> tuple[npt.NDArray[Any], ...]:
    """RGB (H, W, 3) as planes y, u, v with the tags of `colour`, chroma to the left."""
    from fastvid import ops

    planes: tuple[npt.NDArray[Any], ...] = ops.rgb_to_yuv(
        image,
        matrix=colour.conversion,
        full_range=colour.full_range,
        bit_depth=bit_depth,
        subsampling=subsampling,
        out=out,  # type: ignore[arg-type]
        threads=_threads(image.shape[1], image.shape[0]),
    )
    return planes


def orientation(frame: VideoFrame, path: str) -> tuple[int, bool]:
    """How a decoded frame must be turned to stand upright.

    Returns:
        Quarter turns counter-clockwise, as for `np.rot90`, and whether to mirror left and right
        before turning.

    Raises:
        UnsupportedMediaError: The display matrix is not a multiple of 90 degrees.
    """
    side = side_data(frame).get("DISPLAYMATRIX")
    if side is None:
        if frame.rotation % 90:
            raise UnsupportedMediaError(
                f"{path}: rotation must be a multiple of 90 degrees, got {frame.rotation}"
            )
        return frame.rotation // 90 % 4, False
    a, b, _, c, d = struct.unpack_from("=5i", side)
    signs = tuple((value > 1 << 14) - (value < -(1 << 14)) for value in (a, b, c, d))
    # A stored point (x, y) is shown at (a x + c y, b x + d y), y pointing down.
    turns = {
        (1, 0, 0, 1): (0, False),
        (0, 1, -1, 0): (3, False),
        (-1, 0, 0, -1): (2, False),
        (0, -1, 1, 0): (1, False),
        (-1, 0, 0, 1): (0, True),
        (1, 0, 0, -1): (2, True),
        (0, 1, 1, 0): (1, True),
        (0, -1, -1, 0): (3, True),
    }
    if signs not in turns:
        raise UnsupportedMediaError(
            f"{path}: rotation must be a multiple of 90 degrees, got display matrix {(a, b, c, d)}"
        )
    return turns[signs]


def side_data(frame: VideoFrame) -> dict[str, bytes]:
    """The side data of a frame by FFmpeg's names; empty where PyAV does not know a kind."""
    try:
        data: Any = frame.side_data
        return {side.type.name: bytes(side) for side in data}
    except ValueError:
        return {}


def turn(image: RgbImage, turns: int, mirror: bool) -> RgbImage:
    """`image` as `orientation` says it must be shown."""
    if mirror:
        image = image[:, ::-1]
    return np.ascontiguousarray(np.rot90(image, turns)) if turns or mirror else image
