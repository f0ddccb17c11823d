"""Bundles: what the manifest may say, what a folder may hold, and that nothing else passes."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from manifests import FILES, FRAMES, MANIFEST, UNSAFE_NAMES, changed

import fastvid
from fastvid import _manifest, bundle
from fastvid.bundle import Bundle, Linked, SizeRule, write_bundle
from fastvid.errors import (
    FastvidError,
    InputError,
    InputTypeError,
    IntegrityError,
    ManifestError,
    ModelError,
    OutputError,
    UnsafePathError,
    UnsupportedModelError,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "model", MANIFEST, FILES)
    return tmp_path / "model"


def _rewrite(folder: Path, change: Any) -> None:
    path = folder / "bundle.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


# Loading


def test_bundle_gives_back_what_was_written(folder: Path) -> None:
    model = Bundle.load(folder)
    model.verify()
    assert (model.name, model.task, model.scale) == ("upscaler-test-x2", "upscaler", 2)
    graph = model.graph("upscale")
    assert graph.inputs[0].shape == ("N", "H", "W", 3)
    assert graph.inputs[0].range == (0.0, 255.0)
    assert graph.external_data == ("weights/upscale.data",)
    assert model.size_rule == SizeRule(4, 2, "edge", 4096)
    assert model.provenance.settings["rate"] == 1e-3
    assert model.quality[0].value == 31.5
    assert (model.precision, model.fidelity[0].psnr) == ("float16", 61.5)
    assert (model.precisions[0].speed, model.precisions[0].processor) == (1.7, "avx512_bf16")
    assert {name: model.read(name) for name in model.files} == FILES


def test_whole_floats_in_manifest_become_integers(folder: Path) -> None:
    _rewrite(folder, lambda m: m.update(scale=2.0))
    scale = Bundle.load(folder).scale
    assert (scale, type(scale)) == (2, int)


def test_hidden_files_are_ignored(folder: Path) -> None:
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x.pt").write_bytes(b"")
    assert Bundle.load(folder).name == "upscaler-test-x2"


@pytest.mark.parametrize("at", [0, 1, 50, 99])
def test_tampered_file_is_named_with_both_hashes(folder: Path, at: int) -> None:
    path = folder / "weights/upscale.data"
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    model = Bundle.load(folder)
    with pytest.raises(IntegrityError, match=r"weights/upscale\.data must be [0-9a-f]{64}, got"):
        model.read("weights/upscale.data")
    with pytest.raises(IntegrityError):
        model.verify()


def test_cut_and_grown_files_are_refused(folder: Path) -> None:
    model = Bundle.load(folder)
    (folder / "upscale.onnx").write_bytes(b"grap")
    with pytest.raises(IntegrityError, match="sha256"):
        model.read("upscale.onnx")
    (folder / "upscale.onnx").write_bytes(b"graph and more")
    with pytest.raises(IntegrityError, match="at most 5 bytes, got 14"):
        model.read("upscale.onnx")


def test_missing_file_is_named(folder: Path) -> None:
    model = Bundle.load(folder)
    (folder / "upscale.onnx").unlink()
    with pytest.raises(IntegrityError, match=r"upscale\.onnx: file is missing"):
        model.read("upscale.onnx")
    with pytest.raises(IntegrityError, match=r"upscale\.onnx is missing from the folder"):
        Bundle.load(folder)


def test_unlisted_file_is_refused(folder: Path) -> None:
    (folder / "extra.txt").write_text("")
    with pytest.raises(IntegrityError, match=r"extra\.txt must be listed"):
        Bundle.load(folder)


@pytest.mark.parametrize("name", ["weights.pt", "a.pkl", "upscale.engine", "lib.so", "run.py"])
def test_file_that_can_hold_code_is_refused_even_unlisted(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"")
    with pytest.raises(UnsafePathError, match=re.escape(name)):
        Bundle.load(folder)


def test_links_are_refused(folder: Path, tmp_path: Path) -> None:
    model = Bundle.load(folder)
    outside = tmp_path / "outside.onnx"
    shutil.move(folder / "upscale.onnx", outside)
    (folder / "upscale.onnx").symlink_to(outside)
    with pytest.raises(UnsafePathError, match="link"):
        model.read("upscale.onnx")
    with pytest.raises(UnsafePathError, match="link"):
        Bundle.load(folder)


def test_folder_link_inside_is_refused(folder: Path, tmp_path: Path) -> None:
    model = Bundle.load(folder)
    shutil.move(folder / "weights", tmp_path / "weights")
    (folder / "weights").symlink_to(tmp_path / "weights")
    with pytest.raises(UnsafePathError, match="link"):
        model.read("weights/upscale.data")
    with pytest.raises(UnsafePathError, match="link"):
        Bundle.load(folder)


@pytest.mark.parametrize("target", ["dangling", "upscale.onnx", "/dev/zero"])
def test_manifest_that_is_a_link_is_refused(folder: Path, target: str) -> None:
    (folder / "bundle.json").unlink()
    (folder / "bundle.json").symlink_to(target)
    with pytest.raises(UnsafePathError, match="link"):
        Bundle.load(folder)


def test_fifo_and_socket_are_refused_without_waiting(folder: Path) -> None:
    model = Bundle.load(folder)
    (folder / "upscale.onnx").unlink()
    os.mkfifo(folder / "upscale.onnx")
    with pytest.raises(UnsafePathError, match="regular file"):
        model.read("upscale.onnx")
    (folder / "upscale.onnx").unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "upscale.onnx"))
        with pytest.raises(UnsafePathError, match="regular file"):
            Bundle.load(folder)


def test_hard_link_is_read_but_verified(folder: Path, tmp_path: Path) -> None:
    os.link(folder / "upscale.onnx", tmp_path / "twin.onnx")
    model = Bundle.load(folder)
    assert model.read("upscale.onnx") == b"graph"
    (tmp_path / "twin.onnx").write_bytes(b"GRAPH")
    with pytest.raises(IntegrityError):
        model.read("upscale.onnx")


@pytest.mark.parametrize("name", UNSAFE_NAMES)
def test_unsafe_file_names_are_refused(folder: Path, name: str) -> None:
    def rename(manifest: dict[str, Any]) -> None:
        manifest["graphs"]["upscale"]["file"] = name
        manifest["files"][name] = manifest["files"].pop("upscale.onnx")

    _rewrite(folder, rename)
    with pytest.raises(UnsafePathError, match=r"\$\.graphs\.upscale\.file"):
        Bundle.load(folder)


@pytest.mark.parametrize("name", ["a\0b.onnx", "a\nb.onnx", "x.onnx\n"])
def test_control_characters_in_file_names_are_refused(folder: Path, name: str) -> None:
    _rewrite(folder, lambda m: m["graphs"]["upscale"].update(file=name))
    with pytest.raises(ModelError, match=r"\$\.graphs\.upscale\.file"):
        Bundle.load(folder)


# The text of the manifest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "line 1 column 1 is not JSON"),
        (b"not json", "is not JSON"),
        (b"[]", r"\$ must be an object"),
        (b'{"a": 1, "a": 2}', "key 'a' must be given once"),
        (b'{"a": {"b": 1, "b": 1}}', "key 'b' must be given once"),
        (b'{"a": NaN}', "must be finite, got NaN"),
        (b'{"a": -Infinity}', "must be finite, got -Infinity"),
        (b'{"a": 1e999}', "must be finite, got 1e999"),
        (b'{"a": ' + b"9" * 5000 + b"}", "too large"),
        (b"[" * 17 + b"]" * 17, "16 deep"),
        (b"[" * 100_000 + b"]" * 100_000, "16 deep"),
        (b'{"a": "\\ud800"}', "surrogates"),
        (b'{"\\udc00": 1}', "surrogates"),
        (b'\xff\xfe{"a": 1}', "UTF-8"),
        (b"\xef\xbb\xbf{}", "is not JSON"),
        (b'{"a": 1', "is not JSON"),
        (b" " * ((1 << 20) + 1), "at most 1048576 bytes"),
    ],
    ids=lambda value: ascii(value)[:24],
)
def test_malformed_text_is_refused(folder: Path, text: bytes, message: str) -> None:
    (folder / "bundle.json").write_bytes(text)
    with pytest.raises(ManifestError, match=message):
        Bundle.load(folder)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_only_manifest_errors(data: bytes) -> None:
    with contextlib.suppress(ManifestError):
        _manifest.parse(data)


def test_folder_without_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"bundle\.json"):
        Bundle.load(tmp_path)
    with pytest.raises(ManifestError, match="cannot be opened"):
        Bundle.load(tmp_path / "absent")
    with pytest.raises(ManifestError, match="cannot be opened"):
        Bundle.load(__file__)
    with pytest.raises(ManifestError, match="cannot be opened"):
        Bundle.load("a\0b")
    with pytest.raises(InputTypeError, match="got int"):
        Bundle.load(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("needed", ["0.9.1", None])
def test_newer_format_says_the_version_it_needs(folder: Path, needed: str | None) -> None:
    _rewrite(folder, lambda m: m.update(format_version=2, unknown_key=1))
    if needed:
        _rewrite(folder, lambda m: m.update(requires_fastvid=needed))
    with pytest.raises(UnsupportedModelError, match=needed or "a newer fastvid") as caught:
        Bundle.load(folder)
    assert "pip install --upgrade fastvid-sdk" in str(caught.value)


def test_model_that_needs_newer_fastvid_is_refused(folder: Path) -> None:
    _rewrite(folder, lambda m: m.update(requires_fastvid="999.0"))
    with pytest.raises(UnsupportedModelError, match=r"fastvid 999\.0 or newer"):
        Bundle.load(folder)
    _rewrite(folder, lambda m: m.update(requires_fastvid=fastvid.__version__))
    assert Bundle.load(folder).requires_fastvid == fastvid.__version__


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("graphs", "upscale", "file"), "absent.onnx", r"\$\.graphs\.upscale\.file must be listed"),
        (("graphs", "upscale", "file"), "README.md", r"file must end in '\.onnx'"),
        (("graphs", "upscale", "external_data"), ["upscale.onnx"], r"data\[0\] must end in"),
        (("graphs", "upscale", "inputs"), [FRAMES, FRAMES], "distinct names"),
        (("graphs", "upscale", "inputs", 0, "range"), [1, 1], "low < high"),
        (("size_rule", "maximum"), 2, "must be at least 4"),
        (("files", "readme.md"), {"sha256": "0" * 64, "size": 1}, "differ only in case"),
        (("files", "bundle.json"), {"sha256": "0" * 64, "size": 1}, "itself"),
    ],
)
def test_names_that_disagree_are_refused(
    folder: Path, path: tuple[str | int, ...], value: Any, message: str
) -> None:
    (folder / "bundle.json").write_text(json.dumps(changed(path, value)))
    with pytest.raises(ManifestError, match=message):
        Bundle.load(folder)


# Finding


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the folder of shipped models with one model in it."""
    folder = tmp_path / "models"
    folder.mkdir()
    write_bundle(folder / "upscaler-test-x2", MANIFEST, FILES)
    monkeypatch.setattr(bundle, "_MODELS", folder)
    return folder


