"""Size, fidelity and time of the shipped models in every format that runs on a CPU.

    python benchmarks/bench_export.py --folder WORK --export     # makes what is not there yet
    python benchmarks/bench_export.py --folder WORK [--rounds 9] [--threads 2]

Weights dominate the sizes: float16 is 0.5 of float32 and int8 with its scales 0.25, plus what the
graph itself takes. An upscaled 960x540 frame takes 62k multiply-adds for each of its 129,600 2x2
blocks, 16 GFLOP; int8 products of 4 bytes at a time (VNNI) have 4 times the peak of float32, so
at best the convolutions' share of the time shrinks to a quarter.

The answer is checked first: `fastvid export` refuses what is below its gate, and each format's
picture is held against the truth of a drawn scene. With the environment's FASTVID_TEST_DATA the
formats are calibrated and checked on its clips, else on drawn scenes. `WORK/generator`, a bundle in
float32, is exported too if it is there; its time is that of a clip of 4 steps, decoded.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import timing

from fastvid import Generator, Interpolator, Upscaler
from fastvid._resample import resize_bicubic
from fastvid.bundle import Bundle, shipped
from fastvid.metrics import psnr
from fastvid.scene import Scene
from fastvid_export import exporting, onnx_files
from fastvid_export.compact import expand

MODELS = ("upscaler-fast-x2", "interpolator-fast")
FORMATS = {
    "onnx": {},
    "onnx-fp16": {"format": "onnx-fp16"},
    "onnx-int8": {"format": "onnx-int8"},
    "onnx, portable": {"portable": True},
    "onnx-fp16, portable": {"format": "onnx-fp16", "portable": True},
    "onnx-int8, portable": {"format": "onnx-int8", "portable": True},
}
WIDTH, HEIGHT = 960, 540


def main() -> None:
    """Exports, or times and writes `results/export.json`."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--export", action="store_true")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    generator = options.folder / "generator"
    sources: dict[str, str | Path] = {name: name for name in MODELS}
    if generator.is_dir():
        sources["generator"] = generator
    if options.export:
        for name, source in sources.items():
            _export(name, source, options.folder)
        return
    results = {name: _rows(name, source, options) for name, source in sources.items()}
    timing.write_results(
        timing.RESULTS / "export.json",
        {"size": [WIDTH, HEIGHT], "threads": options.threads, "models": results},
    )


def _path(folder: Path, model: str, name: str) -> Path:
    return folder / f"{model}.{name.replace(', ', '-')}"


def _export(model: str, source: str | Path, folder: Path) -> None:
    data = os.environ.get("FASTVID_TEST_DATA")
    for name, given in FORMATS.items():
        path = _path(folder, model, name)
        if path.is_dir():
            continue
        request = exporting.Request(
            source, output=path, data=Path(data) / "clips" if data else None, **given
        )
        made = exporting.run(request, print)
        _told(path).write_text(json.dumps(made.to_dict()))


def _told(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _rows(model: str, source: str | Path, options: argparse.Namespace) -> dict[str, Any]:
    bundle = Bundle.load(shipped()[model] if isinstance(source, str) else source)
    paths = {name: _path(options.folder, model, name) for name in FORMATS}
    rows = {name: _sizes(bundle, path) for name, path in paths.items()}
    models, run, truth = _runners(bundle, paths, options.threads)
    for name, made in models.items():
        if truth is not None:
            rows[name]["truth_psnr"] = round(psnr(run(made), truth), 2)
    times = timing.compare(
        {name: lambda made=made: run(made) for name, made in models.items()}, rounds=options.rounds
    )
    for name, row in times.items():
        rows[name]["time"] = row
        print(f"{model} {name:20} {rows[name]}")
    return rows


def _sizes(bundle: Bundle, path: Path) -> dict[str, Any]:
    """Bytes, and the share of the graphs with all weights in float32."""
    told = json.loads(_told(path).read_text())
    made = Bundle.load(path)
    wide = sum(expand(onnx_files.load(bundle, g)).ByteSize() for g in bundle.graphs)
    size = sum(made.files[spec.file].size for spec in made.graphs.values())
    figures = [f.psnr for f in made.fidelity if f.psnr is not None]
    ends = {q.metric: q.value for q in made.quality}
    return {
        "bytes": size,
        "share": round(size / wide, 3),
        "worst_output_psnr": min(figures, default=None),
        "psnr": ends.get("PSNR against float32, end to end"),
        "largest": ends["largest difference from float32, end to end"],
        "data": made.fidelity[0].data,
        "conversions": sorted(set(told["conversions"].values())),
    }


def _runners(
    bundle: Bundle, paths: dict[str, Path], threads: int
) -> tuple[dict[str, Any], Any, np.ndarray | None]:
    """The loaded models, what runs one, and the truth where there is one."""
    options = {"device": "cpu", "threads": threads}
    if bundle.task == "upscaler":
        truth: np.ndarray | None = Scene(2 * WIDTH, 2 * HEIGHT, seed=7).draw(0.4)
        frame = resize_bicubic(truth, HEIGHT, WIDTH)
        models = {name: Upscaler(path, **options) for name, path in paths.items()}
        return models, lambda model: model.upscale_frame(frame), truth
    if bundle.task == "generator":
        drawers = {name: Generator(path, **options) for name, path in paths.items()}
        asked = {"seed": 1, "num_inference_steps": 4}
        return drawers, lambda m: m.generate("a red circle moves left", **asked).frames(), None
    scene = Scene(WIDTH, HEIGHT, seed=7)
    first, truth, last = (scene.draw(t) for t in (0.4, 0.4 + 1 / 30, 0.4 + 2 / 30))
    pairs = {name: Interpolator(path, **options) for name, path in paths.items()}
    return pairs, lambda model: model.between(first, last), truth


if __name__ == "__main__":
    main()
