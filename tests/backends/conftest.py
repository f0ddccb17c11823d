"""A bundle whose graph doubles its input."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_models as tiny

from fastvid.bundle import Bundle


@pytest.fixture
def doubler(tmp_path: Path) -> Bundle:
    return tiny.bundle(tmp_path / "model", tiny.double())