@pytest.mark.parametrize("name", ["test", "upscaler-test-x2"])
def test_shipped_model_is_found_by_short_and_full_name(models: Path, name: str) -> None:
    assert Bundle.find(name, "upscaler", 2).path == models / "upscaler-test-x2"
    assert list(bundle.shipped()) == ["upscaler-test-x2"]


def test_folder_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    for path in (folder, str(folder), "model", "./model", Path("model")):
        assert Bundle.find(path, "upscaler").path == folder


@pytest.mark.parametrize("name", ["best", "", "own/er", "x" * 5000, "a\0b", "../x", "~who"])
def test_unknown_model_lists_what_is_there(models: Path, name: str) -> None:
    with pytest.raises(InputError, match="upscaler-test-x2") as caught:
        Bundle.find(name, "upscaler", 2)
    assert "folder" in caught.value.hint
    assert len(str(caught.value)) < 400


def test_unknown_model_lists_none_of_another_task(models: Path) -> None:
    with pytest.raises(InputError, match="none is installed") as caught:
        Bundle.find("nonsuch", "generator")
    assert "upscaler" not in str(caught.value)


def test_model_for_another_task_or_scale_is_refused(models: Path, folder: Path) -> None:
    with pytest.raises(InputError, match="task must be 'interpolator'"):
        Bundle.find(folder, "interpolator")
    with pytest.raises(InputError, match="scale: argument must be 2"):
        Bundle.find(folder, "upscaler", 4)
    with pytest.raises(InputTypeError):
        Bundle.find(None, "upscaler")  # type: ignore[arg-type]


