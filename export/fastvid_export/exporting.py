"""`fastvid_export.export`: a model becomes a folder that the SDK, TensorRT or Triton runs."""

from __future__ import annotations

import json
import os
import re
import shlex
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fastvid import __version__
from fastvid._manifest import NAME
from fastvid.bundle import (
    MANIFEST,
    Bundle,
    FidelityFigure,
    output_error,
    swap_in,
    write_bundle,
)
from fastvid.errors import InputError, InputTypeError, OutputError
from fastvid.metrics import psnr
from fastvid_export import (
    conversion,
    engines,
    fidelity,
    formats,
    onnx_files,
    precisions,
    probing,
    samples,
    sources,
    triton,
)
from fastvid_export.errors import FidelityError
from fastvid_export.foreign_graphs import OnnxFlags
from fastvid_export.formats import Format

Say = Callable[[str], None]

LARGE_PRECISIONS = ("float32", "bfloat16", "int8", "int4")
"""What folders of diffusers are exported in."""


@dataclass(frozen=True)
class Request:
    """The arguments of `export`, see there."""

    model: str | os.PathLike[str]
    format: str = "onnx"
    output: str | os.PathLike[str] | None = None
    overwrite: bool = False
    portable: bool = False
    precision: str | None = None
    device: str = "cuda"
    sizes: tuple[str, ...] = ()
    data: str | os.PathLike[str] | None = None
    min_psnr: float | None = None
    parts: Mapping[str, Path] = field(default_factory=dict)
    onnx: OnnxFlags = field(default_factory=OnnxFlags)
    loras: tuple[str, ...] = ()


@dataclass(frozen=True)
class Exported:
    """What came out."""

    path: Path
    format: str
    precision: str
    source: str
    bytes: int
    source_bytes: int
    """Of the float32 model that it was made from."""
    seconds: float
    fidelity: tuple[FidelityFigure, ...]
    conversions: Mapping[str, str]
    """What was done to each graph."""
    next_command: str
    found: Mapping[str, str] = field(default_factory=dict)
    """What was found of an ONNX file by running it, by the names of the flags."""

    def to_dict(self) -> dict[str, Any]:
        """As plain objects."""
        plain = {"conversions": dict(self.conversions), "found": dict(self.found)}
        return asdict(self) | {"path": str(self.path)} | plain


def export(
    model: str | os.PathLike[str],
    format: str = "onnx",
    *,
    output: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    portable: bool = False,
    precision: str | None = None,
    device: str = "cuda",
    sizes: tuple[str, ...] = (),
    data: str | os.PathLike[str] | None = None,
    min_psnr: float | None = None,
    parts: Mapping[str, Path] | None = None,
    onnx: OnnxFlags | None = None,
    loras: tuple[str, ...] = (),
    say: Say | None = None,
) -> Path:
    """Makes a model into what runs somewhere else or faster.

    Every graph is compared with its float32 original on pictures, and the figures are stored in
    `bundle.json`; a graph below its gate is refused, and then nothing is written.

    Args:
        model: A training checkpoint (.pt), a folder with a bundle, a shipped name, or an ONNX file.
        format: One of `formats.NAMES`.
        output: Folder to write; by default named after the model, beside it.
        overwrite: Whether an earlier export there may be replaced.
        portable: Standard ONNX operators only, for runtimes without fastvid's library.
        precision: What the graphs of an engine or a Triton repository compute in; for a folder of
            diffusers `float32`, `bfloat16`, `int8` or `int4`, see docs/large-models.md.
        device: CUDA device of an engine.
        sizes: Frame sizes of an engine, such as `1080p`; none takes the backend's own.
        data: A video, or a folder of videos, to calibrate and check with; drawn scenes by default.
        min_psnr: PSNR in dB that every output must reach, instead of the gate of the precision.
        parts: For a generator's checkpoint: those of its other networks, by family.
        onnx: For an ONNX file: what it takes and gives.
        loras: For a folder of diffusers: LoRA files to merge, `FILE` or `FILE:SCALE`.
        say: Called with lines about the progress.

    Returns:
        The folder.

    Raises:
        InputError: An argument does not fit.
        ModelError: The model cannot be used.
        ExportError: A graph cannot be converted, or is below its gate.
        OutputError: The folder is there already, or cannot be written.
        BackendUnavailableError: A package, a driver or a runtime is missing.
    """
    request = Request(
        model, format, output, overwrite, portable, precision, device, sizes, data, min_psnr,
        parts or {}, onnx or OnnxFlags(), loras,
    )  # fmt: skip
    return run(request, say or (lambda line: None)).path


