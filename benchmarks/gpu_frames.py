"""Upscaling and interpolation end to end: the SDK, its ops in torch, and torch alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import timing
import torch
from gpu_clock import Functions, Machine, compiled, host_times
from gpu_networks import interpolator, shipped, upscaler
from gpu_rows import PEERS, RUNNERS
from numpy.typing import NDArray
from torch import Tensor

from fastvid import Interpolator, Upscaler
from fastvid.backends import LoadedModel
from fastvid.bundle import Bundle
from fastvid.metrics import psnr
from fastvid.scene import Scene

Frame = NDArray[np.uint8]
LEAST_PSNR = 35.0
"""dB against the same network in float32: below it a time means nothing."""
_GRAPHS = {"mode": "reduce-overhead"}


class Task:
    """One task at one size: its inputs and its answer in float32."""

    def __init__(self, m: Machine, part: str, spec: dict[str, Any], models: Path | None) -> None:
        self.m, self.upscales = m, part == "upscaling"
        self.models = models
        bundle = shipped(models, "upscaler" if self.upscales else "interpolator")
        if bundle is None:
            raise SystemExit(f"gpu: no bundle for {part} is installed or in --models")
        self.bundle: Bundle = bundle
        height, width = m.pick(spec["size"], (72, 84))
        scene = Scene(width, height, seed=7)
        times = (0.4,) if self.upscales else (10 / 60, 12 / 60)
        self.frames = [np.ascontiguousarray(scene.draw(t)) for t in times]
        self.size = (height, width)
        # The networks want multiples of 16, as the SDK pads frames to; torch's user pads before.
        multiple = 2 if self.upscales else 16
        self.padded = [_pad(frame, multiple) for frame in self.frames]
        self.right = self._float32()

    def module(self, *, plain: bool, narrow: bool = True) -> Callable[..., Tensor]:
        make = upscaler if self.upscales else interpolator
        return make(self.m, self.bundle, plain=plain, narrow=narrow)

    def inputs(self) -> list[Tensor]:
        """On the device."""
        tensors = [torch.from_numpy(frame)[None].to(self.m.device) for frame in self.padded]
        return tensors if self.upscales else [*tensors, torch.full((1,), 0.5, device=self.m.device)]

    def _float32(self) -> Frame:
        answer = self.module(plain=True, narrow=False)(*self.inputs())
        return self.crop(answer[0].cpu().numpy())

    def crop(self, frame: Frame) -> Frame:
        factor = 2 if self.upscales else 1
        height, width = (factor * side for side in self.size)
        return frame[:height, :width]

    def quality(self, frame: Frame) -> float:
        """PSNR against float32, 100 at most."""
        return round(min(100.0, psnr(self.crop(frame), self.right)), 2)


def measure(
    m: Machine, part: str, spec: dict[str, Any], rounds: int, models: Path | None
) -> dict[str, Any]:
    """The row: times, ratios against each peer, PSNR, and why a runner is missing."""
    task = Task(m, part, spec, models)
    make = _on_host if spec["route"] == "host to host" else _on_device
    functions: Functions = {}
    result: dict[str, Any] = {"psnr": {}, "absent": {}}
    close: list[Callable[[], None]] = []
    for name, prepare in make(task, close):
        try:
            function = prepare()
            result["psnr"][name] = task.quality(function())
        except Exception as problem:  # a runner that fails is a line of the row
            result["absent"][name] = f"{type(problem).__name__}: {problem}"[:300]
            continue
        functions[name] = function
    calls = 1 if spec["route"] == "host to host" else m.pick(10, 1)
    quiet = {name: _quiet(function) for name, function in functions.items()}
    times = host_times(m, quiet, rounds, calls=calls)
    for function in close:
        function()
    result["time"] = times
    result["ratio"] = {
        name: {peer: timing.ratio(times, peer, name) for peer in PEERS if peer in times}
        for name in times
        if name not in PEERS
    }
    result["right"] = all(value >= LEAST_PSNR for value in result["psnr"].values())
    return result


def _quiet(function: Callable[..., object]) -> Callable[[], object]:
    return lambda: function(check=False)


def _on_host(task: Task, close: list[Callable[[], None]]) -> Iterator[tuple[str, Any]]:
    """NumPy frames in and out."""
    for name, backend in zip(RUNNERS[:2], ("onnxruntime", "tensorrt"), strict=True):

        def sdk(backend: str = backend) -> Any:
            if task.upscales:
                upscales = Upscaler(task.bundle.path, device=task.m.device, backend=backend)
                close.append(upscales.close)
                return lambda check=True: upscales.upscale_frame(task.frames[0])
            model = Interpolator(task.bundle.path, device=task.m.device, backend=backend)
            close.append(model.close)
            return lambda check=True: model.between(*task.frames)

        yield name, sdk
    for name, run in _torch(task):
        yield name, lambda run=run: _staged(task, run())


def _torch(task: Task) -> Iterator[tuple[str, Any]]:
    m = task.m
    yield RUNNERS[2], lambda: task.module(plain=False)
    yield RUNNERS[3], lambda: task.module(plain=True)
    yield RUNNERS[4], lambda: compiled(m, task.module(plain=True))
    yield RUNNERS[5], lambda: compiled(m, task.module(plain=True), **_GRAPHS)


def _staged(task: Task, run: Callable[..., Tensor]) -> Callable[..., Frame]:
    """As a careful user of torch writes it: pinned buffers both ways, copies that do not block."""
    pinned = task.m.device == "cuda"
    inputs = task.inputs()
    hosts = [torch.empty(x.shape, dtype=x.dtype, pin_memory=pinned) for x in inputs]
    out = torch.empty(run(*inputs).shape, dtype=torch.uint8, pin_memory=pinned)
    if len(hosts) == 3:
        hosts[2].fill_(0.5)

    def call(check: bool = True) -> Frame:
        for host, frame in zip(hosts, task.padded, strict=False):
            host[0].copy_(torch.from_numpy(frame))
        for host, tensor in zip(hosts, inputs, strict=True):
            tensor.copy_(host, non_blocking=True)
        out.copy_(run(*inputs), non_blocking=True)
        task.m.wait()
        return out[0].numpy()

    return call


def _on_device(task: Task, close: list[Callable[[], None]]) -> Iterator[tuple[str, Any]]:
    """Frames stay on the device; the answer is fetched only to be looked at."""
    for name, backend in zip(RUNNERS[:2], ("onnxruntime", "tensorrt"), strict=True):
        yield name, lambda backend=backend: _session(task, backend, close)
    for name, run in _torch(task):

        def prepare(run: Any = run) -> Any:
            function, inputs = run(), task.inputs()

            def call(check: bool = True) -> Any:
                out = function(*inputs)
                return out[0].cpu().numpy() if check else out

            return call

        yield name, prepare


def _session(task: Task, backend: str, close: list[Callable[[], None]]) -> Any:
    """The bundle's graphs through the SDK's sessions, chained by arrays of the device."""
    from fastvid import backends

    loaded: LoadedModel = backends.open(task.bundle, device=task.m.device, backend=backend)
    close.append(loaded.close)
    if task.upscales:
        upscale = loaded.graph("upscale")
        source = _resident(task.m, task.padded[0])

        def call(check: bool = True) -> Any:
            out = upscale.run({"frames": source}, keep=("upscaled",))["upscaled"]
            return np.asarray(_fetch(out))[0] if check else out

        return call
    motion, between = loaded.graph("motion"), loaded.graph("between")
    frames = [_resident(task.m, frame) for frame in task.padded]
    features = tuple(motion.outputs)
    timestep = np.full(1, 0.5, np.float32)

    def draw(check: bool = True) -> Any:
        found = motion.run(dict(zip(("frame0", "frame1"), frames, strict=True)), keep=features)
        inputs = {**found, "timestep": timestep}
        out = between.run(inputs, keep=("frame",))["frame"]
        return np.asarray(_fetch(out))[0] if check else out

    return draw


def _resident(m: Machine, frame: Frame) -> Any:
    """A frame where the session computes."""
    if m.device == "cpu":
        return frame[None]
    from fastvid.backends import _cuda

    memory = _cuda.Memory(_cuda.Stream(0))
    array = memory.put(frame[None])
    memory.stream.wait()
    return array


def _fetch(array: Any) -> Any:
    return array if isinstance(array, np.ndarray) else array.numpy()


def _pad(frame: Frame, multiple: int) -> Frame:
    height, width = ((-side) % multiple for side in frame.shape[:2])
    return np.pad(frame, ((0, height), (0, width), (0, 0)), mode="edge")
