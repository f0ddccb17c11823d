"""Decoders that look ahead: a chain of graphs, each a few frames behind the one before.

Stage k is the graph `decoder_k`. It takes a few frames of features (the first stage: latents) and
their `position`, the number of the first of them and how many the clip has, and gives features (the
last stage: frames), where those are (`next_position`), and caches. Because it looks ahead, what it
gives begins some frames before what it was given, and it runs on after the end of a clip, on
nothing, until all of it is out. So a clip of any length decodes in the memory of a few frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastvid import ops
from fastvid._generation.latents import Drawn, Frames
from fastvid._generation.noise import SITES
from fastvid.backends._checks import dimension
from fastvid.backends._transfer import Transfers, in_turn
from fastvid.errors import UnsupportedModelError

if TYPE_CHECKING:
    from fastvid._generation.arrays import Arrays
    from fastvid.backends import Session
    from fastvid.bundle import Bundle, TensorSpec

_PREFIX, _NEXT = "decoder_", "next_"
_GIVEN = ("position", "decode_timestep", "decode_noise", "decode_noise_scale", "noise")


def stage_names(bundle: Bundle) -> list[str]:
    """The graphs of a decoder that looks ahead, in order; none where the bundle has another."""
    names: list[str] = []
    while f"{_PREFIX}{len(names)}" in bundle.graphs:
        names.append(f"{_PREFIX}{len(names)}")
    return names


def takes_timestep(bundle: Bundle) -> bool:
    """Whether the decoder is told how much noise is in the latents."""
    names = stage_names(bundle)
    return bool(names) and any(
        port.name == "decode_timestep" for port in bundle.graphs[names[0]].inputs
    )


@dataclass(frozen=True)
class _Piece:
    """Frames on their way from one stage to the next."""

    array: Any
    start: int
    """Number of the first of them; those below 0 and behind the end are of no clip."""
    total: int
    """Frames of the clip at this rate."""


class StagedDecoder:
    """Latents to frames.

    Args:
        stages: The sessions, in order.
        transfers: The way to the sessions' device and back.
    """

    def __init__(self, stages: list[Session], transfers: Transfers) -> None:
        self._stages = [_Stage(session, number) for number, session in enumerate(stages)]
        self._transfers = transfers

    def decode(self, drawn: Drawn, arrays: Arrays) -> Iterator[Frames]:
        """The frames of a clip, as many as it has."""
        latents = drawn.latents
        height, width = latents.shape[3:]
        total = latents.shape[2]
        pieces: Iterator[_Piece] = (
            _Piece(arrays.piece(latents, index), index, total) for index in range(total)
        )
        for stage in self._stages:
            pieces = stage.run(pieces, {"h": height, "w": width}, drawn)
        started = ((p, self._transfers.download(p.array)) for p in pieces)
        for piece, pending in in_turn(started, self._transfers.ahead):
            frames = pending.result()
            shown = frames[max(-piece.start, 0) : max(piece.total - piece.start, 0)]
            if len(shown):
                yield shown


class _Stage:
    """One graph of the chain."""

    def __init__(self, session: Session, number: int) -> None:
        self._session, self._number = session, number
        self._source = next(iter(session.inputs))
        self._caches = [n for n in session.inputs if n not in _GIVEN and n != self._source]
        outputs = set(session.outputs)
        results = outputs - {"next_position", *(f"{_NEXT}{name}" for name in self._caches)}
        passed = all(f"{_NEXT}{name}" in outputs for name in self._caches)
        if not passed or len(results) != 1 or "next_position" not in outputs:
            raise UnsupportedModelError(
                f"{_PREFIX}{number}: outputs must be a result, next_position and the next of "
                f"{sorted(self._caches)}, got {sorted(outputs)}"
            )
        self._result = results.pop()
        self._frames = int(session.inputs[self._source].shape[2])
        # Pictures have their frames first.
        self._axis = 2 if len(session.outputs[self._result].shape) == 5 else 0
        self._kept = [name for name in session.outputs if name != "next_position"]

    def run(
        self, pieces: Iterator[_Piece], sizes: dict[str, int], drawn: Drawn
    ) -> Iterator[_Piece]:
        """What the stage gives, without what is before the clip, until all of it is out."""
        inputs = self._constant(sizes, drawn)
        for name in self._caches:
            inputs[name] = _zeros(self._session.inputs[name], sizes)
        noised = self._noise_of(sizes, drawn)
        for piece in self._endless(pieces, sizes):
            position = np.array([piece.start, piece.total], np.int64)
            outputs = self._session.run(
                {**inputs, **noised(piece.start), self._source: piece.array, "position": position},
                keep=self._kept,
            )
            for name in self._caches:
                inputs[name] = outputs[f"{_NEXT}{name}"]
            start, total = (int(number) for number in outputs["next_position"])
            result = outputs[self._result]
            end = start + result.shape[self._axis]
            if end > 0:
                yield _Piece(result, start, total)
            if end >= total:
                return

    def _endless(self, pieces: Iterator[_Piece], sizes: dict[str, int]) -> Iterator[_Piece]:
        """The pieces, and then nothing."""
        start = total = 0
        for piece in pieces:
            start, total = piece.start, piece.total
            yield piece
        nothing = _zeros(self._session.inputs[self._source], sizes)
        while True:
            start += self._frames
            yield _Piece(nothing, start, total)

    def _constant(self, sizes: dict[str, int], drawn: Drawn) -> dict[str, Any]:
        """What is the same in every run."""
        inputs: dict[str, Any] = {}
        names = self._session.inputs
        for name, value in (
            ("decode_timestep", drawn.decode_timestep),
            ("decode_noise_scale", drawn.decode_noise_scale),
        ):
            if name in names:
                inputs[name] = np.array([value], np.float32)
        if "noise" in names:
            shape = _shape(names["noise"], sizes)
            inputs["noise"] = ops.randn(shape, seed=drawn.seed, subsequence=SITES + self._number)
        return inputs

    def _noise_of(
        self, sizes: dict[str, int], drawn: Drawn
    ) -> Callable[[int], dict[str, NDArray[np.float32]]]:
        """The noise in the latents, by the number of a latent."""
        if "decode_noise" not in self._session.inputs:
            return lambda start: {}
        nothing = _zeros(self._session.inputs["decode_noise"], sizes)

        def noise(start: int) -> dict[str, NDArray[np.float32]]:
            given = drawn.decode_noise
            if given is None or start >= given.shape[2]:
                return {"decode_noise": nothing}
            return {"decode_noise": np.ascontiguousarray(given[:, :, start : start + 1])}

        return noise


def _shape(spec: TensorSpec, sizes: dict[str, int]) -> tuple[int, ...]:
    parts = map(dimension, spec.shape)
    return tuple(factor * (sizes[symbol] if symbol else 1) for factor, symbol in parts)


def _zeros(spec: TensorSpec, sizes: dict[str, int]) -> NDArray[Any]:
    return np.zeros(_shape(spec, sizes), spec.dtype)
