"""Fixtures every test may use."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from fastvid import _core

# The same examples on every run; `--hypothesis-profile=default` looks for new ones.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")

_ROOT = Path(__file__).resolve().parent.parent

MakeClip = Callable[..., Path]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-skips",
        metavar="EXCEPT",
        nargs="?",
        const="(?!)",
        help="a skipped test fails, unless its reason matches this expression",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report = yield
    allowed = item.config.getoption("--no-skips")
    if allowed is not None and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not re.search(allowed, reason):
            report.outcome, report.longrepr = "failed", f"skipped, which is not allowed: {reason}"
    return report


@pytest.fixture(autouse=True, scope="session")
def _no_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps the cache and the keys of whoever runs the tests out of them."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setenv("XDG_DATA_HOME", str(folder / "data"))
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks tests of custom ops in onnxruntime, and skips what needs a device that is absent."""
    no_cuda = _no_cuda()
    for item in items:
        if "run_node" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.onnxruntime)
        if no_cuda and item.get_closest_marker("cuda"):
            item.add_marker(pytest.mark.skip(reason=no_cuda))


def _no_cuda() -> str:
    """Why no test can use a CUDA device; empty where one can."""
    if not _core.cuda_compiled():
        return "this build of fastvid has no CUDA kernels"
    from fastvid.devices import cuda_driver

    driver = cuda_driver()
    return "" if driver.devices else "there is no CUDA device"


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
    """A function that calls another once per instruction set and returns the results by name.

    Not `avx512_bf16`, which is `avx512` for all ops but two.
    """

    def run(function: Callable[[], object]) -> dict[str, object]:
        results = {}
        for name in _core.cpu_isas():
            if name == "avx512_bf16":
                continue
            _core._force_isa(name)
            results[name] = function()
        return results

    yield run
    _core._force_isa(None)


@pytest.fixture
def run_node() -> Callable[..., Any]:
    """`nodes.run_node`: runs one node of the ONNX domain `fastvid` in onnxruntime."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    from nodes import run_node

    return run_node


def picture(number: int, width: int, height: int) -> np.ndarray:
    """A smooth picture whose four corners differ and which changes with `number`."""
    y, x = np.mgrid[0:height, 0:width]
    red = 255 * x / max(1, width - 1)
    green = 255 * y / max(1, height - 1)
    blue = np.full_like(red, (40 * number) % 256)
    return np.stack([red, green, blue], -1).round().astype(np.uint8)


def _add_audio(container: Any, codec: str, seconds: float) -> Any:
    import av

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
        import av

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
