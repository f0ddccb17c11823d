"""A model on disk: a folder with `bundle.json` and the files it names.

The folder is untrusted. The manifest is validated strictly, files are opened only inside the
folder and never through links, and the bytes that reach an inference runtime are the very bytes
whose sha256 was compared. No kind of file that can carry code is ever opened.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastvid import _manifest, _safe_files
from fastvid._manifest import FORMAT_VERSION
from fastvid._specs import (
    Credit,
    FidelityFigure,
    FileSpec,
    GenerationSpec,
    GraphSpec,
    PrecisionFigure,
    Provenance,
    QualityFigure,
    Scalar,
    SizeRule,
    TensorSpec,
    TilingSpec,
    generation_spec,
    graph_spec,
    integers,
)
from fastvid.errors import (
    DiskFullError,
    InputError,
    InputTypeError,
    IntegrityError,
    ManifestError,
    OutputError,
)

__all__ = [
    "FORMAT_VERSION",
    "Bundle",
    "Credit",
    "FidelityFigure",
    "FileSpec",
    "GenerationSpec",
    "GraphSpec",
    "Linked",
    "PrecisionFigure",
    "Provenance",
    "QualityFigure",
    "SizeRule",
    "TensorSpec",
    "shipped",
    "write_bundle",
]

MANIFEST = "bundle.json"
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PIECE = 4 << 20
_MODELS = Path(__file__).parent / "models"


@dataclass(frozen=True)
class Bundle:
    """A validated bundle. Its files are read, and then verified, only when asked for.

    Bundles are plain data: they can be copied to other processes with the path they came from.
    """

    path: Path
    name: str
    task: str
    """`upscaler`, `interpolator` or `generator`."""
    description: str
    licence: str
    provenance: Provenance
    graphs: Mapping[str, GraphSpec]
    size_rule: SizeRule
    files: Mapping[str, FileSpec]
    """Every file of the folder except `bundle.json`."""
    precision: str = "float32"
    """What the graphs compute in, whatever their inputs and outputs are: `float32`, `float16`,
    `bfloat16`, `int8` or `int4`."""
    scale: int | None = None
    """Factor between input and output sides of an upscaler; None for other tasks."""
    requires_fastvid: str = ""
    credits: tuple[Credit, ...] = ()
    scheduler: Mapping[str, Scalar] = field(default_factory=dict)
    tiling: TilingSpec | None = None
    """How an upscaler's frames are cut; None where its graph tells, and for other tasks."""
    generation: GenerationSpec | None = None
    """Sizes and defaults of a generator; None for other tasks."""
    quality: tuple[QualityFigure, ...] = ()
    fidelity: tuple[FidelityFigure, ...] = ()
    """What a conversion cost, graph by graph; empty for graphs that were not converted."""
    precisions: tuple[PrecisionFigure, ...] = ()
    """What running the graphs in other precisions and backends costs and brings, where measured."""
    format_version: int = FORMAT_VERSION

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Bundle:
        """Reads and validates the manifest of a folder and checks that its files are there.

        Args:
            path: The folder.

        Returns:
            The bundle; the contents of its files are verified when they are read.

        Raises:
            InputTypeError: `path` is not a path.
            ManifestError: `bundle.json` is missing or does not follow the format.
            UnsafePathError: A file lies outside the folder, is a link or of a forbidden kind.
            IntegrityError: A file is missing, has another size, or is not in the manifest.
            UnsupportedModelError: The bundle was made for a newer fastvid.
        """
        folder = _folder(path)
        try:
            with _safe_files.open_folder(folder) as descriptor:
                manifest = _read_manifest(descriptor, folder)
                _check_listing(manifest["files"], _safe_files.list_files(descriptor))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ManifestError(
                f"bundle: folder {str(folder)!r} cannot be opened: {reason}"
            ) from None
        return _build(folder, manifest)

    @classmethod
    def find(cls, model: str | os.PathLike[str], task: str, scale: int | None = None) -> Bundle:
        """Finds a bundle by the name it ships under, or in a folder.

        Args:
            model: A shipped name, in full (`upscaler-fast-x2`) or without task and scale (`fast`),
                or a folder.
            task: What the bundle must do: `upscaler`, `interpolator` or `generator`.
            scale: Factor the bundle must have; None accepts any.

        Returns:
            The bundle.

        Raises:
            InputError: No such model, or it does something else.
            ModelError: The bundle cannot be used; see `load`.
        """
        if not isinstance(model, str | os.PathLike):
            raise InputTypeError(
                f"model: argument must be a name or a folder, got {type(model).__name__}"
            )
        names = shipped()
        short = f"{task}-{model}" if scale is None else f"{task}-{model}-x{scale}"
        for name in (model, short, f"{task}-{model}"):
            if isinstance(name, str) and name in names:
                return cls.load(names[name])._require(task, scale)
        folder = os.path.expanduser(model)
        if isinstance(model, os.PathLike) or os.path.isdir(folder):
            return cls.load(folder)._require(task, scale)
        raise _unknown_model(model, names, task)

    def _require(self, task: str, scale: int | None) -> Bundle:
        if self.task != task:
            raise InputError(f"model: task must be {task!r}, {self.name!r} has {self.task!r}")
        if scale is not None and self.scale != scale:
            raise InputError(
                f"scale: argument must be {self.scale} for model {self.name!r}, got {scale}"
            )
        return self

    def graph(self, name: str) -> GraphSpec:
        """The graph called `name`.

        Raises:
            InputError: The bundle has no such graph.
        """
        if name not in self.graphs:
            raise InputError(
                f"graph: argument must be one of {', '.join(map(repr, self.graphs))}, got {name!r}"
            )
        return self.graphs[name]

    def read(self, file: str) -> bytes:
        """Reads one file and verifies it.

        Args:
            file: A key of `files`.

        Returns:
            The bytes whose sha256 is the one in the manifest.

        Raises:
            InputError: The manifest does not name the file.
            IntegrityError: The file is missing or not the one that the manifest names.
            UnsafePathError: The file is a link or not a regular file.
        """
        with self._folder(file) as descriptor:
            data = _safe_files.read(descriptor, file, limit=self.files[file].size)
        self._compare(file, hashlib.sha256(data).hexdigest())
        return data

    def check(self, file: str) -> _safe_files.Identity:
        """Verifies one file a piece at a time, for files that are mapped and not read.

        Args:
            file: A key of `files`.

        Returns:
            Which file it was, for `require_unchanged`.

        Raises:
            FastvidError: As `read`.
        """
        with self._folder(file) as descriptor:
            found, which = _safe_files.digest(descriptor, file, limit=self.files[file].size)
        self._compare(file, found)
        return which

    def require_unchanged(self, file: str, which: _safe_files.Identity) -> None:
        """Says that a file is still the one that `check` verified.

        Raises:
            IntegrityError: It was written to, or another one has its name.
        """
        with self._folder(file) as descriptor:
            if _safe_files.identity(descriptor, file) == which:
                return
        raise IntegrityError(
            f"{self.name}: {file} must not be changed while it is loaded",
            hint="load the model again when nothing writes to its folder",
        )

    def verify(self) -> None:
        """Reads every file and compares its sha256.

        Raises:
            IntegrityError: A file is missing or not the one that the manifest names.
            UnsafePathError: A file is a link or not a regular file.
        """
        for file in self.files:
            self.check(file)

    @contextlib.contextmanager
    def _folder(self, file: str) -> Iterator[int]:
        if file not in self.files:
            raise InputError(f"file: argument must be a file of {self.name!r}, got {file!r}")
        try:
            with _safe_files.open_folder(self.path) as descriptor:
                yield descriptor
        except OSError as error:
            raise IntegrityError(
                f"bundle: folder {str(self.path)!r} cannot be opened: {error.strerror}"
            ) from None

    def _compare(self, file: str, actual: str) -> None:
        if actual != self.files[file].sha256:
            raise IntegrityError(
                f"{self.name}: sha256 of {file} must be {self.files[file].sha256}, got {actual}",
                hint="the file was changed or cut; install or download the model again",
            )


