"""Tokenizers of T5 models from both of their files."""

from __future__ import annotations

import struct

import pytest

tokenizers = pytest.importorskip("tokenizers")
pytest.importorskip("torch")

from fastvid_export.errors import CheckpointError  # noqa: E402
from fastvid_export.importers.t5_tokenizer import from_pieces, read_tokenizer  # noqa: E402

_PIECES = [
    ("<pad>", 0.0, 3), ("</s>", 0.0, 3), ("<unk>", 0.0, 2), ("▁", -3.0, 1), ("▁red", -2.0, 1),
    ("▁ball", -2.5, 1), ("s", -4.0, 1), ("r", -6.0, 1), ("e", -6.0, 1), ("d", -6.0, 1),
]  # fmt: skip


def _field(number, value):
    """A field of a message: bytes, a float or an int."""
    if isinstance(value, bytes):
        return bytes([number << 3 | 2, len(value)]) + value
    if isinstance(value, float):
        return bytes([number << 3 | 5]) + struct.pack("<f", value)
    return bytes([number << 3, value])


def _message(pieces=_PIECES, kind=1):
    parts = [
        _field(1, _field(1, name.encode()) + _field(2, score) + _field(3, of))
        for name, score, of in pieces
    ]
    return b"".join(parts) + _field(2, _field(3, kind)) + _field(3, _field(1, b"nmt_nfkc"))


def test_pieces_become_the_same_tokens():
    made = tokenizers.Tokenizer.from_str(from_pieces(_message(), extra_ids=2).decode())
    names = [name for name, _, _ in _PIECES]
    assert made.encode("red  balls").tokens == ["▁red", "▁ball", "s", "</s>"]
    assert made.encode("red").ids == [names.index("▁red"), 1]
    assert made.encode("").ids == [1]
    assert made.encode("x").ids == [3, 2, 1]
    # T5 has its marks behind the pieces, the last first.
    assert made.token_to_id("<extra_id_1>") == len(_PIECES)
    assert made.token_to_id("<extra_id_0>") == len(_PIECES) + 1


def test_either_file_is_read(tmp_path):
    (tmp_path / "spiece.model").write_bytes(_message())
    first = tokenizers.Tokenizer.from_str(read_tokenizer(tmp_path).decode())
    whole = first.to_str()
    first.enable_truncation(2)
    first.enable_padding(length=9)
    first.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "spiece.model").unlink()
    # Truncation and padding are the runtime's.
    assert read_tokenizer(tmp_path).decode() == whole


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "holds no pieces"),
        (b"\x0a\xff", "damaged"),
        (_message()[:25], "damaged"),
        (_message(_PIECES[3:]), "must have an unknown piece"),
        (_message(kind=2), "not of the kind unigram"),
        (b"\x0b\x01", "a field of the kind 3"),
    ],
)
def test_damaged_pieces(tmp_path, data, problem):
    (tmp_path / "spiece.model").write_bytes(data)
    with pytest.raises(CheckpointError, match=problem):
        read_tokenizer(tmp_path)


def test_a_missing_or_damaged_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"tokenizer\.json or spiece\.model must be there"):
        read_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is not a tokenizer"):
        read_tokenizer(tmp_path)
