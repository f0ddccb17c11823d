"""Which rows there are: models, formats and sizes, checked before anything is measured."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastvid.backends import _choice
from fastvid.bundle import Bundle, shipped
from fastvid.devices import cuda_driver
from fastvid.errors import InputError, InputTypeError

__all__ = ["FORMATS", "Format", "Spec"]

DEFAULT_SIZE = (1280, 720)
_MAX_SIDE = 16384
_MAX_ROWS = 256
_SHOWN = 60


@dataclass(frozen=True)
class Format:
    """A way to run a model."""

    word: str
    backend: str
    cuda: bool
    """Whether it needs a CUDA device; `word:N` is then that of number N."""
    meaning: str
    precision: str = "auto"
    """What it computes in; `auto` is the bundle's own."""


FORMATS: dict[str, Format] = {
    f.word: f
    for f in (
        Format("onnx-cpu", "onnxruntime", False, "onnxruntime on the CPU"),
        Format("onnx-cuda", "onnxruntime", True, "onnxruntime on a CUDA device"),
        Format("openvino", "openvino", False, "OpenVINO on the CPU"),
        Format("openvino-bf16", "openvino", False, "OpenVINO in bfloat16", "bfloat16"),
        Format("engine", "tensorrt", True, "a TensorRT engine, built on this machine"),
    )
}
"""Formats by the word that `--formats` takes."""


@dataclass(frozen=True)
class Spec:
    """One row before it is measured."""

    bundle: Bundle
    label: str
    """Name of the model, with its folder where two have the same name."""
    format: str
    backend: str
    device: str
    size: tuple[int, int]
    problem: str = ""
    """Why it cannot run; empty if it may."""
    asked: bool = True
    """Whether the caller named the format, or all were taken."""
    generation: dict[str, Any] = field(default_factory=dict)
    computes: str = "auto"
    """Precision that is asked for."""

    @property
    def task(self) -> str:
        """Task of the bundle."""
        return self.bundle.task

    @property
    def precision(self) -> str:
        """What the graphs compute in."""
        return self.bundle.precision if self.computes == "auto" else self.computes

    @property
    def group(self) -> tuple[str, int | None, tuple[int, int]]:
        """Rows that compute the same are measured against each other."""
        return self.task, self.bundle.scale, self.size


@dataclass(frozen=True)
class Clip:
    """What generators draw."""

    prompt: str = "a red circle moves left"
    num_inference_steps: int | None = None
    num_frames: int | None = None
    seed: int = 0


def parse_size(text: object) -> tuple[int, int]:
    """`WxH`, or a pair, as (width, height).

    Raises:
        InputError: It is not two whole numbers from 1 to 16384.
    """
    if isinstance(text, str):
        match = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", text)
        sides: tuple[Any, ...] = tuple(map(int, match.groups())) if match else ()
    elif isinstance(text, Sequence):
        sides = tuple(text)
    else:
        sides = ()
    if len(sides) != 2 or not all(type(s) is int and 1 <= s <= _MAX_SIDE for s in sides):
        raise InputError(
            f"size: argument must be WxH with sides from 1 to {_MAX_SIDE}, got {text!r:.60}",
            hint="for example 1280x720",
        )
    return sides[0], sides[1]


def parse_formats(formats: str | Sequence[str] | None) -> list[tuple[str, Format, str]]:
    """Words, formats and devices; None is all of them.

    Raises:
        InputError: A word is none of the table.
    """
    if formats is None:
        words = list(FORMATS)
    else:
        parts = formats.split(",") if isinstance(formats, str) else list(formats)
        words = [part.strip() if isinstance(part, str) else part for part in parts]
    found: dict[str, tuple[str, Format, str]] = {}
    for word in words:
        match = (
            re.fullmatch(r"([a-z][a-z0-9-]*)(?::([0-9]{1,3}))?", word)
            if isinstance(word, str)
            else None
        )
        form = FORMATS.get(match[1]) if match else None
        if form is None or (match and match[2] and not form.cuda):
            raise InputError(
                f"formats: argument must be among {', '.join(FORMATS)}, got {word!r:.60}",
                hint="onnx-cuda:1 and engine:1 are those of the second CUDA device",
            )
        assert match is not None
        index = int(match[2] or 0)
        device = f"cuda:{index}" if form.cuda else "cpu"
        found[form.word if not index else f"{form.word}:{index}"] = (word, form, device)
    if not found:
        raise InputError(f"formats: argument must name at least one of {', '.join(FORMATS)}")
    return [(word, form, device) for word, (_, form, device) in found.items()]


def find_models(models: Sequence[str | os.PathLike[str]] | None) -> list[Bundle]:
    """Bundles by shipped name, short name or folder; None or nothing is all that ship.

    Raises:
        InputTypeError: A model is neither name nor path.
        InputError: There is no such model.
        ModelError: A folder holds no bundle that can be used.
    """
    names = shipped()
    if not models:
        if not names:
            raise InputError("model: no model is installed with fastvid, so one must be named")
        return [Bundle.load(path) for path in names.values()]
    return [bundle for model in models for bundle in _find(model, names)]


