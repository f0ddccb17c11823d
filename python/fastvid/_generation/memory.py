"""What drawing a clip needs in memory: as `fastvid._memory`, for graphs that take latents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastvid._generation.request import Request
from fastvid._generation.sampling import MOST_BATCHED
from fastvid._generation.staged_memory import StagedMeter
from fastvid._memory import MARGIN, MemoryPlan, Meter, Sizes, waiting_frames
from fastvid.backends._stages import is_staged
from fastvid.bundle import Bundle, GenerationSpec
from fastvid.errors import DeviceError, OutOfMemoryError

# Below this for each pixel and each latent nothing is measured.
_MOST_PER_PIXEL, _MOST_PER_LATENT = 4096, 1 << 17


class ClipMemory:
    """Memory of a generator's graphs.

    Args:
        bundle: The model.
        spec: Its settings.
        options: As `backends.open` takes them, the device named.
    """

    def __init__(self, bundle: Bundle, spec: GenerationSpec, options: Mapping[str, Any]) -> None:
        self._bundle, self._spec = bundle, spec
        rule = bundle.size_rule
        halves = (max(side // 2, rule.minimum) for side in (spec.height, spec.width))
        height, width = (-(-side // rule.multiple_of) * rule.multiple_of for side in halves)
        pair = (
            self._sizes(height, width, spec.num_frames, 1),
            self._sizes(spec.height, spec.width, spec.num_frames, 1),
        )
        self.meter: Meter | StagedMeter
        if options["device"] == "cpu" and is_staged(bundle):
            low, high = (self._sizes(side, side, 1, 1) for side in self._small())
            self.meter = StagedMeter(bundle, options, (low, high), _latents)
        else:
            self.meter = Meter(str(bundle.path), options, pair, _latents)

    def _small(self) -> tuple[int, int]:
        """Sides of frames that parts of large models are measured on."""
        rule = self._bundle.size_rule
        side = -(-max(64, rule.minimum) // rule.multiple_of) * rule.multiple_of
        return side, 2 * side

    def _total(self, graphs: Mapping[str, int]) -> int:
        """Bytes of all graphs, or of those that are loaded together with their weights."""
        if isinstance(self.meter, StagedMeter):
            return self.meter.total(graphs)
        return sum(graphs.values())

    def plan(self, request: Request) -> MemoryPlan:
        """What a clip needs."""
        size = request.height, request.width
        graphs = self.meter.at(self._of(request, *size))
        # The decoder gives the frames of a latent at a time.
        latent = self._spec.temporal_compression * 3 * size[0] * size[1]
        waiting = waiting_frames(*size) // 2 + latent
        on_cpu = self.meter.device == "cpu"
        notes: tuple[str, ...] = ()
        if size[0] * size[1] > self._spec.height * self._spec.width:
            notes = ("attention over more latents than the model was made for may need more",)
        weights: dict[str, int] = {}
        if isinstance(self.meter, StagedMeter):
            weights = self.meter.weights
            notes = (*notes, "parts are loaded one after another; the largest counts")
        return MemoryPlan(
            model=self._bundle.name,
            device=self.meter.device,
            height=size[0],
            width=size[1],
            graphs=graphs,
            frames=waiting,
            total=self._total(graphs) + (waiting if on_cpu else 0),
            available=self.meter.available(),
            piece=None,
            largest=self._largest(request),
            notes=notes,
            weights=weights,
        )

    def require(self, request: Request) -> None:
        """Refuses a clip that cannot fit.

        Raises:
            OutOfMemoryError: With the largest size that does.
        """
        sizes = self._of(request, request.height, request.width)
        pixels = request.height * request.width
        bound = pixels * _MOST_PER_PIXEL + _latents("transformer", sizes) * _MOST_PER_LATENT
        if isinstance(self.meter, StagedMeter):
            bound += max(self.meter.weights.values())
        if bound <= self.meter.available():
            return
        try:
            plan = self.plan(request)
        except DeviceError:
            # Not measured is not refused: the run itself says what is missing.
            return
        if not plan.fits:
            height, width = plan.largest
            raise OutOfMemoryError(
                f"generate: clip must fit into the memory of {plan.device}, "
                f"{request.width}x{request.height} with {request.num_frames} frames needs "
                f"{plan.total >> 20} MiB and {plan.available >> 20} MiB are free",
                hint=f"{width}x{height} fits, or take fewer frames; low_memory=True takes less",
            )

    def _of(self, request: Request, height: int, width: int) -> Sizes:
        one = self._sizes(height, width, request.num_frames, 1)
        together = one["T"] * one["h"] * one["w"] <= MOST_BATCHED
        return {**one, "N": 2} if request.guidance_scale > 1 and together else one

    def _sizes(self, height: int, width: int, num_frames: int, count: int) -> Sizes:
        spec, side = self._spec, self._spec.spatial_compression
        return {
            "N": count,
            "T": 1 + (num_frames - 1) // spec.temporal_compression,
            "H": height,
            "W": width,
            "h": height // side,
            "w": width // side,
            "L": spec.max_prompt_tokens,
        }

    def _largest(self, request: Request) -> tuple[int, int]:
        """The largest size of this shape that fits."""
        step = self._bundle.size_rule.multiple_of
        free = self.meter.available()
        for rows in range(request.height // step, 0, -1):
            columns = max(1, rows * request.width // request.height)
            size = rows * step, columns * step
            if self._total(self.meter.at(self._of(request, *size))) * MARGIN <= free:
                return size
        return 0, 0


def _latents(graph: str, sizes: Sizes) -> int:
    """What a graph's memory grows with."""
    if graph in ("text_encoder", "image_encoder"):
        return 1
    area = sizes["h"] * sizes["w"]
    return sizes["N"] * sizes["T"] * area if graph.startswith("transformer") else area
