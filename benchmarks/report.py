"""Writes docs/benchmarks.md, plots, and parts of README.md and docs/bench.md, from results.

    python benchmarks/report.py [--check]

`--check` writes nothing and fails where a page is not what the results say.
"""

from __future__ import annotations

import argparse
import json
import re
from typing import Any

import backend_tables
import export_tables
import generation.tables as generation
import gpu_tables
import ifnet_tables
import import_tables
import large_tables
import overhead
import plots
import rank_tables
import timing
import upscaler_tables
import wan_tables
import whole_file_tables
from tables import load, ms, source, table, times

from fastvid.bench import METRICS, Results

README = timing.ROOT / "README.md"
PAGE = timing.ROOT / "docs" / "benchmarks.md"
BENCH = timing.ROOT / "docs" / "bench.md"
_BLOCK = r"(<!-- report:{} -->\n).*?(<!-- /report -->)"


_METHODS = {
    "average": "averaging",
    "dis_ultrafast": "DIS ultrafast",
    "dis_fast": "DIS fast",
    "dis_medium": "DIS medium",
    "fastvid_fast": "fastvid fast",
    "fastvid_quality": "fastvid quality",
}

_IFNET = "torch, IFNet 4.6"


def interpolation_quality() -> str:
    result = load("quality_interpolator")
    figures = [k for k in result["mean"]["unseen"] if k in _METHODS]
    rows = [
        (
            name,
            s["triplets"],
            "never seen" if s["unseen"] else "held-back part",
            *(f"{s[k]:.2f}" for k in figures),
        )
        for name, s in result["sets"].items()
    ]
    rows += [
        (f"**mean, {group.replace('_', ' ')}**", "", "", *(f"**{mean[k]:.2f}**" for k in figures))
        for group, mean in result["mean"].items()
    ]
    header = ["clip / stride", "triplets", "clip", *(_METHODS[k] for k in figures)]
    return (
        "PSNR over RGB of the middle frame, dB. Stride 2 leaves out every second frame, which "
        "doubles the motion.\n\n" + table(header, rows) + "\n" + source(result)
    )


def interpolation_time() -> str:
    result = load("interpolator")
    psnr = ", ".join(f"{k} {v:.2f}" for k, v in result["psnr"].items())
    return (
        f"One middle frame at {result['size'][0]}x{result['size'][1]}, frames in to frame out, "
        f"{result['threads']} threads. PSNR on the drawn scene that is timed, dB: {psnr}.\n\n"
        + times(result["time"], "fastvid")
        + "\n"
        + source(result)
    )


def bundle_quality(name: str) -> str:
    path = timing.ROOT / "python" / "fastvid" / "models" / name / "bundle.json"
    entries = json.loads(path.read_text())["quality"]
    rows = [(q["metric"], q["data"], f"{q['value']:.6g} {q.get('unit', '')}") for q in entries]
    return "From the bundle, measured when it was made.\n\n" + table(["metric", "on", ""], rows)


def upscaling_time() -> str:
    result = load("upscaler")
    psnr = ", ".join(f"{k} {v:.2f}" for k, v in result["luma_psnr"].items())
    width, height = result["size"]
    return (
        f"One frame {width}x{height} to {2 * width}x{2 * height}, frame in to frame out, "
        f"{result['threads']} threads. Luma PSNR on the drawn scene that is timed, dB: {psnr}. "
        "`fsrcnn_luma` is a net of FSRCNN's shape on luma alone, without colour.\n\n"
        + times(result["time"], "fastvid")
        + "\n"
        + source(result)
    )


def warping(op: str) -> str:
    result = load(op)
    rows = []
    for name, case in result["cases"].items():
        own = case["time"]["fastvid"]
        torch = next(v for k, v in case["ratio"].items() if k.startswith("torch"))
        rows.append(
            (
                name,
                f"{case['megabytes']:.1f}",
                f"{ms(own)} ({own['min_ms']:.2f} to {own['p90_ms']:.2f})",
                f"{torch:.1f}x",
                *(
                    f"{case['ratio'][k]:.1f}x" if k in case["ratio"] else ""
                    for k in ("onnxruntime", "fastvid_avx2", "fastvid_baseline")
                ),
                f"{case['percent_of_copy']:.0f} %",
            )
        )
    header = ["", "MB", "ms (min to p90)", "torch", "onnxruntime", "on AVX2", "baseline", "of copy"]
    return (
        f"`{op}` at {result['size'][0]}x{result['size'][1]}, float32 unless named, "
        f"{result['threads']} threads. Ratios are times longer: torch's grid_sample with the grid "
        "it needs, onnxruntime's GridSample with the grid ready, and the same op on lesser "
        "instruction sets. MB is what must be read and written; `of copy` is how near the speed "
        "of a plain copy of as many bytes comes.\n\n" + table(header, rows) + "\n" + source(result)
    )


