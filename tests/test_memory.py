"""Memory plans: what they say against what runs take, and what they refuse."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bundles
import generators
import numpy as np
import pytest

from fastvid import _memory, cli
from fastvid._generation import memory as clips
from fastvid._memory_probe import reset_peak
from fastvid._tiles import fitting, spans
from fastvid.bundle import shipped
from fastvid.errors import InputError, OutOfMemoryError
from fastvid.generator import Generator
from fastvid.interpolator import Interpolator
from fastvid.upscaler import Upscaler

MIB = 1 << 20
needs_shipped = pytest.mark.skipif(len(shipped()) < 2, reason="the shipped models are not here")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds bundles that are measured once for all tests."""
    made = tmp_path_factory.mktemp("models")
    bundles.upscaler(made / "up-x2")
    bundles.interpolator(made / "blend")
    return made


@pytest.fixture
def upscaler(folder: Path) -> Iterator[Upscaler]:
    with Upscaler(folder / "up-x2", device="cpu") as model:
        yield model


@pytest.fixture
def interpolator(folder: Path) -> Iterator[Interpolator]:
    with Interpolator(folder / "blend", device="cpu") as model:
        yield model


def only_free(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(_memory, "available", lambda device: size)


# Plans


def test_plan_counts_at_least_the_arrays_of_a_frame(upscaler: Upscaler) -> None:
    plan = upscaler.plan(1000, 2000)
    # The graph turns the frame and the result into float32.
    assert plan.graphs["upscale"] >= 1000 * 2000 * 3 * 4 * 5
    assert plan.graphs["upscale"] <= 1000 * 2000 * 3 * 4 * 15
    assert (plan.height, plan.width, plan.device, plan.piece) == (1000, 2000, "cpu", None)
    assert plan.total == plan.graphs["upscale"] + plan.frames
    assert plan.frames == 4 * 3 * 1000 * 2000 * 5
    assert plan.fits == (plan.total * _memory.MARGIN <= plan.available)
    assert json.loads(json.dumps(plan.to_dict()))["fits"] == plan.fits
    assert "upscale: " in str(plan)


def test_plan_grows_with_the_frame(interpolator: Interpolator) -> None:
    small, large = interpolator.plan(500, 1000), interpolator.plan(1000, 2000)
    assert set(small.graphs) == {"motion", "between"}
    assert 3.5 < large.total / small.total < 4.5
    assert "pass whole" in str(large)


def test_plan_refuses_sizes_that_the_bundle_does(tmp_path: Path) -> None:
    with (
        Upscaler(bundles.upscaler(tmp_path / "m", maximum=64).path, device="cpu") as model,
        pytest.raises(InputError, match="64"),
    ):
        model.plan(65, 10)


def test_plan_that_does_not_fit_names_a_size_that_does(
    interpolator: Interpolator, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_free(monkeypatch, 64 * MIB)
    plan = interpolator.plan(2000, 4000)
    assert not plan.fits
    tall, wide = plan.largest
    assert 0 < tall < 2000
    assert wide == pytest.approx(2 * tall, abs=2)
    assert f"the largest that fits: {wide}x{tall}" in str(plan)
    assert sum(interpolator.plan(tall, wide).graphs.values()) * _memory.MARGIN < 64 * MIB


def test_plan_of_pieces_fits_where_the_whole_does_not(
    upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_free(monkeypatch, 100 * MIB)
    plan = upscaler.plan(2000, 4000)
    assert plan.piece is not None
    assert plan.graphs["upscale"] <= 100 * MIB
    assert "in pieces of" in str(plan)


def test_generator_plans_each_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generators.bundle(tmp_path / "gen")
    with Generator(tmp_path / "gen", device="cpu") as model:
        plan = model.plan()
        assert set(plan.graphs) == set(model.bundle.graphs)
        assert (plan.height, plan.width) == (16, 24)
        with pytest.raises(InputError):
            model.plan(height=17)
        monkeypatch.setattr(clips, "_MOST_PER_PIXEL", 1 << 50)
        only_free(monkeypatch, 1000)
        with pytest.raises(OutOfMemoryError, match="must fit into the memory of cpu"):
            model.generate("a red circle", seed=1)


def test_clips_are_planned_in_the_batches_that_they_run_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generators.bundle(tmp_path / "model")
    counts = []

    def at(meter: _memory.Meter, sizes: _memory.Sizes) -> dict[str, int]:
        counts.append(sizes["N"])
        return {"transformer": 1}

    monkeypatch.setattr(_memory.Meter, "at", at)
    with Generator(tmp_path / "model", device="cpu", threads=1) as model:
        for most in (clips.MOST_BATCHED, 0):
            monkeypatch.setattr(clips, "MOST_BATCHED", most)
            model.plan()
    half = len(counts) // 2
    assert (set(counts[:half]), set(counts[half:])) == ({2}, {1})


# Refusals before a run


def test_frames_that_cannot_fit_are_refused_before_anything_is_computed(
    interpolator: Interpolator, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_free(monkeypatch, 64 * MIB)
    monkeypatch.setattr(interpolator, "_graph", None)
    frame = np.zeros((2000, 4000, 3), np.uint8)
    with pytest.raises(OutOfMemoryError, match=r"4000x2000 need .* 64 MiB are free") as caught:
        interpolator.between(frame, frame)
    assert "fits" in caught.value.hint
    assert caught.value.exit_code == 6


def test_size_that_has_run_is_not_refused_for_the_memory_it_holds(
    interpolator: Interpolator, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = np.zeros((400, 400, 3), np.uint8)
    interpolator.between(frame, frame)
    only_free(monkeypatch, 0)
    interpolator.between(frame[:300], frame[:300])
    with pytest.raises(OutOfMemoryError):
        interpolator.between(*np.zeros((2, 2000, 4000, 3), np.uint8))


def test_pieces_are_chosen_by_what_is_free(
    upscaler: Upscaler, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_free(monkeypatch, 20 * MIB)
    frame = rng.integers(0, 256, (400, 900, 3), dtype=np.uint8)
    seen: list[tuple[int, ...]] = []
    run = upscaler._run
    monkeypatch.setattr(upscaler, "_run", lambda f: (seen.append(f.shape[:2]), run(f))[1])
    np.testing.assert_array_equal(upscaler.upscale_frame(frame), frame.repeat(2, 0).repeat(2, 1))
    assert len(seen) > 1
    assert all(sum(upscaler._memory.needed(*size).values()) < 20 * MIB for size in seen)


# Against the truth

_TRUTH = """
import sys, numpy as np
from fastvid import Interpolator, Upscaler
from fastvid._memory_probe import reset_peak
from fastvid.bench import probes
height, width = int(sys.argv[2]), int(sys.argv[3])
frames = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
with {"u": Upscaler, "i": Interpolator}[sys.argv[1]](device="cpu", threads=2) as model:
    run = {"u": lambda: model.upscale_frame(frames[0]), "i": lambda: model.between(*frames)}
    reset_peak()
    before = probes.peak_rss()
    for _ in range(3):
        run[sys.argv[1]]()
    print(probes.peak_rss() - before)
"""


@needs_shipped
@pytest.mark.slow
@pytest.mark.parametrize("task", ["u", "i"])
def test_plans_of_the_shipped_models_are_near_the_peak_of_a_process(task: str) -> None:
    if not reset_peak():
        pytest.skip("the system does not let processes reset their peak")
    with {"u": Upscaler, "i": Interpolator}[task](device="cpu", threads=2) as model:
        for height, width in ((360, 640), (720, 1280), (1080, 1920)):
            planned = sum(model.plan(height, width).graphs.values())
            command = [sys.executable, "-c", _TRUTH, task, str(height), str(width)]
            taken = int(subprocess.check_output(command, text=True))
            assert 0.8 < planned / taken < 1.35, (height, width, planned, taken)


def test_low_memory_computes_the_same(folder: Path, rng: np.random.Generator) -> None:
    frames = rng.integers(0, 256, (2, 30, 40, 3), dtype=np.uint8)
    with Upscaler(folder / "up-x2", device="cpu", low_memory=True) as model:
        for _ in range(3):
            result = model.upscale_frame(frames[0])
        np.testing.assert_array_equal(result, frames[0].repeat(2, 0).repeat(2, 1))
    with Interpolator(folder / "blend", device="cpu", low_memory=True) as model:
        between = model.between(*frames)
    with Interpolator(folder / "blend", device="cpu") as model:
        np.testing.assert_array_equal(model.between(*frames), between)


# Pieces


@pytest.mark.parametrize("length", [1, 2, 30, 64, 100, 331])
@pytest.mark.parametrize(
    ("size", "reach", "unit"), [(10, 3, 1), (24, 5, 4), (64, 20, 8), (9, 0, 3)]
)
def test_pieces_cover_a_side_and_see_as_far_as_they_must(
    length: int, size: int, reach: int, unit: int
) -> None:
    length = -(-length // unit) * unit
    found = spans(length, size, reach, unit)
    assert [s.begin for s in found] == [0, *(s.end for s in found[:-1])]
    assert found[-1].end == length
    for s in found:
        assert s.begin < s.end
        assert s.first % unit == 0
        assert s.last - s.first == found[0].last
        assert s.last <= length
        assert s.last - s.first <= max(size, unit)
        assert s.first == 0 or s.begin - s.first >= reach
        assert s.last == length or s.last - s.end >= reach


def test_piece_of_nothing_but_overlap_is_refused() -> None:
    with pytest.raises(InputError, match="at least 9"):
        spans(100, 8, 4, 1)


@pytest.mark.parametrize("pixels", [100, 500, 4000, 50_000])
def test_pieces_of_a_number_of_pixels(pixels: int) -> None:
    found = fitting(200, 300, pixels, 4, 2)
    if pixels == 100:
        assert found == (10, 10)
    assert found is not None
    assert found[0] * found[1] <= pixels
    assert fitting(200, 300, 80, 4, 2) is None


# The command line


def test_plan_option_says_what_it_needs_and_writes_nothing(
    folder: Path, tmp_path: Path, make_clip: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = make_clip("clip.mp4", frames=3)
    out = tmp_path / "out.mp4"
    models = [
        f"--interpolate-model={folder / 'blend'}",
        f"--upscale-model={folder / 'up-x2'}",
    ]
    chain = ["--interpolate", "2", "--upscale", "2", "--device", "cpu", "--plan"]
    assert cli.main(["run", str(clip), "-o", str(out), *chain, *models, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["fits"] is True
    assert [(p["height"], p["width"]) for p in answer["plans"]] == [(48, 64), (48, 64)]
    assert not out.exists()
    assert cli.main(["run", str(clip), "-o", str(out), *chain, *models]) == 0
    assert "fits: " in capsys.readouterr().out


def test_plan_option_tells_by_its_status_what_does_not_fit(
    folder: Path, make_clip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_free(monkeypatch, 0)
    clip = make_clip("clip.mp4", frames=3)
    model = str(folder / "up-x2")
    options = ["--device", "cpu", "--plan", "--quiet", "--tile", "none", "--model", model]
    assert cli.main(["upscale", str(clip), *options]) == 6


def test_plan_counts_the_last_of_several_passes(folder: Path) -> None:
    with Upscaler(folder / "up-x2", device="cpu", scale=4) as model:
        twice = model.plan(500, 600)
    with Upscaler(folder / "up-x2", device="cpu") as model:
        once = model.plan(1000, 1200)
    assert twice.graphs == once.graphs
    assert twice.piece is None
    assert "the last of 2 passes sees 1200x1000" in str(twice)


def test_memory_that_cannot_be_measured_stops_nothing(
    interpolator: Interpolator, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_free(monkeypatch, 0)
    _memory._measured.cache_clear()
    monkeypatch.setattr(sys, "executable", "/does/not/exist")
    frame = np.zeros((40, 40, 3), np.uint8)
    assert interpolator.between(frame, frame).shape == frame.shape
