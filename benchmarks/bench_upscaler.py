"""Time of one upscaled frame, 960x540 to 1920x1080, frame in to frame out.

    python benchmarks/bench_upscaler.py [--size 960x540] [--rounds 30] [--threads 2]

The answer is checked first: a drawn scene is halved, and the result must be nearer to the truth
than bicubic. Peers: a network of the shape of FSRCNN (d, s, m = 56, 12, 4; Dong et al., 2016) on
luma in onnxruntime, with random weights, as time does not depend on them; and the bicubic resize of
OpenCV. The peers do only that: they neither split nor join colours.
"""

from __future__ import annotations

import argparse

import cv2
import numpy as np
import onnx
import onnxruntime
import timing
from onnx import TensorProto, helper

from fastvid import Upscaler
from fastvid._resample import resize_bicubic
from fastvid.metrics import psnr
from fastvid.scene import Scene

_LUMA = np.array([0.299, 0.587, 0.114])


def main() -> None:
    """Checks, times, writes `results/upscaler.json`."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", default="960x540")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    cv2.setNumThreads(options.threads)

    truth = Scene(2 * width, 2 * height, seed=7).draw(0.4)
    frame = resize_bicubic(truth, height, width)
    model, fsrcnn = Upscaler(threads=options.threads), _fsrcnn(options.threads)
    luma = (frame @ (_LUMA / 255)).astype(np.float32)[None, None]
    large = (2 * width, 2 * height)
    quality = {
        "fastvid": round(_luma_psnr(model.upscale_frame(frame), truth), 2),
        "bicubic": round(_luma_psnr(resize_bicubic(frame, 2 * height, 2 * width), truth), 2),
    }
    print("luma PSNR on the drawn scene, dB:", quality)
    if quality["fastvid"] < quality["bicubic"] + 0.5:
        raise SystemExit("the answer is no better than bicubic, so its time means nothing")

    times = timing.compare(
        {
            "fastvid": lambda: model.upscale_frame(frame),
            "fsrcnn_luma": lambda: fsrcnn.run(None, {"luma": luma}),
            "opencv_bicubic": lambda: cv2.resize(frame, large, interpolation=cv2.INTER_CUBIC),
        },
        rounds=options.rounds,
    )
    for name, row in times.items():
        print(f"{name:16} {row}")
    figures = {
        "frames_per_second": round(1e3 / times["fastvid"]["median_ms"], 1),
        "times_faster_than_fsrcnn": timing.ratio(times, "fsrcnn_luma", "fastvid"),
    }
    print(figures)
    timing.write_results(
        timing.RESULTS / "upscaler.json",
        {
            "size": [width, height],
            "threads": options.threads,
            "luma_psnr": quality,
            "time": times,
            **figures,
        },
    )


def _luma_psnr(image: np.ndarray, truth: np.ndarray) -> float:
    return psnr(image @ _LUMA, truth @ _LUMA)


def _fsrcnn(threads: int) -> onnxruntime.InferenceSession:
    """FSRCNN x2 as published, ending in a transposed convolution."""
    rng = np.random.default_rng(0)
    layers = [(56, 1, 5), (12, 56, 1), *[(12, 12, 3)] * 4, (56, 12, 1)]
    nodes, weights, name = [], [], "luma"
    for i, (outputs, inputs, side) in enumerate(layers):
        shape = (outputs, inputs, side, side)
        values = rng.normal(0, 1 / (inputs * side**2) ** 0.5, shape).astype(np.float32)
        slopes = np.full((outputs, 1, 1), 0.25, np.float32)
        weights += [
            onnx.numpy_helper.from_array(values, f"w{i}"),
            onnx.numpy_helper.from_array(slopes, f"a{i}"),
        ]
        nodes += [
            helper.make_node("Conv", [name, f"w{i}"], [f"c{i}"], pads=[side // 2] * 4),
            helper.make_node("PRelu", [f"c{i}", f"a{i}"], [f"f{i}"]),
        ]
        name = f"f{i}"
    values = rng.normal(0, 0.01, (56, 1, 9, 9)).astype(np.float32)
    weights.append(onnx.numpy_helper.from_array(values, "up"))
    nodes.append(
        helper.make_node(
            "ConvTranspose",
            [name, "up"],
            ["large"],
            strides=[2, 2],
            pads=[4] * 4,
            output_padding=[1, 1],
        )
    )
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 1, h, w])
        for n, h, w in (("luma", "H", "W"), ("large", "2*H", "2*W"))
    ]
    graph = helper.make_graph(nodes, "fsrcnn", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


if __name__ == "__main__":
    main()
