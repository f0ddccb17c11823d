"""The engine cache: seals, damage, limits, and several processes of which some are killed."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import fake_machine
import numpy as np
import pytest
import tiny_models as tiny

from fastvid import backends
from fastvid.backends import tensorrt
from fastvid.backends.tensorrt import EngineOptions, _key, _seal
from fastvid.backends.tensorrt._locks import exclusive
from fastvid.backends.tensorrt._store import Store
from fastvid.bundle import Bundle
from fastvid.devices import CudaDevice
from fastvid.errors import (
    CancelledError,
    DiskFullError,
    EngineBuildError,
    FastvidError,
    InputError,
    OutputError,
)

KEY = bytes(range(32))
X = np.ones((1, 4), np.float32)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Key and cache of a user that starts without."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> Any:
    return fake_machine.install(monkeypatch)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store", key=KEY)
    made.open()
    return made


def engine_file() -> Path:
    (entry,) = tensorrt.cached_engines()
    return entry.path


def runs(bundle: Bundle, **options: Any) -> str:
    """Opens a bundle and runs it; gives the note on its engine."""
    with backends.open(bundle, backend=EngineOptions(**options)) as model:
        np.testing.assert_array_equal(model.graph("run").run({"x": X})["y"], 2 * X)
        return model.report().graphs[0].note


# Seals


def test_what_is_sealed_comes_back() -> None:
    data = b"".join(_seal.seal("engine", {"a": [1, "b"]}, b"payload", KEY))
    header, payload = _seal.unseal("engine", data, KEY)
    assert (header, bytes(payload)) == ({"a": [1, "b"]}, b"payload")


@pytest.mark.parametrize("kind", ["engine", "timing"])
def test_every_changed_byte_is_noticed(kind: str) -> None:
    data = b"".join(_seal.seal(kind, {"a": 1}, b"some payload", KEY))
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        with pytest.raises(_seal.SealError):
            _seal.unseal(kind, bytes(changed), KEY)
    for size in range(len(data)):
        with pytest.raises(_seal.SealError):
            _seal.unseal(kind, data[:size], KEY)
    with pytest.raises(_seal.SealError):
        _seal.unseal(kind, data + b"\0", KEY)


def test_other_keys_and_kinds_are_foreign() -> None:
    data = b"".join(_seal.seal("engine", {}, b"payload", KEY))
    with pytest.raises(_seal.SealError, match="not this user's"):
        _seal.unseal("engine", data, bytes(32))
    with pytest.raises(_seal.SealError, match="not of kind 'timing'"):
        _seal.unseal("timing", data, KEY)


def test_key_is_made_once_and_for_its_user_only(home: Path) -> None:
    key = _seal.user_key()
    path = home / "data" / "fastvid" / "engine.key"
    assert path.read_bytes() == key
    assert len(set(key)) > 4
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert _seal.user_key() == key
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("spoil", ["open", "short", "link", "folder"])
def test_key_that_others_may_know_is_refused(home: Path, spoil: str) -> None:
    _seal.user_key()
    path = _seal.key_path()
    if spoil == "open":
        path.chmod(0o644)
    elif spoil == "short":
        path.write_bytes(b"123")
    else:
        path.rename(home / "elsewhere")
        path.symlink_to(home / "elsewhere") if spoil == "link" else path.mkdir()
    with pytest.raises(OutputError, match="engine key: "):
        _seal.user_key()


def test_processes_agree_on_a_key(home: Path) -> None:
    code = "from fastvid.backends.tensorrt import _seal; print(_seal.user_key().hex())"
    started = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(4)
    ]
    assert len({process.communicate()[0] for process in started}) == 1


# The store


def test_entry_is_read_as_it_was_written(store: Store) -> None:
    path = store.write("abc", {"a": 1}, b"payload")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    entry = store.read("abc")
    assert entry is not None
    assert (entry[0], bytes(entry[1])) == ({"a": 1, "name": "abc"}, b"payload")
    assert store.read("abd") is None
    assert [e.header["a"] for e in store.entries()] == [1]


@pytest.mark.parametrize("spoil", ["cut", "byte", "other", "open", "link", "fifo", "empty"])
def test_what_cannot_be_trusted_goes_into_quarantine(
    store: Store, tmp_path: Path, spoil: str
) -> None:
    path = store.write("abc", {}, b"payload")
    if spoil == "cut":
        path.write_bytes(path.read_bytes()[:-7])
    elif spoil == "byte":
        path.write_bytes(path.read_bytes().replace(b"payload", b"paylobd"))
    elif spoil == "other":
        store.write("other", {}, b"payload").rename(path)
    elif spoil == "open":
        path.chmod(0o622)
    elif spoil == "empty":
        path.write_bytes(b"")
    else:
        path.rename(tmp_path / "elsewhere")
        os.mkfifo(path) if spoil == "fifo" else path.symlink_to(tmp_path / "elsewhere")
    assert store.read("abc") is None
    assert not os.path.lexists(path)
    assert len(list((store.folder / "quarantine").iterdir())) == 1
    assert store.entries() == []


def test_quarantine_keeps_the_last_few(store: Store) -> None:
    for _ in range(9):
        store.write("abc", {}, b"payload").write_bytes(b"no")
        store.read("abc")
    assert len(list((store.folder / "quarantine").iterdir())) == 4


def test_engines_unused_for_longest_are_removed(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", limit=3000, key=KEY)
    store.open()
    for i, name in enumerate("abcd"):
        path = store.write(name, {}, bytes(800))
        if path.exists():
            os.utime(path, (i, i))
        if name == "c":
            assert store.read("a") is not None, "using an engine keeps it"
    assert set(store.names()) == {"a", "d", "c"}
    store.write("e", {}, bytes(5000))
    assert store.names() == ["e"], "the one just written stays, whatever its size"


def test_left_over_parts_are_swept(store: Store) -> None:
    old, new = store.folder / ".x.engine.1.part", store.folder / ".x.engine.2.part"
    for path in (old, new):
        path.write_bytes(b"part")
    os.utime(old, (1, 1))
    store.write("abc", {}, b"payload")
    assert not old.exists()
    assert new.exists()


def test_clearing_removes_everything_but_locks(store: Store) -> None:
    store.write("abc", {}, b"payload")
    store.write("abd", {}, b"payload").write_bytes(b"no")
    store.read("abd")
    store.write("timing-1", {}, b"timings", "timing")
    assert store.clear() > 100
    assert store.entries() == []
    assert store.read("timing-1", "timing") is None


@pytest.mark.parametrize("name", ["", "../x", "a/b", "A", "x" * 121, "a.b"])
def test_names_cannot_leave_the_folder(store: Store, name: str) -> None:
    with pytest.raises(InputError, match="engine: name must be"):
        store.write(name, {}, b"")


def test_folder_of_others_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir(mode=0o700)
    folder.chmod(0o777)
    with pytest.raises(OutputError, match="must be yours and writable by nobody else") as caught:
        Store(folder, key=KEY).open()
    assert "chmod go-w" in caught.value.hint


def test_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        Store(tmp_path / "file", key=KEY).open()


def test_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """RLIMIT_FSIZE fails a write as a full disk does."""
    code = """
