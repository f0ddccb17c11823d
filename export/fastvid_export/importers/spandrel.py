"""Super-resolution and restoration checkpoints that spandrel recognises.

spandrel (https://github.com/chaiNNer-org/spandrel, MIT) knows the networks by their weights' names;
it builds them here, and is not needed to run what comes out. Its own loader, which unpickles, is
not used. This importer is the last one: it takes any file of weights that no other knows, and says
so where spandrel does not know it either.
"""

from __future__ import annotations

import enum
import sys
import types
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
    "ATD", "AuraSR", "CRAFT", "Compact", "DAT", "DCTLSA", "DITN", "DRCT", "ESRGAN", "FDAT", "GRL",
    "HAT", "IPT", "MMRealSR", "MoESR", "MoSR", "OmniSR", "PLKSR", "RCAN", "RGT", "RealCUGAN",
    "SAFMN", "SAFMNBCIE", "SeemoRe", "SwiftSRGAN", "Swin2SR", "SwinIR",
)  # fmt: skip
_RESTORATION = (
    "DRUNet", "DnCNN", "FBCNN", "FFTformer", "HVICIDNet", "KBNet", "MixDehazeNet", "NAFNet",
    "RetinexFormer", "SCUNet", "Uformer",
)  # fmt: skip
_TRIED = (
    "Compact", "DITN", "DnCNN", "ESRGAN", "MoSR", "NAFNet", "PLKSR", "RCAN", "SAFMN",
)  # fmt: skip
"""Exported and compared with random weights."""
_REFUSED = ("DAT", "OmniSR", "RealCUGAN", "SCUNet", "SwinIR")
"""Found not to export for any size."""


def _note(name: str, kind: str) -> str:
    """What is known of a network."""
    known = "not tried"
    if name in _TRIED:
        known = "exported and compared with random weights"
    elif name in _REFUSED:
        known = "recognised and refused: its code fixes the size of the picture"
    return f"{kind}{known}"


ARCHITECTURES = tuple(
    Architecture(name, "upscaler", "spandrel", _FILES, _note(name, kind))
    for names, kind in ((_SUPER_RESOLUTION, ""), (_RESTORATION, "restoration, scale 1; "))
    for name in names
)


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
    options.flags.refuse_but("weights", "scale", "name", "licence")
    state = state_dicts.read(path)
    network = _network(_described(state, path), path)
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


def _network(described: Any, path: Path) -> Network:
    import torch

    from fastvid_export.upscaler_bundles import Network

    name, purpose = described.architecture.name, described.purpose
    if purpose not in ("SR", "Restoration"):
        reason = "a mask beside the picture" if purpose == "Inpainting" else "one aligned face"
        raise InputError(f"model: {name} in {path.name} takes {reason}, which no video is")
    rule = described.size_requirements
    if rule.square:
        raise InputError(f"model: {name} in {path.name} takes square pictures only")
    channels = described.input_channels
    if channels != described.output_channels or channels not in (1, 3):
        raise InputError(
            f"model: {name} in {path.name} must take and give RGB or grey, got "
            f"{channels} and {described.output_channels} channels"
        )
    module = _called(described)
    parameters = sum(p.numel() for p in module.parameters())

    def source(x: Tensor) -> Tensor:
        with torch.no_grad():
            out: Tensor = module(x)
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
        description=f"{name}: {what}, {parameters} parameters{tags}.",
        settings={"spandrel": purpose},
    )


def _called(described: Any) -> nn.Module:
    from torch import nn

    class Called(nn.Module):
        """The network as spandrel calls it, without its clamp and its padding."""

        def __init__(self) -> None:
            super().__init__()
            self.net = described.model.float().eval().requires_grad_(False)
            self.call = described._call_fn

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.call(self.net, x)
            return out

    return Called().eval()


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
