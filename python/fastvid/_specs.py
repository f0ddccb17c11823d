"""What a bundle says about its graphs, tensors, sizes and origin: plain frozen data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastvid.errors import InputError

Scalar = bool | int | float | str


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a graph."""

    name: str
    dtype: str
    """NumPy's name of the element type, for example `uint8` or `float32`."""
    shape: tuple[int | str, ...]
    """Sizes; a string names a size that varies, the same one wherever the name stands again in the
    graph, and `2*H` is twice that size. `N`, `H` and `W` are batch, height and width of frames."""
    range: tuple[float, float] | None = None
    """Least and greatest value, both allowed; None where any value of the dtype is."""


@dataclass(frozen=True)
class GraphSpec:
    """One ONNX graph of a bundle."""

    name: str
    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    external_data: tuple[str, ...] = ()
    """Files with weights, under the names that the ONNX file gives them."""


@dataclass(frozen=True)
class SizeRule:
    """Heights and widths that the graphs take."""

    minimum: int = 1
    """Least height and width in pixels."""
    multiple_of: int = 1
    """Height and width must be multiples of this, unless the graph pads by itself."""
    padding: str = "internal"
    """Who pads to `multiple_of`: `internal` is the graph; for `edge` and `reflect` the caller
    repeats or mirrors pixels at the bottom and right and crops the result; `none` refuses."""
    maximum: int = 16384
    """Greatest height and width in pixels."""

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """Size that a frame must be padded to at the bottom and right before the graph runs.

        Args:
            height: Height of the frame in pixels, at least 1.
            width: Width of the frame in pixels, at least 1.

        Returns:
            Height and width that the graph takes, not less than those given.

        Raises:
            InputError: The frame is empty, too large, or must be padded where the rule forbids it.
        """
        if min(height, width) < 1 or max(height, width) > self.maximum:
            raise InputError(
                f"frame: height and width must be from 1 to {self.maximum}, got {height}x{width}"
            )
        step = 1 if self.padding == "internal" else self.multiple_of
        target_height, target_width = (
            -(-max(side, self.minimum) // step) * step for side in (height, width)
        )
        if self.padding == "none" and (target_height, target_width) != (height, width):
            raise InputError(
                f"frame: height and width must be at least {self.minimum} and multiples of {step}, "
                f"got {height}x{width}"
            )
        return target_height, target_width


@dataclass(frozen=True)
class TilingSpec:
    """How frames pass through an upscaler in pieces."""

    reach: int
    """Pixels of the frame that a pixel of the result depends on, to each side; where pieces are
    not exact, how far they overlap."""
    multiple_of: int = 1
    """Pieces begin and end at multiples of this."""
    exact: bool = True
    """Whether pieces give the pixels of the whole, up to rounding. A network that looks at all of
    a frame, or lays a grid over it, gives others."""


@dataclass(frozen=True)
class GenerationSpec:
    """Sizes and defaults of a generator."""

    height: int
    """Height in pixels where the caller gives none, like the next ones."""
    width: int
    num_frames: int
    max_num_frames: int
    frame_rate: float
    """Frames per second the model was trained for."""
    num_inference_steps: int
    guidance_scale: float
    """1 is no guidance."""
    max_prompt_tokens: int
    latent_channels: int
    spatial_compression: int
    """Pixels of a latent's side."""
    temporal_compression: int
    """Frames of a latent, except the first, which is one frame."""
    prompt_cleaning: str = "spaces"
    """`spaces` makes runs of them one; `html` also resolves character references before."""
    zero_padding: bool = False
    """Whether the text encoder sees the prompt's tokens alone, and its embeddings are padded to
    `max_prompt_tokens` with zeros; else it is given that many tokens."""
    schedule: str = "linear"
    """Noise levels of `FlowMatchEulerDiscreteScheduler`: `linear` from 1 to 1 / steps before the
    shift, `linear_quadratic`, small steps at first and then larger ones, or those of the
    `scheduler` itself."""
    picture_conditioning: str = "latents"
    """How a transformer is told of pictures: `latents`, see `condition` in docs/add-a-model.md;
    `masked_video`, the encoded clip with grey where nothing is known, and without a picture there
    is no clip; or in the latents themselves with a timestep of 0: `first_frame`, `first_frames`,
    which may be the end of a clip to continue, or `noised_first_frames`, with a little noise that
    fades from step to step."""
    guidance_scale_2: float | None = None
    """Guidance of `transformer_2`; None is `guidance_scale`."""
    boundary_timestep: float | None = None
    """The timestep below which `transformer_2` takes over; None where there is none."""


@dataclass(frozen=True)
class Provenance:
    """Where the weights come from."""

    weights: str
    """Who made the weights and how, in a sentence."""
    training_data: tuple[str, ...] = ()
    exporter: str = ""
    """Program and version that wrote the graphs."""
    command: str = ""
    """Command that rebuilds the bundle."""
    created: str = ""
    """Day of the export, YYYY-MM-DD."""
    settings: Mapping[str, Scalar] = field(default_factory=dict)
    """Figures of the training, for example steps and seed."""


@dataclass(frozen=True)
class Credit:
    """Somebody whose work is in the weights and whose licence asks for a mention."""

    name: str
    licence: str
    source: str = ""
    notice: str = ""


@dataclass(frozen=True)
class QualityFigure:
    """One measured figure, for example PSNR on a data set."""

    metric: str
    data: str
    """What it was measured on."""
    value: float
    unit: str = ""


@dataclass(frozen=True)
class FidelityFigure:
    """How near an output of a converted graph is to that of the float32 graph it was made from."""

    graph: str
    output: str
    data: str
    """The inputs of both graphs, for example `4 frames of a drawn scene`."""
    max_error: float
    unit: str
    """Of `max_error`: `levels` of a uint8 output, else `of the range`, 1 being its span."""
    cosine: float
    """Cosine similarity of the two outputs, each as one vector; 1 where both are zero."""
    psnr: float | None = None
    """dB against 255 levels or the span of the range; None where the outputs are equal."""


@dataclass(frozen=True)
class PrecisionFigure:
    """What running a bundle's graphs in a precision and a backend costs and brings, as measured."""

    precision: str
    """What products are computed in."""
    backend: str
    loss: float
    """dB of PSNR against what the pictures should be that are lost to float32 in onnxruntime."""
    speed: float
    """How many times as fast as that it is."""
    processor: str
    """The machine's instruction set, as `fastvid.ops` names it, which alone is judged by it."""
    data: str
    """The pictures, and their size."""
    psnr: float | None = None
    """dB against the pictures of float32 in onnxruntime; None where they are equal."""
    version: str = ""
    """Of the runtime."""


@dataclass(frozen=True)
class FileSpec:
    """What a file of the bundle must be."""

    sha256: str
    size: int
    """Bytes."""


def integers(record: Mapping[str, Any]) -> dict[str, Any]:
    """`record` with whole floats made integers."""
    # JSON Schema counts 2.0 as an integer, Python does not.
    return {key: int(v) if isinstance(v, float) else v for key, v in record.items()}


def generation_spec(record: Mapping[str, Any]) -> GenerationSpec:
    """The settings of a generator from their entry in a valid manifest."""
    fields = integers(record)
    for name in ("frame_rate", "guidance_scale", "guidance_scale_2", "boundary_timestep"):
        if name in fields:
            fields[name] = float(fields[name])
    return GenerationSpec(**fields)


def graph_spec(name: str, graph: Mapping[str, Any]) -> GraphSpec:
    """The graph called `name` from its entry in a valid manifest."""
    return GraphSpec(
        name=name,
        file=graph["file"],
        inputs=tuple(map(_tensor, graph["inputs"])),
        outputs=tuple(map(_tensor, graph["outputs"])),
        external_data=tuple(graph.get("external_data", ())),
    )


def _tensor(tensor: Mapping[str, Any]) -> TensorSpec:
    shape = tuple(size if isinstance(size, str) else int(size) for size in tensor["shape"])
    limits = tensor.get("range")
    return TensorSpec(
        name=tensor["name"],
        dtype=tensor["dtype"],
        shape=shape,
        range=None if limits is None else (float(limits[0]), float(limits[1])),
    )
