"""What a clip starts from beside noise: pictures that it must show, or a clip to redraw."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fastvid._generation.latents import Encoder, Frames, Latents
from fastvid._generation.noise import PICTURES, Noise
from fastvid._generation.request import Request
from fastvid._resample import resize_like_pillow
from fastvid.backends._transfer import Transfers
from fastvid.bundle import Bundle, GenerationSpec
from fastvid.errors import InputError

if TYPE_CHECKING:
    from fastvid.backends import Session

_ENCODER = ("encoder_first", "encoder_next")
IN_LATENTS = ("first_frame", "first_frames", "noised_first_frames")
"""Kinds of `picture_conditioning` that put pictures into the latents themselves."""
# Black is 0 and white 255; the middle is what networks with a range from -1 to 1 see as nothing.
_GREY = np.float32(127.5)


@dataclass(frozen=True)
class Known:
    """Latents that are given and not drawn: those of pictures that the clip must show."""

    indices: tuple[int, ...]
    """Places along the time axis."""
    latents: Latents
    """float32 (1, C, len(indices), h, w)."""


@dataclass(frozen=True)
class Start:
    """What sampling starts from beside noise."""

    known: Known | None = None
    redrawn: Latents | None = None
    """The latents of a clip to redraw."""
    condition: NDArray[np.float32] | None = None
    """The transformer's input of that name; None makes it of `known`."""
    image_embeds: NDArray[np.float32] | None = None
    """float32 (1, tokens, width)."""


def require(bundle: Bundle, spec: GenerationSpec, request: Request) -> None:
    """Refuses pictures that a model does not take, and their absence where it needs one.

    Raises:
        InputError: Names the argument.
    """
    name, kind = bundle.name, spec.picture_conditioning
    given = request.image is not None or request.video is not None
    if kind == "masked_video" and request.image is None:
        what = "video" if request.video is not None else "no picture"
        raise InputError(f"image: model {name!r} must be given a picture to start from, got {what}")
    if not given:
        return
    if not all(graph in bundle.graphs for graph in _ENCODER):
        raise InputError(
            f"image: model {name!r} must have an encoder to start from pictures, got one without"
        )
    if request.redraws:
        return
    if kind == "latents" and not _takes(bundle, "condition"):
        raise InputError(
            f"image: model {name!r} must be trained to start from pictures, got one that is not",
            hint="video with strength redraws a clip with any model",
        )
    if kind == "first_frame" and request.video is not None:
        raise InputError(
            f"video: model {name!r} must be given strength too, it redraws clips and continues none"
        )
    if request.last_image is not None and not _takes_last(bundle, kind):
        raise InputError(f"last_image: model {name!r} must be trained for it, got one that is not")
    if request.last_image is None and kind == "masked_video" and _pictures_seen(bundle) == 2:
        raise InputError(f"last_image: model {name!r} must be given one too, got image alone")


def _takes(bundle: Bundle, name: str) -> bool:
    return any(port.name == name for port in bundle.graphs["transformer"].inputs)


def _takes_last(bundle: Bundle, kind: str) -> bool:
    if kind in IN_LATENTS:
        return False
    if not _takes(bundle, "image_embeds"):
        return True
    # A model that sees pictures beside the prompt was made for one or for two of them.
    return _pictures_seen(bundle) == 2


def _pictures_seen(bundle: Bundle) -> int:
    if "image_encoder" not in bundle.graphs:
        return 0
    port = next(p for p in bundle.graphs["image_encoder"].inputs if p.name == "frames")
    return int(port.shape[0])


