"""Fixtures every test may use."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastvid import _core

_ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real clips, photos and weights; skips where it is absent."""
    folder = Path(os.environ.get("FASTVID_TEST_DATA", _ROOT.parent / "shared" / "data"))
    if not (folder / "clips").is_dir():
        pytest.skip(f"real clips are not at {folder}; set FASTVID_TEST_DATA to their folder")
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20260807)


@pytest.fixture(params=["baseline", "avx2", "avx512"])
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test once per instruction set this machine has, with the ops forced to it."""
    if request.param not in _core.cpu_isas():
        pytest.skip(f"this machine does not run {request.param}")
    _core._force_isa(request.param)
    yield request.param
    _core._force_isa(None)


@pytest.fixture
def each_isa() -> Iterator[Callable[[Callable[[], object]], dict[str, object]]]:
    """A function that calls another once per instruction set and returns the results by name."""

    def run(function: Callable[[], object]) -> dict[str, object]:
        results = {}
        for name in _core.cpu_isas():
            _core._force_isa(name)
            results[name] = function()
        return results

    yield run
    _core._force_isa(None)


@pytest.fixture
def run_node() -> Callable[..., Any]:
    """Runs one node of the ONNX domain `fastvid` in onnxruntime on the CPU.

    Gives its output, or a list of them with `outputs` above 1.
    """
    ort = pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")

    def run(
        op_type: str,
        *inputs: NDArray[Any] | None,
        threads: int = 2,
        outputs: int = 1,
        **attributes: int,
    ) -> Any:
        helper = onnx.helper
        given = {f"in{i}": array for i, array in enumerate(inputs) if array is not None}
        names = [f"in{i}" if array is not None else "" for i, array in enumerate(inputs)]
        values = [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim
            )
            for name, array in given.items()
        ]
        results = [f"out{i}" for i in range(outputs)]
        node = helper.make_node(op_type, names, results, domain="fastvid", **attributes)
        graph = helper.make_graph(
            [node], "one", values, [onnx.ValueInfoProto(name=name) for name in results]
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("fastvid", 1)]
        )
        model.ir_version = 9
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.register_custom_ops_library(_core.__file__)
        session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        found = session.run(None, given)
        return found[0] if outputs == 1 else found

    return run
