"""The training loop that every model family shares.

A family is one class, a `Task` (see below), registered in `fastvid_export.registry`; the loop owns
everything else: seeds, optimiser, cosine schedule, gradient clipping, averaged weights, bfloat16,
the log, validation, checkpoints, resuming, and stopping cleanly on Ctrl-C or SIGTERM.

    task = UpscalerTask(UpscalerOptions(), data=Path("data"), cache=Path("run/cache"))
    run(task, LoopConfig(steps=60_000, seed=1), Path("run"), resume=True)

What a run leaves in its folder:

    run/log.jsonl          one object per logged step, validation, start and stop
    run/last.pt            `checkpoint.Checkpoint` to resume from
    run/best.pt            the checkpoint whose `task.score(metrics)` was highest
    run/samples/*.png      what `task.validate` drew

Determinism: the batch of step i is `task.batch(np.random.default_rng([seed, i]))` and torch is
seeded with (seed, i) before each step, so a resumed run repeats an unbroken one bit for bit
(same machine and thread count) with no generator state on disk.
"""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from fastvid.errors import InputError
from fastvid_export.errors import CheckpointError
from fastvid_export.training import checkpoint as ckpt
from fastvid_export.training.muon import Muon
from fastvid_export.training.soap import Soap

Batch = dict[str, Tensor]
"""Named tensors of one step; uint8 images are turned into floats by the task's `loss`."""


class Task(Protocol):
    """How one model family trains. Implementations are plain classes; nothing is inherited."""

    name: str
    """Registered name, also written into checkpoints."""
    options: Any
    """Frozen dataclass of plain values from which `build` makes the network."""

    def build(self) -> nn.Module:
        """A freshly initialised network in its training form."""

    def prepare(self) -> None:
        """Builds or opens the cache of training material; called once, before the first batch."""

    def batch(self, rng: np.random.Generator) -> Batch:
        """One batch drawn with `rng` alone. Runs on a helper thread, one batch ahead."""

    def loss(
        self, model: nn.Module, batch: Batch, progress: float
    ) -> tuple[Tensor, dict[str, float]]:
        """Scalar loss to minimise and figures to log.

        Args:
            model: The network in train mode.
            batch: What `batch` returned.
            progress: Share of the run that is done, 0 ≤ progress < 1, for losses that change.
        """

    def validate(self, model: nn.Module, samples: Path, step: int) -> dict[str, float]:
        """Figures on held-back material; may write a contact sheet `step_*.png` into `samples`.

        Args:
            model: The averaged network in eval mode, float32, gradients off.
            samples: Folder for pictures.
            step: Steps done.
        """

    def score(self, metrics: dict[str, float]) -> float:
        """The one figure, higher is better, that picks `best.pt`."""


@dataclass(frozen=True)
class LoopConfig:
    """Settings of a run; all are written to the log."""

    steps: int = 60_000
    """Optimiser steps of the whole schedule, resumed ones included."""
    seed: int = 1
    threads: int = 1
    """Threads of torch."""
    optimizer: str = "adam"
    """`adam` (AdamW), `soap`, see `soap.Soap`, or `muon`, see `muon.Muon`."""
    lr: float = 1e-3
    """Peak learning rate, after `warmup` steps."""
    final_lr: float = 1e-6
    """Learning rate at the last step; a cosine leads there."""
    warmup: int = 500
    hold: float = 0.0
    """Share of the steps after the warm-up that stay at the peak before the cosine begins. A run
    that is still on the peak can be made longer or shorter by resuming with another `steps`."""
    weight_decay: float = 0.0
    """Of Adam and Muon."""
    ema: float = 0.999
    """Weight of the past in the averaged weights."""
    clip: float = 1.0
    """Largest L2 norm of the gradient; 0 turns clipping off."""
    bfloat16_until: float = 0.0
    """Share of the run whose forward pass runs in bfloat16, the rest in float32. Networks whose
    output is a small correction lose much by it."""
    compile: bool = False
    """Whether torch compiles the network first: minutes once, then up to a third less per step."""
    log_every: int = 100
    validate_every: int = 2_000
    save_every: int = 500

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, the peak for `hold`, then half a cosine from `lr` to `final_lr`."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        start = self.warmup + self.hold * (self.steps - self.warmup)
        share = max(0.0, (step - start) / max(1.0, self.steps - start))
        return self.final_lr + 0.5 * (self.lr - self.final_lr) * (1.0 + math.cos(math.pi * share))