def run(request: Request, say: Say) -> Exported:
    """The same, with all there is to tell."""
    started = time.perf_counter()
    row = formats.find(request.format)
    precision = _check(request, row)
    if row.name == "engine":
        engines.require(request.device)
    if request.output is not None:
        _check_target(request, Path(request.output))
    if sources.is_weights(request.model) and _is_whole(request, row):
        return _imported(request, row, say, started)
    clips = _clips(request)
    try:
        with tempfile.TemporaryDirectory(prefix="fastvid-export-") as folder:
            source = sources.resolve(
                request.model,
                Path(folder),
                parts=request.parts,
                flags=request.onnx,
                say=say,
                loras=request.loras,
            )
            target = _target(request, row, source)
            material = clips or samples.drawn(calibrate=precision == "int8")
            name = source.bundle.name if row.name == "triton" else target.name
            made = _converted(request, row, precision, source, material, name, say)
            path = _write(request, row, made, target, Path(folder), say)
    except OSError as error:
        raise output_error("export: files", error) from error
    return Exported(
        path=path,
        format=row.name,
        precision=precision,
        source=source.bundle.name,
        bytes=_size(path),
        source_bytes=sum(file.size for file in source.bundle.files.values()),
        seconds=round(time.perf_counter() - started, 3),
        fidelity=tuple(f for graph in made.graphs.values() for f in graph.figures),
        conversions={name: graph.how for name, graph in made.graphs.items()},
        next_command=_next_command(row, path, source.bundle),
        found=probing.of_settings(source.bundle.provenance.settings),
    )


def _is_whole(request: Request, row: Format) -> bool:
    """Whether what an importer writes is what is asked for."""
    return row.name == "onnx" and not request.portable and request.data is None


def _imported(request: Request, row: Format, say: Say, started: float) -> Exported:
    """Others' weights as a bundle: what the importer writes is renamed to its place, and not read.

    Importers check each graph against the network as they write it.
    """
    model = Path(request.model).expanduser()
    named = model.absolute().parent / sources.bundle_name(model)
    target = _check_target(request, named if request.output is None else Path(request.output))
    name = target.name if re.match(NAME, target.name) else None
    try:
        with tempfile.TemporaryDirectory(prefix=".fastvid-export-", dir=target.parent) as folder:
            source = sources.resolve(
                model,
                Path(folder),
                parts=request.parts,
                flags=request.onnx,
                say=say,
                name=name,
                precision=request.precision,
                loras=request.loras,
            )
            size = _size(source.bundle.path)
            swap_in(source.bundle.path, target)
    except OSError as error:
        raise output_error("export: files", error) from error
    return Exported(
        path=target,
        format=row.name,
        precision=source.bundle.precision,
        source=source.bundle.name,
        bytes=size,
        source_bytes=size,
        seconds=round(time.perf_counter() - started, 3),
        fidelity=source.bundle.fidelity,
        conversions={},
        next_command=_next_command(row, target, source.bundle),
    )


def _check(request: Request, row: Format) -> str:
    """What the graphs will compute in.

    Raises:
        InputError: An argument does not fit the format.
    """
    given = {
        "portable": request.portable,
        "precision": request.precision is not None,
        "size": bool(request.sizes),
    }
    if _is_whole(request, row) and sources.is_weights(request.model):
        return _check_precision(request.precision or "float32", LARGE_PRECISIONS)
    for name, is_given in given.items():
        if is_given and name not in row.options:
            able = [other.name for other in formats.FORMATS if name in other.options]
            raise InputError(
                f"{name}: argument must not be given for format {row.name!r}, only for "
                f"{' and '.join(able)}",
                hint=_hint_for(name, request.precision),
            )
    precision = _check_precision(request.precision or row.precision, formats.PRECISIONS)
    psnr_limit = request.min_psnr
    if psnr_limit is not None and not 0 < psnr_limit <= 200:
        raise InputError(f"min-psnr: argument must be above 0 and at most 200, got {psnr_limit}")
    return precision


