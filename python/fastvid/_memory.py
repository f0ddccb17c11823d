"""What a run will need in memory: measured on small frames, and worked out for those asked for.

A process of its own runs each graph at a small size, another at a larger one: in this one, memory
that was freed and is used again would hide what is taken. On the CPU the process's peak counts what
onnxruntime's arenas, its kernels and the arrays take; on CUDA, what the device has less. What is
fixed and what grows with the number of pixels follow from the two. Weights and libraries are not
counted: a model that is loaded holds them already.
"""

from __future__ import annotations

import functools
import json
import math
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from fastvid.bench import probes
from fastvid.devices import parse_device
from fastvid.errors import DeviceError, OutOfMemoryError
from fastvid.pipeline import QUEUE_FRAMES

MARGIN = 1.15
"""What is kept free beyond what was worked out, because arenas grow in steps."""

# No network of a few frames takes more for a pixel of a frame; below this nothing is measured.
_MOST_PER_PIXEL = 4096
_MILLION = 1_000_000
_SECONDS = 120

Sizes = Mapping[str, int]


@dataclass(frozen=True)
class Need:
    """Bytes that grow with the number of pixels, or of latents, that a graph sees."""

    fixed: float
    per_pixel: float

    def at(self, pixels: int) -> int:
        """Bytes for so many pixels."""
        return max(0, round(self.fixed + self.per_pixel * pixels))


