"""Arrays and memory of CUDA devices, and what `_cuda_runtime` has.

All work of a model goes to one stream. Memory is taken and given back in the order of that stream,
so a block may be used again while the work that last used it is still queued.
"""

from __future__ import annotations

import ctypes
import math
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastvid.backends._cuda_runtime import (
    Event,
    Graph,
    Relaxed,
    Stream,
    call,
    copy,
    free_memory,
    runtime,
    use_device,
)
from fastvid.errors import InputError, InputTypeError, OutOfMemoryError

__all__ = [
    "Block",
    "DeviceArray",
    "Event",
    "Graph",
    "Memory",
    "PinnedMemory",
    "Relaxed",
    "Stream",
    "call",
    "copy",
    "free_memory",
    "runtime",
    "use_device",
]

_GRANULE = 512
_DLPACK_CUDA = 2
_DLPACK_CODES = {"i": 0, "u": 1, "f": 2, "b": 6}
_DLPACK_BFLOAT = 4


class Block:
    """Device memory; it goes back to where it came from when the last array on it is gone."""

    __slots__ = ("__weakref__", "_memory", "foreign", "pointer", "size")

    def __init__(self, memory: Memory, pointer: int, size: int) -> None:
        self._memory = memory
        self.pointer = pointer
        self.size = size
        self.foreign: set[int] = set()
        """Streams of other libraries that may have used the block."""

    @property
    def memory(self) -> Memory:
        """Where the block came from."""
        return self._memory

    def __del__(self) -> None:
        self._memory._give_back(self.pointer, self.size, self.foreign)


class DeviceArray:
    """A C-contiguous array on a CUDA device.

    Work on it is ordered by `stream`. Other libraries take it by DLPack, `fastvid.ops` too.
    """

    __slots__ = ("__weakref__", "_block", "dtype", "nbytes", "pointer", "shape")

    def __init__(self, block: Block, pointer: int, shape: tuple[int, ...], dtype: Any) -> None:
        self._block = block
        self.pointer = pointer
        """Address of the first element."""
        self.shape = shape
        self.dtype: np.dtype[Any] = dtype
        self.nbytes: int = math.prod(shape) * self.dtype.itemsize

    @property
    def device(self) -> str:
        """`cuda:N`."""
        return f"cuda:{self._block.memory.device}"

    @property
    def stream(self) -> int:
        """Address of the stream that orders the work on the array."""
        return self._block.memory.stream.handle

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<DeviceArray {self.dtype.name} {self.shape} on {self.device}>"

    def like(self, dtype: DTypeLike | None = None) -> DeviceArray:
        """An array of this shape, and dtype unless another is named, with undefined values."""
        return self._block.memory.empty(self.shape, self.dtype if dtype is None else dtype)

    def use_on(self, stream: int) -> None:
        """Lets work queued on `stream` from now on wait for the work on the array.

        The memory is not used again before what is queued there when the array ends is done.
        """
        self._block.memory.order(self._block, stream)

    def copy_to(self, host: NDArray[Any], stream: Stream) -> None:
        """Queues a copy to a host array on `stream`; the array must live until it is done."""
        _check_copy(self, host)
        copy(stream, host.ctypes.data, self.pointer, self.nbytes, "cudaMemcpyDeviceToHost")

    def numpy(self) -> NDArray[Any]:
        """A copy on the host; waits for the work on the array."""
        host = np.empty(self.shape, self.dtype)
        stream = self._block.memory.stream
        self.copy_to(host, stream)
        stream.mark().wait()
        return host

    def reshape(self, *shape: int) -> DeviceArray:
        """The same memory in another shape with as many elements."""
        if math.prod(shape) != self.size or any(size < 0 for size in shape):
            raise InputError(f"reshape: shape must hold {self.size} elements, got {shape}")
        return DeviceArray(self._block, self.pointer, tuple(shape), self.dtype)

    def __getitem__(self, index: int | slice) -> DeviceArray:
        """A part along the first axis, on the same memory."""
        row = self.nbytes // max(self.shape[0], 1)
        if isinstance(index, slice):
            begin, end, step = index.indices(self.shape[0])
            if step != 1:
                raise InputError(f"DeviceArray: slices must have a step of 1, got {step}")
            shape = (max(end - begin, 0), *self.shape[1:])
        else:
            begin = range(self.shape[0])[index]
            shape = self.shape[1:]
        return DeviceArray(self._block, self.pointer + begin * row, shape, self.dtype)

    def __dlpack_device__(self) -> tuple[int, int]:
        return _DLPACK_CUDA, self._block.memory.device

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> object:
        """Lends the memory; `stream` waits for the work on the array, as DLPack defines."""
        from fastvid import _core

        if dl_device not in (None, self.__dlpack_device__()) or copy:
            raise BufferError("a DeviceArray lends its own memory, without a copy")
        self._block.memory.order(self._block, stream)
        code, bits = _dlpack_type(self.dtype)
        versioned = max_version is not None and max_version[0] >= 1
        device = self.__dlpack_device__()
        return _core._dlpack_capsule(
            self.pointer, self.shape, code, bits, *device, self._block, versioned
        )


