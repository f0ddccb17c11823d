"""Weights in safetensors files: checked headers, and tensors that are mapped one at a time.

A file is 8 bytes of header length, a JSON header and the tensors
(https://github.com/huggingface/safetensors#format). Nothing of it is executed, and nothing of it is
believed: tensors must lie in the file side by side, without overlaps or holes, and in a checkpoint
of several files each must be where the index says and nowhere else.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

import torch
from torch import Tensor, nn

from fastvid_export.errors import CheckpointError

SUFFIX = ".safetensors"
INDEX_SUFFIX = ".safetensors.index.json"

DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Names of dtypes in a header."""

MAX_HEADER = 100 << 20
"""Bytes of a header, as safetensors' own reader limits it."""
_MAX_INDEX = 64 << 20
_MAX_DIMS = 8
_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
# A zip archive as torch.save writes it, and the first bytes of the pickle protocols.
_PICKLES = (b"PK\x03\x04", *(bytes((0x80, version)) for version in range(2, 6)))
_PIECE = 16 << 20


@dataclass(frozen=True)
class WeightSpec:
    """Where one tensor lies."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    file: Path
    offset: int
    """Bytes from the start of the file."""
    nbytes: int


class Weights(Protocol):
    """Named tensors of which one at a time is in memory."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all tensors, sorted."""

    def spec(self, name: str) -> WeightSpec:
        """Dtype and shape of a tensor, and where the values it was made from lie."""

    def read(self, name: str) -> Tensor:
        """One tensor; its memory is freed with it."""

    def in_place(self, name: str) -> bool:
        """Whether the bytes in the file are the tensor's values as they are."""


class WeightFiles:
    """The tensors of a checkpoint in one safetensors file or several.

    Args:
        specs: Where each tensor lies, by its name.
        path: What was opened.
        metadata: Texts that the files hold beside the tensors.
    """

    def __init__(
        self, specs: Mapping[str, WeightSpec], path: Path, metadata: Mapping[str, str]
    ) -> None:
        self._specs = dict(specs)
        self.path = path
        self.metadata = dict(metadata)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> WeightFiles:
        """Reads and checks the headers; no tensor is read.

        Args:
            path: A `.safetensors` file, an index (`*.safetensors.index.json`), or a folder with one
                of the two.

        Returns:
            The tensors by name.

        Raises:
            CheckpointError: There is no such file, or it is damaged; says where.
        """
        found = _find(Path(path).expanduser())
        if not found.name.endswith(INDEX_SUFFIX):
            specs, metadata = read_header(found)
            return cls(specs, found, metadata)
        return _sharded(found)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all tensors, sorted."""
        return tuple(sorted(self._specs))

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that hold the tensors."""
        return tuple(sorted({spec.file for spec in self._specs.values()}))

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(spec.nbytes for spec in self._specs.values())

    def spec(self, name: str) -> WeightSpec:
        """Dtype, shape and place of a tensor.

        Raises:
            CheckpointError: There is no such tensor.
        """
        if name not in self._specs:
            raise CheckpointError(f"weights: {self.path} must hold {name!r}, which is missing")
        return self._specs[name]

    def read(self, name: str) -> Tensor:
        """One tensor, mapped: pages come from the file as they are used, and go with the tensor.

        Writing to it does not change the file.

        Raises:
            CheckpointError: There is no such tensor, or the file cannot be read any more.
        """
        spec = self.spec(name)
        if spec.nbytes == 0:
            return torch.empty(spec.shape, dtype=spec.dtype)
        start = spec.offset // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        before = spec.offset - start
        try:
            with spec.file.open("rb") as file:
                # Private pages: torch refuses to look at memory that nobody may write.
                mapped = mmap.mmap(
                    file.fileno(), before + spec.nbytes, access=mmap.ACCESS_COPY, offset=start
                )
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"weights: {name!r} in {spec.file} cannot be read: {error}"
            ) from None
        if before % spec.dtype.itemsize:
            data = bytearray(memoryview(mapped)[before:])
            return torch.frombuffer(data, dtype=spec.dtype).reshape(spec.shape)
        count = spec.nbytes // spec.dtype.itemsize
        flat = torch.frombuffer(mapped, dtype=spec.dtype, count=count, offset=before)
        return flat.reshape(spec.shape)

    def in_place(self, name: str) -> bool:
        """True: these tensors are what the files hold."""
        return name in self._specs


