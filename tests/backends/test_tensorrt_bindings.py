"""What the backend uses of TensorRT against the real bindings, and that nothing crashes without."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import null_tensorrt
import pytest
import tensorrt_api

from fastvid.devices import cuda_driver

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "python" / "fastvid" / "backends" / "tensorrt"
OBJECTS = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "config": "IBuilderConfig",
    "parser": "OnnxParser",
    "profile": "IOptimizationProfile",
    "cache": "ITimingCache",
    "measured": "ITimingCache",
    "engine": "ICudaEngine",
    "_engine": "ICudaEngine",
    "_runtime": "Runtime",
    "context": "IExecutionContext",
    "_context": "IExecutionContext",
}
"""What the names in `_build.py` and `_engine.py` stand for."""


def installed() -> str:
    try:
        return version("tensorrt-cu13-bindings")
    except PackageNotFoundError:
        pytest.skip("tensorrt-cu13-bindings is not installed")


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Any]:
    """The real bindings; nothing can be built or run with them here."""
    installed()
    before = set(sys.modules)
    try:
        trt, _ = null_tensorrt.load(tmp_path)
    except ImportError as error:
        pytest.skip(str(error))
    yield trt
    for name in set(sys.modules) - before:
        if name.startswith("tensorrt"):
            del sys.modules[name]


def number(text: str) -> list[int]:
    return [int(part) for part in text.split(".")]


def test_the_data_is_what_the_installed_bindings_have(real: Any) -> None:
    """For a version that was not looked at yet, what the one before it has must be unchanged."""
    known = tensorrt_api.known()
    older = [one for one in known if number(one) <= number(real.__version__)]
    found = tensorrt_api.describe(real)
    if older[-1] == real.__version__:
        assert found == known[older[-1]]
    for name, members in known[older[-1]].items():
        for member, what in members.items():
            assert found[name].get(member) == what, f"{name}.{member} is new in {real.__version__}"


def test_versions_differ_only_where_the_code_looks() -> None:
    """One code path serves them all because so little of what it uses has changed."""
    known = tensorrt_api.known()
    assert [number(one)[:2] for one in known] == [[10, 3], [10, 16], [11, 4]]
    wanted = {name: set(members.split()) for name, members in tensorrt_api.USED.items()}
    for one, api in known.items():
        missing = {
            f"{name}.{member}" for name in wanted for member in wanted[name] - set(api[name])
        }
        old = {"HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY"}
        assert missing == (old if number(one)[:2] < [10, 11] else set()), one


def used() -> set[tuple[str, str]]:
    """Class and member of everything in the sources that can be told to be TensorRT's."""
    found = set()
    for path in sorted(SOURCES.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Attribute):
                continue
            owner = node.value
            if isinstance(owner, ast.Attribute) and ast.unparse(owner.value) in (
                "trt",
                "self._trt",
            ):
                found.add((owner.attr, node.attr))
            elif ast.unparse(owner) in ("trt", "self._trt", "self.trt"):
                found.add((node.attr, ""))
            elif path.name in ("_build.py", "_engine.py"):
                last = ast.unparse(owner).removeprefix("self.")
                if last in OBJECTS and not (last == "engine" and path.name == "_build.py"):
                    found.add((OBJECTS[last], node.attr))
    return found


def test_every_name_in_the_sources_is_looked_up() -> None:
    names = used()
    assert len(names) > 50, "the search finds what is there"
    for owner, member in names:
        if owner == "__version__" or (owner, member) == ("Builder", ""):
            continue
        assert owner in tensorrt_api.USED, owner
        if member and member != "__init__":
            assert member in tensorrt_api.USED[owner].split(), f"{owner}.{member}"


# Without a driver

NO_DRIVER = pytest.mark.skipif(not cuda_driver().problem, reason="a CUDA device is here")
HEAD = """
import os, sys, tempfile
from pathlib import Path
sys.path.insert(0, {tests!r})
import null_tensorrt
trt, _ = null_tensorrt.load(Path(tempfile.mkdtemp()))
sys.modules["tensorrt"] = trt
# With TensorRT's own libraries these end the process where no driver is.
trt.Runtime = trt.Builder = lambda *arguments: os.abort()
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    installed()
    head = HEAD.format(tests=str(ROOT / "tests"))
    command = [sys.executable, "-c", head + code]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@NO_DRIVER
@pytest.mark.parametrize(
    "call",
    [
        "backends.open(bundle, backend='tensorrt')",
        "backends.open(bundle, backend='tensorrt', device='cuda:1')",
        "backends.open(bundle, backend=tensorrt.EngineOptions(build='background'))",
        "backends.open(bundle, backend=tensorrt.EngineOptions(build='never'))",
        "tensorrt.build(bundle)",
        "tensorrt.build(bundle, 'cuda:7', tensorrt.EngineOptions(sizes=('360p',)))",
        "fastvid.Upscaler(backend='tensorrt')",
        "fastvid.Interpolator(device='cuda', backend='tensorrt')",
    ],
)
def test_nothing_of_ours_does(call: str) -> None:
    result = run(
        f"""
import fastvid
from fastvid import backends
from fastvid.backends import tensorrt
from fastvid.errors import NoDeviceError
bundle = fastvid.bundle.Bundle.find("fast", "upscaler", 2)
try:
    {call}
except NoDeviceError as error:
    print(error.message)
"""
    )
    assert result.returncode == 0, result.stderr
    assert "no NVIDIA driver" in result.stdout


@NO_DRIVER
def test_commands_end_with_the_documented_code(tmp_path: Path) -> None:
    result = run(
        """
from fastvid.cli import main
codes = [main(["engines", "--json"]), main(["doctor", "--json"])]
print(codes)
"""
    )
    assert result.returncode == 0, result.stderr
    codes = json.loads(result.stdout.splitlines()[-1])
    assert all(code in (0, 6) for code in codes)


@NO_DRIVER
def test_auto_leaves_it_alone() -> None:
    result = run(
        """
import fastvid
with fastvid.Upscaler() as model:
    print(model.report().backend, "TensorRT" in model.report().reason)
"""
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "onnxruntime False"
