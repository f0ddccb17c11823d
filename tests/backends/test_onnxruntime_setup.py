"""What is believed about onnxruntime and the NVIDIA driver, and what is said where it is not."""

from __future__ import annotations

import ctypes
import dataclasses
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
import tiny_models as tiny

from fastvid import backends, devices
from fastvid.backends import _fatbin, _placement
from fastvid.backends import _onnxruntime_setup as setup
from fastvid.devices import CudaDevice, CudaDriver
from fastvid.errors import NoDeviceError

pytest.importorskip("onnxruntime")

H200 = CudaDevice(0, "H200", (9, 0), 141 << 30)


class Driver:
    """Answers the calls of libcuda for one device, or fails the first of them."""

    def __init__(self, status: int = 0, count: int = 1) -> None:
        self._status = status
        self._count = count

    def cuDriverGetVersion(self, out: Any) -> int:  # noqa: N802
        out._obj.value = 13020
        return 0

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self._status

    def cuDeviceGetCount(self, out: Any) -> int:  # noqa: N802
        out._obj.value = self._count
        return 0

    def cuDeviceGet(self, out: Any, index: int) -> int:  # noqa: N802
        out._obj.value = index
        return 0

    def cuDeviceGetName(self, out: Any, size: int, handle: Any) -> int:  # noqa: N802
        out.value = b"H200"
        return 0

    def cuDeviceTotalMem_v2(self, out: Any, handle: Any) -> int:  # noqa: N802
        out._obj.value = 141 << 30
        return 0

    def cuDeviceGetAttribute(self, out: Any, attribute: int, handle: Any) -> int:  # noqa: N802
        out._obj.value = {75: 9, 76: 0}[attribute]
        return 0


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """Findings are kept for the life of a process; each test starts without."""
    caches = (setup.cuda_problem, devices.cuda_driver)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.fixture
def h200(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "cuda_driver", lambda: CudaDriver((H200,), "13.2"))


def test_driver_tells_its_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver())
    assert devices.cuda_driver() == CudaDriver((H200,), "13.2")
    assert str(H200) == "cuda:0 H200 (sm_90, 144384 MiB)"


@pytest.mark.parametrize(
    ("driver", "problem"),
    [
        (Driver(status=999), "cuInit gave 999"),
        (Driver(count=0), "lists no device"),
        (object(), "too old"),
    ],
    ids=["broken", "empty", "old"],
)
def test_driver_without_devices_says_why(
    monkeypatch: pytest.MonkeyPatch, driver: object, problem: str
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)
    assert problem in devices.cuda_driver().problem
    assert devices.cuda_driver().devices == ()


def test_trial_graph_is_a_valid_model() -> None:
    onnx.checker.check_model(onnx.load_from_string(setup._SQUARE), full_check=True)
    assert setup.cpu_problem() == ""


def test_runtime_without_cuda_is_not_believed(h200: None) -> None:
    if setup.CUDA in setup.runtime().get_available_providers():
        pytest.skip("onnxruntime is built with CUDA")
    assert "built without CUDA" in setup.cuda_problem(0)


@pytest.mark.usefixtures("h200")
def test_device_that_the_driver_does_not_list_is_refused() -> None:
    assert "cuda:3 is not one" in setup.cuda_problem(3)


@pytest.mark.usefixtures("h200")
def test_listed_provider_that_does_not_run_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ort = setup.runtime()
    if setup.CUDA in ort.get_available_providers():
        pytest.skip("onnxruntime is built with CUDA")
    monkeypatch.setattr(ort, "get_available_providers", lambda: [setup.CUDA, setup.CPU])
    assert setup.cuda_problem(0).startswith("cuda:0 H200 (sm_90, 144384 MiB) failed a trial: ")
    bundle = tiny.bundle(tmp_path / "model", tiny.double())
    with backends.open(bundle) as model:
        assert model.report().graphs[0].provider == "CPUExecutionProvider"
        assert "failed a trial" in model.report().reason
    with pytest.raises(NoDeviceError, match=r"failed a trial.*found cuda:0 H200"):
        backends.open(bundle, device="cuda")


@pytest.mark.parametrize(
    ("capability", "machine", "named"),
    [
        ((9, 0), "x86_64", False),
        ((8, 7), "x86_64", False),
        ((10, 0), "x86_64", True),
        ((7, 0), "x86_64", True),
        ((8, 7), "aarch64", True),
        ((11, 0), "aarch64", True),
        ((9, 0), "riscv64", True),
    ],
)
def test_capability_outside_the_wheel_is_named(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], machine: str, named: bool
) -> None:
    monkeypatch.setattr(setup.platform, "machine", lambda: machine)
    note = setup._capability_note(dataclasses.replace(H200, capability=capability))
    assert bool(note) == named