def test_every_shipped_model_verifies() -> None:
    for name, path in bundle.shipped().items():
        model = Bundle.load(path)
        model.verify()
        assert model.name == name


# Sizes


@pytest.mark.parametrize(
    ("rule", "size", "padded"),
    [
        (SizeRule(), (1, 1), (1, 1)),
        (SizeRule(16, 8, "internal"), (17, 3), (17, 16)),
        (SizeRule(1, 8, "edge"), (1, 17), (8, 24)),
        (SizeRule(20, 8, "reflect"), (20, 24), (24, 24)),
        (SizeRule(8, 8, "none"), (8, 16), (8, 16)),
    ],
)
def test_size_rule_pads_to_what_the_graph_takes(
    rule: SizeRule, size: tuple[int, int], padded: tuple[int, int]
) -> None:
    assert rule.padded(*size) == padded


@pytest.mark.parametrize(
    ("rule", "size"),
    [
        (SizeRule(), (0, 4)),
        (SizeRule(maximum=64), (4, 65)),
        (SizeRule(1, 8, "none"), (8, 9)),
        (SizeRule(8, 1, "none"), (8, 7)),
    ],
)
def test_size_rule_refuses(rule: SizeRule, size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=f"got {size[0]}x{size[1]}"):
        rule.padded(*size)


