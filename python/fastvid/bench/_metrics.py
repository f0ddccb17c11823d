"""The one table of what a row can say: names, units, and where the figure lies in a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastvid.bench.results import Row

__all__ = ["METRICS", "Metric"]

_FRAMES = ("interpolator", "upscaler")
_GENERATOR = ("generator",)
_ALL = _FRAMES + _GENERATOR


@dataclass(frozen=True)
class Metric:
    """A figure that rows have, by a name that `--assert` and `--compare` know."""

    name: str
    unit: str
    group: str
    """Field of `Row` that holds it."""
    key: str
    """Key in that field; empty where the field is the figure."""
    meaning: str
    higher_is_better: bool = False
    tasks: tuple[str, ...] = _ALL
    only: str = ""
    """What a row needs to have the figure: `cuda`, `engine` or `counter`; empty for all rows."""

    def of(self, row: Row) -> float | None:
        """The figure of a row; None where it has none."""
        value = getattr(row, self.group)
        value = value.get(self.key) if self.key else value
        if self.name == "psnr" and value is None and row.quality.get("identical"):
            return float("inf")
        return None if value is None else float(value)

    def applies(self, row: Row) -> bool:
        """Whether a row that ran must have the figure."""
        if row.task not in self.tasks or self.only == "counter":
            return False
        if self.only == "cuda":
            return row.device.startswith("cuda")
        return row.format.startswith("engine") if self.only == "engine" else True


_LIST = (
    Metric("load", "ms", "start", "load_ms", "the constructor, in a fresh process"),
    Metric("cold", "ms", "start", "cold_first_frame_ms", "start of the process to first frame"),
    Metric(
        "warm", "ms", "start", "warm_first_frame_ms", "a second constructor and its first frame"
    ),
    Metric("p50", "ms", "frame", "p50_ms", "median per frame"),
    Metric("p90", "ms", "frame", "p90_ms", "90th percentile per frame"),
    Metric("p99", "ms", "frame", "p99_ms", "99th percentile per frame"),
    Metric("fps", "/s", "frame", "fps", "frames per second of the calls alone", True),
    Metric(
        "filefps", "/s", "file", "fps", "frames written per second from file to file", True, _FRAMES
    ),
    Metric("decode", "ms", "stages", "decode_ms", "decoding per frame read; generator: latents"),
    Metric("pre", "ms", "stages", "pre_ms", "before the network, per frame", False, _FRAMES),
    Metric("infer", "ms", "stages", "infer_ms", "the network, per frame", False, _FRAMES),
    Metric("post", "ms", "stages", "post_ms", "after the network, per frame", False, _FRAMES),
    Metric("encode", "ms", "stages", "encode_ms", "encoding per frame; generator: per clip"),
    Metric("text", "ms", "stages", "text_ms", "tokens and text encoder", False, _GENERATOR),
    Metric("denoise", "ms", "stages", "denoise_ms", "all solver steps", False, _GENERATOR),
    Metric("first", "ms", "generation", "first_frame_ms", "call to first frame", False, _GENERATOR),
    Metric("total", "ms", "generation", "total_ms", "call to last frame", False, _GENERATOR),
    Metric("rss", "MB", "memory", "peak_rss_mb", "peak memory of the process"),
    Metric("vram", "MB", "memory", "vram_mb", "device memory", only="cuda"),
    Metric("size", "MB", "artefact_mb", "", "files that are loaded"),
    Metric("build", "s", "build_s", "", "building the engine", only="engine"),
    Metric("psnr", "dB", "quality", "psnr", "worst frame against the reference", True),
    Metric("ssim", "", "quality", "ssim", "worst frame against the reference", True),
    Metric("joules", "J", "energy", "joules_per_frame", "energy per frame", only="counter"),
)

METRICS: dict[str, Metric] = {metric.name: metric for metric in _LIST}
"""Every metric by its name."""
