"""Generation end to end, prompt to uint8 frames on the host: the SDK, its ops in torch, torch.

The networks have the shapes of the shipped generator and weights drawn from a seed: time does not
depend on them, and the bundle that the SDK runs is exported from them here. Quality against the
same run in float32 guards the answer.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import gpu_peers as peers
import numpy as np
import timing
import torch
from gpu_clock import Functions, Machine, compiled, host_times
from gpu_networks import LAST, PLAIN, module
from gpu_rows import PEERS, RUNNERS
from numpy.typing import NDArray
from torch import Tensor, nn

from fastvid import Generator
from fastvid import ops as compiled_ops
from fastvid.metrics import psnr
from fastvid.schedulers import FlowMatchEulerDiscreteScheduler
from fastvid_export import bundles, ops
from fastvid_export.models.generator import GeneratorNet, GeneratorOptions
from fastvid_export.models.video_vae import VideoVae, VideoVaeOptions
from fastvid_export.training import checkpoint as ckpt
from fastvid_export.training import vocabulary
from fastvid_export.training.generation import encoder_digest

PROMPT, NEGATIVE = "a red circle moves left over a white background", ""
GUIDANCE, SEED = 3.0, 7
LEAST_PSNR = 30.0
"""dB against float32; a solver adds the differences of all its steps up."""
_GRAPHS = {"mode": "reduce-overhead"}


@dataclass(frozen=True)
class Weights:
    """Both networks' checkpoints."""

    generator: ckpt.Checkpoint
    autoencoder: ckpt.Checkpoint


def draw_weights(m: Machine) -> Weights:
    """Weights of the usual scale, also where training starts from zeros."""
    torch.manual_seed(SEED)
    small = {"text_width": 32, "text_depth": 1, "width": 64, "depth": 1, "mlp": 64}
    narrow = {
        f"{side}_{part}": 16
        for side, part in (("encoder", "quarter"), ("encoder", "eighth"), ("decoder", "half"))
    } | {"decoder_quarter": 16, "decoder_eighth": 16}
    options = {"generator": m.pick({}, small), "video-vae": m.pick({}, narrow)}
    networks = {
        "video-vae": VideoVae(VideoVaeOptions(**options["video-vae"])),
        "generator": GeneratorNet(GeneratorOptions(**options["generator"])),
    }
    states = {}
    for name, network in networks.items():
        for parameter in network.parameters():
            if parameter.requires_grad and not parameter.any():
                nn.init.normal_(parameter, std=0.02)
        state = {key: value.detach().clone() for key, value in network.state_dict().items()}
        if name == "generator":
            state["autoencoder"] = encoder_digest(states["video-vae"])
        states[name] = ckpt.Checkpoint(name, options[name], SEED, 0, state, state)
    return Weights(states["generator"], states["video-vae"])


def export(weights: Weights, folder: Path) -> Path:
    """The bundle that the SDK runs."""
    paths = {}
    for checkpoint in (weights.generator, weights.autoencoder):
        paths[checkpoint.task] = folder / f"{checkpoint.task}.pt"
        ckpt.save(checkpoint, paths[checkpoint.task])
    made = bundles.build(
        "generator",
        paths["generator"],
        folder / "bundle",
        parts={"video-vae": paths["video-vae"]},
        say=lambda line: None,
    )
    return made.path


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return peers.torch_attention(q, k, v).flatten(2)


def _fused_attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return ops.attention(q, k, v).flatten(2)


def _fused_norm(q: Tensor, k: Tensor, q_norm: Any, k_norm: Any, table: Any = None) -> Any:
    cos, sin = table or (None, None)
    weights = (norm.weight.float() for norm in (q_norm, k_norm))
    rope = None if table is None else "half"
    return ops.qk_norm_rope(q, k, *weights, cos, sin, norm="head", rope=rope, eps=1e-6)