def splatting() -> str:
    result = load("softmax_splat")
    peers = ("torch_index_add", "torch_scatter_add", "torch_compiled_scatter_add")
    rows = [
        (
            name,
            ms(case["time"]["fastvid"]),
            ms(case["time"]["fastvid_float16"]),
            *(f"{ms(case['time'][k])} ({case['ratio'][k]:.1f}x)" for k in peers),
            f"{case['ratio']['copy']:.0%}",
        )
        for name, case in result["cases"].items()
    ]
    header = ["", "ms", "float16 ms", "index_add ms", "scatter_add ms", "compiled ms", "of copy"]
    return (
        "Softmax mode, 3 channels unless named, float32, beside torch written with `index_add`, "
        f"with `scatter_add`, and the latter compiled, {result['threads']} threads. `of copy` is "
        "how near the speed of copying as many bytes comes: adding up in the order of the source "
        "is work, not traffic. `wild` has independent displacements of 50 pixels.\n\n"
        + table(header, rows)
        + "\nBy instruction set, 1280x720:\n\n"
        + times(
            {k: v for k, v in result["cases"]["1280x720"]["time"].items() if "fastvid" in k},
            "fastvid",
        )
        + "\n"
        + source(result)
    )


def searching() -> str:
    result = load("inverse_search")
    rows = [(name, f"{q['psnr_db']:.2f}") for name, q in result["quality"].items()]
    width, height = result["timed_size"]
    return (
        "PSNR of the middle frame by two-sided warping alone, dB:\n\n"
        + table(["", "dB"], rows)
        + f"\nProcessor time on one thread, {width}x{height}, both directions:\n\n"
        + table(
            ["", "median ms", "min ms"],
            [
                (name, f"{e['median_ms']:.2f}", f"{e['min_ms']:.2f}")
                for name, e in result["processor_time_one_thread"].items()
            ],
        )
        + "\n"
        + source(result)
    )


def colour() -> str:
    result = load("colour")
    parts = [f"{result['size'][0]}x{result['size'][1]}, {result['threads']} threads.\n"]
    for name, title, base in (
        ("to_rgb", "YUV 4:2:0 to RGB", "fastvid"),
        ("to_yuv", "RGB to YUV 4:2:0", "fastvid"),
        ("luma", "Luma split, and join at twice the size", "luma_to_rgb"),
    ):
        parts.append(f"{title}:\n\n{times(result[name]['time'], base)}")
    return "\n".join(parts) + "\n" + source(result)


def noise() -> str:
    result = load("randn")
    shape = tuple(result["shape"])
    return (
        f"Shape {shape}, float32, {result['threads']} threads. The bits are equal on every "
        "instruction set and number of threads.\n\n"
        + times(result["time"], "fastvid")
        + "\n"
        + source(result)
    )


def solvers() -> str:
    result = load("scheduler_step")
    rows = [
        (
            name,
            *(ms(run["time"][k]) for k in ("fastvid", "diffusers")),
            f"{run['ratio']['diffusers']:.2f}x",
            f"{run['relative_error']['fastvid']:.0e}",
        )
        for name, run in result["runs"].items()
    ]
    header = ["scheduler", "fastvid ms", "diffusers ms", "ratio", "relative difference"]
    return (
        f"Runs of {result['steps']} steps with classifier-free guidance, shape "
        f"{tuple(result['shape'])}, {result['threads']} threads, beside diffusers "
        f"{result['diffusers']}. One call on 8 elements takes "
        f"{result['microseconds_of_a_call']} microseconds.\n\n"
        + table(header, rows)
        + "\n"
        + source(result)
    )


