"""Safetensors files: what is read, that little of it is in memory, and what is refused."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fastvid.errors import InputError  # noqa: E402
from fastvid_export import weight_writer  # noqa: E402
from fastvid_export.errors import CheckpointError  # noqa: E402
from fastvid_export.weight_files import WeightFiles, match, pieces  # noqa: E402

Entry = dict[str, Any]


def file_of(path: Path, header: Any, data: bytes = b"") -> Path:
    """A file with a header of any content."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(begin: int, end: int, shape: list[int], dtype: str = "F32") -> Entry:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def two(path: Path, first: str = "a", second: str = "b") -> Path:
    data = np.arange(6, dtype=np.float32).tobytes()
    return file_of(path, {first: entry(0, 8, [2]), second: entry(8, 24, [2, 2])}, data)


def test_tensors_are_read_as_they_were_written(tmp_path: Path) -> None:
    values = {
        "half": torch.randn(3, 5).half(),
        "bfloat": torch.randn(7, dtype=torch.bfloat16),
        "double": torch.randn(2, 2, dtype=torch.float64),
        "flag": torch.tensor([True, False, True]),
        "scalar": torch.tensor(3.5),
        "none": torch.empty(0, 4),
    }
    path = tmp_path / "model.safetensors"
    weight_writer.write(path, {n: (v.dtype, tuple(v.shape)) for n, v in values.items()}, values.get)
    files = WeightFiles.open(tmp_path)
    assert files.names == tuple(sorted(values))
    assert files.files == (path,)
    assert files.nbytes == sum(v.numel() * v.element_size() for v in values.values())
    for name, value in values.items():
        got = files.read(name)
        assert (got.dtype, got.shape) == (value.dtype, value.shape)
        assert torch.equal(got, value)
        spec = files.spec(name)
        raw = path.read_bytes()[spec.offset : spec.offset + spec.nbytes]
        assert b"".join(pieces(spec)) == raw


