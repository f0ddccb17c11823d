"""Ways to enlarge a frame, by name: fastvid's models, resizing, and networks that others trained.

Each is a function from a frame uint8 (H, W, 3) to a larger one, whatever it takes inside: what a
user of that runtime would run. A network of others is one module from bytes to bytes, so that
PyTorch, onnxruntime and OpenVINO convert and round with their own kernels; of a network on luma,
OpenCV splits and joins the colours, and resizes chroma bicubically.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from between import digest
from numpy.typing import NDArray
from PIL import Image

from fastvid import Upscaler
from fastvid.bundle import Bundle, shipped

if TYPE_CHECKING:
    from torch import nn

Frame = NDArray[np.uint8]
Enlarge = Callable[[Frame], Frame]
Size = tuple[int, int]
_OPENVINO = {"openvino": "f32", "openvino/bfloat16": "bf16"}
RUNTIMES = ("torch", "torch, channels last", "onnxruntime", *_OPENVINO)
_OWN_RUNTIMES = ("onnxruntime", *_OPENVINO)
FILES: dict[str, dict[int, str]] = {
    "FSRCNN-small": {s: f"fsrcnn_pb/FSRCNN-small_x{s}.pb" for s in (2, 3, 4)},
    "FSRCNN": {s: f"fsrcnn_pb/FSRCNN_x{s}.pb" for s in (2, 3, 4)},
    "ESPCN": {s: f"espcn_pb/ESPCN_x{s}.pb" for s in (2, 3, 4)},
    "SPAN, 28 channels": {4: "span_ntire2025/team51_span.pth"},
    "EFDN": {4: "span_ntire2025/team00_EFDN.pth"},
    "RLFN, NTIRE 2022": {4: "rlfn/rlfn_ntire_x4.pth"},
    "RLFN-S": {2: "rlfn/rlfn_s_x2.pth", 4: "rlfn/rlfn_s_x4.pth"},
    "realesr-animevideov3": {2: "compact_ncnn/realesr-animevideov3-x2.param"},
    "upconv_7 photo": {2: "waifu2x_ncnn/scale2.0x_model.param"},
}
_MARGINS = {"upconv_7 photo": 7}
_RESIZED = {
    "bicubic": Image.Resampling.BICUBIC,
    "Lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Method:
    """A row of the table."""

    name: str
    open: Callable[[str, int, Size | None, Path], Enlarge]
    """Called with a runtime, a number of threads, the size of the frames where it is one, and a
    folder for what is made on the way."""
    runtimes: tuple[str, ...] = ("",)
    mark: str = ""
    """What its figures depend on besides its name: the digest of a bundle."""
    weights: Path | None = None

    @property
    def quality_runtime(self) -> str:
        """What its pictures are measured through; all give nearly the same."""
        return self.runtimes[0]


def methods(scale: int, weights: Path) -> dict[str, Method]:
    """All rows of a scale, fastvid's last."""
    found = [
        Method(name, functools.partial(_resized, scale, kind)) for name, kind in _RESIZED.items()
    ]
    for name, files in FILES.items():
        path = weights / files.get(scale, "-")
        if path.is_file():
            runtimes = RUNTIMES
            if path.suffix == ".param":
                runtimes = (*RUNTIMES, "ncnn")
            elif path.suffix == ".pb":
                # A single channel has one layout.
                runtimes = tuple(r for r in RUNTIMES if "channels last" not in r)
            found.append(
                Method(name, functools.partial(_network, name, path), runtimes, weights=path)
            )
    for name, passes, bundle in own(scale):
        runtimes = _OWN_RUNTIMES[:2] if name.endswith("-int8") else _OWN_RUNTIMES
        title = f"fastvid {name}" + (", twice" if passes == 2 else "")
        open_ = functools.partial(_shipped, bundle, scale)
        found.append(Method(title, open_, runtimes, digest(bundle)))
    return {method.name: method for method in found}


def own(scale: int) -> list[tuple[str, int, Bundle]]:
    """What ships for a scale: names, passes and bundles; x4 by two passes where nothing else is."""
    bundles = {name: Bundle.load(path) for name, path in shipped().items()}
    ours = {n: b for n, b in bundles.items() if b.task == "upscaler"}
    found = [(n, 1, b) for n, b in ours.items() if b.scale == scale]
    if scale == 4:
        found += [
            (n, 2, b) for n, b in ours.items()
            if b.scale == 2 and n.replace("-x2", "-x4") not in ours
        ]  # fmt: skip
    return found


def _shipped(
    bundle: Bundle, scale: int, runtime: str, threads: int, size: Size | None, cache: Path
) -> Enlarge:
    backend, _, precision = runtime.partition("/")
    return Upscaler(
        bundle.path,
        scale=scale,
        device="cpu",
        backend=backend,
        precision=precision or "auto",
        threads=threads,
        tile=None,
    ).upscale_frame


