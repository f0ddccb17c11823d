"""A file from decoding to encoding, 720p30 to 1440p60: `fastvid run` beside OpenCV and PyTorch.

    python benchmarks/pipelines/whole_file.py [--row NAME ...] [--again] [--frames 90] [--clip FILE]

Every second of the input is 30 frames to read, 30 to draw between them, 60 to enlarge from 1280x720
to 2560x1440 and 60 to encode. All rows write H.264 with x264 at the same preset, rate factor and
4:2:0; each is a process of its own, timed from its start to its end, imports included. The peers of
`opencv_torch.py` run the networks of the package, with the same weights, in PyTorch; `encoding
alone` is what no row can be faster than here. The answer is checked first: number and size of the
frames that come out, and their likeness to those of the first row.

A row stays in `results/pipeline_whole_file.json` until its models change.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "quality"))

import av
import numpy as np
from between import digest
from rank_store import Rows

from fastvid.bundle import Bundle, shipped
from fastvid.metrics import psnr
from fastvid.scene import Scene
from fastvid.video.writer import EncodeOptions

HERE = Path(__file__).resolve().parent
SIZE, RATE = (1280, 720), 30
PRESET, RATE_FACTOR = "veryfast", str(EncodeOptions().rate_factor("h264"))
"""What fastvid's defaults stand for."""
_FASTVID = """
import json, sys
from fastvid import Interpolator, Upscaler, Video
from fastvid.bench import probes
source, target, interpolator, upscaler, options = json.loads(sys.argv[1])
with Interpolator(interpolator, **options["interpolate"]) as between, Upscaler(
    upscaler, **options["upscale"]
) as larger:
    video = larger.upscale(between.interpolate(Video.open(source), factor=2))
    video.save(target, codec="h264", audio="drop")
print(probes.peak_rss())
"""
_CPU = {"device": "cpu", "backend": "onnxruntime"}
FLOAT32 = ("interpolator-fast", "upscaler-fast-x2")
INT8 = ("interpolator-fast", "upscaler-fast-x2-int8")
ALL_INT8 = ("interpolator-fast-int8", "upscaler-fast-x2-int8")
ROWS: dict[str, dict[str, Any]] = {
    "fastvid, onnxruntime": {"models": FLOAT32},
    "fastvid, onnxruntime, int8 upscaler": {"models": INT8},
    "fastvid, OpenVINO for upscaling": {"models": FLOAT32, "backend": "openvino"},
    "fastvid, OpenVINO bfloat16 for upscaling": {
        "models": FLOAT32, "backend": "openvino", "precision": "bfloat16",
    },
    "fastvid, OpenVINO int8 for upscaling": {"models": INT8, "backend": "openvino"},
    "fastvid, int8 interpolator, OpenVINO int8 for upscaling": {
        "models": ALL_INT8, "backend": "openvino",
    },
    "OpenCV and torch, same networks": {"models": FLOAT32, "peer": "network"},
    "OpenCV and torch, DIS medium": {"models": FLOAT32[1:], "peer": "dis"},
    "encoding alone": {"models": (), "peer": "encode"},
}  # fmt: skip


