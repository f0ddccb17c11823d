"""Engines that must not be used, caches that cannot be written, and what tells of both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fake_machine
import numpy as np
import pytest
import tiny_models as tiny

from fastvid import backends
from fastvid.backends import tensorrt
from fastvid.backends.tensorrt import EngineOptions, _key, _seal
from fastvid.backends.tensorrt._store import Store
from fastvid.bundle import Bundle
from fastvid.errors import (
    DiskFullError,
    EngineBuildError,
    FastvidError,
    OutputError,
)

X = np.ones((1, 4), np.float32)
pytestmark = pytest.mark.usefixtures("home")


def engine_file() -> Path:
    (entry,) = tensorrt.cached_engines()
    return entry.path


def runs(bundle: Bundle, **options: Any) -> str:
    """Opens a bundle and runs it; gives the note on its engine."""
    with backends.open(bundle, backend=EngineOptions(**options)) as model:
        np.testing.assert_array_equal(model.graph("run").run({"x": X})["y"], 2 * X)
        return model.report().graphs[0].note


# Engines that must not be used


@pytest.mark.parametrize("spoil", ["cut", "byte", "foreign", "other key"])
def test_engine_that_was_not_made_here_never_reaches_tensorrt(
    newest: Any, doubler: Bundle, spoil: str
) -> None:
    runs(doubler)
    path = engine_file()
    data = path.read_bytes()
    if spoil == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif spoil == "byte":
        path.write_bytes(data[:-100] + bytes([data[-100] ^ 1]) + data[-99:])
    elif spoil == "foreign":
        path.write_bytes(b"ftrt" + bytes(4000))
    else:
        _seal.key_path().unlink()
    newest.fake_log.clear()
    assert "built in" in runs(doubler)
    assert newest.fake_log[0] == "build", "nothing may be deserialised before"
    assert len(list((path.parent / "quarantine").glob("*.engine"))) == 1
    newest.fake_log.clear()
    assert "from the cache" in runs(doubler)
    assert "build" not in newest.fake_log


def test_engine_with_wrong_results_is_rebuilt_and_told(newest: Any, doubler: Bundle) -> None:
    """Sealed and sound, and yet not what the graph computes: a faulty device or build."""
    runs(doubler)
    store = Store()
    (name,) = store.names()
    entry = store.read(name)
    assert entry is not None
    plan = bytes(entry[1]).replace(b'"wrong": 0.0', b'"wrong": 0.5')
    assert plan != bytes(entry[1])
    store.write(name, entry[0], plan)
    with pytest.warns(RuntimeWarning, match="goes into quarantine: run for every size: output 'y'"):
        note = runs(doubler)
    assert "built in" in note


def test_engine_that_is_wrong_when_built_is_never_kept(newest: Any, doubler: Bundle) -> None:
    newest.fake_wrong = 0.5
    with pytest.raises(EngineBuildError, match=r"within 0\.01 of the golden results"):
        runs(doubler)
    newest.fake_wrong = float("nan")
    with pytest.raises(EngineBuildError, match="must be finite"):
        runs(doubler)
    assert tensorrt.cached_engines() == ()


def test_engine_that_tensorrt_refuses_is_rebuilt(newest: Any, doubler: Bundle) -> None:
    runs(doubler)
    store = Store()
    (name,) = store.names()
    entry = store.read(name)
    assert entry is not None
    store.write(name, entry[0], b"sealed, and no plan")
    with pytest.warns(RuntimeWarning, match="magic tag is wrong"):
        assert "built in" in runs(doubler)


def test_engines_of_another_version_are_left_alone(
    monkeypatch: pytest.MonkeyPatch, doubler: Bundle
) -> None:
    for version in fake_machine.VERSIONS:
        fake_machine.install(monkeypatch, version)
        assert "built in" in runs(doubler)
    assert len(tensorrt.cached_engines()) == 3
    found = {entry.header["key"]["tensorrt"] for entry in tensorrt.cached_engines()}
    assert found == set(fake_machine.VERSIONS)


# Caches that cannot be written


def unwritable(home: Path) -> None:
    (home / "cache").write_text("a file where a folder must be")


def test_without_a_cache_engines_are_built_and_used(
    newest: Any, home: Path, doubler: Bundle
) -> None:
    unwritable(home)
    with pytest.warns(RuntimeWarning, match="engines are not kept"):
        opened = backends.open(doubler, backend="tensorrt")
    with opened as model:
        np.testing.assert_array_equal(model.graph("run").run({"x": X})["y"], 2 * X)
        assert "engines are not kept: engine cache: " in model.report().reason


def test_building_for_later_says_at_once_that_it_cannot(
    newest: Any, home: Path, doubler: Bundle
) -> None:
    unwritable(home)
    with pytest.raises(OutputError, match="cannot be written"):
        tensorrt.build(doubler)
    assert newest.fake_log == []


def test_full_cache_after_a_build(
    newest: Any, monkeypatch: pytest.MonkeyPatch, doubler: Bundle
) -> None:
    def full(*arguments: Any) -> None:
        raise DiskFullError("engine cache: no space")

    monkeypatch.setattr(Store, "write", full)
    with pytest.raises(DiskFullError):
        tensorrt.build(doubler)
    with pytest.warns(RuntimeWarning, match="no space"):
        assert "built in" in runs(doubler)


def test_unreadable_key_is_told(newest: Any, doubler: Bundle) -> None:
    runs(doubler)
    _seal.key_path().chmod(0o644)
    with pytest.raises(OutputError, match="engine key") as caught:
        tensorrt.build(doubler)
    assert "delete it" in caught.value.hint
    with pytest.warns(RuntimeWarning, match="engine key"):
        assert "built in" in runs(doubler)


def test_cache_folder_can_be_chosen(newest: Any, tmp_path: Path, doubler: Bundle) -> None:
    (path,) = tensorrt.build(doubler, options=EngineOptions(cache=tmp_path / "mine"))
    assert path.parent == tmp_path / "mine"
    assert tensorrt.cached_engines() == ()
    (entry,) = tensorrt.cached_engines(tmp_path / "mine")
    assert json.dumps(entry.to_dict())
    assert entry.header["key"]["graph"] == "run"
    assert tensorrt.clear(tmp_path / "mine") > 0
    assert tensorrt.cached_engines(tmp_path / "mine") == ()


def test_measurements_of_builds_are_kept_together(
    newest: Any, tmp_path: Path, doubler: Bundle
) -> None:
    runs(doubler)
    runs(tiny.bundle(tmp_path / "other", _other()))
    store = Store()
    name = _key.timing_name(fake_machine.H200, newest.__version__)
    entry = store.read(name, "timing")
    assert entry is not None
    assert len(bytes(entry[1]).split()) == 2
    assert runs(doubler, timing_cache=False, optimization_level=1)
    newest.fake_fail.add("timing")
    assert runs(doubler, optimization_level=2)


def _other() -> bytes:
    from onnx import helper

    nodes = [
        helper.make_node("Add", ["x", "x"], ["twice"]),
        helper.make_node("Identity", ["twice"], ["y"]),
    ]
    return tiny.model(nodes, [tiny.X], [tiny.Y])


def test_errors_have_the_documented_exit_codes() -> None:
    from fastvid.errors import EngineError, EngineLoadError

    kinds: list[type[FastvidError]] = [EngineError, EngineBuildError, EngineLoadError]
    assert {kind.exit_code for kind in kinds} == {6}


def test_command_lists_and_clears_the_cache(
    newest: Any, home: Path, doubler: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    from fastvid.cli import main

    assert main(["engines"]) == 0
    assert "0 engines" in capsys.readouterr().out
    runs(doubler)
    (engine_file().parent / "abc-def.engine").write_bytes(b"of somebody else")
    assert main(["engines"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "2 engines" in lines[0]
    assert any("tiny, run for every size" in line and "NVIDIA H200" in line for line in lines)
    assert any("not of this user, will not be used" in line for line in lines)
    assert main(["engines", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert len(listed["engines"]) == 2
    assert all("golden" not in one["header"] for one in listed["engines"])
    assert main(["engines", "--clear"]) == 0
    assert "MB freed" in capsys.readouterr().out
    assert main(["engines", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["engines"] == []


def test_doctor_tells_of_the_cache(newest: Any, home: Path, doubler: Bundle) -> None:
    from fastvid.doctor import _runtimes

    runs(doubler)
    (check,) = [c for c in _runtimes._engines() if c.name == "engine cache"]
    assert check.status == "ok"
    assert "1 engines" in check.detail
    _seal.key_path().chmod(0o644)
    (check,) = [c for c in _runtimes._engines() if c.name == "engine cache"]
    assert "engines are not kept: engine key" in check.detail
