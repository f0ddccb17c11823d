"""GPUs, and the runtimes: the driver, onnxruntime, OpenVINO, TensorRT."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

from fastvid.devices import CudaDevice, CudaDriver, cuda_driver
from fastvid.doctor._check import ABSENT, LIMIT, OK, PROBLEM, Check, problem
from fastvid.doctor._machine import version_of
from fastvid.errors import BackendUnavailableError, DeviceError, OutputError

_ORT_PACKAGES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
    "onnxruntime-qnn",
    "ort-nightly",
    "ort-nightly-gpu",
)
"""All install the one module `onnxruntime`."""
_TRT_PACKAGES = ("tensorrt", "tensorrt-cu13", "tensorrt-cu13-bindings", "tensorrt-cu12")
_OLDEST_CAPABILITY = (7, 5)
_WHEEL_CUDA = (13, 0)
"""What onnxruntime-gpu from PyPI is built with."""


def devices() -> Iterator[Check]:
    """What the NVIDIA driver lists, and what each device is too old or too new for."""
    driver = cuda_driver()
    if driver.problem:
        yield Check("devices", "cuda", ABSENT, driver.problem, _driver_hint(driver))
    for device in driver.devices:
        name, capability = f"cuda:{device.index}", ".".join(map(str, device.capability))
        size = f"{device.memory >> 20} MiB, driver for CUDA {driver.version}"
        detail = f"{device.name}, compute capability {capability}, {size}"
        yield Check("devices", name, OK, detail)
        if device.capability < _OLDEST_CAPABILITY:
            hint = "neither CUDA 13 nor fastvid's kernels have code for it; use --device cpu"
            detail = f"compute capability {capability} is older than 7.5"
            yield Check("devices", name, LIMIT, detail, hint)
    if driver.devices and _numbers(driver.version) < _WHEEL_CUDA:
        hint = "update the driver to 580 or newer: sudo apt install nvidia-driver-580"
        detail = f"the driver is for CUDA {driver.version}, onnxruntime-gpu from PyPI needs 13.0"
        yield Check("devices", "driver", LIMIT, detail, hint)


def _driver_hint(driver: CudaDriver) -> str:
    if not driver.version:
        return "models run on the CPU; an NVIDIA GPU needs its driver first (`nvidia-smi`)"
    return "models run on the CPU; see `nvidia-smi`, and in a container start it with --gpus all"


def onnxruntime() -> Iterator[Check]:
    """The package, its providers, and fastvid's operators in it."""
    from fastvid.backends import _onnxruntime_setup as setup

    part = "onnxruntime"
    ort = setup.runtime()
    installed = [name for name in _ORT_PACKAGES if version_of(name)]
    if len(installed) > 1:
        wanted = "pip install 'fastvid-sdk[gpu]'" if cuda_driver().devices else setup.INSTALL_CPU
        yield Check(
            part,
            "package",
            PROBLEM,
            f"{' and '.join(installed)} are both installed and overwrite each other",
            f"pip uninstall -y {' '.join(installed)} && {wanted}",
            BackendUnavailableError.exit_code,
        )
    else:
        yield Check(part, "package", OK, f"{''.join(installed)} {ort.__version__}".strip())
    for provider in ort.get_available_providers():
        yield _provider(provider)
    if setup.CUDA in ort.get_available_providers():
        for device in cuda_driver().devices:
            yield from _capability(device)
    else:
        hint = f"for NVIDIA GPUs: {setup.INSTALL_CUDA}"
        yield Check(part, setup.CUDA, ABSENT, "not in the installed onnxruntime", hint)
    try:
        ort.SessionOptions().register_custom_ops_library(str(setup.operators_library()))
    except Exception as error:
        yield problem(part, "fastvid operators", error)
    else:
        yield Check(part, "fastvid operators", OK, f"version {setup.OPERATOR_VERSION} registered")


def _provider(provider: str) -> Check:
    from fastvid.backends import _onnxruntime_setup as setup

    part = "onnxruntime"
    if provider == setup.CPU:
        trouble = setup.cpu_problem()
        if trouble:
            code = DeviceError.exit_code
            return Check(part, provider, PROBLEM, trouble, setup.INSTALL_CPU, code)
        return Check(part, provider, OK, "computed a small graph")
    if provider == setup.CUDA:
        trouble = setup.cuda_problem(0)
        if trouble:
            hint = "models run on the CPU; CUDA and cuDNN come with: pip install 'fastvid-sdk[gpu]'"
            detail = f"built in, not usable: {trouble}"
            return Check(part, provider, ABSENT, detail, hint if cuda_driver().devices else "")
        return Check(part, provider, OK, "computed a small graph on cuda:0")
    return Check(part, provider, ABSENT, "built in, not used by this version of fastvid")


