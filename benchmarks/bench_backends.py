"""Models in onnxruntime and OpenVINO, in float32, bfloat16 and int8, with what it costs.

    python benchmarks/bench_backends.py --data CLIPS [--models FOLDER ...] [--part models]
    python benchmarks/bench_backends.py --part shapes

`models`: frames in to frame out through the SDK, 960x540 for upscalers and 1280x720 for
interpolators; PSNR against what the pictures should be, on clips, less that of float32 in
onnxruntime. Each float32 model is also exported to int8. An upscaled frame of the x2 network takes
62k multiply-adds for each of its 129,600 blocks, 16 GFLOP; bfloat16 products have twice the peak of
float32 and int8 ones four times.

`shapes`: upscalers of random weights, luma of 960x540, a 6x6 convolution of stride 2, inner 3x3
convolutions and one to the blocks of the result, beside a skip convolution from the luma: which
widths and depths each runtime likes. GFLOP are two for each multiply-add.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import timing
from onnx import helper, numpy_helper

from fastvid import Upscaler
from fastvid.backends import _openvino_setup
from fastvid.bundle import Bundle, shipped, write_bundle
from fastvid.metrics import psnr
from fastvid.scene import Scene
from fastvid_export import export, precisions, samples
from fastvid_export.precisions import PrecisionFigure

HEIGHT, WIDTH = 540, 960
SHAPES = [
    (16, 8),
    (24, 8),
    (32, 4),
    (32, 6),
    (32, 8),
    (40, 6),
    (48, 4),
    (48, 5),
    (48, 6),
    (48, 8),
    (64, 4),
]
"""Channels and inner convolutions."""


def main() -> None:
    """Measures, and writes `results/backends.json`, or `results/shapes.json`."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--part", choices=("models", "shapes"), default="models")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--models", type=Path, nargs="*")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    if options.part == "shapes":
        rows = [_shape(c, d, options.rounds) for c, d in SHAPES]
        values: dict[str, Any] = {"size": [WIDTH, HEIGHT], "shapes": rows}
        timing.write_results(timing.RESULTS / "shapes.json", values)
        return
    folders = options.models or [
        path for name, path in shipped().items() if not name.startswith("generator")
    ]
    rows = [row for folder in folders for row in _model(Bundle.load(folder), options)]
    timing.write_results(timing.RESULTS / "backends.json", {"models": rows})


def _model(bundle: Bundle, options: argparse.Namespace) -> list[dict[str, Any]]:
    material = samples.from_videos(options.data) if options.data else None
    found = precisions.measure(bundle, material=material, rounds=options.rounds)
    with tempfile.TemporaryDirectory(prefix="fastvid-bench-") as folder:
        path = export(bundle.path, "onnx-int8", output=Path(folder) / "int8", data=options.data)
        found += precisions.measure(
            Bundle.load(path), reference=bundle, material=material, rounds=options.rounds
        )
    rows = []
    for one in found:
        print(f"{bundle.name}: {one.to_text()}")
        figure: PrecisionFigure = one.figure
        rows.append(
            {
                "model": bundle.name,
                "backend": figure.backend,
                "precision": figure.precision,
                "loss": figure.loss,
                "psnr": figure.psnr,
                "speed": figure.speed,
                "median_ms": one.milliseconds,
                "reference_ms": one.reference_milliseconds,
                "data": figure.data,
                "problem": one.problem,
            }
        )
    return rows


