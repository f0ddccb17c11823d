"""`python -m fastvid_export` trains the autoencoder, then the generator, resumes, and refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tokenizers")

from PIL import Image  # noqa: E402

from fastvid import Generator  # noqa: E402
from fastvid_export.__main__ import main  # noqa: E402
from fastvid_export.models.generator import (  # noqa: E402
    GeneratorNet,
    GeneratorOptions,
    condition_on,
)
from fastvid_export.training import checkpoint as ckpt  # noqa: E402
from fastvid_export.training import vocabulary  # noqa: E402
from fastvid_export.training.generation import (  # noqa: E402
    encoder_digest,
    held_out_prompts,
    load_vae,
)
from fastvid_export.training.latents import LatentBank  # noqa: E402
from fastvid_export.training.muon import Muon, orthogonal  # noqa: E402
from fastvid_export.training.sampling import sample  # noqa: E402
from fastvid_export.training.trajectories import TrajectoryBank  # noqa: E402
from fastvid_export.training.world import held_out  # noqa: E402


def settings(**values: object) -> list[str]:
    return [word for name, value in values.items() for word in ("--set", f"{name}={value}")]


VAE = settings(
    latent_channels=4, encoder_quarter=8, encoder_eighth=8, encoder_quarter_blocks=1,
    encoder_eighth_blocks=1, decoder_half=8, decoder_quarter=8, decoder_eighth=8,
    decoder_half_blocks=1, decoder_quarter_blocks=1, decoder_eighth_blocks=1, batch=2, size=16,
    frames=5,
)  # fmt: skip
GENERATOR = settings(
    latent_channels=4, length=32, text_width=16, text_depth=1, text_heads=2, width=32, depth=1,
    heads=2, mlp=32, batch=8, shards=1, shard=16, tests=4, first_image=0.3, both_images=0.2,
    beginning=0.3,
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photo that trains and one that is held back."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for name in ("drawn", "perched-osprey"):
        path = folder / "photos/budgie_cc0" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).save(path)
    return folder


@pytest.fixture(scope="module")
def vae(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("vae")
    command = ["train", "video-vae", "--data", str(data), "--out", str(out), "--threads", "1"]
    assert main([*command, "--steps", "2", "--validate-every", "2", *VAE]) == 0
    return out / "best.pt"


def test_a_decoder_can_train_on_alone(data: Path, vae: Path, tmp_path: Path) -> None:
    command = ["train", "video-vae", "--data", str(data), "--out", str(tmp_path), "--threads", "1"]
    alone = ["--init", str(vae), "--set", "decoder_only=yes"]
    assert main([*command, *alone, "--steps", "2", "--validate-every", "2", *VAE]) == 0
    before, after = (ckpt.load(path) for path in (vae, tmp_path / "last.pt"))
    assert torch.equal(encoder_digest(before), encoder_digest(after))
    assert torch.equal(encoder_digest(replace(before, ema=after.model)), encoder_digest(before))
    assert not torch.equal(before.ema["decoder.inner.bias"], after.ema["decoder.inner.bias"])


def test_a_setting_that_is_yes_or_no_is_neither_1_nor_0(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "video-vae", "--data", str(data), "--out", str(tmp_path)]
    assert main([*command, "--set", "decoder_only=1"]) != 0
    assert "decoder_only: setting must be bool, got '1'" in capsys.readouterr().err


def train(data: Path, vae: Path, out: Path, *more: str) -> int:
    command = ["train", "generator", "--data", str(data), "--out", str(out), "--threads", "1"]
    return main([*command, *GENERATOR, "--set", f"vae={vae}", *more])


def events(out: Path, kind: str) -> list[dict[str, float]]:
    lines = (out / "log.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def test_train_resume_and_ask_for_more_clips(data: Path, vae: Path, tmp_path: Path) -> None:
    assert train(data, vae, tmp_path, "--steps", "2", "--validate-every", "2") == 0
    more = ("--steps", "4", "--validate-every", "4", "--resume", "--set", "shards=2")
    assert train(data, vae, tmp_path, *more) == 0
    validations = events(tmp_path, "validation")
    assert [event["step"] for event in validations] == [2, 4]
    for event in validations:
        assert np.isfinite(event["error"])
        assert 0 <= event["colour"] <= 1
    assert len(list((tmp_path / "samples").glob("*.png"))) == 2
    (folder,) = (tmp_path / "cache").glob("latents_*")
    bank = LatentBank(folder, 2)
    assert len(bank) == 32
    latents, still, tokens = bank.take(np.array([0, 31]))
    assert latents.shape == (2, 4, 5, 8, 8)
    assert still.shape == (2, 4, 8, 8)
    assert tokens.shape == (2, 3, 32)
    assert not np.array_equal(latents[0], latents[1])


def test_material_can_be_prepared_before(data: Path, vae: Path, tmp_path: Path) -> None:
    command = ["prepare", "generator", "--data", str(data), "--cache", str(tmp_path)]
    assert main([*command, *GENERATOR, "--set", f"vae={vae}"]) == 0
    made = {path: path.stat().st_mtime_ns for path in tmp_path.glob("latents_*/shard_*")}
    assert len(made) == 3
    assert main([*command, *GENERATOR, "--set", f"vae={vae}"]) == 0
    assert {path: path.stat().st_mtime_ns for path in made} == made


def test_latents_of_another_recipe_are_refused(
    data: Path, vae: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["prepare", "generator", "--data", str(data), "--cache", str(tmp_path)]
    assert main([*command, *GENERATOR, "--set", f"vae={vae}"]) == 0
    assert main([*command, *GENERATOR, "--set", f"vae={vae}", "--set", "simple=0.9"]) != 0
    assert "of the same recipe" in capsys.readouterr().err


def test_a_generator_without_an_autoencoder_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(data, Path(), tmp_path) != 0
    assert "vae: setting must name a checkpoint" in capsys.readouterr().err


def test_an_autoencoder_is_no_bundle_alone(
    vae: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["bundle", "video-vae", "--checkpoint", str(vae), "--out", str(tmp_path / "bundle")]
    assert main(command) != 0
    assert "bundle the generator" in capsys.readouterr().err


@pytest.fixture(scope="module")
def generator(data: Path, vae: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("generator")
    assert train(data, vae, out, "--steps", "2", "--validate-every", "2") == 0
    return out / "best.pt"


def test_a_bundle_draws_and_decodes(
    generator: Path, vae: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "generator-test"
    command = ["bundle", "generator", "--checkpoint", str(generator), "--out", str(out)]
    assert main([*command, "--part", f"video-vae={vae}"]) == 0
    assert "sample of transformer, real inputs" in capsys.readouterr().out
    image = np.full((32, 48, 3), 90, np.uint8)
    with Generator(out, device="cpu", check_output=False) as model:
        size = {"height": 32, "width": 48, "num_frames": 9, "seed": 3}
        whole = model.generate("a red circle moves left", **size).frames()
        pieces = list(model.stream("a red circle moves left", **size))
        shown = model.generate("a red circle moves left", image=image, num_frames=9).frames()
    assert whole.shape == shown.shape == (9, 32, 48, 3)
    assert [len(piece) for piece in pieces] == [1, 4, 4]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_another_encoder_is_refused(
    generator: Path, vae: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = torch.load(vae, weights_only=True)
    state["ema"]["encoder.out.bias"] = state["ema"]["encoder.out.bias"] + 1.0
    torch.save(state, tmp_path / "other.pt")
    command = ["bundle", "generator", "--checkpoint", str(generator), "--out", str(tmp_path / "b")]
    assert main([*command, "--part", f"video-vae={tmp_path / 'other.pt'}"]) != 0
    assert "must have the encoder" in capsys.readouterr().err


def test_the_digest_is_that_of_the_encoder(vae: Path, tmp_path: Path) -> None:
    _, digest = load_vae(vae)
    for part, same in (("decoder.inner.bias", True), ("encoder.out.bias", False)):
        state = torch.load(vae, weights_only=True)
        state["ema"][part] = state["ema"][part] + 1.0
        torch.save(state, tmp_path / "changed.pt")
        assert torch.equal(load_vae(tmp_path / "changed.pt")[1], digest) == same


def test_prompts_of_a_validation_never_train() -> None:
    prompts = held_out_prompts(40)
    assert prompts[:10] == held_out_prompts(10)
    for text, colour, shape, direction in prompts:
        assert held_out(shape, colour, direction)
        assert f"{colour} {shape} moves {direction}" in text


@pytest.mark.parametrize("shape", [(8, 8), (6, 40), (40, 6)])
def test_updates_are_nearly_orthogonal(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    values = torch.linalg.svdvals(orthogonal(matrix))
    assert float(values.min()) > 0.3
    assert float(values.max()) < 1.4
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    assert float((orthogonal(matrix) * (left @ right)).sum()) > 0.75 * min(shape)


def test_only_weights_of_layers_are_made_orthogonal() -> None:
    net = torch.nn.Sequential(torch.nn.Embedding(5, 4), torch.nn.Linear(4, 3))
    orthogonal_group, other = Muon(net, lr=0.1).param_groups
    assert [tuple(p.shape) for p in orthogonal_group["params"]] == [(3, 4)]
    assert {tuple(p.shape) for p in other["params"]} == {(5, 4), (3,)}


@pytest.fixture(scope="module")
def trained(data: Path, vae: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a generator's run, whose weights were shaken to give its ways some bends."""
    out = tmp_path_factory.mktemp("generator")
    assert train(data, vae, out, "--steps", "2", "--validate-every", "2") == 0
    state = ckpt.load(out / "last.pt")
    torch.manual_seed(0)
    for name, value in state.ema.items():
        if name != "autoencoder":
            value.add_(0.05 * torch.randn_like(value))
    ckpt.save(state, out / "last.pt")
    return out


