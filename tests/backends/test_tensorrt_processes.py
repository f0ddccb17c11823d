"""Several processes that want one engine, some of which are killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import fake_machine
import numpy as np
import pytest

from fastvid.backends import tensorrt
from fastvid.backends.tensorrt._locks import exclusive
from fastvid.backends.tensorrt._store import Store
from fastvid.bundle import Bundle
from fastvid.errors import CancelledError

pytest.importorskip("cuda.bindings.runtime")
pytestmark = pytest.mark.usefixtures("home")


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
