"""Small models, a small clip, and the command line as a function."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import bundles
import pytest

from fastvid.cli import main
from fastvid.scene import Scene
from fastvid.video import Video

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    bundles.upscaler(folder / "up")
    bundles.upscaler(folder / "up3", scale=3)
    bundles.upscaler(folder / "up1", scale=1)
    bundles.interpolator(folder / "ip")
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight frames of 64x64 at 10 frames per second."""
    path = tmp_path_factory.mktemp("clips") / "clip.mkv"
    scene = Scene(64, 64, seed=1)
    Video.from_frames([scene.draw(k / 40) for k in range(8)], 10).save(path)
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line in this process: exit code, standard output, standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def facts() -> Callable[[Path], tuple[int, int, Fraction, int]]:
    """Width, height, frame rate and number of frames of a file, as PyAV decodes it."""

    def read(path: Path) -> tuple[int, int, Fraction, int]:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            count = sum(1 for _ in container.decode(stream))
            rate = Fraction(stream.average_rate or 0)
            return stream.codec_context.width, stream.codec_context.height, rate, count

    return read
