"""The shipped models: whether their files are whole, and whether each runs."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np

from fastvid import backends, bundle
from fastvid._specs import TensorSpec
from fastvid.doctor._check import ABSENT, OK, Check, problem
from fastvid.errors import ModelError

Arrays = dict[str, np.ndarray[Any, Any]]

_HEIGHT, _WIDTH = 360, 640
_RUNS = 3
_PROMPT = "a red circle moves left"


def models(*, run: bool) -> Iterator[Check]:
    """Each shipped model; `run` also gives it a frame of 640x360, or a prompt."""
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
            if run and model.task == "generator" and find_spec("tokenizers") is None:
                detail = "the package tokenizers, which reads prompts, is not installed"
                yield Check("models", name, ABSENT, detail, "pip install 'fastvid-sdk[generate]'")
            elif run:
                done = _draw(model) if model.task == "generator" else _try(model)
                yield Check("models", name, OK, done)
        except Exception as error:
            yield problem("models", name, error)


def _draw(model: bundle.Bundle) -> str:
    """Has a generator draw a clip; the result as that of `_try`.

    Raises:
        FastvidError: It cannot draw, or gave nothing but black.
    """
    from fastvid.generator import Generator

    with warnings.catch_warnings(), Generator(model.path) as generator:
        # Words of the prompt that this generator does not know.
        warnings.simplefilter("ignore")
        seconds = []
        for seed in range(_RUNS):
            begun = time.perf_counter()
            clip = generator.generate(_PROMPT, seed=seed).frames()
            seconds.append(time.perf_counter() - begun)
        report = generator.report()
    count, height, width = clip.shape[:3]
    median = sorted(seconds)[_RUNS // 2]
    ran = f"{count} frames of {width}x{height} in {median * 1e3:.0f} ms on {report.device}"
    return f"{ran} by {report.graphs[0].provider}, because {report.reason}"


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
