"""What several tests of the exporter start from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Wan folder as diffusers saves it, which no test changes."""
    # Imported here: it needs diffusers, which most tests do without.
    import diffusers_folders

    folder = tmp_path_factory.mktemp("wan") / "model"
    diffusers_folders.wan(folder)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy of it to damage."""
    shutil.copytree(original, tmp_path / "model")
    return tmp_path / "model"
