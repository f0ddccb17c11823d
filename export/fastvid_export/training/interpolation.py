"""Training of the interpolator: real and drawn triplets, a pyramid loss, and flows from hindsight.

Besides the frame, each level's flow is pulled towards the flow found from the true middle frame,
wherever that flow explains the neighbour better than the network's own (the privileged
distillation of IFNet, with a search in the teacher's place).
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from fastvid.errors import InputError
from fastvid_export import ops
from fastvid_export.models.interpolator import InterpolationNet, InterpolatorOptions, Prediction
from fastvid_export.models.interpolator_quality import QualityNet, QualityOptions
from fastvid_export.training import losses, material, sheets
from fastvid_export.training.loop import Batch
from fastvid_export.training.triplets import TripletSet, clip_parts, prepare

SETS = ("train-real", "train-coded", "train-drawn")


@dataclass(frozen=True)
class InterpolationData:
    """How many samples are prepared, and how a batch is made of them."""

    real: int = 4000
    coded: int = 1000
    drawn: int = 3000
    valid: int = 160
    batch: int = 8
    patch: int = 192
    seed: int = 1


class InterpolationTask:
    """Trains `InterpolationNet`; implements `fastvid_export.training.loop.Task`."""

    name = "interpolator"
    shares = (0.42, 0.18, 0.4)
    """How much of a batch comes from each of `SETS`."""
    fields = 1
    """Searches that the network starts from, of those in a sample."""
    absolute = 0.3
    """Weight of the absolute error."""

    def __init__(
        self,
        options: InterpolatorOptions,
        data: Path,
        cache: Path,
        settings: InterpolationData | None = None,
    ) -> None:
        self.options: InterpolatorOptions | QualityOptions = options
        self.data, self.cache = data, cache
        self.settings = settings or InterpolationData()

    def build(self) -> nn.Module:
        """The untrained network."""
        return InterpolationNet(self.options)

    def prepare(self) -> None:
        """Builds or opens the triplet sets."""
        s = self.settings
        prepare(
            self.data, self.cache, seed=s.seed, real=s.real, coded=s.coded, drawn=s.drawn,
            valid=s.valid,
        )  # fmt: skip
        self.sets = [TripletSet(self.cache / name) for name in SETS]
        self.picks = [triplets.sound() for triplets in self.sets]
        self.valid = TripletSet(self.cache / "valid")
        for triplets in (*self.sets, self.valid):
            if triplets.fields < self.fields:
                raise InputError(
                    f"cache: must hold {self.fields} searches of a sample, got {triplets.fields}",
                    hint=f"delete {self.cache} or name another folder",
                )
        self.usual = [self.usual_errors(*pair) for pair in zip(SETS, self.sets, strict=True)]

    def usual_errors(self, name: str, triplets: TripletSet) -> np.ndarray:
        """Of each sample, what is added to the squared error: a smaller one counts no more.

        Here it keeps still crops, which are nearly exact, from taking over.
        """
        return np.full(len(triplets), 2e-5, np.float32)

    def batch(self, rng: np.random.Generator) -> Batch:
        """`frames`, `flow`, `label`, `timestep` and `usual` of augmented crops of all sets."""
        size, channels = self.settings.patch, 4 * self.fields
        names = ("frames", "flow", "label", "timestep", "usual")
        parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
        for _ in range(self.settings.batch):
            which = int(rng.choice(len(SETS), p=self.shares))
            source, picks = self.sets[which], self.picks[which]
            i = int(picks[rng.integers(len(picks))])
            y, x = (
                int(rng.integers(0, (source.frames.shape[2] - size) // 2 + 1)) for _ in range(2)
            )
            frames = source.frames[i, :, 2 * y : 2 * y + size, 2 * x : 2 * x + size]
            half = (slice(None), slice(y, y + size // 2), slice(x, x + size // 2))
            sample = augment(
                rng,
                frames,
                source.flow[i, :channels][half],
                source.label[i][half],
                float(source.timestep[i]),
            )
            for key, value in zip(parts, (*sample, self.usual[which][i]), strict=True):
                parts[key].append(value)
        return {k: torch.from_numpy(np.stack(v)) for k, v in parts.items()}

    def loss(
        self, model: nn.Module, batch: Batch, progress: float
    ) -> tuple[Tensor, dict[str, float]]:
        """Mean PSNR of the crops, a little L1, and the flows known from hindsight."""
        image0, target, image1 = _images(batch["frames"])
        out: Prediction = model(image0, image1, batch["flow"].float(), batch["timestep"])
        hindsight = _hindsight(image0, target, image1, out.steps[1:], batch["label"].float())
        error = (out.frame - target).square().mean((1, 2, 3))
        decibels = -10 * torch.log10(error + batch["usual"]).mean()
        total = -0.01 * decibels + self.absolute * losses.charbonnier(out.frame, target)
        total = total + 0.004 * (1 - progress) * hindsight
        return total, {"decibels": float(decibels.detach()), "hindsight": float(hindsight.detach())}

    @torch.no_grad()
    def validate(self, model: nn.Module, samples: Path, step: int) -> dict[str, float]:
        """Mean PSNR on held-back triplets, and its gain over warping by the searched flows."""
        psnr: list[float] = []
        start: list[float] = []
        shown: list[list[Tensor]] = []
        untrained = self.build()
        for i in range(len(self.valid)):
            image0, target, image1 = _images(torch.from_numpy(self.valid.frames[i : i + 1]))
            flow = torch.from_numpy(self.valid.flow[i : i + 1, : 4 * self.fields]).float()
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
        frames = frames.transpose(0, 2, 1, 3)
        flow, label = (_swapped(x.transpose(0, 2, 1), [1, 0, 3, 2]) for x in (flow, label))
    if rng.random() < 0.5:
        flow, label = (_swapped(x, [2, 3, 0, 1]) for x in (flow, label))
        frames, timestep = frames[::-1], 1 - timestep
    if rng.random() < 0.3:
        frames = frames[..., rng.permutation(3)]
    frames = relit(rng, frames, timestep)
    return (
        np.ascontiguousarray(frames),
        np.ascontiguousarray(flow),
        np.ascontiguousarray(label),
        np.float32(timestep),
    )


def _swapped(flow: np.ndarray, order: list[int]) -> np.ndarray:
    """Each four channels of (4 n, h, w) in another order."""
    fields = flow.reshape(-1, 4, *flow.shape[1:])[:, order]
    return fields.reshape(flow.shape)


def relit(rng: np.random.Generator, frames: np.ndarray, timestep: float) -> np.ndarray:
    """Other exposure, a change of light, sensor noise or compression, now and then.

    Args:
        rng: Source of every choice.
        frames: uint8 (3, H, W, 3): times 0, `timestep` and 1.
        timestep: Of the middle frame.
    """
    kind = rng.random()
    if kind < 0.2:
        steps = np.arange(256) / 255
        curve = rng.uniform(0.6, 1.0) * steps ** rng.uniform(0.6, 1.6)
        return _levels(curve * 255)[frames]
    if kind < 0.26:
        drift = rng.uniform(-0.08, 0.08) * np.array([0.0, timestep, 1.0])
        return np.stack(
            [_levels(np.arange(256) * (1 + d))[f] for d, f in zip(drift, frames, strict=True)]
        )
    if kind < 0.34:
        # The truth stays clean: noise cannot be predicted.
        noise = rng.normal(0, rng.uniform(0.5, 4.0), (2, *frames.shape[1:]))
        frames = frames.copy()
        frames[[0, 2]] = _levels(frames[[0, 2]] + noise)
    elif kind < 0.46:
        quality = int(rng.integers(30, 90))
        return np.stack([_compressed(f, quality) for f in frames])
    return frames


def _levels(x: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(x), 0, 255).astype(np.uint8)


def _compressed(frame: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(frame)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def _images(frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """uint8 (N, 3, H, W, 3) to three (N, 3, H, W) in [0, 1]."""
    x = frames.permute(1, 0, 4, 2, 3).float() / 255
    return x[0].contiguous(), x[1].contiguous(), x[2].contiguous()


def _hindsight(
    image0: Tensor, target: Tensor, image1: Tensor, steps: tuple[Tensor, ...], label: Tensor
) -> Tensor:
    """L1 to the label, in half-size pixels, where the label explains the neighbour better."""
    small0, small1, middle = (F.avg_pool2d(x, 4) for x in (image0, image1, target))
    label = 0.5 * F.avg_pool2d(label, 2)
    total = image0.new_zeros(())
    for pair, image in ((slice(0, 2), small0), (slice(2, 4), small1)):
        with torch.no_grad():
            ours = (
                (ops.warp(image, steps[-1][:, pair].contiguous()) - middle)
                .abs()
                .mean(1, keepdim=True)
            )
            theirs = (
                (ops.warp(image, label[:, pair].contiguous()) - middle).abs().mean(1, keepdim=True)
            )
            better = (theirs < 0.6 * ours - 0.004).float()
        for flow in steps:
            # A few wild labels must not outweigh the rest.
            distance = (flow[:, pair] - label[:, pair]).abs().clamp(max=4)
            total = total + 2 * (better * distance).mean()
    return total


class QualityTask(InterpolationTask):
    """Trains `QualityNet`: the same material, fitted to the PSNR of whole frames.

    A whole frame is judged by where it goes wrong: a calm crop of it hardly counts. So an error is
    set against what is usual in its clip. And where motion cannot be known, the absolute error
    would favour one of the possible pictures, the squared one favours their mean.
    """

    name = "interpolator-quality"
    shares = (0.6, 0.15, 0.25)
    fields = 3
    absolute = 0.0

    def __init__(
        self,
        options: QualityOptions,
        data: Path,
        cache: Path,
        settings: InterpolationData | None = None,
    ) -> None:
        super().__init__(InterpolatorOptions(), data, cache, settings)
        self.options = options

    def build(self) -> nn.Module:
        """The untrained network."""
        assert isinstance(self.options, QualityOptions)
        return QualityNet(self.options)

    def usual_errors(self, name: str, triplets: TripletSet) -> np.ndarray:
        """The median error of the search: in the clip, of a drawn scene its own."""
        if name == "train-drawn":
            errors = np.array([triplets.start_error(i) for i in range(len(triplets))])
            return (errors + 4e-6).astype(np.float32)
        usual = np.empty(len(triplets), np.float32)
        for part in clip_parts(len(triplets), len(material.all_clips(self.data))):
            some = part[:: max(1, len(part) // 50)]
            usual[part] = np.median([triplets.start_error(i) for i in some]) + 4e-6
        return usual