def _check_precision(precision: str, allowed: tuple[str, ...]) -> str:
    if precision in allowed:
        return precision
    raise InputError(f"precision: argument must be one of {', '.join(allowed)}, got {precision!r}")


def _hint_for(name: str, precision: str | None) -> str:
    if name != "precision":
        return ""
    named = {"float32": "onnx", "float16": "onnx-fp16", "int8": "onnx-int8"}
    return f"--format {named[precision]}" if precision in named else ""


def _clips(request: Request) -> samples.Material | None:
    """The caller's own; None for drawn ones."""
    if request.data is None:
        return None
    if not isinstance(request.data, str | os.PathLike):
        raise InputTypeError(f"data: argument must be a path, got {type(request.data).__name__}")
    return samples.from_videos(Path(request.data).expanduser())


def _target(request: Request, row: Format, source: sources.Source) -> Path:
    """Where the artefact goes."""
    suffix = row.suffix + ("-portable" if request.portable else "")
    named = source.folder / f"{source.bundle.name}{suffix}"
    target = _check_target(request, named if request.output is None else Path(request.output))
    if target == source.bundle.path:
        raise OutputError(
            f"output: folder {str(target)!r} must not be the model itself", hint="--output FOLDER"
        )
    return target


def _check_target(request: Request, path: Path) -> Path:
    """The folder to write, if it can be; known before any work.

    Raises:
        OutputError: It is there, or the folder around it is not.
    """
    target = path.expanduser().absolute()
    parent = str(target.parent)
    if not target.parent.is_dir():
        raise OutputError(f"output: folder {parent!r} must be there")
    if not os.access(target.parent, os.W_OK):
        raise OutputError(f"output: folder {parent!r} must be writable")
    replaceable = request.overwrite and any(
        (target / marker).is_file() for marker in (MANIFEST, triton.MARKER)
    )
    if target.exists() and not replaceable:
        raise OutputError(
            f"output: folder {str(target)!r} must not exist",
            hint="overwrite=True replaces an earlier export, and only that",
        )
    return target


@dataclass(frozen=True)
class _Made:
    """A bundle to be."""

    graphs: Mapping[str, conversion.Converted]
    manifest: dict[str, Any]
    files: dict[str, bytes]

    def bundle(self, folder: Path) -> Bundle:
        """Written into `folder`."""
        return write_bundle(folder, self.manifest, self.files)


def _converted(
    request: Request,
    row: Format,
    precision: str,
    source: sources.Source,
    material: samples.Material,
    name: str,
    say: Say,
) -> _Made:
    bundle = source.bundle
    say(f"{bundle.name}: {row.name}, computing in {precision}; checked on {material.name}")
    recorded = samples.record(bundle, material.check)
    graphs = conversion.convert(
        bundle,
        material,
        recorded,
        precision=precision,
        portable=request.portable or row.name == "triton",
        engine=row.name == "engine",
        min_psnr=request.min_psnr,
        say=say,
    )
    manifest = _manifest(bundle, graphs, precision, request, name)
    kept = set(bundle.files) - _graph_files(bundle)
    files = {file: bundle.read(file) for file in kept}
    for graph, converted in graphs.items():
        spec = manifest["graphs"][graph]
        written = onnx_files.dump(converted.model, spec["file"])
        files |= written
        spec.pop("external_data", None)
        if external := [file for file in written if file.endswith(".data")]:
            spec["external_data"] = external
    manifest["quality"] += _end_to_end(bundle, manifest, files, material, recorded, request, say)
    if row.artefact == "bundle" and bundle.task in precisions.SIZES:
        with tempfile.TemporaryDirectory(prefix="fastvid-export-") as folder:
            made = write_bundle(Path(folder) / "made", manifest, files)
            limits = {} if request.min_psnr is not None else precisions.LOSSES
            manifest["precisions"] = precisions.of_export(made, bundle, material, limits, say)
    return _Made(graphs, manifest, files)


def _graph_files(bundle: Bundle) -> set[str]:
    specs = bundle.graphs.values()
    return {file for spec in specs for file in (spec.file, *spec.external_data)}