@dataclass(frozen=True)
class Linked:
    """A file of a new bundle that need not be copied, because nothing writes to it any more."""

    path: Path


def shipped() -> dict[str, Path]:
    """Names and folders of the models that are installed with fastvid, sorted by name."""
    try:
        folders = sorted(_MODELS.iterdir())
    except OSError:
        return {}
    return {folder.name: folder for folder in folders if (folder / MANIFEST).is_file()}


def _unknown_model(model: str, names: Mapping[str, Path], task: str) -> InputError:
    known = ", ".join(name for name in names if name.startswith(f"{task}-")) or "none is installed"
    shown = model if len(model) <= 80 else model[:77] + "..."
    hint = "a folder that holds bundle.json is accepted too"
    if re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        hint = f"there is no such folder, and repository ids are not resolved; {hint}"
    return InputError(
        f"model: argument must be a shipped {task} ({known}), got {shown!r}", hint=hint
    )


def _folder(path: str | os.PathLike[str]) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise InputTypeError(f"path: argument must be a folder, got {type(path).__name__}")
    return Path(path).absolute()


def _read_manifest(descriptor: int, folder: Path) -> dict[str, Any]:
    try:
        data = _safe_files.read(descriptor, MANIFEST, limit=_manifest.MAX_BYTES)
    except IntegrityError as error:
        raise ManifestError(
            f"bundle: folder {str(folder)!r} must hold a readable {MANIFEST}: {error.message}"
        ) from None
    manifest = _manifest.parse(data)
    _manifest.check_version(manifest)
    _manifest.check(manifest)
    _manifest.check_references(manifest)
    return manifest