def _shape(channels: int, depth: int, rounds: int) -> dict[str, Any]:
    products = (36 + 16) * channels + 9 * channels**2 * depth + 9 * channels * 16 + 36 * 16
    with tempfile.TemporaryDirectory(prefix="fastvid-bench-") as folder:
        bundle = _random(channels, depth, Path(folder) / "net")
        frame = Scene(WIDTH, HEIGHT, seed=7).draw(0.4)
        ways = [("onnxruntime", "float32"), ("openvino", "float32")]
        ways += [("openvino", "bfloat16")] * ("bfloat16" in _openvino_setup.precisions())
        models = {
            f"{backend} {precision}": Upscaler(
                bundle.path, device="cpu", backend=backend, precision=precision
            )
            for backend, precision in ways
        }
        narrow = export(bundle.path, "onnx-int8", output=Path(folder) / "int8", min_psnr=1.0)
        models |= {
            f"{backend} int8": Upscaler(narrow, device="cpu", backend=backend)
            for backend in ("onnxruntime", "openvino")
        }
        pictures = {name: model.upscale_frame(frame) for name, model in models.items()}
        first = pictures["onnxruntime float32"]
        near = {name: min(99.0, psnr(p, first)) for name, p in pictures.items()}
        if near["openvino float32"] < 60:
            raise SystemExit(f"{channels} x {depth}: runtimes disagree, {near}")
        times = timing.compare(
            {n: lambda m=m: m.upscale_frame(frame) for n, m in models.items()}, rounds=rounds
        )
    flop = 2 * products * (HEIGHT // 2) * (WIDTH // 2)
    row = {
        "channels": channels,
        "depth": depth,
        "products": products,
        "gflop": round(flop / 1e9, 2),
        "times": {n: t["median_ms"] for n, t in times.items()},
    }
    print(row)
    return row


def _random(channels: int, depth: int, folder: Path) -> Bundle:
    """An x2 upscaler as `fastvid_export.models.upscaler` exports it, of random weights."""
    rng = np.random.default_rng(channels * 100 + depth)
    nodes = [
        helper.make_node("RgbToLuma", ["frames"], ["luma", "chroma"], domain="fastvid"),
        helper.make_node("Pad", ["luma", "pads"], ["pad"], mode="edge"),
    ]
    pads = numpy_helper.from_array(np.array([0, 0, 2, 2, 0, 0, 2, 2]), "pads")
    weights = [pads]

    def convolution(source: str, target: str, ci: int, co: int, side: int, gain: float) -> None:
        kernel = rng.normal(size=(co, ci, side, side)) * gain / np.sqrt(ci * side * side)
        weights.append(numpy_helper.from_array(kernel.astype(np.float32), f"{target}.weight"))
        weights.append(numpy_helper.from_array(np.zeros(co, np.float32), f"{target}.bias"))
        stride, pad = (2, 0) if side == 6 else (1, 1)
        names = [source, f"{target}.weight", f"{target}.bias"]
        nodes.append(
            helper.make_node("Conv", names, [target], strides=[stride] * 2, pads=[pad] * 4)
        )

    value = "pad"
    for i in range(depth + 1):
        convolution(value, f"c{i}", 1 if i == 0 else channels, channels, 6 if i == 0 else 3, 1.4)
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"]))
        value = f"r{i}"
    convolution(value, "tail", channels, 16, 3, 0.05)
    convolution("pad", "skip", 1, 16, 6, 0.5)
    nodes += [
        helper.make_node("Add", ["tail", "skip"], ["sum"]),
        helper.make_node("DepthToSpace", ["sum"], ["large"], blocksize=4, mode="CRD"),
        helper.make_node("LumaToRgb", ["large", "chroma"], ["upscaled"], domain="fastvid"),
    ]
    shapes = {"frames": ["N", "H", "W", 3], "upscaled": ["N", "2*H", "2*W", 3]}
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, shape)
        for name, shape in shapes.items()
    ]
    graph = helper.make_graph(nodes, "upscale", ends[:1], ends[1:], weights)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("fastvid", 1)]
    data = helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    tensors = [{"name": n, "dtype": "uint8", "shape": s} for n, s in shapes.items()]
    name = f"random-{channels}x{depth}"
    figure = {
        "precision": "bfloat16", "backend": "openvino", "loss": 0, "speed": 1,
        "processor": "any", "data": "none",
    }  # fmt: skip
    manifest = {
        "name": name, "task": "upscaler", "scale": 2, "description": "random weights",
        "licence": "Apache-2.0", "provenance": {"weights": "random"}, "precisions": [figure],
        "graphs": {
            "upscale": {"file": "upscale.onnx", "inputs": tensors[:1], "outputs": tensors[1:]}
        },
        "size_rule": {"minimum": 2, "multiple_of": 2, "padding": "edge"},
    }  # fmt: skip
    return write_bundle(folder, manifest, {"upscale.onnx": data})


if __name__ == "__main__":
    main()