def _capability(device: CudaDevice) -> Iterator[Check]:
    from fastvid.backends import _onnxruntime_setup as setup

    if note := setup._capability_note(device):
        hint = "use TensorRT there, pip install 'fastvid-sdk[tensorrt]', or --device cpu"
        yield Check("onnxruntime", f"cuda:{device.index}", LIMIT, note.strip(" ()"), hint)


def openvino() -> Iterator[Check]:
    """The package, and what it computes in on this processor."""
    from fastvid.backends import _openvino_setup as setup

    part = "openvino"
    if not version_of("openvino"):
        hint = f"another runtime for the CPU, with bfloat16: {setup.INSTALL}"
        yield Check(part, "package", ABSENT, "not installed", hint)
        return
    module = setup.runtime()
    yield Check(part, "package", OK, f"openvino {setup.version(module)}")
    able = setup.precisions()
    detail = f"computes float32 graphs in {' or '.join(able)}"
    if "bfloat16" in able:
        yield Check(part, "precision", OK, detail)
    else:
        hint = "bfloat16 takes a processor with AVX512-BF16 or AMX"
        yield Check(part, "precision", ABSENT, detail, hint)


def tensorrt() -> Iterator[Check]:
    """TensorRT's version against what fastvid needs, without touching a device.

    Its objects crash a process without a driver, so nothing of it is created, only asked for.
    """
    from fastvid.backends.tensorrt._setup import INSTALL, OLDEST, PLUGINS_SINCE

    part = "tensorrt"
    name = next((name for name in _TRT_PACKAGES if version_of(name)), "")
    if not name or importlib.util.find_spec("tensorrt") is None:
        yield Check(part, "package", ABSENT, "not installed", f"engines need it: {INSTALL}")
        return
    version, found = version_of(name), _numbers(version_of(name))
    detail = f"{name} {version}"
    if found < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        yield Check(part, "package", LIMIT, f"{detail} is older than {oldest}: not used", INSTALL)
    elif found < PLUGINS_SINCE:
        hint = f"engines of portable graphs only (fastvid export --portable), or {INSTALL}"
        yield Check(part, "package", LIMIT, f"{detail} is too old for fastvid's plugins", hint)
    else:
        yield Check(part, "package", OK, detail)
    if cuda_driver().devices:
        yield from _bindings()
        yield from _engines()
    else:
        yield Check(part, "bindings", ABSENT, "not loaded, because there is no CUDA device")


def _engines() -> Iterator[Check]:
    """What plugins need, and the cache of engines."""
    from fastvid.backends.tensorrt._store import Store
    from fastvid.backends.tensorrt_plugins import kernels_folder

    part = "tensorrt"
    if not kernels_folder().is_dir():
        hint = "install a wheel with CUDA kernels, or build with FASTVID_CUDA=ON"
        detail = "this build holds no kernels for plugins: graphs of standard operators only"
        yield Check(part, "plugins", LIMIT, detail, hint)
    store = Store()
    try:
        store.open()
        found = store.entries()
    except OutputError as error:
        yield Check(part, "engine cache", LIMIT, f"engines are not kept: {error.message}")
        return
    size = sum(one.size for one in found) >> 20
    foreign = sum(not one.header for one in found)
    detail = f"{store.folder}, {len(found)} engines, {size} MiB"
    note = f", {foreign} of them not of this user" if foreign else ""
    yield Check(part, "engine cache", OK, detail + note)


def _bindings() -> Iterator[Check]:
    try:
        module = importlib.import_module("tensorrt")
        yield Check("tensorrt", "bindings", OK, f"{module.__version__} loaded")
    except Exception as error:  # they raise many types where a library is missing
        hint = "pip install --force-reinstall 'fastvid-sdk[tensorrt]'"
        text = " ".join(str(error).split())
        yield Check("tensorrt", "bindings", LIMIT, f"cannot be loaded: {text}", hint)


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split(".")[:2]
    return tuple(int(part) if part.isdigit() else 0 for part in parts)
