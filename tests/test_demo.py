"""The drawn scene, the metrics, the resampling, and the demo that is made of them."""

from __future__ import annotations

import json
import math
import struct
import zlib
from pathlib import Path

import av
import bundles
import numpy as np
import pytest

from fastvid import demo
from fastvid._font import text_mask
from fastvid._resample import resize_bicubic, sample_axis
from fastvid._sheet import sheet, write_png
from fastvid.bundle import shipped
from fastvid.cli import main
from fastvid.errors import InputError, InputTypeError, OutputError
from fastvid.metrics import psnr, ssim
from fastvid.scene import Scene


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    bundles.upscaler(folder / "up")
    bundles.interpolator(folder / "ip")
    return {"interpolator": folder / "ip", "upscaler": folder / "up"}


# Scene


def test_scene_follows_from_seed_and_time_alone() -> None:
    first, second = Scene(160, 96, seed=4), Scene(160, 96, seed=4)
    second.draw(1.0)
    np.testing.assert_array_equal(first.draw(0.25), second.draw(0.25))
    assert not np.array_equal(first.draw(0.25), Scene(160, 96, seed=5).draw(0.25))


@pytest.mark.parametrize("seed", range(3))
def test_scene_moves_steadily(seed: int) -> None:
    scene = Scene(160, 96, seed=seed)
    frames = [scene.draw(0.3 + k / 60).astype(float) for k in range(4)]
    near, _, far = (np.abs(f - frames[0]).mean() for f in frames[1:])
    assert 0 < near < far


def test_scene_has_detail_and_uses_the_range() -> None:
    frame = Scene(320, 180, seed=0).draw(0.0)
    assert frame.shape == (180, 320, 3)
    assert frame.dtype == np.uint8
    assert frame.std() > 30
    assert np.abs(np.diff(frame.astype(int), axis=1)).mean() > 3


@pytest.mark.parametrize("size", [(63, 64), (64, 4097), (0, 0)])
def test_scene_refuses_sizes(size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="64x64 to 4096x4096"):
        Scene(*size)


# Metrics


def test_psnr_follows_its_formula() -> None:
    truth = np.zeros((4, 5, 3), np.uint8)
    assert psnr(truth + 5, truth) == pytest.approx(10 * math.log10(255**2 / 25))
    assert psnr(truth, truth) == math.inf
    assert psnr(truth + 0.5, truth.astype(float), peak=1.0) == pytest.approx(6.0206, abs=1e-4)
    # Differences of unsigned numbers do not wrap.
    assert psnr(truth, truth + 5) == psnr(truth + 5, truth)


def test_ssim_is_one_for_equal_and_small_for_unrelated_pictures(rng: np.random.Generator) -> None:
    picture = rng.integers(0, 256, (24, 30, 3), dtype=np.uint8)
    other = rng.integers(0, 256, (24, 30, 3), dtype=np.uint8)
    assert ssim(picture, picture) == pytest.approx(1.0)
    assert abs(ssim(picture, other)) < 0.2