def test_safetensors_reads_what_is_written_and_the_other_way_round(tmp_path: Path) -> None:
    peer = pytest.importorskip("safetensors.torch")
    value = torch.randn(4, 3)
    weight_writer.write(
        tmp_path / "ours.safetensors", {"x": (value.dtype, (4, 3))}, lambda _: value
    )
    assert torch.equal(peer.load_file(tmp_path / "ours.safetensors")["x"], value)
    peer.save_file({"y": value}, tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    files = WeightFiles.open(tmp_path / "theirs.safetensors")
    assert files.metadata == {"format": "pt"}
    assert torch.equal(files.read("y"), value)


def test_misaligned_tensors_are_read(tmp_path: Path) -> None:
    data = b"\x01" + np.float32([2.5, -1]).tobytes()
    header = {"a": entry(0, 1, [1], "U8"), "b": entry(1, 9, [2])}
    files = WeightFiles.open(file_of(tmp_path / "m.safetensors", header, data))
    assert files.read("b").tolist() == [2.5, -1]


def test_writing_to_a_tensor_leaves_the_file_alone(tmp_path: Path) -> None:
    path = two(tmp_path / "m.safetensors")
    before = path.read_bytes()
    files = WeightFiles.open(path)
    files.read("a").fill_(9)
    assert path.read_bytes() == before
    assert files.read("a").tolist() == [0, 1]


def test_shards_are_found_by_their_index(tmp_path: Path) -> None:
    two(tmp_path / "m-1.safetensors", "a", "b")
    two(tmp_path / "m-2.safetensors", "c", "d")
    write_index(tmp_path, {"a": 1, "b": 1, "c": 2, "d": 2})
    files = WeightFiles.open(tmp_path)
    assert files.names == ("a", "b", "c", "d")
    assert files.spec("c").file.name == "m-2.safetensors"
    assert files.read("d").tolist() == [[2, 3], [4, 5]]
    assert WeightFiles.open(tmp_path / "m.safetensors.index.json").names == files.names


def test_the_plain_variant_is_taken(tmp_path: Path) -> None:
    two(tmp_path / "model.fp16.safetensors", "wrong", "one")
    two(tmp_path / "model.safetensors")
    assert WeightFiles.open(tmp_path).names == ("a", "b")
    two(tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"one checkpoint, got model\.fp16.*other"):
        WeightFiles.open(tmp_path)


def write_index(folder: Path, places: dict[str, Any]) -> None:
    names = {n: f"m-{p}.safetensors" if isinstance(p, int) else p for n, p in places.items()}
    text = json.dumps({"metadata": {}, "weight_map": names})
    (folder / "m.safetensors.index.json").write_text(text)


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ({"a": 1, "b": 1, "c": 3}, r"names files that are not there: m-3"),
        ({"a": 1, "b": 1, "c": 2}, r"m-2\.safetensors holds 'd', which .* does not name"),
        ({"a": 1, "b": 2, "c": 2, "d": 2}, r"'b' must be in m-2\.safetensors as .* says, got m-1"),
        ({"a": 1, "b": 1, "c": 2, "d": 2, "e": 2}, r"tensors that its files do not hold: e"),
        ({"a": "../x.safetensors"}, r"files beside it, got '\.\./x"),
        ({"a": "/x.safetensors"}, r"files beside it"),
        ({"a": "x.bin"}, r"files beside it"),
        ({"a": 1.5}, r"not there|files beside it"),
        ({}, r"weight_map"),
    ],
)
def test_an_index_must_tell_the_truth(tmp_path: Path, places: dict[str, Any], message: str) -> None:
    two(tmp_path / "m-1.safetensors", "a", "b")
    two(tmp_path / "m-2.safetensors", "c", "d")
    write_index(tmp_path, places)
    with pytest.raises(CheckpointError, match=message):
        WeightFiles.open(tmp_path)


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    two(tmp_path / "m-1.safetensors", "a", "b")
    two(tmp_path / "m-2.safetensors", "b", "c")
    write_index(tmp_path, {"a": 1, "b": 1, "c": 2})
    with pytest.raises(CheckpointError, match=r"'b' must be in one file, got m-1.* and m-2"):
        WeightFiles.open(tmp_path)


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ({"a": entry(0, 8, [2]), "b": entry(4, 12, [2])}, 12, "'b' in .* overlaps 'a'"),
        ({"a": entry(0, 8, [2]), "b": entry(0, 8, [2])}, 8, "overlaps"),
        ({"a": entry(0, 8, [2]), "b": entry(12, 20, [2])}, 20, "no holes, got 4 bytes before 'b'"),
        ({"a": entry(4, 12, [2])}, 12, "no holes"),
        ({"a": entry(0, 8, [2])}, 4, "must have .* bytes for its tensors"),
        ({"a": entry(0, 8, [2])}, 12, "must end with its tensors, got 4 bytes more"),
        ({"a": entry(0, 8, [3])}, 8, "must take 12 bytes for"),
        ({"a": entry(8, 0, [2])}, 8, r"data_offsets \[begin, end\]"),
        ({"a": entry(0, 8, [-2])}, 8, "sizes"),
        ({"a": entry(0, 8, [True, 2])}, 8, "sizes"),
        ({"a": entry(0, 8, [1] * 9)}, 8, "up to 8 sizes"),
        ({"a": entry(0, 0, [1 << 47, 1 << 47, 0])}, 0, "sizes"),
        ({"a": entry(0, 8, [1 << 50])}, 8, "sizes"),
        ({"a": entry(0, 8, [2], "F31")}, 8, "got dtype 'F31'"),
        ({"a": entry(0, 8, [2]) | {"x": 1}}, 8, "and no more"),
        ({"a": {"dtype": "F32", "shape": [2]}}, 8, "data_offsets, and no more"),
        ({"a": 3}, 0, "and no more"),
        ({"__metadata__": {"x": 1}}, 0, "__metadata__"),
        ([], 0, "JSON object, got list"),
        (b'{"a": ' + b"[" * 100_000, 0, "must be JSON"),
        (b"\xff\xfe{}", 0, "must be JSON"),
        (b'{"a":1,"a":2}', 0, "must name 'a' once"),
        (b'{"a":{"dtype":"F32","dtype":"F32","shape":[0],"data_offsets":[0,0]}}', 0, "once"),
    ],
)
def test_headers_must_be_whole_and_true(
    tmp_path: Path, header: Any, data: int, message: str
) -> None:
    path = file_of(tmp_path / "m.safetensors", header, bytes(data))
    with pytest.raises(CheckpointError, match=message):
        WeightFiles.open(path)


