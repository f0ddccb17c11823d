"""Folders in diffusers' layout: `model_index.json` and a folder for each component.

`model_index.json` names the pipeline, and the pipeline decides who reads the rest.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastvid.errors import InputError
from fastvid_export.errors import CheckpointError
from fastvid_export.importers import Architecture, ImportOptions, Say
from fastvid_export.importers.configs import read_json

if TYPE_CHECKING:
    from fastvid.bundle import Bundle

LARGE = True
INDEX = "model_index.json"

_PIPELINES: dict[str, str] = {
    "WanPipeline": "wan",
    "WanImageToVideoPipeline": "wan",
    "LTXPipeline": "ltx",
    "LTXImageToVideoPipeline": "ltx",
    "LTXConditionPipeline": "ltx",
}
"""Module of this package by the pipeline's class name; it has `build(source, ...)` as below."""

_FOLDER = "a diffusers folder"
_WAN = "Wan Team 2025, arXiv:2503.20314"
ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture(
        "Wan 2.1 T2V", "generator", _WAN, _FOLDER, "text to video, 1.3B and 14B; video to video"
    ),
    Architecture(
        "Wan 2.1 I2V", "generator", _WAN, _FOLDER, "from a picture, or from the first and the last"
    ),
    Architecture(
        "Wan 2.2 TI2V 5B", "generator", _WAN, _FOLDER, "text to video, and from a first picture"
    ),
    Architecture(
        "Wan 2.2 A14B", "generator", _WAN, _FOLDER, "T2V and I2V; two transformers of 14B"
    ),
    Architecture(
        "LTX-Video",
        "generator",
        "HaCohen et al. 2024, arXiv:2501.00103",
        _FOLDER,
        "0.9.0 to 0.9.8: text to video, and from a picture; licences differ by version",
    ),
)


@dataclass(frozen=True)
class PipelineFolder:
    """A folder in diffusers' layout."""

    path: Path
    class_name: str
    index: Mapping[str, Any]
    """`model_index.json`."""

    def component(self, name: str, *classes: str) -> Path:
        """The folder of a component that must be there and of one of `classes`.

        Raises:
            CheckpointError: It is not there.
            InputError: It is of another class.
        """
        kind = self.class_of(name)
        where = f"model: {self.path.name}"
        if kind is None:
            raise CheckpointError(f"{where}: {INDEX} must name {name!r}, which it does not")
        if kind not in classes:
            raise InputError(
                f"{where}: {name} must be of class {' or '.join(classes)}, got {kind!r}"
            )
        folder = self.path / name
        if not folder.is_dir():
            raise CheckpointError(f"{where}: folder {name!r} must be there, it is missing")
        return folder

    def class_of(self, name: str) -> str | None:
        """The class of a component; None where the pipeline has none."""
        entry = self.index.get(name)
        return entry[1] if isinstance(entry, list) and len(entry) == 2 else None


def matches(path: Path) -> bool:
    """Whether it is a folder with `model_index.json`."""
    return (path / INDEX).is_file()


def build(path: Path, folder: Path, options: ImportOptions, say: Say) -> Bundle:
    """Writes the bundle of a pipeline's folder, see `Importer.build`."""
    replace(options.flags, name=None, licence=None).refuse("folder of diffusers")
    source = read(path)
    module = importlib.import_module(f"fastvid_export.importers.{_PIPELINES[source.class_name]}")
    narrow = options.loras or options.precision != "float32"
    if narrow and not getattr(module, "LARGE", False):
        raise InputError(
            f"model: {source.class_name} is exported in float32 and without LoRA files, got "
            f"precision {options.precision!r} and {len(options.loras)} files"
        )
    made: Bundle = module.build(source, folder, options, say)
    return made


def read(path: Path) -> PipelineFolder:
    """The folder, its index read.

    Raises:
        CheckpointError: The index is damaged.
        InputError: The pipeline is none that is known.
    """
    index = read_json(path / INDEX)
    name = index.get("_class_name")
    if not isinstance(name, str) or name not in _PIPELINES:
        known = ", ".join(_PIPELINES) or "none yet"
        raise InputError(
            f"model: _class_name in {INDEX} must be one of {known}, got {str(name)[:80]!r}"
        )
    return PipelineFolder(path, name, index)
