"""What is installed: one version, no torch, nothing heavy on import, and the models' files."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys

import pytest

import fastvid
from fastvid import _core

HEAVY = ("torch", "onnxruntime", "av", "PIL", "cv2", "onnx")


def modules_after(code: str) -> set[str]:
    """Top-level names in `sys.modules` of a fresh interpreter after `code`."""
    ending = "import sys, json; print(json.dumps(sorted({n.split('.')[0] for n in sys.modules})))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{ending}"], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_versions_agree() -> None:
    assert fastvid.__version__ == _core.__version__ == importlib.metadata.version("fastvid-sdk")


def test_import_loads_nothing_but_the_standard_library() -> None:
    loaded = modules_after("import fastvid")
    assert not loaded & {*HEAVY, "numpy"}


def test_every_public_name_loads_without_a_runtime_or_torch() -> None:
    loaded = modules_after(
        "import fastvid\nfor name in fastvid.__all__: getattr(fastvid, name)\nfastvid.ops.warp"
    )
    assert "numpy" in loaded
    assert not loaded & set(HEAVY)


def test_help_loads_neither_numpy_nor_a_runtime() -> None:
    loaded = modules_after(
        "from fastvid.cli import main\ntry: main(['run', '--help'])\nexcept SystemExit: pass"
    )
    assert not loaded & {*HEAVY, "numpy"}


def test_using_a_model_never_loads_torch() -> None:
    loaded = modules_after(
        "import fastvid, tempfile, numpy\n"
        "fastvid.Video.from_frames(numpy.zeros((2, 16, 16, 3), 'uint8'), 10)"
        ".save(tempfile.mkdtemp() + '/a.mp4')\n"
        "from fastvid.doctor import collect; collect()"
    )
    assert {"av", "onnxruntime"} <= loaded
    assert not loaded & {"torch", "fastvid_export"}


def test_public_names_are_the_documented_ones() -> None:
    assert set(fastvid.__all__) == {
        "FastvidError", "Generator", "Interpolator", "Pipeline", "Upscaler", "Video", "__version__",
        "bench", "errors", "ops", "schedulers",
    }  # fmt: skip
    assert dir(fastvid) == sorted(fastvid.__all__)
    assert fastvid.Video is fastvid.Video


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nonsuch'"):
        fastvid.Nonsuch  # noqa: B018


def test_typed_marker_is_installed() -> None:
    from importlib.resources import files

    assert (files("fastvid") / "py.typed").is_file()


def test_no_model_takes_more_than_its_share_of_the_wheel() -> None:
    from fastvid.bundle import Bundle, shipped

    sizes = {
        name: sum(file.size for file in Bundle.load(path).files.values())
        for name, path in shipped().items()
    }
    assert {"interpolator-fast", "upscaler-fast-x2"} <= set(sizes)
    assert max(sizes.values()) <= 20_000_000, sizes
