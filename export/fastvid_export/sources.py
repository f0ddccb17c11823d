"""What `export` may be given: a training checkpoint, a bundle, others' weights, or an ONNX file.

Whatever it was, a bundle in float32 comes out, which the conversions start from.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fastvid.bundle import MANIFEST, Bundle, shipped
from fastvid.errors import BackendUnavailableError, InputError, InputTypeError
from fastvid_export import importers
from fastvid_export.foreign_graphs import OnnxFlags

CHECKPOINTS = (".pt", ".pth", ".ckpt")
INSTALL = "pip install 'fastvid-sdk[export]'"


@dataclass(frozen=True)
class Source:
    """A model to export."""

    bundle: Bundle
    kind: str
    """`checkpoint`, `bundle`, `weights` or `onnx`."""
    folder: Path
    """Where artefacts go by default."""


def resolve(
    model: str | os.PathLike[str],
    workspace: Path,
    *,
    parts: Mapping[str, Path],
    flags: OnnxFlags,
    say: Callable[[str], None],
    name: str | None = None,
    precision: str | None = None,
    loras: tuple[str, ...] = (),
) -> Source:
    """The model as a float32 bundle.

    Args:
        model: A checkpoint (.pt), an ONNX file, a folder with a bundle, a shipped name, or weights
            that one of `importers` knows.
        workspace: An empty folder for what must be made first.
        parts: Checkpoints of networks trained apart, by family; for checkpoints only.
        flags: What an ONNX file takes; for such files, and for weights that need them.
        say: Called with lines about the progress.
        name: Of a bundle made from others' weights, unless a flag says another.
        precision: What large networks of others' weights compute in; None is float32.
        loras: Files to merge into others' weights, `FILE` or `FILE:SCALE`.

    Raises:
        InputError: It is none of these, or an argument is for another kind.
        ModelError: The bundle or the file cannot be used.
        ExportError: A checkpoint or a graph cannot be exported.
        BackendUnavailableError: A package for checkpoints is missing.
    """
    if not isinstance(model, str | os.PathLike):
        raise InputTypeError(
            f"model: argument must be a path or a name, got {type(model).__name__}"
        )
    path = Path(model).expanduser()
    kind = _kind(path)
    if parts and kind != "checkpoint":
        raise InputError(f"part: argument is for checkpoints, got a {kind}")
    if loras and kind != "weights":
        raise InputError(f"lora: argument is for folders of diffusers, got a {kind}")
    if kind not in ("onnx", "weights"):
        flags.refuse(kind)
    if kind == "weights":
        name = flags.name or name or bundle_name(path)
        made = _from_weights(path, workspace, _options(path, name, flags, precision, loras), say)
        return Source(made, kind, path.absolute().parent)
    if kind == "checkpoint":
        return Source(_from_checkpoint(path, workspace, parts, say), kind, path.parent)
    if kind == "onnx":
        from fastvid_export import foreign

        made = foreign.wrap(path, flags, workspace / foreign.name_of(path, flags), say)
        return Source(made, kind, path.parent)
    called = os.fspath(model)
    if called in shipped():
        return Source(_float32(Bundle.load(shipped()[called])), kind, Path())
    return Source(_float32(Bundle.load(path)), kind, path.absolute().parent)


def is_weights(model: str | os.PathLike[str]) -> bool:
    """Whether it is somebody else's weights, which an importer makes into a bundle."""
    return isinstance(model, str | os.PathLike) and _kind(Path(model).expanduser()) == "weights"


def _kind(path: Path) -> str:
    if path.suffix.lower() == ".onnx" and not path.is_dir():
        if not path.is_file():
            raise InputError(f"model: argument must be a file that is there, got {str(path)!r}")
        return "onnx"
    if str(path) in shipped() or (path / MANIFEST).is_file():
        return "bundle"
    if importers.find(path) is not None:
        return "weights"
    if path.suffix.lower() in CHECKPOINTS and not path.is_dir():
        return "checkpoint"
    names = ", ".join(shipped()) or "none is installed"
    what = repr(str(path)[:80])
    if path.is_dir():
        what = "a folder without bundle.json or model_index.json"
    raise InputError(
        "model: argument must be a training checkpoint (.pt), an ONNX file (.onnx), a folder that "
        "holds bundle.json or model_index.json, weights that can be imported, or a shipped model "
        f"({names}), got {what}"
    )


def _float32(bundle: Bundle) -> Bundle:
    if bundle.precision != "float32":
        raise InputError(
            f"model: precision must be float32, {bundle.name!r} has {bundle.precision}",
            hint="export from the float32 bundle or checkpoint that it was made from",
        )
    return bundle


def _from_weights(
    path: Path, workspace: Path, options: importers.ImportOptions, say: Callable[[str], None]
) -> Bundle:
    importer = importers.find(path)
    assert importer is not None
    say(f"importing {path}")
    try:
        return importer.build(path, workspace / "float32", options, say)
    except ModuleNotFoundError as error:
        raise BackendUnavailableError(
            f"export: {error.name} is not installed, and these weights need it", hint=INSTALL
        ) from None


def _options(
    path: Path, name: str, flags: OnnxFlags, precision: str | None, loras: tuple[str, ...]
) -> importers.ImportOptions:
    """What an importer is told.

    Raises:
        InputError: The importer has no use for it.
    """
    if not (loras or precision not in (None, "float32")):
        return importers.ImportOptions(name, flags)
    from fastvid_export import lora

    if not getattr(importers.find(path), "LARGE", False):
        what = "lora" if loras else "precision"
        raise InputError(
            f"{what}: argument is for folders of diffusers, {path.name} is none",
            hint="" if loras else "export it first, then its bundle with --format",
        )
    files = tuple(map(lora.parse, loras))
    return importers.ImportOptions(name, flags, precision or "float32", files)


def bundle_name(path: Path) -> str:
    """The name of a file or folder, as far as a bundle may be called so."""
    stem = path.absolute().name if path.is_dir() else path.stem
    name = re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-._")[:64]
    return name or "imported"


def _from_checkpoint(
    path: Path, workspace: Path, parts: Mapping[str, Path], say: Callable[[str], None]
) -> Bundle:
    try:
        from fastvid_export import bundles, registry
        from fastvid_export.training import checkpoint
    except ModuleNotFoundError as error:
        raise BackendUnavailableError(
            f"export: {error.name} is not installed, and checkpoints need it", hint=INSTALL
        ) from None
    family = checkpoint.load(path).task
    if family not in registry.NAMES:
        raise InputError(
            f"model: checkpoint must be of one of {', '.join(registry.NAMES)}, got {family!r}"
        )
    say(f"exporting {family} from {path}")
    return bundles.build(family, path, workspace / "float32", parts=parts, say=say)
