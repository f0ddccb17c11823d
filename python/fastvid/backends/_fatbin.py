"""Which GPUs a library has code for, read from the library itself.

nvcc puts device code into "fat binaries": a header, then for each architecture an entry with native
code (a cubin) or PTX, which the driver compiles. Neither driver nor CUDA is needed to look.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import NamedTuple

# Two little-endian layouts, as nvcc 13 and the wheels of onnxruntime have them:
# magic, version, size of the header, size of the entries;
_MAGIC = struct.pack("<I", 0xBA55ED50)
_HEADER = struct.Struct("<IHHQ")
# kind, version, size of the header, size of the code, then at 28 the architecture.
_ENTRY = struct.Struct("<HHIQ12xI")
_PTX, _CUBIN = 1, 2


class DeviceCode(NamedTuple):
    """Architectures as (major, minor), sorted."""

    native: tuple[tuple[int, int], ...]
    ptx: tuple[tuple[int, int], ...]

    def runs_on(self, capability: tuple[int, int]) -> bool:
        """Whether a device of a compute capability has code here.

        Native code runs on its own major version from its minor one on, PTX on all that are newer.
        """
        major, minor = capability
        return any(m == major and n <= minor for m, n in self.native) or any(
            found <= capability for found in self.ptx
        )

    def __str__(self) -> str:
        names = [f"sm_{major}{minor}" for major, minor in self.native]
        names += [f"compute_{major}{minor} (PTX)" for major, minor in self.ptx]
        return ", ".join(names) or "no GPU"


def device_code(library: Path) -> DeviceCode:
    """What a shared library holds.

    Raises:
        OSError: It cannot be read.
    """
    found: dict[int, set[int]] = {_PTX: set(), _CUBIN: set()}
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = data.find(_MAGIC)
        while at >= 0:
            at = data.find(_MAGIC, max(_read(data, at, found), at + len(_MAGIC)))
    native, ptx = (tuple(sorted(divmod(arch, 10) for arch in found[k])) for k in (_CUBIN, _PTX))
    return DeviceCode(native, ptx)


def _read(data: mmap.mmap, at: int, found: dict[int, set[int]]) -> int:
    """Notes the architectures of the fat binary at `at`; returns where it ends."""
    if at + _HEADER.size > len(data):
        return len(data)
    _, version, header, size = _HEADER.unpack_from(data, at)
    entry: int = at + header
    end: int = entry + size
    if version != 1 or header < _HEADER.size or end > len(data):
        # The bytes of the magic number by chance.
        return at
    while entry + _ENTRY.size <= end:
        kind, _, length, code, arch = _ENTRY.unpack_from(data, entry)
        if length < _ENTRY.size:
            break
        if kind in found:
            found[kind].add(arch)
        entry += length + code
    return end