def run(
    task: Task,
    config: LoopConfig,
    out: Path,
    *,
    resume: bool = False,
    init: Path | None = None,
    on_event: Callable[[dict[str, Any]], None] | None = None,
) -> Path:
    """Trains `task` and returns the path of the best checkpoint.

    Args:
        task: What to train.
        config: How.
        out: Folder of the run, made if missing.
        resume: Go on from `out/last.pt` if it is there; without it, a folder that holds a
            checkpoint is refused.
        init: Checkpoint whose averaged weights a fresh run starts from; tensors whose name or
            shape differ are left at their initial values.
        on_event: Called with every object that goes to the log.

    Raises:
        CheckpointError: `out` holds a run and `resume` is False, or a checkpoint does not fit.
    """
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    trainer = _Trainer(task, config, out, on_event)
    last = out / "last.pt"
    if last.exists() and not resume:
        raise CheckpointError(
            f"train: out must be a folder without a run, got {out}", hint="add --resume"
        )
    if last.exists():
        trainer.restore(ckpt.load(last, task=task.name))
    elif init is not None:
        trainer.initialise(ckpt.load(init, task=task.name))
    trainer.train()
    return trainer.best_path


class _Trainer:
    def __init__(
        self,
        task: Task,
        config: LoopConfig,
        out: Path,
        on_event: Callable[[dict[str, Any]], None] | None,
    ) -> None:
        self.task, self.config, self.out, self.on_event = task, config, out, on_event
        self.samples = out / "samples"
        self.samples.mkdir(parents=True, exist_ok=True)
        self.best_path = out / "best.pt"
        self.model = task.build().to(memory_format=torch.channels_last)
        if config.compile:
            self.model.compile()
        self.averaged = task.build().to(memory_format=torch.channels_last)
        self.averaged.load_state_dict(self.model.state_dict())
        self.averaged.requires_grad_(False)
        self.optimizer = _optimizer(config, self.model)
        self.step = 0
        self.metrics: dict[str, float] = {}
        self.best_score = -math.inf

    def restore(self, state: ckpt.Checkpoint) -> None:
        # A run from before an option existed had its default.
        same = type(self.task.options)(**state.options) == self.task.options
        if not same or state.seed != self.config.seed:
            raise CheckpointError(
                f"train: options and seed must be those of the run, {state.options} with seed "
                f"{state.seed}, got {ckpt.option_dict(self.task.options)} with {self.config.seed}"
            )
        self.model.load_state_dict(state.model)
        self.averaged.load_state_dict(state.ema)
        self.optimizer.load_state_dict(state.optimizer)
        self.step, self.metrics = state.step, state.metrics
        if self.best_path.exists():
            self.best_score = self.task.score(ckpt.load(self.best_path).metrics)

    def initialise(self, state: ckpt.Checkpoint) -> None:
        own = self.model.state_dict()
        fitting = {k: v for k, v in state.ema.items() if k in own and own[k].shape == v.shape}
        self.model.load_state_dict(fitting, strict=False)
        self.averaged.load_state_dict(self.model.state_dict())
        self.log("init", loaded=len(fitting), left=len(own) - len(fitting))

    def train(self) -> None:
        config = self.config
        self.task.prepare()
        self.log("start", config=asdict(config), options=ckpt.option_dict(self.task.options))
        started, logged_at = time.monotonic(), self.step
        with _stop_signals() as stop, ThreadPoolExecutor(1) as pool:
            pending = pool.submit(self.draw, self.step)
            while self.step < config.steps and not stop():
                batch = pending.result()
                if self.step + 1 < config.steps:
                    pending = pool.submit(self.draw, self.step + 1)
                figures = self.update(batch)
                if not math.isfinite(figures["loss"]):
                    self.log("skipped", loss=str(figures["loss"]))
                if self.step % config.log_every == 0:
                    seconds = time.monotonic() - started
                    rate = (self.step - logged_at) / max(seconds, 1e-9)
                    self.log("step", **figures, steps_per_second=round(rate, 2))
                    started, logged_at = time.monotonic(), self.step
                if self.step % config.validate_every == 0 or self.step == config.steps:
                    self.validate()
                    started, logged_at = time.monotonic(), self.step
                if self.step % config.save_every == 0:
                    self.save(self.out / "last.pt")
        self.save(self.out / "last.pt")
        self.log("stop", finished=self.step >= config.steps)

    def draw(self, step: int) -> Batch:
        return self.task.batch(np.random.default_rng([self.config.seed, step]))

    def update(self, batch: Batch) -> dict[str, float]:
        config = self.config
        torch.manual_seed(config.seed * 1_000_003 + self.step)
        rate = config.learning_rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        progress = self.step / config.steps
        self.model.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=progress < config.bfloat16_until):
            loss, figures = self.task.loss(self.model, batch, progress)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(
            self.model.parameters(), config.clip if config.clip > 0 else math.inf
        )
        if math.isfinite(float(norm)):
            self.optimizer.step()
            self.average()
        self.step += 1
        return {"loss": float(loss.detach()), "lr": rate, "grad_norm": float(norm), **figures}

    @torch.no_grad()
    def average(self) -> None:
        # A short memory at first: otherwise the random start stays in the average for long.
        decay = min(self.config.ema, (1.0 + self.step) / (10.0 + self.step))
        for mean, value in zip(self.averaged.parameters(), self.model.parameters(), strict=True):
            mean.lerp_(value, 1.0 - decay)
        for mean, value in zip(self.averaged.buffers(), self.model.buffers(), strict=True):
            mean.copy_(value)

    @torch.no_grad()
    def validate(self) -> None:
        began = time.monotonic()
        self.averaged.eval()
        self.metrics = self.task.validate(self.averaged, self.samples, self.step)
        score = self.task.score(self.metrics)
        better = score > self.best_score
        seconds = round(time.monotonic() - began, 1)
        self.log("validation", **self.metrics, best=better, seconds=seconds)
        if better:
            self.best_score = score
            self.save(self.best_path)

    def save(self, path: Path) -> None:
        ckpt.save(
            ckpt.Checkpoint(
                task=self.task.name,
                options=ckpt.option_dict(self.task.options),
                seed=self.config.seed,
                step=self.step,
                model=self.model.state_dict(),
                ema=self.averaged.state_dict(),
                optimizer=self.optimizer.state_dict(),
                metrics=self.metrics,
            ),
            path,
        )

    def log(self, event: str, **values: Any) -> None:
        entry = {"event": event, "step": self.step, "time": round(time.time(), 1)} | {
            k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in values.items()
        }
        with (self.out / "log.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")
        if self.on_event is not None:
            self.on_event(entry)


def _optimizer(config: LoopConfig, model: nn.Module) -> torch.optim.Optimizer:
    if config.optimizer == "soap":
        return Soap(model.parameters(), lr=config.lr)
    if config.optimizer == "adam":
        return torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    if config.optimizer == "muon":
        return Muon(model, lr=config.lr, weight_decay=config.weight_decay)
    raise InputError(f"optimizer: must be adam, soap or muon, got {config.optimizer!r}")


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM ask for a stop after the step at hand; a second Ctrl-C interrupts."""
    asked = False

    def ask(signum: int, frame: object) -> None:
        nonlocal asked
        if asked and signum == signal.SIGINT:
            raise KeyboardInterrupt
        asked = True

    previous = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, ask)
    except ValueError:  # not the main thread: the caller stops the run by other means
        pass
    try:
        yield lambda: asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
