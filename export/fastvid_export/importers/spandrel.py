"""Super-resolution and restoration checkpoints that spandrel recognises.

spandrel (https://github.com/chaiNNer-org/spandrel, MIT) knows the networks by their weights' names;
it builds them here, and is not needed to run what comes out. Its own loader, which unpickles, is
not used. This importer is the last one: it takes any file of weights that no other knows, and says
so where spandrel does not know it either.
"""

from __future__ import annotations

import copy
import enum
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastvid.bundle import Bundle
from fastvid.errors import InputError
from fastvid_export import state_dicts
from fastvid_export.errors import CheckpointError, ExportError
from fastvid_export.importers import Architecture, ImportOptions

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fastvid_export.upscaler_bundles import Network

_OWN = frozenset(("format", "task", "ema", "optimizer", "step"))
"""Names in every checkpoint that fastvid's training writes."""
_LIST = "`python -m fastvid_export architectures` lists what can be imported"
_TEXT = 4000
_FILES = "`.pth`, `.pt`, `.ckpt`, `.safetensors`"

_SUPER_RESOLUTION = (
    "ATD", "CRAFT", "Compact", "DAT", "DCTLSA", "DITN", "DRCT", "ESRGAN", "FDAT", "GRL",
    "HAT", "IPT", "MMRealSR", "MoESR", "MoSR", "OmniSR", "PLKSR", "RCAN", "RGT", "RealCUGAN",
    "SAFMN", "SeemoRe", "SwiftSRGAN", "Swin2SR", "SwinIR",
)  # fmt: skip
_RESTORATION = (
    "DRUNet", "DnCNN", "FBCNN", "FFTformer", "HVICIDNet", "KBNet", "MixDehazeNet", "NAFNet",
    "RetinexFormer", "SAFMNBCIE", "SCUNet", "Uformer",
)  # fmt: skip
_TILED = frozenset((
    "ATD", "CRAFT", "DAT", "DCTLSA", "DRCT", "FBCNN", "FDAT", "GRL", "HAT", "HVICIDNet", "IPT",
    "KBNet", "OmniSR", "RGT", "RealCUGAN", "SCUNet", "Swin2SR", "SwinIR", "Uformer",
))  # fmt: skip
"""Those whose code works with sizes that `torch.export` takes for constants: masks, pads."""


_FACE = (
    "it restores one face, found, turned and cut to 512x512 by another network; for whole frames "
    "take a network that does without"
)
_REFUSED = {
    "GFPGAN": _FACE,
    "RestoreFormer": _FACE,
    "LaMa": "it fills a mask that is given beside each picture, and a video has none",
    "AuraSR": "it draws a style at random for each picture, so that frames and pieces would differ",
}
"""Why a network makes no video of a video."""


def _entry(name: str) -> Architecture:
    note = "restoration, scale 1" if name in _RESTORATION else ""
    runs = "fixed tile" if name in _TILED else "any size"
    if name in _REFUSED:
        runs = f"refused: {_REFUSED[name]}"
    return Architecture(name, "upscaler", "spandrel", _FILES, note, runs)


ARCHITECTURES = tuple(map(_entry, (*_SUPER_RESOLUTION, *_RESTORATION, *_REFUSED)))


def matches(path: Path) -> bool:
    """Whether it is a file of weights that fastvid's own training did not write."""
    if path.suffix.lower() not in (*state_dicts.TORCH, state_dicts.SAFETENSORS):
        return False
    return path.is_file() and not state_dicts.names(path) >= _OWN


def build(path: Path, folder: Path, options: ImportOptions, say: Callable[[str], None]) -> Bundle:
    """Writes the bundle of a file.

    Raises:
        CheckpointError: The file is damaged, or of a network that spandrel does not know.
        InputError: The network does not make a picture of one picture, or a flag has no use here.
        ExportError: The graph cannot be exported, or differs from the network.
        ModuleNotFoundError: spandrel is not installed.
    """
    options.flags.refuse_but("weights", "scale", "name", "licence", "tile")
    state = state_dicts.read(path)
    network = _network(_described(state, path), path, options.flags.tile)
    if options.flags.scale not in (None, network.scale):
        raise InputError(
            f"scale: argument must be {network.scale} for {path.name}, got {options.flags.scale}"
        )
    from fastvid_export import upscaler_bundles

    named = upscaler_bundles.of_file(network, path, options.flags.licence)
    return upscaler_bundles.write(named, options.name, folder, say)


def _described(state: dict[str, Tensor], path: Path) -> Any:
    """Spandrel's description of the network that the weights are of."""
    with _torchvision():
        import spandrel
    try:
        with _quietly():
            return spandrel.MAIN_REGISTRY.load(state)
    except spandrel.UnsupportedModelError:
        names = ", ".join(sorted(state)[:20])
        raise CheckpointError(
            f"checkpoint: {path} must hold a network that can be imported, got {len(state)} "
            f"weights: {names}{', ...' if len(state) > 20 else ''}",
            hint=_LIST,
        ) from None
    except Exception as error:  # networks fail in their own ways on weights that do not fit
        text = " ".join(str(error).split())[:_TEXT]
        raise CheckpointError(
            f"checkpoint: {path} must hold all weights of its network and no other: {text}"
        ) from None


