"""ONNX files as the exporter reads and writes them: external weights, and operators it knows.

A file may come from anywhere. Its external weights are read below its own folder only, never
through links, and operators that nothing here runs are refused by name.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import onnx
from onnx import TensorProto, defs

from fastvid import _safe_files
from fastvid.bundle import Bundle
from fastvid.errors import IntegrityError, UnsafePathError
from fastvid_export.convert.roles import NAMESPACE, kind
from fastvid_export.convert.standard import STANDARD_DOMAINS
from fastvid_export.errors import ExportError

INLINE_LIMIT = 1 << 30
"""Bytes up to which weights are kept in the ONNX file; protobuf ends at twice that."""

_PROTOBUF_LIMIT = 1 << 31
_ALIGNMENT = 4096
_RUNTIME_DOMAINS = ("com.microsoft",)
"""Operators of onnxruntime alone; a portable graph has none."""


def read(path: Path) -> onnx.ModelProto:
    """A model from a file, with its external weights inside.

    Raises:
        ExportError: It is not an ONNX model, or has an operator nobody knows.
        IntegrityError: The file or its weights cannot be read.
        UnsafePathError: Weights lie outside the folder of the file, or behind a link.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise IntegrityError(f"model: {path} cannot be read: {error.strerror}") from None
    model = parse(data, str(path))
    with _safe_files.open_folder(path.absolute().parent) as folder:
        _attach(model, lambda name: _read_beside(folder, name))
    check_operators(model, str(path))
    return model


def _read_beside(folder: int, name: str) -> bytes:
    try:
        size = os.stat(name, dir_fd=folder, follow_symlinks=False).st_size
    except OSError as error:
        raise IntegrityError(f"model: {name} cannot be read: {error.strerror}") from None
    return _safe_files.read(folder, name, limit=size)


def load(bundle: Bundle, graph: str) -> onnx.ModelProto:
    """A graph of a bundle, with its external weights inside; its files are verified."""
    spec = bundle.graph(graph)
    model = parse(bundle.read(spec.file), spec.file)
    _attach(model, bundle.read)
    check_operators(model, spec.file)
    return model


def parse(data: bytes, name: str) -> onnx.ModelProto:
    """A model from the bytes of a file.

    Raises:
        ExportError: They are none.
    """
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as error:  # protobuf's errors have no public base
        raise ExportError(f"model: {name} must be an ONNX model: {error}") from None
    if not model.graph.node or not model.opset_import:
        raise ExportError(
            f"model: {name} must be an ONNX model with nodes and opsets, got "
            f"{len(model.graph.node)} nodes and {len(model.opset_import)} opsets in "
            f"{len(data)} bytes"
        )
    return model


def to_bytes(model: onnx.ModelProto) -> bytes:
    """A model in one piece, to be run here.

    Raises:
        ExportError: It is too large for protobuf.
    """
    size = model.ByteSize()
    if size >= _PROTOBUF_LIMIT:
        raise ExportError(
            f"model: a graph must be below 2 GiB to be compared, got {size} bytes",
            hint="export a smaller variant of the network, or several graphs",
        )
    data: bytes = model.SerializeToString()
    return data


def dump(model: onnx.ModelProto, file: str) -> dict[str, bytes]:
    """The files of a model: `file`, and one of weights beside it where it would be too large."""
    if model.ByteSize() <= INLINE_LIMIT:
        return {file: model.SerializeToString(deterministic=True)}
    split = onnx.ModelProto()
    split.CopyFrom(model)
    weights = bytearray()
    location = f"{file.removesuffix('.onnx')}.data"
    for tensor in split.graph.initializer:
        if len(tensor.raw_data) < _ALIGNMENT:
            continue
        weights.extend(b"\0" * (-len(weights) % _ALIGNMENT))
        place = {"location": PurePosixPath(location).name, "offset": str(len(weights))}
        for key, value in (place | {"length": str(len(tensor.raw_data))}).items():
            tensor.external_data.add(key=key, value=value)
        weights.extend(tensor.raw_data)
        tensor.data_location = TensorProto.EXTERNAL
        tensor.ClearField("raw_data")
    return {file: split.SerializeToString(deterministic=True), location: bytes(weights)}


def check_operators(model: onnx.ModelProto, name: str) -> None:
    """Refuses operators that neither ONNX, onnxruntime nor fastvid has.

    Raises:
        ExportError: Names the operators and one of their nodes.
    """
    own = {(function.domain, function.name) for function in model.functions}
    unknown = {
        kind(node): node.name or node.op_type
        for node in _all_nodes(model.graph)
        if not _is_known(node) and (node.domain, node.op_type) not in own
    }
    if unknown:
        listed = ", ".join(f"{op} (node {node})" for op, node in sorted(unknown.items())[:8])
        raise ExportError(
            f"model: {name} has operators that no runtime of fastvid has: {listed}",
            hint="export the network again without them, or with onnx operators in their place",
        )


def _is_known(node: onnx.NodeProto) -> bool:
    if node.domain in STANDARD_DOMAINS:
        return bool(defs.has(node.op_type))
    return node.domain in (NAMESPACE, *_RUNTIME_DOMAINS)


def _all_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    found = []
    for node in graph.node:
        found.append(node)
        for attribute in node.attribute:
            bodies = [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
            for body in bodies:
                found += _all_nodes(body)
    return found


def _attach(model: onnx.ModelProto, read_file: Callable[[str], bytes]) -> None:
    """Puts external weights into the model; `read_file` gives the bytes of a name."""
    files: dict[str, bytes] = {}
    for tensor in model.graph.initializer:
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        place = {entry.key: entry.value for entry in tensor.external_data}
        location = place.get("location", "")
        _check_location(location, tensor.name)
        if location not in files:
            files[location] = read_file(location)
        tensor.raw_data = _piece(files[location], place, tensor)
        del tensor.external_data[:]
        tensor.data_location = TensorProto.DEFAULT


def _check_location(location: str, tensor: str) -> None:
    path = PurePosixPath(location)
    if not location or path.is_absolute() or ".." in path.parts or "\\" in location:
        raise UnsafePathError(
            f"model: weight {tensor!r} must lie in the folder of the model, got {location!r}",
            hint="save the model again with its weights beside it",
        )


def _piece(data: bytes, place: dict[str, str], tensor: onnx.TensorProto) -> bytes:
    try:
        offset = int(place.get("offset", "0"))
        length = int(place.get("length", str(len(data) - offset)))
    except ValueError:
        offset = length = -1
    if offset < 0 or length < 0 or offset + length > len(data):
        raise IntegrityError(
            f"model: weight {tensor.name!r} must lie within {place.get('location')}, "
            f"{len(data)} bytes, got offset {place.get('offset')} and length {place.get('length')}"
        )
    return data[offset : offset + length]