def test_ssim_follows_its_formula(rng: np.random.Generator) -> None:
    first, second = rng.uniform(0, 255, (2, 11, 11))
    offsets = np.arange(11) - 5
    weights = np.exp(-(offsets[:, None] ** 2 + offsets[None, :] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    m0, m1 = (weights * first).sum(), (weights * second).sum()
    v0, v1 = (weights * (first - m0) ** 2).sum(), (weights * (second - m1) ** 2).sum()
    c = (weights * (first - m0) * (second - m1)).sum()
    k0, k1 = 2.55**2, 7.65**2
    expected = (2 * m0 * m1 + k0) * (2 * c + k1) / ((m0**2 + m1**2 + k0) * (v0 + v1 + k1))
    assert ssim(first, second) == pytest.approx(expected)


def test_metrics_refuse_what_cannot_be_compared() -> None:
    picture = np.zeros((12, 12), np.uint8)
    with pytest.raises(InputError, match="shape of image"):
        psnr(picture, picture[:11])
    with pytest.raises(InputError, match="finite"):
        psnr(np.full((12, 12), np.nan), picture.astype(float))
    with pytest.raises(InputError, match="finite"):
        psnr(picture[:0], picture[:0])
    with pytest.raises(InputTypeError, match="list"):
        psnr([[0]], picture)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=">= 11"):
        ssim(picture[:10], picture[:10])


# Resampling


def test_cubic_sampling_reproduces_quadratics() -> None:
    x = np.arange(20, dtype=np.float32)
    positions = np.linspace(3, 15, 37)
    result = sample_axis(0.5 * x * x - 3 * x + 1, positions, 0)
    np.testing.assert_allclose(result, 0.5 * positions**2 - 3 * positions + 1, atol=1e-4)


def test_wrapped_sampling_continues_on_the_other_side(rng: np.random.Generator) -> None:
    row = rng.uniform(0, 1, 16).astype(np.float32)
    positions = np.array([-0.7, 3.2, 15.6])
    near = sample_axis(row, positions, 0, edge="wrap")
    np.testing.assert_allclose(near, sample_axis(row, positions + 16, 0, edge="wrap"), atol=1e-6)


def test_resizing_keeps_constants_and_mirrors_with_the_picture(rng: np.random.Generator) -> None:
    flat = np.full((9, 14, 3), 77, np.uint8)
    assert (resize_bicubic(flat, 18, 28) == 77).all()
    assert (resize_bicubic(flat, 4, 7) == 77).all()
    picture = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    for size in ((24, 32), (6, 8)):
        flipped = resize_bicubic(picture[::-1, ::-1], *size)
        np.testing.assert_array_equal(flipped[::-1, ::-1], resize_bicubic(picture, *size))


def test_reduction_filters_what_the_small_grid_cannot_hold() -> None:
    stripes = np.zeros((8, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    reduced = resize_bicubic(stripes, 4, 32)[:, 4:-4]
    assert np.ptp(reduced.astype(int)) <= 2
    assert abs(reduced.mean() - 127.5) < 1.5


# Sheets


def test_letters_are_drawn() -> None:
    assert ["".join(".#"[int(dot)] for dot in row) for row in text_mask("T")] == [
        "#####.",
        *["..#..."] * 6,
    ]
    assert text_mask("60 FPS", 3).shape == (21, 108)


def test_sheet_places_pictures_two_by_two() -> None:
    pictures = [np.full((40, 80, 3), value, np.uint8) for value in (10, 20, 30, 40)]
    result = sheet(pictures, ("A", "B", "C", "D"))
    assert result.shape == (80, 160, 3)
    corners = [result[39, 79], result[39, 159], result[79, 79], result[79, 159]]
    assert [int(corner[0]) for corner in corners] == [10, 20, 30, 40]
    assert (result[:20, :20] == 255).any()


@pytest.mark.parametrize("smooth", [False, True])
def test_png_holds_the_picture(tmp_path: Path, rng: np.random.Generator, smooth: bool) -> None:
    picture = rng.integers(0, 256, (13, 17, 3), dtype=np.uint8)
    if smooth:
        # Rows that follow from those above, which another filter stores smaller.
        picture = np.cumsum(np.repeat(picture[:1], 13, axis=0), axis=0, dtype=np.uint8)
    write_png(tmp_path / "p.png", picture, overwrite=False)
    with av.open(str(tmp_path / "p.png")) as container:
        (frame,) = container.decode(video=0)
    np.testing.assert_array_equal(frame.to_ndarray(format="rgb24"), picture)
    data = (tmp_path / "p.png").read_bytes()
    assert struct.unpack(">I", data[29:33])[0] == zlib.crc32(data[12:29])
    with pytest.raises(OutputError, match="exists"):
        write_png(tmp_path / "p.png", picture, overwrite=False)


# Demo


def test_demo_measures_both_tasks_and_writes_the_comparison(
    models: dict[str, Path], tmp_path: Path
) -> None:
    result = demo.run(
        tmp_path / "demo.mp4",
        size=(192, 128),
        seconds=0.2,
        seed=3,
        picture=tmp_path / "demo.png",
        device="cpu",
        **models,
    )
    assert result.frames == 11
    with av.open(str(tmp_path / "demo.mp4")) as container:
        stream = container.streams.video[0]
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert stream.average_rate == 60
    assert len(pictures) == 11
    # The last panel is the truth.
    truth = Scene(192, 128, seed=3).draw(5 / 60)
    panel = pictures[5][128:, 192:]
    assert psnr(panel[30:], truth[30:]) > 24
    # The model of this test is frame averaging itself, up to the rounding of halves.
    time = result.psnr["time"]
    assert time["fastvid"] == pytest.approx(time["peer"], abs=0.1)
    assert set(result.psnr) == {"time", "space", "both"}
    assert set(result.milliseconds) == {"interpolate", "upscale"}
    assert (tmp_path / "demo.png").stat().st_size > 1000


def test_demo_draws_from_a_text_where_a_generator_is(
    models: dict[str, Path], tmp_path: Path
) -> None:
    pytest.importorskip("tokenizers")
    import generators

    longer = generators.GENERATION | {"max_prompt_tokens": 16}
    generators.bundle(tmp_path / "generator", generation=longer)
    options = {**models, "generator": tmp_path / "generator", "size": (128, 128), "seconds": 0.1}
    with pytest.warns(UserWarning, match="does not know"):
        result = demo.run(tmp_path / "demo.mp4", device="cpu", **options)
    assert result.chain is not None
    # Nine frames, four times as many; 24x16, four times the size.
    assert (result.chain.frames, result.chain.size, result.chain.fps) == (36, (96, 64), 32)
    assert 0 < result.chain.first_frame_seconds < result.chain.seconds
    with av.open(str(tmp_path / "demo-from-text.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 36
    assert "from text: " in result.to_text()
    (tmp_path / "demo.mp4").unlink()
    with pytest.raises(OutputError, match="demo-from-text"):
        demo.run(tmp_path / "demo.mp4", device="cpu", **options)
    assert not (tmp_path / "demo.mp4").exists()


def test_demo_figures_repeat(models: dict[str, Path], tmp_path: Path) -> None:
    results = [
        demo.run(tmp_path / f"{k}.mp4", size=(128, 128), seconds=0.1, device="cpu", **models)
        for k in range(2)
    ]
    assert results[0].psnr == results[1].psnr


def test_demo_command_prints_the_table_or_json(
    models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["demo", "-o", str(tmp_path / "d.mp4"), "--size", "128x128", "--seconds", "0.1"]
    arguments += ["--interpolate-model", str(models["interpolator"])]
    arguments += ["--upscale-model", str(models["upscaler"])]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    for word in ("frame averaging", "bicubic", "dB", "milliseconds", "d.mp4"):
        assert word in out
    assert main(arguments) == 7
    capsys.readouterr()
    assert main([*arguments, "--overwrite", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["size"] == [128, 128]
    assert result["psnr"]["space"]["peer"] > 15


def test_demo_refuses_an_existing_picture_before_work(
    models: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "p.png").write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists"):
        demo.run(tmp_path / "d.mp4", picture=tmp_path / "p.png", device="cpu", **models)
    assert [p.name for p in tmp_path.iterdir()] == ["p.png"]


def test_demo_refuses_a_picture_that_is_no_png_before_work(
    models: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(OutputError, match=r"must be a \.png file"):
        demo.run(tmp_path / "d.mp4", picture=tmp_path / "p.jpg", device="cpu", **models)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["640", "640x", "x360", "641x360", "64x64", "4000x2000", "-4x8"])
def test_demo_sizes_are_checked(text: str) -> None:
    with pytest.raises(InputError, match="multiples of 4"):
        demo.parse_size(text)


@pytest.mark.skipif(
    not {"upscaler-fast-x2", "interpolator-fast"} <= set(shipped()),
    reason="the trained models are not installed",
)
def test_trained_models_beat_their_peers_in_the_demo(tmp_path: Path) -> None:
    result = demo.run(tmp_path / "d.mp4", seconds=0.15, device="cpu")
    for task, figures in result.psnr.items():
        assert figures["fastvid"] > figures["peer"] + 0.5, task