class Pictures:
    """Encodes pictures as a model wants them.

    Args:
        bundle: The model.
        spec: Its settings.
        graph: Opens a graph by its name.
        transfers: The way to the sessions' device and back.
        noise: For encoders that draw latents around what they see.
    """

    def __init__(
        self,
        bundle: Bundle,
        spec: GenerationSpec,
        graph: Callable[[str], Session],
        transfers: Transfers,
        noise: Noise,
    ) -> None:
        self._bundle, self._spec, self._noise = bundle, spec, noise
        self._graph, self._transfers = graph, transfers

    def start(self, request: Request) -> Start:
        """What a request starts from."""
        if request.image is None and request.video is None:
            return Start()
        step, kind = self._spec.temporal_compression, self._spec.picture_conditioning
        first, following = map(self._graph, _ENCODER)
        encoder = Encoder(first, following, step, self._transfers)
        if request.video is not None:
            if request.redraws:
                return Start(redrawn=self._encoded(encoder, request.video))
            return Start(known=self._continued(encoder, request))
        if kind == "masked_video":
            embeds = self._seen(request) if "image_encoder" in self._bundle.graphs else None
            return Start(condition=self._masked(encoder, request), image_embeds=embeds)
        assert request.image is not None
        known = self._encoded(encoder, request.image[None])
        if request.last_image is None:
            return Start(known=Known((0,), known))
        # A later latent stands for several frames: here all of them the last picture.
        still = np.repeat(request.last_image[None], 1 + step, axis=0)
        last = encoder.encode(still)[:, :, 1:]
        end = (request.num_frames - 1) // step
        return Start(known=Known((0, end), np.concatenate([known, last], axis=2)))

    def _encoded(self, encoder: Encoder, frames: Frames) -> Latents:
        noise = None
        if "noise" in self._graph(_ENCODER[0]).inputs:
            count = 1 + (len(frames) - 1) // self._spec.temporal_compression
            plane = (side // self._spec.spatial_compression for side in frames.shape[1:3])
            shape = (1, self._spec.latent_channels, count, *plane)
            noise = self._noise.normal(shape, PICTURES)
        return encoder.encode(frames, noise)

    def _continued(self, encoder: Encoder, request: Request) -> Known:
        """The end of the clip, as much as leaves a latent to draw."""
        assert request.video is not None
        step = self._spec.temporal_compression
        count = (request.num_frames - 1) // step
        used = min((len(request.video) - 1) // step, max(count // 2, 1) - 1)
        known = self._encoded(encoder, request.video[-1 - used * step :])
        return Known(tuple(range(used + 1)), known)

    def _masked(self, encoder: Encoder, request: Request) -> NDArray[np.float32]:
        """The mask, a channel for each frame of a latent, and the clip with grey between."""
        step = self._spec.temporal_compression
        latents = encoder.encode_pieces(self._pieces(request))
        mask = np.zeros((1, step, *latents.shape[2:]), np.float32)
        mask[:, :, 0] = 1
        if request.last_image is not None:
            mask[:, -1, -1] = 1
        return np.concatenate([mask, latents], axis=1)

    def _pieces(self, request: Request) -> Iterator[Frames | NDArray[np.float32]]:
        """The clip that is known, a latent's frames at a time."""
        step = self._spec.temporal_compression
        assert request.image is not None
        yield request.image[None].astype(np.float32)
        grey = np.full((step, *request.image.shape), _GREY)
        count = (request.num_frames - 1) // step
        for index in range(count):
            if request.last_image is None or index < count - 1:
                yield grey
            else:
                yield np.concatenate([grey[1:], request.last_image[None].astype(np.float32)])

    def _seen(self, request: Request) -> NDArray[np.float32]:
        """What the image encoder says of the pictures."""
        session = self._graph("image_encoder")
        side = int(session.inputs["frames"].shape[1])
        shown = [request.image]
        if request.last_image is not None:
            shown.append(request.last_image)
        frames = np.stack([_square(one, side) for one in shown if one is not None])
        embeds: NDArray[np.float32] = session.run({"frames": frames})["image_embeds"]
        return embeds


def _square(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The middle of a picture, its shorter side made `side`, as CLIP's image processor has it."""
    height, width = picture.shape[:2]
    short = min(height, width)
    rows, columns = (int(side * length / short) for length in (height, width))
    resized = resize_like_pillow(picture, rows, columns)
    top, left = (rows - side) // 2, (columns - side) // 2
    return np.ascontiguousarray(resized[top : top + side, left : left + side])