def _fat_binary(*entries: tuple[int, int]) -> bytes:
    """Entries of (kind, architecture), each with 24 bytes of code, as nvcc lays them out."""
    parts = [
        struct.pack("<HHIQ", kind, 0x101, 64, 24).ljust(28, b"\0") + struct.pack("<I", arch)
        for kind, arch in entries
    ]
    body = b"".join(part.ljust(64, b"\0") + b"\xaa" * 24 for part in parts)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


_NATIVE = _fat_binary((2, 75), (2, 90)), _fat_binary((2, 120))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"ELF" * 9 + _NATIVE[0] + bytes(7) + _NATIVE[1], "sm_75, sm_90, sm_120"),
        (_fat_binary((2, 90), (1, 120)), "sm_90, compute_120 (PTX)"),
        # The magic number by chance, and a header that is cut or says too much.
        (b"\x50\xed\x55\xba" + b"x" * 40 + _NATIVE[0], "sm_75, sm_90"),
        (_NATIVE[0][:100], "no GPU"),
        (_NATIVE[0] + b"\x50\xed\x55\xba\x01", "sm_75, sm_90"),
        (b"no code", "no GPU"),
    ],
    ids=["native", "ptx", "chance", "cut", "cut header", "none"],
)
def test_libraries_tell_what_they_have_code_for(tmp_path: Path, data: bytes, text: str) -> None:
    (tmp_path / "lib.so").write_bytes(data)
    assert str(_fatbin.device_code(tmp_path / "lib.so")) == text


@pytest.mark.parametrize(
    ("capability", "runs"),
    [((7, 5), True), ((8, 0), False), ((9, 0), True), ((12, 1), True), ((10, 0), True)],
)
def test_native_code_runs_within_its_major_version_and_ptx_beyond(
    capability: tuple[int, int], runs: bool
) -> None:
    code = _fatbin.DeviceCode(((7, 5), (9, 0), (12, 0)), ((10, 0),))
    assert code.runs_on(capability) == runs


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")
def test_code_that_nvcc_makes_is_found(tmp_path: Path) -> None:
    source = tmp_path / "k.cu"
    source.write_text("__global__ void k(float* x) { *x = 1; }\n")
    targets = ["75,code=sm_75", "90,code=sm_90", "120,code=compute_120"]
    options = [f"-gencode=arch=compute_{target}" for target in targets]
    command = ["nvcc", "-shared", "-Xcompiler", "-fPIC"]
    subprocess.run([*command, *options, "-o", tmp_path / "k.so", source], check=True)
    code = _fatbin.device_code(tmp_path / "k.so")
    assert {(7, 5), (9, 0)} <= set(code.native)
    assert (12, 0) in code.ptx


@pytest.mark.usefixtures("h200")
def test_device_without_code_in_the_installed_runtime_is_not_offered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ort = setup.runtime()
    (tmp_path / "lib.so").write_bytes(_fat_binary((2, 75), (2, 120)))
    monkeypatch.setattr(setup, "_provider_library", lambda ort: tmp_path / "lib.so")
    monkeypatch.setattr(ort, "get_available_providers", lambda: [setup.CUDA, setup.CPU])
    problem = setup.cuda_problem(0)
    assert "has code for sm_75, sm_120, not for cuda:0 H200 (sm_90" in problem
    assert "sm_75" in setup._capability_note(H200)
    assert setup._capability_note(dataclasses.replace(H200, capability=(12, 0))) == ""
    bundle = tiny.bundle(tmp_path / "model", tiny.double())
    with pytest.raises(NoDeviceError, match="not for cuda:0 H200"):
        backends.open(bundle, device="cuda")


def test_quota_limits_the_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.os, "sched_getaffinity", lambda pid: set(range(64)))
    for quota, cpus in (((150_000, 100_000), 2), ((1, 100_000), 1), (None, 64)):
        devices.available_cpus.cache_clear()
        monkeypatch.setattr(devices, "_cgroup_quota", lambda quota=quota: quota)
        assert devices.available_cpus() == cpus
    devices.available_cpus.cache_clear()


def test_nodes_on_the_cpu_are_counted_and_only_shape_arithmetic_may_be_there() -> None:
    ort = setup.runtime()
    options = ort.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if not hasattr(ort.InferenceSession, "get_provider_graph_assignment_info"):
        pytest.skip("this onnxruntime does not tell where nodes run")
    shape = [
        onnx.helper.make_node("Shape", ["x"], ["s"]),
        onnx.helper.make_node("Reshape", ["x", "s"], ["r"]),
        onnx.helper.make_node("Softmax", ["r"], ["y"]),
    ]
    session = ort.InferenceSession(
        tiny.model(shape, [tiny.X], [tiny.Y]), options, providers=[setup.CPU]
    )
    nodes = _placement.cpu_nodes(session, setup.CPU)
    assert nodes["Softmax"] == 1
    assert _placement.beyond_shapes(nodes) == ["Softmax"]
    assert _placement.cpu_nodes(session, setup.CUDA).total() == 0