@dataclass(frozen=True)
class MemoryPlan:
    """What a run at a size will need, in bytes, and whether it is there."""

    model: str
    device: str
    height: int
    width: int
    graphs: dict[str, int]
    """Bytes of each graph while it runs, with what it gives to others; weights are not counted."""
    frames: int
    """Bytes of frames that wait between the steps of a pipeline, on the host."""
    total: int
    """Bytes of all graphs, and of the frames where they are in the same memory."""
    available: int
    """Bytes that are free on the device now."""
    piece: tuple[int, int] | None
    """Height and width of the pieces that frames pass in; None is the whole frame."""
    largest: tuple[int, int]
    """Height and width of the largest frames of this shape that fit in one piece."""
    notes: tuple[str, ...] = field(default=())
    weights: dict[str, int] = field(default_factory=dict)
    """Bytes of the weights of each part of a model that is loaded in parts; they count in `total`,
    and with them only the part that takes most."""

    @property
    def fits(self) -> bool:
        """Whether it will run, with a margin for arenas that grow in steps."""
        return self.total * MARGIN <= self.available

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain objects."""
        return asdict(self) | {"fits": self.fits}

    def to_text(self) -> str:
        """The plan for people."""
        lines = [f"{self.model} at {self.width}x{self.height} on {self.device}"]
        if self.piece is not None:
            lines[0] += f", in pieces of {self.piece[1]}x{self.piece[0]}"
        lines += [f"  {name}: {_text(size)}" for name, size in self.graphs.items()]
        lines += [f"  weights of {part}: {_text(size)}" for part, size in self.weights.items()]
        lines.append(f"  frames that wait: {_text(self.frames)}")
        found = f"{_text(self.total)} of {_text(self.available)} that are free"
        verdict = "fits" if self.fits else "does not fit"
        lines.append(f"  {verdict}: {found}")
        if not self.fits:
            lines.append(f"  the largest that fits: {self.largest[1]}x{self.largest[0]}")
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])

    def __str__(self) -> str:
        return self.to_text()


def _text(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def available(device: str) -> int:
    """Bytes that are free on a device now."""
    target = parse_device(device)
    if target.kind == "cuda":
        from fastvid.backends._cuda import free_memory

        return free_memory(target.index)[0]
    left = probes.memory_available()
    # Where the system does not say, nothing is refused.
    return sys.maxsize if left is None else left


class Meter:
    """Measures the graphs of a model, when first asked.

    Args:
        bundle: The model's folder.
        options: As `backends.open` takes them, the device named.
        small: Two sizes of each symbol to run at, the first the smaller.
        pixels: Counts what a graph's memory grows with, from its sizes.
        graphs: Which to measure; None is all.
    """

    def __init__(
        self,
        bundle: str,
        options: Mapping[str, Any],
        small: tuple[Sizes, Sizes],
        pixels: Callable[[str, Sizes], int],
        *,
        graphs: tuple[str, ...] | None = None,
    ) -> None:
        self._bundle = bundle
        self._options = dict(options)
        self._small = small
        self._pixels = pixels
        self._graphs = graphs
        self.device: str = options["device"]

    def at(self, sizes: Sizes) -> dict[str, int]:
        """Bytes of each graph at sizes of the symbols."""
        return {name: need.at(self._pixels(name, sizes)) for name, need in self._needs.items()}

    def total(self, pixels: int) -> int:
        """Bytes of all graphs for so many pixels."""
        return sum(need.at(pixels) for need in self._needs.values())

    def available(self) -> int:
        """Bytes that are free on the device now."""
        return available(self.device)

    @functools.cached_property
    def _needs(self) -> dict[str, Need]:
        first, second = (self._measured(sizes) for sizes in self._small)
        found = {}
        for name, low in first.items():
            few, many = (self._pixels(name, sizes) for sizes in self._small)
            slope = max(0.0, (second[name] - low) / (many - few)) if many > few else 0.0
            found[name] = Need(max(0.0, low - slope * few), slope)
        return found

    def _measured(self, sizes: Sizes) -> dict[str, int]:
        if self._options["backend"] == "tensorrt":
            raise DeviceError(
                "plan: memory of TensorRT engines cannot be measured beforehand",
                hint="backend='onnxruntime' can",
            )
        return _measured(
            self._bundle,
            json.dumps({"options": self._options, "sizes": dict(sizes), "graphs": self._graphs}),
        )


@functools.cache
def _measured(bundle: str, request: str) -> dict[str, int]:
    """Bytes of each graph, found by a process that has run nothing else."""
    command = [sys.executable, "-m", "fastvid._memory_probe", bundle]
    try:
        done = subprocess.run(
            command, input=request, capture_output=True, text=True, timeout=_SECONDS
        )
        answer = json.loads(done.stdout or "{}")
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise DeviceError(f"plan: cannot measure memory: {error}") from None
    if "error" in answer or not answer:
        raise DeviceError(f"plan: cannot measure memory: {answer.get('error', done.stderr)}")
    return {name: int(size) for name, size in answer.items()}


class FrameMemory:
    """Memory of a model whose graphs take frames of H times W pixels.

    Args:
        bundle: The model's folder.
        options: As `backends.open` takes them, the device named.
        padded: The size that a frame is run at.
    """

    def __init__(
        self,
        bundle: str,
        options: Mapping[str, Any],
        padded: Callable[[int, int], tuple[int, int]],
    ) -> None:
        self._padded = padded
        small, large = padded(384, 512), padded(768, 1024)
        both = tuple({"N": 1, "H": h, "W": w} for h, w in (small, large))
        self.meter = Meter(bundle, options, (both[0], both[1]), _frame_pixels)
        # Pixels of the largest piece that has been let through: its memory is held already.
        self._held = 0

    def needed(self, height: int, width: int) -> dict[str, int]:
        """Bytes of each graph for frames, or pieces, of a size."""
        height, width = self._padded(height, width)
        return self.meter.at({"N": 1, "H": height, "W": width})

    def most_pixels(self, height: int, width: int) -> int:
        """Pixels of a piece that fit into what is free, at most those of the padded frame."""
        pixels = height * width
        if pixels > self._held and pixels * _MOST_PER_PIXEL > self.meter.available():
            try:
                pixels = min(pixels, self._most())
            except DeviceError:
                # Not measured is not refused: the run itself says what is missing.
                return pixels
        self._held = max(self._held, pixels)
        return pixels

    def _most(self, beside: float = 0.0) -> int:
        """Pixels that fit, where each takes so many bytes beside the graphs'."""
        held = self.meter.total(self._held) if self._held else 0
        free = (self.meter.available() + held) / MARGIN
        fixed = self.meter.total(0)
        slope = (self.meter.total(_MILLION) - fixed) / _MILLION + beside
        return max(0, int((free - fixed) / max(slope, 1e-9)))

    def largest(self, height: int, width: int, beside: float = 0.0) -> tuple[int, int]:
        """Height and width of the largest frames of this shape that fit in one piece."""
        scale = math.sqrt(self._most(beside) / (height * width))
        return int(height * scale) // 2 * 2, int(width * scale) // 2 * 2

    def require(self, what: str, height: int, width: int) -> None:
        """Refuses frames that cannot fit in one piece.

        Raises:
            OutOfMemoryError: With the largest size that does.
        """
        rows, columns = self._padded(height, width)
        if self.most_pixels(rows, columns) >= rows * columns:
            return
        need = sum(self.needed(height, width).values())
        tall, wide = self.largest(height, width)
        raise OutOfMemoryError(
            f"{what}: frames must fit into the memory of {self.meter.device}, {width}x{height} "
            f"need {_text(need)} and {_text(self.meter.available())} are free",
            hint=f"{wide}x{tall} fits; low_memory=True takes less",
        )

    def plan(
        self,
        model: str,
        size: tuple[int, int],
        piece: tuple[int, int] | None,
        frames: int,
        notes: tuple[str, ...] = (),
        *,
        passes: int = 1,
    ) -> MemoryPlan:
        """What frames of a size need.

        Args:
            model: The model's name.
            size: Height and width of a frame.
            piece: Height and width of the pieces that it passes in; None is the whole frame.
            frames: Bytes of frames that wait.
            notes: What else to say.
            passes: How many times as large frames are when the graph sees them last.
        """
        graphs = self.needed(*(piece or (passes * size[0], passes * size[1])))
        device = self.meter.device
        beside = frames / (passes**2 * size[0] * size[1]) if device == "cpu" else 0.0
        tall, wide = self.largest(*size, beside)
        return MemoryPlan(
            model=model,
            device=device,
            height=size[0],
            width=size[1],
            graphs=graphs,
            frames=frames,
            total=sum(graphs.values()) + (frames if device == "cpu" else 0),
            available=self.meter.available(),
            piece=piece,
            largest=(tall // passes, wide // passes),
            notes=notes,
        )


def waiting_frames(height: int, width: int, scale: int = 1) -> int:
    """Bytes of the frames before and behind a stage: as many as its queues hold, and in hand."""
    return (QUEUE_FRAMES + 1) * 3 * height * width * (1 + scale * scale)


def _frame_pixels(graph: str, sizes: Sizes) -> int:
    return sizes["H"] * sizes["W"]
