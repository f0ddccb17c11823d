"""The engine cache as files: seals, keys, damage, limits and names."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import fake_machine
import pytest

from fastvid.backends.tensorrt import EngineOptions, _key, _seal
from fastvid.backends.tensorrt._store import Store
from fastvid.bundle import Bundle
from fastvid.devices import CudaDevice
from fastvid.errors import (
    InputError,
    OutputError,
)

KEY = bytes(range(32))
pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store", key=KEY)
    made.open()
    return made


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