def _manifest(
    bundle: Bundle,
    graphs: Mapping[str, conversion.Converted],
    precision: str,
    request: Request,
    name: str,
) -> dict[str, Any]:
    """`bundle.json` of the source, with what the export changed."""
    manifest: dict[str, Any] = json.loads((bundle.path / MANIFEST).read_text(encoding="utf-8"))
    del manifest["files"], manifest["format_version"]
    manifest.pop("precisions", None)
    changed = precision != "float32" or request.portable
    figures = [asdict(figure) for graph in graphs.values() for figure in graph.figures]
    provenance = manifest["provenance"]
    settings = dict(provenance.get("settings", {}))
    if changed:
        # What was measured on the float32 graphs stays their figure.
        for figure in manifest.get("quality", ()):
            figure["data"] = f"{figure['data']}, before conversion"[:4096]
        hashes = {g: bundle.files[spec.file].sha256 for g, spec in bundle.graphs.items()}
        settings |= {f"sha256.{g}": digest for g, digest in hashes.items()}
        settings |= {f"conversion.{g}": graph.how for g, graph in graphs.items() if graph.how}
        settings["source"] = bundle.name
    manifest.setdefault("quality", [])
    return manifest | {
        "name": _name(bundle.name, name),
        "precision": precision,
        "requires_fastvid": __version__,
        "provenance": provenance
        | {
            "exporter": f"fastvid_export {__version__}",
            "command": f"fastvid export MODEL --format {request.format}",
            "created": time.strftime("%Y-%m-%d", time.gmtime()),
            "settings": settings,
        },
        "fidelity": [{k: v for k, v in f.items() if v is not None} for f in figures],
    }


def _name(source: str, folder: str) -> str:
    """The folder's name where bundles allow it, else that of the source."""
    return folder if re.match(NAME, folder) else source


def _end_to_end(
    bundle: Bundle,
    manifest: dict[str, Any],
    files: dict[str, bytes],
    material: samples.Material,
    recorded: samples.Recorded,
    request: Request,
    say: Say,
) -> list[dict[str, Any]]:
    """Figures of the SDK's own pictures with the new graphs beside those with the old.

    Raises:
        FidelityError: They are below the gate. Generators are not held to it: a small change in an
            early step leads to another picture that is as good.
    """
    with tempfile.TemporaryDirectory(prefix="fastvid-export-") as folder:
        made = write_bundle(Path(folder) / "made", manifest, files)
        pictures = samples.pictures(made, material.check)
    pairs = list(zip(pictures, recorded.pictures, strict=True))
    ours, theirs = (np.concatenate([pair[i].ravel() for pair in pairs]) for i in range(2))
    value = psnr(ours, theirs)
    largest = int(np.abs(ours.astype(np.int16) - theirs.astype(np.int16)).max())
    data = f"{len(pairs)} pictures of {material.name}"
    gate = request.min_psnr or fidelity.GATES[manifest["precision"]].pictures
    if bundle.task != "generator" and value < gate:
        raise FidelityError(
            f"fidelity: PSNR of the pictures on {data} must be at least {gate:g} dB, got "
            f"{value:.2f}"
        )
    figures = [
        {
            "metric": "largest difference from float32, end to end",
            "data": data,
            "value": largest,
            "unit": "levels",
        }
    ]
    if np.isfinite(value):
        entry = {"metric": "PSNR against float32, end to end", "data": data, "unit": "dB"}
        figures.append(entry | {"value": round(value, 2)})
    say(f"end to end: {value:.2f} dB, largest difference {largest} levels, on {data}")
    return figures


def _write(
    request: Request, row: Format, made: _Made, target: Path, workspace: Path, say: Say
) -> Path:
    bundle = made.bundle(workspace / "made") if row.name in ("engine", "triton") else None
    if bundle is not None and row.name == "triton":
        return triton.write(bundle, target, overwrite=request.overwrite)
    if bundle is not None:
        # Engines are kept by what is in the graphs, not by where they lie.
        engines.build(bundle, request.device, request.sizes, say)
    return write_bundle(target, made.manifest, made.files, overwrite=request.overwrite).path


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _next_command(row: Format, path: Path, bundle: Bundle) -> str:
    folder = shlex.quote(str(path))
    if row.name == "triton":
        return f"tritonserver --model-repository {folder}"
    commands = {
        "upscaler": f"fastvid upscale IN --scale {bundle.scale}",
        "interpolator": "fastvid interpolate IN",
        "generator": "fastvid generate PROMPT",
    }
    more = " --device cuda --backend tensorrt" if row.name == "engine" else ""
    return f"{commands[bundle.task]} --model {folder}{more}"