def _check_listing(files: Mapping[str, Any], present: set[str]) -> None:
    for path in sorted(set(files) - present):
        raise IntegrityError(f"bundle: file {path} is missing from the folder")
    for path in sorted(present - set(files) - {MANIFEST}):
        raise IntegrityError(f"bundle: file {path} must be listed in $.files of bundle.json")


def _build(folder: Path, manifest: Mapping[str, Any]) -> Bundle:
    fields = dict(manifest)
    graphs = {name: graph_spec(name, graph) for name, graph in fields.pop("graphs").items()}
    provenance = dict(fields.pop("provenance"))
    training_data = tuple(provenance.pop("training_data", ()))
    scale = fields.pop("scale", None)
    generation, tiling = fields.pop("generation", None), fields.pop("tiling", None)
    return Bundle(
        path=folder,
        graphs=graphs,
        provenance=Provenance(training_data=training_data, **provenance),
        size_rule=SizeRule(**integers(fields.pop("size_rule"))),
        files={path: FileSpec(**integers(file)) for path, file in fields.pop("files").items()},
        credits=tuple(Credit(**credit) for credit in fields.pop("credits", ())),
        quality=tuple(QualityFigure(**figure) for figure in fields.pop("quality", ())),
        fidelity=tuple(FidelityFigure(**figure) for figure in fields.pop("fidelity", ())),
        precisions=tuple(PrecisionFigure(**figure) for figure in fields.pop("precisions", ())),
        scale=None if scale is None else int(scale),
        tiling=None if tiling is None else TilingSpec(**integers(tiling)),
        generation=None if generation is None else generation_spec(generation),
        format_version=int(fields.pop("format_version")),
        **fields,
    )


