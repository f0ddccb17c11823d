"""Super-resolution networks that fastvid defines itself, from their published files.

Which network a file holds, and every size of it, is read from the names and shapes of its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastvid.bundle import Bundle
from fastvid.errors import InputError
from fastvid_export import state_dicts
from fastvid_export.errors import CheckpointError
from fastvid_export.importers import Architecture, ImportOptions

if TYPE_CHECKING:
    from torch import Tensor

    from fastvid_export.upscaler_bundles import Network

_TORCH = "`.pth`, `.pt`, `.ckpt`, `.safetensors`"
ARCHITECTURES = (
    Architecture(
        "RLFN",
        "upscaler",
        "[arXiv:2205.07514](https://arxiv.org/abs/2205.07514), bytedance/RLFN",
        _TORCH,
        "RLFN, RLFN-S and that of NTIRE 2022; RGB; pieces differ slightly from the whole",
    ),
    Architecture(
        "SPAN",
        "upscaler",
        "[arXiv:2311.12770](https://arxiv.org/abs/2311.12770), hongyuanyu/SPAN",
        _TORCH,
        "as trained or folded, any width; RGB",
    ),
    Architecture(
        "EFDN",
        "upscaler",
        "[arXiv:2204.08759](https://arxiv.org/abs/2204.08759), icandle/EFDN",
        _TORCH,
        "folded; RGB; pieces differ slightly from the whole",
    ),
    Architecture(
        "FSRCNN",
        "upscaler",
        "[arXiv:1608.00367](https://arxiv.org/abs/1608.00367), yjn870 and Saafke",
        f"{_TORCH} with `--scale`; `.pb`, `.npz`",
        "luma; small ones too",
    ),
    Architecture(
        "ESPCN",
        "upscaler",
        "[arXiv:1609.05158](https://arxiv.org/abs/1609.05158), yjn870 and fannymonori",
        f"{_TORCH}; `.pb`, `.npz`",
        "luma",
    ),
)
_GRAPHS = (".pb", ".npz")
_NCNN = (".param", ".bin")


@dataclass(frozen=True)
class _Kind:
    """A network, and how a file of it is known."""

    marks: tuple[str, ...]
    """Names that are there in every file of it."""
    make: Callable[[dict[str, Tensor], ImportOptions], Network]


def matches(path: Path) -> bool:
    """Whether it is a file of one of these networks, or of a format that has another way in."""
    if not path.is_file():
        return False
    suffix = path.suffix.lower()
    if suffix in (*_GRAPHS, ".param"):
        return True
    if suffix == ".bin":
        return path.with_suffix(".param").is_file()
    if suffix not in (*state_dicts.TORCH, state_dicts.SAFETENSORS):
        return False
    return _find(state_dicts.plain(state_dicts.names(path))) is not None


def build(path: Path, folder: Path, options: ImportOptions, say: Callable[[str], None]) -> Bundle:
    """Writes the bundle of a file.

    Raises:
        CheckpointError: The file is damaged, or its weights are not those of the network.
        InputError: A flag is missing, or has no use here.
        ExportError: The graph cannot be exported, or differs from the network.
    """
    from fastvid_export import upscaler_bundles

    suffix = path.suffix.lower()
    if suffix in _NCNN:
        raise InputError(
            f"model: files of ncnn cannot be imported, got {path.name!r}",
            hint="take the .pth or .safetensors that it was converted from, or an ONNX file",
        )
    if suffix in _GRAPHS:
        network = _from_constants(path)
    else:
        state = state_dicts.read(path)
        kind = _find(state.keys())
        if kind is None:
            raise CheckpointError(
                f"checkpoint: {path} must hold the weights of one network, got "
                f"{', '.join(sorted(state)[:20])}"
            )
        network = kind.make(state, options)
    options.flags.refuse_but("weights", "scale", "name", "licence", "tile")
    if options.flags.scale not in (None, network.scale):
        raise InputError(
            f"scale: argument must be {network.scale} for {path.name}, got {options.flags.scale}"
        )
    named = upscaler_bundles.of_file(network, path, options.flags.licence)
    named = replace(named, tile=options.flags.tile)
    return upscaler_bundles.write(named, options.name, folder, say)


def _find(names: Any) -> _Kind | None:
    return next((kind for kind in _KINDS if all(mark in names for mark in kind.marks)), None)


def _rlfn(state: dict[str, Tensor], options: ImportOptions) -> Network:
    from fastvid_export.models.rlfn import Rlfn, RlfnOptions
    from fastvid_export.upscaler_bundles import with_range

    net = Rlfn(RlfnOptions.of(state_dicts.Shapes.of(state))).eval()
    state_dicts.fill(net, state, "RLFN")
    return _network("RLFN", net, with_range(net, 255.0))


def _span(state: dict[str, Tensor], options: ImportOptions) -> Network:
    from fastvid_export.models.span import Span, SpanOptions, folded

    shapes = state_dicts.Shapes.of(state)
    single = folded(state)
    sizes = dict(state_dicts.Shapes.of(single).sizes)
    if "no_norm" in shapes.sizes:
        sizes["no_norm"] = shapes.sizes["no_norm"]
    net = Span(SpanOptions.of(state_dicts.Shapes(sizes))).eval()
    state_dicts.fill(net, single, "SPAN")
    return _network("SPAN", net, net)


def _efdn(state: dict[str, Tensor], options: ImportOptions) -> Network:
    from fastvid_export.models.efdn import Efdn, EfdnOptions

    net = Efdn(EfdnOptions.of(state_dicts.Shapes.of(state))).eval()
    state_dicts.fill(net, state, "EFDN")
    return _network("EFDN", net, net)


def _fsrcnn(state: dict[str, Tensor], options: ImportOptions) -> Network:
    from fastvid_export.models.fsrcnn import Fsrcnn, FsrcnnOptions

    if options.flags.scale is None:
        raise InputError(
            "scale: argument must be given for FSRCNN, whose weights have the same shapes at every "
            "scale",
            hint="--scale 2, 3 or 4, as it was trained",
        )
    shapes = state_dicts.Shapes.of(state)
    net = Fsrcnn(FsrcnnOptions.of(shapes, options.flags.scale)).eval()
    state_dicts.fill(net, state, "FSRCNN")
    return _luma_network("FSRCNN", net, studio=True)


def _espcn(state: dict[str, Tensor], options: ImportOptions) -> Network:
    from fastvid_export.models.espcn import Espcn, EspcnOptions

    net = Espcn(EspcnOptions.of(state_dicts.Shapes.of(state))).eval()
    state_dicts.fill(net, state, "ESPCN")
    return _luma_network("ESPCN", net, studio=True)


_KINDS = (
    _Kind(("block_1.c1_r.weight", "block_1.esa.conv1.weight"), _rlfn),
    _Kind(("block_1.c1_r.eval_conv.weight", "conv_cat.weight"), _span),
    _Kind(("cells.0.conv1.conv1x1.weight", "local_fuse.0.weight"), _efdn),
    _Kind(("first_part.0.weight", "first_part.1.weight", "last_part.weight"), _fsrcnn),
    _Kind(("first_part.0.weight", "first_part.2.weight", "last_part.0.weight"), _espcn),
)


def _from_constants(path: Path) -> Network:
    """FSRCNN or ESPCN from a frozen graph, or from its constants."""
    import torch

    from fastvid_export.models import espcn, fsrcnn

    constants, last_tanh = _constants(path)
    state = {name: torch.from_numpy(value) for name, value in constants.items()}
    shapes = state_dicts.Shapes.of(state)
    if "alpha1" in state:
        options = fsrcnn.FsrcnnOptions.of_graph(shapes)
        net = fsrcnn.Fsrcnn(options).eval()
        state_dicts.fill(net, fsrcnn.from_graph(state, options), "FSRCNN")
        return _luma_network("FSRCNN", net, studio=False)
    if "f3" in state and "f4" not in state and last_tanh:
        small = espcn.Espcn(espcn.EspcnOptions.of_graph(shapes)).eval()
        state_dicts.fill(small, espcn.from_graph(state), "ESPCN")
        return _luma_network("ESPCN", small, studio=False)
    raise CheckpointError(
        f"checkpoint: {path} must hold FSRCNN or ESPCN, got {', '.join(sorted(state)[:20])}",
        hint="export the network as ONNX (tf2onnx does it), then `fastvid export x.onnx`",
    )


_FSRCNN_OPERATORS = {
    "Conv2D",
    "Add",
    "AddV2",
    "BiasAdd",
    "Abs",
    "Sub",
    "Mul",
    "Relu",
    "DepthToSpace",
}
_ESPCN_OPERATORS = {"Conv2D", "Add", "AddV2", "BiasAdd", "Relu", "DepthToSpace", "Tanh"}


def _constants(path: Path) -> tuple[Mapping[str, Any], bool]:
    """Float constants, and whether a tanh ends the network."""
    import numpy as np

    from fastvid_export import frozen_graphs

    if path.suffix.lower() == ".npz":
        try:
            with np.load(path, allow_pickle=False) as archive:
                found = {name: archive[name] for name in archive.files}
        except Exception as error:  # zipfile's and NumPy's errors have no common base
            text = " ".join(str(error).split())[:200]
            raise CheckpointError(f"checkpoint: {path} cannot be read: {text}") from None
        if wrong := [name for name, value in found.items() if value.dtype.kind != "f"]:
            raise CheckpointError(f"checkpoint: {path} must hold floats, got {', '.join(wrong)}")
        # Written from a graph: nothing but the last activation could differ.
        return {name: value.astype(np.float32) for name, value in found.items()}, True
    graph = frozen_graphs.read(path)
    used = set(graph.operators)
    if not (used <= _FSRCNN_OPERATORS or used <= _ESPCN_OPERATORS):
        raise CheckpointError(
            f"checkpoint: {path} must be FSRCNN or ESPCN, got a graph of "
            f"{', '.join(sorted(used)[:20])}",
            hint="export the network as ONNX (tf2onnx does it), then `fastvid export x.onnx`",
        )
    # A PReLU is written relu(x) + alpha * (x - |x|) * 0.5.
    if halves := {value for value in graph.scalars.values() if value != 0.5}:
        raise CheckpointError(f"checkpoint: {path} must be FSRCNN or ESPCN, got factors {halves}")
    return graph.constants, graph.operators[-1] == "Tanh"


def _network(name: str, net: Any, source: Callable[[Tensor], Tensor]) -> Network:
    from fastvid_export.upscaler_bundles import Network

    parameters = sum(p.numel() for p in net.parameters())
    return Network(
        name=name,
        source=source,
        module=net.for_export(),
        scale=net.scale,
        minimum=net.minimum,
        description=f"{name}: super-resolution x{net.scale}, {parameters} parameters.",
        settings={k: v for k, v in asdict(net.options).items() if isinstance(v, int)},
    )


def _luma_network(name: str, net: Any, *, studio: bool) -> Network:
    """A network on luma, which PyTorch's were trained with in studio range, from 16 to 235."""
    from dataclasses import replace

    from fastvid_export.models.luma_range import StudioLuma

    if not studio:
        return replace(_network(name, net, net), channels=1)
    made = _network(name, net, StudioLuma(net))
    return replace(made, module=StudioLuma(made.module), channels=1)