def distil(data: Path, vae: Path, trained: Path, out: Path, *more: str) -> int:
    command = ["train", "few-step-generator", "--data", str(data), "--out", str(out)]
    few = settings(jumps=2, substeps=8, ways=2, shards=1, shard=16, batch=8, tests=4)
    named = settings(teacher=trained / "last.pt", vae=vae)
    return main([*command, "--threads", "1", *few, *named, *more])


def test_a_student_learns_the_ways_of_its_teacher(
    data: Path, vae: Path, trained: Path, tmp_path: Path
) -> None:
    assert distil(data, vae, trained, tmp_path, "--steps", "20", "--validate-every", "10") == 0
    errors = [event["error"] for event in events(tmp_path, "validation")]
    assert errors[-1] < errors[0]
    (folder,) = (tmp_path / "cache").glob("trajectories_*")
    bank = TrajectoryBank(folder, 2)
    clips, none = np.arange(len(bank)), np.zeros(len(bank), np.int64)
    pieces = bank.take(clips, none, none + 16)
    assert pieces["start"].std() == pytest.approx(1.0, abs=0.05)  # noise
    teacher = GeneratorNet(GeneratorOptions(**ckpt.load(trained / "last.pt").options))
    teacher.load_state_dict(ckpt.load(trained / "last.pt").ema)
    condition = condition_on(pieces["latents"], pieces["known"])
    nothing = torch.from_numpy(vocabulary.encode(vocabulary.build(), [""], 32))
    with torch.no_grad():
        fine = sample(
            teacher, pieces["ids"], nothing, pieces["start"], steps=48, condition=condition
        )
    missing = (pieces["known"] == 0)[:, None, :, None, None]
    away = ((fine - pieces["end"]) * missing).abs().mean()
    assert float(away) < 0.02
    assert float(away) < 0.2 * float(((fine - pieces["start"]) * missing).abs().mean())


