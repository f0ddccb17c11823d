"""Fixtures every test may use."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray

from fastvid import _core

# The same examples on every run; `--hypothesis-profile=default` looks for new ones.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")

_ROOT = Path(__file__).resolve().parent.parent

MakeClip = Callable[..., Path]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real clips, photos and weights; skips where it is absent."""
    folder = Path(os.environ.get("FASTVID_TEST_DATA", _ROOT.parent / "shared" / "data"))
    if not (folder / "clips").is_dir():
        pytest.skip(f"real clips are not at {folder}; set FASTVID_TEST_DATA to their folder")
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20260807)


@pytest.fixture(params=["baseline", "avx2", "avx512"])
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test once per instruction set this machine has, with the ops forced to it."""
    if request.param not in _core.cpu_isas():
        pytest.skip(f"this machine does not run {request.param}")
    _core._force_isa(request.param)
    yield request.param
    _core._force_isa(None)


@pytest.fixture
def each_isa() -> Iterator[Callable[[Callable[[], object]], dict[str, object]]]:
    """A function that calls another once per instruction set and returns the results by name."""

    def run(function: Callable[[], object]) -> dict[str, object]:
        results = {}
        for name in _core.cpu_isas():
            _core._force_isa(name)
            results[name] = function()
        return results

    yield run
    _core._force_isa(None)


@pytest.fixture
def run_node() -> Callable[..., Any]:
    """Runs one node of the ONNX domain `fastvid` in onnxruntime on the CPU.

    Gives its output, or a list of them with `outputs` above 1.
    """
    ort = pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")

    def run(
        op_type: str,
        *inputs: NDArray[Any] | None,
        threads: int = 2,
        outputs: int = 1,
        **attributes: int,
    ) -> Any:
        helper = onnx.helper
        given = {f"in{i}": array for i, array in enumerate(inputs) if array is not None}
        names = [f"in{i}" if array is not None else "" for i, array in enumerate(inputs)]
        values = [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim
            )
            for name, array in given.items()
        ]
        results = [f"out{i}" for i in range(outputs)]
        node = helper.make_node(op_type, names, results, domain="fastvid", **attributes)
        graph = helper.make_graph(
            [node], "one", values, [onnx.ValueInfoProto(name=name) for name in results]
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("fastvid", 1)]
        )
        model.ir_version = 9
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.register_custom_ops_library(_core.__file__)
        session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        found = session.run(None, given)
        return found[0] if outputs == 1 else found

    return run


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