def match(
    module: nn.Module,
    weights: Weights,
    *,
    rename: Callable[[str], str | None] = lambda name: name,
    optional: Collection[str] = (),
    what: str = "weights",
) -> dict[str, str]:
    """Which tensor belongs to which parameter or buffer of a module.

    Args:
        module: May lie on the meta device.
        weights: The tensors.
        rename: The key in the module's state dict for a name in the files; None leaves one out.
        optional: Keys of the module that may be missing in the files.
        what: What the message starts with.

    Returns:
        Names in the files by the module's keys.

    Raises:
        CheckpointError: Names every key that is missing, unexpected, twice there, of another shape
            or of whole numbers where fractions are wanted.
    """
    state = module.state_dict()
    wanted = {key: tuple(value.shape) for key, value in state.items()}
    found: dict[str, str] = {}
    twice, unexpected, misshapen, mistyped = [], [], [], []
    for name in weights.names:
        key = rename(name)
        if key is None:
            continue
        spec = weights.spec(name)
        shape = spec.shape
        if key not in wanted:
            unexpected.append(name)
        elif key in found:
            twice.append(f"{found[key]} and {name}")
        else:
            found[key] = name
            if shape != wanted[key]:
                misshapen.append(f"{name} {list(shape)} instead of {list(wanted[key])}")
            if state[key].is_floating_point() != spec.dtype.is_floating_point:
                kind = str(spec.dtype).removeprefix("torch.")
                mistyped.append(f"{name} {kind}")
    missing = [key for key in wanted if key not in found and key not in optional]
    lists = {"missing": missing, "unexpected": unexpected, "twice": twice, "shapes": misshapen}
    lists |= {"dtypes": mistyped}
    if problems := [f"{kind}: {', '.join(keys)}" for kind, keys in lists.items() if keys]:
        raise CheckpointError(
            f"{what}: tensors must be those of {type(module).__name__}; {'; '.join(problems)}",
            hint="the weights are of another model, or its configuration is",
        )
    return found


def pieces(spec: WeightSpec) -> Iterator[bytes]:
    """The bytes of a tensor, some megabytes at a time.

    Raises:
        CheckpointError: The file cannot be read any more.
    """
    try:
        with spec.file.open("rb") as file:
            file.seek(spec.offset)
            left = spec.nbytes
            while left:
                data = file.read(min(left, _PIECE))
                if not data:
                    raise CheckpointError(f"weights: {spec.file} ends within {spec.name!r}")
                left -= len(data)
                yield data
    except OSError as error:
        raise CheckpointError(f"weights: {spec.file} cannot be read: {error.strerror}") from None


def _find(path: Path) -> Path:
    """The file or the index that a path means."""
    if path.is_dir():
        return _find_in(path)
    if not path.is_file():
        raise CheckpointError(f"weights: {path} must be a file or a folder, there is none")
    if not path.name.endswith((SUFFIX, INDEX_SUFFIX)):
        if path.suffix in _PICKLE_SUFFIXES:
            _refuse_pickle(path)
        raise CheckpointError(f"weights: {path} must end in {SUFFIX} or {INDEX_SUFFIX}")
    return path


def _find_in(folder: Path) -> Path:
    names = sorted(entry.name for entry in folder.iterdir())
    found = [name for name in names if name.endswith(INDEX_SUFFIX)]
    found = found or [name for name in names if name.endswith(SUFFIX)]
    if len(found) > 1:
        # Variants such as model.fp16.safetensors lie beside the plain one.
        plain = [
            name for name in found if "." not in name.removesuffix(".index.json")[: -len(SUFFIX)]
        ]
        found = plain if len(plain) == 1 else found
    if len(found) == 1:
        return folder / found[0]
    if found:
        raise CheckpointError(
            f"weights: {folder} must hold one checkpoint, got {', '.join(found)}",
            hint="name the file",
        )
    if pickles := [name for name in names if name.endswith(_PICKLE_SUFFIXES)]:
        _refuse_pickle(folder / pickles[0])
    raise CheckpointError(f"weights: {folder} must hold a {SUFFIX} file, there is none")


def _refuse_pickle(path: Path) -> NoReturn:
    raise CheckpointError(
        f"weights: {path} must be a safetensors file, got a pickle, which can run code",
        hint="get the safetensors files of the model, or save them with safetensors",
    )


def _sharded(index: Path) -> WeightFiles:
    places = _read_index(index)
    specs: dict[str, WeightSpec] = {}
    metadata: dict[str, str] = {}
    shards = sorted(set(places.values()))
    absent = [shard for shard in shards if not (index.parent / shard).is_file()]
    if absent:
        raise CheckpointError(
            f"weights: {index} names files that are not there: {', '.join(absent)}",
            hint="the download is incomplete",
        )
    for shard in shards:
        tensors, texts = read_header(index.parent / shard)
        metadata |= texts
        for name, spec in tensors.items():
            if name in specs:
                raise CheckpointError(
                    f"weights: {name!r} must be in one file, got {specs[name].file.name} "
                    f"and {shard}"
                )
            if name not in places:
                raise CheckpointError(
                    f"weights: {shard} holds {name!r}, which {index} does not name"
                )
            if places[name] != shard:
                raise CheckpointError(
                    f"weights: {name!r} must be in {places[name]} as {index} says, got {shard}"
                )
            specs[name] = spec
    if missing := sorted(set(places) - set(specs)):
        raise CheckpointError(
            f"weights: {index} names tensors that its files do not hold: {', '.join(missing)}"
        )
    return WeightFiles(specs, index, metadata)


