"""Every row that a machine with a GPU has to fill, as plain data: the plan of benchmarks/gpu.py.

`benchmarks/report.py` lists the rows of it for which there is no result.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

PARTS = ("ops", "upscaling", "interpolation", "generation")
SIZES = {"720p": (720, 1280), "1080p": (1080, 1920), "4K": (2160, 3840)}
"""Height and width of the frames that go in."""
ROUTES = ("host to host", "device to device")
RUNNERS = (
    "fastvid, onnxruntime CUDA",
    "fastvid, TensorRT",
    "fastvid's CUDA ops in torch",
    "torch eager",
    "torch.compile",
    "torch.compile with CUDA graphs",
)
"""What runs the same network with the same weights. The first two are the SDK; the third is what
the ops bring to torch, where the SDK's runtimes are not installed."""
PEERS = RUNNERS[3:]


@dataclass(frozen=True)
class Row:
    """One case: everything in it is measured in turns within one process."""

    part: str
    name: str
    spec: dict[str, Any] = field(default_factory=dict, hash=False)

    @property
    def key(self) -> str:
        """Its name among all rows."""
        return f"{self.part}: {self.name}"


def _op(name: str, op: str, **spec: Any) -> Row:
    return Row("ops", name, {"op": op, **spec})


def _ops() -> list[Row]:
    rows = []
    for dtype in ("float16", "float32"):
        for n, height, width in ((1, 720, 1280), (8, 1080, 1920)):
            spec = {"n": n, "height": height, "width": width, "dtype": dtype}
            rows.append(_op(f"warp {n}x{height}p {dtype}", "warp", **spec))
            rows.append(_op(f"warp_blend {n}x{height}p {dtype} to uint8", "warp_blend", **spec))
    full = {"n": 8, "height": 1080, "width": 1920}
    rows += [
        _op("softmax_splat 720p float32", "softmax_splat", height=720, width=1280),
        _op("inverse_search 360p float32", "inverse_search", height=360, width=640),
        _op("inverse_search 540p float32", "inverse_search", height=540, width=960),
    ]
    for dtype in ("bfloat16", "float16"):
        rows.append(_op(f"qk_norm_rope 32760x12x128 {dtype}", "qk_norm_rope", dtype=dtype))
        for places in (1560, 70_000):
            name = f"temporal_attention 16x{places}x12x64 {dtype}"
            rows.append(_op(name, "temporal_attention", places=places, dtype=dtype))
        rows.append(_op(f"attention 4096x12x64 {dtype}", "attention", dtype=dtype))
    rows += [
        _op("scheduler_step Euler with guidance 16x21x90x160 float32", "scheduler_step"),
        _op("randn 16x21x90x160 float32", "randn"),
    ]
    rows += [
        _op(f"{op} 8x1080p", op, **full)
        for op in ("rgb_to_planar", "planar_to_rgb", "rgb_to_luma", "luma_to_rgb", "downscale")
    ]
    frame = {"height": 1080, "width": 1920}
    rows += [_op(f"{op} 1080p 4:2:0", op, **frame) for op in ("yuv_to_rgb", "rgb_to_yuv")]
    return rows


def _tasks() -> list[Row]:
    rows = [
        Row(part, f"{size}, {route}", {"size": SIZES[size], "route": route})
        for part in ("upscaling", "interpolation")
        for size in SIZES
        for route in ROUTES
    ]
    clips = {
        "64x64, 17 frames, 30 steps": (64, 64, 17),
        "256x256, 65 frames, 30 steps": (256, 256, 65),
    }
    rows += [Row("generation", name, {"clip": clip, "steps": 30}) for name, clip in clips.items()]
    return rows


ROWS: tuple[Row, ...] = (*_ops(), *_tasks())


def rows(parts: tuple[str, ...] = PARTS) -> list[Row]:
    """The rows of some parts, in order."""
    return [row for row in ROWS if row.part in parts]