def _network(described: Any, path: Path, tile: int | None) -> Network:
    import torch

    from fastvid_export.upscaler_bundles import Network, tile_of

    name, purpose = described.architecture.name, described.purpose
    reason = _REFUSED.get(described.architecture.id)
    if reason is None and purpose not in ("SR", "Restoration"):
        reason = _REFUSED["LaMa"] if purpose == "Inpainting" else _FACE
    if reason is not None:
        raise InputError(f"model: {name} in {path.name} cannot be used: {reason}", hint=_LIST)
    rule, grid = described.size_requirements, getattr(described.model, "window_size", 1)
    grid = grid if isinstance(grid, int) else 1
    if tile is None and (described.architecture.id in _TILED or rule.square):
        tile = tile_of(rule.minimum, rule.multiple_of, grid)
    channels = described.input_channels
    if channels != described.output_channels or channels not in (1, 3):
        raise InputError(
            f"model: {name} in {path.name} must take and give RGB or grey, got "
            f"{channels} and {described.output_channels} channels"
        )
    theirs, module = _called(described), _called(described)
    _arrange(module)
    parameters = sum(p.numel() for p in module.parameters())

    def source(x: Tensor) -> Tensor:
        with torch.no_grad(), _quietly():
            out: Tensor = theirs(x)
        return out

    what = "restoration" if described.scale == 1 else f"super-resolution x{described.scale}"
    tags = f", {', '.join(described.tags)}" if described.tags else ""
    return Network(
        name=name,
        source=source,
        module=module,
        scale=described.scale,
        channels=channels,
        minimum=rule.minimum,
        multiple_of=rule.multiple_of,
        padding="reflect",
        tile=tile,
        grid=grid,
        description=f"{name}: {what}, {parameters} parameters{tags}.",
        settings={"spandrel": purpose},
    )


def _called(described: Any) -> nn.Module:
    from torch import nn

    class Called(nn.Module):
        """The network as spandrel calls it, without its clamp and its padding."""

        def __init__(self) -> None:
            super().__init__()
            self.net = copy.deepcopy(described.model).float().eval().requires_grad_(False)
            self.call = described._call_fn

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.call(self.net, x)
            return out

    return Called().eval()


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what old code makes PyTorch warn of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# What cannot be traced, in another form


def _arrange(module: nn.Module) -> None:
    """Gives what follows the values in a picture a form that `torch.export` takes, and no other."""
    for part in module.modules():
        kind = type(part)
        if kind.__name__ == "MoELayer":  # SeemoRe
            part.forward = types.MethodType(_all_experts, part)
        if "density_k" in part._parameters:  # HVI-CIDNet reads it as a number
            density: Any = part._parameters.pop("density_k")
            part.__dict__["density_k"] = _Number(density.item())
        there = vars(sys.modules[kind.__module__])
        if kind.__name__ == "ATD" and "index_reverse" in there:
            there["index_reverse"] = _inverse


class _Number(float):
    """A weight that is no tensor."""

    def item(self) -> float:
        return float(self)


def _all_experts(layer: Any, x: Tensor, k: Tensor) -> Tensor:
    """Every expert, those that the gate does not choose with weight 0."""
    import torch

    weights = torch.softmax(layer.gate(x), dim=1)
    least = torch.topk(weights, layer.num_expert)[0][:, -1:]
    weights = weights * (weights >= least)
    parts = [
        expert(x, k) * weights[:, i : i + 1, None, None] for i, expert in enumerate(layer.experts)
    ]
    return sum(parts, x)


def _inverse(permutation: Tensor) -> Tensor:
    """Of permutations of each row, without a loop that writes to places."""
    return permutation.argsort(dim=-1)


# torchvision, which spandrel takes two functions from


@contextmanager
def _torchvision() -> Iterator[None]:
    """Stands in for torchvision while spandrel is imported, unless it is there already.

    torchvision's wheels fit one build of torch, and importing it beside another fails. Two of
    spandrel's networks use it, one for faces and one that takes a mask, and neither is exported.
    """
    if "torchvision" in sys.modules or "spandrel" in sys.modules:
        yield
        return
    names = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
    modules = [types.ModuleType(name) for name in names]
    modules[0].transforms, modules[1].functional = modules[1:]  # type: ignore[attr-defined]
    for function in (_normalize, _rotate, InterpolationMode):
        setattr(modules[2], function.__name__.lstrip("_"), function)
    sys.modules |= dict(zip(names, modules, strict=True))
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


class InterpolationMode(enum.Enum):
    """torchvision's names."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"


def _normalize(
    tensor: Tensor, mean: Sequence[float], std: Sequence[float], inplace: bool = False
) -> Tensor:
    """`(tensor - mean) / std` per channel, (..., C, H, W)."""
    shift, scale = (tensor.new_tensor(values)[:, None, None] for values in (mean, std))
    if inplace:
        return tensor.sub_(shift).div_(scale)
    return (tensor - shift) / scale


def _rotate(*args: Any, **options: Any) -> Tensor:
    """LaMa's learned rotation, which needs a mask and is not exported."""
    raise ExportError("export: rotation by torchvision cannot be exported")
