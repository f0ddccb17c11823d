"""The driver's answers, from real libraries called `libcuda.so.1` in processes of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fastvid import devices
from fastvid.devices import CudaDevice, CudaDriver
from fastvid.errors import NoDeviceError

H200 = CudaDevice(0, "H200", (9, 0), 141 << 30)

SOUND = """
#include <stddef.h>
#include <string.h>
int cuDriverGetVersion(int *v) { *v = 13020; return 0; }
int cuInit(unsigned flags) { return INIT; }
int cuDeviceGetCount(int *n) { *n = COUNT; return 0; }
int cuDeviceGet(int *d, int i) { *d = i; return 0; }
int cuDeviceGetName(char *name, int n, int d) { memset(name, 0, n); memset(name, 'x', LENGTH); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int d) { *bytes = 8ul << 30; return MEMORY; }
int cuDeviceGetAttribute(int *v, int a, int d) { *v = a == 75 ? 9 : 0; return 0; }
"""  # noqa: E501
TELL = "from fastvid.devices import cuda_driver as d; r = d(); print(r.problem); print(r.devices)"


def ask(folder: Path, code: str = TELL) -> subprocess.CompletedProcess[str]:
    """Runs Python where `folder` holds the driver."""
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def library(folder: Path, source: str, **macros: int) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    (folder / "driver.c").write_text(source)
    values = {"INIT": 0, "COUNT": 1, "MEMORY": 0, "LENGTH": 3, **macros}
    defines = [f"-D{name}={value}" for name, value in values.items()]
    command = [compiler, "-shared", "-fPIC", *defines, "driver.c", "-o", "libcuda.so.1"]
    subprocess.run(command, cwd=folder, check=True)


@pytest.mark.parametrize(
    ("macros", "said"),
    [
        ({"INIT": 999}, "cuInit gave 999 (unknown error"),
        ({"INIT": 34}, "the toolkit's stub"),
        ({"INIT": 5555}, "cuInit gave 5555"),
        ({"COUNT": 0}, "lists no device"),
        ({"COUNT": -7}, "lists no device"),
        ({"MEMORY": 2}, "does not describe device 0: status 2 (out of memory)"),
    ],
)
def test_broken_driver_is_described(tmp_path: Path, macros: dict[str, int], said: str) -> None:
    library(tmp_path, SOUND, **macros)
    result = ask(tmp_path)
    assert result.returncode == 0, result.stderr
    problem, found = result.stdout.splitlines()
    assert said in problem
    assert found == "()"


def test_sound_driver_is_believed(tmp_path: Path) -> None:
    library(tmp_path, SOUND, COUNT=2, LENGTH=255)
    result = ask(tmp_path)
    assert result.returncode == 0, result.stderr
    assert f"CudaDevice(index=1, name='{'x' * 255}', capability=(9, 0)" in result.stdout


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"\x7fELF" + b"\x00" * 60, b"text\n" * 100])
def test_file_that_is_no_library(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "libcuda.so.1").write_bytes(content)
    result = ask(tmp_path)
    assert result.returncode == 0, result.stderr
    assert "libcuda.so.1 cannot be loaded" in result.stdout or "CudaDevice" in result.stdout


def test_driver_without_the_functions(tmp_path: Path) -> None:
    library(tmp_path, "int other(void) { return 0; }")
    result = ask(tmp_path)
    assert result.returncode == 0, result.stderr
    assert "too old" in result.stdout


def test_required_device_is_found_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cuda_driver", lambda: CudaDriver((H200,), "13.2"))
    assert devices.require_cuda(0) == H200
    with pytest.raises(NoDeviceError, match="got 'cuda:1': the driver lists cuda:0 H200"):
        devices.require_cuda(1)
    monkeypatch.setattr(devices, "cuda_driver", lambda: CudaDriver(problem="no NVIDIA driver"))
    with pytest.raises(NoDeviceError, match="no NVIDIA driver") as caught:
        devices.require_cuda()
    assert "device='cpu'" in caught.value.hint
