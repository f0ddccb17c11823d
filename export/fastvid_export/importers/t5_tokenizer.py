"""The tokenizer of a T5 model as one file of the package `tokenizers`."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastvid_export.errors import CheckpointError

_FAST, _PIECES = "tokenizer.json", "spiece.model"
_MOST_BYTES = 64 << 20
_NORMAL, _UNKNOWN, _CONTROL, _USER, _BYTE = 1, 2, 3, 4, 6
_UNIGRAM = 1


def read_tokenizer(folder: Path, *, extra_ids: int = 100) -> bytes:
    """The content of `tokenizer.json`, made from `spiece.model` where there is no such file.

    Args:
        folder: Of the tokenizer.
        extra_ids: Marks `<extra_id_N>` that T5 has behind the pieces of the model.

    Raises:
        CheckpointError: There is neither file, or it is damaged.
    """
    from tokenizers import Tokenizer

    path = folder / _FAST
    if not path.is_file():
        return from_pieces(_read(folder / _PIECES), extra_ids=extra_ids)
    data = _read(path)
    try:
        made = Tokenizer.from_str(data.decode("utf-8"))
    except Exception as error:  # the package raises Exception itself
        raise CheckpointError(f"model: {path.name} is not a tokenizer: {error!s:.200}") from None
    # The runtime says what is too long, and pads.
    made.no_truncation()
    made.no_padding()
    text: str = made.to_str()
    return text.encode()


def from_pieces(data: bytes, *, extra_ids: int) -> bytes:
    """The same tokenizer as a file of `tokenizers`.

    A model of SentencePiece (Kudo and Richardson, 2018, arXiv 1808.06226) is a message of protocol
    buffers, of which the pieces and the rules of normalisation are read.

    Raises:
        CheckpointError: It is no such message, or not a unigram model.
    """
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
    )

    try:
        pieces, rules = _model(data)
    except (ValueError, IndexError, struct.error, UnicodeDecodeError) as error:
        raise CheckpointError(f"model: {_PIECES} is damaged: {error!s:.100}") from None
    names = [name for name, _, _ in pieces]
    kinds = [kind for _, _, kind in pieces]
    if _UNKNOWN not in kinds or "</s>" not in names:
        raise CheckpointError(f"model: {_PIECES} must have an unknown piece and '</s>'")
    vocabulary = [(name, score) for name, score, _ in pieces]
    vocabulary += [(f"<extra_id_{i}>", 0.0) for i in reversed(range(extra_ids))]
    unknown = kinds.index(_UNKNOWN)
    made = Tokenizer(models.Unigram(vocabulary, unknown, byte_fallback=_BYTE in kinds))
    steps: list[Any] = [normalizers.Precompiled(rules)] if rules else []
    steps += [normalizers.Strip(left=False), normalizers.Replace(Regex(" {2,}"), "▁")]
    made.normalizer = normalizers.Sequence(steps)
    space = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    made.pre_tokenizer = space
    made.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    end = "</s>"
    made.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, names.index(end))]
    )
    special = [
        name for name, kind in zip(names, kinds, strict=True) if kind in (_UNKNOWN, _CONTROL)
    ]
    special += [f"<extra_id_{i}>" for i in range(extra_ids)]
    made.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in special])
    text: str = made.to_str()
    return text.encode()


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise CheckpointError(f"model: {path.name} must be at most {_MOST_BYTES} bytes")
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"model: tokenizer/{_FAST} or {_PIECES} must be there: {error.strerror}"
        ) from None


def _model(data: bytes) -> tuple[list[tuple[str, float, int]], bytes]:
    """Pieces with score and kind, and the compiled rules of normalisation."""
    pieces, rules = [], b""
    for number, value in _fields(data):
        if number == 1 and isinstance(value, bytes):
            entry = dict(_fields(value))
            name, score = entry[1], entry.get(2, b"\0\0\0\0")
            if not isinstance(name, bytes) or not isinstance(score, bytes):
                raise ValueError("a piece has no name or score")
            kind = entry.get(3, _NORMAL)
            pieces.append((name.decode(), struct.unpack("<f", score)[0], int(kind)))
        elif number == 2 and isinstance(value, bytes):
            if dict(_fields(value)).get(3, _UNIGRAM) != _UNIGRAM:
                raise ValueError("its model is not of the kind unigram")
        elif number == 3 and isinstance(value, bytes):
            found = dict(_fields(value)).get(2, b"")
            rules = found if isinstance(found, bytes) else b""
    if not pieces:
        raise ValueError("it holds no pieces")
    return pieces, rules


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field of a message: an int, or the bytes of anything longer."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire = key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"a field of the kind {wire}")
        if at + size > len(data):
            raise ValueError("it ends within a field")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
