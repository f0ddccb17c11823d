"""Frames to latents and back, a latent at a time, with everything that passes from one to the next.

The decoder is two graphs. `decoder_first` takes the first latent and gives one frame and caches;
`decoder_next` takes the next latent and the caches, and gives `temporal_compression` frames and new
caches. So a clip of any length decodes in the memory of one latent, and its frames come out while
the rest is still to be decoded. The encoder is the same the other way round.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastvid.backends._transfer import HostTransfers, Transfers, in_turn
from fastvid.errors import UnsupportedModelError

if TYPE_CHECKING:
    from fastvid._generation.arrays import Arrays
    from fastvid.backends import Session

Latents = NDArray[np.float32]
"""float32 (1, C, T, h, w)."""
Frames = NDArray[np.uint8]
"""uint8 RGB (n, H, W, 3)."""

_NEXT = "next_"
_NOISE = "noise"


@dataclass(frozen=True)
class Drawn:
    """Latents of a clip, and what their decoding depends on."""

    latents: Any
    """float32 (1, C, T, h, w), of NumPy or a `DeviceArray`."""
    seed: int
    """Of noise that a decoder adds."""
    decode_timestep: float = 0.0
    decode_noise_scale: float = 0.0
    """Share of `decode_noise` in what is decoded."""
    decode_noise: Latents | None = None
    """Like the latents; None for decoders that take none."""


class _Chain:
    """A `first` graph and its `next`: outputs `cache` of one run are inputs `cache` of the next.

    `next` names the outputs `next_cache`, because a graph cannot have an input and an output of
    one name.
    """

    def __init__(self, first: Session, following: Session, source: str, result: str) -> None:
        self._first, self._next = first, following
        self._source, self._result = source, result
        caches = set(following.inputs) - {source, _NOISE}
        given = set(first.outputs) - {result}
        passed = {name.removeprefix(_NEXT) for name in following.outputs if name != result}
        if caches != given or caches != passed:
            raise UnsupportedModelError(
                f"{source}: the caches of the graphs must agree, got {sorted(given)}, "
                f"{sorted(caches)} and {sorted(passed)}"
            )

    def run(self, pieces: Iterator[Mapping[str, Any]]) -> Iterator[Any]:
        """The results, where the sessions have them; caches stay there too.

        Args:
            pieces: What the graphs take beside the caches, by name.
        """
        caches: Mapping[str, Any] | None = None
        for piece in pieces:
            if caches is None:
                outputs = self._first.run(piece, keep=self._first.outputs)
            else:
                outputs = self._next.run({**piece, **caches}, keep=self._next.outputs)
            result = outputs.pop(self._result)
            caches = {name.removeprefix(_NEXT): value for name, value in outputs.items()}
            yield result


class Decoder:
    """Latents to frames.

    Args:
        first: `latents` (1, C, 1, h, w) to `frames` uint8 (1, H, W, 3) and caches.
        following: `latents` and caches to `frames` uint8 (r, H, W, 3) and caches.
        transfers: The way to the sessions' device and back.
    """

    def __init__(self, first: Session, following: Session, transfers: Transfers) -> None:
        self._chain = _Chain(first, following, "latents", "frames")
        self._transfers = transfers

    def decode(self, drawn: Drawn, arrays: Arrays) -> Iterator[Frames]:
        """The frames of a clip: one, then `temporal_compression` for each further latent."""
        latents = drawn.latents
        pieces = ({"latents": arrays.piece(latents, index)} for index in range(latents.shape[2]))
        started = map(self._transfers.download, self._chain.run(pieces))
        for pending in in_turn(started, self._transfers.ahead):
            yield pending.result()


class Encoder:
    """Frames to latents.

    Args:
        first: `frames` (1, H, W, 3), uint8 or float32 from 0 to 255, to `latents` (1, C, 1, h, w)
            and caches.
        following: `frames` (r, H, W, 3) and caches to `latents` and caches.
        step: `temporal_compression`, r.
        transfers: The way to the sessions' device and back; None where they are on the CPU.
    """

    def __init__(
        self,
        first: Session,
        following: Session,
        step: int,
        transfers: Transfers | None = None,
    ) -> None:
        self._chain = _Chain(first, following, "frames", "latents")
        self._dtype = np.dtype(first.inputs["frames"].dtype)
        self._step = step
        self._transfers = HostTransfers() if transfers is None else transfers

    def encode(self, frames: Frames, noise: Latents | None = None) -> Latents:
        """The latents of 1 + k * step frames, (1, C, 1 + k, h, w).

        Args:
            frames: uint8 (1 + k * step, H, W, 3).
            noise: Like the latents, for encoders that draw them around what they see.
        """
        step = self._step
        bounds = [(0, 1)] + [(i, i + step) for i in range(1, len(frames), step)]
        return self.encode_pieces((frames[begin:end] for begin, end in bounds), noise)

    def encode_pieces(
        self, frames: Iterable[NDArray[Any]], noise: Latents | None = None
    ) -> Latents:
        """The same, of frames that come as the graphs take them: one, then `step` at a time."""
        pieces = (self._inputs(index, piece, noise) for index, piece in enumerate(frames))
        started = map(self._transfers.download, self._chain.run(pieces))
        results = [one.result() for one in in_turn(started, self._transfers.ahead)]
        return np.concatenate(results, axis=2)

    def _inputs(self, index: int, frames: NDArray[Any], noise: Latents | None) -> dict[str, Any]:
        inputs = {"frames": self._transfers.upload(np.ascontiguousarray(frames, self._dtype))}
        if noise is not None:
            part = np.ascontiguousarray(noise[:, :, index : index + 1])
            inputs[_NOISE] = self._transfers.upload(part)
        return inputs
