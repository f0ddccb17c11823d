"""Small clips made on the spot with PyAV, and what other tools say about a file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

MakeClip = Callable[..., Path]


def picture(number: int, width: int, height: int) -> np.ndarray:
    """A smooth picture whose four corners differ and which changes with `number`."""
    y, x = np.mgrid[0:height, 0:width]
    red = 255 * x / max(1, width - 1)
    green = 255 * y / max(1, height - 1)
    blue = np.full_like(red, (40 * number) % 256)
    return np.stack([red, green, blue], -1).round().astype(np.uint8)


def _add_audio(container: Any, codec: str, seconds: float) -> Any:
    stream = container.add_stream(codec, rate=48000)
    stream.layout = "mono"

    def encode() -> None:
        rng = np.random.default_rng(5)
        size = stream.codec_context.frame_size or 1024
        for start in range(0, int(seconds * 48000), size):
            samples = rng.integers(-9000, 9000, (1, size)).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate, frame.pts = 48000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))

    return encode


@pytest.fixture
def make_clip(tmp_path: Path) -> MakeClip:
    """Makes a clip of `picture`s; see the arguments of the inner function."""

    def make(
        name: str,
        *,
        frames: int = 8,
        size: tuple[int, int] = (64, 48),
        fps: Fraction | int = 25,
        codec: str = "libx264",
        pix_fmt: str = "yuv420p",
        pts: Sequence[int] | None = None,
        time_base: Fraction | None = None,
        audio: str | None = None,
        audio_seconds: float = 0.4,
        rotation: int | None = None,
        format: str | None = None,
        colour: dict[str, int] | None = None,
        aspect: Fraction | None = None,
        options: dict[str, str] | None = None,
        container_options: dict[str, str] | None = None,
    ) -> Path:
        path = tmp_path / name
        container = av.open(str(path), "w", format=format, container_options=container_options)
        quality = {"crf": "4"} if codec == "libx264" else {}
        stream = container.add_stream(codec, rate=fps, options={**quality, **(options or {})})
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        unit = time_base or 1 / Fraction(fps)
        stream.time_base = stream.codec_context.time_base = unit
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        for key, value in (colour or {}).items():
            setattr(stream.codec_context, key, value)
        if rotation is not None:
            stream.set_display_rotation(rotation)
        encode_audio = _add_audio(container, audio, audio_seconds) if audio else None
        stamps = list(pts if pts is not None else range(frames))
        gaps = [b - a for a, b in pairwise(stamps)] + [1]
        gaps[-1] = gaps[-2] if len(gaps) > 1 else max(1, round(Fraction(1, fps) / unit))
        durations = dict(zip(stamps, gaps, strict=True))
        for number, stamp in enumerate(stamps):
            image = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24")
            frame = image.reformat(format=pix_fmt, dst_colorspace=5)
            frame.pts, frame.time_base = stamp, unit
            for key, value in (colour or {}).items():
                setattr(frame, key, value)
            for packet in stream.encode(frame):
                packet.duration = durations.get(packet.pts, 1)
                container.mux(packet)
        for packet in stream.encode(None):
            packet.duration = durations.get(packet.pts, 1)
            container.mux(packet)
        if encode_audio is not None:
            encode_audio()
        container.close()
        return path

    return make


@pytest.fixture
def packet_hashes() -> Callable[[Path, str], list[list[str]]]:
    """Hashes of all packets of each track of one kind ("audio", "subtitle")."""

    def hashes(path: Path, kind: str) -> list[list[str]]:
        tracks = []
        with av.open(str(path)) as container:
            count = len([stream for stream in container.streams if stream.type == kind])
        for number in range(count):
            with av.open(str(path)) as container:
                stream = [stream for stream in container.streams if stream.type == kind][number]
                packets = [bytes(packet) for packet in container.demux(stream) if packet.size]
            tracks.append([hashlib.sha256(packet).hexdigest() for packet in packets])
        return tracks

    return hashes


@pytest.fixture
def no_leftovers(tmp_path: Path) -> Callable[..., None]:
    """Checks that a folder holds exactly the named files."""

    def check(*names: str, folder: Path = tmp_path) -> None:
        assert sorted(entry.name for entry in folder.iterdir()) == sorted(names)

    return check
