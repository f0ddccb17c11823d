"""`yuv_to_rgb`, `rgb_to_yuv` and the luma pair beside libswscale (through PyAV) and OpenCV.

    python benchmarks/ops/bench_colour.py [--size 1920x1080] [--threads 2] [--rounds 15]

The picture is a drawn scene in 4:2:0, BT.601 limited range, which all peers read. Quality stands
beside speed: each conversion to RGB is scored against the scene before its chroma was halved.
"sws_default" and OpenCV repeat each chroma sample four times, "sws_accurate" interpolates. The
last part decodes a clip of the scene, held in memory, and turns every frame into RGB or the layout
models work in; its figures are per frame, with the processor time of all threads beside the wall's.
Outputs are reused wherever an interface allows.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import av
import cv2
import numpy as np
import timing

from fastvid import ops
from fastvid.metrics import psnr
from fastvid.scene import Scene

# SWS_BILINEAR, SWS_FULL_CHR_H_INT and SWS_ACCURATE_RND of libswscale.
_ACCURATE = 2 | 8192 | 262144
_CLIP_FRAMES = 24


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", default="1920x1080")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    cv2.setNumThreads(options.threads)
    scene = Scene(width, height, seed=7)
    arguments = (scene.draw(0.2), options.threads, options.rounds)
    results: dict[str, Any] = {"size": [width, height], "threads": options.threads}
    results["to_rgb"] = bench_to_rgb(*arguments)
    results["to_yuv"] = bench_to_yuv(*arguments)
    results["luma"] = bench_luma(*arguments)
    results["decode"] = bench_decode(scene, options.threads, options.rounds)
    for part in ("to_rgb", "to_yuv", "luma", "decode"):
        print(part, results[part].get("psnr", ""))
        for name, row in results[part]["time"].items():
            print(f"  {name:24s} {row['median_ms']:9.3f} ms  (min {row['min_ms']:.3f})")
    timing.write_results(timing.RESULTS / "colour.json", results)


def bench_to_rgb(rgb: Any, threads: int, rounds: int) -> dict[str, Any]:
    planes = ops.rgb_to_yuv(rgb, matrix="bt601", threads=threads)
    packed = np.concatenate([plane.ravel() for plane in planes]).reshape(-1, rgb.shape[1])
    frame = av.VideoFrame.from_ndarray(packed, format="yuv420p")
    ours, theirs = np.empty_like(rgb), np.empty_like(rgb)
    floats = np.empty((1, 3, *rgb.shape[:2]), np.float32)
    planar: dict[str, Any] = {"matrix": "bt601", "layout": "NCHW", "threads": threads}

    def swscale(flags: int | None) -> Any:
        return frame.reformat(
            format="rgb24",
            src_colorspace=5,
            src_color_range=1,
            interpolation=flags,
            threads=threads,
        )

    def opencv() -> Any:
        return cv2.cvtColor(packed, cv2.COLOR_YUV2RGB_I420, theirs)

    def opencv_floats() -> Any:
        return np.divide(opencv().transpose(2, 0, 1)[None], np.float32(255), out=floats)

    functions: dict[str, Callable[[], Any]] = {
        "fastvid": lambda: ops.yuv_to_rgb(*planes, matrix="bt601", out=ours, threads=threads),
        "sws_default": lambda: swscale(None),
        "sws_accurate": lambda: swscale(_ACCURATE),
        "opencv": opencv,
        "fastvid_float": lambda: ops.yuv_to_rgb(*planes, **planar, out=floats),
        "opencv_numpy_float": opencv_floats,
    }
    quality = {
        "fastvid": psnr(functions["fastvid"](), rgb),
        "sws_default": psnr(swscale(None).to_ndarray(), rgb),
        "sws_accurate": psnr(swscale(_ACCURATE).to_ndarray(), rgb),
        "opencv": psnr(opencv(), rgb),
    }
    require(quality["fastvid"] >= max(quality.values()) - 0.1, quality)
    error = np.abs(np.rint(255 * functions["fastvid_float"]())[0].transpose(1, 2, 0) - ours)
    require(error.max() <= 1, {"levels_between_layouts": float(error.max())})
    times = timing.compare(functions, rounds=rounds)
    ratios = {name: timing.ratio(times, name, "fastvid") for name in list(functions)[1:4]}
    ratios["opencv_numpy_float"] = timing.ratio(times, "opencv_numpy_float", "fastvid_float")
    return {"psnr": quality, "time": times, "ratio": ratios}


def bench_to_yuv(rgb: Any, threads: int, rounds: int) -> dict[str, Any]:
    out = ops.rgb_to_yuv(rgb, matrix="bt601", threads=threads)
    frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
    packed = np.empty((rgb.shape[0] * 3 // 2, rgb.shape[1]), np.uint8)

    def swscale() -> Any:
        return frame.reformat(
            format="yuv420p", dst_colorspace=5, dst_color_range=1, threads=threads
        )

    functions: dict[str, Callable[[], Any]] = {
        "fastvid": lambda: ops.rgb_to_yuv(rgb, matrix="bt601", out=out, threads=threads),
        "sws_default": swscale,
        "opencv": lambda: cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420, packed),
    }
    height, width = rgb.shape[:2]
    luma = {
        "sws_default": swscale().to_ndarray()[:height, :width],
        "opencv": functions["opencv"]()[:height],
    }
    levels = {
        k: float(np.abs(v.astype(int) - functions["fastvid"]()[0]).max()) for k, v in luma.items()
    }
    require(max(levels.values()) <= 2, levels)
    times = timing.compare(functions, rounds=rounds)
    ratios = {name: timing.ratio(times, name, "fastvid") for name in list(functions)[1:]}
    return {"luma_levels_from_fastvid": levels, "time": times, "ratio": ratios}


def bench_luma(rgb: Any, threads: int, rounds: int) -> dict[str, Any]:
    """Half size in, full size out, as around an upscaler of the luma by two."""
    large = np.ascontiguousarray(rgb[: rgb.shape[0] // 2 * 2, : rgb.shape[1] // 2 * 2])[None]
    small = np.ascontiguousarray(large[:, ::2, ::2])
    big = ops.rgb_to_luma(large)[0]
    split, joined = ops.rgb_to_luma(small), np.empty_like(large)
    size = (large.shape[2], large.shape[1])

    def opencv_split() -> Any:
        return cv2.split(cv2.cvtColor(small[0].astype(np.float32) / 255, cv2.COLOR_RGB2YCrCb))

    chroma = opencv_split()[1:]

    def opencv_join() -> Any:
        resized = [cv2.resize(c, size, interpolation=cv2.INTER_LINEAR) for c in chroma]
        return cv2.cvtColor(cv2.merge([big[0, 0], *resized]), cv2.COLOR_YCrCb2RGB)

    def opencv_bytes() -> Any:
        return np.rint(255 * np.clip(opencv_join(), 0, 1)).astype(np.uint8)

    functions: dict[str, Callable[[], Any]] = {
        "rgb_to_luma": lambda: ops.rgb_to_luma(small, out=split, threads=threads),
        "luma_to_rgb": lambda: ops.luma_to_rgb(big, split[1], out=joined, threads=threads),
        "opencv_split": opencv_split,
        "opencv_join": opencv_bytes,
    }
    functions["rgb_to_luma"]()
    levels = float(np.abs(functions["luma_to_rgb"]()[0].astype(int) - opencv_bytes()).max())
    require(levels <= 2, {"levels_from_opencv": levels})
    times = timing.compare(functions, rounds=rounds)
    ratios = {
        "opencv_split": timing.ratio(times, "opencv_split", "rgb_to_luma"),
        "opencv_join": timing.ratio(times, "opencv_join", "luma_to_rgb"),
    }
    return {"levels_from_opencv": levels, "time": times, "ratio": ratios}


def bench_decode(scene: Scene, threads: int, rounds: int) -> dict[str, Any]:
    clip = encode(scene)
    size = (scene.height, scene.width, 3)
    rgb, floats = np.empty(size, np.uint8), np.empty((1, 3, *size[:2]), np.float32)

    def decode(use: Callable[[Any], object]) -> Callable[[], object]:
        def run() -> None:
            with av.open(io.BytesIO(clip)) as container:
                stream = container.streams.video[0]
                stream.thread_type, stream.thread_count = "AUTO", threads
                for frame in container.decode(stream):
                    use(frame)

        return run

    def planes(frame: Any) -> list[Any]:
        return [
            np.frombuffer(p, np.uint8).reshape(p.height, p.line_size)[:, : p.width]
            for p in frame.planes
        ]

    def to_floats(frame: Any) -> Any:
        return ops.yuv_to_rgb(*planes(frame), layout="NCHW", out=floats, threads=threads)

    functions: dict[str, Callable[[], object]] = {
        "decode": decode(lambda frame: None),
        "fastvid": decode(lambda f: ops.yuv_to_rgb(*planes(f), out=rgb, threads=threads)),
        "fastvid_float": decode(to_floats),
        "pyav_to_ndarray": decode(lambda f: f.to_ndarray(format="rgb24")),
    }
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter(), time.process_time()
            function()
            samples[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    figures = {
        name: dict(
            zip(
                ("median_ms", "min_ms", "median_cpu_ms", "min_cpu_ms"),
                np.round(1e3 / _CLIP_FRAMES * per_frame(values), 3).tolist(),
                strict=True,
            )
        )
        for name, values in samples.items()
    }
    return {"frames": _CLIP_FRAMES, "time": figures}


def per_frame(samples: list[tuple[float, float]]) -> Any:
    """Median and minimum of the wall time, then of the processor time of all threads."""
    return np.stack([np.median(samples, 0), np.min(samples, 0)], 1).ravel()


def encode(scene: Scene) -> bytes:
    memory = io.BytesIO()
    with av.open(memory, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = scene.width, scene.height, "yuv420p"
        for i in range(_CLIP_FRAMES):
            frame = av.VideoFrame.from_ndarray(scene.draw(i / 30), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return memory.getvalue()


def require(right: bool, figures: dict[str, float]) -> None:
    if not right:
        raise SystemExit(f"the answer is wrong, so its time means nothing: {figures}")


if __name__ == "__main__":
    main()