def _read_index(index: Path) -> dict[str, str]:
    try:
        if index.stat().st_size > _MAX_INDEX:
            raise CheckpointError(f"weights: {index} must have at most {_MAX_INDEX} bytes")
        value = _json(index.read_bytes(), str(index))
    except OSError as error:
        raise CheckpointError(f"weights: {index} cannot be read: {error.strerror}") from None
    places = value.get("weight_map")
    if not isinstance(places, dict) or not places:
        raise CheckpointError(f"weights: {index} must hold a 'weight_map' of names to files")
    for name, shard in places.items():
        plain = isinstance(shard, str) and re.fullmatch(r"[\w][\w.-]*", shard) is not None
        if not plain or not shard.endswith(SUFFIX):
            raise CheckpointError(
                f"weights: {index} must name {SUFFIX} files beside it, got {shard!r:.80} for "
                f"{name!r}"
            )
    return places


def read_header(path: Path) -> tuple[dict[str, WeightSpec], dict[str, str]]:
    """The tensors of one file, and its texts.

    Raises:
        CheckpointError: The file is damaged, or none of this kind.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(8)
            _check_start(path, start, size)
            length = int.from_bytes(start, "little")
            text = file.read(length)
    except OSError as error:
        raise CheckpointError(f"weights: {path} cannot be read: {error.strerror}") from None
    header = _json(text, f"header of {path}")
    metadata = header.pop("__metadata__", {})
    texts = isinstance(metadata, dict) and all(isinstance(v, str) for v in metadata.values())
    if not texts:
        raise CheckpointError(f"weights: __metadata__ of {path} must be an object of strings")
    begin = 8 + length
    specs = {name: _spec(path, name, entry, begin) for name, entry in header.items()}
    _check_places(path, specs, begin, size)
    return specs, metadata


def _check_start(path: Path, start: bytes, size: int) -> None:
    if start.startswith(_PICKLES):
        _refuse_pickle(path)
    if start == b"version ":
        raise CheckpointError(
            f"weights: {path} must be a safetensors file, got a pointer of Git LFS",
            hint="git lfs pull fetches what it points to",
        )
    length = int.from_bytes(start, "little")
    if len(start) < 8 or not 2 <= length <= MAX_HEADER or 8 + length > size:
        raise CheckpointError(
            f"weights: {path} must be a whole safetensors file, got {size} bytes"
            + (f" with a header of {length}" if len(start) == 8 else ""),
            hint="the download is incomplete, or this is another kind of file",
        )


def _spec(path: Path, name: str, entry: Any, begin: int) -> WeightSpec:
    where = f"weights: {name!r} in {path}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"{where} must have dtype, shape and data_offsets, and no more")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise CheckpointError(
            f"{where} must have one of {', '.join(DTYPES)}, got dtype {dtype!r:.40}"
        )
    # A size of 0 must not hide others that no arithmetic holds.
    if not _counts(shape) or len(shape) > _MAX_DIMS or not _counts([_product(shape)]):
        raise CheckpointError(f"{where} must have up to {_MAX_DIMS} sizes, got shape {shape!r:.80}")
    if not _counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise CheckpointError(f"{where} must have data_offsets [begin, end], got {offsets!r:.80}")
    nbytes = math.prod(shape) * DTYPES[dtype].itemsize
    taken = offsets[1] - offsets[0]
    if nbytes != taken:
        raise CheckpointError(f"{where} must take {nbytes} bytes for {shape!r:.80}, got {taken}")
    return WeightSpec(name, DTYPES[dtype], tuple(shape), path, begin + offsets[0], nbytes)


def _product(shape: list[int]) -> int:
    return math.prod(size for size in shape if size)


def _counts(value: Any) -> bool:
    return isinstance(value, list) and all(
        type(item) is int and 0 <= item < 1 << 48 for item in value
    )


def _check_places(path: Path, specs: Mapping[str, WeightSpec], begin: int, size: int) -> None:
    end, before = begin, "the header"
    for spec in sorted(specs.values(), key=lambda s: (s.offset, s.offset + s.nbytes)):
        if spec.offset < end:
            raise CheckpointError(f"weights: {spec.name!r} in {path} overlaps {before!r}")
        if spec.offset > end:
            raise CheckpointError(
                f"weights: {path} must have no holes, got {spec.offset - end} bytes before "
                f"{spec.name!r}"
            )
        end, before = spec.offset + spec.nbytes, spec.name
    if end > size:
        raise CheckpointError(
            f"weights: {path} must have {end} bytes for its tensors, got {size}",
            hint="the download is incomplete",
        )
    if end < size:
        raise CheckpointError(
            f"weights: {path} must end with its tensors, got {size - end} bytes more"
        )


def _json(data: bytes, what: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            names = [name for name, _ in pairs]
            name = next(name for name in names if names.count(name) > 1)
            raise CheckpointError(f"weights: {what} must name {name!r:.80} once, got it twice")
        return result

    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"weights: {what} must be JSON: {error!s:.120}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"weights: {what} must be a JSON object, got {type(value).__name__}")
    return value