# Writing


def test_write_refuses_to_replace_unless_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="must not exist"):
        write_bundle(folder, MANIFEST, FILES)
    changed = {**FILES, "upscale.onnx": b"other"}
    assert write_bundle(folder, MANIFEST, changed, overwrite=True).read("upscale.onnx") == b"other"
    (tmp_path / "precious").mkdir()
    with pytest.raises(OutputError, match="must not exist"):
        write_bundle(tmp_path / "precious", MANIFEST, FILES, overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "precious"]


@pytest.mark.parametrize(
    ("manifest", "files"),
    [
        ({**MANIFEST, "scale": 99}, FILES),
        ({**MANIFEST, "extra": {1, 2}}, FILES),
        ({**MANIFEST, "quality": [{"metric": "m", "data": "d", "value": float("nan")}]}, FILES),
        ({**MANIFEST, "description": "\ud800"}, FILES),
        (MANIFEST, {"upscale.onnx": b""}),
        (MANIFEST, {**FILES, "../x.txt": b""}),
        (MANIFEST, {**FILES, "x.pt": b""}),
        (MANIFEST, {**FILES, "x.txt": Path("absent")}),
    ],
)
def test_failed_write_leaves_nothing(tmp_path: Path, manifest: Any, files: Any) -> None:
    with pytest.raises(FastvidError):
        write_bundle(tmp_path / "model", manifest, files)
    assert list(tmp_path.iterdir()) == []


def test_linked_files_are_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "weights.safetensors"
    source.write_bytes(b"weights")
    (tmp_path / "link").symlink_to(source)
    graph = MANIFEST["graphs"]["upscale"] | {"external_data": ["w.data"]}
    manifest = {**MANIFEST, "graphs": {"upscale": graph}}
    files = {**FILES, "w.data": Linked(tmp_path / "link")}
    made = write_bundle(tmp_path / "model", manifest, files)
    assert made.read("w.data") == b"weights"
    assert (made.path / "w.data").samefile(source)
    made.verify()

    def refuse(*paths: Any) -> None:
        raise OSError(errno.EXDEV, "another disk")

    monkeypatch.setattr(os, "link", refuse)
    copied = write_bundle(tmp_path / "copied", manifest, files)
    assert copied.read("w.data") == b"weights"
    assert not (copied.path / "w.data").samefile(source)


def test_a_changed_link_is_found(tmp_path: Path) -> None:
    source = tmp_path / "weights"
    source.write_bytes(b"weights")
    made = write_bundle(tmp_path / "model", MANIFEST, {**FILES, "w.data": Linked(source)})
    which = made.check("w.data")
    made.require_unchanged("w.data", which)
    source.write_bytes(b"changed")
    with pytest.raises(IntegrityError, match=r"sha256 of w\.data"):
        made.check("w.data")
    with pytest.raises(IntegrityError, match="must not be changed"):
        made.require_unchanged("w.data", which)


def test_failed_overwrite_keeps_the_old_bundle(folder: Path) -> None:
    with pytest.raises(ManifestError):
        write_bundle(folder, {**MANIFEST, "scale": 99}, FILES, overwrite=True)
    Bundle.load(folder).verify()


def test_write_into_missing_or_read_only_parent_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        write_bundle(tmp_path / "absent" / "model", MANIFEST, FILES)
