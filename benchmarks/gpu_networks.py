"""The shipped networks as PyTorch modules, twice: with fastvid's ops, and with torch's own.

Both are the exporter's modules with the same weights, in float16 and channels last where a
convolution or a matrix product is; flows stay float32, since 16 bits are pixels off. What is called
torch here computes what a user of torch would write: grid_sample, avg_pool2d,
scaled_dot_product_attention. Only inverse search has no formula in torch, so both sides run
fastvid's; a ratio against torch is therefore a lower bound.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import gpu_peers as peers
import onnx
import torch
import torch.nn.functional as F
from gpu_clock import Machine
from onnx import numpy_helper
from torch import Tensor, nn

from fastvid.bundle import Bundle
from fastvid_export import ops

LAST = torch.channels_last


def module(name: str, *, plain: bool) -> ModuleType:
    """A copy of `fastvid_export.models.NAME` that is this side's own.

    A copy and no patch: what torch.compile has traced must not change under it.
    """
    alias = f"benchmark_{'torch' if plain else 'fastvid'}_{name}"
    if alias not in sys.modules:
        found = importlib.util.find_spec(f"fastvid_export.models.{name}")
        assert found is not None
        assert found.origin is not None
        spec = importlib.util.spec_from_file_location(alias, found.origin)
        assert spec is not None
        assert spec.loader is not None
        copy = importlib.util.module_from_spec(spec)
        sys.modules[alias] = copy
        spec.loader.exec_module(copy)
        copy.ops = PLAIN if plain else ops  # type: ignore[attr-defined]
    return sys.modules[alias]


def _blend(
    image0: Tensor, image1: Tensor, flow: Tensor, mask: Tensor, *, as_frames: bool = False
) -> Tensor:
    factor = float(image0.shape[-1] // flow.shape[-1])
    large = F.interpolate(
        torch.cat([flow, mask], 1), scale_factor=factor, mode="bilinear", align_corners=False
    )
    share = torch.sigmoid(large[:, 4:])
    first, second = (
        peers.torch_warp(image, large[:, i : i + 2]) for i, image in ((0, image0), (2, image1))
    )
    blend = first * share + second * (1 - share)
    return peers.torch_frames(blend) if as_frames else blend.clamp(0, 1)


PLAIN = SimpleNamespace(
    rgb_to_planar=lambda frames: frames.permute(0, 3, 1, 2).contiguous().float() / 255,
    planar_to_rgb=peers.torch_frames,
    rgb_to_luma=peers.torch_luma,
    luma_to_rgb=peers.torch_join,
    downscale=F.avg_pool2d,
    warp=peers.torch_warp,
    warp_blend=_blend,
    inverse_search=ops.inverse_search,
)


def weights(bundle: Bundle, graph: str) -> dict[str, Tensor]:
    """The parameters in a graph by their names in PyTorch, without the leading `net.`.

    The exporter stores equal arrays once, so a bias may be found only where its layer reads it.
    """
    model = onnx.load_from_string((bundle.path / bundle.graphs[graph].file).read_bytes())
    arrays = {
        i.name: torch.from_numpy(numpy_helper.to_array(i).copy()) for i in model.graph.initializer
    }
    found = {name: array for name, array in arrays.items() if name.startswith("net.")}
    for node in model.graph.node:
        if node.op_type == "Conv" and len(node.input) == 3 and node.input[1].endswith(".weight"):
            found[node.input[1].removesuffix("weight") + "bias"] = arrays[node.input[2]]
    return {name.removeprefix("net."): array for name, array in found.items()}


def _narrow(m: Machine, network: nn.Module) -> nn.Module:
    return network.to(m.device, torch.float16).to(memory_format=LAST).eval().requires_grad_(False)


def _half(x: Tensor) -> Tensor:
    return x.half().contiguous(memory_format=LAST)


class _HalfLuma(nn.Module):
    """The luma network in float16 between float32 ends."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.options = net.options

    def forward(self, luma: Tensor) -> Tensor:
        out: Tensor = self.net(_half(luma))
        return out.float().contiguous()


class _HalfBlock(nn.Module):
    """A block of the flow network in float16; its flows and mask come out in float32."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(
        self, images: Tensor, context: Tensor, hidden: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        coarser = None if hidden is None else _half(hidden)
        flow, mask, hidden = self.block(_half(images), _half(context), coarser)
        return flow.float().contiguous(), mask.float().contiguous(), hidden.float().contiguous()


def upscaler(m: Machine, bundle: Bundle, *, plain: bool, narrow: bool = True) -> nn.Module:
    """uint8 (N, H, W, 3) to uint8 (N, 2H, 2W, 3)."""
    code = module("upscaler", plain=plain)
    state = weights(bundle, "upscale")
    depth = sum(name.startswith("body.") and name.endswith("weight") for name in state)
    options = code.UpscalerOptions(channels=state["head.weight"].shape[0], depth=depth)
    net = code.UpscalerNet(options).folded()
    net.load_state_dict(state)
    net = _HalfLuma(_narrow(m, net)) if narrow else net.to(m.device)
    return _contiguous(code.UpscaleGraph(net))


def interpolator(m: Machine, bundle: Bundle, *, plain: bool, narrow: bool = True) -> nn.Module:
    """Two frames uint8 (1, H, W, 3) and a time float32 (1,) to the frame between."""
    code = module("interpolator", plain=plain)
    state = weights(bundle, "between")

    def depth(block: str) -> int:
        return 1 + 2 * sum(
            name.startswith(f"{block}.body.") and name.endswith("conv0.weight") for name in state
        )

    options = code.InterpolatorOptions(
        state["coarse.image.weight"].shape[0],
        depth("coarse"),
        state["fine.image.weight"].shape[0],
        depth("fine"),
    )
    net = code.InterpolationNet(options)
    net.load_state_dict(state)
    net = net.to(m.device).eval().requires_grad_(False)
    if narrow:
        net.coarse, net.fine = (_HalfBlock(_narrow(m, part)) for part in (net.coarse, net.fine))

    class Whole(nn.Module):
        """Both graphs of the bundle."""

        def __init__(self) -> None:
            super().__init__()
            self.motion, self.between = code.MotionGraph(), code.BetweenGraph(net)

        def forward(self, frame0: Tensor, frame1: Tensor, timestep: Tensor) -> Tensor:
            out: Tensor = self.between(*self.motion(frame0, frame1), timestep)
            return out

    return _contiguous(Whole())


class _contiguous(nn.Module):  # noqa: N801
    """Hands frames out as memory that may be copied as it is."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *inputs: Tensor) -> Tensor:
        out: Tensor = self.inner(*inputs)
        return out.contiguous()


def shipped(models: Path | None, task: str) -> Bundle | None:
    """The float32 bundle of a task: in `models`, else the one that fastvid ships."""
    from fastvid.bundle import shipped as installed

    folders = [p.parent for p in sorted(models.glob("*/bundle.json"))] if models else []
    for folder in [*folders, *installed().values()]:
        bundle = Bundle.load(folder)
        if bundle.task == task and getattr(bundle, "precision", "float32") == "float32":
            return bundle
    return None


Call = Callable[[], Any]
