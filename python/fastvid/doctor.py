"""What runs where on this machine, and why: every part is tried, and nothing that fails ends it."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import json
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastvid import backends, bundle
from fastvid._specs import TensorSpec
from fastvid._version import __version__
from fastvid.devices import available_cpus, cuda_driver
from fastvid.errors import (
    BackendUnavailableError,
    DeviceError,
    FastvidError,
    MediaError,
    ModelError,
)

__all__ = ["Check", "DoctorReport", "collect"]

Arrays = dict[str, np.ndarray[Any, Any]]

OK, ABSENT, PROBLEM = "ok", "absent", "problem"

_DECODERS = ("h264", "hevc", "av1", "vp9", "ffv1", "prores")
_ENCODERS = ("libx264", "libx265", "libsvtav1", "ffv1")
_HEIGHT, _WIDTH = 360, 640
_RUNS = 3


@dataclass(frozen=True)
class Check:
    """One thing that was tried."""

    part: str
    """What it belongs to, for example `onnxruntime` or `model`."""
    name: str
    status: str
    """`ok`, `absent` for what is optional and not there, or `problem`."""
    detail: str
    hint: str = ""
    """What to do about it."""
    exit_code: int = 0
    """What a problem makes `fastvid doctor` exit with."""


@dataclass(frozen=True)
class DoctorReport:
    """All checks."""

    version: str
    """Version of fastvid."""
    python: str
    machine: str
    checks: tuple[Check, ...]

    @property
    def exit_status(self) -> int:
        """0 if everything that fastvid needs works here, else the code of the first problem."""
        return next((check.exit_code for check in self.checks if check.exit_code), 0)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain objects."""
        return {**dataclasses.asdict(self), "exit_status": self.exit_status}

    def to_json(self) -> str:
        """The report as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    def to_text(self) -> str:
        """The report for people, one line per check."""
        lines = [f"fastvid {self.version}, Python {self.python}, {self.machine}"]
        width = max((len(check.name) for check in self.checks), default=0)
        part = ""
        for check in self.checks:
            if check.part != part:
                part = check.part
                lines.append(f"\n{part}")
            lines.append(f"  {check.status:8}{check.name:{width}}  {check.detail}")
            if check.hint:
                lines.append(f"  {'':8}{'':{width}}  -> {check.hint}")
        problems = sum(check.status == PROBLEM for check in self.checks)
        lines.append(f"\n{problems} problems" if problems else "\nno problems")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.to_text()


def collect(*, run_models: bool = True) -> DoctorReport:
    """Tries everything that fastvid uses on this machine.

    Args:
        run_models: Whether each shipped model also runs on a frame of 640x360.

    Returns:
        The report; problems are in it and are never raised.
    """
    sections: list[tuple[str, Callable[[], Iterator[Check]]]] = [
        ("ops", _ops),
        ("devices", _devices),
        ("onnxruntime", _onnxruntime),
        ("video", _video),
        ("models", lambda: _models(run=run_models)),
    ]
    checks: list[Check] = []
    for part, section in sections:
        try:
            checks.extend(section())
        except Exception as error:
            checks.append(_problem(part, part, error))
    machine = f"{platform.system()} {platform.machine()}, {available_cpus()} CPUs"
    return DoctorReport(__version__, platform.python_version(), machine, tuple(checks))


def _problem(part: str, name: str, error: Exception) -> Check:
    if isinstance(error, FastvidError):
        return Check(part, name, PROBLEM, error.message, error.hint, error.exit_code)
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return Check(part, name, PROBLEM, text, exit_code=FastvidError.exit_code)


def _ops() -> Iterator[Check]:
    hint = "install a wheel of fastvid-sdk, or build it for this machine"
    try:
        core: Any = importlib.import_module("fastvid._core")
    except ImportError as error:
        yield Check("ops", "compiled ops", PROBLEM, str(error), hint, DeviceError.exit_code)
        return
    if core.__version__ != __version__:
        detail = f"built for fastvid {core.__version__}, this is {__version__}"
        yield Check("ops", "compiled ops", PROBLEM, detail, hint, DeviceError.exit_code)
        return
    others = ", ".join(isa for isa in core.cpu_isas() if isa != core.cpu_isa()) or "no other"
    detail = f"{core.cpu_isa()} on {core.default_threads()} threads; {others} would run too"
    yield Check("ops", "compiled ops", OK, detail)
    if core.cuda_compiled():
        yield Check("ops", "CUDA ops", OK, "compiled in")
    else:
        yield Check("ops", "CUDA ops", ABSENT, "this build was made without CUDA")


def _devices() -> Iterator[Check]:
    yield Check("devices", "cpu", OK, f"{_cpu_name()}, {available_cpus()} CPUs for this process")
    driver = cuda_driver()
    if driver.problem:
        yield Check("devices", "cuda", ABSENT, driver.problem)
    for device in driver.devices:
        detail = f"{device.name}, compute capability {device.capability[0]}.{device.capability[1]}"
        memory = f"{device.memory >> 20} MiB, driver for CUDA {driver.version}"
        yield Check("devices", f"cuda:{device.index}", OK, f"{detail}, {memory}")


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _onnxruntime() -> Iterator[Check]:
    from fastvid.backends import _onnxruntime_setup as setup

    part = "onnxruntime"
    ort = setup.runtime()
    installed = [name for name in ("onnxruntime", "onnxruntime-gpu") if _is_installed(name)]
    if len(installed) > 1:
        yield Check(
            part,
            "package",
            PROBLEM,
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other",
            f"pip uninstall -y onnxruntime onnxruntime-gpu && {setup.INSTALL_CPU}",
            BackendUnavailableError.exit_code,
        )
    else:
        yield Check(part, "package", OK, f"{''.join(installed)} {ort.__version__}".strip())
    for provider in ort.get_available_providers():
        yield _provider(provider)
    if setup.CUDA not in ort.get_available_providers():
        hint = f"for NVIDIA GPUs: {setup.INSTALL_CUDA}"
        yield Check(part, setup.CUDA, ABSENT, "not in the installed onnxruntime", hint)
    try:
        ort.SessionOptions().register_custom_ops_library(str(setup.operators_library()))
    except Exception as error:
        yield _problem(part, "fastvid operators", error)
    else:
        yield Check(part, "fastvid operators", OK, f"version {setup.OPERATOR_VERSION} registered")


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _provider(provider: str) -> Check:
    from fastvid.backends import _onnxruntime_setup as setup

    part = "onnxruntime"
    if provider == setup.CPU:
        problem = setup.cpu_problem()
        if problem:
            code = DeviceError.exit_code
            return Check(part, provider, PROBLEM, problem, setup.INSTALL_CPU, code)
        return Check(part, provider, OK, "computed a small graph")
    if provider == setup.CUDA:
        problem = setup.cuda_problem(0)
        if problem:
            return Check(part, provider, ABSENT, f"built in, not usable: {problem}")
        return Check(part, provider, OK, "computed a small graph on cuda:0")
    return Check(part, provider, ABSENT, "built in, not used by this version of fastvid")


def _video() -> Iterator[Check]:
    try:
        av: Any = importlib.import_module("av")
    except ImportError as error:
        hint = "pip install --force-reinstall av"
        yield Check("video", "PyAV", PROBLEM, str(error), hint, MediaError.exit_code)
        return
    ffmpeg = getattr(av, "ffmpeg_version_info", "unknown")
    yield Check("video", "PyAV", OK, f"{av.__version__} with FFmpeg {ffmpeg}")
    for name, mode, codecs in (("reads", "r", _DECODERS), ("writes", "w", _ENCODERS)):
        missing = [codec for codec in codecs if not _has_codec(av, codec, mode)]
        there = ", ".join(codec for codec in codecs if codec not in missing)
        yield Check("video", name, OK if there else PROBLEM, there or "none of the codecs")
        if missing:
            yield Check("video", name, ABSENT, ", ".join(missing))


def _has_codec(av: Any, name: str, mode: str) -> bool:
    try:
        av.codec.Codec(name, mode)
    except Exception:
        return False
    return True


def _models(*, run: bool) -> Iterator[Check]:
    shipped = bundle.shipped()
    if not shipped:
        hint = "install a wheel of fastvid-sdk, or pass a folder as model="
        yield Check("models", "shipped", ABSENT, "no model is installed with fastvid", hint)
    for name, path in shipped.items():
        try:
            model = bundle.Bundle.load(path)
            model.verify()
            size = sum(file.size for file in model.files.values())
            detail = f"{model.task}, {size / 1e6:.1f} MB, every sha256 is right"
            yield Check("models", name, OK, detail)
            if run:
                yield Check("models", name, OK, _try(model))
        except Exception as error:
            yield _problem("models", name, error)


def _try(model: bundle.Bundle) -> str:
    """Runs a model on one frame.

    Returns:
        Device, time and reason.

    Raises:
        FastvidError: It cannot run.
        ModelError: The picture that comes out is not like the one that went in.
    """
    height, width = model.size_rule.padded(_HEIGHT, _WIDTH)
    with backends.open(model) as loaded:
        _run(loaded, height, width)
        seconds = []
        for _ in range(_RUNS):
            begun = time.perf_counter()
            outputs = _run(loaded, height, width)
            seconds.append(time.perf_counter() - begun)
        report = loaded.report()
    wanted = _picture(height, width).mean()
    for name, array in outputs.items():
        if array.dtype == np.uint8 and abs(array.mean() - wanted) > 16:
            raise ModelError(
                f"{model.name}: mean of {name!r} must be near {wanted:.0f} as in the input, "
                f"got {array.mean():.0f}"
            )
    median = sorted(seconds)[_RUNS // 2]
    ran = f"{width}x{height} in {median * 1e3:.1f} ms on {report.device}"
    return f"{ran} by {report.graphs[0].provider}, because {report.reason}"


def _run(loaded: backends.LoadedModel, height: int, width: int) -> Arrays:
    """Runs every graph once its inputs are there; outputs go into inputs of the same name."""
    graphs = loaded.bundle.graphs
    made = {spec.name for graph in graphs.values() for spec in graph.outputs}
    known: Arrays = {}
    waiting = dict(graphs)
    while waiting:
        ready = [
            name
            for name, graph in waiting.items()
            if all(spec.name in known or spec.name not in made for spec in graph.inputs)
        ]
        if not ready:
            raise ModelError(f"{loaded.bundle.name}: graphs {sorted(waiting)} wait for each other")
        for name in ready:
            graph = waiting.pop(name)
            inputs = {
                spec.name: known[spec.name] if spec.name in known else _input(spec, height, width)
                for spec in graph.inputs
            }
            known.update(loaded.graph(name).run(inputs))
    return known


def _input(spec: TensorSpec, height: int, width: int) -> np.ndarray[Any, Any]:
    sizes = {"N": 1, "H": height, "W": width}
    shape = [size if isinstance(size, int) else sizes.get(size, 1) for size in spec.shape]
    if spec.dtype == "uint8" and len(shape) == 4:
        return np.ascontiguousarray(np.broadcast_to(_picture(height, width), shape))
    middle = 0.0 if spec.range is None else sum(spec.range) / 2
    return np.full(shape, middle, spec.dtype)


def _picture(height: int, width: int) -> np.ndarray[Any, Any]:
    """A smooth gradient, uint8 (H, W, 3)."""
    y = np.linspace(32, 224, height)[:, None, None]
    x = np.linspace(-24, 24, width)[None, :, None]
    return np.asarray(np.rint(y + x * [1.0, 0.0, -1.0]), np.uint8)