import resource, signal
from pathlib import Path
from fastvid.backends.tensorrt._store import Store
from fastvid.errors import DiskFullError
store = Store(Path(sys.argv[1]), key=bytes(32))
store.open()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
try:
    store.write("abc", {}, bytes(50000))
except DiskFullError as error:
    print("full:", error.message)
print(sorted(path.name for path in store.folder.iterdir()))
"""
    command = [sys.executable, "-c", f"import sys\n{code}", str(tmp_path / "store")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[0].startswith("full: engine cache: ")
    assert result.stdout.splitlines()[1] == "['locks']"


# Keys


def test_name_follows_from_everything_that_matters(doubler: Bundle) -> None:
    graph = doubler.graph("run")
    h200 = fake_machine.H200
    sizes = {"N": (1, 1, 1)}

    def name(
        options: EngineOptions = EngineOptions(),  # noqa: B008
        device: CudaDevice = h200,
        tensorrt: str = "11.4.0",
        cuda: str = "13.0",
        bundle: Bundle = doubler,
        plugins: tuple[str, ...] = (),
    ) -> str:
        key = _key.base_key(bundle, graph, plugins, options, device, tensorrt, cuda)
        return _key.engine_name(key, sizes)  # type: ignore[arg-type]

    import dataclasses

    changed = dataclasses.replace(
        doubler,
        files={
            "run.onnx": dataclasses.replace(doubler.files["run.onnx"], sha256="0" * 64),
        },
    )
    others = [
        name(),
        name(EngineOptions(tf32=True)),
        name(EngineOptions(workspace=1 << 30)),
        name(EngineOptions(optimization_level=5)),
        name(EngineOptions(compatibility="same_compute_capability")),
        name(device=CudaDevice(0, "NVIDIA H100", (9, 0), h200.memory)),
        name(device=CudaDevice(0, "NVIDIA H200", (9, 1), h200.memory)),
        name(tensorrt="11.4.1"),
        name(cuda="13.1"),
        name(bundle=changed),
        name(bundle=dataclasses.replace(doubler, precision="float16")),
        name(plugins=("Warp",)),
    ]
    assert len(set(others)) == len(others)
    # Other models of the same compute capability may take what was built for all of them.
    shared = EngineOptions(compatibility="same_compute_capability")
    assert name(shared, CudaDevice(0, "NVIDIA H100", (9, 0), h200.memory)) == name(shared)
    # What does not change what is built does not change the name.
    assert name(EngineOptions(build="never", cuda_graphs=False, cache_limit=1)) == name()
    assert name(device=CudaDevice(1, "NVIDIA H200", (9, 0), h200.memory)) == name()


# Engines that must not be used


@pytest.mark.parametrize("spoil", ["cut", "byte", "foreign", "other key"])
def test_engine_that_was_not_made_here_never_reaches_tensorrt(
    trt: Any, doubler: Bundle, spoil: str
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
    trt.fake_log.clear()
    assert "built in" in runs(doubler)
    assert trt.fake_log[0] == "build", "nothing may be deserialised before"
    assert len(list((path.parent / "quarantine").glob("*.engine"))) == 1
    trt.fake_log.clear()
    assert "from the cache" in runs(doubler)
    assert "build" not in trt.fake_log


def test_engine_with_wrong_results_is_rebuilt_and_told(trt: Any, doubler: Bundle) -> None:
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


def test_engine_that_is_wrong_when_built_is_never_kept(trt: Any, doubler: Bundle) -> None:
    trt.fake_wrong = 0.5
    with pytest.raises(EngineBuildError, match=r"within 0\.01 of the golden results"):
        runs(doubler)
    trt.fake_wrong = float("nan")
    with pytest.raises(EngineBuildError, match="must be finite"):
        runs(doubler)
    assert tensorrt.cached_engines() == ()


def test_engine_that_tensorrt_refuses_is_rebuilt(trt: Any, doubler: Bundle) -> None:
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


def test_without_a_cache_engines_are_built_and_used(trt: Any, home: Path, doubler: Bundle) -> None:
    unwritable(home)
    with pytest.warns(RuntimeWarning, match="engines are not kept"):
        opened = backends.open(doubler, backend="tensorrt")
    with opened as model:
        np.testing.assert_array_equal(model.graph("run").run({"x": X})["y"], 2 * X)
        assert "engines are not kept: engine cache: " in model.report().reason


def test_building_for_later_says_at_once_that_it_cannot(
    trt: Any, home: Path, doubler: Bundle
) -> None:
    unwritable(home)
    with pytest.raises(OutputError, match="cannot be written"):
        tensorrt.build(doubler)
    assert trt.fake_log == []


def test_full_cache_after_a_build(
    trt: Any, monkeypatch: pytest.MonkeyPatch, doubler: Bundle
) -> None:
    def full(*arguments: Any) -> None:
        raise DiskFullError("engine cache: no space")

    monkeypatch.setattr(Store, "write", full)
    with pytest.raises(DiskFullError):
        tensorrt.build(doubler)
    with pytest.warns(RuntimeWarning, match="no space"):
        assert "built in" in runs(doubler)


def test_unreadable_key_is_told(trt: Any, doubler: Bundle) -> None:
    runs(doubler)
    _seal.key_path().chmod(0o644)
    with pytest.raises(OutputError, match="engine key") as caught:
        tensorrt.build(doubler)
    assert "delete it" in caught.value.hint
    with pytest.warns(RuntimeWarning, match="engine key"):
        assert "built in" in runs(doubler)


def test_cache_folder_can_be_chosen(trt: Any, tmp_path: Path, doubler: Bundle) -> None:
    (path,) = tensorrt.build(doubler, options=EngineOptions(cache=tmp_path / "mine"))
    assert path.parent == tmp_path / "mine"
    assert tensorrt.cached_engines() == ()
    (entry,) = tensorrt.cached_engines(tmp_path / "mine")
    assert json.dumps(entry.to_dict())
    assert entry.header["key"]["graph"] == "run"
    assert tensorrt.clear(tmp_path / "mine") > 0
    assert tensorrt.cached_engines(tmp_path / "mine") == ()


def test_measurements_of_builds_are_kept_together(
    trt: Any, tmp_path: Path, doubler: Bundle
) -> None:
    runs(doubler)
    runs(tiny.bundle(tmp_path / "other", _other()))
    store = Store()
    name = _key.timing_name(fake_machine.H200, trt.__version__)
    entry = store.read(name, "timing")
    assert entry is not None
    assert len(bytes(entry[1]).split()) == 2
    assert runs(doubler, timing_cache=False, optimization_level=1)
    trt.fake_fail.add("timing")
    assert runs(doubler, optimization_level=2)


def _other() -> bytes:
    from onnx import helper

    nodes = [
        helper.make_node("Add", ["x", "x"], ["twice"]),
        helper.make_node("Identity", ["twice"], ["y"]),
    ]
    return tiny.model(nodes, [tiny.X], [tiny.Y])


# Several processes

BUILD = """
import json, os
from fastvid.backends import tensorrt
from fastvid.bundle import Bundle
trt.fake_steps, trt.fake_step_seconds = int(sys.argv[2]), 0.02

