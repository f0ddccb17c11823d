"""Fixtures every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

_ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real clips, photos and weights; skips where it is absent."""
    folder = Path(os.environ.get("FASTVID_TEST_DATA", _ROOT.parent / "shared" / "data"))
    if not (folder / "clips").is_dir():
        pytest.skip(f"real clips are not at {folder}; set FASTVID_TEST_DATA to their folder")
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20260807)
