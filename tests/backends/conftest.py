"""A bundle whose graph doubles its input, and a user of TensorRT who starts without a cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bundles
import fake_machine
import pytest
import tiny_models as tiny

from fastvid.bundle import Bundle


@pytest.fixture
def doubler(tmp_path: Path) -> Bundle:
    return tiny.bundle(tmp_path / "model", tiny.double())


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Key and cache of a user that starts without."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path


@pytest.fixture(params=fake_machine.VERSIONS)
def each_tensorrt(
    home: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """TensorRT of each version, one after the other."""
    return fake_machine.install(monkeypatch, request.param)


@pytest.fixture
def newest(home: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The newest TensorRT that was looked at."""
    return fake_machine.install(monkeypatch)


@pytest.fixture
def upscaler(tmp_path: Path) -> Bundle:
    return bundles.upscaler(tmp_path / "upscaler-tiny")
