"""Which instruction set runs, how it is forced, and that the copies do not leak into each other."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import fastvid
from fastvid import _core, ops
from fastvid.errors import InputError

_ROOT = Path(__file__).resolve().parents[2]


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_extension_is_of_this_version() -> None:
    assert _core.__version__ == fastvid.__version__


@pytest.mark.parametrize("name", _core.cpu_isas())
def test_the_environment_chooses_the_instruction_set(name: str) -> None:
    result = run_python("from fastvid import _core; print(_core.cpu_isa())", FASTVID_CPU_ISA=name)
    assert result.stdout.strip() == name


def test_an_unknown_instruction_set_is_refused_when_an_op_runs() -> None:
    code = """
import numpy as np
from fastvid import ops
from fastvid.errors import InputError
try:
    ops.rgb_to_planar(np.zeros((1, 2, 2, 3), np.uint8))
except InputError as error:
    print(error)
"""
    result = run_python(code, FASTVID_CPU_ISA="sse9")
    assert (
        "FASTVID_CPU_ISA must be baseline, avx2, avx512 or avx512_bf16, got sse9" in result.stdout
    )


@pytest.mark.parametrize("value", ["0", "-2", "many", "257", "2.5"])
def test_a_wrong_number_of_threads_in_the_environment_is_refused(value: str) -> None:
    code = """
from fastvid import _core
from fastvid.errors import InputError
try:
    _core.default_threads()
except InputError as error:
    print(error)
"""
    result = run_python(code, FASTVID_NUM_THREADS=value)
    assert f"from 1 to 256, got {value}" in result.stdout


def test_the_environment_sets_the_number_of_threads() -> None:
    code = "from fastvid import _core; print(_core.default_threads())"
    assert run_python(code, FASTVID_NUM_THREADS="3").stdout.strip() == "3"
    assert _core.default_threads() >= 1


def test_forcing_an_unknown_instruction_set_is_refused() -> None:
    before = _core.cpu_isa()
    with pytest.raises(InputError, match="must be baseline, avx2, avx512 or avx512_bf16, got sse9"):
        _core._force_isa("sse9")
    assert _core.cpu_isa() == before


def test_ops_run_in_many_threads_at_once() -> None:
    frames = np.arange(3 * 64 * 64, dtype=np.uint8).reshape(1, 64, 64, 3)
    expected = ops.rgb_to_planar(frames)
    results = []

    def work() -> None:
        results.extend(ops.rgb_to_planar(frames) for _ in range(50))

    workers = [threading.Thread(target=work) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(results) == 300
    assert all(np.array_equal(result, expected) for result in results)


def test_ops_run_in_a_forked_child() -> None:
    code = """
import os, sys
import numpy as np
from fastvid import ops
frames = np.zeros((1, 200, 200, 3), np.uint8)
ops.rgb_to_planar(frames, threads=4)
pid = os.fork()
if pid == 0:
    ops.rgb_to_planar(frames, threads=4)
    os._exit(7)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    assert run_python(code).returncode == 7


def test_kernels_export_nothing_the_linker_could_merge() -> None:
    """A weak symbol of an AVX-512 object could replace the baseline's, and crash older machines."""
    nm = shutil.which("nm")
    objects = sorted(_ROOT.glob("build/*/csrc/CMakeFiles/fastvid_cpu_*.dir/fastvid/cpu/**/*.o"))
    if nm is None or not objects:
        pytest.skip("needs nm and a build tree (pip install -e .) to look at")
    for path in objects:
        lines = subprocess.run(
            [nm, "--demangle", str(path)], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        weak = [line for line in lines if line[17:18] in "WVu"]
        assert not weak, f"{path.parent.parent.parent.name}/{path.name}: {weak}"