def test_a_student_becomes_a_bundle_of_few_steps(
    data: Path, vae: Path, trained: Path, tmp_path: Path
) -> None:
    assert distil(data, vae, trained, tmp_path, "--steps", "2", "--set", "shift=2.0") == 0
    out = tmp_path / "bundle"
    files = ["--checkpoint", str(tmp_path / "last.pt"), "--part", f"video-vae={vae}"]
    files += ["--part", f"generator={trained / 'last.pt'}"]
    assert main(["bundle", "few-step-generator", *files, "--out", str(out)]) == 0
    with Generator(out, threads=1) as generator:
        defaults = generator.bundle.generation
        assert (defaults.num_inference_steps, defaults.guidance_scale) == (2, 1.0)
        assert generator.bundle.scheduler["shift"] == 2.0
        assert not any("clip" in title for title in generator.bundle.provenance.training_data)
        assert generator.generate("a red circle", seed=1, num_frames=5).frames().shape[0] == 5
    for name in ("few-step-generator", "generator", "video-vae"):
        told = json.loads((out / f"training-{name}.json").read_text())
        assert told[-1]["event"] == "stop"


def test_a_student_needs_a_teacher(
    data: Path, vae: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "few-step-generator", "--data", str(data), "--out", str(tmp_path)]
    assert main([*command, *settings(vae=vae)]) != 0
    assert "--set teacher=FILE" in capsys.readouterr().err
    assert main([*command, *settings(vae=vae, teacher=vae)]) != 0
    assert "task must be generator, got video-vae" in capsys.readouterr().err
