"""A model repository for NVIDIA Triton: a folder per graph, with its configuration and version 1.

The graphs are portable, because Triton's onnxruntime backend does not have fastvid's library. An
interpolator also gets an ensemble, so that two frames and a time go in and a frame comes out of one
request. Layout and configuration are those of Triton's model repositories and `model_config.proto`:
https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_repository.md
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from fastvid.bundle import MANIFEST, Bundle, GraphSpec, TensorSpec, output_error, swap_in
from fastvid.errors import OutputError
from fastvid_export.errors import ExportError

MARKER = MANIFEST
"""The bundle's manifest, in the repository's root: Triton looks at folders only."""
MAX_BATCH = 8

_TYPES = {
    "bool": "BOOL", "uint8": "UINT8", "int8": "INT8", "uint16": "UINT16", "int16": "INT16",
    "int32": "INT32", "int64": "INT64", "float16": "FP16", "float32": "FP32", "float64": "FP64",
}  # fmt: skip


class _Word(str):
    """An enumerator, which is written without quotes."""


def model_names(bundle: Bundle) -> dict[str, str]:
    """Triton's name of each graph: the bundle's, followed by the graph's if there are several."""
    if len(bundle.graphs) == 1:
        return dict.fromkeys(bundle.graphs, bundle.name)
    return {graph: f"{bundle.name}-{graph}" for graph in bundle.graphs}


def write(bundle: Bundle, target: Path, *, overwrite: bool = False) -> Path:
    """Writes the repository of a portable bundle; it is either complete or not there.

    Args:
        bundle: Of standard operators.
        target: The repository; its parent exists.
        overwrite: Whether an earlier export there may be replaced.

    Raises:
        OutputError: The folder is there, or cannot be written.
        IntegrityError: A file of the bundle is not what it should be.
    """
    if target.exists() and not (overwrite and (target / MARKER).is_file()):
        raise OutputError(
            f"output: folder {str(target)!r} must not exist",
            hint="overwrite=True replaces an earlier export, and only that",
        )
    temporary = target.with_name(f".{target.name}.{os.urandom(6).hex()}.part")
    try:
        temporary.mkdir()
        _write_models(bundle, temporary)
        swap_in(temporary, target)
    except OSError as error:
        raise output_error(f"output: folder {str(target)!r}", error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _write_models(bundle: Bundle, folder: Path) -> None:
    (folder / MARKER).write_bytes((bundle.path / MANIFEST).read_bytes())
    others = set(bundle.files)
    for graph, name in model_names(bundle).items():
        spec = bundle.graph(graph)
        version = folder / name / "1"
        version.mkdir(parents=True)
        (version / "model.onnx").write_bytes(bundle.read(spec.file))
        for file in spec.external_data:
            # The graph names its weights relative to itself.
            (version / PurePosixPath(file).name).write_bytes(bundle.read(file))
        (folder / name / "config.pbtxt").write_text(graph_config(spec, name), encoding="utf-8")
        others -= {spec.file, *spec.external_data}
    if bundle.task == "interpolator":
        (folder / bundle.name / "1").mkdir(parents=True)
        text = ensemble_config(bundle)
        (folder / bundle.name / "config.pbtxt").write_text(text, encoding="utf-8")
    for file in others:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bundle.read(file))


def graph_config(spec: GraphSpec, name: str) -> str:
    """`config.pbtxt` of one graph."""
    batched = _is_batched([*spec.inputs, *spec.outputs])
    fields: dict[str, Any] = {
        "name": name,
        "backend": "onnxruntime",
        "default_model_filename": "model.onnx",
        "max_batch_size": MAX_BATCH if batched else 0,
        "input": [_tensor(tensor, batched) for tensor in spec.inputs],
        "output": [_tensor(tensor, batched) for tensor in spec.outputs],
    }
    if batched:
        fields["dynamic_batching"] = {}
    return _text(fields)


def ensemble_config(bundle: Bundle) -> str:
    """`config.pbtxt` of an interpolator's ensemble: `frame0`, `frame1`, `timestep` to `frame`."""
    names = model_names(bundle)
    motion, between = bundle.graph("motion"), bundle.graph("between")
    tensors = [*motion.inputs, *motion.outputs, *between.inputs, *between.outputs]
    batched = _is_batched(tensors)
    made = {tensor.name for tensor in motion.outputs}
    inputs = {tensor.name: tensor for tensor in [*motion.inputs, *between.inputs]}
    steps = [
        {
            "model_name": names[spec.name],
            "model_version": -1,
            "input_map": [_same(tensor) for tensor in spec.inputs],
            "output_map": [_same(tensor) for tensor in spec.outputs],
        }
        for spec in (motion, between)
    ]
    return _text(
        {
            "name": bundle.name,
            "platform": "ensemble",
            "max_batch_size": MAX_BATCH if batched else 0,
            "input": [_tensor(t, batched, whole=True) for n, t in inputs.items() if n not in made],
            "output": [_tensor(tensor, batched, whole=True) for tensor in between.outputs],
            "ensemble_scheduling": {"step": steps},
        }
    )


def _same(tensor: TensorSpec) -> dict[str, str]:
    return {"key": tensor.name, "value": tensor.name}


def _is_batched(tensors: Sequence[TensorSpec]) -> bool:
    """Whether the first size of everything is one that varies, so that Triton may join requests."""
    first = {tensor.shape[0] if tensor.shape else 0 for tensor in tensors}
    return len(first) == 1 and isinstance(next(iter(first)), str)


def _tensor(tensor: TensorSpec, batched: bool, *, whole: bool = False) -> dict[str, Any]:
    sizes = [size if isinstance(size, int) else -1 for size in tensor.shape]
    kind = _TYPES.get(tensor.dtype)
    if kind is None:
        raise ExportError(f"triton: {tensor.name} must have a type of Triton's, got {tensor.dtype}")
    fields: dict[str, Any] = {"name": tensor.name, "data_type": _Word(f"TYPE_{kind}")}
    if batched:
        sizes = sizes[1:]
    if sizes:
        return fields | {"dims": sizes}
    # Triton has no scalars: one number per item, which the graph sees without an axis.
    return fields | {"dims": [1]} | ({} if whole else {"reshape": {"shape": []}})


def _text(fields: dict[str, Any], indent: str = "") -> str:
    """Protobuf's text form."""
    lines = []
    for key, value in fields.items():
        items = value if isinstance(value, list) else [value]
        if items and isinstance(items[0], dict):
            for item in items:
                inner = _text(item, indent + "  ")
                body = f"\n{inner}{indent}" if inner else ""
                lines.append(f"{indent}{key} {{{body}}}")
        elif isinstance(value, list):
            lines.append(f"{indent}{key}: [{', '.join(map(str, value))}]")
        else:
            quoted = isinstance(value, str) and not isinstance(value, _Word)
            lines.append(f'{indent}{key}: "{value}"' if quoted else f"{indent}{key}: {value}")
    return "".join(f"{line}\n" for line in lines)