@pytest.mark.parametrize("size", [0, 4, 8, 20, 100])
def test_a_cut_file_is_refused(tmp_path: Path, size: int) -> None:
    path = two(tmp_path / "m.safetensors")
    os.truncate(path, size)
    with pytest.raises(CheckpointError, match=r"whole safetensors file|must be JSON|must have"):
        WeightFiles.open(path)


def test_a_file_that_is_cut_later_is_an_error_and_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    weight_writer.write(path, {"a": (torch.float32, (9000,))}, lambda _: torch.zeros(9000))
    files = WeightFiles.open(path)
    os.truncate(path, 5000)
    with pytest.raises(CheckpointError, match=r"'a' in .* cannot be read"):
        files.read("a")
    with pytest.raises(CheckpointError, match="ends within 'a'"):
        list(pieces(files.spec("a")))


def save_pickle(path: Path) -> Path:
    torch.save({"a": torch.zeros(2)}, path)
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: save_pickle(f / "m.safetensors"), "got a pickle, which can run code"),
        (lambda f: save_pickle(f / "m.bin"), "got a pickle"),
        (lambda f: save_pickle(f / "m.bin").parent, "got a pickle"),
        (lambda f: f, "there is none"),
        (lambda f: f / "nowhere.safetensors", "there is none"),
        (lambda f: two(f / "m.txt"), "must end in .safetensors"),
    ],
)
def test_other_files_are_refused(
    tmp_path: Path, make: Callable[[Path], Path], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        WeightFiles.open(make(tmp_path))


def test_a_pointer_of_git_lfs_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    with pytest.raises(CheckpointError, match="pointer of Git LFS"):
        WeightFiles.open(path)


def test_an_unknown_name_is_refused(tmp_path: Path) -> None:
    files = WeightFiles.open(two(tmp_path / "m.safetensors"))
    with pytest.raises(InputError, match="must hold 'z'"):
        files.read("z")


def test_tensors_are_matched_with_a_module(tmp_path: Path) -> None:
    with torch.device("meta"):
        module = torch.nn.Linear(2, 2)
    path = two(tmp_path / "m.safetensors", "net.bias", "net.weight")
    files = WeightFiles.open(path)
    assert match(module, files, rename=lambda n: n.removeprefix("net.")) == {
        "weight": "net.weight",
        "bias": "net.bias",
    }
    with pytest.raises(CheckpointError) as error:
        match(module, files)
    assert "missing: weight, bias" in str(error.value)
    assert "unexpected: net.bias, net.weight" in str(error.value)
    with pytest.raises(CheckpointError, match=r"shapes: net\.bias \[2\] instead of \[2, 2\]"):
        match(
            module,
            files,
            rename={"net.bias": "weight", "net.weight": None}.get,
            optional=("bias",),
        )
    with pytest.raises(CheckpointError, match=r"twice: net\.bias and net\.weight"):
        match(module, files, rename=lambda _: "weight", optional=("bias",))


def test_reading_one_tensor_after_another_holds_one(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path / "m.safetensors"
    count, side = 12, 4 << 20
    shapes = {f"t{i:02}": (torch.float32, (side,)) for i in range(count)}
    weight_writer.write(path, shapes, lambda _: torch.ones(side))
    files = WeightFiles.open(path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    for name in files.names:
        assert float(files.read(name).sum()) == side
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    assert grown < 4 * side * 4
