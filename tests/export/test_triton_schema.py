"""Model repositories for Triton against Triton's own schema, and against the graphs in them.

The schema is compiled into Triton's client: `pip install --no-deps tritonclient` (BSD-3-Clause).
"""

from __future__ import annotations

import importlib.util
import shutil
import warnings
from pathlib import Path
from typing import Any

import bundles
import onnx
import pytest
from google.protobuf import text_format
from onnx import helper

from fastvid.bundle import Bundle, shipped
from fastvid_export import triton

Config = Any
"""A message `inference.ModelConfig`."""


@pytest.fixture(scope="module")
def schema() -> Any:
    """The module of `model_config.proto`; without the rest of the client, which needs gRPC."""
    client = importlib.util.find_spec("tritonclient")
    if client is None or not client.submodule_search_locations:
        pytest.skip("Triton's schema is missing; pip install --no-deps tritonclient")
    path = Path(client.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        # It was compiled for the major version of protobuf before, which is allowed.
        warnings.simplefilter("ignore")
        spec.loader.exec_module(module)
    return module


def parse(schema: Any, folder: Path) -> Config:
    """Triton's reading of a model's configuration; an unknown field or a wrong value raises."""
    text = (folder / "config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, schema.ModelConfig())


def configurations(schema: Any, repository: Path) -> dict[str, Config]:
    return {
        folder.name: parse(schema, folder)
        for folder in sorted(repository.iterdir())
        if folder.is_dir()
    }


def bundle_of(kind: str, folder: Path) -> Bundle:
    if kind.startswith("shipped"):
        return Bundle.load(shipped()[kind.removeprefix("shipped ")])
    made: Bundle = getattr(bundles, kind)(folder)
    return made


@pytest.fixture(
    params=["upscaler", "interpolator", "shipped interpolator-fast", "shipped upscaler-fast-x2"]
)
def repository(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return triton.write(bundle_of(request.param, tmp_path / "a-bundle"), tmp_path / "repository")


def test_configurations_follow_the_schema(schema: Any, repository: Path) -> None:
    found = configurations(schema, repository)
    assert found
    for name, config in found.items():
        # Triton refuses a model whose folder has another name, and versions that are no numbers.
        assert config.name == name
        assert [path.name for path in (repository / name).iterdir() if path.is_dir()] == ["1"]
        assert config.backend == "onnxruntime" or config.platform == "ensemble"
        assert config.input
        assert config.output
        for tensor in [*config.input, *config.output]:
            assert tensor.data_type != schema.TYPE_INVALID, tensor
            assert all(size > 0 or size == -1 for size in tensor.dims), tensor


def test_configurations_describe_their_graphs(schema: Any, repository: Path) -> None:
    for name, config in configurations(schema, repository).items():
        if config.platform == "ensemble":
            continue
        model = onnx.load(repository / name / "1" / config.default_model_filename)
        for tensors, values in (
            (config.input, model.graph.input),
            (config.output, model.graph.output),
        ):
            assert [t.name for t in tensors] == [v.name for v in values]
            for tensor, value in zip(tensors, values, strict=True):
                kind = value.type.tensor_type
                numpy_name = helper.tensor_dtype_to_np_dtype(kind.elem_type).name
                word = {"float32": "FP32", "float16": "FP16"}.get(numpy_name, numpy_name.upper())
                assert schema.DataType.Name(tensor.data_type) == f"TYPE_{word}"
                shape = [d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim]
                wanted = tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims
                assert shape == [-1] * (config.max_batch_size > 0) + list(wanted), tensor


def test_ensembles_lead_every_tensor_somewhere(schema: Any, tmp_path: Path) -> None:
    made = triton.write(bundles.interpolator(tmp_path / "a-bundle"), tmp_path / "repository")
    found = configurations(schema, made)
    (ensemble,) = (c for c in found.values() if c.platform == "ensemble")
    known = {tensor.name: tensor for tensor in ensemble.input}
    for step in ensemble.ensemble_scheduling.step:
        model = found[step.model_name]
        assert set(step.input_map) == {tensor.name for tensor in model.input}
        assert set(step.output_map) <= {tensor.name for tensor in model.output}
        for tensor in model.input:
            given = known[step.input_map[tensor.name]]
            assert (given.data_type, given.dims) == (tensor.data_type, tensor.dims)
        known |= {step.output_map[t.name]: t for t in model.output if t.name in step.output_map}
        assert ensemble.max_batch_size <= model.max_batch_size
    for tensor in ensemble.output:
        assert (tensor.data_type, tensor.dims) == (
            known[tensor.name].data_type,
            known[tensor.name].dims,
        )


def test_the_schema_refuses_what_triton_would(schema: Any, repository: Path) -> None:
    folder = next(path for path in sorted(repository.iterdir()) if path.is_dir())
    text = (folder / "config.pbtxt").read_text()
    for wrong in (
        text + "max_batch: 3\n",
        text.replace("TYPE_UINT8", "TYPE_BYTE"),
        text + "input {",
    ):
        shutil.rmtree(folder.parent / "copy", ignore_errors=True)
        (folder.parent / "copy").mkdir()
        (folder.parent / "copy" / "config.pbtxt").write_text(wrong)
        with pytest.raises(text_format.ParseError):
            parse(schema, folder.parent / "copy")


def test_fields_for_operator_libraries_are_the_documented_ones(schema: Any) -> None:
    """docs/triton.md tells how to serve graphs that hold fastvid's operators."""
    page = Path(__file__).parents[2] / "docs" / "triton.md"
    (line,) = (x for x in page.read_text().splitlines() if x.startswith("model_operations"))
    config = text_format.Parse(line, schema.ModelConfig())
    (library,) = config.model_operations.op_library_filename
    assert library.endswith(".so")