def _code(m: Machine, *, plain: bool) -> ModuleType:
    """The transformer's module with its attention, and with tables that stay on the device."""
    code = module("video_transformer", plain=plain)
    if hasattr(code, "tables"):
        return code
    code.tables = {}  # type: ignore[attr-defined]
    for name in ("rope_table_3d", "places", "sinusoid"):
        setattr(code, f"made_{name}", getattr(code, name))

    def rope(grid: tuple[int, int, int], dim: int, theta: float) -> tuple[Tensor, Tensor]:
        key = (grid, dim, theta)
        if key not in code.tables:
            code.tables[key] = tuple(x.to(m.device) for x in code.made_rope_table_3d(*key))
        found: tuple[Tensor, Tensor] = code.tables[key]
        return found

    code.rope_table_3d = rope  # type: ignore[attr-defined]
    code.places = lambda grid, like: code.made_places(grid, like).to(like.dtype)  # type: ignore[attr-defined]
    code.sinusoid = lambda timestep: code.made_sinusoid(timestep.float()).to(timestep.dtype)  # type: ignore[attr-defined]
    text = module("text_encoder", plain=plain)
    for one in (code, text):
        one.attend = _attend if plain else _fused_attend  # type: ignore[attr-defined]
    if not plain:
        code.norm_and_rotate = _fused_norm  # type: ignore[attr-defined]
    return code