def tell(progress):
    print(progress.phase, flush=True)

try:
    tensorrt.build(Bundle.load(sys.argv[1]), progress=tell)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.exit(130)
print("builds", trt.fake_log.count("build"), flush=True)
"""


def start(bundle: Bundle, steps: int = 20) -> subprocess.Popen[str]:
    command = fake_machine.python(BUILD, str(bundle.path), str(steps))
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_for(process: subprocess.Popen[str], phase: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(phase):
            return
    raise AssertionError(f"the process ended before {phase!r}")


def ended(process: subprocess.Popen[str]) -> int:
    """The status that a process ends with by itself."""
    process.communicate(timeout=30)
    return process.returncode


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def builds(process: subprocess.Popen[str]) -> int:
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return int(out.split("builds ")[1])


def test_one_process_builds_and_the_others_take_it(doubler: Bundle) -> None:
    processes = [start(doubler) for _ in range(4)]
    assert sum(builds(process) for process in processes) == 1
    assert len(tensorrt.cached_engines()) == 1


def test_a_killed_builder_does_not_stop_the_one_that_waits(doubler: Bundle) -> None:
    first = start(doubler, 10_000)
    wait_for(first, "Building Engine")
    second = start(doubler)
    wait_for(second, "waiting")
    kill(first)
    assert builds(second) == 1
    assert len(tensorrt.cached_engines()) == 1


def test_a_waiting_process_can_be_interrupted(doubler: Bundle) -> None:
    first = start(doubler, 10_000)
    wait_for(first, "Building Engine")
    second = start(doubler)
    wait_for(second, "waiting")
    second.send_signal(signal.SIGINT)
    assert ended(second) == 130
    kill(first)
    assert tensorrt.cached_engines() == ()


def test_ctrl_c_ends_a_build_without_a_trace(doubler: Bundle) -> None:
    process = start(doubler, 10_000)
    wait_for(process, "Building Engine")
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert ended(process) == 130, "the interpreter must end cleanly, not abort in native code"
    assert time.monotonic() - begin < 10
    assert tensorrt.cached_engines() == ()
    assert builds(start(doubler)) == 1


STORM = """
import os
from pathlib import Path
from fastvid.backends.tensorrt._store import Store
store = Store(Path(sys.argv[1]), key=bytes(32))
store.open()
for i in range(1000000):
    with store.lock("abc"):
        store.write("abc", {"i": i}, os.urandom(200000))
        print(i, flush=True)
