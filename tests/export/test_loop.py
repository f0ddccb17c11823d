"""The training loop: learning, resuming, stopping, and what it leaves on disk."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from toy_task import ToyOptions, ToyTask  # noqa: E402

from fastvid.errors import InputError  # noqa: E402
from fastvid_export.errors import CheckpointError  # noqa: E402
from fastvid_export.training import checkpoint as ckpt  # noqa: E402
from fastvid_export.training.loop import LoopConfig, run  # noqa: E402

CONFIG = LoopConfig(
    steps=40, lr=0.05, warmup=5, ema=0.9, log_every=10, validate_every=20, save_every=10
)


def events(folder: Path, kind: str) -> list[dict[str, object]]:
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


@pytest.mark.parametrize("optimizer", ["adam", "soap", "muon"])
def test_it_learns(tmp_path: Path, optimizer: str) -> None:
    # Muon's steps do not grow with the gradient: it needs larger ones to come as far.
    config = replace(
        CONFIG, steps=400, optimizer=optimizer, lr=0.2 if optimizer == "muon" else 0.05
    )
    best = run(ToyTask(), config, tmp_path)
    weights = ckpt.load(best, task="toy").ema
    assert float(weights["weight"]) == pytest.approx(3, abs=0.1)
    assert float(weights["bias"]) == pytest.approx(-1, abs=0.1)


@pytest.mark.parametrize("optimizer", ["adam", "soap", "muon"])
def test_a_stopped_and_resumed_run_equals_an_unbroken_one(tmp_path: Path, optimizer: str) -> None:
    config = replace(CONFIG, optimizer=optimizer)

    def stop_at_17(event: dict[str, object]) -> None:
        if event["event"] == "step" and event["step"] == 17:
            os.kill(os.getpid(), signal.SIGTERM)

    run(ToyTask(), config, tmp_path / "whole")
    broken = tmp_path / "broken"
    run(ToyTask(), replace(config, log_every=17), broken, on_event=stop_at_17)
    assert events(broken, "stop")[-1] == {**events(broken, "stop")[-1], "finished": False}
    assert ckpt.load(broken / "last.pt").step == 17
    run(ToyTask(), config, broken, resume=True)

    whole, resumed = (ckpt.load(tmp_path / n / "last.pt") for n in ("whole", "broken"))
    assert resumed.step == whole.step == 40
    for name in whole.model:
        assert torch.equal(whole.model[name], resumed.model[name])
        assert torch.equal(whole.ema[name], resumed.ema[name])


def test_batches_depend_on_seed_and_step_alone(tmp_path: Path) -> None:
    first, second, other = ToyTask(), ToyTask(), ToyTask()
    run(first, CONFIG, tmp_path / "a")
    run(second, CONFIG, tmp_path / "b")
    run(other, replace(CONFIG, seed=2), tmp_path / "c")
    assert first.drawn == second.drawn
    assert len(set(first.drawn)) == CONFIG.steps
    assert set(first.drawn).isdisjoint(other.drawn)


def test_a_folder_with_a_run_is_refused_unless_resumed(tmp_path: Path) -> None:
    run(ToyTask(), CONFIG, tmp_path)
    with pytest.raises(CheckpointError, match="--resume"):
        run(ToyTask(), CONFIG, tmp_path)


def test_resuming_with_other_options_is_refused(tmp_path: Path) -> None:
    run(ToyTask(), CONFIG, tmp_path)
    with pytest.raises(CheckpointError, match="options and seed"):
        run(ToyTask(ToyOptions(bias=False)), CONFIG, tmp_path, resume=True)
    with pytest.raises(CheckpointError, match="options and seed"):
        run(ToyTask(), replace(CONFIG, seed=9), tmp_path, resume=True)


def test_init_takes_the_tensors_that_fit(tmp_path: Path) -> None:
    best = run(ToyTask(), replace(CONFIG, steps=400), tmp_path / "first")
    run(ToyTask(ToyOptions(bias=False)), replace(CONFIG, steps=1), tmp_path / "second", init=best)
    (event,) = events(tmp_path / "second", "init")
    assert (event["loaded"], event["left"]) == (1, 0)
    trained = float(ckpt.load(best).ema["weight"])
    assert float(ckpt.load(tmp_path / "second" / "last.pt").model["weight"]) == pytest.approx(
        trained, abs=CONFIG.lr
    )


def test_a_loss_that_is_not_finite_changes_no_weight(tmp_path: Path) -> None:
    run(ToyTask(explode_at=7), CONFIG, tmp_path)
    (event,) = events(tmp_path, "skipped")
    assert event["step"] == 7
    weights = ckpt.load(tmp_path / "last.pt").model
    assert all(torch.isfinite(value).all() for value in weights.values())


def test_the_log_holds_settings_steps_and_validations(tmp_path: Path) -> None:
    run(ToyTask(), CONFIG, tmp_path)
    (start,) = events(tmp_path, "start")
    assert start["config"]["seed"] == CONFIG.seed  # type: ignore[index]
    assert start["options"] == {"bias": True}
    assert [event["step"] for event in events(tmp_path, "step")] == [10, 20, 30, 40]
    assert [event["step"] for event in events(tmp_path, "validation")] == [20, 40]


def test_the_learning_rate_warms_up_and_ends_low() -> None:
    rates = [CONFIG.learning_rate(step) for step in range(CONFIG.steps)]
    assert rates[0] < rates[3] < rates[4] == CONFIG.lr
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[-1] < 0.01 * CONFIG.lr


def test_the_network_is_compiled_when_asked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[object] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(self))
    run(ToyTask(), replace(CONFIG, steps=2), tmp_path / "plain")
    assert compiled == []
    run(ToyTask(), replace(CONFIG, steps=2, compile=True), tmp_path / "compiled")
    assert len(compiled) == 1  # the averaged copy only ever validates


def test_an_unknown_optimiser_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be adam, soap or muon, got 'magic'"):
        run(ToyTask(), replace(CONFIG, optimizer="magic"), tmp_path)


@pytest.mark.parametrize("damage", ["missing", "cut", "text", "fields", "task"])
def test_an_unusable_checkpoint_is_a_clear_error(tmp_path: Path, damage: str) -> None:
    run(ToyTask(), CONFIG, tmp_path)
    path = tmp_path / "last.pt"
    match damage:
        case "missing":
            path.unlink()
        case "cut":
            path.write_bytes(path.read_bytes()[:200])
        case "text":
            path.write_text("hello")
        case "fields":
            torch.save({"format": 1, "surprise": 2}, path)
    with pytest.raises(CheckpointError):
        ckpt.load(path, task="other" if damage == "task" else "toy")


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"format": 1, "task": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError):
        ckpt.load(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()