def norm_and_rope() -> str:
    result = load("qk_norm_rope")
    rows = [
        (
            name,
            f"{case['megabytes']:.0f}",
            *(ms(case["time"][k]) for k in ("fastvid", "fastvid_packed", "fastvid_to_out")),
            ms(case["time"]["torch"]),
            f"{case['ratio']['torch']:.1f}x",
            f"{case['ratio']['copy']:.0%}",
        )
        for name, case in result["cases"].items()
    ]
    header = ["", "MB", "in place ms", "packed ms", "to out ms", "torch ms", "ratio", "of copy"]
    return (
        "Root mean square norm over all heads and interleaved rotation of q and k, as Wan has "
        f"them, {result['threads']} threads. MB is what must be read and written; `of copy` is "
        "how near the speed of copying q and k comes.\n\n"
        + table(header, rows)
        + "\n"
        + source(result)
    )


def attending() -> str:
    result = load("attention")
    rows = []
    for name, case in result["cases"].items():
        speed = case["gigaflops"]
        own, narrow = speed["fastvid"], speed["fastvid_bfloat16"]
        limit = speed.get("peak_bfloat16", speed["peak"])
        rows.append(
            (
                name,
                *(ms(case["time"][k]) for k in ("fastvid", "fastvid_bfloat16", "onnxruntime")),
                *(ms(case["time"][k]) for k in ("torch", "torch_bfloat16")),
                f"{case['ratio']['fastvid']:.2f}x, {case['ratio']['fastvid_bfloat16']:.2f}x",
                f"{own / speed['peak']:.0%}, {narrow / limit:.0%}",
            )
        )
    header = ["tokens x heads x dim", "float32 ms", "bfloat16 ms", "onnxruntime ms", "torch ms"]
    header += ["torch bfloat16 ms", "faster than onnxruntime", "of peak"]
    return (
        f"Self-attention, {result['threads']} threads. onnxruntime's is its MultiHeadAttention in "
        "float32, torch's is `scaled_dot_product_attention`. `of peak` is the share of what the "
        "processor multiplies in registers, for float32 and for pairs of bfloat16.\n\n"
        + table(header, rows)
        + "\n"
        + source(result)
    )


def attending_in_time() -> str:
    result = load("temporal_attention")
    keys = ["fastvid", "fastvid_packed", "fastvid_bfloat16", "torch_usual", "torch_best"]
    rows = []
    for name, case in result["cases"].items():
        time = case["time"] | {"torch_best": case["time"][case["best_torch"]]}
        ratio, percent = case["ratio"], case["percent"]
        rows.append(
            (
                name,
                f"{case['megabytes']:.0f}",
                *(ms(time[key]) for key in (*keys, "onnxruntime")),
                *(f"{ratio[key]:.1f}x" for key in ("torch_usual", "torch_best", "onnxruntime")),
                f"{percent['copy']:.0f} %, {percent['multiply']:.0f} %",
            )
        )
    header = ["frames x places x heads x dim", "MB", "float32 ms", "packed ms", "bfloat16 ms"]
    header += ["torch as usual ms", "torch's best ms", "onnxruntime ms"]
    header += ["faster than usual", "than torch's best", "than onnxruntime"]
    header += ["of copy, of multiply-adds"]
    return (
        f"Attention along frames, {result['threads']} threads. torch as usual copies places before "
        "frames, attends and copies back; torch's best is the fastest of attention on views, of "
        "matrix products, and of attention alone on tensors that need no copy. onnxruntime's is "
        "its MultiHeadAttention between transposes. MB is what must be read and written; the last "
        "column is how near copying as much, and doing as many multiply-adds in registers, each "
        "alone, the op comes.\n\n" + table(header, rows) + "\n" + source(result)
    )


def calling() -> str:
    result = load("call_overhead")
    cost = result["median_us"]
    libraries = ("numpy", "torch", "ortvalue")
    names = [name.removesuffix(" numpy") for name in cost if name.endswith(" numpy")]
    rows = [(f"`{n}`", *(f"{cost[f'{n} {library}']:.1f}" for library in libraries)) for n in names]
    torch_calls = ", ".join(f"`{n}` {us:.1f}" for n, us in cost.items() if n.startswith("torch."))
    return (
        "The smallest call of each op on arrays of each library, `out` given, one thread, median "
        f"us. Torch's own, on as little: {torch_calls}. An OrtValue is exchanged by Python code "
        "of onnxruntime, which takes most of its time.\n\n"
        + table(["", "NumPy", "torch", "OrtValue"], rows)
        + "\n"
        + source(result)
    )


