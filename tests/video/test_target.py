"""Output appears complete under its name, or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fastvid.errors import InputError, OutputError
from fastvid.video import Video

FRAMES = np.zeros((3, 48, 64, 3), np.uint8)


@pytest.fixture
def video() -> Video:
    return Video.from_frames(FRAMES, 25)


def test_output_is_not_replaced_without_overwrite(video: Video, tmp_path: Path, no_leftovers):
    (tmp_path / "a.mp4").write_text("precious")
    with pytest.raises(OutputError, match=r"exists.*overwrite=True"):
        video.save(tmp_path / "a.mp4")
    assert (tmp_path / "a.mp4").read_text() == "precious"
    video.save(tmp_path / "a.mp4", overwrite=True)
    assert Video.open(tmp_path / "a.mp4").num_frames == 3
    no_leftovers("a.mp4")


@pytest.mark.parametrize("link", [None, "symlink", "hardlink"])
def test_input_is_never_the_output(make_clip, tmp_path: Path, link: str | None):
    source = make_clip("a.mp4")
    before = source.read_bytes()
    target = tmp_path / "b.mp4" if link else source
    if link == "symlink":
        target.symlink_to(source)
    elif link == "hardlink":
        os.link(source, target)
    with pytest.raises(OutputError, match="same file"):
        Video.open(source).save(target, overwrite=True)
    assert source.read_bytes() == before


def test_folder_must_exist(video: Video, tmp_path: Path):
    with pytest.raises(OutputError, match="create the folder"):
        video.save(tmp_path / "none" / "a.mp4")
    assert not (tmp_path / "none").exists()


def test_folder_in_the_way_is_refused(video: Video, tmp_path: Path):
    (tmp_path / "a.mp4").mkdir()
    with pytest.raises(OutputError, match="regular file"):
        video.save(tmp_path / "a.mp4", overwrite=True)


def test_device_is_no_output(video: Video):
    with pytest.raises(OutputError):
        video.save("/dev/full", overwrite=True)


def test_folder_with_other_files_is_not_replaced(video: Video, tmp_path: Path):
    folder = tmp_path / "frames"
    video.save(folder)
    video.save(folder, overwrite=True)
    (folder / "notes.txt").write_text("precious")
    with pytest.raises(OutputError, match=r"notes\.txt"):
        video.save(folder, overwrite=True)
    assert (folder / "notes.txt").read_text() == "precious"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission(video: Video, tmp_path: Path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="Permission"):
        video.save(tmp_path / "a.mp4")


def test_output_path_is_checked(video: Video):
    for path in (3, None, b"a.mp4"):
        with pytest.raises(InputError, match="output path"):
            video.save(path)  # type: ignore[arg-type]


def test_failed_stage_leaves_nothing(video: Video, tmp_path: Path, no_leftovers):
    class Broken:
        name = "broken"

        def transform(self, info):
            return info

        def process(self, frames, info):
            yield next(frames)
            raise RuntimeError("stage failed")

    (tmp_path / "a.mp4").write_text("precious")
    with pytest.raises(RuntimeError, match="stage failed"):
        video.through(Broken()).save(tmp_path / "a.mp4", overwrite=True)
    assert (tmp_path / "a.mp4").read_text() == "precious"
    no_leftovers("a.mp4")


_FULL_DISK = """
import resource, sys
import numpy as np
from fastvid.errors import DiskFullError
from fastvid.video import Video

path, limit, codec = sys.argv[1], int(sys.argv[2]), sys.argv[3] or None
noise = np.random.default_rng(0).integers(0, 256, (12, 96, 128, 3)).astype(np.uint8)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    Video.from_frames(noise, 25).save(path, codec=codec)
except DiskFullError as error:
    print("disk full", error.exit_code)
"""


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", ""), ("a.mkv", ""), ("a.ts", ""), ("a.mkv", "lossless"), ("a.y4m", ""), ("a", "")],
)
def test_full_disk_leaves_nothing(tmp_path: Path, name: str, codec: str, no_leftovers):
    noise = np.random.default_rng(0).integers(0, 256, (12, 96, 128, 3)).astype(np.uint8)
    whole = tmp_path / "whole"
    whole.mkdir()
    Video.from_frames(noise, 25).save(whole / f"x{name}", codec=codec or None)
    written = whole / f"x{name}"
    size = (written / "000000.png" if written.is_dir() else written).stat().st_size
    target = tmp_path / "target"
    target.mkdir()
    for limit in (100, size // 2, size - 1):
        run = subprocess.run(
            [sys.executable, "-c", _FULL_DISK, str(target / name), str(limit), codec],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert run.stdout.split("\n")[-2:] == ["disk full 7", ""], (limit, run.stdout, run.stderr)
        assert run.returncode == 0
        no_leftovers(folder=target)
