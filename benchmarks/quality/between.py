"""Ways to draw frames between two, by name: fastvid's models and what else runs on a CPU here.

Each is a function from a `Gap` and times to frames uint8 (H, W, 3). What ships is found by asking
the package, so a new model is a new row.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import av.filter
import cv2
import numpy as np
from clips import Frame, Gap
from interpolator import PRESETS

from fastvid import Interpolator
from fastvid.bundle import Bundle, shipped

Draw = Callable[[Gap, Sequence[float]], list[Frame]]
SIZE = (1280, 720)
"""Of the frames that are timed."""
RUNTIMES = ("onnxruntime", "openvino", "openvino/bfloat16")
_OWN = "fastvid "
_IFNET = "IFNet 4.6, random weights"


@dataclass(frozen=True)
class Method:
    """A row of the table."""

    name: str
    open: Callable[[str, int], Draw]
    """Called with a runtime and a number of threads."""
    runtimes: tuple[str, ...] = ("",)
    """What it can run on; empty where there is nothing to choose."""
    mark: str = ""
    """What its figures depend on besides its name: the digest of a bundle."""
    scored: bool = True
    """False: its time counts, but not its pictures."""
    drawn: int = 1
    """Frames that one call draws for a single time."""


def methods() -> dict[str, Method]:
    """All rows, fastvid's last."""
    found = [Method("averaging", lambda *_: _averaged)]
    found += [Method(f"DIS {p}", functools.partial(_dis, p)) for p in PRESETS]
    if "minterpolate" in av.filter.filters_available:
        # Every gap that it sees is filled.
        between = len(scene_gap((64, 64)).around) - 1
        found.append(Method("minterpolate", lambda *_: minterpolated, drawn=between))
    found.append(Method(_IFNET, _ifnet, ("torch",), scored=False))
    for name, path in shipped().items():
        bundle = Bundle.load(path)
        if bundle.task == "interpolator":
            open_ = functools.partial(_shipped, bundle)
            runtimes = RUNTIMES[:2] if name.endswith("-int8") else RUNTIMES
            found.append(Method(_OWN + name, open_, runtimes, digest(bundle)))
    return {method.name: method for method in found}


def digest(bundle: Bundle) -> str:
    """Of all files of a bundle."""
    return "".join(sorted(str(spec.sha256)[:8] for spec in bundle.files.values()))


def _shipped(bundle: Bundle, runtime: str, threads: int) -> Draw:
    backend, _, precision = runtime.partition("/")
    model = Interpolator(
        bundle.path,
        device="cpu",
        backend=backend or "onnxruntime",
        precision=precision or "auto",
        threads=threads,
    )

    def draw(gap: Gap, times: Sequence[float]) -> list[Frame]:
        return list(model.between(gap.frame0, gap.frame1, list(times)))

    return draw


def _averaged(gap: Gap, times: Sequence[float]) -> list[Frame]:
    return [cv2.addWeighted(gap.frame0, 1 - t, gap.frame1, t, 0) for t in times]  # type: ignore[misc]


def _dis(preset: str, runtime: str, threads: int) -> Draw:
    cv2.setNumThreads(threads)
    search = cv2.DISOpticalFlow_create(PRESETS[preset])
    return functools.partial(searched, search)


def searched(search: Any, gap: Gap, times: Sequence[float]) -> list[Frame]:
    """Two-sided warping by the mean of a search forth and one back; frames count by nearness."""
    grey = [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in (gap.frame0, gap.frame1)]
    back = (search.calc(grey[1], grey[0], None) - search.calc(grey[0], grey[1], None)) / 2
    height, width = back.shape[:2]
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)
    drawn = []
    for t in times:
        sides = [
            cv2.remap(f, grid + s * back, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            for f, s in ((gap.frame0, t), (gap.frame1, t - 1))
        ]
        drawn.append(cv2.addWeighted(sides[0], 1 - t, sides[1], t, 0))
    return drawn  # type: ignore[return-value]


def minterpolated(gap: Gap, times: Sequence[float]) -> list[Frame]:
    """The filter of FFmpeg as PyAV bundles it, with motion compensation and its other defaults.

    It sees the frames around the gap too, in 4:4:4, and looks for no scene cuts.
    """
    parts = Fraction(times[0]).limit_denominator(64).denominator
    graph = av.filter.Graph()
    height, width = gap.frame0.shape[:2]
    source = graph.add_buffer(
        width=width, height=height, format="yuv444p", time_base=Fraction(1, 1000)
    )
    wanted = f"fps={parts}:mi_mode=mci:scd=none"
    graph.link_nodes(source, graph.add("minterpolate", wanted), graph.add("buffersink")).configure()
    for n, picture in enumerate(gap.around):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame = frame.reformat(format="yuv444p", dst_colorspace="ITU601")
        frame.pts, frame.time_base = 1000 * n, Fraction(1, 1000)
        graph.push(frame)
    graph.push(None)
    found: dict[Fraction, Frame] = {}
    while True:
        try:
            frame = graph.vpull()
        except (av.error.EOFError, av.error.BlockingIOError):
            break
        at = Fraction(frame.pts) * frame.time_base - gap.first
        if 0 < at < 1:
            rgb = frame.reformat(format="rgb24", src_colorspace="ITU601")
            found[at] = rgb.to_ndarray()
    return [found[Fraction(t).limit_denominator(64)] for t in times]


def _ifnet(runtime: str, threads: int) -> Draw:
    from ifnet_peer import TorchIFNet

    net = TorchIFNet("4.6", threads=threads)

    def draw(gap: Gap, times: Sequence[float]) -> list[Frame]:
        step = net.multiple_of
        below, right = (-side % step for side in gap.frame0.shape[:2])
        padded = [
            np.pad(f, ((0, below), (0, right), (0, 0)), "edge") for f in (gap.frame0, gap.frame1)
        ]
        height, width = gap.frame0.shape[:2]
        return [net.between(*padded, t)[:height, :width] for t in times]

    return draw


def scene_gap(size: tuple[int, int] = SIZE) -> Gap:
    """Two frames of a drawn scene and the one between, to time with."""
    from fastvid.scene import Scene

    scene = Scene(*size, seed=7)
    frames = [scene.draw(n / 60) for n in range(6, 17, 2)]
    return Gap((scene.draw(11 / 60),), tuple(frames), 2)