def _dlpack_type(dtype: np.dtype[Any]) -> tuple[int, int]:
    bits = 8 * dtype.itemsize
    if dtype.name == "bfloat16":
        return _DLPACK_BFLOAT, bits
    if dtype.kind not in _DLPACK_CODES:
        raise BufferError(f"dtype {dtype} cannot be exchanged")
    return _DLPACK_CODES[dtype.kind], bits


class Memory:
    """Memory of a device whose use is ordered by one stream.

    Blocks that come back are kept by their size, and freed when the device is full or when sizes
    have changed and more would lie idle than is in use.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.device = stream.device
        self._lock = threading.RLock()
        self._idle: dict[int, list[int]] = {}
        self._idle_bytes = 0
        self._used_bytes = 0
        self._open = True

    @property
    def used_bytes(self) -> int:
        """Bytes in arrays."""
        return self._used_bytes

    @property
    def idle_bytes(self) -> int:
        """Bytes that wait to be used again."""
        return self._idle_bytes

    def empty(self, shape: Sequence[int], dtype: DTypeLike) -> DeviceArray:
        """An array with undefined values.

        Raises:
            OutOfMemoryError: The device is full, even without the idle blocks.
        """
        kind = np.dtype(dtype)
        size = -(-max(math.prod(shape) * kind.itemsize, 1) // _GRANULE) * _GRANULE
        with self._lock:
            block = Block(self, self._take(size), size)
            self._used_bytes += size
        return DeviceArray(block, block.pointer, tuple(int(n) for n in shape), kind)

    def put(self, host: NDArray[Any]) -> DeviceArray:
        """A copy of a host array; it may be changed as soon as this returns."""
        array = self.empty(host.shape, host.dtype)
        self.write(array, host)
        return array

    def write(self, array: DeviceArray, host: NDArray[Any]) -> None:
        """Copies a host array to the device; one in page-locked memory must outlive the copy."""
        _check_copy(array, host)
        kind = "cudaMemcpyHostToDevice"
        copy(self.stream, array.pointer, host.ctypes.data, array.nbytes, kind)

    def read(self, array: DeviceArray, host: NDArray[Any]) -> None:
        """Copies to a host array, whose values are there when the stream has got so far."""
        array.copy_to(host, self.stream)

    def copy(self, source: DeviceArray, target: DeviceArray) -> None:
        """Copies between two arrays of as many bytes."""
        if source.nbytes != target.nbytes:
            raise InputError(f"copy: target must have {source.nbytes} bytes, got {target.nbytes}")
        self.copy_from(source.pointer, target)

    def copy_from(self, address: int, target: DeviceArray) -> None:
        """Fills an array from device memory of other libraries."""
        kind = "cudaMemcpyDeviceToDevice"
        copy(self.stream, target.pointer, address, target.nbytes, kind)

    def copy_rows(
        self, source: int, source_pitch: int, target: int, target_pitch: int, width: int, rows: int
    ) -> None:
        """Copies `rows` rows of `width` bytes whose starts are a pitch apart, device to device."""
        use_device(self.device)
        kind = runtime().cudaMemcpyKind.cudaMemcpyDeviceToDevice
        stream = self.stream.handle
        sizes = target, target_pitch, source, source_pitch, width, rows
        call("cudaMemcpy2DAsync", *sizes, kind, stream)

    def order(self, block: Block, stream: int | None) -> None:
        """Lets another stream wait for the work here, and remembers it until the block is free.

        Args:
            block: What the other stream will use.
            stream: As DLPack has it: an address, None or 1 for the legacy default stream, 2 for
                that of the thread, -1 to order nothing.
        """
        other = 1 if stream is None else stream
        if other in (-1, self.stream.handle):
            return
        event = self.stream.mark()
        call("cudaStreamWaitEvent", other, event.handle, 0)
        block.foreign.add(other)

    def trim(self) -> None:
        """Frees the idle blocks."""
        with self._lock:
            idle, self._idle, self._idle_bytes = self._idle, {}, 0
        if idle:
            use_device(self.device)
            with Relaxed():
                for pointers in idle.values():
                    for pointer in pointers:
                        call("cudaFree", pointer)

    def close(self) -> None:
        """Frees what is idle, and from now on every block as it comes back."""
        with self._lock:
            self._open = False
        self.trim()

    def _take(self, size: int) -> int:
        pointers = self._idle.get(size)
        if pointers:
            self._idle_bytes -= size
            return pointers.pop()
        if self._idle_bytes > self._used_bytes + size:
            self.trim()
        use_device(self.device)
        with Relaxed():
            try:
                return int(call("cudaMalloc", size))
            except OutOfMemoryError:
                self.trim()
            try:
                return int(call("cudaMalloc", size))
            except OutOfMemoryError:
                free, total = (int(n) >> 20 for n in call("cudaMemGetInfo"))
        raise OutOfMemoryError(
            f"memory: {-(-size >> 20)} MiB do not fit into cuda:{self.device}, which has {free} of "
            f"{total} MiB free",
            hint="use smaller frames or tiles",
        )

    def _give_back(self, pointer: int, size: int, foreign: set[int]) -> None:
        # Comes from __del__, maybe at the interpreter's end: nothing may be raised.
        try:
            for other in foreign:
                event = Event(self.device).record(other)
                self.stream.after(event)
            with self._lock:
                self._used_bytes -= size
                if self._open:
                    self._idle.setdefault(size, []).append(pointer)
                    self._idle_bytes += size
                    return
            use_device(self.device)
            with Relaxed():
                call("cudaFree", pointer)
        except Exception:
            return


def _check_copy(array: DeviceArray, host: NDArray[Any]) -> None:
    if not isinstance(host, np.ndarray):
        raise InputTypeError(f"copy: host array must be of NumPy, got {type(host).__name__}")
    if host.nbytes != array.nbytes or not host.flags.c_contiguous:
        raise InputError(
            f"copy: host array must be C-contiguous with {array.nbytes} bytes, got {host.nbytes}"
        )


class PinnedMemory:
    """Host memory that the device reads and writes at full speed, used again when it is free."""

    def __init__(self, device: int) -> None:
        self._device = device
        self._lock = threading.RLock()
        self._idle: dict[int, list[int]] = {}
        self._used_bytes = 0
        self._open = True

    @property
    def used_bytes(self) -> int:
        """Bytes in arrays."""
        return self._used_bytes

    def empty(self, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        """A NumPy array with undefined values; its memory comes back when the array is gone.

        Raises:
            OutOfMemoryError: No more memory can be locked.
        """
        kind = np.dtype(dtype)
        size = math.prod(shape) * kind.itemsize
        if size == 0:
            return np.empty(shape, kind)
        with self._lock:
            pointers = self._idle.get(size)
            pointer = pointers.pop() if pointers else self._lock_pages(size)
            self._used_bytes += size
        memory: Any = (ctypes.c_uint8 * size).from_address(pointer)
        weakref.finalize(memory, self._give_back, pointer, size).atexit = False
        host: NDArray[Any] = np.frombuffer(memory, np.uint8).view(kind).reshape(shape)
        return host

    def close(self) -> None:
        """Frees what is idle, and from now on all memory as it comes back."""
        with self._lock:
            self._open = False
            self._trim()

    def _lock_pages(self, size: int) -> int:
        # Frames of another size are over with.
        self._trim()
        use_device(self._device)
        with Relaxed():
            return int(call("cudaHostAlloc", size, runtime().cudaHostAllocDefault))

    def _trim(self) -> None:
        for pointers in self._idle.values():
            for pointer in pointers:
                self._free(pointer)
        self._idle = {}

    def _give_back(self, pointer: int, size: int) -> None:
        with self._lock:
            self._used_bytes -= size
            if self._open:
                self._idle.setdefault(size, []).append(pointer)
                return
        self._free(pointer)

    def _free(self, pointer: int) -> None:
        try:
            with Relaxed():
                call("cudaFreeHost", pointer)
        except Exception:
            return