def main() -> None:
    """Times the rows that are missing."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--row", nargs="*", choices=ROWS)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--missing", action="store_true", help="list what is to do, and stop")
    parser.add_argument("--frames", type=int, default=90)
    parser.add_argument("--clip", type=Path, help="instead of a drawn one, 1280x720")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    rows, there = Rows("pipeline_whole_file"), shipped()
    offered = {n: row for n, row in ROWS.items() if set(row["models"]) <= set(there)}
    rows.keep(offered)
    folder = Path(tempfile.gettempdir()) / "fastvid-whole-file"
    folder.mkdir(exist_ok=True)
    for name, row in offered.items():
        digests = [digest(Bundle.load(there[model])) for model in row["models"]]
        mark = " ".join([f"{options.frames} frames", *digests])
        if (options.row and name not in options.row) or (
            rows.has(name, "time", mark) and not options.again
        ):
            continue
        print(name, flush=True)
        if not options.missing:
            clip = options.clip or drawn_clip(folder, options.frames)
            found = measured(name, row, clip, folder, options)
            print(found, flush=True)
            rows.put(name, "time", mark, found)


def drawn_clip(folder: Path, frames: int) -> Path:
    """A moving scene of one shot, as a file."""
    path = folder / f"drawn-{frames}.mp4"
    if not path.is_file():
        scene = Scene(*SIZE, seed=7)
        partial = path.with_suffix(".partial.mp4")
        with Writer(partial, SIZE, RATE, crf="16") as writer:
            for n in range(frames):
                writer.add(scene.draw(n / RATE))
        partial.replace(path)
    return path


class Writer:
    """H.264 by x264, as all rows write it."""

    def __init__(
        self, path: Path, size: Sequence[int], rate: int | Fraction, *, crf: str = RATE_FACTOR
    ) -> None:
        self._container = av.open(str(path), "w")
        options = {"preset": PRESET, "crf": crf}
        self._stream: Any = self._container.add_stream("libx264", rate=rate, options=options)
        self._stream.width, self._stream.height = size
        self._stream.pix_fmt = "yuv420p"

    def __enter__(self) -> Writer:
        return self

    def add(self, frame: Any) -> None:
        """Encodes an RGB frame."""
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
        self._container.mux(self._stream.encode(picture))

    def __exit__(self, *_: object) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()


def measured(
    name: str, row: dict[str, Any], clip: Path, folder: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """Seconds, frames a second and memory of a row."""
    target = folder / f"{'-'.join(name.replace(',', '').split())}.mp4"
    seconds, peak = [], 0
    for _ in range(options.rounds):
        target.unlink(missing_ok=True)
        start = time.perf_counter()
        done = subprocess.run(
            command(row, clip, target, options.threads), capture_output=True, text=True
        )
        seconds.append(time.perf_counter() - start)
        if done.returncode:
            raise SystemExit(f"{name}: {done.stderr[-2000:]}")
        peak = max(peak, int(done.stdout.split()[-1]))
    frames = list(decoded(target))
    expected = 2 * sum(1 for _ in decoded(clip, step=1000, count=True))
    if len(frames) == 0 or frames[0].shape != (2 * SIZE[1], 2 * SIZE[0], 3):
        raise SystemExit(f"{name}: the frames that came out are wrong")
    made = sum(1 for _ in decoded(target, step=1000, count=True))
    if made not in (expected, expected - 1):
        raise SystemExit(f"{name}: {expected} frames must come out, got {made}")
    first = folder / "fastvid-onnxruntime.mp4"
    alike = None
    if first.is_file() and first != target:
        pairs = zip(frames, decoded(first), strict=False)
        alike = round(float(np.mean([psnr(a, b) for a, b in pairs])), 2)
    return {
        "seconds": [round(s, 2) for s in seconds],
        "frames_in": expected // 2,
        "frames_out": made,
        "fps_in": round(expected / 2 / min(seconds), 2),
        "fps_out": round(made / min(seconds), 2),
        "peak_mib": round(peak / 2**20, 1),
        "bytes": target.stat().st_size,
        "psnr_to_first_row": alike,
        "threads": options.threads,
        "clip": "drawn" if options.clip is None else options.clip.name,
    }


def command(row: dict[str, Any], clip: Path, target: Path, threads: int) -> list[str]:
    """What a row runs."""
    if "peer" in row:
        request = {"source": str(clip), "target": str(target), "way": row["peer"],
                   "threads": threads}  # fmt: skip
        return [sys.executable, str(HERE / "opencv_torch.py"), json.dumps(request)]
    upscale = (
        _CPU | {"threads": threads} | {k: row[k] for k in ("backend", "precision") if k in row}
    )
    settings = {
        "interpolate": _CPU | {"threads": threads},
        "upscale": upscale,
    }
    request = [str(clip), str(target), *row["models"], settings]
    return [sys.executable, "-c", _FASTVID, json.dumps(request)]


def decoded(path: Path, *, step: int = 6, count: bool = False) -> Any:
    """Every so-manieth frame of a file; with `count` an entry for each frame."""
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for n, frame in enumerate(container.decode(video=0)):
            if count:
                yield n
            elif n % step == 0:
                yield frame.to_ndarray(format="rgb24")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    main()
