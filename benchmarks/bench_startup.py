"""Time to import, time to the help text, and installed size without torch.

    python benchmarks/bench_startup.py [--rounds 15]

Each time is that of a whole process; a bare interpreter is timed beside them, interleaved. The
size is that of the files of fastvid, its compiled ops and models, and of every distribution that
`fastvid-sdk[cpu]` needs; bytecode, which Python writes itself, is counted apart.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import timing

import fastvid
from fastvid import _core

COMMANDS = {
    "python": ["-c", "pass"],
    "import_fastvid": ["-c", "import fastvid"],
    "import_every_name": [
        "-c",
        "import fastvid\nfor name in fastvid.__all__: getattr(fastvid, name)\nfastvid.ops.warp",
    ],
    "help": ["-m", "fastvid", "--help"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    check()
    rows = timing.compare(
        {name: process(arguments) for name, arguments in COMMANDS.items()}, rounds=options.rounds
    )
    sizes = installed_bytes()
    print(rows, {name: f"{size / 1e6:.1f} MB" for name, size in sizes.items()})
    timing.write_results(
        timing.RESULTS / "startup.json",
        {"time": rows, "bytes": sizes, "total_bytes": sum(sizes.values())},
    )


def check() -> None:
    """The timed commands must do what they say, and the size must hold no torch."""
    help_text = subprocess.run(
        [sys.executable, *COMMANDS["help"]], capture_output=True, text=True, check=True
    ).stdout
    if "interpolate" not in help_text:
        raise SystemExit("the help text is wrong, so its time means nothing")
    if "torch" in requirements("fastvid-sdk", "cpu"):
        raise SystemExit("fastvid-sdk[cpu] must not need torch")


def process(arguments: list[str]) -> Callable[[], object]:
    def run() -> object:
        return subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)

    return run


def installed_bytes() -> dict[str, int]:
    """Bytes by distribution, and of the bytecode of all."""
    sizes, bytecode = {"fastvid-sdk": own_bytes()}, 0
    for name in sorted(requirements("fastvid-sdk", "cpu")):
        listed = importlib.metadata.distribution(name).files or []
        files = {path for file in listed if (path := Path(file.locate())).is_file()}
        sizes[name] = sum(path.stat().st_size for path in files if path.suffix != ".pyc")
        bytecode += sum(path.stat().st_size for path in files if path.suffix == ".pyc")
    return {**sizes, "bytecode": bytecode}


def own_bytes() -> int:
    """Bytes of the package, also where it is installed in editable mode."""
    package = Path(fastvid.__file__).parent
    files = {path for path in package.rglob("*") if path.is_file()} | {Path(_core.__file__)}
    return sum(path.stat().st_size for path in files if path.suffix != ".pyc")


def requirements(name: str, extra: str = "") -> set[str]:
    """Distributions that one needs, directly or through others."""
    found: set[str] = set()
    pending = [(name, extra)]
    while pending:
        current, wanted = pending.pop()
        for line in importlib.metadata.distribution(current).requires or []:
            requirement, _, marker = line.partition(";")
            if marker and not (wanted and re.search(rf"extra == ['\"]{wanted}['\"]", marker)):
                continue
            match = re.match(r"[A-Za-z0-9._-]+", requirement)
            if match and match[0] not in found:
                found.add(match[0])
                pending.append((match[0], ""))
    return found


if __name__ == "__main__":
    main()
