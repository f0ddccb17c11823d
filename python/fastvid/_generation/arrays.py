"""What sampling and decoding do with arrays, on the host and where a session's device has them.

On the CPU these are NumPy's. On CUDA latents, conditions and predictions stay on the device, and
what is done with them is queued on the stream of the sessions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastvid import _core, ops
from fastvid.backends._cuda import DeviceArray, Memory, Stream
from fastvid.devices import parse_device

if TYPE_CHECKING:
    from fastvid.backends import Session


class Arrays(Protocol):
    """Arrays of one kind, float32 (1, C, T, h, w) where they are latents."""

    def noise(self, shape: tuple[int, ...], seed: int) -> Any:
        """Standard normal noise, the same wherever it is drawn."""

    def put(self, host: NDArray[Any]) -> Any:
        """An array of the host's, as the sessions take it best."""

    def get(self, array: Any) -> NDArray[Any]:
        """The values on the host."""

    def repeated(self, array: Any, count: int) -> Any:
        """An array of one entry along its first axis with `count` of them."""

    def copy(self, array: Any) -> Any:
        """The array in memory of its own."""

    def piece(self, latents: Any, index: int) -> Any:
        """One place along the time axis, (1, C, 1, h, w)."""

    def place(self, latents: Any, indices: tuple[int, ...], known: NDArray[Any]) -> None:
        """Writes known latents to places along the time axis."""

    def finite(self, latents: Any, *, last: bool) -> bool:
        """Whether no value is NaN or infinite, as far as it is cheap to know before the last."""

    def close(self) -> None:
        """Gives back memory that waits to be used again."""


class HostArrays:
    """NumPy's arrays."""

    def noise(self, shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
        """Standard normal noise."""
        return ops.randn(shape, seed=seed)

    def put(self, host: NDArray[Any]) -> NDArray[Any]:
        """The array itself."""
        return host

    def get(self, array: NDArray[Any]) -> NDArray[Any]:
        """The array itself."""
        return array

    def repeated(self, array: NDArray[Any], count: int) -> NDArray[Any]:
        """The array `count` times."""
        return np.repeat(array, count, axis=0)

    def copy(self, array: NDArray[Any]) -> NDArray[Any]:
        """A copy."""
        return array.copy()

    def piece(self, latents: NDArray[Any], index: int) -> NDArray[Any]:
        """One place along the time axis."""
        return np.ascontiguousarray(latents[:, :, index : index + 1])

    def place(self, latents: NDArray[Any], indices: tuple[int, ...], known: NDArray[Any]) -> None:
        """Writes known latents."""
        latents[:, :, list(indices)] = known

    def finite(self, latents: NDArray[Any], *, last: bool) -> bool:
        """Looks at every value in each step."""
        return bool(np.isfinite(latents).all())

    def close(self) -> None:
        """There is nothing to give back."""


class CudaArrays:
    """Arrays on a CUDA device.

    Args:
        memory: Of the sessions' stream.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def noise(self, shape: tuple[int, ...], seed: int) -> DeviceArray:
        """Standard normal noise, drawn on the device."""
        noise = self._memory.empty(shape, np.float32)
        ops.randn(shape, seed=seed, out=noise, stream=self._memory.stream.handle)
        return noise

    def put(self, host: NDArray[Any]) -> DeviceArray:
        """A copy on the device."""
        return self._memory.put(np.ascontiguousarray(host))

    def get(self, array: DeviceArray) -> NDArray[Any]:
        """A copy on the host."""
        return array.numpy()

    def repeated(self, array: DeviceArray, count: int) -> DeviceArray:
        """The array `count` times."""
        if count == 1:
            return array
        result = self._memory.empty((count, *array.shape[1:]), array.dtype)
        for index in range(count):
            self._memory.copy(array, result[index : index + 1])
        return result

    def copy(self, array: DeviceArray) -> DeviceArray:
        """A copy on the device."""
        result = self._memory.empty(array.shape, array.dtype)
        self._memory.copy(array, result)
        return result

    def piece(self, latents: DeviceArray, index: int) -> DeviceArray:
        """One place along the time axis, copied on the device."""
        one, channels, count, *plane = latents.shape
        piece = self._memory.empty((one, channels, 1, *plane), latents.dtype)
        size = piece.nbytes // channels
        source = latents.pointer + index * size
        self._memory.copy_rows(source, count * size, piece.pointer, size, size, channels)
        return piece

    def place(self, latents: DeviceArray, indices: tuple[int, ...], known: NDArray[Any]) -> None:
        """Writes known latents, which go up once."""
        given = self.put(known)
        channels, count = latents.shape[1:3]
        size = latents.nbytes // (channels * count)
        for number, index in enumerate(indices):
            self._memory.copy_rows(
                given.pointer + number * size,
                len(indices) * size,
                latents.pointer + index * size,
                count * size,
                size,
                channels,
            )

    def finite(self, latents: DeviceArray, *, last: bool) -> bool:
        """Looks at the last latents only: what is not finite stays so to the end."""
        return not last or bool(np.isfinite(latents.numpy()).all())

    def close(self) -> None:
        """Frees what waits; latents that are held free theirs when they are gone."""
        self._memory.close()


def arrays_for(session: Session) -> Arrays:
    """Arrays that are best for a session; its stream orders the work on them."""
    stream = session.stream
    if stream is None or not _core.cuda_compiled():
        return HostArrays()
    device = parse_device(session.report().device).index
    return CudaArrays(Memory(Stream(device, stream)))