class _Decode(nn.Module):
    """One latent to frames, group by group: the first without caches, others with them."""

    def __init__(self, vae: Any, frames: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.vae, self.frames = vae, frames

    def forward(self, latents: Tensor, *caches: Tensor) -> tuple[Tensor, ...]:
        decoder, first = self.vae.decoder, not caches
        features, after = decoder.trunk(self.vae.raw(latents[:, :, 0]), 1, caches or None)
        head = decoder.first_frame(features) if first else decoder.next_frames(features)[0]
        return self.frames(head), *after


class Clip:
    """Draws one clip with modules of torch."""

    def __init__(
        self,
        m: Machine,
        weights: Weights,
        spec: dict[str, Any],
        *,
        plain: bool,
        narrow: bool = True,
        wrap: Callable[[nn.Module], Any] = lambda network: network,
        copies: bool = False,
    ) -> None:
        self.m, self.plain, self.copies = m, plain, copies
        self.dtype = torch.float16 if narrow else torch.float32
        height, width, count = m.pick(spec["clip"], (32, 32, 5))
        self.steps = m.pick(spec["steps"], 2)
        options = GeneratorOptions(**weights.generator.options)
        text = module("text_encoder", plain=plain).TextEncoder(options.text_encoder())
        transformer = _code(m, plain=plain).VideoTransformer(
            _code(m, plain=plain).VideoTransformerOptions(**vars(options.transformer()))
        )
        state = weights.generator.ema
        for network, name in ((text, "text_encoder."), (transformer, "transformer.")):
            network.load_state_dict(
                {k.removeprefix(name): v for k, v in state.items() if k.startswith(name)}
            )
        coder = module("video_vae", plain=plain)
        vae = coder.VideoVae(coder.VideoVaeOptions(**weights.autoencoder.options))
        vae.load_state_dict(weights.autoencoder.ema)
        for network in (text, transformer, vae):
            network.to(m.device, self.dtype).eval().requires_grad_(False)
        vae.to(memory_format=LAST)
        self.text, self.transformer = wrap(text), wrap(transformer)
        frames = PLAIN.planar_to_rgb if plain else ops.planar_to_rgb
        self.first, self.next = (wrap(_Decode(vae, frames)) for _ in "01")
        ids = vocabulary.encode(vocabulary.build(), (PROMPT, NEGATIVE), options.length)
        self.ids = torch.from_numpy(ids).to(m.device)
        self.mask = (self.ids > 0).long()
        self.shape = (1, options.latent_channels, 1 + (count - 1) // 4, height // 8, width // 8)
        scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
        scheduler.set_timesteps(self.steps)
        self.sigmas, self.timesteps = scheduler.sigmas.tolist(), scheduler.timesteps.tolist()

    def __call__(self) -> NDArray[np.uint8]:
        """uint8 (T, H, W, 3) on the host."""
        m = self.m
        noise = compiled_ops.randn(self.shape, seed=SEED)
        latents = torch.from_numpy(noise).to(m.device)
        text = self._own(self.text(self.ids, self.mask))
        n, c, *grid = self.shape
        condition = torch.zeros(2 * n, c + 1, *grid, device=m.device, dtype=self.dtype)
        for step, timestep in enumerate(self.timesteps):
            times = torch.full((2,), timestep, device=m.device, dtype=self.dtype)
            both = latents.to(self.dtype).expand(2, -1, -1, -1, -1)
            self._mark()
            velocity = self.transformer(both, times, text, self.mask, condition)
            latents = self._step(latents, velocity, self.sigmas[step + 1] - self.sigmas[step])
        return self._decode(latents.to(self.dtype))

    def _step(self, latents: Tensor, velocity: Tensor, change: float) -> Tensor:
        cond, uncond = velocity[:1].float(), velocity[1:].float()
        if self.plain:
            return latents + change * (uncond + GUIDANCE * (cond - uncond))
        out = torch.empty_like(latents)
        compiled_ops.scheduler_step(
            [[change, 1.0]],
            [cond.contiguous(), latents],
            uncond=uncond.contiguous(),
            guidance_scale=GUIDANCE,
            out=(out,),
        )
        return out

    def _decode(self, latents: Tensor) -> NDArray[np.uint8]:
        self._mark()
        frames, *caches = map(self._own, self.first(latents[:, :, :1]))
        pieces = [frames]
        for index in range(1, latents.shape[2]):
            self._mark()
            piece = latents[:, :, index : index + 1]
            frames, *caches = map(self._own, self.next(piece, *caches))
            pieces.append(frames)
        clip: NDArray[np.uint8] = torch.cat(pieces).cpu().numpy()
        return clip

    def _own(self, x: Tensor) -> Tensor:
        """CUDA graphs write over their results at the next replay."""
        return x.clone() if self.copies else x

    def _mark(self) -> None:
        if self.copies:
            torch.compiler.cudagraph_mark_step_begin()


def measure(m: Machine, spec: dict[str, Any], rounds: int, models: Path | None) -> dict[str, Any]:
    """The row: times of whole clips, ratios, PSNR, and why a runner is missing."""
    weights = draw_weights(m)
    right = Clip(m, weights, spec, plain=True, narrow=False)()
    functions: Functions = {}
    result: dict[str, Any] = {"psnr": {}, "absent": {}}
    with tempfile.TemporaryDirectory() as folder:
        close: list[Callable[[], None]] = []
        for name, prepare in _runners(m, weights, spec, Path(folder), close):
            try:
                function = prepare()
                frames = function()
            except Exception as problem:  # a runner that fails is a line of the row
                result["absent"][name] = f"{type(problem).__name__}: {problem}"[:300]
                continue
            result["psnr"][name] = round(min(100.0, psnr(frames, right)), 2)
            functions[name] = function
        times = host_times(m, functions, m.pick(max(3, rounds // 6), 1))
        for function in close:
            function()
    result["time"] = times
    result["frames_per_second"] = {
        name: round(1e3 * len(right) / entry["median_ms"], 1) for name, entry in times.items()
    }
    result["ratio"] = {
        name: {peer: timing.ratio(times, peer, name) for peer in PEERS if peer in times}
        for name in times
        if name not in PEERS
    }
    result["right"] = all(value >= LEAST_PSNR for value in result["psnr"].values())
    return result


def _runners(
    m: Machine,
    weights: Weights,
    spec: dict[str, Any],
    folder: Path,
    close: list[Callable[[], None]],
) -> Iterator[tuple[str, Any]]:
    height, width, frames = m.pick(spec["clip"], (32, 32, 5))
    steps = m.pick(spec["steps"], 2)

    def sdk(backend: str) -> Callable[[], NDArray[np.uint8]]:
        path = folder / "bundle"
        if not path.is_dir():
            export(weights, folder)
        generator = Generator(path, device=m.device, backend=backend)
        close.append(generator.close)
        return lambda: generator.generate(
            PROMPT,
            negative_prompt=NEGATIVE,
            height=height,
            width=width,
            num_frames=frames,
            num_inference_steps=steps,
            guidance_scale=GUIDANCE,
            seed=SEED,
        ).frames()

    yield RUNNERS[0], lambda: sdk("onnxruntime")
    yield RUNNERS[1], lambda: sdk("tensorrt")
    yield RUNNERS[2], lambda: Clip(m, weights, spec, plain=False)
    yield RUNNERS[3], lambda: Clip(m, weights, spec, plain=True)
    yield (
        RUNNERS[4],
        lambda: Clip(m, weights, spec, plain=True, wrap=lambda network: compiled(m, network)),
    )
    yield (
        RUNNERS[5],
        lambda: Clip(
            m,
            weights,
            spec,
            plain=True,
            wrap=lambda network: compiled(m, network, **_GRAPHS),
            copies=True,
        ),
    )
