"""Codecs that PyAV brings, and those of the hardware that it could use."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastvid.devices import cuda_driver
from fastvid.doctor._check import ABSENT, OK, PROBLEM, Check
from fastvid.errors import MediaError

_DECODERS = ("h264", "hevc", "av1", "vp9", "ffv1", "prores")
_ENCODERS = ("libx264", "libx265", "libsvtav1", "ffv1")
_NVIDIA = ("h264_cuvid", "hevc_cuvid", "av1_cuvid"), ("h264_nvenc", "hevc_nvenc", "av1_nvenc")


def video() -> Iterator[Check]:
    """PyAV, the codecs fastvid reads and writes with, and the hardware's."""
    try:
        av: Any = importlib.import_module("av")
    except ImportError as error:
        hint = "pip install --force-reinstall av"
        yield Check("video", "PyAV", PROBLEM, str(error), hint, MediaError.exit_code)
        return
    ffmpeg = getattr(av, "ffmpeg_version_info", "unknown")
    yield Check("video", "PyAV", OK, f"{av.__version__} with FFmpeg {ffmpeg}")
    for name, mode, codecs in (("reads", "r", _DECODERS), ("writes", "w", _ENCODERS)):
        there = [codec for codec in codecs if has_codec(av, codec, mode)]
        missing = [codec for codec in codecs if codec not in there]
        yield Check("video", name, OK if there else PROBLEM, ", ".join(there) or "none")
        if missing:
            hint = "files of these end with exit code 4; pip install --force-reinstall av"
            yield Check("video", name, ABSENT, ", ".join(missing), hint)
    yield _hardware(av)


def _hardware(av: Any) -> Check:
    """What the FFmpeg inside PyAV could use here; fastvid itself decodes and encodes on the CPU."""
    built = [
        codec
        for mode, codecs in zip("rw", _NVIDIA, strict=True)
        for codec in codecs
        if has_codec(av, codec, mode)
    ]
    detail = f"not used; PyAV is built with {', '.join(built) or 'none of NVIDIA'}"
    if not cuda_driver().devices:
        return Check("video", "hardware", ABSENT, f"{detail}, and there is no CUDA device")
    if Path("/etc/nv_tegra_release").exists():
        hint = "Jetson's engines take GStreamer: pipe raw frames through it, see docs/jetson.md"
        return Check("video", "hardware", ABSENT, detail, hint)
    hint = "where encoding is the slowest step of `fastvid run`: --effort fast, --codec h264"
    return Check("video", "hardware", ABSENT, detail, hint)


def has_codec(av: Any, name: str, mode: str) -> bool:
    """Whether PyAV has a decoder (`r`) or an encoder (`w`) of that name."""
    try:
        av.codec.Codec(name, mode)
    except Exception:
        return False
    return True