def write_bundle(
    folder: str | os.PathLike[str],
    manifest: Mapping[str, Any],
    files: Mapping[str, bytes | os.PathLike[str] | Linked],
    *,
    overwrite: bool = False,
) -> Bundle:
    """Writes a bundle that is either complete or not there.

    The files go into a temporary folder beside the target, which is renamed when everything is
    written and loads again.

    Args:
        folder: Where the bundle goes; its parent must exist.
        manifest: `bundle.json` without `format_version` and `files`, which are filled in.
        files: Contents or source path of each file by its name in the folder. A file that is
            `Linked` takes no space where the disk allows; others are copied.
        overwrite: Whether a bundle that is already there may be replaced.

    Returns:
        The bundle as loaded from its final place.

    Raises:
        OutputError: The target exists, or cannot be written.
        ManifestError: The manifest does not follow the format.
        UnsafePathError: A file name is not allowed.
    """
    target = _folder(folder)
    if target.exists() and not (overwrite and (target / MANIFEST).is_file()):
        hint = "overwrite=True replaces a bundle, and only a bundle"
        raise OutputError(f"folder: {str(target)!r} must not exist", hint=hint)
    for path in files:
        _safe_files.check_path(path, "files: name")
    temporary = target.with_name(f".{target.name}.{os.urandom(6).hex()}.part")
    try:
        temporary.mkdir()
        _write_files(temporary, manifest, files)
        bundle = Bundle.load(temporary)
        for path, source in files.items():
            # The others' digests are already those of what was written.
            if isinstance(source, bytes):
                bundle.check(path)
        swap_in(temporary, target)
    except OSError as error:
        raise output_error(f"folder: {str(target)!r}", error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Bundle.load(target)


def output_error(what: str, error: OSError) -> OutputError:
    """The error of the tree for a file or folder that cannot be written."""
    kind = DiskFullError if error.errno in _DISK_FULL else OutputError
    return kind(f"{what} cannot be written: {error.strerror}")


def swap_in(temporary: Path, target: Path) -> None:
    """Renames a folder to its final name; what was there before goes when that has worked."""
    if not target.exists():
        temporary.rename(target)
        return
    old = temporary.with_suffix(".old")
    target.rename(old)
    try:
        temporary.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _write_files(
    folder: Path,
    manifest: Mapping[str, Any],
    files: Mapping[str, bytes | os.PathLike[str] | Linked],
) -> None:
    specs = {}
    for path, source in files.items():
        if isinstance(source, bytes):
            _write_synced(folder / path, source)
            specs[path] = {"sha256": hashlib.sha256(source).hexdigest(), "size": len(source)}
            continue
        linked = isinstance(source, Linked)
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        place(source.path if isinstance(source, Linked) else Path(source), target, link=linked)
        with _safe_files.open_folder(folder) as descriptor:
            found, which = _safe_files.digest(descriptor, path, limit=_manifest.MAX_FILE_BYTES)
        specs[path] = {"sha256": found, "size": which.size}
    complete = {"format_version": FORMAT_VERSION, **manifest, "files": specs}
    try:
        text = json.dumps(complete, indent=2, ensure_ascii=False, allow_nan=False)
        data = f"{text}\n".encode()
    except (TypeError, ValueError) as error:
        raise ManifestError(f"manifest: values must be JSON: {error}") from None
    _write_synced(folder / MANIFEST, data)


def place(source: Path, target: Path, *, link: bool) -> bool:
    """Puts a file into a folder.

    Args:
        source: The file; a symbolic link means what it leads to.
        target: Its new name, which is free.
        link: Whether both names may mean the same file, where the disk allows.

    Returns:
        Whether they do.

    Raises:
        OSError: It cannot be read or written.
    """
    source = source.resolve()
    if link:
        # Another disk, or one without hard links.
        with contextlib.suppress(OSError):
            os.link(source, target)
            return True
    with source.open("rb") as original, target.open("wb") as copy:
        shutil.copyfileobj(original, copy, _PIECE)
        copy.flush()
        os.fsync(copy.fileno())
    return False


def _write_synced(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