def _find(model: str | os.PathLike[str], names: dict[str, Path]) -> list[Bundle]:
    if not isinstance(model, str | os.PathLike):
        raise InputTypeError(
            f"model: argument must be a name or a folder, got {type(model).__name__}"
        )
    if isinstance(model, str):
        pattern = re.compile(rf"(?:\w+-)?{re.escape(model)}(?:-x\d+)?")
        exact = [names[model]] if model in names else []
        if found := exact or [path for name, path in names.items() if pattern.fullmatch(name)]:
            return [Bundle.load(path) for path in found]
    folder = os.path.expanduser(model)
    if isinstance(model, os.PathLike) or os.path.isdir(folder):
        return [Bundle.load(folder)]
    raise InputError(
        f"model: argument must be a shipped model ({', '.join(names) or 'none is installed'}), "
        f"got {model!r:.60}",
        hint="a folder that holds bundle.json is accepted too",
    )


def make(
    models: Sequence[str | os.PathLike[str]] | None,
    formats: str | Sequence[str] | None,
    sizes: Sequence[object] | None,
    clip: Clip,
    source_size: tuple[int, int] | None,
) -> list[Spec]:
    """All rows in order: by model, then size, then format.

    Raises:
        InputError: An argument is wrong, or no model takes any of the sizes.
        ModelError: A bundle cannot be used.
    """
    chosen = parse_formats(formats)
    wanted = [parse_size(size) for size in sizes or ()]
    bundles = find_models(models)
    labels = _labels(bundles)
    specs = []
    for label, bundle in zip(labels, bundles, strict=True):
        for size in dict.fromkeys(wanted or [_default_size(bundle, source_size)]):
            for word, form, device in chosen:
                spec = Spec(bundle, label, word, form.backend, device, size)
                spec = dataclasses.replace(
                    spec,
                    asked=formats is not None,
                    problem=size_problem(bundle, size)
                    or device_problem(device)
                    or _runtime_problem(bundle, form),
                    computes=form.precision,
                    generation=_generation(bundle, size, clip),
                )
                specs.append(spec)
    problems = {size_problem(spec.bundle, spec.size) for spec in specs}
    if "" not in problems:
        raise InputError(f"size: {min(problems)}")
    if len(specs) > _MAX_ROWS:
        raise InputError(f"bench: rows must be at most {_MAX_ROWS}, got {len(specs)}")
    return specs


def _labels(bundles: Sequence[Bundle]) -> list[str]:
    names = [bundle.name for bundle in bundles]
    labels: list[str] = []
    for bundle in bundles:
        label = bundle.name
        if names.count(label) > 1 and bundle.path.name != label:
            label = f"{label} ({bundle.path.name})"
        count, word = 1, label
        while label in labels:
            count += 1
            label = f"{word} #{count}"
        labels.append(label)
    return labels


def _default_size(bundle: Bundle, source: tuple[int, int] | None) -> tuple[int, int]:
    if bundle.generation is not None:
        return bundle.generation.width, bundle.generation.height
    return source or DEFAULT_SIZE


def size_problem(bundle: Bundle, size: tuple[int, int]) -> str:
    """Why a model does not take a size; empty if it does."""
    width, height = size
    try:
        bundle.size_rule.padded(height, width)
    except InputError as error:
        return f"{bundle.name} does not take {width}x{height}: {error.message}"
    return ""


def device_problem(device: str) -> str:
    """Why a device cannot be used, as far as the driver knows; empty if it may."""
    if device == "cpu":
        return ""
    driver = cuda_driver()
    if driver.problem:
        return driver.problem
    if int(device.partition(":")[2]) >= len(driver.devices):
        return f"the driver lists {len(driver.devices)} CUDA devices, and no {device}"
    return ""


def _runtime_problem(bundle: Bundle, form: Format) -> str:
    """Why a bundle does not run in a format of OpenVINO; empty if it may."""
    if form.backend != "openvino":
        return ""
    if not _choice.installed("openvino"):
        return "openvino is not installed"
    if form.precision not in ("auto", *_choice.offered(bundle)):
        return f"{bundle.name} is not offered in {form.precision} here"
    return ""


def _generation(bundle: Bundle, size: tuple[int, int], clip: Clip) -> dict[str, Any]:
    spec = bundle.generation
    if spec is None:
        return {}
    return {
        "prompt": clip.prompt,
        "width": size[0],
        "height": size[1],
        "num_frames": clip.num_frames or spec.num_frames,
        "num_inference_steps": clip.num_inference_steps or spec.num_inference_steps,
        "seed": clip.seed,
    }


def reference_of(spec: Spec, specs: Sequence[Spec], given: Bundle | None) -> tuple[Bundle, str]:
    """The model whose float32 run on the CPU is what a row should give, and its label.

    That is the one that was given, the row's own model if it computes in float32, or the only
    float32 model of the same task and scale among the rows; else the row's own model.
    """

    def fits(bundle: Bundle) -> bool:
        return (bundle.task, bundle.scale) == (spec.task, spec.bundle.scale)

    if given is not None and fits(given):
        return given, given.name
    if spec.precision != "float32":
        others = {s.label: s.bundle for s in specs if s.precision == "float32" and fits(s.bundle)}
        base = re.sub(r"-(fp16|bf16|int8|float16|bfloat16)$", "", spec.bundle.name)
        for label, bundle in others.items():
            if bundle.name == base or len(others) == 1:
                return bundle, label
    return spec.bundle, spec.label
