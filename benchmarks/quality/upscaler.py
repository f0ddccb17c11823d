"""Upscaling quality: shipped models and networks that others trained, by the papers' protocol.

    python benchmarks/quality/upscaler.py --truth FOLDER [--scale 2] [--model NAME ...]
    python benchmarks/quality/upscaler.py --data DATA [--scale 2] [--pictures 12]

`--truth` is a folder of pictures at full size, such as Set5 or Set14; without it the held-back
pictures of `DATA` are taken, which no model of fastvid's was trained on. Each is reduced as in
`protocol.py`, enlarged through `Upscaler`, and compared with itself. Networks of others are read
from `DATA/weights`; `--model` adds shipped names and folders with bundles.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import protocol
import timing
import torch
from PIL import Image

from fastvid import Upscaler
from fastvid_export.importers import ImportOptions, upscalers

_DATA = timing.ROOT.parent / "shared" / "data"
NETWORKS = {
    2: ("rlfn/rlfn_s_x2.pth", "fsrcnn_pb/FSRCNN_x2.pb", "espcn_pb/ESPCN_x2.pb"),
    3: ("fsrcnn_pb/FSRCNN_x3.pb", "espcn_pb/ESPCN_x3.pb"),
    4: (
        "rlfn/rlfn_s_x4.pth",
        "rlfn/rlfn_ntire_x4.pth",
        "span_ntire2025/team51_span.pth",
        "span_ntire2025/team00_EFDN.pth",
        "fsrcnn_pb/FSRCNN_x4.pb",
        "espcn_pb/ESPCN_x4.pb",
    ),
}
CLASSES = ("fast", "quality")
"""Shipped models for clean pictures."""
_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}


def main() -> None:
    """Measures, prints, adds to `results/upscaler_quality.json`."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--truth", type=Path)
    parser.add_argument("--data", type=Path, default=_DATA)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "fastvid-truth")
    parser.add_argument("--scale", type=int, default=2, choices=NETWORKS)
    parser.add_argument("--pictures", type=int, default=12)
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=timing.RESULTS / "upscaler_quality.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    truths = dict(_pictures(options))
    print(f"{len(truths)} pictures", flush=True)
    small = {name: protocol.reduced(truth, options.scale) for name, truth in truths.items()}
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, enlarge in _methods(options, Path(folder)):
            values = [
                protocol.psnr(enlarge(small[key]), truth, options.scale)
                for key, truth in truths.items()
            ]
            rows[name] = round(float(np.mean(values)), 3)
            print(f"{name:36} {rows[name]:.3f} dB", flush=True)
    where = options.truth.name if options.truth else "held-back photos and clips"
    found = {"scale": options.scale, "pictures": len(truths), "psnr": rows}
    timing.write_results(
        options.out.with_stem(f"{options.out.stem}_x{options.scale}"), {"data": where, **found}
    )


def _pictures(options: argparse.Namespace) -> Iterator[tuple[str, np.ndarray]]:
    if options.truth is not None:
        files = sorted(p for p in options.truth.iterdir() if p.suffix.lower() in _SUFFIXES)
        for file in files:
            picture = np.asarray(Image.open(file).convert("RGB"))
            yield file.name, protocol.cut(picture, options.scale)
        return
    from fastvid_export.training.upscaling import held_back_pictures

    bank = held_back_pictures(options.data, options.cache)
    names = sorted(bank)
    for i in np.unique(np.linspace(0, len(names) - 1, options.pictures).astype(int)):
        yield names[i], protocol.cut(np.asarray(bank[names[i]]), options.scale)


def _methods(
    options: argparse.Namespace, folder: Path
) -> Iterator[tuple[str, Callable[[np.ndarray], np.ndarray]]]:
    def bicubic(small: np.ndarray) -> np.ndarray:
        size = (small.shape[1] * options.scale, small.shape[0] * options.scale)
        return np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BICUBIC))

    def through(model: str | Path) -> Callable[[np.ndarray], np.ndarray]:
        return Upscaler(
            model, scale=options.scale, device="cpu", threads=options.threads
        ).upscale_frame

    yield "bicubic", bicubic
    for name in (*CLASSES, *options.model):
        yield name, through(name)
    for file in NETWORKS[options.scale]:
        path = options.data / "weights" / file
        if path.is_file():
            target = folder / path.stem.lower()
            upscalers.build(path, target, ImportOptions(path.stem.lower()), lambda line: None)
            yield path.stem, through(target)


if __name__ == "__main__":
    main()
