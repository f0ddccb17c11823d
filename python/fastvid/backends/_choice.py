"""Which runtime computes a bundle on the CPU, and in what precision: a rule, and never a guess.

The bundle says what was measured when it was made (`precisions`). `auto` follows that where the
machine is of the kind it was measured on, so the same machine always chooses the same.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass

from fastvid import _core
from fastvid.bundle import MANIFEST, Bundle, PrecisionFigure
from fastvid.devices import Device
from fastvid.errors import BackendUnavailableError, InputError

FASTER = 1.1
"""From how many times the speed on one is taken for faster: less is within the noise, and compiling
takes its time too."""

_FORMATS = {"float32": "onnx", "float16": "onnx-fp16", "int8": "onnx-int8"}
"""Format of `fastvid export` that computes in a precision."""


_SUFFIXES = {"float16": "-fp16", "int8": "-int8"}
"""What `fastvid export` appends to the name of a model in less precision."""


@dataclass(frozen=True)
class Choice:
    """What runs a bundle on the CPU."""

    backend: str
    precision: str
    reason: str
    """Why; empty where there was nothing to choose."""


def processor() -> str:
    """The best instruction set of this machine, as `fastvid.ops` names it."""
    return _core.cpu_isas()[-1]


def installed(module: str) -> bool:
    """Whether a module is there, without importing it."""
    if module in sys.modules:
        return sys.modules[module] is not None
    return importlib.util.find_spec(module) is not None


def narrow_form(bundle: Bundle, precision: str) -> Bundle | None:
    """The bundle that an export of another one to less precision made beside it, if it is there.

    Raises:
        ModelError: A bundle lies there that cannot be used.
        InputError: It was made from other graphs than those of `bundle`.
    """
    suffix = _SUFFIXES.get(precision)
    if suffix is None or bundle.precision != "float32":
        return None
    folder = bundle.path.with_name(bundle.path.name + suffix)
    if not (folder / MANIFEST).is_file():
        return None
    found = Bundle.load(folder)
    settings = found.provenance.settings
    same = found.precision == precision and all(
        settings.get(f"sha256.{name}") == bundle.files[graph.file].sha256
        for name, graph in bundle.graphs.items()
    )
    if not same:
        raise InputError(
            f"precision: {precision!r} of {bundle.name!r} must be made from its graphs, "
            f"{folder.name!r} was made from others",
            hint=f"`fastvid export {bundle.name} --format {_FORMATS[precision]} --overwrite`",
        )
    return found


def offered(bundle: Bundle) -> tuple[str, ...]:
    """Precisions that a bundle can be run in on this machine, its own first."""
    more = {
        figure.precision
        for figure in bundle.precisions
        if figure.backend == "openvino" and figure.precision != bundle.precision
    }
    beside = {
        precision
        for precision, suffix in _SUFFIXES.items()
        if bundle.precision == "float32"
        and (bundle.path.with_name(bundle.path.name + suffix) / MANIFEST).is_file()
    }
    return (bundle.precision, *sorted(more & set(_runnable()) | beside))


def _runnable() -> tuple[str, ...]:
    """What OpenVINO computes float32 graphs in here; nothing where it is not installed."""
    if not installed("openvino"):
        return ()
    from fastvid.backends import _openvino_setup

    try:
        return _openvino_setup.precisions()
    except BackendUnavailableError:
        return ()


def choose(bundle: Bundle, target: Device, backend: str, precision: str) -> Choice:
    """What to run a bundle with, from what the caller asks for.

    Args:
        bundle: The bundle.
        target: The device asked for.
        backend: `auto`, or a backend's name.
        precision: `auto`, or a precision's name.

    Raises:
        InputError: The bundle or the machine does not offer the precision, or the backend does not
            run on the device.
        BackendUnavailableError: The precision needs a runtime that is not installed.
    """
    if backend == "openvino" and target.kind == "cuda":
        raise InputError(
            f"device: argument must be 'auto' or 'cpu' for OpenVINO, got {str(target)!r}"
        )
    if precision not in ("auto", bundle.precision):
        _require(bundle, target, backend, precision)
        figure = _figure(bundle, precision)
        assert figure is not None
        reason = f"precision={precision!r} was asked for{_told(figure)}"
        return Choice("openvino", precision, reason)
    if backend != "auto":
        return Choice(backend, bundle.precision, f"backend={backend!r} was asked for")
    figure = _figure(bundle, bundle.precision)
    if not installed("onnxruntime") and installed("openvino") and target.kind != "cuda":
        return Choice("openvino", bundle.precision, "onnxruntime is not installed")
    if figure is None or figure.speed < FASTER or figure.processor != processor():
        return Choice("onnxruntime", bundle.precision, "")
    if not installed("openvino"):
        more = f"openvino is {figure.speed:g} times as fast here, and is not installed"
        return Choice("onnxruntime", bundle.precision, more)
    reason = f"backend='auto' takes the faster one{_told(figure)}"
    return Choice("openvino", bundle.precision, reason)


def _figure(bundle: Bundle, precision: str) -> PrecisionFigure | None:
    """What was measured of a precision in OpenVINO."""
    for figure in bundle.precisions:
        if (figure.backend, figure.precision) == ("openvino", precision):
            return figure
    return None


def _told(figure: PrecisionFigure) -> str:
    return (
        f"; measured: {figure.speed:g} times as fast as onnxruntime in float32, "
        f"{max(0.0, figure.loss):.3f} dB lost, on {figure.processor}"
    )


def _require(bundle: Bundle, target: Device, backend: str, precision: str) -> None:
    """Refuses a precision that is not the bundle's own and cannot be had."""
    here = offered(bundle)
    names = " or ".join(repr(name) for name in ("auto", *here))
    wanted = f"precision: argument must be {names} for {bundle.name!r}"
    if _figure(bundle, precision) is None:
        hint = (
            f"{precision} is for the weights of large transformers: "
            f"`fastvid export FOLDER --precision {precision}`"
        )
        if precision in _FORMATS:
            hint = (
                "a bundle computes in what it was exported with: "
                f"`fastvid export MODEL --format {_FORMATS[precision]}` makes one"
            )
        elif precision == "bfloat16" and bundle.precision == "float32":
            hint = (
                "what it would cost has not been measured for this bundle, or was too much: "
                "`python -m fastvid_export precisions FOLDER` measures it"
            )
        raise InputError(f"{wanted}, got {precision!r}", hint=hint)
    if target.kind == "cuda" or backend not in ("auto", "openvino"):
        where = f"device={str(target)!r}" if target.kind == "cuda" else f"backend={backend!r}"
        raise InputError(
            f"precision: argument must be 'auto' or {bundle.precision!r} for {bundle.name!r} with "
            f"{where}, got {precision!r}",
            hint="backend='openvino' on the CPU computes in it",
        )
    if precision in here:
        return
    if not installed("openvino"):
        from fastvid.backends._openvino_setup import INSTALL

        raise BackendUnavailableError(
            f"precision: {precision!r} of {bundle.name!r} needs openvino, which is not installed",
            hint=INSTALL,
        )
    raise InputError(
        f"{wanted} on this machine, got {precision!r}",
        hint="its processor has no instructions for it (AVX512-BF16 or AMX)",
    )