def pipeline() -> str:
    overlap, memory = load("pipeline_overlap"), load("pipeline_memory")
    rows = [
        (name, part["slowest_alone_fps"], part["fps"]["pipeline"], f"{part['kept']:.0%}")
        for name, part in ((k, overlap[k]) for k in ("waiting", "computing"))
    ]
    peaks = [(f"{k} s", v) for k, v in memory["peak_mib"].items()]
    return (
        "Frames per second of a whole file, beside the slowest step alone. A `waiting` stage "
        "sleeps, as a GPU's would; a `computing` stage takes one core.\n\n"
        + table(["stage", "slowest step alone", "pipeline", "kept"], rows)
        + "\n"
        + source(overlap)
        + "\nPeak memory by length of the clip:\n\n"
        + table(["clip", "MiB"], peaks)
        + "\n"
        + source(memory)
    )


def startup() -> str:
    result = load("startup")
    sizes = [(k, f"{v / 1e6:.1f}") for k, v in result["bytes"].items()]
    sizes.append(("**total**", f"**{result['total_bytes'] / 1e6:.1f}**"))
    return (
        "Whole processes; `python` is the bare interpreter.\n\n"
        + times(result["time"], "import_fastvid")
        + "\nInstalled size of `fastvid-sdk[cpu]`, MB:\n\n"
        + table(["package", "MB"], sizes)
        + "\n"
        + source(result)
    )


SECTIONS = {
    "Ranking: a frame between two": rank_tables.interpolation,
    "Ranking: enlarged frames": rank_tables.upscaling,
    "Ranking: whole files": whole_file_tables.beside_peers,
    "Files at 4K and 8K": whole_file_tables.large,
    "Interpolation: quality": interpolation_quality,
    "Interpolation: held-back crops": lambda: bundle_quality("interpolator-fast"),
    "Interpolation: held-back crops, quality": lambda: bundle_quality("interpolator-quality"),
    "Interpolation: time": interpolation_time,
    "Interpolation: RIFE's networks": ifnet_tables.times,
    "Upscaling: quality": lambda: bundle_quality("upscaler-fast-x2"),
    "Upscaling: time": upscaling_time,
    "Upscaling: classes": upscaler_tables.quality,
    "Upscaling: training": upscaler_tables.training,
    "Upscaling: classes beside peers": upscaler_tables.time,
    "Upscaling: networks of others": import_tables.times,
    "Upscaling: quality of networks of others": import_tables.quality,
    "Generation: time": generation.time,
    "Generation: Wan": wan_tables.times,
    "Generation: cold start": generation.cold_start,
    "Generation: through all three models": generation.chain,
    "Generation: quality": generation.quality,
    "Large models": large_tables.models,
    "Ops: warping": lambda: warping("warp"),
    "Ops: warping and blending": lambda: warping("warp_blend"),
    "Ops: forward warping": splatting,
    "Ops: inverse search": searching,
    "Ops: colour": colour,
    "Ops: noise": noise,
    "Ops: solver steps": solvers,
    "Ops: norm and rotary embedding": norm_and_rope,
    "Ops: linear": large_tables.linear,
    "Ops: attention": attending,
    "Ops: temporal attention": attending_in_time,
    "Ops: the cost of a call": calling,
    "The SDK beside onnxruntime": overhead.table_of_calls,
    "Memory of a run": overhead.table_of_memory,
    "Pipeline": pipeline,
    "Export formats": export_tables.formats,
    "Backends and precisions": backend_tables.models,
    "Shapes of networks": backend_tables.shapes,
    "Start-up and size": startup,
    "On a GPU": gpu_tables.gpu,
}


