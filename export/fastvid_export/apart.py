"""Runs a network's graphs once in a process of its own.

On a picture that is too small for a network a runtime may not fail but crash: pooling leaves
nothing, and a resize divides by it. `python -m fastvid_export.apart FOLDER SIDE` runs what
`survives` wrote.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fastvid_export.running import Runner

_SECONDS = 300


def survives(graphs: Mapping[str, bytes], side: int) -> bool:
    """Whether graphs run on a picture of `side` x `side`.

    Args:
        graphs: ONNX files by name, `upscale` or `motion` and `between`.
        side: Height and width.
    """
    with tempfile.TemporaryDirectory(prefix="fastvid-apart-") as folder:
        for name, data in graphs.items():
            (Path(folder) / f"{name}.onnx").write_bytes(data)
        command = [sys.executable, "-m", "fastvid_export.apart", folder, str(side)]
        try:
            return subprocess.run(command, capture_output=True, timeout=_SECONDS).returncode == 0
        except subprocess.TimeoutExpired:
            return False


def _run(folder: Path, side: int) -> None:
    picture = np.full((1, side, side, 3), 128, np.uint8)
    if (folder / "upscale.onnx").is_file():
        Runner((folder / "upscale.onnx").read_bytes())({"frames": picture})
        return
    motion, between = (Runner((folder / f"{n}.onnx").read_bytes()) for n in ("motion", "between"))
    features = motion({"frame0": picture, "frame1": picture})
    between(features | {"timestep": np.array([0.5], np.float32)})


if __name__ == "__main__":
    _run(Path(sys.argv[1]), int(sys.argv[2]))
