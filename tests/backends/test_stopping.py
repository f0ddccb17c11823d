"""Cancelling, signals and closing: a run under way ends soon, and the session survives."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models as tiny

from fastvid import backends
from fastvid.bundle import Bundle
from fastvid.errors import (
    BackendUnavailableError,
    CancelledError,
    DeviceError,
)

pytest.importorskip("onnxruntime")

RULE = {"minimum": 2, "multiple_of": 2, "padding": "edge", "maximum": 64}
X = np.arange(8, dtype=np.float32).reshape(2, 4)


def _open(bundle: Bundle, **options: Any) -> backends.LoadedModel:
    return backends.open(bundle, **{"device": "cpu", **options})


@pytest.fixture
def endless(tmp_path: Path) -> Bundle:
    return tiny.bundle(tmp_path / "model", tiny.endless())


def test_cancel_stops_a_run(endless: Bundle) -> None:
    with _open(endless) as model:
        timer = threading.Timer(0.2, model.cancel)
        timer.start()
        begun = time.monotonic()
        with pytest.raises(CancelledError):
            model.graph("run").run({"x": X})
        assert time.monotonic() - begun < 2
        timer.join()


def test_cancel_stops_a_run_on_another_thread(endless: Bundle) -> None:
    raised: list[BaseException] = []

    def work() -> None:
        try:
            model.graph("run").run({"x": X})
        except BaseException as error:
            raised.append(error)

    with _open(endless) as model:
        thread = threading.Thread(target=work)
        thread.start()
        time.sleep(0.2)
        model.cancel()
        thread.join(2)
        assert not thread.is_alive()
    assert [type(error) for error in raised] == [CancelledError]


def test_interrupted_run_raises_at_once_and_the_session_stays_usable(endless: Bundle) -> None:
    class InterruptedByTestError(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise InterruptedByTestError

    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        with _open(endless) as model:
            for _ in range(3):
                signal.setitimer(signal.ITIMER_REAL, 0.1)
                begun = time.monotonic()
                with pytest.raises(InterruptedByTestError):
                    model.graph("run").run({"x": X})
                assert time.monotonic() - begun < 1
    finally:
        signal.signal(signal.SIGALRM, previous)


_CHILD = """
import signal, sys
import numpy as np
from fastvid import backends
from fastvid.bundle import Bundle
if sys.argv[2] == "handled":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
session = backends.open(Bundle.load(sys.argv[1]), device="cpu").graph("run")
print("running", flush=True)
session.run({"x": np.zeros((int(sys.argv[3]), 4), np.float32)})
"""


@pytest.mark.parametrize("rows", [1, 500_000])
@pytest.mark.parametrize(
    ("sent", "handling", "status"),
    [
        (signal.SIGINT, "default", -signal.SIGINT),
        (signal.SIGTERM, "default", -signal.SIGTERM),
        (signal.SIGTERM, "handled", 143),
    ],
    ids=["ctrl-c", "sigterm", "handled-sigterm"],
)
def test_signal_ends_the_process_while_a_graph_runs(
    endless: Bundle, sent: signal.Signals, handling: str, status: int, rows: int
) -> None:
    command = [sys.executable, "-c", _CHILD, str(endless.path), handling, str(rows)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"running\n"
        time.sleep(0.3)
        begun = time.monotonic()
        child.send_signal(sent)
        _, text = child.communicate(timeout=10)
        assert time.monotonic() - begun < 2
    assert child.returncode == status, text
    assert b"terminate called" not in text


def test_closed_session_refuses(doubler: Bundle) -> None:
    model = _open(doubler)
    session = model.graph("run")
    model.close()
    model.close()
    with pytest.raises(DeviceError, match="closed"):
        session.run({"x": X})


def test_closing_ends_the_thread(doubler: Bundle) -> None:
    with _open(doubler) as model:
        model.graph("run").run({"x": X})
        named = [t for t in threading.enumerate() if t.name == "fastvid-tiny"]
        assert len(named) == 1
    named[0].join(2)
    assert not named[0].is_alive()


def test_dropping_the_model_ends_the_thread(doubler: Bundle) -> None:
    model = _open(doubler)
    named = [t for t in threading.enumerate() if t.name == "fastvid-tiny"]
    del model
    gc.collect()
    named[0].join(2)
    assert not named[0].is_alive()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_child_is_told_instead_of_hanging(doubler: Bundle) -> None:
    with _open(doubler) as model:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                model.graph("run").run({"x": X})
            except DeviceError as error:
                status = 0 if "forked" in str(error) else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_missing_runtime_names_the_pip_command(
    doubler: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BackendUnavailableError, match=r"pip install 'fastvid-sdk\[cpu\]'"):
        _open(doubler, backend="onnxruntime")