def _resized(
    scale: int,
    kind: Image.Resampling,
    runtime: str,
    threads: int,
    size: Size | None,
    cache: Path,
) -> Enlarge:
    def enlarge(frame: Frame) -> Frame:
        height, width = frame.shape[:2]
        return np.asarray(Image.fromarray(frame).resize((scale * width, scale * height), kind))

    return enlarge


# Networks of others


def _network(
    name: str, path: Path, runtime: str, threads: int, size: Size | None, cache: Path
) -> Enlarge:
    if runtime == "ncnn":
        from ncnn_nets import through_ncnn

        return through_ncnn(path, _MARGINS.get(name, 0), threads)
    luma = path.suffix == ".pb"
    if runtime.startswith("torch"):
        run = _in_torch(name, path, runtime, threads)
    else:
        assert size is not None
        run = _IN_RUNTIME[runtime.partition("/")[0]](_onnx(path, size, cache), runtime, threads)
    cv2.setNumThreads(threads)
    return functools.partial(_through_luma, run) if luma else lambda frame: run(frame[None])[0]


def _through_luma(run: Callable[[Any], Any], frame: Frame) -> Frame:
    luma, red, blue = cv2.split(cv2.cvtColor(frame, cv2.COLOR_RGB2YCrCb))
    large = run(luma[None, None])[0, 0]
    size = large.shape[::-1]
    chroma = [cv2.resize(plane, size, interpolation=cv2.INTER_CUBIC) for plane in (red, blue)]
    return cv2.cvtColor(cv2.merge([large, *chroma]), cv2.COLOR_YCrCb2RGB)  # type: ignore[return-value]


def _in_torch(name: str, path: Path, runtime: str, threads: int) -> Callable[[Any], Any]:
    import torch

    torch.set_num_threads(threads)
    module = bytes_module(name, path)
    if runtime.endswith("channels last"):
        module = module.to(memory_format=torch.channels_last)

    def run(frames: Any) -> Any:
        with torch.inference_mode():
            return module(torch.tensor(np.ascontiguousarray(frames))).numpy()

    return run


def bytes_module(name: str, path: Path) -> nn.Module:
    """The network from bytes to bytes: RGB (1, H, W, 3), or luma (1, 1, H, W)."""
    import torch
    from torch import Tensor, nn

    if path.suffix == ".param":
        from ncnn_nets import NcnnNet

        net: nn.Module = NcnnNet(path, _MARGINS.get(name, 0))
        luma = False
    else:
        from bench_import_upscalers import network_of

        network = network_of(path)
        net, luma = network.module, network.channels == 1

    class Bytes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, frames: Tensor) -> Tensor:
            planes = frames if luma else frames.permute(0, 3, 1, 2)
            made = self.net(planes.float() * (1 / 255))
            made = (made.clamp(0, 1) * 255).round().to(torch.uint8)
            return made if luma else made.permute(0, 2, 3, 1)

    return Bytes().eval().requires_grad_(False)


def prepare(method: Method, runtime: str, size: Size, cache: Path) -> None:
    """Makes what the runtime reads, in another process, whose memory is not the row's."""
    if method.weights is None or runtime.startswith("torch") or runtime == "ncnn":
        return
    target = _onnx_path(method.weights, size, cache)
    if not target.is_file():
        arguments = [method.name, str(method.weights), *map(str, size), str(target)]
        here = Path(__file__).parent
        paths = [str(here), str(here.parent), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
        subprocess.run([sys.executable, __file__, *arguments], check=True, env=environment)


def _onnx_path(path: Path, size: Size, cache: Path) -> Path:
    return cache / "onnx" / f"{path.parent.name}-{path.stem}-{size[0]}x{size[1]}.onnx"


def _onnx(path: Path, size: Size, cache: Path) -> Path:
    target = _onnx_path(path, size, cache)
    if not target.is_file():
        raise FileNotFoundError(f"{target} is missing: call prepare() first")
    return target


def _export(name: str, path: Path, size: Size, target: Path) -> None:
    import torch

    module = bytes_module(name, path)
    width, height = size
    shape = (1, 1, height, width) if path.suffix == ".pb" else (1, height, width, 3)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    torch.onnx.export(
        module,
        (torch.zeros(shape, dtype=torch.uint8),),
        partial,
        input_names=["frames"],
        output_names=["large"],
        opset_version=17,
        dynamo=False,
    )
    partial.replace(target)


def _in_onnxruntime(path: Path, runtime: str, threads: int) -> Callable[[Any], Any]:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    return lambda frames: session.run(None, {"frames": np.ascontiguousarray(frames)})[0]


def _in_openvino(path: Path, runtime: str, threads: int) -> Callable[[Any], Any]:
    import openvino

    model = openvino.Core().compile_model(
        str(path),
        "CPU",
        {
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": _OPENVINO[runtime],
        },
    )
    return lambda frames: model(np.ascontiguousarray(frames))[0].copy()


_IN_RUNTIME = {"onnxruntime": _in_onnxruntime, "openvino": _in_openvino}


if __name__ == "__main__":
    _export(sys.argv[1], Path(sys.argv[2]), (int(sys.argv[3]), int(sys.argv[4])), Path(sys.argv[5]))
