"""Time of one upscaled frame for every shipped class, beside peers with their published weights.

    python benchmarks/bench_upscaler_classes.py [--data ../shared/data] [--case 960x540@2 ...]
        [--runtimes onnxruntime,openvino/bfloat16] [--peers FOLDER | --own] [--rounds 7]
        [--threads 2]

Each case is a run of its own in the results: what is not measured again stays.

Frame in to frame out through the SDK: peers are bundles that the exporter makes from their weights
(RLFN-S, SPAN, EFDN, FSRCNN, ESPCN, as far as they lie in DATA/weights), so all pay for the same
colour conversion and copies. What a network must do is counted from its graph and printed first:
multiply-adds per pixel of the input, and the bytes that its convolutions read and write per pixel
at least, which at 2 FLOP a multiply-add and the machine's peak is the least time.

The answer is checked before any clock runs: a drawn scene is reduced, and each result must be
nearer to the truth than bicubic resizing; of `real`, whose input is compressed first, than bicubic
resizing of that.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import timing
from onnx import numpy_helper
from PIL import Image

from fastvid import Upscaler
from fastvid.backends import _choice
from fastvid.bundle import Bundle, PrecisionFigure, shipped
from fastvid.errors import FastvidError
from fastvid.metrics import psnr
from fastvid.scene import Scene

_LUMA = np.array([0.299, 0.587, 0.114])
_PEERS = {
    2: ("rlfn/rlfn_s_x2.pth", "fsrcnn_pb/FSRCNN_x2.pb", "espcn_pb/ESPCN_x2.pb"),
    3: ("fsrcnn_pb/FSRCNN_x3.pb",),
    4: (
        "rlfn/rlfn_s_x4.pth",
        "rlfn/rlfn_ntire_x4.pth",
        "span_ntire2025/*.pth",
    ),
}
_CASES = ("960x540@2", "640x360@3", "480x270@4", "640x360@2", "640x360@4", "960x540@1")


def main() -> None:
    """Checks, times, writes `results/upscaler_classes.json`."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=timing.ROOT.parent / "shared" / "data")
    parser.add_argument("--case", dest="cases", action="append", help="WxH@SCALE of the input")
    parser.add_argument("--runtimes", default="onnxruntime", help="BACKEND[/PRECISION], commas")
    parser.add_argument("--peers", type=Path, help="folder that keeps the peers' bundles")
    parser.add_argument("--own", action="store_true", help="leave the peers out")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    path = timing.RESULTS / "upscaler_classes.json"
    cases = json.loads(path.read_text())["cases"] if path.is_file() else {}
    with tempfile.TemporaryDirectory() as folder:
        for case in options.cases or _CASES:
            size, _, scale = case.partition("@")
            width, height = map(int, size.split("x"))
            peers = options.peers or Path(folder)
            rows = _case(width, height, int(scale), options, peers)
            about = {"environment": timing.environment(), "threads": options.threads}
            cases[case] = {**about, "rows": rows}
    timing.write_results(path, {"cases": cases})


def _case(
    width: int, height: int, scale: int, options: argparse.Namespace, folder: Path
) -> list[dict[str, Any]]:
    truth = Scene(scale * width, scale * height, seed=7).draw(0.4)
    clean = np.asarray(Image.fromarray(truth).resize((width, height), Image.Resampling.BICUBIC))
    harmed = _compressed(clean)
    functions: dict[str, Callable[[], object]] = {}
    rows: dict[str, dict[str, Any]] = {}
    models = []
    for name, bundle in _bundles(scale, options, folder).items():
        macs, traffic = _work(bundle)
        frame = harmed if "-real-" in name else clean
        for runtime in options.runtimes.split(","):
            backend, _, precision = runtime.partition("/")
            label = f"{name} {runtime}"
            try:
                model = Upscaler(
                    bundle.path,
                    scale=scale,
                    backend=backend,
                    precision=precision or "auto",
                    threads=options.threads,
                    tile=None,
                )
            except FastvidError as error:
                print(f"{label}: left out: {error.message}")
                continue
            models.append(model)
            ours = _luma_psnr(model.upscale_frame(frame), truth)
            plain = Image.fromarray(frame).resize(truth.shape[1::-1], Image.Resampling.BICUBIC)
            bicubic = _luma_psnr(np.asarray(plain), truth)
            print(f"{label}: {ours:.2f} dB, bicubic {bicubic:.2f}; {macs:.0f} MAC per pixel")
            if ours < bicubic:
                raise SystemExit(f"{label} is no better than bicubic, so its time means nothing")
            functions[label] = lambda model=model, frame=frame: model.upscale_frame(frame)
            rows[label] = {
                "model": name,
                "runtime": runtime,
                "input": [width, height],
                "scale": scale,
                "macs_per_pixel": round(macs),
                "bytes_per_pixel": round(traffic),
                "psnr": round(ours, 2),
                "bicubic_psnr": round(bicubic, 2),
            }
    for label, times in timing.compare(functions, rounds=options.rounds).items():
        rows[label]["time"] = times
        gflops = 2e-6 * rows[label]["macs_per_pixel"] * width * height / times["median_ms"]
        rows[label]["gflops"] = round(gflops)
        print(
            f"{width}x{height} x{scale} {label:44} {times['median_ms']:8.1f} ms {gflops:6.0f} GF/s"
        )
    for model in models:
        model.close()
    return list(rows.values())


