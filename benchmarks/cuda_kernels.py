"""Writes docs/cuda-kernels.md: what every CUDA kernel takes of every architecture.

    cmake --build BUILD | tee LOG      # configured with -DFASTVID_CUDA=ON -DFASTVID_CUDA_USAGE=ON
    python benchmarks/cuda_kernels.py LOG [--check]

Fails where a kernel spills registers to memory beyond its allowance. `--check` writes nothing, and
says whether the page still holds. Needs the standard library and c++filt.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cuda-kernels.md"
# Bytes of spill stores and loads that a kernel may have, by a part of its name. For sm_100 and
# sm_120 ptxas itself puts two registers of these aside, far below the limit of 255, to fit one more
# block: 72 or 80 registers there, where it takes up to 96 for the others without a spill.
SPILLS_ALLOWED = {
    "temporal_attention_plain<BFloat16, 16>": 32,
    "temporal_attention_plain<Half, 16>": 32,
    "warp_pixels_kernel<unsigned char, 16, unsigned long>": 12,
}

_ENTRY = re.compile(r"Compiling entry function '(\w+)' for 'sm_(\d+)\w*'")
_STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")


@dataclass
class Usage:
    """What one kernel takes on one architecture; memory in bytes per thread, shared per block."""

    stack: int = 0
    spills: int = 0
    registers: int = 0
    shared: int = 0


def read_log(text: str) -> dict[str, dict[int, Usage]]:
    """By kernel and architecture, from what ptxas says with --resource-usage."""
    found: dict[str, dict[int, Usage]] = {}
    usage, of_entry = Usage(), False
    for line in text.splitlines():
        if entry := _ENTRY.search(line):
            usage = found.setdefault(entry[1], {}).setdefault(int(entry[2]), Usage())
            mangled = entry[1]
        elif "Function properties for" in line:
            # Functions that were not inlined have lines of their own, without registers.
            of_entry = line.rstrip().endswith(f" {mangled}")
        elif stack := _STACK.search(line):
            if of_entry:
                usage.stack = int(stack[1])
            usage.spills += int(stack[2]) + int(stack[3])
        elif used := _USED.search(line):
            usage.registers = int(used[1])
            shared = _SHARED.search(line)
            usage.shared = int(shared[1]) if shared else 0
    names = dict(zip(found, _readable(list(found)), strict=True))
    return {names[mangled]: found[mangled] for mangled in sorted(found, key=lambda m: names[m])}


def _readable(mangled: list[str]) -> list[str]:
    command = ["c++filt", "--no-params"]
    text = subprocess.run(
        command, input="\n".join(mangled), capture_output=True, text=True, check=True
    ).stdout
    names = []
    for line in text.splitlines():
        name = re.sub(r"_GLOBAL__N__\w+?_cu_\w+?::|\(anonymous namespace\)::", "", line)
        name = re.sub(r"fastvid::(cuda::)?", "", name.strip())
        names.append(re.sub(r"^void ", "", re.sub(r"\((\w+|unsigned char)\)(?=\w)", "", name)))
    return names


def spilling(kernels: dict[str, dict[int, Usage]]) -> list[str]:
    """What spills more than it may."""
    lines = []
    for name, by_arch in kernels.items():
        allowed = max((n for part, n in SPILLS_ALLOWED.items() if part in name), default=0)
        lines += [
            f"{name} spills {usage.spills} bytes on sm_{arch}, allowed are {allowed}"
            for arch, usage in sorted(by_arch.items())
            if usage.spills > allowed
        ]
    return lines


def page(kernels: dict[str, dict[int, Usage]]) -> str:
    archs = sorted({arch for by_arch in kernels.values() for arch in by_arch})
    header = ["kernel", *[f"sm_{arch}" for arch in archs], "stack", "spills", "shared"]
    lines = [header, ["---"] + ["---:"] * (len(header) - 1)]
    for name, by_arch in kernels.items():
        registers = [str(by_arch[arch].registers) if arch in by_arch else "" for arch in archs]
        worst = [
            str(max(getattr(usage, figure) for usage in by_arch.values()))
            for figure in ("stack", "spills", "shared")
        ]
        lines.append([f"`{name}`", *registers, *worst])
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"""# What the CUDA kernels take

Registers per thread on each architecture, then the most bytes of stack and of spilled registers per
thread, and of static shared memory per block, as {_compiler()} compiles them. A build in CI fails
where a kernel spills beyond what `benchmarks/cuda_kernels.py` allows it, which wrote this page.
Nothing of this says how fast they run.

{table}
"""


def _compiler() -> str:
    text = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    version = re.search(r"release [\d.]+, V([\d.]+)", text)
    return f"nvcc {version[1]}" if version else "nvcc"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("log", type=Path)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    kernels = read_log(options.log.read_text(encoding="utf-8", errors="replace"))
    if not kernels:
        print(f"cuda kernels: {options.log.name} names none; build with -DFASTVID_CUDA_USAGE=ON")
        return 1
    builds = sum(map(len, kernels.values()))
    most = max(usage.registers for by_arch in kernels.values() for usage in by_arch.values())
    print(
        f"cuda kernels: {len(kernels)}, {builds} with their architectures, {most} registers at most"
    )
    problems = spilling(kernels)
    print("\n".join(problems) if problems else "cuda kernels: no spills beyond what is allowed")
    text = page(kernels)
    if not options.check:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        print(f"cuda kernels: {PAGE.name} is of other kernels or another compiler; write it anew")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
