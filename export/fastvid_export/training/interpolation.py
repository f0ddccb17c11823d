"""Training of the interpolator: real and drawn triplets, a pyramid loss, and flows from hindsight.

Besides the frame, each level's flow is pulled towards the flow found from the true middle frame,
wherever that flow explains the neighbour better than the network's own (the privileged
distillation of IFNet, with a search in the teacher's place).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastvid_export import ops
from fastvid_export.models.interpolator import InterpolationNet, InterpolatorOptions, Prediction
from fastvid_export.training import losses, sheets
from fastvid_export.training.loop import Batch
from fastvid_export.training.triplets import TripletSet, prepare


@dataclass(frozen=True)
class InterpolationData:
    """How many samples are prepared, and how a batch is made of them."""

    real: int = 4000
    drawn: int = 3000
    valid: int = 160
    batch: int = 8
    patch: int = 192
    psnr_from: float = 0.6
    """Share of the run after which the mean PSNR of the crops is fitted instead of differences:
    differences are largest where nothing can be done, PSNR counts every crop alike."""
    seed: int = 1


class InterpolationTask:
    """Trains `InterpolationNet`; implements `fastvid_export.training.loop.Task`."""

    name = "interpolator"

    def __init__(
        self,
        options: InterpolatorOptions,
        data: Path,
        cache: Path,
        settings: InterpolationData | None = None,
    ) -> None:
        self.options = options
        self.data, self.cache = data, cache
        self.settings = settings or InterpolationData()

    def build(self) -> nn.Module:
        """The untrained network."""
        return InterpolationNet(self.options)

    def prepare(self) -> None:
        """Builds or opens the triplet sets."""
        s = self.settings
        prepare(self.data, self.cache, seed=s.seed, real=s.real, drawn=s.drawn, valid=s.valid)
        self.sets = [TripletSet(self.cache / name) for name in ("train-real", "train-drawn")]
        self.picks = [triplets.sound() for triplets in self.sets]
        self.valid = TripletSet(self.cache / "valid")

    def batch(self, rng: np.random.Generator) -> Batch:
        """`frames`, `flow`, `label` and `timestep` of augmented crops, real and drawn."""
        size = self.settings.patch
        parts: dict[str, list[np.ndarray]] = {"frames": [], "flow": [], "label": [], "timestep": []}
        for _ in range(self.settings.batch):
            which = int(rng.random() < 0.4)
            source, picks = self.sets[which], self.picks[which]
            i = int(picks[rng.integers(len(picks))])
            y, x = (
                int(rng.integers(0, (source.frames.shape[2] - size) // 2 + 1)) for _ in range(2)
            )
            frames = source.frames[i, :, 2 * y : 2 * y + size, 2 * x : 2 * x + size]
            half = (slice(None), slice(y, y + size // 2), slice(x, x + size // 2))
            sample = augment(
                rng, frames, source.flow[i][half], source.label[i][half], float(source.timestep[i])
            )
            for key, value in zip(parts, sample, strict=True):
                parts[key].append(value)
        return {k: torch.from_numpy(np.stack(v)) for k, v in parts.items()}

    def loss(
        self, model: nn.Module, batch: Batch, progress: float
    ) -> tuple[Tensor, dict[str, float]]:
        """Fit to the true frame, and to the flows known from hindsight."""
        image0, target, image1 = _images(batch["frames"])
        out: Prediction = model(image0, image1, batch["flow"].float(), batch["timestep"])
        hindsight = _hindsight(image0, target, image1, out.steps, batch["label"].float())
        if progress < self.settings.psnr_from:
            fit = losses.charbonnier(out.frame, target)
            fit = fit + 0.1 * losses.laplacian_pyramid_l1(out.frame, target, levels=4)
        else:
            # The floor keeps still crops, which are nearly exact, from taking over.
            error = (out.frame - target).square().mean((1, 2, 3))
            fit = 0.02 * torch.log(error + 1e-5).mean()
        total = fit + 0.003 * (1 - progress) * hindsight
        return total, {"fit": float(fit.detach()), "hindsight": float(hindsight.detach())}

    @torch.no_grad()
    def validate(self, model: nn.Module, samples: Path, step: int) -> dict[str, float]:
        """Mean PSNR on held-back triplets, and its gain over warping by the searched flows."""
        psnr: list[float] = []
        start: list[float] = []
        shown: list[list[Tensor]] = []
        untrained = self.build()
        for i in range(len(self.valid)):
            image0, target, image1 = _images(torch.from_numpy(self.valid.frames[i : i + 1]))
            flow = torch.from_numpy(self.valid.flow[i : i + 1]).float()
            timestep = torch.tensor([self.valid.timestep[i]])
            out = model(image0, image1, flow, timestep).frame
            psnr.append(losses.psnr(out, target))
            if not hasattr(self, "_start"):
                start.append(losses.psnr(untrained(image0, image1, flow, timestep).frame, target))
            if i % 40 == 0:
                shown.append([image0, out, target, (out - target).abs() * 4])
        if start:
            self._start = float(np.mean(start))
        sheets.save_sheet(shown, samples / f"step_{step:06d}.png")
        mean = float(np.mean(psnr))
        return {"psnr": mean, "gain_over_search": mean - self._start}

    def score(self, metrics: dict[str, float]) -> float:
        """The mean PSNR."""
        return metrics["psnr"]


def augment(
    rng: np.random.Generator,
    frames: np.ndarray,
    flow: np.ndarray,
    label: np.ndarray,
    timestep: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.float32]:
    """Flips, transposes, reverses time and permutes colours; flows follow."""
    flow, label = flow.copy(), label.copy()
    if rng.random() < 0.5:
        frames, flow, label = frames[:, :, ::-1], flow[..., ::-1].copy(), label[..., ::-1].copy()
        flow[0::2] *= -1
        label[0::2] *= -1
    if rng.random() < 0.5:
        frames, flow, label = frames[:, ::-1], flow[:, ::-1].copy(), label[:, ::-1].copy()
        flow[1::2] *= -1
        label[1::2] *= -1
    if rng.random() < 0.5:
        swap = [1, 0, 3, 2]
        frames = frames.transpose(0, 2, 1, 3)
        flow, label = (x.transpose(0, 2, 1)[swap] for x in (flow, label))
    if rng.random() < 0.5:
        swap = [2, 3, 0, 1]
        frames, flow, label, timestep = frames[::-1], flow[swap], label[swap], 1 - timestep
    if rng.random() < 0.3:
        frames = frames[..., rng.permutation(3)]
    return (
        np.ascontiguousarray(frames),
        np.ascontiguousarray(flow),
        np.ascontiguousarray(label),
        np.float32(timestep),
    )


def _images(frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """uint8 (N, 3, H, W, 3) to three (N, 3, H, W) in [0, 1]."""
    x = frames.permute(1, 0, 4, 2, 3).float() / 255
    return x[0].contiguous(), x[1].contiguous(), x[2].contiguous()


def _hindsight(
    image0: Tensor, target: Tensor, image1: Tensor, steps: tuple[Tensor, ...], label: Tensor
) -> Tensor:
    """L1 to the label, in half-size pixels, where the label explains the neighbour better."""
    half0, half1, middle = (F.avg_pool2d(x, 2) for x in (image0, image1, target))
    total = image0.new_zeros(())
    for pair, image in ((slice(0, 2), half0), (slice(2, 4), half1)):
        with torch.no_grad():
            ours = (ops.warp(image, steps[-1][:, pair]) - middle).abs().mean(1, keepdim=True)
            theirs = (ops.warp(image, label[:, pair]) - middle).abs().mean(1, keepdim=True)
            better = (theirs < 0.6 * ours - 0.004).float()
        for flow in steps:
            # A few wild labels must not outweigh the rest.
            distance = (flow[:, pair] - label[:, pair]).abs().clamp(max=8)
            total = total + (better * distance).mean()
    return total
