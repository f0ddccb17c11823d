"""The registry of importers, and what is refused before any of them reads weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from fastvid.cli import main
from fastvid.errors import InputError
from fastvid_export import importers
from fastvid_export.errors import CheckpointError
from fastvid_export.importers import ImportOptions, diffusers

ROOT = Path(__file__).parents[2]


def test_nobody_knows_a_folder_without_an_index(tmp_path):
    assert importers.find(tmp_path) is None
    assert importers.find(tmp_path / "missing") is None


def test_names_of_architectures_are_told_once():
    names = [(one.name, one.task) for one in importers.architectures()]
    assert len(set(names)) == len(names)


def test_page_of_architectures_is_current(capsys):
    from fastvid_export import __main__, architectures

    assert __main__.main(["architectures"]) == 0
    page = capsys.readouterr().out
    assert "| RLFN | " in page
    assert page == (ROOT / architectures.PAGE).read_text(), (
        f"python -m fastvid_export architectures > {architectures.PAGE}"
    )


@pytest.mark.parametrize(
    ("text", "error", "problem"),
    [
        ("{", CheckpointError, "not JSON"),
        ("[]", CheckpointError, "must hold an object, got list"),
        ("{}", InputError, "_class_name in model_index.json must be one of"),
        ('{"_class_name": "MagicPipeline"}', InputError, "got 'MagicPipeline'"),
    ],
)
def test_bad_index(tmp_path, text, error, problem):
    (tmp_path / "model_index.json").write_text(text)
    assert importers.find(tmp_path) is not None
    with pytest.raises(error, match=problem):
        diffusers.build(tmp_path, tmp_path / "out", ImportOptions("x"), print)


def test_command_leaves_nothing_behind(tmp_path, capsys):
    source = tmp_path / "Some-Model"
    source.mkdir()
    (source / "model_index.json").write_text(json.dumps({"_class_name": "MagicPipeline"}))
    out = tmp_path / "out"
    out.mkdir()
    assert main(["export", str(source), "--out", str(out / "made")]) == InputError.exit_code
    assert "MagicPipeline" in capsys.readouterr().err
    assert list(out.iterdir()) == []