def summary() -> str:
    interpolator, upscaler = load("interpolator"), load("upscaler")
    warp = load("warp")["cases"]["3 channels"]
    blend = load("warp_blend")["cases"]["to uint8"]
    quality = load("quality_interpolator")["mean"]["unseen"]
    frame, dis = (interpolator["time"][k]["median_ms"] for k in ("fastvid", "dis_medium"))
    upscaled = upscaler["time"]["fastvid"]["median_ms"]
    gain = {q["metric"]: q["value"] for q in _pictures("upscaler-fast-x2")}
    rows = [
        (
            "One frame between two, 1280x720",
            f"{frame:.1f} ms",
            f"OpenCV DIS medium, warped both ways: {dis:.1f} ms",
        ),
        (
            "Its PSNR on clips never seen",
            f"{quality['fastvid_fast']:.2f} dB",
            f"DIS {quality['dis_medium']:.2f}, averaging {quality['average']:.2f}",
        ),
        (
            'The same with `Interpolator("quality")`',
            f"{interpolator['time']['fastvid quality']['median_ms']:.1f} ms",
            f"IFNet 4.6 in PyTorch: {interpolator['time'][_IFNET]['median_ms']:.1f} ms",
        ),
        (
            "Its PSNR on clips never seen",
            f"{quality['fastvid_quality']:.2f} dB",
            f"DIS {quality['dis_medium']:.2f}, averaging {quality['average']:.2f}",
        ),
        (
            "One frame 960x540 to 1920x1080",
            f"{upscaled:.1f} ms",
            f"FSRCNN's shape, luma only: {upscaler['time']['fsrcnn_luma']['median_ms']:.1f} ms",
        ),
        (
            "Its luma PSNR on held-back photos",
            f"{gain['luma PSNR']:.2f} dB",
            f"bicubic {gain['luma PSNR of bicubic']:.2f}",
        ),
        (
            "`warp`, 1280x720, 3 channels",
            f"{ms(warp['time']['fastvid'])} ms",
            "torch {torch}x, onnxruntime GridSample {onnxruntime}x".format(**warp["ratio"]),
        ),
        (
            "`warp_blend` to uint8, 1280x720",
            f"{ms(blend['time']['fastvid'])} ms",
            "torch {torch}x, the graph in onnxruntime {onnxruntime}x".format(**blend["ratio"]),
        ),
    ]
    return table(["2 cores", "fastvid", "beside it, same run"], [*rows, *generation.summary()])


def _pictures(name: str) -> list[dict[str, Any]]:
    path = timing.ROOT / "python" / "fastvid" / "models" / name / "bundle.json"
    return [q for q in json.loads(path.read_text())["quality"] if "photo" in q["data"]]


def pages() -> dict[Any, str]:
    head = (
        "# Benchmarks\n\nMade by `python benchmarks/report.py` from `benchmarks/results`; do not "
        "edit. Every result names its command, machine, versions and the load it met. Compare "
        "within a table: the machine is shared, and its speed drifts between runs.\n"
    )
    made = {title: make() for title, make in SECTIONS.items()}
    # A section without results of its own is left out.
    parts = [head, *(f"## {title}\n\n{text}" for title, text in made.items() if text)]
    readme = _with_block(README.read_text(), "summary", summary())
    readme = _with_block(readme, "ranking", rank_tables.summary())
    bench = _with_block(BENCH.read_text(), "metrics", f"\n{metrics()}\n")
    sample = Results.load(timing.RESULTS / "bench.json").to_markdown()
    return {
        PAGE: "\n".join(parts),
        README: readme,
        BENCH: _with_block(bench, "sample", f"\n{sample}\n"),
        **{plots.FIGURES / name: text for name, text in plots.figures().items()},
    }


def metrics() -> str:
    """The figures that `fastvid bench` knows by name."""
    rows = [f"| `{m.name}` | {m.unit} | {m.meaning} |" for m in METRICS.values()]
    return "\n".join(["| Name | Unit | What it is |", "| --- | --- | --- |", *rows]) + "\n"


def _with_block(page: str, name: str, text: str) -> str:
    pattern = re.compile(_BLOCK.format(name), re.DOTALL)
    return pattern.sub(lambda m: m[1] + text + m[2], page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    for path, text in pages().items():
        if check and (not path.is_file() or path.read_text() != text):
            raise SystemExit(f"{path.name} differs from the results: run benchmarks/report.py")
        if not check:
            path.write_text(text)


if __name__ == "__main__":
    main()