"""


def test_writers_that_are_killed_leave_whole_entries(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    store = Store(folder, key=bytes(32))
    rng = np.random.default_rng(0)
    for _ in range(8):
        command = [sys.executable, "-c", f"import sys\n{STORM}", str(folder)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(float(rng.uniform(0, 0.1)))
        process.kill()
        process.communicate()
        entry = store.read("abc")
        assert entry is not None
        assert len(entry[1]) == 200000
        with store.lock("abc"):
            store.write("abc", {}, bytes(200000))
    assert not (folder / "quarantine").exists()


def test_lock_is_exclusive_between_threads_and_can_be_given_up(tmp_path: Path) -> None:
    told: list[int] = []
    with exclusive(tmp_path / "lock"):
        with (
            pytest.raises(CancelledError, match="waiting for another process"),
            exclusive(
                tmp_path / "lock", waiting=lambda: told.append(1), cancelled=lambda: bool(told)
            ),
        ):
            raise AssertionError("the lock was given twice")
        assert told == [1]
    with exclusive(tmp_path / "lock"):
        pass


def test_errors_have_the_documented_exit_codes() -> None:
    from fastvid.errors import EngineError, EngineLoadError

    kinds: list[type[FastvidError]] = [EngineError, EngineBuildError, EngineLoadError]
    assert {kind.exit_code for kind in kinds} == {6}


def test_command_lists_and_clears_the_cache(
    trt: Any, home: Path, doubler: Bundle, capsys: pytest.CaptureFixture[str]
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


def test_doctor_tells_of_the_cache(trt: Any, home: Path, doubler: Bundle) -> None:
    from fastvid.doctor import _runtimes

    runs(doubler)
    (check,) = [c for c in _runtimes._engines() if c.name == "engine cache"]
    assert check.status == "ok"
    assert "1 engines" in check.detail
    _seal.key_path().chmod(0o644)
    (check,) = [c for c in _runtimes._engines() if c.name == "engine cache"]
    assert "engines are not kept: engine key" in check.detail
