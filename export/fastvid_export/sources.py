"""What `export` may be given: a training checkpoint, a bundle, or an ONNX file with flags.

Whatever it was, a bundle in float32 comes out, which the conversions start from.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fastvid.bundle import MANIFEST, Bundle, shipped
from fastvid.errors import BackendUnavailableError, InputError, InputTypeError
from fastvid_export.foreign_graphs import OnnxFlags

CHECKPOINTS = (".pt", ".pth", ".ckpt")
INSTALL = "pip install 'fastvid-sdk[export]'"


@dataclass(frozen=True)
class Source:
    """A model to export."""

    bundle: Bundle
    kind: str
    """`checkpoint`, `bundle` or `onnx`."""
    folder: Path
    """Where artefacts go by default."""


def resolve(
    model: str | os.PathLike[str],
    workspace: Path,
    *,
    parts: Mapping[str, Path],
    flags: OnnxFlags,
    say: Callable[[str], None],
) -> Source:
    """The model as a float32 bundle.

    Args:
        model: A checkpoint (.pt), an ONNX file, a folder with a bundle, or a shipped name.
        workspace: An empty folder for what must be made first.
        parts: Checkpoints of networks trained apart, by family; for checkpoints only.
        flags: What an ONNX file takes; for such files only.
        say: Called with lines about the progress.

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
    if kind != "onnx":
        flags.refuse(kind)
    if kind == "checkpoint":
        return Source(_from_checkpoint(path, workspace, parts, say), kind, path.parent)
    if kind == "onnx":
        from fastvid_export import foreign

        made = foreign.wrap(path, flags, workspace / foreign.name_of(path, flags))
        return Source(made, kind, path.parent)
    name = os.fspath(model)
    if name in shipped():
        return Source(_float32(Bundle.load(shipped()[name])), kind, Path())
    return Source(_float32(Bundle.load(path)), kind, path.absolute().parent)


def _kind(path: Path) -> str:
    if path.suffix.lower() in CHECKPOINTS and not path.is_dir():
        return "checkpoint"
    if path.suffix.lower() == ".onnx" and not path.is_dir():
        if not path.is_file():
            raise InputError(f"model: argument must be a file that is there, got {str(path)!r}")
        return "onnx"
    if str(path) in shipped() or (path / MANIFEST).is_file():
        return "bundle"
    names = ", ".join(shipped()) or "none is installed"
    what = "a folder without bundle.json" if path.is_dir() else repr(str(path)[:80])
    raise InputError(
        "model: argument must be a training checkpoint (.pt), an ONNX file (.onnx), a folder that "
        f"holds bundle.json, or a shipped model ({names}), got {what}"
    )


def _float32(bundle: Bundle) -> Bundle:
    if bundle.precision != "float32":
        raise InputError(
            f"model: precision must be float32, {bundle.name!r} has {bundle.precision}",
            hint="export from the float32 bundle or checkpoint that it was made from",
        )
    return bundle


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