def _bundles(scale: int, options: argparse.Namespace, folder: Path) -> dict[str, Bundle]:
    """Shipped upscalers of that factor in float32, and peers."""
    found = {
        name: bundle
        for name, path in shipped().items()
        if (bundle := Bundle.load(path)).task == "upscaler"
        and (bundle.scale, bundle.precision) == (scale, "float32")
    }
    for pattern in () if options.own else _PEERS.get(scale, ()):
        for path in sorted((options.data / "weights").glob(pattern)):
            made = folder / f"{path.stem}-x{scale}"
            if not made.exists():
                from fastvid_export import export

                made.parent.mkdir(parents=True, exist_ok=True)
                export(path, "onnx", output=made)
            found[path.stem] = _offered(Bundle.load(made), options.runtimes)
    return found


def _offered(bundle: Bundle, runtimes: str) -> Bundle:
    """A peer's bundle that may run in any of the runtimes, whatever it loses there."""
    from fastvid_export.precisions import Measured, update

    figures = [
        PrecisionFigure(precision, backend, 0.0, 1.0, _choice.processor(), "not measured")
        for backend, _, precision in (runtime.partition("/") for runtime in runtimes.split(","))
        if precision not in ("", "float32", "int8")
    ]
    return update(bundle, [Measured(figure, "") for figure in figures])


def _work(bundle: Bundle) -> tuple[float, float]:
    """Multiply-adds, and bytes that convolutions read and write, per pixel of the input."""
    graph = onnx.shape_inference.infer_shapes(
        onnx.load_from_string(bundle.read("upscale.onnx"))
    ).graph
    shapes = {w.name: numpy_helper.to_array(w).shape for w in graph.initializer}
    # Relative to the input: a convolution's stride, or what moves pixels into channels and back.
    density = {port.name: 1.0 for port in graph.input}
    macs = traffic = 0.0
    for node in graph.node:
        here = density.get(node.input[0], 1.0) if node.input else 1.0
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        out = here
        if node.op_type == "DequantizeLinear" and node.input[0] in shapes:
            shapes[node.output[0]] = shapes[node.input[0]]
        weights = node.input[3:4] if node.op_type == "QLinearConv" else node.input[1:2]
        if "Conv" in node.op_type and weights and weights[0] in shapes:
            weight = shapes[weights[0]]
            strides = float(np.prod(attributes.get("strides", [1, 1])))
            grows = node.op_type == "ConvTranspose"
            out = here * strides if grows else here / strides
            macs += float(np.prod(weight)) * (here if grows else out)
            inside, outside = (weight[0], weight[1]) if grows else (weight[1], weight[0])
            traffic += 4.0 * (inside * here + outside * out)
        elif node.op_type == "DepthToSpace":
            out = here * attributes["blocksize"] ** 2
        elif node.op_type == "SpaceToDepth":
            out = here / attributes["blocksize"] ** 2
        density |= dict.fromkeys(node.output, out)
    return macs, traffic


def _compressed(frame: np.ndarray) -> np.ndarray:
    from fastvid_export.training.degradations import through_h264

    return through_h264([frame], 30)[0]


def _luma_psnr(image: np.ndarray, truth: np.ndarray) -> float:
    return psnr(image @ _LUMA, truth @ _LUMA)


if __name__ == "__main__":
    main()
